//! A key's end ends its connections (design rule 8): WebSockets with 1008 at a frame boundary, streams, downloads and
//! uploads by a cut; those of other keys are not touched. The times seen are printed; the second itself is for the benches.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::support::client::{Client, get};
use crate::support::gateway::Gateway;
use crate::support::origin::{Origin, Reader};
use crate::support::socket::{BINARY, CLOSE, Socket, TEXT, echo_server, frame};
use crate::support::{ALICE, BOB, KEYS, config, config_with, eventually};

pub const ROUTES: &str = "  - { path: /public/, access: public, upstream: app }\n  \
                      - { path: /client/, roles: [client], scopes: [\"jobs:write\"], upstream: app }\n  \
                      - { path: /, upstream: app }\n";
const ENDED: &str = r#"keygate_connections_closed_total{reason="key_ended"}"#;

/// The key file without alice's entry.
pub fn without_alice() -> String {
    let at = KEYS.find("  - id: 48e8f859").expect("alice");
    let bob = KEYS.find("  - id: ba9af604").expect("bob");
    format!("{}{}", &KEYS[..at], &KEYS[bob..])
}

/// The key file with more lines in alice's entry.
pub fn with_lines(lines: &str) -> String {
    KEYS.replace("    user: alice\n", &format!("    user: alice\n{lines}"))
}

pub fn digest(key: &str) -> String {
    Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn in_millis(millis: i64) -> String {
    (jiff::Timestamp::now() + jiff::SignedDuration::from_millis(millis)).to_string()
}

fn tell(what: &str, since: Instant) {
    eprintln!("{what}: {} ms", since.elapsed().as_millis());
    assert!(since.elapsed() < Duration::from_secs(10), "{what}");
}

/// Replaces the key file and waits until it is in force.
pub fn put_in_force(gate: &Gateway, keys: &str) {
    let series = r#"keygate_keyfile_reloads_total{result="success"}"#;
    let before = gate.metric(series);
    gate.replace_keys(keys);
    eventually("the key file is in force", || (gate.metric(series) > before).then_some(()));
}

/// Waits until so many connections were counted as ended by their key.
pub fn ended(gate: &Gateway, count: f64) {
    eventually("the count of ended connections", || (gate.metric(ENDED) == count).then_some(()));
}

#[test]
fn whatever_ends_a_key_closes_its_websockets_with_1008() {
    let origin = echo_server();
    let gate = Gateway::start(&config_with(&origin, ROUTES, ""));
    let past = in_millis(-60_000);
    let (alice, other) = (digest(ALICE), digest("another"));
    let rotated = |until: &str| {
        KEYS.replace(&alice, &other).replace(
            "    user: alice\n",
            &format!("    user: alice\n    previous: {{ hash: {alice}, until: {until} }}\n"),
        )
    };
    let mut bobs = Socket::open(gate.address(0), "/", BOB);
    let mut strangers = Socket::on(Client::connect(gate.address(0)), "/public/", "");
    for (name, keys, reason) in [
        ("removed", without_alice(), "key revoked"),
        ("disabled", with_lines("    disabled: true\n"), "key revoked"),
        ("expired", with_lines(&format!("    expires: {past}\n")), "key expired"),
        ("given another hash", KEYS.replace(&alice, &other), "key revoked"),
        ("past its grace", rotated(&past), "key expired"),
        ("given to another user", KEYS.replace("user: alice", "user: carol"), "key revoked"),
        ("without the role", KEYS.replace("[client, miner]", "[miner]"), "key revoked"),
        ("without the scope", KEYS.replace("\"jobs:write\", ", ""), "key revoked"),
        ("not allowed from here", with_lines("    allow_from: [\"10.0.0.0/8\"]\n"), "key revoked"),
    ] {
        let mut socket = Socket::open(gate.address(0), "/client/", ALICE);
        socket.echoes("open");
        let since = Instant::now();
        gate.replace_keys(&keys);
        assert_eq!(socket.read_close(), (1008, reason.to_owned()), "{name}");
        tell(name, since);
        assert!(socket.is_closed());
        bobs.echoes("not mine");
        strangers.echoes("nobody's");
        // Put back as it was, the key is good again; what was closed stays closed.
        put_in_force(&gate, KEYS);
    }
    ended(&gate, 9.0);
    eventually("a line for each", || {
        let lines = gate.access();
        let count = |word: &str| lines.iter().filter(|line| line["closed"] == word).count();
        (count("key_revoked") == 7 && count("key_expired") == 2).then_some(())
    });
}

/// An origin whose answers and frames the test writes: each connection is handed over behind the request's head.
pub fn handing_over() -> (Origin, Receiver<(String, TcpStream)>) {
    let (sender, receiver): (Sender<(String, TcpStream)>, _) = channel();
    let sender = Mutex::new(sender);
    let origin = Origin::start_raw(move |_, mut stream, _| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        let head = String::from_utf8(head).expect("text");
        let target = head.split(' ').nth(1).expect("a target").to_owned();
        let _ = sender.lock().unwrap().send((target, stream));
    });
    (origin, receiver)
}

