//! HTTP/1 as clients use it: interim answers, `Expect`, pipelines, half-closed connections, early answers, many at once.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::origin::{Answer, Origin, Reader};
use crate::support::{ALICE, BOB, config, config_with, eventually};

fn head(method: &str, target: &str, more: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n{more}\r\n")
}

#[test]
fn interim_answers_pass_to_those_who_know_them() {
    let origin = Origin::start(|_| {
        let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: close\r\nX-Auth-User: root\r\n\r\n";
        let odd = "HTTP/1.1 199 Odd\r\n\r\n";
        Answer::raw(format!("HTTP/1.1 100 Continue\r\n\r\n{early}{odd}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    });
    let gate = Gateway::start(&config(&origin));
    let mut client = Client::connect(gate.address(0));
    for _ in 0..2 {
        client.send(head("GET", "/", ""));
        let response = client.read();
        assert_eq!((response.status, response.text().as_str()), (200, "ok"));
        assert_eq!(response.interim, [103, 199]);
    }
    let mut old = Client::connect(gate.address(0));
    old.send(format!("GET / HTTP/1.0\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
    let response = old.read();
    assert_eq!((response.status, response.interim.len()), (200, 0));
}

#[test]
fn the_fields_of_an_interim_answer_are_checked_too() {
    let origin = Origin::start(|_| {
        let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: X-Hop\r\nX-Hop: v\r\nKeep-Alive: 5\r\n\r\n";
        Answer::raw(format!("{early}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    });
    let gate = Gateway::start(&config(&origin));
    let mut client = Client::connect(gate.address(0));
    client.send(head("GET", "/", "Connection: close\r\n"));
    let all = String::from_utf8(client.read_to_close()).unwrap();
    let (interim, rest) = all.split_once("\r\n\r\n").unwrap();
    assert_eq!(interim.split("\r\n").skip(1).collect::<Vec<_>>(), ["Link: </a>"]);
    assert!(rest.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn a_client_that_waits_for_100_gets_it_after_admission_only() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    let expect = "Expect: 100-continue\r\nContent-Length: 5\r\n";
    let mut client = Client::connect(gate.address(0));
    client.send(head("POST", "/good", expect));
    assert_eq!(client.take(25), b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello");
    assert_eq!(client.read().status, 200);
    assert_eq!((origin.only().body.as_slice(), origin.only().one("expect")), (&b"hello"[..], None));
    for key in ["", "X-Api-Key: wrong\r\n"] {
        let mut client = Client::connect(gate.address(0));
        client.send(format!("POST /bad HTTP/1.1\r\nHost: a\r\n{key}{expect}\r\n"));
        let response = client.read();
        assert_eq!((response.status, response.interim.len()), (401, 0), "{key}");
        assert_eq!(response.one("connection"), Some("close"));
        // A client that sends its body all the same must not have it read as a request.
        client.send(head("GET", "/smuggled", ""));
        assert!(client.is_closed());
    }
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn a_body_behind_a_refusal_is_never_a_request() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    let inner = head("GET", "/smuggled", "");
    for (framed, kept) in [
        (format!("Content-Length: {}\r\n\r\n{inner}", inner.len()), true),
        (format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len()), true),
        (format!("Content-Length: 100000\r\n\r\n{}", inner.repeat(1000)), false),
    ] {
        let mut client = Client::connect(gate.address(0));
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framed}"));
        let response = client.read();
        assert_eq!(response.status, 401);
        assert_eq!(response.one("connection"), (!kept).then_some("close"), "{}", framed.len());
        if kept {
            client.send(head("GET", "/after", ""));
            assert_eq!(client.read().status, 200);
        } else {
            assert!(client.is_closed());
        }
    }
    assert!(origin.requests().iter().all(|request| request.target == "/after"), "{:?}", origin.requests());
}

#[test]
fn a_pipeline_is_answered_in_order_each_request_by_itself() {
    let origin = Origin::start(|request| Answer::ok(&format!("{} {}", request.target, request.body.len())));
    let gate =
        Gateway::start(&config_with(&origin, "  - { path: /, upstream: app }\n", "limits: { failed_auth: off }\n"));
    let mut all = String::new();
    for n in 0..300 {
        all += &match n % 5 {
            0 => head("GET", &format!("/{n}"), ""),
            1 => format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"),
            2 => head("POST", &format!("/{n}"), "Content-Length: 8\r\n") + "GET / HT",
            3 => format!("POST /{n} HTTP/1.1\r\nHost: a\r\nX-Api-Key: no\r\nContent-Length: 8\r\n\r\nGET / HT"),
            _ => head("POST", &format!("/{n}"), "Transfer-Encoding: chunked\r\n") + "3\r\nabc\r\n0\r\n\r\n",
        };
    }
    all += &head("GET", "/last", "Connection: close\r\n");
    all += &head("GET", "/never", "");
    let mut client = Client::connect(gate.address(0));
    client.send(all);
    for n in 0..300 {
        let response = client.read();
        let expected = match n % 5 {
            0 => (200, format!("/{n} 0")),
            2 => (200, format!("/{n} 8")),
            4 => (200, format!("/{n} 3")),
            _ => (401, response.text()),
        };
        assert_eq!((response.status, response.text()), expected, "{n}");
    }
    assert_eq!(client.read().text(), "/last 0");
    assert!(client.is_closed());
    let seen: Vec<String> = origin.requests().into_iter().map(|request| request.target).collect();
    let expected = (0..300).filter(|n| n % 5 != 1 && n % 5 != 3).map(|n| format!("/{n}"));
    assert_eq!(seen, expected.chain(["/last".to_owned()]).collect::<Vec<_>>());
}

#[test]
fn a_request_in_single_bytes_is_one_request() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    let mut client = Client::connect(gate.address(0));
    let all =
        head("POST", "/bytes", "Transfer-Encoding: chunked\r\n") + "3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n";
    for byte in all.bytes() {
        client.send([byte]);
    }
    assert_eq!(client.read().status, 200);
    let seen = origin.only();
    assert_eq!((seen.body.as_slice(), seen.trailers.len()), (&b"abcde"[..], 1));
}

#[test]
fn a_client_that_half_closes_still_gets_its_answer() {
    let go = Arc::new(AtomicBool::new(false));
    let gone = go.clone();
    let origin = Origin::start(move |request| {
        eventually("the client's half-close", || gone.load(Ordering::SeqCst).then_some(()));
        Answer::ok(&format!("{}", request.body.len()))
    });
    let gate = Gateway::start(&config(&origin));
    for (request, expected) in [
        (head("GET", "/", ""), "0"),
        (head("POST", "/", "Content-Length: 3\r\n") + "abc", "3"),
        (head("POST", "/", "Transfer-Encoding: chunked\r\n") + "3\r\nabc\r\n0\r\n\r\n", "3"),
    ] {
        go.store(false, Ordering::SeqCst);
        let mut client = Client::connect(gate.address(0));
        client.send(request).finish();
        go.store(true, Ordering::SeqCst);
        assert_eq!(client.read().text(), expected);
        assert!(client.is_closed());
    }
}

#[test]
fn an_answer_before_the_end_of_the_body_arrives_and_ends_what_cannot_be_reused() {
    let origin = Origin::start_raw(|_, stream, _| {
        let mut reader = Reader { stream, buffer: Vec::new() };
        let mut byte = [0];
        while !reader.buffer.ends_with(b"\r\n\r\n") {
            if reader.stream.read(&mut byte).unwrap_or(0) == 0 {
                return;
            }
            reader.buffer.extend(byte);
        }
        // Answered, and closed with bytes unread: the kernel resets the connection.
        reader.stream.write_all(b"HTTP/1.1 413 No\r\nContent-Length: 9\r\n\r\ntoo large").unwrap();
    });
    let gate = Gateway::start(&config(&origin));
    for framing in ["Content-Length: 8000000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut client = Client::connect(gate.address(0));
        client.send(head("PUT", "/", framing));
        if framing.starts_with('T') {
            client.send("7a1200\r\n");
        }
        let mut sender = client.stream.try_clone().unwrap();
        let sending = thread::spawn(move || {
            let _ = (0..80).try_for_each(|_| sender.write_all(&[b'x'; 100_000]));
        });
        let response = client.read();
        assert_eq!((response.status, response.text().as_str()), (413, "too large"));
        assert!(client.is_closed());
        sending.join().unwrap();
    }
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_hundred_connections_at_once() {
    let origin = Origin::start(|request| Answer::ok(&request.target));
    let gate = Gateway::start(&config(&origin));
    let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(gate.address(0))).collect();
    for round in 0..5 {
        for (n, client) in clients.iter_mut().enumerate() {
            let key = if n % 2 == 0 { ALICE } else { BOB };
            client.send(format!("GET /{round}/{n} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\n\r\n"));
        }
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.read().text(), format!("/{round}/{n}"));
        }
    }
    for request in origin.requests() {
        let n: usize = request.target.rsplit('/').next().unwrap().parse().unwrap();
        assert_eq!(request.one("x-auth-user"), Some(if n.is_multiple_of(2) { "alice" } else { "bob" }));
    }
}

#[test]
fn bounds_of_a_head_are_the_configured_ones() {
    let origin = Origin::ok();
    let more = "request: { max_header_bytes: 2KiB, max_headers: 6, max_uri_bytes: 256B }\n";
    let gate = Gateway::start(&config_with(&origin, "  - { path: /, upstream: app }\n", more));
    for (target, fields, status) in [
        ("/".to_owned(), String::new(), 200),
        (format!("/{}", "a".repeat(255)), String::new(), 200),
        (format!("/{}", "a".repeat(256)), String::new(), 414),
        ("/".to_owned(), "X: y\r\n".repeat(4), 200),
        ("/".to_owned(), "X: y\r\n".repeat(5), 431),
        ("/".to_owned(), format!("X: {}\r\n", "y".repeat(1900)), 200),
        ("/".to_owned(), format!("X: {}\r\n", "y".repeat(2000)), 431),
        ("/".to_owned(), format!("X: {}", "y".repeat(20_000)), 431),
    ] {
        let mut client = Client::connect(gate.address(0));
        client.send(head("GET", &target, &fields));
        let response = client.read();
        assert_eq!(response.status, status, "{} {}", target.len(), fields.len());
        assert_eq!(response.one("connection"), (status != 200).then_some("close"));
    }
    assert_eq!(origin.requests().len(), 4);
}
