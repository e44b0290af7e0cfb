//! HTTP/2 towards clients: the same answers as over HTTP/1, bodies and trailers both ways, bounds, and frames meant to harm.

use crate::bodies::memory;
use crate::support::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, H2Client, HEADERS, PING, RST_STREAM, RawClient,
    SETTINGS, TlsGate, answer, block, frame,
};
use crate::support::origin::{Answer, Origin};
use crate::support::{ALICE, config, config_with};

#[test]
fn one_connection_carries_every_answer_and_the_upstream_learns_who_it_is() {
    let origin = Origin::ok();
    let more = "limits: { default: { requests: 2, per: 1h, burst: 2 } }\n";
    let gate = TlsGate::start(&config_with(&origin, "  - { path: /, upstream: app }\n", more));
    let mut client = gate.connect();
    let missing = client.request("GET", "/v1/jobs", &[], b"");
    assert_eq!((missing.status, missing.headers.contains_key("www-authenticate")), (401, true));
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&missing.body).unwrap()["error"]["code"], "unauthorized");
    let key = [("x-api-key", ALICE), ("x-auth-user", "root"), ("cookie", "a=1"), ("cookie", "b=2")];
    let good = client.request("GET", "/v1/jobs?a=1&api_key=&b=2", &key, b"");
    assert_eq!((good.status, good.text().as_str(), good.one("content-length")), (200, "ok", Some("2")));
    let seen = origin.only();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/v1/jobs?a=1&b=2"));
    assert_eq!(
        (seen.one("x-auth-user"), seen.one("x-api-key"), seen.one("host")),
        (Some("alice"), None, Some("gate.test"))
    );
    assert_eq!((seen.one("cookie"), seen.one("x-forwarded-proto")), (Some("a=1; b=2"), Some("https")));
    let line = gate.gate.access_line(good.one("x-request-id").expect("an id"));
    assert_eq!((line["status"].as_u64(), line["user"].as_str()), (Some(200), Some("alice")));
    assert_eq!(line["protocol"], "HTTP/2");
    assert_eq!(client.request("HEAD", "/", &[("x-api-key", ALICE)], b"").status, 200);
    let limited = client.request("GET", "/", &[("x-api-key", ALICE)], b"");
    assert_eq!((limited.status, limited.headers.contains_key("retry-after")), (429, true));
    assert_eq!(origin.requests().len(), 2);
}

type Fields<'a> = &'a [(&'a str, &'a str)];

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "https"), (":authority", "gate.test"), (":path", "/")];

fn encode(fields: Fields<'_>) -> Vec<u8> {
    block(&fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect::<Vec<_>>())
}

/// The status in an answer's HEADERS, as the gate encodes it: indexed, or a literal behind the name's index.
fn status(frame: &Frame) -> String {
    match frame.payload.iter().position(|byte| byte & 0xe0 != 0x20).map(|at| &frame.payload[at..]).unwrap() {
        [0x88, ..] => "200".into(),
        [0x8c, ..] => "400".into(),
        [0x8d, ..] => "404".into(),
        [0x48, 0x82 | 0x83, huffman @ ..] => match huffman[..2] {
            [0x68, 0x01] => "401".into(),
            [0x68, 0x0d] => "405".into(),
            _ => format!("{:02x?}", &huffman[..2]),
        },
        [0x48, 0x03, text @ ..] => String::from_utf8_lossy(&text[..3]).into_owned(),
        other => format!("{:02x?}", &other[..other.len().min(6)]),
    }
}

/// What the gate makes of one stream: a status, or how the stream or the connection ended.
fn outcome(client: &mut RawClient) -> String {
    match client.read_until(|frame| matches!(frame.kind, HEADERS | RST_STREAM | GOAWAY)) {
        Some(frame) if frame.kind == HEADERS => status(&frame),
        Some(frame) if frame.kind == RST_STREAM => format!("reset {}", frame.code()),
        Some(frame) => format!("goaway {}", frame.code()),
        None => "closed".into(),
    }
}

#[test]
fn bodies_and_trailers_pass_both_ways() {
    let origin = Origin::start(|_| {
        Answer::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 9\r\n\r\n")
    });
    let gate = TlsGate::start(&config(&origin));
    let mut client = gate.connect();
    let sent: Vec<u8> = (0..400_000_u32).map(|n| n as u8).collect();
    let response = client.request("POST", "/up", &[("x-api-key", ALICE)], &sent);
    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    assert_eq!(response.trailers["x-sum"], "9");
    let seen = origin.only();
    assert!(seen.body == sent, "{} bytes arrived", seen.body.len());
    assert_eq!(seen.one("transfer-encoding"), Some("chunked"));
}

