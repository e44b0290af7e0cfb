//! WebSockets as raw frames: a client's side, and a strict echo server behind which every frame is known to the byte.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::client::{Client, Response};
use super::origin::{Origin, Reader, Recorded};

/// First byte of a whole text message.
pub const TEXT: u8 = 0x81;
/// First byte of a whole binary message.
pub const BINARY: u8 = 0x82;
/// First byte of a close frame.
pub const CLOSE: u8 = 0x88;
/// First byte of a ping.
pub const PING: u8 = 0x89;
/// First byte of a pong.
pub const PONG: u8 = 0x8a;
/// The key of every handshake here; its value matters to nobody.
pub const NONCE: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A frame with `first` as its first byte; masked with `mask` if it plays the client.
pub fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(length as u8 | bit),
        length @ 126..65_536 => {
            bytes.push(126 | bit);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(127 | bit);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    match mask {
        Some(mask) => {
            bytes.extend(mask);
            bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        }
        None => bytes.extend(payload),
    }
    bytes
}

/// The payload of a close frame.
pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

/// A handshake with `extra` header lines, each ended by CRLF.
pub fn handshake(target: &str, extra: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: gate.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {NONCE}\r\n{extra}\r\n"
    )
}

/// An open WebSocket, seen from the client.
pub struct Socket<S = TcpStream> {
    /// The connection, behind the 101.
    pub client: Client<S>,
    /// The 101.
    pub response: Response,
}

impl Socket {
    /// Opens a WebSocket with `key`; panics unless the answer is 101.
    pub fn open(address: &str, target: &str, key: &str) -> Self {
        Self::on(Client::connect(address), target, &format!("X-Api-Key: {key}\r\n"))
    }
}

impl<S: Read + Write> Socket<S> {
    /// Opens a WebSocket on a connection, with header lines of its own; panics unless the answer is 101.
    pub fn on(mut client: Client<S>, target: &str, extra: &str) -> Self {
        client.send(handshake(target, extra));
        let response = client.read();
        assert_eq!(response.status, 101, "{}", response.text());
        assert_eq!(response.one("sec-websocket-accept"), Some(derive_accept_key(NONCE.as_bytes()).as_str()));
        Self { client, response }
    }

    /// Sends one masked frame.
    pub fn send(&mut self, first: u8, payload: &[u8]) -> &mut Self {
        self.client.send(frame(first, payload, Some([7, 1, 9, 3])));
        self
    }

    /// The next frame, unmasked, as servers send them; `None` when the stream ends between frames.
    pub fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        if self.client.is_closed() {
            return None;
        }
        let header = self.client.take(2);
        let length = match header[1] {
            126 => u64::from(u16::from_be_bytes(self.client.take(2).try_into().unwrap())),
            127 => u64::from_be_bytes(self.client.take(8).try_into().unwrap()),
            short => u64::from(short),
        };
        Some((header[0], self.client.take(length as usize)))
    }

    /// Sends a message and expects it back.
    pub fn echoes(&mut self, text: &str) {
        self.send(TEXT, text.as_bytes());
        assert_eq!(self.read(), Some((TEXT, text.as_bytes().to_vec())));
    }

    /// Reads on until the close frame; its code and reason. Panics when the stream ends without one.
    pub fn read_close(&mut self) -> (u16, String) {
        loop {
            let (first, payload) = self.read().expect("a close frame before the end");
            if first == CLOSE {
                let (code, reason) = payload.split_at(2);
                let code = u16::from_be_bytes(code.try_into().unwrap());
                return (code, String::from_utf8(reason.to_vec()).expect("UTF-8"));
            }
        }
    }

    /// Whether the stream ends here.
    pub fn is_closed(&mut self) -> bool {
        self.client.is_closed()
    }
}

/// What passed an echo server's connection behind the 101.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    /// Bytes from the client.
    pub received: Vec<u8>,
    /// Bytes to the client.
    pub sent: Vec<u8>,
    /// Whether the client's end was a clean one.
    pub clean: bool,
}

/// The transcripts of an echo server's connections by their targets.
pub type Transcripts = Arc<Mutex<HashMap<String, Transcript>>>;

/// An echo server: answers pings, returns messages, closes with 1002 or 1007 on what RFC 6455 forbids. A text message
/// `close CODE REASON` makes it close so; on the path `/frames` it returns each frame as it came, reserved bits and all.
/// It takes the first subprotocol and all extensions that are offered.
pub fn echo_server() -> Origin {
    recording_echo_server().0
}

/// As [`echo_server`], with its transcripts.
pub fn recording_echo_server() -> (Origin, Transcripts) {
    let transcripts = Transcripts::default();
    let kept = transcripts.clone();
    let origin = Origin::start_raw(move |number, stream, log| {
        let mut reader = Reader { stream, buffer: Vec::new() };
        let Some(request) = reader.request(number, log) else { return };
        log.seen.lock().unwrap().push(request.clone());
        let answer = switching(&request);
        if reader.stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
        let mut echo = Echo {
            stream: reader.stream,
            buffer: reader.buffer,
            record: Transcript::default(),
            as_frames: request.target.starts_with("/frames"),
        };
        echo.record.received = echo.buffer.clone();
        echo.run();
        kept.lock().unwrap().insert(request.target, echo.record);
    });
    (origin, transcripts)
}

