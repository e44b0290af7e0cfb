//! Framing: every row of the tables of heads and bodies, as bytes on a socket. What is refused reaches nobody and ends the
//! connection; what is accepted reaches the origin as one strict request that means the same.

use crate::support::cases::{self, Case};
use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::origin::{Origin, Recorded};
use crate::support::{ALICE, config};

const REQUESTS: &str = include_str!("../cases/http1/requests.txt");
const BODIES: &str = include_str!("../cases/http1/bodies.txt");

/// A gate in front of an origin, and how much the origin should have seen so far.
struct Bench {
    origin: Origin,
    gate: Gateway,
    expected: usize,
}

impl Bench {
    fn start() -> Self {
        let origin = Origin::ok();
        let gate = Gateway::start(&config(&origin));
        Self { origin, gate, expected: 0 }
    }

    /// Sends `bytes` and the client's FIN behind them; the gate must answer `status` once and close, and the origin must
    /// see nothing.
    fn refused(&self, name: &str, bytes: &[u8], status: u16) {
        let mut client = Client::connect(self.gate.address(0));
        client.send(bytes);
        let response = client.read_for("GET").unwrap_or_else(|| panic!("{name}: closed without an answer"));
        assert_eq!(response.status, status, "{name}");
        assert_eq!(response.one("connection"), Some("close"), "{name}");
        assert_eq!(response.interim, [] as [u16; 0], "{name}");
        assert!(client.is_closed(), "{name}: more came behind the refusal");
        assert_eq!(self.origin.requests().len(), self.expected, "{name}: the origin saw it");
    }

    /// The request that the origin saw since the last one, which must be the only one.
    fn one_more(&mut self, name: &str) -> Recorded {
        self.expected += 1;
        let mut seen = self.origin.requests();
        assert_eq!(seen.len(), self.expected, "{name}: {seen:?}");
        seen.pop().expect("one")
    }
}

/// Adds a good key to a request: as its first field, or in the query where another field would be one too many.
fn with_key(case: &Case) -> Vec<u8> {
    let (at, key) = if case.name == "fields-at-bound" {
        (b"GET /".len(), format!("?api_key={ALICE}"))
    } else {
        let line = case.bytes.windows(2).position(|pair| pair == b"\r\n");
        let Some(line) = line else { return case.bytes.clone() };
        (line + 2, format!("X-Api-Key: {ALICE}\r\n"))
    };
    [&case.bytes[..at], key.as_bytes(), &case.bytes[at..]].concat()
}

#[test]
fn refused_heads_are_answered_and_closed_and_reach_nobody() {
    let bench = Bench::start();
    let mut rows = 0;
    for case in cases::read(REQUESTS) {
        let Some(status) = case.expectation.split(' ').next().and_then(|word| word.parse().ok()) else { continue };
        bench.refused(&case.name, &with_key(&case), status);
        rows += 1;
    }
    assert!(rows > 250, "only {rows} rows");
    assert_eq!((bench.origin.connections(), bench.origin.raw()), (0, Vec::new()));
    let page = bench.gate.metrics();
    let counted = page.lines().filter(|line| line.starts_with("keygate_malformed_requests_total{"));
    let counted: f64 = counted.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum();
    assert_eq!(counted, f64::from(rows));
}

#[test]
fn unfinished_heads_reach_nobody_and_get_no_answer_when_the_client_leaves() {
    let bench = Bench::start();
    for case in cases::read(REQUESTS).into_iter().filter(|case| case.expectation == "more") {
        let mut client = Client::connect(bench.gate.address(0));
        client.send(&case.bytes).finish();
        assert!(client.is_closed(), "{}", case.name);
    }
    assert_eq!(bench.origin.connections(), 0);
}

