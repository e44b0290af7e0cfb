//! A key that ends while its request is in an odd phase: on the way in, waiting for a server, answered to a client that reads
//! nothing, behind another in a pipeline, in a close under way. All of it ends, and what is others' goes on.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::revocation::{
    ROUTES, accepting, digest, ended, handed, handing_over, in_millis, put_in_force, with_lines, without_alice,
};
use crate::support::client::{Client, get, request};
use crate::support::gateway::Gateway;
use crate::support::http2::{H2Client, TlsGate};
use crate::support::origin::Origin;
use crate::support::socket::{CLOSE, Socket, close_payload, echo_server, frame, handshake};
use crate::support::{ALICE, BOB, KEYS, config, config_with, eventually};

const EVENTS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ndata:\r\n";

fn by(key: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\n\r\n")
}

/// Whether nothing comes and nothing ends for a moment.
fn is_open(client: &mut Client) -> bool {
    client.stream.set_read_timeout(Some(Duration::from_millis(20))).expect("set");
    let waits = client.stream.peek(&mut [0]).is_err();
    client.stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    waits
}

/// Regression: nobody looked at the key while a request waited for a connection, which can take all of `connect_timeout`; and
/// over HTTP/2 the request's head went to the server before anybody looked.
#[test]
fn a_request_that_waits_for_a_connection_ends_with_its_key() {
    for http2 in [false, true] {
        // It accepts and never shakes hands.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        let origin = Origin::ok();
        let app = format!("servers: [\"{}\"]", origin.address());
        let slow =
            format!("servers: [\"{address}\"], tls: {{ server_name: a.test }}, connect_timeout: 60s, http2: {http2}");
        let config = config(&origin).replace(&app, &slow);
        for (way, keys, label) in [
            ("revoked", without_alice(), "key_revoked"),
            ("expiring", with_lines(&format!("    expires: {}\n", in_millis(1_500))), "key_expired"),
        ] {
            let gate = Gateway::start(&config);
            let (mut plain, mut socket, mut bobs) =
                (Client::connect(gate.address(0)), Client::connect(gate.address(0)), Client::connect(gate.address(0)));
            plain.send(by(ALICE));
            socket.send(handshake("/", &format!("X-Api-Key: {ALICE}\r\n")));
            bobs.send(by(BOB));
            let held: Vec<_> = (0..if http2 { 1 } else { 3 }).map(|_| silent.accept().unwrap()).collect();
            gate.replace_keys(&keys);
            for (what, client) in [("a request", &mut plain), ("a handshake", &mut socket)] {
                let response = client.read();
                assert_eq!(response.status, 401, "{what}, {way}, http2: {http2}");
                client.finish();
                client.read_to_close();
            }
            assert!(is_open(&mut bobs), "not bob's");
            ended(&gate, 2.0);
            let lines = gate.access();
            assert_eq!(lines.iter().filter(|line| line["closed"] == label).count(), 2, "{lines:?}");
            drop(held);
        }
    }
}

#[test]
fn what_is_half_sent_when_its_key_ends_goes_no_further() {
    let (origin, asked) = handing_over();
    let gate = Gateway::start(&config(&origin));
    let connect = || Client::connect(gate.address(0));
    let (mut head, mut body, mut expects, mut pipelined, mut kept) =
        (connect(), connect(), connect(), connect(), connect());
    kept.send(by(ALICE));
    handed(&asked).write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    assert_eq!(kept.read().status, 204);
    let upload = format!("PUT / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\nContent-Length: 10\r\n");
    head.send(&by(ALICE)[..30]);
    body.send(format!("{upload}\r\nhalf"));
    let of_body = handed(&asked);
    expects.send(format!("{upload}Expect: 100-continue\r\n\r\n"));
    assert_eq!(expects.take(12), b"HTTP/1.1 100");
    let of_expects = handed(&asked);
    pipelined.send(by(ALICE).repeat(3));
    let of_pipelined = handed(&asked);
    put_in_force(&gate, &without_alice());
    // What is asked from now on, and what waited, is refused.
    head.send(&by(ALICE)[30..]);
    kept.send(by(ALICE));
    for (what, client, ends) in [
        ("a head", &mut head, false),
        ("a connection kept", &mut kept, false),
        ("a body", &mut body, true),
        ("a body not begun", &mut expects, true),
        ("a pipeline", &mut pipelined, true),
    ] {
        if what == "a body not begun" {
            client.take("\r\n\r\n".len() + " Continue".len());
        }
        assert_eq!(client.read().status, 401, "{what}");
        if ends {
            client.finish();
            assert_eq!(String::from_utf8_lossy(&client.read_to_close()), "", "{what}: one answer and no more");
        }
    }
    ended(&gate, 3.0);
    for mut server in [of_body, of_expects, of_pipelined] {
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).unwrap();
    }
    assert!(asked.try_recv().is_err(), "nothing more reached the upstream");
}

