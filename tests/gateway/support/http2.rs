//! HTTP/2 clients: one that speaks through the `h2` crate, and one that sends raw frames, well formed or not.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsConnector;

use super::gateway::{Gateway, write_private};
use super::{KEYS, SECRETS};

/// Overhead of unread small frames that the client of the tests allows, in bytes.
const SMALL_FRAMES: usize = 1 << 26;

/// A gate with one TLS listener, and the certificate it shows.
pub struct TlsGate {
    /// The gate.
    pub gate: Gateway,
    certificate: CertificateDer<'static>,
}

impl TlsGate {
    /// Starts a gate with `config`, whose first `listen` entry becomes a TLS listener.
    pub fn start(config: &str) -> Self {
        Self::start_with_keys(config, KEYS)
    }

    /// As [`Self::start`], with a key file of its own.
    pub fn start_with_keys(config: &str, keys: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let made = rcgen::generate_simple_self_signed(["gate.test".to_owned()]).expect("a certificate");
        write_private(&dir.path().join("cert.pem"), &made.cert.pem());
        write_private(&dir.path().join("key.pem"), &made.signing_key.serialize_pem());
        let tls = r#"address: "127.0.0.1:0", tls: { certificates: [{ cert: cert.pem, key: key.pem }] }"#;
        let config = config.replacen(r#"address: "127.0.0.1:0""#, tls, 1);
        let gate = Gateway::start_in(dir, &config, keys, &[]);
        Self { gate, certificate: made.cert.der().clone() }
    }

    fn client_config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }

    /// A connection through the `h2` crate.
    pub fn connect(&self) -> H2Client {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let (address, config) = (self.gate.address(0).to_owned(), self.client_config());
        let send = runtime.block_on(async move {
            let tcp = tokio::net::TcpStream::connect(address).await.expect("connects");
            tcp.set_nodelay(true).expect("set");
            let name = ServerName::try_from("gate.test").expect("a name");
            let tls = TlsConnector::from(config).connect(name, tcp).await.expect("shakes hands");
            assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            // Small frames that wait to be read are no attack: a busy machine lets a test wait.
            let builder = h2::client::Builder::new().data_frame_budget(SMALL_FRAMES).clone();
            let (send, connection) = builder.handshake(tls).await.expect("HTTP/2");
            tokio::spawn(connection);
            send
        });
        H2Client { runtime, send }
    }

    /// A connection that sends raw frames; preface and empty SETTINGS are out already.
    pub fn connect_raw(&self) -> RawClient {
        let tcp = TcpStream::connect(self.gate.address(0)).expect("connects");
        tcp.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        tcp.set_write_timeout(Some(Duration::from_secs(20))).expect("set");
        tcp.set_nodelay(true).expect("set");
        let name = ServerName::try_from("gate.test").expect("a name");
        let session = ClientConnection::new(self.client_config(), name).expect("a session");
        let mut client = RawClient { stream: StreamOwned::new(session, tcp), buffer: Vec::new() };
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").frame(SETTINGS, 0, 0, b"");
        client
    }
}

/// One answer over HTTP/2.
#[derive(Clone, Debug)]
pub struct H2Response {
    /// Status.
    pub status: u16,
    /// Fields.
    pub headers: HeaderMap,
    /// Body.
    pub body: Vec<u8>,
    /// Trailers.
    pub trailers: HeaderMap,
}

impl H2Response {
    /// The one value of a field.
    pub fn one(&self, name: &str) -> Option<&str> {
        assert!(self.headers.get_all(name).iter().count() <= 1, "{name} came twice");
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }

    /// Body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection through the `h2` crate.
pub struct H2Client {
    /// Where its connection is driven.
    pub runtime: Runtime,
    /// Opens streams.
    pub send: SendRequest<Bytes>,
}

/// What opens a stream: an answer to come, and where to send a body.
pub type Opened = (h2::client::ResponseFuture, SendStream<Bytes>);

impl H2Client {
    /// A request to `https://gate.test`.
    pub fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(format!("https://gate.test{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request")
    }

    /// Opens a stream.
    pub fn open(&mut self, request: Request<()>, ends: bool) -> Opened {
        let mut send = self.send.clone();
        self.runtime.block_on(async move {
            send = send.ready().await.expect("ready");
            send.send_request(request, ends).expect("sent")
        })
    }

    /// Runs a future within a deadline.
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        let bounded = async { tokio::time::timeout(Duration::from_secs(20), future).await };
        self.runtime.block_on(bounded).expect("the gate answers in time")
    }

