//! An upstream that breaks every rule (decision 37): the client gets a 502 or 504, or an answer that is visibly cut short,
//! and the gate goes on as if nothing had been.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::cases::{self, Case};
use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::origin::{Answer, Origin, Reader};
use crate::support::{ALICE, config_with};

const RESPONSES: &str = include_str!("../cases/http1/responses.txt");
const BODIES: &str = include_str!("../cases/http1/bodies.txt");
const TIMES: &str =
    "response_timeout: 300ms, idle_timeout: 300ms, connect_timeout: 300ms, write_timeout: 300ms, keepalive_timeout: 5s";

/// What the origin does with the next request for `/`; any other path is answered `fine`.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Vec<u8>>>);

impl Script {
    fn set(&self, answer: &[u8]) {
        *self.0.lock().unwrap() = answer.to_vec();
    }
}

/// A gate with one worker and short upstream times, before an origin that sends what the script says and keeps the
/// connection open.
fn stage() -> (Origin, Script, Gateway) {
    let script = Script::default();
    let said = script.clone();
    let origin = Origin::start(move |request| match request.target.as_str() {
        "/fine" => Answer::ok("fine"),
        _ => Answer::raw(said.0.lock().unwrap().clone()),
    });
    let gate = gate(&origin);
    (origin, script, gate)
}

fn gate(origin: &Origin) -> Gateway {
    let config = config_with(origin, "  - { path: /, upstream: app }\n", "threads: 1\n");
    Gateway::start(&config.replace("] }\nroutes:", &format!("], {TIMES} }}\nroutes:")))
}

fn ask(client: &mut Client, method: &str, target: &str, more: &str) {
    client.send(format!("{method} {target} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n{more}\r\n"));
}

const HANDSHAKE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                         Sec-WebSocket-Version: 13\r\n";

#[test]
fn a_malformed_head_is_a_502_whose_reason_is_in_the_log_alone() {
    let (origin, script, gate) = stage();
    let mut rows = 0;
    for case in cases::read(RESPONSES) {
        let Some(rule) = case.expectation.strip_prefix("error ") else { continue };
        rows += 1;
        script.set(&case.bytes);
        let mut client = Client::connect(gate.address(0));
        let method = if case.context == "head" { "HEAD" } else { "GET" };
        ask(&mut client, method, "/", if case.context == "websocket" { HANDSHAKE } else { "" });
        let response = client.read_for(method).expect("an answer");
        assert_eq!((response.status, response.one("connection")), (502, None), "{}", case.name);
        let line = gate.access_line(response.one("x-request-id").unwrap());
        assert_eq!(line["reason"], rule, "{}", case.name);
        // The client's connection lives, the upstream's is gone.
        let before = origin.connections();
        ask(&mut client, "GET", "/fine", "");
        assert_eq!(client.read().text(), "fine", "{}", case.name);
        assert_eq!(origin.connections(), before + 1, "{}: the connection was used again", case.name);
    }
    assert!(rows > 65, "only {rows} rows");
}

/// Whether a body row that the table refuses of clients is refused of upstreams too: they may end lines with a bare LF.
fn is_wrong_for_upstreams(case: &Case) -> bool {
    let tolerated = ["error bare_lf", "error truncated_body"];
    case.expectation.starts_with("error ")
        && !tolerated.contains(&case.expectation.as_str())
        && case.context.ends_with("chunked")
        && !matches!(case.name.as_str(), "end-lf" | "end-short" | "size-lf-only")
}

#[test]
fn a_malformed_body_never_looks_complete() {
    let (origin, script, gate) = stage();
    let mut rows = 0;
    for case in cases::read(BODIES).into_iter().filter(is_wrong_for_upstreams) {
        rows += 1;
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        script.set(&[&head[..], b"5\r\nfirst\r\n", &case.bytes[..]].concat());
        let mut client = Client::connect(gate.address(0));
        ask(&mut client, "GET", "/", "Connection: close\r\n");
        let all = client.read_to_close();
        assert!(!looks_complete(&all), "{}: {}", case.name, cases::escape(&all));
        let before = origin.connections();
        let mut client = Client::connect(gate.address(0));
        ask(&mut client, "GET", "/fine", "");
        assert_eq!(client.read().text(), "fine", "{}", case.name);
        assert_eq!(origin.connections(), before + 1, "{}: the connection was used again", case.name);
    }
    assert!(rows > 45, "only {rows} rows");
}