/// Fills all that lies between the upstream and a client that reads nothing.
fn fill(mut server: TcpStream, bytes: &'static [u8]) -> thread::JoinHandle<()> {
    thread::spawn(move || while server.write_all(bytes).is_ok() {})
}

#[test]
fn what_is_written_to_a_client_that_reads_nothing_ends_with_its_key() {
    static CHUNK: [u8; 40_000] = [b'x'; 40_000];
    let (origin, asked) = handing_over();
    let gate = Gateway::start(&config(&origin));
    let (mut download, mut socket, mut bobs) =
        (Client::connect(gate.address(0)), Client::connect(gate.address(0)), Client::connect(gate.address(0)));
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n";
    download.send(by(ALICE));
    let mut server = handed(&asked);
    server.write_all(head).unwrap();
    let mut floods = vec![fill(server, &CHUNK)];
    socket.send(handshake("/", &format!("X-Api-Key: {ALICE}\r\n")));
    let mut server = handed(&asked);
    server.write_all(accepting().as_bytes()).unwrap();
    // One frame without end.
    server.write_all(&[0x82, 127, 0, 0, 1, 0, 0, 0, 0, 0]).unwrap();
    floods.push(fill(server, &CHUNK));
    bobs.send(by(BOB));
    let mut of_bob = handed(&asked);
    of_bob.write_all(EVENTS.as_bytes()).unwrap();
    let written = r#"keygate_bytes_total{direction="out"}"#;
    let _ = gate.metric(written);
    put_in_force(&gate, &without_alice());
    ended(&gate, 2.0);
    floods.into_iter().for_each(|flood| flood.join().expect("the upstream is let go"));
    let lines = eventually("both lines", || {
        let lines: Vec<_> = gate.access().into_iter().filter(|line| line["closed"] == "key_revoked").collect();
        (lines.len() == 2).then_some(lines)
    });
    assert!(lines.iter().all(|line| line["user"] == "alice"), "{lines:?}");
    of_bob.write_all(b"4\r\nmore\r\n").unwrap();
    while !bobs.take(1).ends_with(b"m") {}
}

/// A frame without end, from an upstream that always has more, to a client that always reads.
#[test]
fn a_frame_without_end_at_full_speed_does_not_keep_a_tunnel_open() {
    static CHUNK: [u8; 1 << 20] = [b'x'; 1 << 20];
    let (origin, asked) = handing_over();
    let gate = Gateway::start(&config(&origin));
    let mut client = Client::connect(gate.address(0));
    client.send(handshake("/", &format!("X-Api-Key: {ALICE}\r\n")));
    let mut server = handed(&asked);
    server.write_all(accepting().as_bytes()).unwrap();
    server.write_all(&[0x82, 127, 0, 0, 1, 0, 0, 0, 0, 0]).unwrap();
    let flood = fill(server, &CHUNK);
    let mut stream = client.stream.try_clone().unwrap();
    let drain = thread::spawn(move || {
        let mut chunk = vec![0; 1 << 20];
        while matches!(stream.read(&mut chunk), Ok(count) if count > 0) {}
    });
    put_in_force(&gate, &without_alice());
    ended(&gate, 1.0);
    flood.join().unwrap();
    drain.join().unwrap();
}