#[test]
fn accepted_heads_reach_the_origin_as_one_strict_request_of_the_same_meaning() {
    let mut bench = Bench::start();
    let mut rows = 0;
    for case in cases::read(REQUESTS).into_iter().filter(|case| case.expectation.starts_with("ok ")) {
        let mut bytes = with_key(&case);
        let end = case.bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let behind = case.bytes[end..].to_vec();
        let words: Vec<Vec<u8>> = case.expectation.split(' ').map(|word| cases::unescape(word).unwrap()).collect();
        let has = |word: &str| words[4..].iter().any(|w| w == word.as_bytes());
        match case.name.as_str() {
            "target-dot-segments" => {
                bench.refused_but_read(&case.name, &bytes, 400);
                continue;
            }
            "post-length-max" => {
                bench.refused(&case.name, &bytes, 413);
                continue;
            }
            _ => {}
        }
        let framing = String::from_utf8(words[3].clone()).unwrap();
        let body = match framing.as_str() {
            "chunked" if behind.is_empty() => b"3\r\nabc\r\n0\r\n\r\n".to_vec(),
            "chunked" | "none" => Vec::new(),
            length => {
                let length: usize = length.strip_prefix("length:").unwrap().parse().unwrap();
                vec![b'x'; length - behind.len().min(length)]
            }
        };
        bytes.extend(&body);
        let mut client = Client::connect(bench.gate.address(0));
        client.send(&bytes);
        let method = String::from_utf8(words[1].clone()).unwrap();
        let response = client.read_for(&method).expect("a response");
        assert_eq!(response.status, 200, "{}", case.name);
        assert_eq!(response.interim, if has("continue") { vec![100] } else { vec![] }, "{}", case.name);
        let seen = bench.one_more(&case.name);
        assert_eq!((seen.method.as_bytes(), seen.target.as_bytes()), (&words[1][..], &words[2][..]), "{}", case.name);
        let expected_body = match framing.as_str() {
            "none" => Vec::new(),
            "chunked" => {
                if behind.is_empty() {
                    b"abc".to_vec()
                } else {
                    Vec::new()
                }
            }
            _ => [&behind[..], &body].concat(),
        };
        assert_eq!(seen.body, expected_body, "{}", case.name);
        assert_eq!(seen.one("upgrade").is_some(), has("websocket"), "{}", case.name);
        assert_eq!(seen.one("expect"), None, "{}", case.name);
        same_fields(&case, &seen);
        let rest = if framing == "none" { &behind[..] } else { &[] };
        if has("close") {
            assert!(client.is_closed(), "{}", case.name);
        } else if rest.is_empty() {
            client.send(format!("GET /next HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
            assert_eq!(client.read().status, 200, "{}", case.name);
            assert_eq!(bench.one_more(&case.name).target, "/next");
        } else {
            // What lies behind is a request without a key, or none at all.
            assert!(matches!(client.read().status, 400 | 401), "{}", case.name);
        }
        rows += 1;
    }
    assert!(rows > 70, "only {rows} rows");
}

impl Bench {
    /// As `refused`, for what is well-formed but not to be routed: the connection survives.
    fn refused_but_read(&self, name: &str, bytes: &[u8], status: u16) {
        let mut client = Client::connect(self.gate.address(0));
        client.send(bytes);
        assert_eq!(client.read().status, status, "{name}");
        assert_eq!(self.origin.requests().len(), self.expected, "{name}: the origin saw it");
    }
}

/// Fields that the gate sets, takes out or frames with.
const NOT_END_TO_END: [&str; 15] = [
    "connection",
    "content-length",
    "transfer-encoding",
    "host",
    "te",
    "upgrade",
    "expect",
    "keep-alive",
    "http2-settings",
    "x-auth-user",
    "x-api-key",
    "authorization",
    "sec-websocket-key",
    "sec-websocket-version",
    "proxy-connection",
];

/// Every other field of the row stands in what the origin saw, byte for byte.
fn same_fields(case: &Case, seen: &Recorded) {
    let end = case.bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = &case.bytes[..end];
    let lines = head.split(|byte| *byte == b'\n').skip(1).map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':').unwrap();
        let name = String::from_utf8(line[..colon].to_vec()).unwrap();
        if NOT_END_TO_END.contains(&name.to_lowercase().as_str()) {
            continue;
        }
        let expected = [b"\r\n", name.as_bytes(), b": ", line[colon + 1..].trim_ascii()].concat();
        let found = seen.head.windows(expected.len()).any(|w| w == expected);
        assert!(found, "{}: {name} did not arrive: {:?}", case.name, String::from_utf8_lossy(&seen.head));
    }
}

/// The head that announces a body of a framing of the table.
fn head_for(framing: &str) -> String {
    let field = match framing.split_once(':') {
        Some((_, length)) => format!("Content-Length: {length}\r\n"),
        None if framing == "chunked" => "Transfer-Encoding: chunked\r\n".to_owned(),
        None => String::new(),
    };
    format!("POST /body HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n{field}\r\n")
}

#[test]
fn bodies_of_clients_arrive_whole_and_rewritten_or_not_at_all() {
    let mut bench = Bench::start();
    let mut rows = 0;
    for case in cases::read(BODIES) {
        let Some(framing) = case.context.strip_prefix("client ") else { continue };
        if framing.ends_with("18446744073709551615") {
            continue;
        }
        rows += 1;
        let mut client = Client::connect(bench.gate.address(0));
        client.send(head_for(framing)).send(&case.bytes);
        let Some(expected) = case.expectation.strip_prefix("ok") else {
            client.finish();
            let response = client.read_for("POST");
            if let Some(response) = &response {
                assert_eq!(response.status, 400, "{}", case.name);
            }
            let truncated = case.expectation == "error truncated_body";
            assert_eq!(response.is_none(), truncated, "{}", case.name);
            assert!(client.is_closed(), "{}", case.name);
            assert_eq!(bench.origin.requests().len(), bench.expected, "{}: the origin saw a whole request", case.name);
            continue;
        };
        let response = client.read_for("POST").expect("a response");
        assert_eq!(response.status, 200, "{}", case.name);
        let seen = bench.one_more(&case.name);
        let of = |key: &str| -> Vec<&str> { expected.split(' ').filter_map(|word| word.strip_prefix(key)).collect() };
        let payload = of("payload=").first().map_or(Vec::new(), |text| cases::unescape(text).unwrap());
        assert_eq!(seen.body, payload, "{}", case.name);
        let trailers: Vec<String> = seen.trailers.iter().map(|(name, value)| format!("{name}:{value}")).collect();
        assert_eq!(trailers, of("trailer="), "{}", case.name);
    }
    assert!(rows > 90, "only {rows} rows");
}
