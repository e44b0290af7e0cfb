//! What bounds a client on HTTP/2: limits of keys and strangers, deadlines, floods, memory, and the end of the gate.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use h2::Reason;
use http::Response;

use crate::bodies::memory;
use crate::support::http2::{
    END_HEADERS, END_STREAM, GOAWAY, H2Client, HEADERS, PING, RST_STREAM, RawClient, SETTINGS, TlsGate, WINDOW_UPDATE,
    answer, block, frame, read_body,
};
use crate::support::http2_origin::{H2Origin, config_http2};
use crate::support::origin::{Answer, Origin};
use crate::support::{ALICE, BOB, config_with, eventually};
use crate::upstreams::socket_with_full_queue;

const KEY: [(&str, &str); 1] = [("x-api-key", ALICE)];
const BOBS: [(&str, &str); 1] = [("x-api-key", BOB)];
const ROUTES: &str = "  - { path: /, upstream: app }\n";

/// A header block: a request for `/` with these further fields.
fn get(more: &[(&[u8], &[u8])]) -> Vec<u8> {
    let line: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"gate.test"), (b":path", b"/")];
    block(&[&line[..], more].concat())
}

fn gate(origin: &Origin, more: &str) -> TlsGate {
    TlsGate::start(&config_with(origin, ROUTES, more))
}

fn closed(gate: &TlsGate, reason: &str) -> f64 {
    gate.gate.metric(&format!("keygate_connections_closed_total{{reason=\"{reason}\"}}"))
}

#[test]
fn limits_are_told_per_key_on_a_shared_connection() {
    let origin = Origin::ok();
    let gate = gate(&origin, "limits: { default: { requests: 2, per: 1h, burst: 2 } }\n");
    let mut client = gate.connect();
    let told = |response: &crate::support::http2::H2Response| {
        (response.status, response.one("ratelimit-policy").map(str::to_owned), response.one("ratelimit").is_some())
    };
    let policy = Some("\"key\";q=2;w=3600".to_owned());
    assert_eq!(told(&client.request("GET", "/", &KEY, b"")), (200, policy.clone(), true));
    assert_eq!(client.request("GET", "/", &KEY, b"").status, 200);
    let limited = client.request("GET", "/", &KEY, b"");
    assert_eq!(told(&limited), (429, policy.clone(), true));
    assert!(limited.one("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(told(&client.request("GET", "/", &BOBS, b"")), (200, policy, true), "the other key has its own");
    assert_eq!(origin.requests().len(), 3);
}

#[test]
fn bad_keys_are_throttled_by_address_and_good_ones_are_not() {
    let origin = Origin::ok();
    let gate = gate(&origin, "limits: { failed_auth: { attempts: 3, per: 1h } }\n");
    let mut client = gate.connect();
    let bad = [("x-api-key", "kg_wrong")];
    let statuses: Vec<u16> = (0..5).map(|_| client.request("GET", "/", &bad, b"").status).collect();
    assert_eq!(statuses, [401, 401, 401, 429, 429]);
    assert!(client.request("GET", "/", &bad, b"").headers.contains_key("retry-after"));
    assert_eq!(client.request("GET", "/", &KEY, b"").status, 200);
    assert_eq!(client.request("GET", "/", &[], b"").status, 401, "a missing key is not counted");
}

/// An HTTP/2 origin that answers at once and sends the body when it may, but `/never`, which it does not answer.
fn holding() -> (H2Origin, Arc<AtomicBool>) {
    let free = Arc::new(AtomicBool::new(false));
    let release = free.clone();
    let origin = H2Origin::start(100, move |request, mut respond, _| {
        let release = release.clone();
        async move {
            let Ok(mut stream) = respond.send_response(Response::new(()), false) else { return };
            while request.uri().path() == "/held" && !release.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let _ = stream.send_data("done".into(), true);
        }
    });
    (origin, free)
}

#[test]
fn streams_in_flight_are_counted_and_a_reset_gives_the_place_back() {
    let (origin, free) = holding();
    let gate = TlsGate::start(&config_http2(&origin, "", "limits: { default: { concurrent: 2 } }\n"));
    let mut client = gate.connect();
    let mut held: Vec<_> = (0..2).map(|_| client.open(H2Client::head("GET", "/held", &KEY), true)).collect();
    eventually("both are at the server", || (origin.requests().len() == 2).then_some(()));
    assert_eq!(client.request("GET", "/", &KEY, b"").status, 429);
    assert_eq!(client.request("GET", "/", &BOBS, b"").status, 200);
    held.pop().unwrap().1.send_reset(Reason::CANCEL);
    eventually("a place is free", || (client.request("GET", "/", &KEY, b"").status == 200).then_some(()));
    free.store(true, Ordering::SeqCst);
    let response = client.wait(answer(held.pop().unwrap().0)).unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "done"));
}