/// Whether a client would take these bytes, up to the close, for a whole answer other than a 502.
fn looks_complete(all: &[u8]) -> bool {
    let Some(at) = all.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
    let (head, body) = (String::from_utf8_lossy(&all[..at]).to_lowercase(), &all[at + 4..]);
    if head.starts_with("http/1.1 502") {
        return false;
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    match length {
        Some(length) => body.len() == length.parse::<usize>().unwrap(),
        None if head.contains("transfer-encoding: chunked") => body.ends_with(b"0\r\n\r\n"),
        None => true,
    }
}

/// All bytes up to the close, and whether the close was a reset.
fn read_all(mut stream: TcpStream) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (all, false),
            Ok(count) => all.extend(&buffer[..count]),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return (all, true),
            Err(e) => panic!("waited for the gate: {e}"),
        }
    }
}

/// Cuts `answer` at every byte, by FIN or by reset, and holds what a client of `version` got against the whole.
fn cut_at_every_byte(answer: &'static str, version: &str, reset: bool) {
    let cut = Arc::new(Mutex::new(0));
    let at = cut.clone();
    let origin = Origin::start_raw(move |_, stream, _| {
        let mut reader = Reader { stream, buffer: Vec::new() };
        let mut byte = [0];
        // Closing with a byte of the request unread makes the kernel reset the connection.
        let end: &[u8] = if reset { b"\r\n\r" } else { b"\r\n\r\n" };
        while !reader.buffer.ends_with(end) {
            if reader.stream.read(&mut byte).unwrap_or(0) == 0 {
                return;
            }
            reader.buffer.extend(byte);
        }
        let _ = reader.stream.write_all(&answer.as_bytes()[..*at.lock().unwrap()]);
    });
    let gate = gate(&origin);
    for at in 0..answer.len() {
        *cut.lock().unwrap() = at;
        let mut client = TcpStream::connect(gate.address(0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let head = format!("GET / HTTP/{version}\r\nHost: a\r\nX-Api-Key: {ALICE}\r\nConnection: close\r\n\r\n");
        client.write_all(head.as_bytes()).unwrap();
        let (all, was_reset) = read_all(client);
        let text = String::from_utf8_lossy(&all);
        assert!(was_reset || !looks_complete(&all), "{answer:?} cut at {at}, HTTP/{version}, reset {reset}: {text}");
        if at < answer.find("\r\n\r\n").unwrap() {
            assert!(text.starts_with("HTTP/1.1 502 "), "{answer:?} cut at {at}, reset {reset}: {text}");
        }
    }
}

const BY_LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX-A: b\r\n\r\nhello, world";
const BY_CHUNKS: &str =
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7\r\n, world\r\n0\r\nX-Sum: 1\r\n\r\n";
const BY_CLOSE: &str = "HTTP/1.1 200 OK\r\nX-A: b\r\n\r\nhello, world";

#[test]
fn an_answer_cut_by_a_close_never_looks_complete() {
    for version in ["1.1", "1.0"] {
        cut_at_every_byte(BY_LENGTH, version, false);
        cut_at_every_byte(BY_CHUNKS, version, false);
    }
}

#[test]
fn an_answer_cut_by_a_reset_never_looks_complete() {
    for version in ["1.1", "1.0"] {
        cut_at_every_byte(BY_LENGTH, version, true);
        cut_at_every_byte(BY_CHUNKS, version, true);
        cut_at_every_byte(BY_CLOSE, version, true);
    }
}

#[test]
fn an_upstream_that_does_not_answer_is_a_504() {
    let (origin, script, gate) = stage();
    for (said, what) in
        [("", "nothing"), ("HTTP/1.1 200 OK\r\nX-", "half a head"), ("HTTP/1.1 103 X\r\n\r\n", "an interim")]
    {
        script.set(said.as_bytes());
        let mut client = Client::connect(gate.address(0));
        ask(&mut client, "POST", "/", "Content-Length: 0\r\n");
        assert_eq!(client.read().status, 504, "{what}");
        ask(&mut client, "GET", "/fine", "");
        assert_eq!(client.read().text(), "fine", "{what}");
    }
    assert_eq!(origin.requests().len(), 6);
}

#[test]
fn an_answer_that_stops_is_cut_short() {
    let (_origin, script, gate) = stage();
    for said in [&BY_LENGTH[..BY_LENGTH.len() - 1], &BY_CHUNKS[..BY_CHUNKS.len() - 8], BY_CLOSE] {
        script.set(said.as_bytes());
        let mut client = Client::connect(gate.address(0));
        ask(&mut client, "GET", "/", "");
        let all = client.read_to_close();
        assert!(all.starts_with(b"HTTP/1.1 200 OK\r\n") && !looks_complete(&all), "{said:?}");
    }
}

#[test]
fn an_answer_that_drips_is_bounded_between_bytes_only() {
    let origin = Origin::start_raw(|number, stream, log| {
        let mut reader = Reader { stream, buffer: Vec::new() };
        let _ = reader.request(number, log);
        for byte in BY_LENGTH.bytes() {
            let _ = reader.stream.write_all(&[byte]);
        }
    });
    let gate = gate(&origin);
    let mut client = Client::connect(gate.address(0));
    ask(&mut client, "GET", "/", "");
    assert_eq!(client.read().text(), "hello, world");
}

#[test]
fn interim_answers_without_end_are_a_502() {
    let (_origin, script, gate) = stage();
    let last = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for (count, status) in [(15, 200), (20, 502)] {
        script.set(("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(count) + last).as_bytes());
        let mut client = Client::connect(gate.address(0));
        ask(&mut client, "GET", "/", "");
        assert_eq!(client.read().status, status, "{count}");
    }
}

#[test]
fn a_101_nobody_asked_for_is_a_502_and_no_tunnel() {
    let (origin, script, gate) = stage();
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x02hi";
    script.set(switch.as_bytes());
    for more in ["", "Upgrade: websocket\r\n", "Upgrade: h2c\r\nConnection: Upgrade\r\n"] {
        let mut client = Client::connect(gate.address(0));
        ask(&mut client, "GET", "/", more);
        ask(&mut client, "GET", "/fine", "");
        assert_eq!(client.read().status, 502, "{more}");
        assert_eq!(client.read().text(), "fine", "{more}");
    }
    assert!(origin.requests().iter().all(|request| request.one("upgrade").is_none()));
}

#[test]
fn an_answer_before_the_request_was_read_passes() {
    let origin = Origin::start_raw(|number, mut stream, log| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly");
        let _ = Reader { stream, buffer: Vec::new() }.request(number, log);
    });
    let gate = gate(&origin);
    for _ in 0..20 {
        let mut client = Client::connect(gate.address(0));
        ask(&mut client, "GET", "/", "");
        let response = client.read();
        assert!(matches!((response.status, response.text().as_str()), (200, "early") | (502, _)), "{response:?}");
    }
}

#[test]
fn an_upstream_that_is_not_there_is_a_502_or_503() {
    let origin = Origin::ok();
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = config_with(&origin, "  - { path: /, upstream: app }\n", "");
    let gate = Gateway::start(&config.replace(&origin.address(), &dead.to_string()));
    for _ in 0..3 {
        let mut client = Client::connect(gate.address(0));
        ask(&mut client, "POST", "/", "Content-Length: 3\r\n");
        client.send("abc");
        assert_eq!(client.read().status, 502);
    }
    assert_eq!(origin.connections(), 0);
}