pub fn handed(receiver: &Receiver<(String, TcpStream)>) -> TcpStream {
    receiver.recv_timeout(Duration::from_secs(10)).expect("the origin was asked").1
}

#[test]
fn streams_downloads_and_uploads_of_the_key_end_and_no_others() {
    let (origin, asked) = handing_over();
    let gate = Gateway::start(&config_with(&origin, ROUTES, ""));
    let stream =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ndata:\r\n";
    let download = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nabc";
    let upload = "PUT /up HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n";
    let chunked = "POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n";
    let plain = "GET / HTTP/1.1\r\nHost: a\r\n";
    let public = "GET /public/ HTTP/1.1\r\nHost: a\r\n";
    let mut open: Vec<(String, Client, TcpStream, bool)> = Vec::new();
    for (name, request, body, answer) in [
        ("events", plain, "", stream),
        ("a download", plain, "", download),
        ("an answer that has not begun", plain, "", ""),
        ("an upload", upload, "some", ""),
        ("a chunked upload", chunked, "4\r\nsome\r\n", ""),
        ("an upload that is answered already", chunked, "4\r\nsome\r\n", stream),
        ("events for anybody", public, "", stream),
    ] {
        for (key, whose) in [(ALICE, "alice"), (BOB, "bob")] {
            let key = if request == public { String::new() } else { format!("X-Api-Key: {key}\r\n") };
            let mut client = Client::connect(gate.address(0));
            client.send(format!("{request}{key}\r\n{body}"));
            let mut server = handed(&asked);
            server.write_all(answer.as_bytes()).expect("sent");
            if !answer.is_empty() {
                assert_eq!(client.take(15), b"HTTP/1.1 200 OK");
            }
            open.push((format!("{name} of {whose}"), client, server, whose == "alice" && request != public));
        }
    }
    let since = Instant::now();
    gate.replace_keys(&without_alice());
    for (name, client, server, ends) in &mut open {
        if !*ends {
            continue;
        }
        client.read_to_close();
        server.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        let mut rest = Vec::new();
        let _ = server.read_to_end(&mut rest);
        tell(name, since);
    }
    for (name, client, server, ends) in &mut open {
        if !*ends {
            let answered = name.starts_with("events") || name.contains("download") || name.contains("answered already");
            let more = if answered { "4\r\nmore\r\n" } else { "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmore" };
            server.write_all(more.as_bytes()).expect("sent");
            let mut got = Vec::new();
            while !got.ends_with(b"more") {
                got.extend(client.take(1));
            }
        }
    }
    ended(&gate, 6.0);
    eventually("lines with the reason", || {
        let lines = gate.access();
        (lines.iter().filter(|line| line["closed"] == "key_revoked" && line["user"] == "alice").count() == 6)
            .then_some(())
    });
}

