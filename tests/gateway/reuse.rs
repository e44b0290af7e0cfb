//! Connections to the upstream: kept and used again, never with a byte of an older exchange on them, and one safe retry.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::client::{Client, Response};
use crate::support::gateway::Gateway;
use crate::support::origin::{Answer, Origin, Reader};
use crate::support::{ALICE, config_with, eventually};

/// A gate with one worker, so that there is one pool.
fn gate(origin: &Origin) -> Gateway {
    Gateway::start(&config_with(origin, "  - { path: /, upstream: app }\n", "threads: 1\n"))
}

fn send(client: &mut Client, method: &str, target: &str, body: &str) -> Response {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    client.send(format!("{method} {target} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n{length}\r\n{body}"));
    client.read_for(method).expect("an answer")
}

#[test]
fn one_upstream_connection_serves_many_clients() {
    let origin = Origin::start(|request| match request.method.as_str() {
        "HEAD" => Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"),
        _ => Answer::ok("ok"),
    });
    let gate = gate(&origin);
    for _ in 0..10 {
        let mut client = Client::connect(gate.address(0));
        for (method, body) in [("GET", ""), ("POST", "abc"), ("HEAD", ""), ("PUT", "x"), ("GET", "")] {
            assert_eq!(send(&mut client, method, "/", body).status, 200);
        }
    }
    assert_eq!((origin.requests().len(), origin.connections()), (50, 1));
}

#[test]
fn an_upstream_that_says_close_is_not_asked_again_on_that_connection() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X, Close\r\n\r\nok",
    ] {
        let origin = Origin::start(move |_| Answer::raw(answer));
        let gate = gate(&origin);
        let mut client = Client::connect(gate.address(0));
        for _ in 0..3 {
            let response = send(&mut client, "GET", "/", "");
            assert_eq!((response.text().as_str(), response.one("connection")), ("ok", None), "{answer}");
        }
        assert_eq!(origin.connections(), 3, "{answer}");
    }
}

#[test]
fn a_pooled_connection_that_was_closed_in_the_meantime_is_not_tried() {
    // What may not be sent twice must not be lost to a connection that is known to be gone.
    let closed = Arc::new(AtomicUsize::new(0));
    let count = closed.clone();
    let origin = Origin::start_raw(move |number, stream, log| {
        let mut reader = Reader { stream, buffer: Vec::new() };
        let request = reader.request(number, log);
        log.seen.lock().unwrap().extend(request);
        let _ = reader.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        drop(reader);
        count.fetch_add(1, Ordering::SeqCst);
    });
    let gate = gate(&origin);
    let mut client = Client::connect(gate.address(0));
    for round in 1..=20 {
        assert_eq!(send(&mut client, "POST", "/", "abc").status, 200, "{round}");
        eventually("the origin closes", || (closed.load(Ordering::SeqCst) == round).then_some(()));
    }
    assert_eq!((origin.requests().len(), origin.connections()), (20, 20));
}