#[test]
fn a_close_under_way_does_not_keep_a_tunnel_of_an_ended_key() {
    let (origin, asked) = handing_over();
    let gate = Gateway::start(&config(&origin));
    let mut open = Vec::new();
    for sides in ["server", "client", "both"] {
        let mut client = Client::connect(gate.address(0));
        client.send(handshake("/", &format!("X-Api-Key: {ALICE}\r\n")));
        let mut server = handed(&asked);
        server.write_all(accepting().as_bytes()).unwrap();
        let response = client.read();
        let mut socket = Socket { client, response };
        if sides != "client" {
            server.write_all(&frame(CLOSE, &close_payload(1000, "done"), None)).unwrap();
            assert_eq!(socket.read_close().0, 1000);
        }
        if sides != "server" {
            socket.send(CLOSE, &close_payload(1000, "done"));
            let mut close = [0; 12];
            server.read_exact(&mut close).unwrap();
        }
        open.push((sides, socket, server));
    }
    put_in_force(&gate, &without_alice());
    ended(&gate, 3.0);
    for (sides, socket, server) in &mut open {
        let close = socket.client.read_to_close();
        // A client that waits for the answer to its close gets one; after the server's close nothing may follow.
        assert_eq!(close.is_empty(), *sides != "client", "{sides}: {close:?}");
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut rest = Vec::new();
        let _ = server.read_to_end(&mut rest);
        if *sides != "server" {
            assert_eq!(rest, b"", "{sides}: nothing follows a close");
        }
    }
}

#[test]
fn streams_opened_by_a_login_cookie_end_with_the_key_behind_it() {
    let (origin, asked) = handing_over();
    let gate = Gateway::start(&config(&origin));
    let page = get(gate.address(0), &format!("/?api_key={ALICE}"), &[("Sec-Fetch-Mode", "navigate")]);
    let cookie = page.one("set-cookie").unwrap().split_once(';').unwrap().0.to_owned();
    let alice = digest(ALICE);
    let rotated = |until: &str| {
        KEYS.replace(&alice, &digest("another")).replace(
            "    user: alice\n",
            &format!("    user: alice\n    previous: {{ hash: {alice}, until: {until} }}\n"),
        )
    };
    for (name, keys) in [
        ("removed", without_alice()),
        ("replaced", KEYS.replace(&alice, &digest("another"))),
        ("past its grace", rotated(&in_millis(-1))),
        ("expired", with_lines(&format!("    expires: {}\n", in_millis(-1)))),
    ] {
        let mut client = Client::connect(gate.address(0));
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n"));
        let mut server = handed(&asked);
        server.write_all(EVENTS.as_bytes()).unwrap();
        assert_eq!(client.take(12), b"HTTP/1.1 200");
        put_in_force(&gate, &rotated(&in_millis(3_600_000)));
        server.write_all(b"5\r\nalive\r\n").unwrap();
        let mut got = Vec::new();
        while !got.ends_with(b"alive") {
            got.extend(client.take(1));
        }
        put_in_force(&gate, &keys);
        client.read_to_close();
        assert_eq!(get(gate.address(0), "/", &[("Cookie", &cookie)]).status, 401, "{name}");
        put_in_force(&gate, KEYS);
    }
    ended(&gate, 4.0);
}

#[test]
fn a_good_key_that_opened_a_public_stream_takes_it_along() {
    let origin = echo_server();
    let gate = Gateway::start(&config_with(&origin, ROUTES, ""));
    let mut own = Socket::open(gate.address(0), "/public/", ALICE);
    let mut nobodys = Socket::on(Client::connect(gate.address(0)), "/public/", "");
    gate.replace_keys(&without_alice());
    assert_eq!(own.read_close(), (1008, "key revoked".to_owned()));
    nobodys.echoes("nobody's");
    ended(&gate, 1.0);
}

/// Streams of several keys on one connection whose client grants no window: those of the ended key end alone.
#[test]
fn http2_streams_without_a_window_end_by_their_own_keys() {
    let (origin, asked) = handing_over();
    let gate = TlsGate::start(&config(&origin));
    let mut client = gate.connect();
    let mut open = Vec::new();
    for key in [ALICE, BOB, ALICE, BOB, ALICE] {
        let (answer, _) = client.open(H2Client::head("GET", "/", &[("x-api-key", key)]), true);
        let mut server = handed(&asked);
        server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n").unwrap();
        let answer = client.wait(answer).expect("an answer");
        assert_eq!(answer.status(), 200);
        // Nobody reads the body, so no window opens again.
        let flood = fill(server, &[b'x'; 10_000]);
        open.push((key, answer.into_body(), flood));
    }
    put_in_force(&gate.gate, &without_alice());
    ended(&gate.gate, 3.0);
    // All at once: what nobody reads of one stream takes the connection's window from the others.
    let reading: Vec<_> = open
        .into_iter()
        .map(|(key, body, flood)| (key, client.runtime.spawn(crate::support::http2::read_body(body)), flood))
        .collect();
    for (key, read, flood) in reading {
        let read = client.wait(read).unwrap();
        assert_eq!(read.is_ok_and(|(body, _)| body.len() == 10_000_000), key == BOB, "{key}");
        flood.join().unwrap();
    }
    let lines = gate.gate.access();
    assert_eq!(lines.iter().filter(|line| line["closed"] == "key_revoked" && line["user"] == "alice").count(), 3);
}

