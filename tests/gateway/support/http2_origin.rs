//! An origin that speaks HTTP/2 from the first byte, without TLS, and answers as told.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use super::http2::read_body;

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
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("binds");
        let address = listener.local_addr().expect("bound").to_string();
        let (seen, connections) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<AtomicUsize>::default());
        let (record, count, answer) = (seen.clone(), connections.clone(), Arc::new(answer));
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let _ = tcp.set_nodelay(true);
                let number = count.fetch_add(1, Ordering::SeqCst);
                let (record, answer) = (record.clone(), answer.clone());
                tokio::spawn(async move {
                    let shaken = h2::server::Builder::new().max_concurrent_streams(streams).handshake(tcp).await;
                    let Ok(mut connection) = shaken else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        let line = format!("{} {}", request.method(), request.uri());
                        record.lock().unwrap().push(Seen {
                            connection: number,
                            line,
                            headers: request.headers().clone(),
                        });
                        tokio::spawn(answer(request, respond, number));
                    }
                });
            }
        });
        Self { address, seen, connections, _runtime: runtime }
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
}

/// A configuration with one listener and `origin`, spoken to over HTTP/2, behind `/`; `more` are further sections.
pub fn config_http2(origin: &H2Origin, upstream: &str, more: &str) -> String {
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
        origin.address()
    )
}