/// An origin whose first connection answers one request and, on the next, does as `second` says; later connections are
/// fine. Counts the requests it read by target.
fn dying(second: impl Fn(&mut Reader) + Send + Sync + 'static) -> Origin {
    Origin::start_raw(move |number, stream, log| {
        let mut reader = Reader { stream, buffer: Vec::new() };
        let mut served = 0;
        while let Some(request) = reader.request(number, log) {
            log.seen.lock().unwrap().push(request);
            if number == 0 && served == 1 {
                return second(&mut reader);
            }
            served += 1;
            let _ = reader.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    })
}

#[test]
fn a_dead_pooled_connection_costs_one_safe_retry() {
    for (method, body, status, seen) in [
        ("GET", "", 200, 3),
        ("HEAD", "", 200, 3),
        ("OPTIONS", "", 200, 3),
        ("DELETE", "", 200, 3),
        ("PUT", "", 200, 3),
        ("POST", "", 502, 2),
        ("PATCH", "", 502, 2),
        ("BREW", "", 502, 2),
        ("POST", "abc", 502, 2),
        ("PUT", "abc", 502, 2),
        ("DELETE", "abc", 502, 2),
    ] {
        let origin = dying(|_| {});
        let gate = gate(&origin);
        let mut client = Client::connect(gate.address(0));
        assert_eq!(send(&mut client, "GET", "/first", "").status, 200);
        assert_eq!(send(&mut client, method, "/second", body).status, status, "{method} {body}");
        assert_eq!(origin.requests().len(), seen, "{method} {body}");
        assert_eq!(send(&mut client, "GET", "/third", "").status, 200, "{method} {body}");
    }
}

#[test]
fn one_byte_of_an_answer_forbids_the_retry() {
    let origin = dying(|reader| reader.stream.write_all(b"H").unwrap());
    let gate = gate(&origin);
    let mut client = Client::connect(gate.address(0));
    assert_eq!(send(&mut client, "GET", "/first", "").status, 200);
    assert_eq!(send(&mut client, "GET", "/second", "").status, 502);
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn a_new_connection_that_dies_is_not_tried_again() {
    let origin = Origin::start_raw(|number, stream, log| {
        let mut reader = Reader { stream, buffer: Vec::new() };
        let request = reader.request(number, log);
        log.seen.lock().unwrap().extend(request);
    });
    let gate = gate(&origin);
    let mut client = Client::connect(gate.address(0));
    for expected in 1..4 {
        assert_eq!(send(&mut client, "GET", "/", "").status, 502);
        assert_eq!((origin.requests().len(), origin.connections()), (expected, expected));
    }
}

#[test]
fn bytes_behind_an_answer_are_never_the_answer_to_another_request() {
    const FORGED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
    for (method, first) in [
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\nforged"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"),
        ("HEAD", "HTTP/1.1 200 OK\r\n\r\n"),
    ] {
        // In one write with the answer, and in a write of its own right behind it.
        for apart in [false, true] {
            let sent = Arc::new(AtomicUsize::new(0));
            let count = sent.clone();
            let origin = Origin::start_raw(move |number, stream, log| {
                let mut reader = Reader { stream, buffer: Vec::new() };
                while let Some(request) = reader.request(number, log) {
                    let target = request.target.clone();
                    log.seen.lock().unwrap().push(request);
                    if target == "/first" {
                        let all = [first, FORGED].concat();
                        let at = if apart { first.len() } else { all.len() };
                        let _ = reader.stream.write_all(&all.as_bytes()[..at]);
                        let _ = reader.stream.write_all(&all.as_bytes()[at..]);
                        count.fetch_add(1, Ordering::SeqCst);
                    } else {
                        let _ = reader.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue");
                    }
                }
            });
            let gate = gate(&origin);
            let mut client = Client::connect(gate.address(0));
            send(&mut client, method, "/first", "");
            eventually("the forged answer is sent", || (sent.load(Ordering::SeqCst) == 1).then_some(()));
            for _ in 0..2 {
                assert_eq!(send(&mut client, "GET", "/second", "").text(), "true", "{first:?} apart {apart}");
            }
        }
    }
}

#[test]
fn a_server_that_answered_unasked_cannot_answer_another_clients_request() {
    // Its second answer comes a moment after the next request is on its way: then nothing shows whose it is.
    let origin = Origin::start_raw(|number, stream, log| {
        let mut reader = Reader { stream, buffer: Vec::new() };
        while let Some(request) = reader.request(number, log) {
            let target = request.target.clone();
            let seen = {
                let mut seen = log.seen.lock().unwrap();
                seen.push(request);
                seen.iter().filter(|r| r.connection == number).count()
            };
            let answer: &[u8] = match (target.as_str(), seen) {
                ("/twice", _) => {
                    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret"
                }
                (_, 1) => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                _ => b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret",
            };
            let _ = reader.stream.write_all(answer);
        }
    });
    let gate = gate(&origin);
    for target in ["/twice", "/", "/", "/"] {
        let mut client = Client::connect(gate.address(0));
        assert_eq!(send(&mut client, "GET", target, "").text(), "ok", "{target}");
    }
    assert_eq!(origin.connections(), 4);
    let told = || gate.log().matches("sent more than it was asked for").count();
    eventually("the operator is told", || (told() > 0).then_some(()));
    assert_eq!(told(), 1, "once");
}

#[test]
fn an_early_answer_does_not_leave_half_a_request_on_a_pooled_connection() {
    // The origin answers after the head and keeps reading: what it reads next must be a whole request on a new connection.
    let origin = Origin::start_raw(|number, stream, log| {
        let mut reader = Reader { stream, buffer: Vec::new() };
        if number == 0 {
            reader.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly").unwrap();
        }
        while let Some(request) = reader.request(number, log) {
            log.seen.lock().unwrap().push(request);
            let _ = reader.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
        }
    });
    let gate = gate(&origin);
    let mut client = Client::connect(gate.address(0));
    client.send(format!("POST /first HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\nContent-Length: 500\r\n\r\nhalf"));
    assert_eq!(client.read().text(), "early");
    client.send(vec![b'x'; 496]);
    client.send(format!("GET /second HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
    let response = client.read_for("GET");
    let mut other = Client::connect(gate.address(0));
    assert_eq!(send(&mut other, "GET", "/third", "").text(), "late");
    // The first connection may have survived by draining the body; then its second request was read in step.
    assert!(response.is_none_or(|response| response.text() == "late"));
    assert!(origin.requests().iter().all(|request| request.connection > 0 && request.method == "GET"));
}
