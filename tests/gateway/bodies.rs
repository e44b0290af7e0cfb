//! Bodies: every framing in both directions, byte for byte, and never more of them in memory than a buffer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use crate::support::client::{Client, request};
use crate::support::gateway::Gateway;
use crate::support::origin::{Answer, Origin, Recorded};
use crate::support::{ALICE, config, config_with};

/// The bytes of `body` in chunks of odd sizes, with an extension here and there, and `trailers` behind.
fn chunked(body: &[u8], trailers: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut rest, mut size) = (body, 1);
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(size.min(rest.len()));
        let extension = if size % 3 == 0 { ";a=\"b\"" } else { "" };
        write!(out, "{:x}{extension}\r\n", chunk.len()).unwrap();
        out.extend(chunk);
        out.extend(b"\r\n");
        (rest, size) = (behind, (size * 7 + 3) % 20_011);
    }
    out.extend(format!("0\r\n{trailers}\r\n").as_bytes());
    out
}

/// Answers with the request's body, framed as the path says.
fn echo(request: &Recorded) -> Answer {
    let body = &request.body;
    match request.target.as_str() {
        "/length" => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            Answer::raw([head.as_bytes(), body].concat())
        }
        "/chunked" => {
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            Answer::raw([head, chunked(body, "X-Sum: 1\r\n")].concat())
        }
        "/close" => Answer::raw_close([b"HTTP/1.1 200 OK\r\n\r\n", &body[..]].concat()),
        "/old" => Answer::raw_close([b"HTTP/1.0 200 OK\r\n\r\n", &body[..]].concat()),
        other => panic!("{other}"),
    }
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn every_framing_in_both_directions() {
    let origin = Origin::start(echo);
    let gate = Gateway::start(&config(&origin));
    let mut count = 0;
    for len in [0, 1, 17, 65_536, 300_000] {
        let body = noise(len);
        let declared = [format!("Content-Length: {len}\r\n\r\n").as_bytes(), &body].concat();
        let in_chunks = [b"Transfer-Encoding: chunked\r\n\r\n", &chunked(&body, "X-Sum: 2\r\n")[..]].concat();
        for target in ["/length", "/chunked", "/close", "/old"] {
            for (version, keep, framed) in [
                ("1.1", "", &declared),
                ("1.1", "Connection: close\r\n", &declared),
                ("1.1", "", &in_chunks),
                ("1.0", "", &declared),
                ("1.0", "Connection: keep-alive\r\n", &declared),
            ] {
                let what = format!("{len} {target} HTTP/{version} {keep:?}");
                let mut client = Client::connect(gate.address(0));
                for _ in 0..2 {
                    client.send(format!("PUT {target} HTTP/{version}\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n{keep}"));
                    client.send(framed);
                    let response = client.read_for("PUT").expect("an answer");
                    assert_eq!(response.status, 200, "{what}");
                    assert!(response.body == body, "{what}: another body came back");
                    count += 1;
                    let seen = origin.requests().len();
                    assert_eq!(seen, count, "{what}");
                    let chunks = response.one("transfer-encoding").is_some();
                    assert_eq!(chunks, version == "1.1" && target != "/length", "{what}");
                    assert_eq!(response.trailers.len(), usize::from(chunks && target == "/chunked"), "{what}");
                    let kept = match (version, keep) {
                        ("1.1", "") => true,
                        ("1.0", "Connection: keep-alive\r\n") => target == "/length",
                        _ => false,
                    };
                    assert_eq!(response.one("connection") == Some("close"), !kept, "{what}");
                    if !kept {
                        assert!(client.is_closed(), "{what}");
                        break;
                    }
                    assert_eq!(response.one("connection"), (version == "1.0").then_some("keep-alive"), "{what}");
                }
            }
        }
    }
    let last = origin.last();
    assert_eq!(last.body.len(), 300_000);
}

