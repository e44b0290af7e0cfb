//! SIGHUP changes where the gate listens: addresses that are in each other's way, TLS on one of several, and what becomes of
//! the connections of a listener that is gone.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::support::client::{Client, get};
use crate::support::gateway::Gateway;
use crate::support::http2::{GOAWAY, H2Client, TlsGate, answer};
use crate::support::origin::{Origin, Reader};
use crate::support::pki::{self, Authority};
use crate::support::{ALICE, KEYS, config, eventually};

/// The usual configuration with these entries under `listen`.
fn listening_on(origin: &Origin, listeners: &[&str]) -> String {
    let entries: Vec<String> = listeners.iter().map(|listener| format!("{{ address: {listener} }}")).collect();
    config(origin).replacen(r#"[{ address: "127.0.0.1:0" }]"#, &format!("[{}]", entries.join(", ")), 1)
}

fn ask(client: &mut Client, target: &str) -> u16 {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
    client.read().status
}

/// An origin that answers `/quick` and hands over the connection of every other request.
fn holding() -> (Origin, Receiver<TcpStream>) {
    let (sender, receiver) = channel();
    let sender = Mutex::new(sender);
    let origin = Origin::start_raw(move |number, stream, log| {
        let mut reader = Reader { stream, buffer: Vec::new() };
        while let Some(request) = reader.request(number, log) {
            if request.target == "/quick" {
                let _ = reader.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                continue;
            }
            let _ = sender.lock().unwrap().send(reader.stream);
            return;
        }
    });
    (origin, receiver)
}

fn held(receiver: &Receiver<TcpStream>) -> TcpStream {
    receiver.recv_timeout(Duration::from_secs(10)).expect("the origin was asked")
}

/// The old socket is in the way of a wider or narrower one on its port, and must not be: one SIGHUP is enough.
#[test]
fn an_address_takes_the_place_of_another_on_its_port() {
    let origin = Origin::ok();
    let gate = Gateway::start(&listening_on(&origin, &["\"127.0.0.1:0\""]));
    let address = gate.address(0);
    let port = address.rsplit_once(':').unwrap().1;
    let beside = format!("127.0.0.2:{port}");
    for (to, reaches_beside) in [
        (format!("\"127.0.0.1:{port}\""), false),
        (format!("\"0.0.0.0:{port}\""), true),
        (format!("\"127.0.0.1:{port}\""), false),
        (format!("\"[::]:{port}\""), true),
        (format!("\"0.0.0.0:{port}\""), true),
        ("\"127.0.0.1:0\"".to_owned(), false),
    ] {
        if to.contains('[') && TcpListener::bind("[::1]:0").is_err() {
            println!("SKIPPED: no IPv6 here");
            continue;
        }
        assert!(gate.reload(&listening_on(&origin, &[&to])), "{to}: {}", gate.log());
        let reached = || TcpStream::connect(&beside).is_ok();
        eventually(&to, || (reached() == reaches_beside).then_some(()));
        if to.contains(port) {
            // Whom the old socket took before it closed, and who had not asked yet, is sent away as in a drain.
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n");
            eventually(&to, || {
                let mut stream = TcpStream::connect(address).ok()?;
                stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                stream.write_all(request.as_bytes()).ok()?;
                Client::on(stream).read_for("GET").filter(|answer| answer.status == 200).map(drop)
            });
        }
    }
    eventually("the port is closed", || TcpStream::connect(address).is_err().then_some(()));
}

/// A port of its own number is the one the system chose: its connections stay.
#[test]
fn a_chosen_port_asked_for_by_number_is_the_same_listener() {
    let origin = Origin::ok();
    let gate = Gateway::start(&listening_on(&origin, &["\"127.0.0.1:0\""]));
    let mut open = Client::connect(gate.address(0));
    assert_eq!(ask(&mut open, "/"), 200);
    assert!(gate.reload(&listening_on(&origin, &[&format!("\"{}\"", gate.address(0))])));
    assert_eq!(ask(&mut open, "/"), 200);
}

#[test]
fn a_removed_listener_closes_what_is_idle_and_finishes_what_is_under_way() {
    let (origin, asked) = holding();
    let gate = Gateway::start(&listening_on(&origin, &["\"127.0.0.1:0\"", "\"127.0.0.3:0\""]));
    let (going, staying) = (gate.address(0), gate.address(1));
    let (mut idle, mut silent, mut slow) = (Client::connect(going), Client::connect(going), Client::connect(going));
    let mut other = Client::connect(staying);
    assert_eq!((ask(&mut idle, "/quick"), ask(&mut other, "/quick")), (200, 200));
    slow.send(format!("GET /slow HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
    let mut server = held(&asked);
    assert!(gate.reload(&listening_on(&origin, &["\"127.0.0.3:0\""])));
    assert!(idle.is_closed() && silent.is_closed(), "nothing may be asked through it any more");
    eventually("the port is closed", || TcpStream::connect(going).is_err().then_some(()));
    server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").unwrap();
    assert_eq!(slow.read().text(), "done");
    assert!(slow.is_closed(), "that was its last");
    assert_eq!(ask(&mut other, "/quick"), 200);
    gate.expect_metric(r#"keygate_connections_closed_total{reason="shutdown"}"#, 3.0);
}

#[test]
fn http2_on_a_removed_listener_is_told_to_go() {
    let (origin, asked) = holding();
    let with_tls = TlsGate::start(&config(&origin));
    let mut idle = with_tls.connect_raw();
    let mut busy = with_tls.connect();
    assert_eq!(busy.request("GET", "/quick", &[("x-api-key", ALICE)], b"").status, 200);
    let (response, _stream) = busy.open(H2Client::head("GET", "/slow", &[("x-api-key", ALICE)]), true);
    let mut server = held(&asked);
    assert!(with_tls.gate.reload(&listening_on(&origin, &["\"127.0.0.3:0\""])));
    assert!(idle.read_until(|frame| frame.kind == GOAWAY).is_some());
    server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").unwrap();
    assert_eq!(busy.wait(answer(response)).unwrap().text(), "done");
    let more = busy.send.clone();
    assert!(busy.wait(async move { more.ready().await.is_err() }), "that was its last");
}

/// One of three listeners gets TLS, one goes, one comes, and one that cannot be bound stands against all of it.
#[test]
fn listeners_change_all_or_not_at_all() {
    let origin = Origin::ok();
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    authority.issue_to(dir.path(), "one", &["gate.test"]);
    let gate = Gateway::start_in(
        dir,
        &listening_on(&origin, &["\"127.0.0.1:0\"", "\"127.0.0.2:0\"", "\"127.0.0.3:0\""]),
        KEYS,
        &[],
    );
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("\"{}\"", taken.local_addr().unwrap());
    let secure = "\"127.0.0.2:0\", tls: { certificates: [{ cert: one.pem, key: one.key }] }";
    let new = gate.path("new.sock");
    let socket = format!("\"unix:{}\"", new.display());
    let mut open: Vec<Client> = (0..3).map(|index| Client::connect(gate.address(index))).collect();
    let all_plain = |open: &mut Vec<Client>| {
        for (index, open) in open.iter_mut().enumerate() {
            assert_eq!(ask(open, "/kept"), 200, "listener {index}");
            assert_eq!(get(gate.address(index), "/new", &[("X-Api-Key", ALICE)]).status, 200, "listener {index}");
        }
    };
    all_plain(&mut open);
    let missing = secure.replace("one.pem", "none.pem");
    for bad in [taken.as_str(), "\"192.0.2.1:0\"", missing.as_str(), "\"unix:/nonexistent/gate.sock\""] {
        // The bad one last and first: what was opened before it is closed again.
        for listeners in [["\"127.0.0.3:0\"", secure, &socket, bad], [bad, "\"127.0.0.3:0\"", secure, &socket]] {
            assert!(!gate.reload(&listening_on(&origin, &listeners)), "{bad}");
            assert!(!new.exists(), "{bad}");
            all_plain(&mut open);
        }
    }
    assert!(gate.reload(&listening_on(&origin, &["\"127.0.0.3:0\"", secure, &socket])));
    assert!(open[0].is_closed(), "its listener is gone");
    eventually("its port is closed", || TcpStream::connect(gate.address(0)).is_err().then_some(()));
    assert_eq!(ask(&mut open[1], "/kept"), 200, "an open connection stays as it is");
    assert_eq!(ask(&mut open[2], "/kept"), 200);
    let mut secured = pki::connect(gate.address(1), "gate.test", &authority.http1()).unwrap();
    secured.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
    assert_eq!(secured.read().status, 200);
    assert!(std::os::unix::net::UnixStream::connect(&new).is_ok());
    assert_eq!(get(gate.address(2), "/new", &[("X-Api-Key", ALICE)]).status, 200);
}
