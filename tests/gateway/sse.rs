//! Server-sent events: each arrives when it is sent, pauses are long, and a client that left is noticed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::origin::{Origin, Reader};
use crate::support::{ALICE, config, eventually};

const EVENTS: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n";
const PLAIN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A gate with upstream settings of its own, and an origin that hands its connections to the test.
fn start(settings: &str) -> (Gateway, Receiver<TcpStream>, Origin) {
    let (sender, receiver) = channel();
    let sender = Mutex::new(sender);
    let origin = Origin::start_raw(move |number, stream, log| {
        let mut reader = Reader { stream, buffer: Vec::new() };
        if reader.request(number, log).is_some() {
            let _ = sender.lock().unwrap().send(reader.stream);
        }
    });
    let gate = Gateway::start(&config(&origin).replace("\"] }", &format!("\"]{settings} }}")));
    (gate, receiver, origin)
}

/// A stream that has begun with one chunk.
fn begin(gate: &Gateway, asked: &Receiver<TcpStream>, head: &[u8]) -> (Client, TcpStream) {
    let mut client = Client::connect(gate.address(0));
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\nX-Api-Key: {ALICE}\r\n\r\n"));
    let mut server = asked.recv_timeout(Duration::from_secs(10)).expect("asked");
    server.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    server.write_all(head).expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(client.take(1));
    }
    (client, server)
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// Whether the gate closes this connection within ten seconds, nothing being sent on it.
fn is_left(server: &mut TcpStream) -> bool {
    matches!(server.read(&mut [0]), Ok(0))
}

#[test]
fn events_arrive_one_by_one() {
    let (gate, asked, _origin) = start("");
    let (mut client, mut server) = begin(&gate, &asked, EVENTS);
    for number in 0..50 {
        let event = chunk(&format!("id: {number}\ndata: {}\n\n", "x".repeat(number * 7)));
        server.write_all(event.as_bytes()).expect("sent");
        // The next is not sent before this one has come.
        assert_eq!(client.take(event.len()), event.as_bytes());
    }
    server.write_all(b"0\r\n\r\n").expect("sent");
    assert_eq!(client.take(5), b"0\r\n\r\n");
}

#[test]
fn events_may_be_far_apart_and_other_answers_may_not() {
    let (gate, asked, _origin) = start(", idle_timeout: 400ms");
    let (mut events, mut server) = begin(&gate, &asked, EVENTS);
    let (mut plain, mut other) = begin(&gate, &asked, PLAIN);
    let since = Instant::now();
    plain.read_to_close();
    assert!(is_left(&mut other));
    assert!(since.elapsed() > Duration::from_millis(350));
    thread::park_timeout(Duration::from_millis(300));
    let event = chunk("data: after a pause\n\n");
    server.write_all(event.as_bytes()).expect("sent");
    assert_eq!(events.take(event.len()), event.as_bytes());
}

#[test]
fn a_client_that_was_reset_frees_its_upstream_without_another_event() {
    let (gate, asked, _origin) = start("");
    let (client, mut server) = begin(&gate, &asked, EVENTS);
    socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).expect("set");
    let since = Instant::now();
    drop(client);
    assert!(is_left(&mut server), "the upstream streams to nobody");
    eprintln!("a reset client was noticed after {} ms", since.elapsed().as_millis());
    let line = eventually("its line", || gate.access().into_iter().next());
    assert_eq!(line["closed"], "client_gone");
    eventually("nothing is in flight", || {
        (gate.metric(r#"keygate_requests_in_flight{route="/"}"#) == 0.0).then_some(())
    });
}

#[test]
fn a_client_that_closed_is_noticed_at_the_next_events() {
    let (gate, asked, _origin) = start("");
    let (client, mut server) = begin(&gate, &asked, EVENTS);
    drop(client);
    // The first write finds out, the second is told.
    let event = chunk("data: anybody?\n\n");
    eventually("the upstream's connection is closed", || server.write_all(event.as_bytes()).is_err().then_some(()));
}

#[test]
fn a_client_that_only_stopped_sending_still_gets_its_events_but_not_for_ever() {
    let (gate, asked, _origin) = start(", idle_timeout: 1s");
    let (mut client, mut server) = begin(&gate, &asked, EVENTS);
    client.finish();
    let event = chunk("data: still listening\n\n");
    for _ in 0..3 {
        thread::park_timeout(Duration::from_millis(400));
        server.write_all(event.as_bytes()).expect("sent");
        assert_eq!(client.take(event.len()), event.as_bytes());
    }
    let since = Instant::now();
    assert!(is_left(&mut server), "a client that may be gone holds its upstream for the usual idle time only");
    assert!(since.elapsed() > Duration::from_millis(700));
}

#[test]
fn a_request_sent_ahead_waits_for_the_end_of_the_stream() {
    let (gate, asked, _origin) = start("");
    let (mut client, mut server) = begin(&gate, &asked, EVENTS);
    let since = Instant::now();
    let event = chunk("data: x\n\n");
    // Past the moment at which the gate begins to look for the client's going, with a request ahead in its way.
    while since.elapsed() < Duration::from_millis(600) {
        server.write_all(event.as_bytes()).expect("sent");
        assert_eq!(client.take(event.len()), event.as_bytes());
        if since.elapsed() > Duration::from_millis(400) {
            break;
        }
        thread::park_timeout(Duration::from_millis(50));
    }
    client.send(format!("GET /next HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
    server.write_all(event.as_bytes()).expect("sent");
    server.write_all(b"0\r\n\r\n").expect("sent");
    assert_eq!(client.take(event.len() + 5), format!("{event}0\r\n\r\n").as_bytes());
    // It comes on the same connection, which the first left in good order.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        server.read_exact(&mut byte).expect("asked again");
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"GET /next HTTP/1.1\r\n"));
    server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext").expect("sent");
    assert_eq!(client.read().text(), "next");
}