#[test]
fn trailers_pass_but_never_a_name_that_says_who_is_asking() {
    let origin = Origin::start(|_| {
        let trailers = "grpc-status: 0\r\nSet-Cookie: a=b\r\nConnection: close\r\nX-Last: yes\r\n";
        Answer::raw(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n{trailers}\r\n"))
    });
    let gate = Gateway::start(&config(&origin));
    let mut client = Client::connect(gate.address(0));
    let dropped = [
        "X-Auth-User: root",
        "x_auth_user: root",
        "X.Auth.Roles: admin",
        "X-Auth-Scopes: all",
        "X-Api-Key: other",
        "api_key: other",
        "Authorization: Bearer other",
        "Cookie: keygate_session=x",
        "X-Forwarded-For: 127.0.0.1",
        "X-Request-Id: mine",
        "Host: evil",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
    ];
    let trailers = dropped.join("\r\n");
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\nTransfer-Encoding: chunked\r\n\r\n"));
    client.send(format!("2\r\nhi\r\n0\r\nX-Sum: 1\r\n{trailers}\r\nX-Sum-Too: 2\r\n\r\n"));
    let response = client.read();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(response.trailers, [pair("grpc-status", "0"), pair("X-Last", "yes")]);
    let seen = origin.only();
    assert_eq!(seen.trailers, [pair("X-Sum", "1"), pair("X-Sum-Too", "2")]);
    assert_eq!((seen.body.as_slice(), seen.one("x-auth-user")), (&b"hi"[..], Some("alice")));
}

#[test]
fn statuses_and_methods_without_a_body_keep_the_connection_in_step() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/204" => Answer::raw("HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n"),
        "/304" => Answer::raw("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: bare\r\n\r\n"),
        "/head" => Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nContent-Type: x/y\r\n\r\n"),
        "/head-chunked" => Answer::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        "/205" => Answer::raw("HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"),
        _ => Answer::ok("yes"),
    });
    let gate = Gateway::start(&config_with(&origin, "  - { path: /, upstream: app }\n", "threads: 1\n"));
    let mut client = Client::connect(gate.address(0));
    for (method, target, status, length) in [
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, Some("7")),
        ("HEAD", "/head", 200, Some("12345")),
        ("HEAD", "/head-chunked", 200, None),
        ("HEAD", "/304", 304, Some("7")),
        ("GET", "/205", 205, Some("0")),
        ("DELETE", "/204", 204, None),
        ("GET", "/", 200, Some("3")),
    ] {
        client.send(format!("{method} {target} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
        let response = client.read_for(method).expect("an answer");
        assert_eq!((response.status, response.one("content-length")), (status, length), "{method} {target}");
        assert_eq!(response.one("transfer-encoding"), None, "{method} {target}");
        assert_eq!(response.one("connection"), None, "{method} {target}");
    }
    assert_eq!((origin.requests().len(), origin.connections()), (8, 1));
}

#[test]
fn a_body_over_the_bound_is_413_declared_or_not() {
    let origin = Origin::ok();
    let more = "request: { max_body_bytes: 1000B }\n";
    let gate = Gateway::start(&config_with(&origin, "  - { path: /, upstream: app }\n", more));
    let key = [("X-Api-Key", ALICE)];
    assert_eq!(request(gate.address(0), "POST", "/", &key, &noise(1000)).status, 200);
    assert_eq!(request(gate.address(0), "POST", "/", &key, &noise(1001)).status, 413);
    for (size, status) in [(1000, 200), (1001, 413), (900_000, 413)] {
        let mut client = Client::connect(gate.address(0));
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\nTransfer-Encoding: chunked\r\n\r\n"));
        client.send(chunked(&noise(size), ""));
        let response = client.read();
        assert_eq!(response.status, status, "{size}");
        assert_eq!(response.one("connection"), (size == 900_000).then_some("close"), "{size}");
    }
    let seen = origin.requests();
    assert_eq!(seen.iter().map(|request| request.body.len()).collect::<Vec<_>>(), [1000, 1000]);
}

/// A body that repeats only after a prime number of bytes, so that a lost or doubled block shows.
struct Pattern(Vec<u8>);

const PERIOD: usize = 1_000_003;

impl Pattern {
    fn new() -> Self {
        Self(noise(PERIOD).repeat(2))
    }

    /// The bytes from `at` on, as many as are at hand and at most `most`.
    fn from(&self, at: u64, most: usize) -> &[u8] {
        let start = usize::try_from(at % PERIOD as u64).unwrap();
        &self.0[start..start + most.min(PERIOD)]
    }

    fn send(&self, to: &mut TcpStream, total: u64) {
        let mut at = 0;
        while at < total {
            let most = usize::try_from((total - at).min(262_144)).unwrap();
            let block = self.from(at, most);
            to.write_all(block).unwrap();
            at += block.len() as u64;
        }
    }

    /// Reads `total` bytes, of which `early` came already, and compares them.
    fn compare(&self, from: &mut TcpStream, early: &[u8], total: u64) {
        assert!(early == self.from(0, early.len()));
        let mut at = early.len() as u64;
        let mut buffer = vec![0; 262_144];
        while at < total {
            let count = from.read(&mut buffer).unwrap();
            assert!(count > 0, "closed after {at} of {total}");
            assert!(buffer[..count] == *self.from(at, count), "another byte within {count} from {at}");
            at += count as u64;
        }
        assert_eq!(at, total);
    }
}

fn head_and_rest(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let rest = bytes.split_off(at + 4);
            return (String::from_utf8(bytes).unwrap(), rest);
        }
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "closed within a head");
        bytes.extend(&buffer[..count]);
    }
}