#[test]
fn parallel_streams_meet_exact_limits() {
    let origin = Origin::ok();
    let more = "limits: { default: { requests: 10, per: 1h, burst: 10 } }\n";
    let gate = TlsGate::start(&config_with(&origin, "  - { path: /, upstream: app }\n", more));
    let mut client = gate.connect();
    let opened: Vec<_> =
        (0..60).map(|_| client.open(H2Client::head("GET", "/", &[("x-api-key", ALICE)]), true).0).collect();
    let mut counts = [0; 2];
    client.wait(async {
        for response in opened {
            match answer(response).await.expect("an answer").status {
                200 => counts[0] += 1,
                429 => counts[1] += 1,
                other => panic!("{other}"),
            }
        }
    });
    assert_eq!(counts, [10, 50]);
}

#[test]
fn heads_that_could_be_read_two_ways_reach_nobody() {
    let origin = Origin::ok();
    let gate = TlsGate::start(&config(&origin));
    let key = ("x-api-key", ALICE);
    let with = |more: Fields<'_>| encode(&[&GET[..], &[key], more].concat());
    let line = |method, authority, path| {
        encode(&[(":method", method), (":scheme", "https"), (":authority", authority), (":path", path), key])
    };
    for (name, head, wanted) in [
        ("another host", with(&[("host", "other.test")]), "400"),
        ("host twice", with(&[("host", "gate.test"), ("host", "gate.test")]), "400"),
        ("user information", line("GET", "root@gate.test", "/"), "400"),
        ("no authority", encode(&[(":method", "GET"), (":scheme", "https"), (":path", "/"), key]), "400"),
        ("a path in the authority", line("GET", "gate.test/x?", "/"), "reset 1"),
        ("asterisk", line("OPTIONS", "gate.test", "*"), "400"),
        ("not from the root", line("GET", "gate.test", "x"), "reset 1"),
        ("dot segments", line("GET", "gate.test", "/a/../b"), "400"),
        ("trace", line("TRACE", "gate.test", "/"), "405"),
        ("connect", encode(&[(":method", "CONNECT"), (":authority", "gate.test:80"), key]), "405"),
        ("connection", with(&[("connection", "close")]), "reset 1"),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")]), "reset 1"),
        ("upgrade", with(&[("upgrade", "websocket")]), "reset 1"),
        ("te", with(&[("te", "gzip")]), "reset 1"),
        ("content-length without a body", with(&[("content-length", "5")]), "reset 1"),
        ("late pseudo field", with(&[(":path", "/admin")]), "reset 1"),
    ] {
        let mut client = gate.connect_raw();
        client.frame(HEADERS, END_STREAM | END_HEADERS, 1, &head);
        assert_eq!(outcome(&mut client), wanted, "{name}");
    }
    for (name, field) in [
        ("upper case", (&b"X-Up"[..], &b"1"[..])),
        ("line end in a value", (b"x", b"1\r\nx-auth-user: root")),
        ("line feed in a value", (b"x", b"1\nx-auth-user: root")),
        ("nul in a value", (b"x", b"1\0")),
        ("line end in a name", (b"x\r\ny", b"1")),
    ] {
        let mut client = gate.connect_raw();
        let head = [encode(&[&GET[..], &[key]].concat()), block(&[field])].concat();
        client.frame(HEADERS, END_STREAM | END_HEADERS, 1, &head);
        let got = outcome(&mut client);
        assert!(got.starts_with("reset") || got.starts_with("goaway") || got == "400", "{name}: {got}");
    }
    assert_eq!(origin.connections(), 0);
    let mut client = gate.connect_raw();
    let head = encode(&[&GET[..], &[key]].concat());
    client.frame(HEADERS, END_STREAM | END_HEADERS, 1, &head);
    assert_eq!(outcome(&mut client), "200", "the same head without its fault passes");
}

#[test]
fn a_refused_upload_is_answered_whole_and_then_told_to_stop() {
    let origin = Origin::ok();
    let gate = TlsGate::start(&config(&origin));
    let mut client = gate.connect_raw();
    client.frame(HEADERS, END_HEADERS, 1, &encode(&GET)).frame(DATA, 0, 1, &[b'x'; 1000]);
    assert_eq!(outcome(&mut client), "401");
    assert!(client.read_until(|frame| frame.kind == DATA && frame.flags & END_STREAM != 0).is_some());
    let reset = client.read_until(|frame| frame.kind == RST_STREAM).expect("a reset");
    assert_eq!((reset.stream, reset.code()), (1, 0), "NO_ERROR");
    client.frame(HEADERS, END_STREAM | END_HEADERS, 3, &encode(&GET));
    let next = client.read_until(|frame| matches!(frame.kind, HEADERS | GOAWAY)).expect("an answer");
    assert_eq!((next.kind, next.stream), (HEADERS, 3), "the connection goes on");
}