#[test]
fn rotation_within_its_grace_closes_nothing_and_its_end_does() {
    let origin = echo_server();
    let gate = Gateway::start(&config(&origin));
    let mut old = Socket::open(gate.address(0), "/", ALICE);
    let (alice, new) = (digest(ALICE), "the-new-key-of-alice");
    let rotated = |until: &str| {
        KEYS.replace(&alice, &digest(new)).replace(
            "    user: alice\n",
            &format!("    user: alice\n    previous: {{ hash: {alice}, until: {until} }}\n"),
        )
    };
    put_in_force(&gate, &rotated(&in_millis(3_600_000)));
    old.echoes("in its grace");
    let mut fresh = eventually("the new key is good", || {
        (get(gate.address(0), "/", &[("X-Api-Key", new)]).status != 401)
            .then(|| Socket::open(gate.address(0), "/", new))
    });
    gate.replace_keys(&rotated(&in_millis(1_500)));
    let since = Instant::now();
    assert_eq!(old.read_close(), (1008, "key expired".to_owned()));
    tell("the end of a grace of 1,500 ms", since);
    assert!(since.elapsed() > Duration::from_millis(1_000), "not before its time");
    fresh.echoes("the new key goes on");
}

#[test]
fn a_key_that_expires_takes_its_connections_along() {
    let (origin, asked) = handing_over();
    let keys = with_lines(&format!("    expires: {}\n", in_millis(2_500)));
    let gate = Gateway::start_with(&config(&origin), &keys, &[]);
    let since = Instant::now();
    let mut client = Client::connect(gate.address(0));
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
    let mut server = handed(&asked);
    // Busy all the time: the end must be noticed between bytes, too.
    let flood = thread::spawn(move || {
        let _ = server.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunk = [b"10000\r\n".as_slice(), &vec![b'x'; 65_536], b"\r\n"].concat();
        while server.write_all(&chunk).is_ok() {}
    });
    let mut chunk = vec![0; 1 << 20];
    while matches!(client.stream.read(&mut chunk), Ok(count) if count > 0) {
        assert!(since.elapsed() < Duration::from_secs(13), "the download goes on");
    }
    tell("a busy download of a key with 2,500 ms to live", since);
    flood.join().expect("ends");
    assert_eq!(get(gate.address(0), "/", &[("X-Api-Key", ALICE)]).status, 401);
}

#[test]
fn a_close_waits_for_the_frame_under_way_but_not_for_ever() {
    let (origin, asked) = handing_over();
    let gate = Gateway::start(&config(&origin));
    let message = frame(BINARY, &vec![3; 200_000], None);
    for finishes in [true, false] {
        let handshake = crate::support::socket::handshake("/", &format!("X-Api-Key: {ALICE}\r\n"));
        let mut client = Client::connect(gate.address(0));
        client.send(handshake);
        let mut server = handed(&asked);
        server.write_all(accepting().as_bytes()).expect("sent");
        let response = client.read();
        let mut socket = Socket { client, response };
        let (first, rest) = message.split_at(100_000);
        server.write_all(first).expect("sent");
        assert_eq!(socket.client.take(100_000), first);
        put_in_force(&gate, &without_alice());
        let since = Instant::now();
        if finishes {
            // The rest of the frame and one more, which is not the client's any more.
            server.write_all(rest).expect("sent");
            let _ = server.write_all(&frame(TEXT, b"too late", None));
            assert_eq!(socket.client.take(rest.len()), rest);
            let close = socket.read();
            assert_eq!(close.map(|(first, payload)| (first, payload.len())), Some((CLOSE, 2 + "key revoked".len())));
        }
        assert!(socket.is_closed(), "no close frame into the middle of another");
        tell(if finishes { "behind the frame" } else { "within a frame that never ends" }, since);
        put_in_force(&gate, KEYS);
    }
}

/// A 101 to the handshake of the harness.
pub fn accepting() -> String {
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(crate::support::socket::NONCE.as_bytes());
    format!("HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n")
}