/// A hundred edits in about a second, bad files between good ones, and a key that is away for moments: whatever the gate saw
/// of it, what stands at the end is in force, and others notice nothing.
#[test]
fn edits_in_quick_succession_end_in_the_last_one() {
    let origin = echo_server();
    let off = "limits: { failed_auth: off }\n";
    let gate = Gateway::start(&config_with(&origin, "  - { path: /, upstream: app }\n", off));
    let mut bobs = Socket::open(gate.address(0), "/", BOB);
    let mut sockets = Vec::new();
    for round in 0..100 {
        match round % 4 {
            0 => gate.replace_keys(&without_alice()),
            1 => std::fs::write(gate.path("keys.yaml"), "version: 1\nkeys: [ }").unwrap(),
            2 => gate.replace_keys(KEYS),
            _ => std::fs::write(gate.path("keys.yaml"), with_lines("    note: seen\n")).unwrap(),
        }
        if round == 50 {
            gate.signal("HUP");
        }
        let mut client = Client::connect(gate.address(0));
        client.send(handshake("/", &format!("X-Api-Key: {ALICE}\r\n")));
        sockets.push(client);
        thread::park_timeout(Duration::from_millis(10));
    }
    let last = without_alice().replace("    user: bob\n", "    user: bob\n    note: the last\n");
    gate.replace_keys(&last);
    gate.expect_metric(&format!("keygate_keyfile_info{{digest=\"{}\"}}", &digest(&last)[..12]), 1.0);
    let mut closed = 0.0;
    for mut client in sockets {
        let response = client.read();
        match response.status {
            101 => {
                let mut socket = Socket { client, response };
                assert_eq!(socket.read_close(), (1008, "key revoked".to_owned()));
                closed += 1.0;
            }
            status => assert_eq!(status, 401),
        }
    }
    bobs.echoes("all the while");
    assert_eq!(request(gate.address(0), "GET", "/", &[("X-Api-Key", ALICE)], b"").status, 401);
    eprintln!("{closed} of 100 sockets were open");
    gate.expect_metric(r#"keygate_websockets_active{route="/"}"#, 1.0);
}

/// `clock_gettime` with the wall clock set forward by as many seconds as a file has bytes.
const CLOCK: &str = "
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *now) {
    long done = syscall(SYS_clock_gettime, id, now);
    struct stat step;
    if (id == CLOCK_REALTIME && getenv(\"STEP\") && stat(getenv(\"STEP\"), &step) == 0) now->tv_sec += step.st_size;
    return done;
}";

/// Regression: after the wall clock was set forward, the timers of keys that were good a little longer ran on by the old time.
#[test]
fn an_expiry_comes_nearer_when_the_wall_clock_is_set_forward() {
    let dir = tempfile::tempdir().unwrap();
    let (source, library, step) = (dir.path().join("clock.c"), dir.path().join("clock.so"), dir.path().join("step"));
    std::fs::write(&source, CLOCK).unwrap();
    std::fs::write(&step, "").unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).args([&library, &source]);
    if !compiler.status().is_ok_and(|status| status.success()) {
        println!("SKIPPED: no C compiler here");
        return;
    }
    let origin = echo_server();
    let keys = with_lines(&format!("    expires: {}\n", in_millis(90_000)));
    let env = [("LD_PRELOAD", library.to_str().unwrap()), ("STEP", step.to_str().unwrap())];
    let gate = Gateway::start_with(&config(&origin), &keys, &env);
    let (mut alices, mut bobs) = (Socket::open(gate.address(0), "/", ALICE), Socket::open(gate.address(0), "/", BOB));
    alices.echoes("its time is not over");
    std::fs::write(&step, [0; 85]).unwrap();
    assert_eq!(alices.read_close(), (1008, "key expired".to_owned()));
    bobs.echoes("has no expiry");
}
