//! An origin that records every byte that reaches it and answers as told. It reads requests with a parser of its own, so
//! that what the gate sends is judged by other eyes than the gate's.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Which connection it came on, from 0.
    pub connection: usize,
    /// Method.
    pub method: String,
    /// Target as sent.
    pub target: String,
    /// Fields in order, names as sent.
    pub headers: Vec<(String, String)>,
    /// The head's raw bytes.
    pub head: Vec<u8>,
    /// The body without framing.
    pub body: Vec<u8>,
    /// Trailer fields of a chunked body.
    pub trailers: Vec<(String, String)>,
}

impl Recorded {
    /// All values of a field, by its exact folded name in any case.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// The one value of a field; panics if it came twice.
    pub fn one(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} came {} times: {:?}", all.len(), self.headers);
        all.first().copied()
    }
}

/// What the origin does with a request: raw bytes to send, and whether to close behind them.
pub struct Answer {
    /// Raw bytes of the response.
    pub bytes: Vec<u8>,
    /// Whether the connection ends after it.
    pub close: bool,
}

impl Answer {
    /// Raw bytes, connection kept.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), close: false }
    }

    /// Raw bytes, then close.
    pub fn raw_close(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), close: true }
    }

    /// 200 with a body of known length.
    pub fn ok(body: &str) -> Self {
        Self::raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    }
}

/// A recording origin; stops when dropped.
pub struct Origin {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Recorded>>>,
    raw: Arc<Mutex<Vec<u8>>>,
    connections: Arc<AtomicUsize>,
    faults: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    /// An origin that answers 200 `ok` to everything.
    pub fn ok() -> Self {
        Self::start(|_| Answer::ok("ok"))
    }

    /// An origin that answers with what `respond` makes of each request.
    pub fn start(respond: impl Fn(&Recorded) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_raw(move |connection, stream, log| {
            let mut reader = Reader { stream, buffer: Vec::new() };
            while let Some(request) = reader.request(connection, log) {
                let answer = respond(&request);
                log.seen.lock().unwrap().push(request);
                if reader.stream.write_all(&answer.bytes).is_err() || answer.close {
                    return;
                }
            }
        })
    }

    /// An origin whose every connection is driven by `serve`.
    pub fn start_raw(serve: impl Fn(usize, TcpStream, &Log) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("bound");
        let log = Log::default();
        let origin = Self {
            address,
            seen: log.seen.clone(),
            raw: log.raw.clone(),
            connections: Arc::default(),
            faults: log.faults.clone(),
        };
        let connections = origin.connections.clone();
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let number = connections.fetch_add(1, Ordering::SeqCst);
                let (serve, log) = (serve.clone(), log.clone());
                let _ = stream.set_nodelay(true);
                thread::spawn(move || serve(number, stream, &log));
            }
        });
        origin
    }

    /// `host:port` of the origin.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Requests seen so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.faultless();
        self.seen.lock().unwrap().clone()
    }

    /// The only request seen; panics when there is none or more.
    pub fn only(&self) -> Recorded {
        let mut seen = self.requests();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }

    /// The request seen last.
    pub fn last(&self) -> Recorded {
        self.requests().pop().expect("a request reached the origin")
    }

    /// Every byte that reached the origin.
    pub fn raw(&self) -> Vec<u8> {
        self.raw.lock().unwrap().clone()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Panics if anything the gate sent was not one strict HTTP/1.1 request.
    pub fn faultless(&self) {
        let faults = self.faults.lock().unwrap();
        assert!(faults.is_empty(), "the gate sent what is not strict HTTP/1.1: {faults:?}");
    }
}

/// What an origin keeps.
#[derive(Clone, Default)]
pub struct Log {
    /// Whole requests.
    pub seen: Arc<Mutex<Vec<Recorded>>>,
    /// Raw bytes of all connections.
    pub raw: Arc<Mutex<Vec<u8>>>,
    /// Rules that the gate broke.
    pub faults: Arc<Mutex<Vec<String>>>,
}

/// Reads requests from one connection.
pub struct Reader {
    /// The connection.
    pub stream: TcpStream,
    /// Bytes read and not used.
    pub buffer: Vec<u8>,
}

