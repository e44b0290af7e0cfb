//! Exchanges that do not run to their end: refused with a body on its way, answered too soon or wrongly, left by a client.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::origin::{Answer, Origin};
use crate::support::socket::handshake;
use crate::support::{ALICE, BOB, config, config_with, eventually};

const IN_FLIGHT: &str = r#"keygate_requests_in_flight{route="/"}"#;

fn head(method: &str, target: &str, more: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{more}\r\n")
}

fn key(key: &str) -> String {
    format!("X-Api-Key: {key}\r\n")
}

#[test]
fn a_small_chunked_body_behind_a_refusal_is_dropped_and_the_connection_lives() {
    let origin = Origin::ok();
    let routes = "  - { path: /miners/, roles: [miner], upstream: app }\n  \
                  - { path: /one/, limits: { requests: 1, per: 1h, burst: 1 }, upstream: app }\n  \
                  - { path: /, upstream: app }\n";
    let gate = Gateway::start(&config_with(&origin, routes, "request: { max_body_bytes: 100B }\n"));
    let chunk = format!("40\r\n{}\r\n", "x".repeat(64));
    let small = format!("{chunk}{chunk}0\r\nX-Trailer: 1\r\n\r\n");
    let mut client = Client::connect(gate.address(0));
    client.send(head("GET", "/one/", &key(ALICE)));
    assert_eq!(client.read().status, 200);
    for (target, key, status) in
        [("/", String::new(), 401), ("/miners/", key(BOB), 403), ("/one/", key(ALICE), 429), ("/", key(ALICE), 413)]
    {
        let framed = head("POST", target, &format!("{key}Transfer-Encoding: chunked\r\n"));
        client.send(&framed);
        // The rest comes in pieces of its own, while the refusal waits for it.
        client.send(&small[..70]).send(&small[70..]);
        let response = client.read();
        assert_eq!((response.status, response.one("connection")), (status, None), "{target}");
        for unfinished in [chunk.repeat(2000), chunk.repeat(2)] {
            let mut other = Client::connect(gate.address(0));
            other.send(&framed).send(unfinished);
            let response = other.read();
            assert_eq!((response.status, response.one("connection")), (status, Some("close")), "{target}");
            other.finish();
            assert!(other.is_closed(), "{target}");
        }
    }
    client.send(head("GET", "/after", &key(ALICE)));
    assert_eq!(client.read().status, 200);
}

#[test]
fn an_answer_that_breaks_before_the_client_saw_any_of_it_is_a_502() {
    let answers = [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n5\r\nfirst\r\nno size\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;\r\n",
    ];
    let origin = Origin::start(move |request| match request.target.strip_prefix("/broken/") {
        Some(at) => Answer::raw(answers[at.parse::<usize>().unwrap()]),
        None => Answer::ok("fine"),
    });
    let gate = Gateway::start(&config(&origin));
    let mut client = Client::connect(gate.address(0));
    for at in 0..answers.len() {
        client.send(head("GET", &format!("/broken/{at}"), &key(ALICE)));
        let response = client.read();
        assert_eq!((response.status, response.one("x-a"), response.one("connection")), (502, None, None), "{at}");
        let line = gate.access_line(response.one("x-request-id").unwrap());
        assert_eq!((line["status"].as_u64(), line["closed"].as_str()), (Some(502), None), "{line}");
        client.send(head("GET", "/fine", &key(ALICE)));
        assert_eq!(client.read().text(), "fine", "{at}");
    }
}

/// A gate before a unix socket that takes less at once than the head it is sent: the origin says `answer` and reads nothing
/// before `answer` was read.
fn unread_head(answer: &'static [u8], closes: bool) -> (Origin, Gateway) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("origin.sock");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.write_all(answer);
            if !closes {
                open.push(stream);
            }
        }
    });
    let origin = Origin::ok();
    let large = "y".repeat(1 << 20);
    let routes = format!("  - {{ path: /, upstream: app, set_headers: {{ X-Large: \"{large}\" }} }}\n");
    let text = config_with(&origin, &routes, "");
    let text = text.replace(&format!("\"{}\"", origin.address()), &format!("\"unix:{}\"", path.display()));
    (origin, Gateway::start_in(dir, &text, crate::support::KEYS, &[]))
}

