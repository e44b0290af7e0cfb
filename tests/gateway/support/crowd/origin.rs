//! The crowd's origin.

use std::sync::Arc;
use std::thread;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::{DRIP, DRIPS, Frames, Noise, PACE, PIECE, PIECES, event};
use crate::support::socket::{BINARY, CLOSE, NONCE, frame};

/// Starts the origin on a thread of its own; its address. By path: `/echo` returns messages, `/drip/ID` sends frames in pieces,
/// `/events/ID` and `/download/ID` have no end, `/upload/ID` answers 200 when all came as it should, anything else 204.
pub fn start(noise: Arc<Noise>) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    listener.set_nonblocking(true).expect("set");
    let address = listener.local_addr().expect("bound").to_string();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                let noise = noise.clone();
                let _ = stream.set_nodelay(true);
                // The gate closes connections whenever it likes.
                tokio::spawn(async move { serve(stream, &noise).await });
            }
        });
    });
    address
}

async fn serve(stream: TcpStream, noise: &Noise) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut target, mut upgrade) = (String::new(), false);
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok().filter(|count| *count > 0)?;
            upgrade |= line.starts_with("Upgrade: websocket");
            if target.is_empty() {
                target = line.split(' ').nth(1)?.to_owned();
            }
            if line == "\r\n" {
                break;
            }
        }
        let id = target.rsplit('/').next()?.parse().unwrap_or_default();
        let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(NONCE.as_bytes());
        let switching = format!(
            "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        if upgrade {
            stream.write_all(switching.as_bytes()).await.ok()?;
            return if target.contains("/drip/") { drip(stream, id, noise).await } else { echo(stream).await };
        } else if target.contains("/events/") {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await.ok()?;
            for at in 0.. {
                let event = event(id, at);
                stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await.ok()?;
                sleep(PACE).await;
            }
        } else if target.contains("/download/") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await.ok()?;
            for at in 0.. {
                stream.write_all(noise.content(id, at, PIECE)).await.ok()?;
                sleep(PACE).await;
            }
        } else if target.contains("/upload/") {
            for at in 0..PIECES {
                let mut piece = [0; PIECE];
                stream.read_exact(&mut piece).await.ok()?;
                assert!(piece == noise.content(id, at, PIECE), "piece {at} of upload {id} is not as it was sent");
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell").await.ok()?;
        } else {
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.ok()?;
        }
    }
}

async fn drip(mut stream: BufReader<TcpStream>, id: usize, noise: &Noise) -> Option<()> {
    for at in 0.. {
        let bytes = frame(BINARY, noise.content(id, at, DRIP), None);
        for piece in bytes.chunks(bytes.len().div_ceil(DRIPS)) {
            stream.write_all(piece).await.ok()?;
            sleep(PACE).await;
        }
    }
    None
}

async fn echo(stream: BufReader<TcpStream>) -> Option<()> {
    let (read, mut write) = stream.into_inner().into_split();
    let mut socket = Frames { stream: read, buffer: Vec::new() };
    while let Some((first, payload)) = socket.read().await {
        // Clients mask with zeros, which leaves the bytes as they are.
        write.write_all(&frame(first, &payload, None)).await.ok()?;
        if first == CLOSE {
            return None;
        }
    }
    None
}