#[test]
fn sigterm_lets_streams_finish_and_takes_no_more() {
    let (origin, free) = holding();
    let mut gate = TlsGate::start(&config_http2(&origin, "", "threads: 1\n"));
    let mut silent = gate.connect_raw();
    assert!(silent.read_until(|frame| frame.kind == SETTINGS).is_some());
    let mut client = gate.connect();
    let (held, _) = client.open(H2Client::head("GET", "/held", &KEY), true);
    let (parts, body) = client.wait(held).expect("an answer").into_parts();
    assert_eq!(parts.status, 200);
    gate.gate.signal("TERM");
    let goaway = silent.read_until(|frame| frame.kind == GOAWAY).expect("a GOAWAY");
    assert_eq!(goaway.code(), 0);
    assert!(silent.read_until(|_| false).is_none(), "what is idle is closed, pings answered or not");
    // The client was told as well: it opens nothing more, though its stream goes on.
    eventually("the client learns of it", || {
        let mut send = client.send.clone();
        client.wait(async { std::future::poll_fn(|cx| send.poll_ready(cx)).await.is_err() }).then_some(())
    });
    free.store(true, Ordering::SeqCst);
    let (whole, _) = client.wait(read_body(body)).expect("the rest");
    assert_eq!(whole, b"done");
    assert!(gate.gate.wait().success());
    assert!(gate.gate.access().iter().any(|line| line["target"] == "/held" && line["status"] == 200));
}

#[test]
fn a_body_that_stops_or_is_too_large_ends_its_stream_alone() {
    let origin = Origin::ok();
    let gate = gate(&origin, "request: { body_idle_timeout: 300ms, max_body_bytes: 1000 }\n");
    let mut client = gate.connect();
    let (response, mut stream) = client.open(H2Client::head("POST", "/", &KEY), false);
    stream.send_data("part".into(), false).unwrap();
    assert_eq!(client.wait(answer(response)).unwrap().status, 408);
    assert_eq!(client.request("POST", "/", &KEY, &[b'x'; 1001]).status, 413);
    assert_eq!(client.request("POST", "/", &KEY, &[b'x'; 1000]).status, 200, "the connection goes on");
}

