//! A client that sends raw bytes and reads responses strictly. On every response it checks what must always hold.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::SECRETS;

/// One response.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status.
    pub status: u16,
    /// Fields in order.
    pub headers: Vec<(String, String)>,
    /// Body without framing.
    pub body: Vec<u8>,
    /// Trailer fields.
    pub trailers: Vec<(String, String)>,
    /// Interim responses that came before it.
    pub interim: Vec<u16>,
}

impl Response {
    /// All values of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// The one value of a field; panics if it came twice.
    pub fn one(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} came {} times", all.len());
        all.first().copied()
    }

    /// Body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

/// A connection to a gate.
pub struct Client<S = TcpStream> {
    /// The stream.
    pub stream: S,
    buffer: Vec<u8>,
}

impl Client<TcpStream> {
    /// Connects.
    pub fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        stream.set_write_timeout(Some(Duration::from_secs(20))).expect("set");
        stream.set_nodelay(true).expect("set");
        Self { stream, buffer: Vec::new() }
    }

    /// Half-closes: nothing more will be sent.
    pub fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

impl<S: Read + Write> Client<S> {
    /// A client on a stream made elsewhere, such as a TLS one.
    pub fn on(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Sends raw bytes; a gate that closed already is no error here.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = self.stream.write_all(bytes.as_ref());
        let _ = self.stream.flush();
        self
    }

    /// Reads the final response to a request that was not HEAD.
    pub fn read(&mut self) -> Response {
        self.read_for("GET").expect("a response")
    }

    /// Reads the final response to a request of `method`; `None` when the gate closed before one.
    pub fn read_for(&mut self, method: &str) -> Option<Response> {
        let mut interim = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                    break at + 4;
                }
                if !self.more() {
                    assert!(
                        self.buffer.is_empty(),
                        "closed within a head: {:?}",
                        String::from_utf8_lossy(&self.buffer)
                    );
                    return None;
                }
            };
            let head = String::from_utf8_lossy(&self.buffer.drain(..end).collect::<Vec<u8>>()).into_owned();
            let mut response = parse_head(&head);
            if (100..200).contains(&response.status) && response.status != 101 {
                interim.push(response.status);
                continue;
            }
            response.interim = interim;
            self.read_body(method, &mut response);
            check(&response);
            return Some(response);
        }
    }

    fn read_body(&mut self, method: &str, response: &mut Response) {
        if method == "HEAD" || matches!(response.status, 101 | 204 | 304) {
            return;
        }
        let chunked = response.one("transfer-encoding").map(str::to_owned);
        let length: Option<usize> = response.one("content-length").map(|v| v.parse().expect("a length"));
        match (chunked.as_deref(), length) {
            (Some("chunked"), None) => {
                loop {
                    let size = usize::from_str_radix(&self.line(), 16).expect("a chunk size");
                    if size == 0 {
                        break;
                    }
                    let chunk = self.take(size);
                    response.body.extend(chunk);
                    assert_eq!(self.line(), "");
                }
                loop {
                    let line = self.line();
                    let Some((name, value)) = line.split_once(": ") else { break };
                    response.trailers.push((name.to_owned(), value.to_owned()));
                }
            }
            (None, Some(length)) => response.body = self.take(length),
            (None, None) => {
                while self.more() {}
                response.body = std::mem::take(&mut self.buffer);
            }
            other => panic!("framing of the response is not clear: {other:?}"),
        }
    }

    /// Exactly `count` bytes.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.more(), "closed after {} of {count} bytes", self.buffer.len());
        }
        self.buffer.drain(..count).collect()
    }

    fn line(&mut self) -> String {
        let end = loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                break at;
            }
            assert!(self.more(), "closed within a line");
        };
        let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
        String::from_utf8(line[..end].to_vec()).expect("text")
    }

    /// Reads to the end of the stream; panics if the gate does not close.
    pub fn read_to_close(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.buffer)
    }

    /// Whether the gate has closed and nothing is left to read.
    pub fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.more()
    }

    fn more(&mut self) -> bool {
        let mut chunk = vec![0; 65536];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(count) => {
                self.buffer.extend(&chunk[..count]);
                true
            }
            // A read with a timeout is not begun again by the system (signal(7)).
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => self.more(),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(e) => panic!("waited for the gate: {e}"),
        }
    }
}

/// One request on a connection of its own, HTTP/1.1 with Host.
pub fn request(address: &str, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: gate.test\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut client = Client::connect(address);
    client.send(head).send(body);
    client.read_for(method).expect("a response")
}

/// One GET on a connection of its own.
pub fn get(address: &str, target: &str, headers: &[(&str, &str)]) -> Response {
    request(address, "GET", target, headers, b"")
}

fn parse_head(head: &str) -> Response {
    let mut lines = head.trim_end_matches("\r\n").split("\r\n");
    let first = lines.next().expect("a status line");
    let mut parts = first.splitn(3, ' ');
    assert!(matches!(parts.next(), Some("HTTP/1.1")), "status line {first:?}");
    let status = parts.next().and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("status line {first:?}"));
    let headers = lines
        .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("header line {line:?}")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Response { status, headers, body: Vec::new(), trailers: Vec::new(), interim: Vec::new() }
}

/// What must hold for every response the gate ever sends.
fn check(response: &Response) {
    let seen = format!("{:?}{}", response.headers, response.text());
    for secret in SECRETS {
        assert!(!seen.contains(secret), "a response shows {secret}: {seen}");
    }
    assert!(response.one("server").is_none_or(|server| !server.to_lowercase().contains("pingora")));
    let own = response.headers.iter().any(|(n, v)| n.eq_ignore_ascii_case("content-type") && v.contains("json"))
        && response.text().contains("\"request_id\"");
    if own {
        let body = response.json();
        assert_eq!(body["status"], response.status);
        assert_eq!(body["error"]["message"], body["message"]);
        assert_eq!(body["request_id"], response.one("x-request-id").expect("a request id"));
        for (name, _) in &response.headers {
            assert!(OWN_FIELDS.contains(&name.to_lowercase().as_str()), "an own answer carries {name}");
        }
    }
}

/// The only fields that an answer made by the gate may carry.
const OWN_FIELDS: [&str; 17] = [
    "content-type",
    "content-length",
    "connection",
    "date",
    "x-request-id",
    "www-authenticate",
    "retry-after",
    "ratelimit",
    "ratelimit-policy",
    "allow",
    "cache-control",
    "vary",
    "set-cookie",
    "location",
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-expose-headers",
];
