//! Deadlines for every phase of a connection, and bounds on what strangers can hold (design rule 10).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::bodies::memory;
use crate::support::client::{Client, get};
use crate::support::gateway::Gateway;
use crate::support::origin::{Origin, Reader};
use crate::support::{ALICE, config_with, eventually};

const ROUTES: &str = "  - { path: /, upstream: app }\n";
/// Far less than any time that these tests make short.
const PACE: Duration = Duration::from_millis(20);
/// The time that these tests make short, as the configuration names it.
const SHORT: Duration = Duration::from_millis(300);
/// How much later than a deadline the gate may act on a busy machine.
const SLACK: Duration = Duration::from_secs(5);

fn gate(origin: &Origin, more: &str) -> Gateway {
    Gateway::start(&config_with(origin, ROUTES, more))
}

/// Sends a byte every [`PACE`], and in between waits for the gate; gives all that it said once it closed.
fn drip(stream: &mut TcpStream, bytes: impl Iterator<Item = u8>) -> Vec<u8> {
    stream.set_read_timeout(Some(PACE)).unwrap();
    let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
    for byte in bytes {
        let _ = stream.write_all(&[byte]);
        match stream.read(&mut buffer) {
            Ok(0) => return said,
            Ok(count) => said.extend(&buffer[..count]),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return said,
        }
    }
    panic!("the gate let it go on for ever: {}", String::from_utf8_lossy(&said));
}

/// Runs `act` and holds the time it took against [`SHORT`].
fn in_time<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let value = act();
    let took = began.elapsed();
    assert!(took >= SHORT - PACE && took < SHORT + SLACK, "{what} took {took:?}");
    value
}

#[test]
fn a_head_has_a_total_deadline_however_it_drips() {
    let origin = Origin::ok();
    let gate = gate(&origin, "request: { header_timeout: 300ms }\n");
    let endless = || b"GET / HTTP/1.1\r\nHost: a\r\nX-Drip: ".iter().copied().chain(std::iter::repeat_n(b'y', 2000));
    let mut first = TcpStream::connect(gate.address(0)).unwrap();
    let said = in_time("the first head", || drip(&mut first, endless()));
    assert!(said.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&said));
    let mut later = Client::connect(gate.address(0));
    later.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
    assert_eq!(later.read().status, 200);
    let said = in_time("a later head", || drip(&mut later.stream, endless()));
    assert!(said.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&said));
    assert_eq!(origin.requests().len(), 1);
    eventually("both are counted", || {
        let closed = gate.metric(r#"keygate_connections_closed_total{reason="head_timeout"}"#);
        (closed == 2.0).then_some(())
    });
}

#[test]
fn a_silent_connection_is_closed_without_a_word() {
    let origin = Origin::ok();
    let gate = gate(&origin, "request: { header_timeout: 300ms }\n");
    let mut client = Client::connect(gate.address(0));
    assert!(in_time("silence", || client.is_closed()));
}

#[test]
fn a_kept_connection_has_a_time_of_its_own() {
    let origin = Origin::ok();
    let gate = gate(&origin, "request: { keepalive_timeout: 300ms, header_timeout: 60s }\n");
    let mut client = Client::connect(gate.address(0));
    for _ in 0..2 {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
        assert_eq!(client.read().status, 200);
    }
    assert!(in_time("idling", || client.is_closed()));
    gate.expect_metric(r#"keygate_connections_closed_total{reason="keepalive_timeout"}"#, 1.0);
}

#[test]
fn a_body_that_stops_is_a_408() {
    let origin = Origin::ok();
    let gate = gate(&origin, "request: { body_idle_timeout: 300ms }\n");
    for (framing, part) in [
        ("Content-Length: 10\r\n", "abc"),
        ("Transfer-Encoding: chunked\r\n", "a\r\nabc"),
        ("Content-Length: 10\r\n", ""),
    ] {
        let mut client = Client::connect(gate.address(0));
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n{framing}\r\n{part}"));
        let response = in_time("a stopped body", || client.read());
        assert_eq!((response.status, response.one("connection")), (408, Some("close")), "{framing} {part}");
        assert!(client.is_closed());
    }
    // A body that comes slowly but comes is no offence within the first ten seconds.
    let mut client = Client::connect(gate.address(0));
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\nContent-Length: 40\r\nConnection: close\r\n\r\n"
    ));
    let said = drip(&mut client.stream, std::iter::repeat_n(b'x', 4000));
    assert!(said.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&said));
    assert_eq!(origin.only().body, [b'x'; 40]);
}