#[test]
fn a_tunnel_that_is_always_busy_ends_too_and_a_client_that_floods_on_is_cut() {
    let (origin, asked) = handing_over();
    let gate = Gateway::start(&config(&origin));
    let mut client = Client::connect(gate.address(0));
    client.send(crate::support::socket::handshake("/", &format!("X-Api-Key: {ALICE}\r\n")));
    let mut server = handed(&asked);
    server.write_all(accepting().as_bytes()).expect("sent");
    client.read();
    let mut threads = Vec::new();
    let flood =
        |mut stream: TcpStream, bytes: Vec<u8>| thread::spawn(move || while stream.write_all(&bytes).is_ok() {});
    let drain = |mut stream: TcpStream| {
        thread::spawn(move || {
            let mut chunk = vec![0; 1 << 18];
            while matches!(stream.read(&mut chunk), Ok(count) if count > 0) {}
        })
    };
    let clone = |stream: &TcpStream| stream.try_clone().expect("cloned");
    threads.push(flood(clone(&client.stream), frame(BINARY, &vec![1; 60_000], Some([0; 4]))));
    threads.push(flood(clone(&server), frame(BINARY, &vec![2; 60_000], None)));
    threads.push(drain(clone(&client.stream)));
    threads.push(drain(server));
    let since = Instant::now();
    gate.replace_keys(&without_alice());
    // The client never stops sending and never closes, and still the connection ends.
    threads.into_iter().for_each(|thread| thread.join().expect("ends"));
    tell("a tunnel busy both ways", since);
    let line = eventually("its line", || gate.access().into_iter().find(|line| line["status"] == 101));
    assert_eq!(line["closed"], "key_revoked");
    assert!(line["bytes_out"].as_u64() > Some(100_000), "{line}");
}

#[test]
fn no_stream_that_begins_around_the_swap_is_forgotten() {
    let origin = Origin::start_raw(|number, stream, log| {
        let mut reader = Reader { stream, buffer: Vec::new() };
        while reader.request(number, log).is_some() {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
            if reader.stream.write_all(head.as_bytes()).is_err() {
                return;
            }
        }
    });
    let gate = Gateway::start(&config(&origin));
    let (mut streams, mut cut) = (Vec::new(), 0.0);
    gate.replace_keys(&without_alice());
    let since = Instant::now();
    loop {
        let mut client = Client::connect(gate.address(0));
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
        // Ended before its answer began: that is an end, too.
        if client.is_closed() {
            cut += 1.0;
            continue;
        }
        let status = client.take(12);
        if status == b"HTTP/1.1 401" {
            // A key that ended before the answer began gets a 401, too, and there the connection ends.
            client.finish();
            let rest = client.read_to_close();
            cut += f64::from(u8::from(rest.windows(17).any(|line| line == b"Connection: close")));
            break;
        }
        assert_eq!(status, b"HTTP/1.1 200");
        streams.push(client);
        thread::park_timeout(Duration::from_millis(3));
    }
    let count = streams.len();
    assert!(count > 5, "the key was good for a while");
    streams.iter_mut().for_each(|client| drop(client.read_to_close()));
    tell(&format!("{count} streams begun before the swap"), since);
    ended(&gate, count as f64 + cut);
}

