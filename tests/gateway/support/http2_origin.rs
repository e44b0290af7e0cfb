//! An origin that speaks HTTP/2 from the first byte, without TLS, and answers as told.

use std::future::Future;
use std::io::Read;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsAcceptor;

use super::http2::{RawPeer, SETTINGS, read_body};
use super::origin::Origin;

/// A request's head as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which connection it came on, from 0.
    pub connection: usize,
    /// Method and URI, scheme and authority included.
    pub line: String,
    /// Fields.
    pub headers: HeaderMap,
}

/// A recording HTTP/2 origin; stops when dropped.
pub struct H2Origin {
    address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
    _runtime: Runtime,
}

impl H2Origin {
    /// An origin that lets `streams` requests at once onto a connection and hands each to `answer`, with the number of its
    /// connection.
    pub fn start<A, F>(streams: u32, answer: A) -> Self
    where
        A: Fn(Request<RecvStream>, SendResponse<Bytes>, usize) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start_by(None, streams, answer)
    }

    /// As [`Self::start`], behind TLS where `tls` is given; a handshake that fails counts as a connection.
    pub fn start_by<A, F>(tls: Option<Arc<ServerConfig>>, streams: u32, answer: A) -> Self
    where
        A: Fn(Request<RecvStream>, SendResponse<Bytes>, usize) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("binds");
        let address = listener.local_addr().expect("bound").to_string();
        let (seen, connections) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<AtomicUsize>::default());
        let ended = Arc::<AtomicUsize>::default();
        let (record, count, answer, end) = (seen.clone(), connections.clone(), Arc::new(answer), ended.clone());
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let _ = tcp.set_nodelay(true);
                let number = count.fetch_add(1, Ordering::SeqCst);
                let (record, answer, tls, end) = (record.clone(), answer.clone(), tls.clone(), end.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(tcp, streams, number, &record, &*answer).await,
                        Some(tls) => {
                            if let Ok(tls) = TlsAcceptor::from(tls).accept(tcp).await {
                                serve(tls, streams, number, &record, &*answer).await;
                            }
                        }
                    }
                    end.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, seen, connections, ended, _runtime: runtime }
    }

    /// An origin that sends the request's body back, with a trailer that holds its length and the request's trailer `x-sum`.
    pub fn echo() -> Self {
        Self::start(100, |request, mut respond, _| async move {
            let Ok((body, trailers)) = read_body(request.into_body()).await else { return };
            let Ok(mut stream) = respond.send_response(Response::new(()), false) else { return };
            let mut map = HeaderMap::new();
            map.insert("x-length", body.len().into());
            if let Some(sum) = trailers.get("x-sum") {
                map.insert("x-sum", sum.clone());
            }
            let _ = stream.send_data(body.into(), false);
            let _ = stream.send_trailers(map);
        })
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Requests seen so far.
    pub fn requests(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Connections that ended so far.
    pub fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }
}

async fn serve<S, A, F>(io: S, streams: u32, number: usize, record: &Mutex<Vec<Seen>>, answer: &A)
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Fn(Request<RecvStream>, SendResponse<Bytes>, usize) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let shaken = h2::server::Builder::new().max_concurrent_streams(streams).handshake(io).await;
    let Ok(mut connection) = shaken else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let line = format!("{} {}", request.method(), request.uri());
        record.lock().unwrap().push(Seen { connection: number, line, headers: request.headers().clone() });
        tokio::spawn(answer(request, respond, number));
    }
}

/// An origin whose HTTP/2 connections are driven frame by frame, each with its number; the preface is read and SETTINGS are
/// out. Counts connections; records nothing.
pub fn raw_origin(serve: impl Fn(usize, RawPeer<TcpStream>) + Send + Sync + 'static) -> Origin {
    Origin::start_raw(move |number, mut stream, _| {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
        if stream.read_exact(&mut [0; 24]).is_ok() {
            let mut peer = RawPeer { stream, buffer: Vec::new() };
            peer.frame(SETTINGS, 0, 0, b"");
            serve(number, peer);
        }
    })
}

/// A configuration with one listener and `origin`, spoken to over HTTP/2, behind `/`; `more` are further sections.
pub fn config_http2(origin: &H2Origin, upstream: &str, more: &str) -> String {
    config_http2_at(origin.address(), upstream, more)
}

/// As [`config_http2`], by the origin's address.
pub fn config_http2_at(origin: &str, upstream: &str, more: &str) -> String {
    format!(
        r#"listen: [{{ address: "127.0.0.1:0" }}]
admin: {{ address: "127.0.0.1:0" }}
keys: {{ file: keys.yaml }}
credentials: [{{ header: X-Api-Key }}]
upstreams:
  app: {{ servers: ["{}"], http2: true{upstream} }}
routes:
  - {{ path: /, upstream: app }}
log: {{ level: info, format: json, access: stdout }}
{more}"#,
        origin
    )
}
