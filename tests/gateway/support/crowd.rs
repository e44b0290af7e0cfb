//! A crowd: thousands of sockets and streams on one thread each side. An origin that sends and takes what anybody can work out
//! (`content`), and clients that check every byte of it, until the gate ends them or the test does.

pub mod origin;
pub mod streams;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::socket::{BINARY, CLOSE, close_payload, frame, handshake};

/// Bytes of one frame of a dripping socket; it comes in `DRIPS` pieces, so that it is nearly always in the middle of one.
const DRIP: usize = 20_000;
const DRIPS: usize = 5;
/// Bytes of one piece of an upload, and how many there are.
const PIECE: usize = 500;
const PIECES: usize = 400;
/// `Content-Length` of an upload.
pub const UPLOAD: &str = "200000";
/// Between two signs of life of a stream, and between two messages of a busy socket.
const PACE: Duration = Duration::from_millis(50);
const REST: Duration = Duration::from_millis(400);

/// Noise of which everything sent is a part: a byte that is lost, doubled or of another connection does not fit.
pub struct Noise(Vec<u8>);

impl Noise {
    /// New noise, the same every time.
    pub fn new() -> Arc<Self> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let words = (0..1 << 20).flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        Arc::new(Self(words.collect()))
    }

    /// What connection `id` says the `at`th time, of this length (at most 6 MiB).
    pub fn content(&self, id: usize, at: usize, length: usize) -> &[u8] {
        &self.0[(id * 7919 + at * 31) % 2_000_000..][..length]
    }
}

/// Lets this process open as many files as it may.
pub fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("a limit may be raised to its maximum");
}

/// The `at`th event of stream `id`.
pub fn event(id: usize, at: usize) -> String {
    format!("data: {id} {at}\n\n")
}

/// Frames of a stream; reading may be given up and taken up again.
pub struct Frames<R> {
    stream: R,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    /// First byte and payload of the next frame; `None` when the stream ends or fails.
    pub async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(&[first, second]) = self.buffer.first_chunk() {
                let mask = if second & 0x80 == 0 { 0 } else { 4 };
                let (extra, length) = match second & 0x7f {
                    126 => {
                        (2, self.buffer.get(2..4).map(|bytes| bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b))))
                    }
                    127 => {
                        (8, self.buffer.get(2..10).map(|bytes| bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b))))
                    }
                    short => (0, Some(usize::from(short))),
                };
                let start = 2 + extra + mask;
                if let Some(length) = length.filter(|length| self.buffer.len() >= start + length) {
                    let payload = self.buffer[start..start + length].to_vec();
                    self.buffer.drain(..start + length);
                    return Some((first, payload));
                }
                self.buffer.reserve(length.unwrap_or_default().min(1 << 20));
            }
            if !matches!(self.stream.read_buf(&mut self.buffer).await, Ok(count) if count > 0) {
                return None;
            }
        }
    }
}

/// What became of a socket or stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was open and well to the end of the test.
    Stayed,
    /// Closed with this code and reason; for streams, code 0.
    Closed(u16, String),
}

/// What all of a crowd know.
#[derive(Clone)]
pub struct Crowd {
    /// The gate.
    pub address: String,
    /// What is said.
    pub noise: Arc<Noise>,
    /// 0 at first, 1 when those who did not read shall, 2 when it is time to finish.
    pub phase: watch::Receiver<u8>,
    /// How many were ended by the gate.
    pub ended: Arc<AtomicUsize>,
    /// How many are under way.
    pub open: Arc<AtomicUsize>,
}

impl Crowd {
    /// A crowd before the gate at `address`, and what moves it from phase to phase.
    pub fn new(address: &str, noise: Arc<Noise>) -> (Self, watch::Sender<u8>) {
        let (phase, seen) = watch::channel(0);
        let (ended, open) = Default::default();
        (Self { address: address.to_owned(), noise, phase: seen, ended, open }, phase)
    }

    fn is_over(&self) -> bool {
        *self.phase.borrow() == 2
    }

    async fn reaches(&self, phase: u8) {
        let _ = self.phase.clone().wait_for(|now| *now >= phase).await;
    }