#[test]
fn many_sockets_of_many_keys_end_or_stay_each_by_its_own_key() {
    const KEYS_OF: usize = 20;
    const SOCKETS_OF_EACH: usize = 10;
    let origin = echo_server();
    let key = |number: usize| format!("key-number-{number}");
    let file = |numbers: &mut dyn Iterator<Item = usize>| {
        let entries = numbers.map(|n| format!("  - {{ id: id{n:06}, user: user{n}, hash: {} }}\n", digest(&key(n))));
        format!("version: 1\nkeys:\n{}...\n", entries.collect::<String>())
    };
    let gate = Gateway::start_with(&config(&origin), &file(&mut (0..KEYS_OF)), &[]);
    let mut sockets: Vec<(usize, Socket)> = (0..KEYS_OF * SOCKETS_OF_EACH)
        .map(|n| (n % KEYS_OF, Socket::open(gate.address(0), "/", &key(n % KEYS_OF))))
        .collect();
    let active = |count: f64| (gate.metric(r#"keygate_websockets_active{route="/"}"#) == count).then_some(());
    eventually("all are open", || active(sockets.len() as f64));
    // Every other socket has a message of 20 kB under way.
    for (_, socket) in sockets.iter_mut().step_by(2) {
        socket.send(BINARY, &[4; 20_000]);
    }
    let since = Instant::now();
    gate.replace_keys(&file(&mut (0..KEYS_OF).filter(|n| n % 3 != 0)));
    for (n, socket) in sockets.iter_mut().filter(|(n, _)| n % 3 == 0) {
        assert_eq!(socket.read_close(), (1008, "key revoked".to_owned()), "key {n}");
        assert!(socket.is_closed());
    }
    tell("70 of 200 sockets", since);
    for (at, (_, socket)) in sockets.iter_mut().enumerate().filter(|(_, (n, _))| n % 3 != 0) {
        if at % 2 == 0 {
            assert_eq!(socket.read(), Some((BINARY, vec![4; 20_000])));
        }
        socket.echoes("still here");
    }
    eventually("130 are left", || active(130.0));
    ended(&gate, 70.0);
}

#[test]
fn a_route_that_a_reload_takes_away_takes_its_streams_along() {
    let origin = echo_server();
    let gate = Gateway::start(&config_with(&origin, ROUTES, ""));
    let mut gone = Socket::open(gate.address(0), "/client/", ALICE);
    let mut stays = Socket::open(gate.address(0), "/", ALICE);
    let mut public = Socket::on(Client::connect(gate.address(0)), "/public/", "");
    let routes = "  - { path: /public/, upstream: app }\n  - { path: /, upstream: app }\n";
    std::fs::write(gate.path("keygate.yaml"), config_with(&origin, routes, "")).expect("writes");
    gate.signal("HUP");
    assert_eq!(gone.read_close(), (1008, "route changed".to_owned()));
    assert_eq!(public.read_close(), (1008, "route changed".to_owned()));
    stays.echoes("its route is as it was");
    let series = r#"keygate_connections_closed_total{reason="route_ended"}"#;
    eventually("both are counted", || (gate.metric(series) == 2.0).then_some(()));
}

#[test]
fn a_route_that_a_reload_closes_to_strangers_ends_their_streams_but_no_preflight() {
    let (origin, asked) = handing_over();
    let gate = Gateway::start(&config_with(
        &origin,
        "  - { path: /, upstream: app, access: public, cors_preflight: true }\n",
        "",
    ));
    let stream = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let preflight = "Origin: https://a.test\r\nAccess-Control-Request-Method: GET\r\n";
    let with_key = &*format!("X-Api-Key: {ALICE}\r\n");
    let mut open = Vec::new();
    for (name, head, more) in [
        ("anybody's stream", "GET /a", ""),
        ("anybody's OPTIONS", "OPTIONS /a", ""),
        ("alice's stream", "GET /a", with_key),
        ("anybody's stream where a key route is new", "GET /shut/a", ""),
        ("a preflight", "OPTIONS /a", preflight),
    ] {
        let mut client = Client::connect(gate.address(0));
        client.send(format!("{head} HTTP/1.1\r\nHost: a\r\n{more}\r\n"));
        let mut server = handed(&asked);
        server.write_all(stream.as_bytes()).expect("sent");
        assert_eq!(client.take(15), b"HTTP/1.1 200 OK", "{name}");
        open.push((name, client, server));
    }
    let carved = "  - { path: /shut/, upstream: app }\n  \
                  - { path: /, upstream: app, access: public, cors_preflight: true }\n";
    let keyed = "  - { path: /, upstream: app, cors_preflight: true }\n";
    for (routes, ends) in [(carved, &[3][..]), (keyed, &[0, 1][..])] {
        assert!(gate.reload(&config_with(&origin, routes, "")));
        for at in ends {
            let (name, client, _) = &mut open[*at];
            assert!(!client.read_to_close().ends_with(b"more"), "{name}");
        }
        for (at, (name, client, server)) in open.iter_mut().enumerate() {
            if !ends.contains(&at) && (at == 2 || at == 4) {
                server.write_all(b"4\r\nmore\r\n").expect("sent");
                let mut got = Vec::new();
                while !got.ends_with(b"more") {
                    got.extend(client.take(1));
                }
                assert!(!got.is_empty(), "{name}");
            }
        }
    }
    gate.expect_metric(r#"keygate_connections_closed_total{reason="route_ended"}"#, 3.0);
}
