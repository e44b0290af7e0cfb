//! The echo service behind the demo: tells as JSON what reached it, and sends WebSocket messages back. It runs on a thread and
//! a port of its own, as any upstream would.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::http1::body::{BodyDecoder, Decoded, Sender};
use crate::http1::head::HeadLimits;
use crate::http1::request::{Request, RequestHead};

/// Heads as large as a gate may send.
const LIMITS: HeadLimits = HeadLimits { max_head_bytes: 64 * 1024, max_headers: 256, max_target_bytes: 16 * 1024 };

/// Starts the service; says where it listens.
pub(super) fn start() -> io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("echo".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    // A connection that breaks is the other side's affair.
                    let _ = serve(stream).await;
                });
            }
        });
    })?;
    Ok(address)
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut head = RequestHead::default();
    loop {
        while !head.parse(&bytes, &LIMITS).map_err(|_refused| io::ErrorKind::InvalidData)? {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        }
        let request = head.view(&bytes);
        if request.is_websocket() {
            let switching = switching(request);
            stream.write_all(switching.as_bytes()).await?;
            return echo_messages(stream, greeting(request)).await;
        }
        let (framing, length) = (request.framing(), request.len());
        let told = describe(request);
        bytes.drain(..length);
        let mut decoder = BodyDecoder::new(framing, Sender::Client);
        let mut digest = Sha256::new();
        let mut total = 0;
        loop {
            match decoder.decode(&bytes).map_err(|_broken| io::ErrorKind::InvalidData)? {
                Decoded::Data { skip, end } => {
                    digest.update(bytes.get(skip..end).unwrap_or_default());
                    total += end - skip;
                    bytes.drain(..end);
                    continue;
                }
                Decoded::End { used } => {
                    bytes.drain(..used);
                    break;
                }
                Decoded::More { used } => drop(bytes.drain(..used)),
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        }
        let sum: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        stream.write_all(&response(told, total, &sum)).await?;
    }
}

/// What reached the service, but for the body.
struct Told {
    is_head: bool,
    method: String,
    target: String,
    headers: Vec<serde_json::Value>,
}

fn describe(request: Request<'_>) -> Told {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: Vec<_> = request.fields().iter().map(|f| json!([text(f.name), text(f.value)])).collect();
    let method = text(request.method());
    Told { is_head: method == "HEAD", method, target: text(request.target()), headers }
}

fn response(told: Told, bytes: usize, sha256: &str) -> Vec<u8> {
    let Told { is_head, method, target, headers } = told;
    let told = json!({
        "method": method, "target": target, "headers": headers, "body": { "bytes": bytes, "sha256": sha256 },
    });
    let mut body = serde_json::to_vec_pretty(&told).unwrap_or_default();
    body.push(b'\n');
    let mut out =
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len())
            .into_bytes();
    if !is_head {
        out.extend(body);
    }
    out
}

fn switching(request: Request<'_>) -> String {
    let fields = request.fields();
    let accept = derive_accept_key(fields.first("sec-websocket-key").unwrap_or_default());
    let offered = fields.first("sec-websocket-protocol").and_then(|list| list.split(|byte| *byte == b',').next());
    let protocol = offered.map(|item| format!("Sec-WebSocket-Protocol: {}\r\n", String::from_utf8_lossy(item).trim()));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{}\r\n",
        protocol.unwrap_or_default()
    )
}

fn greeting(request: Request<'_>) -> String {
    let user = request.fields().first("x-auth-user").map(String::from_utf8_lossy);
    format!("hello {}, send me something", user.as_deref().unwrap_or("stranger"))
}

async fn echo_messages(stream: TcpStream, greeting: String) -> io::Result<()> {
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    let broken = |error| io::Error::other(error);
    socket.send(Message::text(greeting)).await.map_err(broken)?;
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() || message.is_binary() {
            socket.send(message).await.map_err(broken)?;
        }
    }
    Ok(())
}