impl Reader {
    /// The next request, `None` when the gate closed or broke a rule.
    pub fn request(&mut self, connection: usize, log: &Log) -> Option<Recorded> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            self.more(log)?;
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let mut recorded = match parse_head(&head) {
            Ok(recorded) => recorded,
            Err(fault) => return self.fault(log, &fault, &head),
        };
        recorded.connection = connection;
        let lengths = recorded.all("content-length");
        let codings = recorded.all("transfer-encoding");
        match (lengths.as_slice(), codings.as_slice()) {
            ([], []) => {}
            ([length], []) => {
                let length: usize = length.parse().ok()?;
                recorded.body = self.exactly(length, log)?;
            }
            ([], ["chunked"]) => {
                while let Some(size) = self.line(log).and_then(|line| usize::from_str_radix(&line, 16).ok()) {
                    if size == 0 {
                        break;
                    }
                    let chunk = self.exactly(size, log)?;
                    recorded.body.extend(chunk);
                    if self.exactly(2, log)? != b"\r\n" {
                        return self.fault(log, "a chunk does not end with CRLF", &head);
                    }
                }
                loop {
                    let line = self.line(log)?;
                    let Some((name, value)) = line.split_once(": ") else { break };
                    recorded.trailers.push((name.to_owned(), value.to_owned()));
                }
            }
            other => return self.fault(log, &format!("framing is not clear: {other:?}"), &head),
        }
        Some(recorded)
    }

    /// Exactly `count` bytes.
    pub fn exactly(&mut self, count: usize, log: &Log) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            self.more(log)?;
        }
        Some(self.buffer.drain(..count).collect())
    }

    fn line(&mut self, log: &Log) -> Option<String> {
        let end = loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                break at;
            }
            self.more(log)?;
        };
        let line = self.buffer.drain(..end + 2).take(end).collect();
        String::from_utf8(line).ok()
    }

    fn more(&mut self, log: &Log) -> Option<()> {
        let mut chunk = [0; 65536];
        let _ = self.stream.set_read_timeout(Some(Duration::from_secs(60)));
        let count = self.stream.read(&mut chunk).ok().filter(|n| *n > 0)?;
        self.buffer.extend(&chunk[..count]);
        let mut raw = log.raw.lock().unwrap();
        let keep = count.min((1usize << 20).saturating_sub(raw.len()));
        raw.extend(&chunk[..keep]);
        Some(())
    }

    fn fault(&self, log: &Log, fault: &str, head: &[u8]) -> Option<Recorded> {
        log.faults.lock().unwrap().push(format!("{fault}: {:?}", String::from_utf8_lossy(head)));
        None
    }
}

/// Strict RFC 9112: one space between the parts of the request line, `name: value` lines, CRLF, one Host.
fn parse_head(head: &[u8]) -> Result<Recorded, String> {
    let text = head.strip_suffix(b"\r\n\r\n").ok_or("no blank line")?;
    let mut lines = split_crlf(text)?.into_iter();
    let first = String::from_utf8_lossy(lines.next().ok_or("no request line")?).into_owned();
    let parts: Vec<&str> = first.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else { return Err(format!("request line {first:?}")) };
    let token =
        |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    if !token(method) || !target.starts_with('/') || target.bytes().any(|b| b <= b' ' || b >= 0x7f || b == b'#') {
        return Err(format!("request line {first:?}"));
    }
    let mut headers = Vec::new();
    for line in lines {
        let line = String::from_utf8_lossy(line).into_owned();
        let (name, value) = line.split_once(':').ok_or_else(|| format!("line {line:?}"))?;
        if !token(name) || value.bytes().any(|b| b < b' ' && b != b'\t') {
            return Err(format!("line {line:?}"));
        }
        headers.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
    }
    let recorded = Recorded {
        connection: 0,
        method: method.to_owned(),
        target: target.to_owned(),
        headers,
        head: head.to_vec(),
        body: Vec::new(),
        trailers: Vec::new(),
    };
    match recorded.all("host").len() {
        1 => Ok(recorded),
        n => Err(format!("{n} Host fields")),
    }
}

fn split_crlf(text: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(2).position(|w| w == b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    if lines.iter().any(|line| line.contains(&b'\r') || line.contains(&b'\n')) {
        return Err("a bare CR or LF".to_owned());
    }
    Ok(lines)
}