#[test]
fn an_answer_that_comes_before_the_head_is_out_is_a_502_unless_it_is_a_whole_one() {
    let switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x02hi";
    let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole";
    for (what, answer, closes, status) in [
        ("a 101", &switch[..], false, 502),
        ("a 101 and a close", switch, true, 502),
        ("no HTTP", b"nonsense\r\n\r\n", false, 502),
        ("no HTTP and a close", b"nonsense\r\n\r\n", true, 502),
        ("a close", b"", true, 502),
        ("half a head and a close", b"HTTP/1.1 200 O", true, 502),
        ("a whole answer", whole, false, 200),
    ] {
        let (_origin, gate) = unread_head(answer, closes);
        for request in [handshake("/", &key(ALICE)), head("GET", "/", &key(ALICE))] {
            let mut client = Client::connect(gate.address(0));
            client.send(&request);
            let response = client.read_for("GET").unwrap_or_else(|| panic!("{what}: a bare close to {request}"));
            assert_eq!(response.status, status, "{what}: {request}");
        }
        gate.expect_metric(IN_FLIGHT, 0.0);
        assert_eq!(gate.metric(r#"keygate_websockets_active{route="/"}"#), 0.0, "{what}");
    }
}

/// State, bytes that wait to be read, and the timer of a TCP socket of this machine, by its two ends (proc_net_tcp).
fn socket(near: SocketAddr, far: SocketAddr) -> Option<(String, u64, String)> {
    let end = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
    let table = fs::read_to_string("/proc/net/tcp").expect("a table of sockets");
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut rows = rows.filter(|row| row.get(1) == Some(&&*end(near)) && row.get(2) == Some(&&*end(far)));
    let row = rows.next()?;
    let (_, unread) = row[4].split_once(':')?;
    Some((row[3].to_owned(), u64::from_str_radix(unread, 16).ok()?, row[5].to_owned()))
}

#[test]
fn a_client_that_half_closed_and_then_reset_gives_its_place_back() {
    let (sender, receiver) = channel();
    let sender = Mutex::new(sender);
    let origin = Origin::start_raw(move |_, mut stream, _| {
        let mut byte = [0];
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
            seen.extend(byte);
        }
        let _ = sender.lock().unwrap().send(stream);
    });
    let gate = Gateway::start(&config(&origin));
    let address: SocketAddr = gate.address(0).parse().unwrap();
    let mut clients = Vec::new();
    // The first stays, and gets its answer; the last sent another request before it left.
    for (stays, ahead) in [(true, false), (false, false), (false, true)] {
        let mut client = Client::connect(gate.address(0));
        client.send(head("GET", "/", &key(ALICE)));
        let server: TcpStream = receiver.recv_timeout(Duration::from_secs(10)).expect("asked");
        if ahead {
            client.send(head("GET", "/ahead", &key(ALICE)));
        } else {
            client.finish();
        }
        clients.push((stays, client, server));
    }
    gate.expect_metric(IN_FLIGHT, 3.0);
    for (stays, client, _) in &clients {
        let near = client.stream.local_addr().unwrap();
        eventually("the gate has read all there is", || socket(address, near).filter(|(_, unread, _)| *unread == 0));
        if !stays {
            // A close with this option is a reset, and nothing else tells the gate.
            let _ = socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO));
        }
    }
    let (mut kept, gone): (Vec<_>, Vec<_>) = clients.into_iter().partition(|(stays, ..)| *stays);
    let servers: Vec<TcpStream> = gone.into_iter().map(|(_, _, server)| server).collect();
    gate.expect_metric(IN_FLIGHT, 1.0);
    gate.expect_metric(r#"keygate_connections_closed_total{reason="client"}"#, 2.0);
    for mut server in servers {
        assert!(matches!(server.read(&mut [0; 1]), Ok(0) | Err(_)), "the upstream is let go of, too");
    }
    let (_, client, server) = &mut kept[0];
    server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").unwrap();
    assert_eq!(client.read().text(), "late");
}

#[test]
fn silent_peers_on_both_sides_are_asked_whether_they_are_still_there() {
    let (sender, receiver) = channel();
    let sender = Mutex::new(sender);
    let origin = Origin::start_raw(move |_, stream, _| drop(sender.lock().unwrap().send(stream)));
    let gate = Gateway::start(&config(&origin));
    let mut client = Client::connect(gate.address(0));
    client.send(head("GET", "/", &key(ALICE)));
    let server: TcpStream = receiver.recv_timeout(Duration::from_secs(10)).expect("asked");
    let to_client = (gate.address(0).parse().unwrap(), client.stream.local_addr().unwrap());
    let to_upstream = (server.peer_addr().unwrap(), server.local_addr().unwrap());
    for (near, far) in [to_client, to_upstream] {
        // Timer 2 is keep-alive's; the time left is in hundredths of a second.
        let left = eventually("a keep-alive timer", || {
            let (_, _, timer) = socket(near, far)?;
            u64::from_str_radix(timer.strip_prefix("02:")?, 16).ok()
        });
        assert!(left <= 6000, "{left}");
    }
}
