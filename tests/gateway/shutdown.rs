//! The end of the gate: what it says, what it waits for, what it closes, and that the log has the last word.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{Client, get};
use crate::support::gateway::Gateway;
use crate::support::origin::{Origin, Reader};
use crate::support::socket::{Socket, switching};
use crate::support::{ALICE, config, eventually};

/// An origin that echoes nothing: WebSockets are opened and held, other requests wait for the test.
fn waiting() -> (Origin, Receiver<TcpStream>) {
    let (sender, receiver) = channel();
    let sender = Mutex::new(sender);
    let origin = Origin::start_raw(move |number, stream, log| {
        let mut reader = Reader { stream, buffer: Vec::new() };
        while let Some(request) = reader.request(number, log) {
            if request.target == "/quick" {
                let _ = reader.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                continue;
            }
            if request.one("upgrade").is_some() {
                let _ = reader.stream.write_all(switching(&request).as_bytes());
            }
            let _ = sender.lock().unwrap().send(reader.stream);
            return;
        }
    });
    (origin, receiver)
}

fn handed(receiver: &Receiver<TcpStream>) -> TcpStream {
    receiver.recv_timeout(Duration::from_secs(10)).expect("the origin was asked")
}

fn ask(gate: &Gateway, target: &str) -> Client {
    let mut client = Client::connect(gate.address(0));
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
    client
}

#[test]
fn sigterm_drains_what_is_open_and_exits_with_0() {
    let (origin, asked) = waiting();
    let mut gate = Gateway::start(&config(&origin));
    eventually("it is ready", || (get(gate.admin(), "/readyz", &[]).status == 200).then_some(()));
    let mut idle = ask(&gate, "/quick");
    assert_eq!(idle.read().text(), "ok");
    let mut silent = Client::connect(gate.address(0));
    let mut socket = Socket::open(gate.address(0), "/", ALICE);
    let mut behind_socket = handed(&asked);
    let mut slow = ask(&gate, "/slow");
    let mut server = handed(&asked);
    let since = Instant::now();
    gate.signal("TERM");
    // What is idle goes at once, a WebSocket with its close code, and the upstream is told.
    assert!(idle.is_closed() && silent.is_closed());
    assert_eq!(socket.read_close(), (1001, "gate shutting down".to_owned()));
    let mut told = Vec::new();
    behind_socket.read_to_end(&mut told).expect("an end");
    assert_eq!(told.first(), Some(&0x88));
    drop(socket);
    eprintln!("idle connections and WebSockets were gone after {} ms", since.elapsed().as_millis());
    eventually("readyz says so", || (get(gate.admin(), "/readyz", &[]).status == 503).then_some(()));
    assert_eq!(get(gate.admin(), "/healthz", &[]).status, 200);
    let address = gate.address(0).to_owned();
    eventually("nobody is accepted any more", || TcpStream::connect(&address).is_err().then_some(()));
    // What is under way is finished, and the client is told that it was the last.
    server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").expect("sent");
    server.write_all(b"done").expect("sent");
    let response = slow.read();
    assert_eq!((response.status, response.text().as_str()), (200, "done"));
    assert!(slow.is_closed());
    assert_eq!(gate.wait().code(), Some(0));
    eventually("the last lines are there", || {
        let lines = gate.access();
        let has = |target: &str, status: u64| lines.iter().any(|l| l["target"] == target && l["status"] == status);
        (has("/quick", 200) && has("/", 101) && has("/slow", 200)).then_some(())
    });
    assert!(gate.access().iter().any(|line| line["closed"] == "shutdown"));
}

#[test]
fn the_grace_is_a_bound() {
    let (origin, asked) = waiting();
    let mut gate = Gateway::start(&format!("{}shutdown: {{ grace: 700ms }}\n", config(&origin)));
    let mut client = ask(&gate, "/endless");
    let mut server = handed(&asked);
    server.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").expect("sent");
    assert_eq!(client.take(15), b"HTTP/1.1 200 OK");
    let since = Instant::now();
    gate.signal("TERM");
    assert_eq!(gate.wait().code(), Some(0));
    let took = since.elapsed();
    eprintln!("a grace of 700 ms took {} ms", took.as_millis());
    assert!(took > Duration::from_millis(600), "the grace is given: {took:?}");
    eventually("the log says so", || gate.log().contains("grace is over").then_some(()));
}

#[test]
fn a_second_signal_stops_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT")] {
        let (origin, asked) = waiting();
        let mut gate = Gateway::start(&config(&origin));
        let _client = ask(&gate, "/held");
        let _server = handed(&asked);
        gate.signal(first);
        eventually("it drains", || (get(gate.admin(), "/readyz", &[]).status == 503).then_some(()));
        let since = Instant::now();
        gate.signal(second);
        assert_eq!(gate.wait().code(), Some(0));
        eprintln!("{first}, {second}: {} ms", since.elapsed().as_millis());
    }
}

#[test]
fn ctrl_c_ends_a_demo_without_a_trace() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_keygate"))
        .arg("demo")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut lines = BufReader::new(demo.stdout.take().expect("piped")).lines();
    let mut told = String::new();
    while !told.contains("Ctrl-C stops it") {
        told.push_str(&lines.next().expect("the guide").expect("text"));
        told.push('\n');
    }
    let word = |name: &str| {
        let line = told.lines().find_map(|line| line.trim().strip_prefix(name)).expect("a line of the guide");
        line.split_whitespace().next().expect("a word").to_owned()
    };
    let (folder, key, plain) = (word("files"), word("key "), word("plain"));
    assert!(Path::new(&folder).is_dir(), "{told}");
    let address = plain.strip_prefix("http://").expect("an address").to_owned();
    let socket = Socket::open(&address, "/ws", &key);
    let rest = thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
    let id = demo.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill runs").success());
    let mut socket = socket;
    assert_eq!(socket.read_close().0, 1001);
    drop(socket);
    let status = eventually("the demo ends", || demo.try_wait().expect("waits"));
    assert_eq!(status.code(), Some(0));
    assert!(!Path::new(&folder).exists(), "{folder} is left");
    assert!(rest.join().expect("read").iter().any(|line| line.contains("/ws")), "the last access line");
}