/// Resident memory of a process in KiB: `VmRSS` now, or `VmHWM` at its highest.
pub fn memory(pid: u32, which: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(which)).unwrap();
    line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().unwrap()
}

#[test]
fn a_gibibyte_up_and_another_down_in_constant_memory() {
    const TOTAL: u64 = 1 << 30;
    let origin = Origin::start_raw(|_, mut stream, _| {
        let pattern = Pattern::new();
        let (head, early) = head_and_rest(&mut stream);
        assert!(head.contains(&format!("Content-Length: {TOTAL}\r\n")), "{head}");
        pattern.compare(&mut stream, &early, TOTAL);
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {TOTAL}\r\n\r\n").as_bytes()).unwrap();
        pattern.send(&mut stream, TOTAL);
    });
    let gate = Gateway::start(&config(&origin));
    let before = memory(gate.pid(), "VmRSS");
    let mut client = TcpStream::connect(gate.address(0)).unwrap();
    let pattern = Pattern::new();
    let head = format!("PUT /big HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\nContent-Length: {TOTAL}\r\n\r\n");
    client.write_all(head.as_bytes()).unwrap();
    pattern.send(&mut client, TOTAL);
    let (head, early) = head_and_rest(&mut client);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    pattern.compare(&mut client, &early, TOTAL);
    let grown = memory(gate.pid(), "VmHWM").saturating_sub(before);
    assert!(grown < 32 * 1024, "the gate grew by {grown} KiB");
}

#[test]
fn both_directions_flow_at_once() {
    // The origin sends back each block as it comes: a gate that waited for the end of one side would stand still.
    let origin = Origin::start_raw(|_, mut stream, _| {
        let (_, early) = head_and_rest(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8000000\r\n\r\n").unwrap();
        stream.write_all(&early).unwrap();
        let mut left = 8_000_000 - early.len();
        let mut buffer = vec![0; 65536];
        while left > 0 {
            let count = stream.read(&mut buffer).unwrap();
            stream.write_all(&buffer[..count]).unwrap();
            left -= count;
        }
    });
    let gate = Gateway::start(&config(&origin));
    let mut client = TcpStream::connect(gate.address(0)).unwrap();
    let mut sender = client.try_clone().unwrap();
    let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\nContent-Length: 8000000\r\n\r\n");
    sender.write_all(head.as_bytes()).unwrap();
    let sending = thread::spawn(move || Pattern::new().send(&mut sender, 8_000_000));
    let (_, early) = head_and_rest(&mut client);
    Pattern::new().compare(&mut client, &early, 8_000_000);
    sending.join().unwrap();
}