    /// One request and its whole answer; a stream that is reset gives its error.
    pub fn try_request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<H2Response, h2::Error> {
        let (response, mut stream) = self.open(Self::head(method, path, headers), body.is_empty());
        if !body.is_empty() {
            // A refusal may be there, and its stream closed, before the body goes out: the answer tells.
            let _ = stream.send_data(Bytes::copy_from_slice(body), true);
        }
        self.wait(answer(response))
    }

    /// One request and its whole answer.
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> H2Response {
        self.try_request(method, path, headers, body).expect("an answer")
    }
}

/// Reads a whole answer.
pub async fn answer(response: h2::client::ResponseFuture) -> Result<H2Response, h2::Error> {
    let (parts, body) = response.await?.into_parts();
    let (body, trailers) = read_body(body).await?;
    let response = H2Response { status: parts.status.as_u16(), headers: parts.headers, body, trailers };
    let seen = format!("{:?}{}", response.headers, response.text());
    assert!(SECRETS.iter().all(|secret| !seen.contains(secret)), "a response shows a secret: {seen}");
    Ok(response)
}

/// Reads a body to its end, and its trailers.
pub async fn read_body(mut body: RecvStream) -> Result<(Vec<u8>, HeaderMap), h2::Error> {
    let mut whole = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        whole.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len())?;
    }
    Ok((whole, body.trailers().await?.unwrap_or_default()))
}

/// Frame types (RFC 9113 section 6).
pub const DATA: u8 = 0;
/// HEADERS.
pub const HEADERS: u8 = 1;
/// RST_STREAM.
pub const RST_STREAM: u8 = 3;
/// SETTINGS.
pub const SETTINGS: u8 = 4;
/// PING.
pub const PING: u8 = 6;
/// GOAWAY.
pub const GOAWAY: u8 = 7;
/// WINDOW_UPDATE.
pub const WINDOW_UPDATE: u8 = 8;
/// CONTINUATION.
pub const CONTINUATION: u8 = 9;
/// Flag of DATA and HEADERS.
pub const END_STREAM: u8 = 1;
/// Flag of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 4;

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Flags.
    pub flags: u8,
    /// Stream.
    pub stream: u32,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Error code of a RST_STREAM or GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// One end of a connection that sends raw frames.
pub struct RawPeer<S> {
    /// The bytes' way.
    pub stream: S,
    /// Bytes read and not used.
    pub buffer: Vec<u8>,
}

/// A client's.
pub type RawClient = RawPeer<StreamOwned<ClientConnection, TcpStream>>;

impl<S: Read + Write> RawPeer<S> {
    /// Sends raw bytes; a gate that closed already is no error here.
    pub fn send(&mut self, bytes: &[u8]) -> &mut Self {
        let _ = self.stream.write_all(bytes);
        let _ = self.stream.flush();
        self
    }

    /// Sends a frame.
    pub fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> &mut Self {
        let bytes = frame(kind, flags, stream, payload);
        self.send(&bytes)
    }

    /// The next frame; `None` when the gate closed.
    pub fn read(&mut self) -> Option<Frame> {
        loop {
            if let Some(&[a, b, c, kind, flags, s1, s2, s3, s4]) = self.buffer.first_chunk() {
                let length = u32::from_be_bytes([0, a, b, c]) as usize;
                if self.buffer.len() >= 9 + length {
                    let payload = self.buffer.drain(..9 + length).skip(9).collect();
                    let stream = u32::from_be_bytes([s1, s2, s3, s4]);
                    return Some(Frame { kind, flags, stream, payload });
                }
            }
            let mut chunk = [0; 16384];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the gate is silent"),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_closed) => return None,
            }
        }
    }

    /// Reads until a frame for which `wanted` holds; `None` when the gate closed before one.
    pub fn read_until(&mut self, mut wanted: impl FnMut(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.read()?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block of literals without indexing and without Huffman coding (RFC 7541 section 6.2.2): any bytes at all.
pub fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        text(&mut bytes, name);
        text(&mut bytes, value);
    }
    bytes
}

/// A string literal (RFC 7541 section 5.2).
fn text(bytes: &mut Vec<u8>, text: &[u8]) {
    let mut length = text.len();
    if length < 127 {
        bytes.push(length as u8);
    } else {
        bytes.push(127);
        length -= 127;
        while length >= 128 {
            bytes.push((length % 128 + 128) as u8);
            length /= 128;
        }
        bytes.push(length as u8);
    }
    bytes.extend_from_slice(text);
}