#[test]
fn a_client_that_gives_no_window_loses_its_stream_in_time() {
    let origin = Origin::start(|_| Answer::ok(&"x".repeat(500_000)));
    let gate = gate(&origin, "request: { write_timeout: 300ms }\n");
    for window in [0_u32, 1000] {
        let mut client = gate.connect_raw();
        client.frame(SETTINGS, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat());
        client.frame(HEADERS, END_STREAM | END_HEADERS, 1, &get(&[(b"x-api-key", ALICE.as_bytes())]));
        let reset = client.read_until(|frame| matches!(frame.kind, RST_STREAM | GOAWAY)).expect("a reset");
        assert_eq!((reset.kind, reset.stream, reset.code()), (RST_STREAM, 1, 8), "CANCEL");
        client.frame(PING, 0, 0, b"12345678");
        assert!(client.read_until(|frame| frame.kind == PING && frame.flags == 1).is_some(), "the connection goes on");
    }
    gate.gate.expect_metric(r#"keygate_requests_in_flight{route="/"}"#, 0.0);
    let lines = gate.gate.access();
    assert!(lines.iter().all(|line| line["closed"] == "client_stalled"), "{lines:?}");
}

#[test]
fn a_connection_without_a_request_ends_in_time_whatever_it_sends() {
    let origin = Origin::ok();
    let gate = gate(&origin, "request: { header_timeout: 300ms }\n");
    let mut silent = gate.connect_raw();
    assert!(silent.read_until(|frame| frame.kind == GOAWAY).is_some_and(|frame| frame.code() == 0));
    assert!(silent.read_until(|_| false).is_none());
    // A head that never ends.
    let mut half = gate.connect_raw();
    half.frame(HEADERS, END_STREAM, 1, &get(&[]));
    assert!(half.read_until(|_| false).is_none());
    eventually("both are counted", || (closed(&gate, "head_timeout") == 2.0).then_some(()));
    // Frames that need no answer, as fast as they can be sent: of a type that nobody knows, and priorities.
    for flood in [frame(0x77, 0, 0, b""), frame(2, 0, 1, &[0, 0, 0, 0, 1])] {
        let mut client = gate.connect_raw();
        let (flood, began) = (flood.repeat(1000), Instant::now());
        while client.stream.write_all(&flood).is_ok() {
            assert!(began.elapsed() < Duration::from_secs(15), "the gate lets it go on");
        }
    }
    eventually("all are counted", || (closed(&gate, "head_timeout") == 4.0).then_some(()));
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_reset_while_the_gate_connects_lets_go_of_everything() {
    let listener = socket_with_full_queue();
    let address = listener.0.local_addr().unwrap();
    for http2 in [false, true] {
        let origin = Origin::ok();
        let upstream = format!("servers: [\"{address}\"], http2: {http2}, connect_timeout: 60s");
        let config = config_with(&origin, ROUTES, "threads: 1\n");
        let gate = TlsGate::start(&config.replace(&format!("servers: [\"{}\"]", origin.address()), &upstream));
        let mut client = gate.connect();
        let held: Vec<_> = (0..5).map(|_| client.open(H2Client::head("GET", "/", &KEY), true)).collect();
        gate.gate.expect_metric(r#"keygate_requests_in_flight{route="/"}"#, 5.0);
        for (_, mut stream) in held {
            stream.send_reset(Reason::CANCEL);
        }
        gate.gate.expect_metric(r#"keygate_requests_in_flight{route="/"}"#, 0.0);
    }
}

#[test]
fn extended_connect_reaches_nobody() {
    let origin = Origin::ok();
    let gate = gate(&origin, "");
    let mut client = gate.connect_raw();
    let settings = client.read_until(|frame| frame.kind == SETTINGS && frame.flags == 0).expect("settings");
    assert!(!settings.payload.chunks(6).any(|setting| setting[..2] == [0, 8]), "it is not offered");
    let head: [(&[u8], &[u8]); 6] = [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"https"),
        (b":authority", b"gate.test"),
        (b":path", b"/"),
        (b"x-api-key", ALICE.as_bytes()),
    ];
    client.frame(HEADERS, END_HEADERS, 1, &block(&head));
    let reset = client.read_until(|frame| matches!(frame.kind, HEADERS | RST_STREAM)).expect("an end");
    assert_eq!((reset.kind, reset.code()), (RST_STREAM, 1), "PROTOCOL_ERROR (RFC 8441 section 3)");
    assert_eq!(origin.connections(), 0);
}

#[test]
fn what_needs_no_key_opens_no_wider_window() {
    let origin = Origin::ok();
    let routes =
        "  - { path: /, upstream: app, cors_preflight: true }\n  - { path: /public, upstream: app, access: public }\n";
    let gate = TlsGate::start(&config_with(&origin, routes, ""));
    let mut client = gate.connect_raw();
    client.frame(SETTINGS, 1, 0, b"");
    let preflight: [(&[u8], &[u8]); 6] = [
        (b":method", b"OPTIONS"),
        (b":scheme", b"https"),
        (b":authority", b"gate.test"),
        (b":path", b"/"),
        (b"origin", b"https://page.test"),
        (b"access-control-request-method", b"GET"),
    ];
    let public: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"gate.test"), (b":path", b"/public")];
    let keyed = get(&[(b"x-api-key", ALICE.as_bytes())]);
    for (at, (name, head, wide)) in
        [("public", block(&public), false), ("preflight", block(&preflight), false), ("a key", keyed, true)]
            .into_iter()
            .enumerate()
    {
        let mut widened = false;
        client.frame(HEADERS, END_STREAM | END_HEADERS, 2 * at as u32 + 1, &head);
        eventually("it reached the server", || (origin.requests().len() == at + 1).then_some(()));
        let answered = client.read_until(|frame| {
            widened |= frame.kind == WINDOW_UPDATE && frame.stream == 0;
            frame.kind == HEADERS
        });
        assert!(answered.is_some(), "{name}");
        assert_eq!(widened, wide, "{name}");
    }
}

#[test]
fn many_requests_without_a_key_wait_for_a_server_and_hold_up_no_other() {
    let (origin, free) = holding();
    let gate =
        TlsGate::start(&config_http2(&origin, "", "").replace("upstream: app }", "upstream: app, access: public }"));
    let mut client = gate.connect();
    let held: Vec<_> = (0..30).map(|_| client.open(H2Client::head("GET", "/held", &[]), true)).collect();
    eventually("all are at the server", || (origin.requests().len() == 30).then_some(()));
    assert_eq!(client.request("POST", "/", &[], &[b'x'; 200_000]).status, 200);
    free.store(true, Ordering::SeqCst);
    for (response, _) in held {
        assert_eq!(client.wait(answer(response)).unwrap().text(), "done");
    }
}

#[test]
fn a_ninth_request_does_not_wait_for_the_answers_to_the_first_eight() {
    let free = Arc::new(AtomicBool::new(false));
    let release = free.clone();
    let origin = H2Origin::start(100, move |_, mut respond, _| {
        let release = release.clone();
        async move {
            while !release.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let _ = respond.send_response(Response::new(()), true);
        }
    });
    let patient = "request: { header_timeout: 60s, keepalive_timeout: 60s }\n";
    let gate = TlsGate::start(
        &config_http2(&origin, "", patient).replace("upstream: app }", "upstream: app, access: public }"),
    );
    let mut client = gate.connect_raw();
    // All that a client says by itself is said: nothing but its requests wakes the gate.
    client.frame(SETTINGS, 1, 0, b"").frame(PING, 0, 0, b"ping-pon");
    assert!(client.read_until(|frame| frame.kind == PING).is_some());
    // Heads so short that one read brings them all: `GET / https` by the static table, the authority by the other.
    let literal = [&[0x82, 0x87, 0x84, 0x41, 9][..], b"gate.test"].concat();
    let heads = (0..12).flat_map(|number| {
        let head = if number == 0 { &literal[..] } else { &[0x82, 0x87, 0x84, 0xbe] };
        frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, head)
    });
    client.send(&heads.collect::<Vec<_>>());
    eventually("all are at the server", || (origin.requests().len() == 12).then_some(()));
    free.store(true, Ordering::SeqCst);
}

