//! Sessions to HTTP/2 upstreams: how they begin, are shared, are lost and end; and the TLS that they, and HTTP/1, stand on.

use std::fs;
use std::future::poll_fn;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::Response;

use crate::support::client::{get, request};
use crate::support::gateway::Gateway;
use crate::support::http2::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, H2Client, HEADERS, RawPeer, SETTINGS, TlsGate, WINDOW_UPDATE, answer, block,
    read_body,
};
use crate::support::http2_origin::{H2Origin, config_http2, config_http2_at, raw_origin};
use crate::support::origin::{Answer, Origin};
use crate::support::pki::Authority;
use crate::support::{ALICE, BOB, KEYS, eventually};

const KEY: [(&str, &str); 1] = [("x-api-key", ALICE)];

fn ask(gate: &Gateway) -> u16 {
    get(gate.address(0), "/", &[("X-Api-Key", ALICE)]).status
}

/// Opens `count` requests at once and gives the statuses of all.
fn together(client: &mut H2Client, method: &str, count: usize) -> Vec<u16> {
    let opened: Vec<_> = (0..count).map(|_| client.open(H2Client::head(method, "/", &KEY), true).0).collect();
    client.wait(async {
        let mut statuses = Vec::new();
        for response in opened {
            statuses.push(answer(response).await.expect("an answer").status);
        }
        statuses
    })
}

/// Waits for a warning about this server that holds `text`: the server's alert, or a hint where it is lost in a reset.
fn expect_warning(gate: &Gateway, server: &str, text: &str) {
    let told = |event: &serde_json::Value| {
        event["level"] == "WARN" && event["server"] == server && event.to_string().contains(text)
    };
    eventually(text, || gate.events().iter().any(told).then_some(()));
}

/// Waits for a line of the log with this message whose other fields hold `text`.
fn expect_log(gate: &Gateway, message: &str, text: &str) {
    let line = |event: &serde_json::Value| event["message"] == message && event.to_string().contains(text);
    eventually(text, || gate.events().iter().any(line).then_some(()));
}

/// A gate before a TLS server at `address` whose authority's files lie in the gate's folder.
fn tls_gate(authority: &Authority, address: &str, settings: &str) -> Gateway {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
    authority.issue_to(dir.path(), "gate", &["gate.test"]);
    let tls = format!(", tls: {{ server_name: worker.lan, ca: ca.pem{settings} }}");
    Gateway::start_in(dir, &config_http2_at(address, &tls, "threads: 1\n"), KEYS, &[])
}

async fn ok(respond: &mut h2::server::SendResponse<bytes::Bytes>) {
    let _ = respond.send_response(Response::new(()), true);
}

#[test]
fn over_tls_http2_is_agreed_on_or_the_answer_is_502_and_the_log_says_why() {
    let authority = Authority::new();
    let start = |protocols: &[&str]| {
        let tls = authority.server(&["worker.lan"], false, protocols);
        H2Origin::start_by(Some(tls), 100, |_, mut respond, _| async move { ok(&mut respond).await })
    };
    let origin = start(&["h2", "http/1.1"]);
    let gate = tls_gate(&authority, origin.address(), "");
    assert_eq!((ask(&gate), ask(&gate)), (200, 200));
    assert_eq!((origin.connections(), origin.requests()[0].line.as_str()), (1, "GET https://gate.test/"));
    for (protocols, why) in [(&[][..], "does not offer HTTP/2"), (&["http/1.1"], "NoApplicationProtocol")] {
        let origin = start(protocols);
        let gate = tls_gate(&authority, origin.address(), "");
        assert_eq!(ask(&gate), 502, "{protocols:?}");
        expect_log(&gate, "no upstream connection", why);
        assert_eq!((origin.connections(), origin.requests().len()), (1, 0));
    }
    let http1 = Origin::start(|_| Answer::raw_close("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"));
    let gate = Gateway::start(&config_http2_at(&http1.address(), "", ""));
    assert_eq!(ask(&gate), 502);
    expect_warning(&gate, &http1.address(), "HTTP/2");
}

/// Reads until `count` requests have begun; gives their streams.
fn begun(peer: &mut RawPeer<TcpStream>, count: usize) -> Vec<u32> {
    (0..count).map_while(|_| peer.read_until(|frame| frame.kind == HEADERS).map(|frame| frame.stream)).collect()
}