    fn ended(&self, code: u16, reason: &str) -> (Fate, Instant) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        (Fate::Closed(code, reason.to_owned()), Instant::now())
    }

    fn stayed(&self) -> (Fate, Instant) {
        (Fate::Stayed, Instant::now())
    }

    /// Opens a WebSocket with a receive buffer of this many bytes at most, if that is said.
    pub async fn socket(&self, target: &str, key: &str, buffer: Option<u32>) -> Socket {
        let socket = TcpSocket::new_v4().expect("a socket");
        if let Some(bytes) = buffer {
            socket.set_recv_buffer_size(bytes).expect("set");
        }
        let mut stream = socket.connect(self.address.parse().expect("an address")).await.expect("connects");
        stream.set_nodelay(true).expect("set");
        let asked = handshake(target, &format!("X-Api-Key: {key}\r\n"));
        stream.write_all(asked.as_bytes()).await.expect("sent");
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        self.open.fetch_add(1, Ordering::Relaxed);
        let (read, write) = stream.into_split();
        Socket { frames: Frames { stream: read, buffer: Vec::new() }, write }
    }

    /// Opens a plain stream: sends this request with `key` and hands over what follows the head of a 200.
    pub async fn stream(&self, request: &str, key: &str) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(&self.address).await.expect("connects");
        let asked = format!("{request} HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {key}\r\n\r\n");
        stream.write_all(asked.as_bytes()).await.expect("sent");
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        self.open.fetch_add(1, Ordering::Relaxed);
        BufReader::new(stream)
    }
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// An open WebSocket.
pub struct Socket {
    frames: Frames<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

impl Socket {
    async fn send(&mut self, payload: &[u8]) {
        // Whether it arrives is seen by its echo.
        let _ = self.write.write_all(&frame(BINARY, payload, Some([0; 4]))).await;
    }

    /// Answers a close and tells what it said.
    async fn close(&mut self, crowd: &Crowd, end: Option<(u8, Vec<u8>)>) -> (Fate, Instant) {
        let Some((CLOSE, payload)) = end else { return crowd.ended(1006, &format!("{:?}", end.map(|end| end.0))) };
        let (code, reason) = payload.split_at(2);
        let fate = crowd.ended(u16::from_be_bytes([code[0], code[1]]), &String::from_utf8_lossy(reason));
        let _ = self.write.write_all(&frame(CLOSE, &close_payload(1000, ""), Some([0; 4]))).await;
        let _ = self.write.shutdown().await;
        let rest = timeout(Duration::from_secs(10), self.frames.read()).await;
        assert_eq!(rest, Ok(None), "nothing may follow a close");
        fate
    }

    /// Sends `payload` and takes its echo; `Some` when the socket was ended instead.
    async fn exchange(&mut self, crowd: &Crowd, payload: &[u8]) -> Option<(Fate, Instant)> {
        let Self { frames, write } = self;
        let bytes = frame(BINARY, payload, Some([0; 4]));
        let (_, echo) = tokio::join!(write.write_all(&bytes), frames.read());
        match echo {
            Some((BINARY, echo)) => {
                assert!(echo == payload, "an echo of {} bytes is not what was sent", payload.len());
                None
            }
            end => Some(self.close(crowd, end).await),
        }
    }

    /// Says nothing, and hears nothing but a close; shows at last that it is well.
    pub async fn idle(mut self, crowd: &Crowd, id: usize) -> (Fate, Instant) {
        let end = tokio::select! {
            end = self.frames.read() => Some(end),
            () = crowd.reaches(2) => None,
        };
        match end {
            Some(end) => self.close(crowd, end).await,
            None => self.exchange(crowd, crowd.noise.content(id, 1, 100)).await.unwrap_or_else(|| crowd.stayed()),
        }
    }

    /// Sends messages, most of them small and some large, each when the one before has come back.
    pub async fn busy(mut self, crowd: &Crowd, id: usize) -> (Fate, Instant) {
        for at in id.. {
            let length = if at % 8 == 0 { 60_000 } else { 10 + at % 300 };
            if let Some(end) = self.exchange(crowd, crowd.noise.content(id, at, length)).await {
                return end;
            }
            if crowd.is_over() {
                break;
            }
            if let Ok(end) = timeout(REST, self.frames.read()).await {
                return self.close(crowd, end).await;
            }
        }
        crowd.stayed()
    }

    /// Reads what drips: nearly always in the middle of a frame.
    pub async fn drip(mut self, crowd: &Crowd, id: usize) -> (Fate, Instant) {
        for at in 0.. {
            match self.frames.read().await {
                Some((BINARY, payload)) => {
                    assert!(payload == crowd.noise.content(id, at, DRIP), "frame {at} of socket {id}");
                }
                end => return self.close(crowd, end).await,
            }
            if crowd.is_over() {
                break;
            }
        }
        crowd.stayed()
    }

    /// Asks for more than fits into the buffers on the way and does not read it, so that the gate stands in the middle of a
    /// frame, until phase 1.
    pub async fn slow(mut self, crowd: &Crowd, id: usize) -> (Fate, Instant) {
        let payload = crowd.noise.content(id, 0, 6_000_000);
        self.send(payload).await;
        crowd.reaches(1).await;
        match self.frames.read().await {
            Some((BINARY, echo)) => assert!(echo == payload, "the large echo of socket {id}"),
            end => return self.close(crowd, end).await,
        }
        self.idle(crowd, id).await
    }
}
