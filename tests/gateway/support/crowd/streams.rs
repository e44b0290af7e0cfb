//! The crowd's streams: events, downloads and uploads, over HTTP/1 and HTTP/2.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Crowd, Fate, PACE, PIECE, PIECES, event, read_head};

/// Reads events without end.
pub async fn events(mut stream: BufReader<TcpStream>, crowd: &Crowd, id: usize) -> (Fate, Instant) {
    for at in 0.. {
        let want = event(id, at);
        // What the origin sent as one chunk may come in several.
        let mut got = String::new();
        while got.len() < want.len() {
            let Some(chunk) = chunk(&mut stream).await else { return crowd.ended(0, "cut") };
            got.push_str(&chunk);
        }
        assert_eq!(got, want);
        if crowd.is_over() {
            break;
        }
    }
    crowd.stayed()
}

async fn chunk(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|count| *count > 0)?;
    let length = usize::from_str_radix(line.trim_end(), 16).expect("a chunk's size");
    assert!(length > 0, "the last chunk: a stream that was cut must not look whole");
    let mut data = vec![0; length + 2];
    stream.read_exact(&mut data).await.ok()?;
    data.truncate(length);
    Some(String::from_utf8(data).expect("text"))
}

/// Reads a download without end.
pub async fn download(mut stream: BufReader<TcpStream>, crowd: &Crowd, id: usize) -> (Fate, Instant) {
    for at in 0.. {
        let mut piece = [0; PIECE];
        if stream.read_exact(&mut piece).await.is_err() {
            return crowd.ended(0, "cut");
        }
        assert!(piece == crowd.noise.content(id, at, PIECE), "piece {at} of download {id}");
        if crowd.is_over() {
            break;
        }
    }
    crowd.stayed()
}

/// Sends an upload piece by piece, the rest at once when it is time to finish; then the answer must be 200.
pub async fn upload(crowd: &Crowd, id: usize, key: &str) -> (Fate, Instant) {
    let mut stream = TcpStream::connect(&crowd.address).await.expect("connects");
    let head = format!(
        "PUT /client/upload/{id} HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {key}\r\nContent-Length: {}\r\n\r\n",
        PIECE * PIECES
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    crowd.open.fetch_add(1, Ordering::Relaxed);
    let mut first = [0];
    for at in 0..PIECES {
        if stream.write_all(crowd.noise.content(id, at, PIECE)).await.is_err() {
            return crowd.ended(0, "cut");
        }
        // The answer comes behind the last byte, or early because there is none to come.
        if !crowd.is_over() && timeout(PACE, stream.peek(&mut first)).await.is_ok() {
            break;
        }
    }
    let head = read_head(&mut stream).await;
    if head.starts_with("HTTP/1.1 200") { crowd.stayed() } else { crowd.ended(0, "cut") }
}

/// Reads events over HTTP/2.
pub async fn events_over_http2(mut body: h2::RecvStream, crowd: &Crowd, id: usize) -> (Fate, Instant) {
    read_over_http2(&mut body, crowd, |at| event(id, at).into_bytes()).await
}

/// Reads a download over HTTP/2.
pub async fn download_over_http2(mut body: h2::RecvStream, crowd: &Crowd, id: usize) -> (Fate, Instant) {
    read_over_http2(&mut body, crowd, |at| crowd.noise.content(id, at, PIECE).to_vec()).await
}

async fn read_over_http2(
    body: &mut h2::RecvStream,
    crowd: &Crowd,
    content: impl Fn(usize) -> Vec<u8>,
) -> (Fate, Instant) {
    let mut got = Vec::new();
    for at in 0.. {
        let want = content(at);
        while got.len() < want.len() {
            match body.data().await {
                Some(Ok(data)) => {
                    got.extend_from_slice(&data);
                    let _ = body.flow_control().release_capacity(data.len());
                }
                Some(Err(error)) => return crowd.ended(0, &how(&error)),
                None => return crowd.ended(0, "ended as if it were whole"),
            }
        }
        assert!(got.drain(..want.len()).eq(want), "piece {at} is not as it was sent");
        if crowd.is_over() {
            break;
        }
    }
    crowd.stayed()
}

/// Sends an upload over HTTP/2 as [`upload`] does over HTTP/1.
pub async fn upload_over_http2(
    answer: h2::client::ResponseFuture,
    mut body: h2::SendStream<Bytes>,
    crowd: &Crowd,
    id: usize,
) -> (Fate, Instant) {
    let mut answer = pin!(answer);
    for at in 0..PIECES {
        let piece = Bytes::copy_from_slice(crowd.noise.content(id, at, PIECE));
        if body.send_data(piece, at + 1 == PIECES).is_err() {
            break;
        }
        if !crowd.is_over() && timeout(PACE, poll_fn(|cx| body.poll_reset(cx))).await.is_ok() {
            break;
        }
    }
    match answer.as_mut().await {
        Ok(answer) if answer.status() == 200 => crowd.stayed(),
        Ok(answer) => {
            // A key's end before the answer began is an answer, and then the stream is reset.
            let end = timeout(Duration::from_secs(10), poll_fn(|cx| body.poll_reset(cx))).await;
            let reset = end.ok().and_then(Result::ok).map_or("no reset".to_owned(), |code| format!("{code:?}"));
            crowd.ended(0, &format!("{}, {reset}", answer.status()))
        }
        Err(error) => crowd.ended(0, &how(&error)),
    }
}

/// A stream that the gate cut was reset, with CANCEL; anything else is told.
fn how(error: &h2::Error) -> String {
    let is_cut = error.is_reset() && error.is_remote() && error.reason() == Some(h2::Reason::CANCEL);
    if is_cut { "cut".to_owned() } else { error.to_string() }
}
