//! WebSocket conformance: whatever an endpoint sends, right or wrong, the other sees it byte for byte through the gate, and
//! the end as well. The rows are data; each is played direct and through the gate, and the transcripts are compared.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use crate::support::cases::unescape;
use crate::support::gateway::Gateway;
use crate::support::socket::{CLOSE, Transcript, frame, handshake, recording_echo_server};
use crate::support::{ALICE, config, eventually};

const ROWS: &str = include_str!("../cases/websocket.txt");
/// Cases under way at a time.
const AT_ONCE: usize = 4;

struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    in_one_write: usize,
    finishes: bool,
    ends_with: &'static str,
}

/// What the client saw and what the server saw.
#[derive(PartialEq, Eq)]
struct Played {
    client: Vec<u8>,
    client_clean: bool,
    server: Transcript,
}

#[test]
fn every_case_is_the_same_through_the_gate_as_direct() {
    let cases: Vec<Case> = ROWS.lines().filter(|line| !line.starts_with('#')).map(case).collect();
    assert!(cases.len() >= 150, "{} cases", cases.len());
    let (direct, seen_direct) = recording_echo_server();
    let (behind, seen_behind) = recording_echo_server();
    let gate = Gateway::start(&config(&behind));
    let server = |transcripts: &crate::support::socket::Transcripts, target: &str| {
        eventually("the server is done", || transcripts.lock().unwrap().remove(target))
    };
    thread::scope(|scope| {
        let runs: Vec<_> = (0..AT_ONCE)
            .map(|lane| {
                let mine = cases.iter().enumerate().filter(move |(index, _)| index % AT_ONCE == lane);
                let (direct, gate) = (&direct, gate.address(0));
                let (seen_direct, seen_behind) = (&seen_direct, &seen_behind);
                scope.spawn(move || {
                    for (index, case) in mine {
                        let target = format!("/case/{index}");
                        let (client, client_clean) = play(case, &direct.address(), &target, "");
                        let want = Played { client, client_clean, server: server(seen_direct, &target) };
                        check_end(case, &want.client);
                        let key = format!("X-Api-Key: {ALICE}\r\n");
                        let (client, client_clean) = play(case, gate, &target, &key);
                        let got = Played { client, client_clean, server: server(seen_behind, &target) };
                        assert!(got == want, "{}: {}\ninstead of {}", case.name, show(&got), show(&want));
                    }
                })
            })
            .collect();
        runs.into_iter().for_each(|run| run.join().expect("every case of the lane holds"));
    });
    eventually("no tunnel is left", || (gate.metric(r#"keygate_websockets_active{route="/"}"#) == 0.0).then_some(()));
}

/// Opens a socket, sends the case's bytes while reading, and reads to the end: the bytes, and whether the end was clean.
fn play(case: &Case, address: &str, target: &str, key: &str) -> (Vec<u8>, bool) {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_nodelay(true).expect("set");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    stream.write_all(handshake(target, key).as_bytes()).expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).expect("an answer"), 1);
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    let mut reading = stream.try_clone().expect("cloned");
    let reader = thread::spawn(move || {
        let mut received = Vec::new();
        let clean = reading.read_to_end(&mut received).is_ok();
        (received, clean)
    });
    for chunk in case.bytes.chunks(case.in_one_write) {
        if stream.write_all(chunk).is_err() {
            break;
        }
    }
    if case.finishes {
        let _ = stream.shutdown(Shutdown::Write);
    }
    reader.join().expect("reads")
}

/// The echo server does what the row says, or the comparison would prove little.
fn check_end(case: &Case, received: &[u8]) {
    let want = match case.ends_with {
        "eof" => return assert!(!received.contains(&CLOSE) || received.len() > 2, "{}: {received:?}", case.name),
        "empty" => Vec::new(),
        code => code.parse::<u16>().expect("a code").to_be_bytes().to_vec(),
    };
    let at = received.iter().rposition(|byte| *byte == CLOSE);
    let end = at.and_then(|at| received.get(at + 2..)).unwrap_or_else(|| panic!("{}: no close", case.name));
    assert!(end.starts_with(&want) && (want.is_empty() == end.is_empty()), "{}: ends with {end:x?}", case.name);
}

fn case(line: &'static str) -> Case {
    let columns: Vec<&str> = line.split('|').map(str::trim).collect();
    let [name, in_one_write, frames, ends_with] = columns[..] else { panic!("four columns: {line}") };
    let mut bytes = Vec::new();
    let mut finishes = false;
    for (told, number) in frames.split_whitespace().zip((1..=255).cycle()) {
        match told {
            "fin" => finishes = true,
            told => bytes.extend(frame_of(told, number).unwrap_or_else(|| panic!("{name}: {told}"))),
        }
    }
    let in_one_write = if in_one_write == "all" { usize::MAX } else { in_one_write.parse().expect("a size") };
    Case { name, bytes, in_one_write, finishes, ends_with }
}

fn frame_of(told: &str, number: u8) -> Option<Vec<u8>> {
    let (kind, payload) = told.split_once(':')?;
    let payload = unescape(payload)?;
    let mask = Some([number, 0x5a, 0xff, number ^ 0x33]);
    let first = match kind {
        "raw" => return Some(payload),
        "u" => return Some(frame(0x81, &payload, None)),
        "t" => 0x81,
        "t+" => 0x01,
        "b" => 0x82,
        "b+" => 0x02,
        "c" => 0x80,
        "c+" => 0x00,
        "close" => 0x88,
        "ping" => 0x89,
        "pong" => 0x8a,
        hex => u8::from_str_radix(hex.strip_prefix('x')?, 16).ok()?,
    };
    Some(frame(first, &payload, mask))
}

fn show(played: &Played) -> String {
    let short =
        |bytes: &[u8]| format!("{} bytes, the last {:x?}", bytes.len(), &bytes[bytes.len().saturating_sub(40)..]);
    format!(
        "the client saw {} (clean: {}), the server saw {} (clean: {}) and sent {}",
        short(&played.client),
        played.client_clean,
        short(&played.server.received),
        played.server.clean,
        short(&played.server.sent)
    )
}