/// An origin that answers with more than all buffers between it and the client hold.
fn flood() -> Origin {
    Origin::start_raw(|number, stream, log| {
        let mut reader = Reader { stream, buffer: Vec::new() };
        if reader.request(number, log).is_some() {
            let _ = reader.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n");
            let block = vec![b'x'; 100_000];
            let _ = (0..2000).try_for_each(|_| reader.stream.write_all(&block));
        }
    })
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let origin = flood();
    let gate = gate(&origin, "request: { write_timeout: 300ms }\n");
    let mut client = Client::connect(gate.address(0));
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
    in_time("a full socket", || {
        eventually("the gate gives up", || {
            let closed = gate.metric(r#"keygate_connections_closed_total{reason="write_timeout"}"#);
            (closed == 1.0).then_some(())
        });
    });
    gate.expect_metric(r#"keygate_requests_in_flight{route="/"}"#, 0.0);
}

#[test]
fn an_upstream_that_does_not_read_is_a_504() {
    // Held open and never read.
    let held = Mutex::new(Vec::new());
    let origin = Origin::start_raw(move |_, stream, _| held.lock().unwrap().push(stream));
    let config = config_with(&origin, ROUTES, "").replace("] }\nroutes:", "], write_timeout: 300ms }\nroutes:");
    let gate = Gateway::start(&config);
    let mut client = Client::connect(gate.address(0));
    client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\nContent-Length: 100000000\r\n\r\n"));
    let mut sender = client.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        let block = vec![b'x'; 100_000];
        let _ = (0..1000).try_for_each(|_| sender.write_all(&block));
    });
    assert_eq!(client.read().status, 504);
    drop(client);
    sending.join().unwrap();
}

#[test]
fn one_address_holds_so_many_connections() {
    let origin = Origin::ok();
    let gate = gate(&origin, "connections: { per_address: 3 }\n");
    let held: Vec<Client> = (0..3)
        .map(|_| {
            let mut client = Client::connect(gate.address(0));
            client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
            assert_eq!(client.read().status, 200);
            client
        })
        .collect();
    assert!(Client::connect(gate.address(0)).is_closed());
    gate.expect_metric(r#"keygate_connections_closed_total{reason="per_address"}"#, 1.0);
    drop(held);
    eventually("a place is free again", || {
        let mut client = Client::connect(gate.address(0));
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
        client.read_for("GET").filter(|response| response.status == 200)
    });
}

#[test]
fn accepting_pauses_at_the_bound_and_goes_on_below_it() {
    let origin = Origin::ok();
    let gate = gate(&origin, "connections: { max: 2 }\n");
    let mut held: Vec<Client> = (0..2)
        .map(|_| {
            let mut client = Client::connect(gate.address(0));
            client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
            assert_eq!(client.read().status, 200);
            client
        })
        .collect();
    let mut third = TcpStream::connect(gate.address(0)).unwrap();
    third.write_all(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n").as_bytes()).unwrap();
    third.set_read_timeout(Some(SHORT)).unwrap();
    let waiting = third.read(&mut [0; 1]).unwrap_err();
    assert_eq!(waiting.kind(), std::io::ErrorKind::WouldBlock);
    held.pop();
    third.set_read_timeout(Some(SLACK)).unwrap();
    let mut start = [0; 12];
    third.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
}

#[test]
fn a_stranger_holds_at_most_64_kib() {
    const STRANGERS: usize = 200;
    const HEAD: usize = 31 * 1024;
    let origin = Origin::ok();
    let gate = gate(&origin, "request: { header_timeout: 60s }\n");
    assert_eq!(get(gate.address(0), "/", &[("X-Api-Key", ALICE)]).status, 200);
    let before = memory(gate.pid(), "VmRSS");
    let start = format!("GET /held HTTP/1.1\r\nHost: a\r\nX-Fill: {}", "y".repeat(HEAD - 43));
    let mut strangers: Vec<Client> = (0..STRANGERS)
        .map(|_| {
            let mut client = Client::connect(gate.address(0));
            client.send(&start);
            client
        })
        .collect();
    let grown = eventually("the gate has read the heads", || {
        let grown = memory(gate.pid(), "VmRSS").saturating_sub(before);
        (grown as usize > STRANGERS * HEAD / 1024 * 9 / 10).then_some(grown)
    });
    let each = grown as usize / STRANGERS;
    assert!(each <= 64, "{each} KiB for each");
    for client in &mut strangers {
        client.send(format!("\r\nX-Api-Key: {ALICE}\r\nConnection: close\r\n\r\n"));
        assert_eq!(client.read().status, 200);
    }
    let grown = memory(gate.pid(), "VmHWM").saturating_sub(before) as usize / STRANGERS;
    assert!(grown <= 64, "{grown} KiB for each at its highest");
}
