//! Memory that the gate holds per idle connection, of each kind (design section 3): 1 KiB plain, 15 KiB TLS, 5 KiB WebSocket.
//! `cargo bench --bench memory` opens 2,000 of each and prints anonymous memory of the process per connection, the kernel's
//! own not counted; another number may follow: `-- 5000`. Without `--bench` it opens few and measures nothing.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench that cannot go on panics and says why"
)]
#![expect(unreachable_pub, reason = "what benches share is a small library")]

mod support;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use support::gate::{Gate, KEY};

/// Opened before the first look, so that what is allocated once is not counted.
const WARM: usize = 200;
const KIB: f64 = 1024.0;

/// A kind of idle connection, and the most it may cost by design section 3.
struct Kind {
    name: &'static str,
    tls: bool,
    then: Then,
    goal: Option<f64>,
}

/// What an idle connection did before it was idle.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Nothing,
    OneRequest,
    OneMessage,
    OneStream,
}

const KINDS: [Kind; 8] = [
    Kind { name: "plain, nothing sent", tls: false, then: Then::Nothing, goal: Some(1.0) },
    Kind { name: "plain, kept alive", tls: false, then: Then::OneRequest, goal: Some(1.0) },
    Kind { name: "TLS, nothing sent", tls: true, then: Then::Nothing, goal: Some(15.0) },
    Kind { name: "TLS, kept alive", tls: true, then: Then::OneRequest, goal: Some(15.0) },
    Kind { name: "WebSocket", tls: false, then: Then::OneMessage, goal: Some(5.0) },
    Kind { name: "WebSocket over TLS", tls: true, then: Then::OneMessage, goal: Some(20.0) },
    Kind { name: "HTTP/2, kept alive", tls: true, then: Then::OneStream, goal: None },
    Kind { name: "HTTP/2, nothing sent", tls: true, then: Then::Nothing, goal: None },
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let measures = arguments.iter().any(|argument| argument == "--bench");
    let count = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(2_000);
    let (warm, count) = if measures { (WARM, count) } else { (3, 3) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    if measures {
        println!("{:<24}{:>14}{:>10}{:>10}", "idle connection", "bytes each", "KiB", "goal");
    }
    for kind in &KINDS {
        let each = runtime.block_on(measure(kind, warm, count));
        if measures {
            let goal = kind.goal.map_or("-".to_owned(), |goal| format!("{goal:.0}"));
            let over = kind.goal.is_some_and(|goal| each / KIB > goal);
            let verdict = if over { "  over" } else { "" };
            println!("{:<24}{each:>14.0}{:>10.2}{goal:>10}{verdict}", kind.name, each / KIB);
        }
    }
}

/// Bytes per connection of `kind`.
async fn measure(kind: &Kind, warm: usize, count: usize) -> f64 {
    let origin = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = origin.local_addr().expect("bound");
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = origin.accept().await.expect("accepts");
            tokio::spawn(serve(stream));
        }
    });
    let http2 = kind.name.starts_with("HTTP/2");
    let tls = if kind.tls { ", tls: { certificates: [{ cert: cert.pem, key: key.pem }] }" } else { "" };
    let gate = Gate::start(&format!(
        "listen: [{{ address: \"127.0.0.1:0\"{tls} }}]
connections: {{ max: 1000000, per_address: 1000000 }}
request: {{ header_timeout: 1h, keepalive_timeout: 1h }}
threads: 1
upstreams: {{ app: {{ servers: [\"{address}\"], websocket_idle_timeout: 1h }} }}
routes: [{{ path: /, upstream: app }}]
log: {{ level: info, format: json }}
"
    ));
    let tls = kind.tls.then(|| connector(&gate.certificate, if http2 { b"h2" } else { b"http/1.1" }));
    let mut open = Vec::new();
    let mut looks = [0.0; 2];
    for (look, more) in looks.iter_mut().zip([warm, count]) {
        for _ in 0..more {
            open.push(idle(kind, &gate.listeners[0], tls.as_ref()).await);
        }
        // The last ones have still to come to rest.
        tokio::time::sleep(Duration::from_millis(300)).await;
        *look = anonymous_memory(gate.pid());
    }
    serving.abort();
    (looks[1] - looks[0]) / count as f64
}

/// Whatever keeps a connection open.
type Held = Box<dyn std::any::Any>;

async fn idle(kind: &Kind, address: &str, tls: Option<&TlsConnector>) -> Held {
    let stream = TcpStream::connect(address).await.expect("connects");
    stream.set_nodelay(true).expect("set");
    let Some(tls) = tls else { return idle_on(kind, stream).await };
    let stream = tls.connect(ServerName::try_from("gate.test").expect("a name"), stream).await.expect("shakes hands");
    idle_on(kind, stream).await
}

async fn idle_on<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(kind: &Kind, mut stream: S) -> Held {
    match kind.then {
        Then::Nothing => {}
        Then::OneRequest => {
            let request = format!("GET / HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {KEY}\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("sent");
            let head = read_head(&mut stream).await;
            assert!(head.starts_with("HTTP/1.1 204"), "{head}");
        }
        Then::OneMessage => {
            let request = format!(
                "GET / HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {KEY}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.expect("sent");
            let head = read_head(&mut stream).await;
            assert!(head.starts_with("HTTP/1.1 101"), "{head}");
            let frame = [0x81, 0x85, 0, 0, 0, 0, b'h', b'e', b'l', b'l', b'o'];
            stream.write_all(&frame).await.expect("sent");
            let mut echo = [0; 11];
            stream.read_exact(&mut echo).await.expect("an echo");
            assert_eq!(echo, frame);
        }
        Then::OneStream => {
            let (send, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
            let driver = tokio::spawn(connection);
            let mut send = send.ready().await.expect("ready");
            let request =
                http::Request::get("https://gate.test/").header("x-api-key", KEY).body(()).expect("a request");
            let (answer, _) = send.send_request(request, true).expect("sent");
            assert_eq!(answer.await.expect("an answer").status(), 204);
            return Box::new((send, driver));
        }
    }
    Box::new(stream)
}

/// Answers 204, and returns bytes as they came behind a handshake.
async fn serve(mut stream: TcpStream) {
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    loop {
        let head = read_head(&mut stream).await;
        if head.is_empty() {
            return;
        }
        if !head.contains("websocket") {
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
            continue;
        }
        let answer = format!(
            "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
        );
        let _ = stream.write_all(answer.as_bytes()).await;
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
        return;
    }
}

/// A head as text; empty where the stream ended.
async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return String::new(),
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

fn connector(certificate: &str, protocol: &[u8]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// Resident memory of a process that belongs to no file, in bytes.
fn anonymous_memory(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kib.unwrap_or_else(|| panic!("no RssAnon: {status}")) * KIB
}