/// What each of many strangers makes the gate hold, in KiB: now, and at its highest. Each opens 99 streams with `fields` behind
/// the request's own, gives no window for their answers, reads nothing, and leaves a last head unfinished.
fn held_by_strangers(gate: &TlsGate, fields: &[u8], strangers: usize) -> (usize, usize) {
    let before = memory(gate.gate.pid(), "VmRSS");
    let head = [get(&[]), fields.to_vec()].concat();
    let mut bytes = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    // What the heads refer to: one entry of the table.
    for stream in 0..99 {
        let kind = if stream == 0 { [get(&[]), ENTRY.to_vec(), vec![b'y'; 3000]].concat() } else { head.clone() };
        bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, 2 * stream + 1, &kind));
    }
    let mut open = get(&[(b"x-fill", &[b'z'; 16_000])]);
    open.truncate(16_000);
    bytes.extend(frame(HEADERS, END_STREAM, 199, &open));
    let answered = |gate: &TlsGate| {
        let page = gate.gate.metrics();
        let count = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
        let requests = page.lines().filter(|line| line.starts_with("keygate_requests_total{"));
        requests.map(count).sum::<f64>()
    };
    let already = answered(gate);
    let held: Vec<RawClient> = (0..strangers)
        .map(|_| {
            let mut client = gate.connect_raw();
            client.send(&bytes);
            client
        })
        .collect();
    let all = already + (strangers * 99) as f64;
    eventually("all are answered", || (answered(gate) >= all).then_some(()));
    let each = |name| memory(gate.gate.pid(), name).saturating_sub(before) as usize / strangers;
    let figures = (each("VmRSS"), each("VmHWM"));
    drop(held);
    figures
}

/// A literal field `x` of 3,000 bytes that goes into the table: its beginning.
const ENTRY: [u8; 6] = [0x40, 1, b'x', 127, 0xb9, 0x16];

#[test]
fn what_a_stranger_on_http2_holds_is_bounded() {
    let origin = Origin::ok();
    for (name, fields) in [
        ("large fields", vec![0xbe; 9]),
        ("many fields", {
            // A small literal into the table first, then that one over and over.
            [&[0x40, 1, b'a', 1, b'b'][..], &[0xbe; 800]].concat()
        }),
    ] {
        let gate = gate(&origin, "request: { header_timeout: 60s, write_timeout: 60s, keepalive_timeout: 60s }\n");
        // What is needed once for all is no stranger's.
        held_by_strangers(&gate, &fields, 2);
        let (now, highest) = held_by_strangers(&gate, &fields, 60);
        eprintln!("{name}: {now} KiB now, {highest} KiB at its highest");
        // Decision 28 wants 256; what the allocator keeps and a debug build add is in these figures.
        assert!(now <= 384 && highest <= 384, "{name}: {now} KiB now, {highest} KiB at its highest");
    }
    assert_eq!(origin.connections(), 0);
}