/// Answers a stream with 200 and nothing else.
fn finish(peer: &mut RawPeer<TcpStream>, stream: u32) {
    peer.frame(HEADERS, END_STREAM | END_HEADERS, stream, &[0x88]);
}

fn goaway(last: u32, code: u32) -> Vec<u8> {
    [last.to_be_bytes(), code.to_be_bytes()].concat()
}

fn answer_all(peer: &mut RawPeer<TcpStream>) {
    while let [stream] = begun(peer, 1)[..] {
        finish(peer, stream);
    }
}

#[test]
fn what_a_goaway_leaves_out_is_asked_again_once_and_the_rest_finishes() {
    for code in [0, 11] {
        let origin = raw_origin(move |number, mut peer| {
            if number > 0 {
                return answer_all(&mut peer);
            }
            begun(&mut peer, 1);
            finish(&mut peer, 1);
            begun(&mut peer, 6);
            peer.frame(GOAWAY, 0, 0, &goaway(5, code));
            finish(&mut peer, 3);
            finish(&mut peer, 5);
            let _ = peer.read();
        });
        let gate = TlsGate::start(&config_http2_at(&origin.address(), "", "threads: 1\n"));
        let mut client = gate.connect();
        assert_eq!(client.request("GET", "/", &KEY, b"").status, 200);
        // Any method: the server said that it did nothing with them.
        assert_eq!(together(&mut client, "POST", 6), [200; 6], "code {code}");
        assert_eq!(origin.connections(), 2, "those that were left out share one new connection");
    }
}

#[test]
fn what_a_goaway_takes_in_is_not_asked_again() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = seen.clone();
    let origin = raw_origin(move |number, mut peer| {
        begun(&mut peer, 1);
        finish(&mut peer, 1);
        record.lock().unwrap().extend(begun(&mut peer, 1).into_iter().map(|stream| (number, stream)));
        peer.frame(GOAWAY, 0, 0, &goaway(3, 0));
    });
    let gate = Gateway::start(&config_http2_at(&origin.address(), "", "threads: 1\n"));
    assert_eq!(ask(&gate), 200);
    assert_eq!(request(gate.address(0), "POST", "/", &[("X-Api-Key", ALICE)], b"").status, 502);
    assert_eq!((seen.lock().unwrap().clone(), origin.connections()), (vec![(0, 3)], 1));
}

#[test]
fn a_session_lost_under_load_is_replaced_by_one() {
    let origin = raw_origin(|number, mut peer| {
        if number > 0 {
            return answer_all(&mut peer);
        }
        begun(&mut peer, 1);
        finish(&mut peer, 1);
        begun(&mut peer, 30);
    });
    let gate = TlsGate::start(&config_http2_at(&origin.address(), "", "threads: 1\n"));
    let mut client = gate.connect();
    assert_eq!(client.request("GET", "/", &KEY, b"").status, 200);
    assert_eq!(together(&mut client, "GET", 30), [200; 30]);
    assert_eq!(origin.connections(), 2);
}

