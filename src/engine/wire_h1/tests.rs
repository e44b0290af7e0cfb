//! The encoders of HTTP/1 over streams that take a few bytes at a time.

use std::future::poll_fn;

use tokio::io::{AsyncReadExt, ReadBuf, duplex};

use super::*;

/// Counts the writes that reach it, and keeps their bytes.
#[derive(Debug, Default)]
struct Counting {
    writes: usize,
    bytes: Vec<u8>,
}

impl AsyncRead for Counting {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        self.writes += 1;
        self.bytes.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn chunks_of_one_byte_do_not_cost_a_write_each() {
    let mut wire = H1Wire::new(Counting::default(), Buffer::default(), Sender::Client);
    wire.begin_message(Framing::Chunked).extend_from_slice(b"head ");
    for _ in 0..10_000 {
        assert_eq!(poll_fn(|cx| wire.poll_send(b"x", cx)).await.unwrap(), 1);
    }
    poll_fn(|cx| wire.poll_finish(&[], cx)).await.unwrap();
    assert!(wire.io.writes < 10, "{} writes", wire.io.writes);
    let expected = format!("head {}0\r\n\r\n", "1\r\nx\r\n".repeat(10_000));
    assert!(wire.io.bytes == expected.as_bytes());
}

#[tokio::test]
async fn a_chunk_that_goes_out_in_parts_is_framed_once() {
    // A pipe of a few bytes makes every send wait in the middle of a chunk, its head or its end.
    for room in [1, 2, 3, 7, 64, 1500] {
        let (near, mut far) = duplex(room);
        let mut wire = H1Wire::new(near, Buffer::default(), Sender::Client);
        wire.begin_message(Framing::Chunked);
        let body: Vec<u8> = (0..9000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.unwrap();
            all
        });
        for piece in [&body[..1], &body[1..5000], &body[5000..5003], &body[5003..]] {
            let mut rest = piece;
            while !rest.is_empty() {
                let sent = poll_fn(|cx| wire.poll_send(rest, cx)).await.unwrap();
                rest = &rest[sent..];
            }
        }
        poll_fn(|cx| wire.poll_finish(&[], cx)).await.unwrap();
        drop(wire);
        let all = reading.await.unwrap();
        let mut decoder = BodyDecoder::new(Framing::Chunked, Sender::Client);
        let (mut at, mut decoded) = (0, Vec::new());
        while !decoder.is_over() {
            match decoder.decode(&all[at..]).unwrap() {
                Decoded::Data { skip, end } => {
                    decoded.extend_from_slice(&all[at + skip..at + end]);
                    at += end;
                }
                Decoded::End { used } | Decoded::More { used } => at += used,
            }
        }
        assert!(decoded == body && at == all.len(), "{room}");
    }
}

#[tokio::test]
async fn a_body_may_neither_exceed_nor_fall_short_of_its_length() {
    let mut wire = H1Wire::new(Counting::default(), Buffer::default(), Sender::Client);
    wire.begin_message(Framing::Length(3));
    assert!(poll_fn(|cx| wire.poll_send(b"four", cx)).await.is_err());
    assert_eq!(poll_fn(|cx| wire.poll_send(b"tw", cx)).await.unwrap(), 2);
    assert!(poll_fn(|cx| wire.poll_finish(&[], cx)).await.is_err());
    assert_eq!(poll_fn(|cx| wire.poll_send(b"o", cx)).await.unwrap(), 1);
    poll_fn(|cx| wire.poll_finish(&[], cx)).await.unwrap();
    assert!(poll_fn(|cx| wire.poll_send(b"x", cx)).await.is_err());
    assert_eq!(wire.io.bytes, b"two");
}