#[test]
fn floods_end_their_own_connection_and_hold_up_nobody() {
    let origin = Origin::ok();
    let gate = TlsGate::start(&config(&origin));
    let mut canary = gate.connect();
    let head = encode(&GET);
    let open = |flags, stream| frame(HEADERS, flags, stream, &head);
    let resets: Vec<u8> = (0..500_u32)
        .flat_map(|n| {
            [open(END_STREAM | END_HEADERS, 2 * n + 1), frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8])].concat()
        })
        .collect();
    let continuations: Vec<u8> = std::iter::once(open(END_STREAM, 1))
        .chain((0..200).map(|_| frame(CONTINUATION, 0, 1, &encode(&[("x", &"y".repeat(8000))]))))
        .flatten()
        .collect();
    // One entry of 4,000 bytes in the table, then 10,000 references to it: 40 MB of fields in 14 kB.
    let mut bomb = encode(&GET);
    bomb.extend([0x40, 1, b'x', 127, 0xa1, 0x1e]);
    bomb.extend([b'y'; 4000]);
    bomb.extend([0xbe; 10_000]);
    let empty: Vec<u8> =
        std::iter::once(open(END_HEADERS, 1)).chain((0..20_000).map(|_| frame(DATA, 0, 1, b""))).flatten().collect();
    for (name, bytes, ends) in [
        ("rapid resets", resets, true),
        ("continuations", continuations, true),
        ("a header bomb", frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb), true),
        ("empty data", empty, false),
        ("settings", frame(SETTINGS, 0, 0, b"").repeat(2000), false),
        ("pings", frame(PING, 0, 0, b"12345678").repeat(2000), false),
    ] {
        let mut client = gate.connect_raw();
        client.send(&bytes);
        assert_eq!(canary.request("GET", "/", &[("x-api-key", ALICE)], b"").status, 200, "{name}");
        if ends {
            let end = client.read_until(|frame| matches!(frame.kind, GOAWAY | RST_STREAM));
            assert!(end.is_none_or(|frame| frame.code() != 0), "{name}");
        }
    }
}

/// A stranger who takes no answers made the gate keep the heads of all its streams: three megabytes for four kilobytes sent.
#[test]
fn heads_are_let_go_of_while_a_stranger_takes_no_answers() {
    const STRANGERS: usize = 30;
    let origin = Origin::ok();
    let gate = TlsGate::start(&config(&origin));
    // One field that goes into the table of the other side, then seven times its index (RFC 7541 sections 6.1 and 6.2.1).
    let field = [b"\x40\x06x-fill\x7f\xbd\x1d".as_slice(), &[b'y'; 3900]].concat();
    let mut bytes = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    for stream in 0..100 {
        let first = if stream == 0 { field.as_slice() } else { &[0xbe] };
        let head = [&encode(&GET), first, &[0xbe; 6]].concat();
        bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, 1 + 2 * stream, &head));
    }
    let stranger = || {
        let mut client = gate.connect_raw();
        client.send(&bytes);
        for answer in 0..100 {
            let head = client.read_until(|frame| frame.kind == HEADERS).expect("an answer's head");
            // Later ones refer to what the first put into the table.
            assert!(answer > 0 || status(&head) == "401");
        }
        client
    };
    let first = stranger();
    let before = memory(gate.gate.pid(), "VmRSS");
    let others: Vec<RawClient> = (0..STRANGERS).map(|_| stranger()).collect();
    let each = memory(gate.gate.pid(), "VmRSS").saturating_sub(before) as usize / STRANGERS;
    assert!(each <= 512, "{each} KiB for each");
    drop((first, others));
}

#[test]
fn a_shutdown_says_goaway() {
    let origin = Origin::ok();
    let mut gate = TlsGate::start(&config(&origin));
    let mut client = gate.connect_raw();
    client.frame(HEADERS, END_STREAM | END_HEADERS, 1, &encode(&GET));
    assert_eq!(outcome(&mut client), "401");
    gate.gate.signal("TERM");
    let goaway = client.read_until(|frame| frame.kind == GOAWAY).expect("a GOAWAY");
    assert_eq!(goaway.code(), 0);
    assert!(gate.gate.wait().success());
}