/// An origin whose requests to `/held` wait for the flag.
fn holding(streams: u32) -> (H2Origin, Arc<AtomicBool>) {
    let free = Arc::new(AtomicBool::new(false));
    let release = free.clone();
    let origin = H2Origin::start(streams, move |request, mut respond, _| {
        let release = release.clone();
        async move {
            while request.uri().path() == "/held" && !release.load(Ordering::SeqCst) {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            ok(&mut respond).await;
        }
    });
    (origin, free)
}

fn hold(client: &mut H2Client, count: usize) -> Vec<h2::client::ResponseFuture> {
    (0..count).map(|_| client.open(H2Client::head("GET", "/held", &KEY), true).0).collect()
}

fn all_ok(client: &H2Client, held: Vec<h2::client::ResponseFuture>) {
    client.wait(async {
        for response in held {
            assert_eq!(answer(response).await.expect("an answer").status, 200);
        }
    });
}

#[test]
fn requests_that_pass_over_a_dead_server_share_sessions_with_the_others() {
    let origin = H2Origin::echo();
    // Nobody listens there: what was bound and let go of is not given out again soon.
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = config_http2(&origin, "", "threads: 1\n");
    let gate = Gateway::start(&config.replace("servers: [", &format!("servers: [\"{dead}\", ")));
    for _ in 0..10 {
        assert_eq!(ask(&gate), 200);
    }
    assert_eq!((origin.requests().len(), origin.connections()), (10, 1));
}

#[test]
fn long_streams_get_sessions_of_their_own_where_the_server_takes_few() {
    for (streams, sessions) in [(1, 6), (2, 3)] {
        let (origin, free) = holding(streams);
        let gate = TlsGate::start(&config_http2(&origin, "", "threads: 1\n"));
        let mut client = gate.connect();
        // All at once on a gate that does not know yet what the server allows: none may wait for another's end.
        let held = hold(&mut client, 6);
        eventually("all six are at the server", || (origin.requests().len() == 6).then_some(()));
        assert_eq!(origin.connections(), sessions);
        free.store(true, Ordering::SeqCst);
        all_ok(&client, held);
    }
}

#[test]
fn an_idle_session_is_closed_in_its_time_and_a_busy_one_is_not() {
    let (origin, free) = holding(100);
    let gate = TlsGate::start(&config_http2(&origin, ", keepalive_timeout: 300ms", "threads: 1\n"));
    let mut client = gate.connect();
    assert_eq!(client.request("GET", "/", &KEY, b"").status, 200);
    eventually("the idle session ends", || (origin.ended() == 1).then_some(()));
    let held = hold(&mut client, 1);
    eventually("the stream is open", || (origin.requests().len() == 2).then_some(()));
    // The gate looks once a second.
    let began = std::time::Instant::now();
    eventually("a sweep is over", || (began.elapsed().as_millis() > 1500).then_some(()));
    assert_eq!(origin.ended(), 1, "a stream keeps its session");
    free.store(true, Ordering::SeqCst);
    all_ok(&client, held);
    eventually("then it ends too", || (origin.ended() == 2).then_some(()));
}

#[test]
fn a_reload_leaves_old_streams_and_uses_no_old_session() {
    let (origin, free) = holding(100);
    let config = config_http2(&origin, "", "threads: 1\n");
    let gate = TlsGate::start(&config);
    let mut client = gate.connect();
    let held = hold(&mut client, 1);
    eventually("the stream is open", || (origin.requests().len() == 1).then_some(()));
    let tls = r#"address: "127.0.0.1:0", tls: { certificates: [{ cert: cert.pem, key: key.pem }] }"#;
    assert!(gate.gate.reload(&config.replacen(r#"address: "127.0.0.1:0""#, tls, 1)));
    assert_eq!(client.request("GET", "/", &KEY, b"").status, 200);
    assert_eq!(origin.requests()[1].connection, 1, "the new generation has a session of its own");
    assert_eq!(origin.ended(), 0);
    free.store(true, Ordering::SeqCst);
    all_ok(&client, held);
    eventually("the old session ends with its last stream", || (origin.ended() == 1).then_some(()));
    assert_eq!(client.request("GET", "/", &KEY, b"").status, 200);
    assert_eq!((origin.connections(), origin.ended()), (2, 1));
}

#[test]
fn a_refused_client_certificate_is_502_once_and_the_log_says_so() {
    let authority = Authority::new();
    let origin = authority.origin(&["worker.lan"], true);
    let gate = {
        let config = config_http2_at(origin.address(), ", tls: { server_name: worker.lan, ca: ca.pem }", "");
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
        Gateway::start_in(dir, &config.replace("http2: true, ", ""), KEYS, &[])
    };
    assert_eq!(ask(&gate), 502);
    expect_warning(&gate, origin.address(), "ertificate");
    assert_eq!(origin.seen().len(), 1, "asked once: {:?}", origin.seen());
    let tls = authority.server(&["worker.lan"], true, &["h2"]);
    let origin = H2Origin::start_by(Some(tls), 100, |_, mut respond, _| async move { ok(&mut respond).await });
    let gate = tls_gate(&authority, origin.address(), "");
    assert_eq!((ask(&gate), origin.connections()), (502, 1));
    expect_warning(&gate, origin.address(), "ertificate");
    let gate = tls_gate(&authority, origin.address(), ", cert: gate.pem, key: gate.key");
    assert_eq!(ask(&gate), 200);
}

#[test]
fn replaced_tls_files_of_an_upstream_are_used_all_together_or_not_at_all() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let one = authority.origin(&["worker.lan"], true);
    let tls = authority.server(&["worker.lan"], true, &["h2"]);
    let two = H2Origin::start_by(Some(tls), 100, |_, mut respond, _| async move { ok(&mut respond).await });
    for (address, http2) in [(one.address(), ""), (two.address(), "http2: true, ")] {
        let settings = ", tls: { server_name: worker.lan, ca: ca.pem, cert: gate.pem, key: gate.key }";
        let config = config_http2_at(address, settings, "threads: 1\n").replace("http2: true, ", http2);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
        stranger.issue_to(dir.path(), "gate", &["gate.test"]);
        let gate = Gateway::start_in(dir, &config, KEYS, &[]);
        assert_eq!(ask(&gate), 502, "the server does not know our certificate's authority");
        let replaced = "TLS files of an upstream replaced";
        let count = || gate.events().iter().filter(|event| event["message"] == replaced).count();
        authority.issue_to(gate.dir.path(), "gate", &["new.gate.test"]);
        eventually("the new certificate is shown", || (ask(&gate) == 200).then_some(()));
        eventually("the log says so", || (count() == 1).then_some(()));
        let expiry = r#"keygate_tls_certificate_expiry_timestamp_seconds{name="new.gate.test"}"#;
        eventually("the metric shows the new one", || (gate.metric(expiry) > 0.0).then_some(()));
        // A key without its certificate changes nothing.
        let good = fs::read(gate.path("gate.key")).unwrap();
        fs::write(gate.path("gate.key"), &good[..good.len() / 2]).unwrap();
        expect_log(&gate, "TLS files of an upstream refused, the old ones stay", "gate.key");
        assert_eq!((ask(&gate), count()), (200, 1));
        // With another authority the server is nobody: an idle connection from before is not used either.
        fs::write(gate.path("gate.key"), good).unwrap();
        fs::write(gate.path("ca.pem"), &stranger.pem).unwrap();
        eventually("the server is not trusted any more", || (ask(&gate) == 502).then_some(()));
    }
}

#[test]
fn stalled_readers_of_small_messages_end_no_session_of_others() {
    const STALLED: usize = 20;
    const MESSAGE: &[u8] = &[b'm'; 50];
    /// As many messages as a window of 128 KiB has room for.
    const MESSAGES: usize = 128 * 1024 / MESSAGE.len();
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let origin = H2Origin::start(100, move |request, mut respond, _| {
        let sent = count.clone();
        async move {
            let Ok(mut stream) = respond.send_response(Response::new(()), false) else { return };
            if request.uri().path() == "/small" {
                for _ in 0..MESSAGES {
                    stream.reserve_capacity(MESSAGE.len());
                    while stream.capacity() < MESSAGE.len() {
                        let Some(Ok(_)) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
                    }
                    if stream.send_data(MESSAGE.into(), false).is_err() {
                        return;
                    }
                    sent.fetch_add(1, Ordering::SeqCst);
                }
            }
            let Ok((body, _)) = read_body(request.into_body()).await else { return };
            let _ = stream.send_data(body.into(), true);
        }
    });
    let gate = TlsGate::start(&config_http2(&origin, "", "threads: 1\n"));
    let mut other = gate.connect();
    let (response, mut body) = other.open(H2Client::head("POST", "/echo", &[("x-api-key", BOB)]), false);
    let response = other.wait(response).expect("an answer begins");
    // They take the head of their answer and none of its body.
    let mut stalled = gate.connect_raw();
    stalled.frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    for stream in 0..STALLED as u32 {
        let head: [(&[u8], &[u8]); 5] = [
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", b"gate.test"),
            (b":path", b"/small"),
            (b"x-api-key", ALICE.as_bytes()),
        ];
        stalled.frame(HEADERS, END_STREAM | END_HEADERS, 2 * stream + 1, &block(&head));
    }
    eventually("all messages are out", || (sent.load(Ordering::SeqCst) == STALLED * MESSAGES).then_some(()));
    body.send_data("still here".into(), true).unwrap();
    let (echoed, _) = other.wait(read_body(response.into_body())).expect("the stream lives on");
    assert_eq!(echoed, b"still here");
    // What was kept for them comes whole, once they take it.
    for stream in 0..STALLED as u32 {
        stalled.frame(WINDOW_UPDATE, 0, 2 * stream + 1, &(1_u32 << 20).to_be_bytes());
    }
    stalled.frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 24).to_be_bytes());
    let (mut ended, mut bytes) = (0, 0);
    while ended < STALLED {
        let frame = stalled.read_until(|frame| frame.kind == DATA).expect("the rest");
        assert!(frame.payload.iter().all(|byte| *byte == b'm'));
        bytes += frame.payload.len();
        ended += usize::from(frame.flags & END_STREAM != 0);
    }
    assert_eq!((bytes, origin.connections()), (STALLED * MESSAGES * MESSAGE.len(), 1));
}