/// The 101 to a handshake.
pub fn switching(request: &Recorded) -> String {
    let accept = derive_accept_key(request.one("sec-websocket-key").unwrap_or_default().as_bytes());
    let mut answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n"
    );
    if let Some(protocol) = request.one("sec-websocket-protocol").and_then(|list| list.split(',').next()) {
        answer.push_str(&format!("Sec-WebSocket-Protocol: {}\r\n", protocol.trim()));
    }
    for extension in request.all("sec-websocket-extensions") {
        answer.push_str(&format!("Sec-WebSocket-Extensions: {extension}\r\n"));
    }
    answer + "\r\n"
}

struct Echo {
    stream: TcpStream,
    buffer: Vec<u8>,
    record: Transcript,
    as_frames: bool,
}

/// Why the server stops: a close to send, or the end of the stream.
enum Stop {
    Close(Vec<u8>),
    End,
}

fn fail(code: u16) -> Stop {
    Stop::Close(close_payload(code, ""))
}

impl Echo {
    fn run(&mut self) {
        let Stop::Close(payload) = self.converse() else { return };
        self.send(CLOSE, &payload);
        let _ = self.stream.shutdown(Shutdown::Write);
        while self.more() {}
    }

    fn converse(&mut self) -> Stop {
        let mut message: Option<(u8, Vec<u8>)> = None;
        loop {
            let (first, payload) = match self.frame() {
                Ok(frame) => frame,
                Err(stop) => return stop,
            };
            if self.as_frames && first & 0x0f != 8 {
                self.send(first, &payload);
                continue;
            }
            if first & 0x70 != 0 {
                return fail(1002);
            }
            match (first & 0x0f, first & 0x80 != 0) {
                (8, true) => return Stop::Close(answer_to_close(&payload)),
                (9, true) => self.send(PONG, &payload),
                (10, true) => {}
                (kind @ (1 | 2), last) if message.is_none() => {
                    if last {
                        if let Err(stop) = self.echo(kind, &payload) {
                            return stop;
                        }
                    } else {
                        message = Some((kind, payload));
                    }
                }
                (0, last) => {
                    let Some((kind, mut whole)) = message.take() else { return fail(1002) };
                    whole.extend(payload);
                    if last {
                        if let Err(stop) = self.echo(kind, &whole) {
                            return stop;
                        }
                    } else {
                        message = Some((kind, whole));
                    }
                }
                _ => return fail(1002),
            }
        }
    }

    fn echo(&mut self, kind: u8, message: &[u8]) -> Result<(), Stop> {
        if kind == 1 {
            let text = std::str::from_utf8(message).map_err(|_invalid| fail(1007))?;
            if let Some((code, reason)) = text.strip_prefix("close ").and_then(|told| told.split_once(' ')) {
                return Err(Stop::Close(close_payload(code.parse().unwrap(), reason)));
            }
        }
        self.send(0x80 | kind, message);
        Ok(())
    }

    /// One frame, unmasked.
    fn frame(&mut self) -> Result<(u8, Vec<u8>), Stop> {
        let head = self.take(2)?;
        let (first, control) = (head[0], head[0] & 0x08 != 0);
        if head[1] & 0x80 == 0 || control && (first & 0x80 == 0 || head[1] & 0x7f > 125) {
            return Err(fail(1002));
        }
        let length = match head[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes(self.take(2)?.try_into().unwrap())),
            127 => u64::from_be_bytes(self.take(8)?.try_into().unwrap()),
            short => u64::from(short),
        };
        if length > 1 << 62 {
            return Err(fail(1002));
        }
        if length > 17 << 20 {
            return Err(fail(1009));
        }
        let mask = self.take(4)?;
        let mut payload = self.take(length as usize)?;
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        Ok((first, payload))
    }

    fn take(&mut self, count: usize) -> Result<Vec<u8>, Stop> {
        while self.buffer.len() < count {
            if !self.more() {
                return Err(Stop::End);
            }
        }
        Ok(self.buffer.drain(..count).collect())
    }

    fn more(&mut self) -> bool {
        let mut chunk = vec![0; 65_536];
        let _ = self.stream.set_read_timeout(Some(Duration::from_secs(60)));
        match self.stream.read(&mut chunk) {
            Ok(0) => {
                self.record.clean = true;
                false
            }
            Ok(count) => {
                self.buffer.extend(&chunk[..count]);
                self.record.received.extend(&chunk[..count]);
                true
            }
            Err(_) => false,
        }
    }

    fn send(&mut self, first: u8, payload: &[u8]) {
        let bytes = frame(first, payload, None);
        let _ = self.stream.write_all(&bytes);
        self.record.sent.extend(bytes);
    }
}

/// RFC 6455 section 7.4: the codes that may stand on the wire are returned, others are an error.
fn answer_to_close(payload: &[u8]) -> Vec<u8> {
    let Some((code, reason)) = payload.split_at_checked(2) else {
        return if payload.is_empty() { Vec::new() } else { close_payload(1002, "") };
    };
    let code = u16::from_be_bytes(code.try_into().unwrap());
    match code {
        1000..=1003 | 1007..=1014 | 3000..=4999 if std::str::from_utf8(reason).is_ok() => payload.to_vec(),
        1000..=1003 | 1007..=1014 | 3000..=4999 => close_payload(1007, ""),
        _ => close_payload(1002, ""),
    }
}
