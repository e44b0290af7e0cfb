//! WebSockets: handshakes and what becomes of refused ones, what passes a tunnel, its bounds, and how it ends.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::origin::{Answer, Origin, Reader};
use crate::support::socket::{
    BINARY, CLOSE, NONCE, PING, PONG, Socket, TEXT, close_payload, echo_server, frame, handshake, switching,
};
use crate::support::{ALICE, BOB, config, config_with, eventually};

const OPEN: &str = r#"keygate_websockets_active{route="/"}"#;

fn with_key() -> String {
    format!("X-Api-Key: {ALICE}\r\n")
}

/// The last lines of the access log with a 101.
fn tunnel_line(gate: &Gateway) -> serde_json::Value {
    eventually("the tunnel's line", || gate.access().into_iter().find(|line| line["status"] == 101))
}

/// An origin that opens WebSockets and hands each to the test.
fn handing_over() -> (Origin, Receiver<Reader>) {
    let (sender, receiver): (Sender<Reader>, _) = channel();
    let sender = Mutex::new(sender);
    let origin = Origin::start_raw(move |number, stream, log| {
        let mut reader = Reader { stream, buffer: Vec::new() };
        let Some(request) = reader.request(number, log) else { return };
        if reader.stream.write_all(switching(&request).as_bytes()).is_ok() {
            let _ = sender.lock().unwrap().send(reader);
        }
    });
    (origin, receiver)
}

fn handed(receiver: &Receiver<Reader>) -> TcpStream {
    let reader = receiver.recv_timeout(Duration::from_secs(10)).expect("the origin was asked");
    assert!(reader.buffer.is_empty());
    reader.stream
}

/// Reads until `bytes` have come.
fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    let mut got = vec![0; bytes.len()];
    stream.read_exact(&mut got).expect("the bytes");
    assert_eq!(got, bytes);
}

#[test]
fn a_library_talks_through_the_gate_as_if_it_were_not_there() {
    let origin = echo_server();
    let gate = Gateway::start(&config(&origin));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let target = "/any/p%C3%A4th/at-all?x=1&y=%2F&x=2";
        let mut request = format!("ws://{}{target}", gate.address(0)).into_client_request().expect("a request");
        request.headers_mut().insert("X-Api-Key", ALICE.parse().expect("a value"));
        let limits = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let (mut socket, _) =
            tokio_tungstenite::connect_async_with_config(request, Some(limits), false).await.expect("a WebSocket");
        let large: Vec<u8> = (0..16usize << 20).map(|n| (n / 3) as u8).collect();
        for message in [
            Message::text("hello"),
            Message::text(""),
            Message::text("κόσμε"),
            Message::binary(Bytes::from_static(b"\0\xff")),
            Message::binary(large),
        ] {
            socket.send(message.clone()).await.expect("sent");
            assert!(socket.next().await.expect("an answer").expect("a message") == message);
        }
        socket.send(Message::Ping(Bytes::from_static(b"are you there"))).await.expect("sent");
        let pong = socket.next().await.expect("an answer").expect("a message");
        assert_eq!(pong, Message::Pong(Bytes::from_static(b"are you there")));
        let farewell = CloseFrame { code: CloseCode::Library(4003), reason: "not your room".into() };
        socket.close(Some(farewell.clone())).await.expect("sent");
        let answer = socket.next().await.expect("an answer").expect("a message");
        assert_eq!(answer, Message::Close(Some(farewell)));
        assert!(socket.next().await.is_none());
        assert_eq!(origin.only().target, target);
    });
    let line = tunnel_line(&gate);
    assert_eq!((line["closed"].as_str(), line["user"].as_str()), (Some("closed"), Some("alice")));
    assert!(line["bytes_in"].as_u64() > Some(16 << 20) && line["bytes_out"].as_u64() > Some(16 << 20), "{line}");
}

#[test]
fn close_codes_and_reasons_pass_both_ways() {
    let (origin, sockets) = handing_over();
    let gate = Gateway::start(&config(&origin));
    for (code, reason) in [(1000, ""), (1000, "done"), (1012, "restart"), (4001, "who are you"), (4003, "not here")] {
        let payload = close_payload(code, reason);
        let mut socket = Socket::open(gate.address(0), "/", ALICE);
        let mut server = handed(&sockets);
        server.write_all(&frame(CLOSE, &payload, None)).expect("sent");
        assert_eq!(socket.read_close(), (code, reason.to_owned()));
        socket.send(CLOSE, &payload);
        expect(&mut server, &frame(CLOSE, &payload, Some([7, 1, 9, 3])));
        server.shutdown(Shutdown::Both).expect("shut");
        assert!(socket.is_closed());
    }
}

#[test]
fn extensions_are_between_the_endpoints() {
    let origin = echo_server();
    let gate = Gateway::start(&config(&origin));
    let offer = "permessage-deflate; client_max_window_bits=\"12\"; server_no_context_takeover, x-other;q=1";
    let extra = format!("{}Sec-WebSocket-Extensions: {offer}\r\n", with_key());
    let mut socket = Socket::on(Client::connect(gate.address(0)), "/frames", &extra);
    assert_eq!(origin.only().one("sec-websocket-extensions"), Some(offer));
    assert_eq!(socket.response.one("sec-websocket-extensions"), Some(offer));
    // "Hello" as RFC 7692 section 7.2.3.1 compresses it, with RSV1 set, and the other reserved bits, which are no business
    // of the gate.
    for first in [0xc1, 0xc2, 0xa1, 0x91, 0xf2, 0x41, 0x83, 0xcb] {
        let payload = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        socket.send(first, &payload);
        assert_eq!(socket.read(), Some((first, payload.to_vec())));
    }
}

#[test]
fn subprotocols_lose_the_key_and_nothing_else() {
    let origin = echo_server();
    let gate = Gateway::start(&config(&origin));
    for (offered, forwarded) in [
        (format!("realtime, openai-insecure-api-key.{ALICE}"), Some("realtime")),
        (format!("openai-insecure-api-key.{ALICE}, realtime, v2.json"), Some("realtime, v2.json")),
        (format!("a,keygate.key.{ALICE} , b"), Some("a, b")),
        (format!("keygate.key.{ALICE}"), None),
    ] {
        let extra = format!("Sec-WebSocket-Protocol: {offered}\r\n");
        let mut socket = Socket::on(Client::connect(gate.address(0)), "/", &extra);
        let seen = origin.last();
        assert_eq!(
            seen.one("sec-websocket-protocol").map(|list| list.replace(", ", ",")),
            forwarded.map(|list| list.replace(", ", ","))
        );
        let chosen = forwarded.and_then(|list| list.split(',').next());
        assert_eq!(socket.response.one("sec-websocket-protocol"), chosen);
        assert_eq!(seen.one("x-auth-user"), Some("alice"));
        socket.echoes("hello");
    }
    let raw = origin.raw();
    assert!(!raw.windows(ALICE.len()).any(|bytes| bytes == ALICE.as_bytes()));
}

#[test]
fn a_refused_handshake_is_a_readable_answer() {
    let origin = echo_server();
    let routes = "  - { path: /admin, roles: [admin], upstream: app }\n  - { path: /, upstream: app }\n";
    let gate = Gateway::start(&config_with(&origin, routes, "limits: { default: { websockets: 1 } }\n"));
    let mut held = Socket::open(gate.address(0), "/", ALICE);
    let mut client = Client::connect(gate.address(0));
    for (target, key, status, code) in [
        ("/", "", 401, "unauthorized"),
        ("/", "X-Api-Key: wrong\r\n", 401, "unauthorized"),
        ("/admin", &with_key(), 403, "forbidden"),
        ("/", &with_key(), 429, "too_many_websockets"),
    ] {
        // The same connection each time: a refusal does not end it.
        let response = client.send(handshake(target, key)).read();
        assert_eq!((response.status, response.one("upgrade")), (status, None), "{}", response.text());
        let body = response.json();
        assert!(!body["error"]["message"].as_str().unwrap_or_default().is_empty());
        assert_eq!(body["error"]["code"], code);
    }
    assert_eq!(origin.connections(), 1);
    held.echoes("still open");
}

#[test]
fn a_malformed_upgrade_goes_on_as_a_plain_request() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    let key = with_key();
    let version = "Sec-WebSocket-Version: 13\r\n";
    let nonce = format!("Sec-WebSocket-Key: {NONCE}\r\n");
    for (line, fields) in [
        ("GET / HTTP/1.1", format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{version}")),
        ("GET / HTTP/1.1", format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{nonce}")),
        ("GET / HTTP/1.1", format!("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n{nonce}")),
        (
            "GET / HTTP/1.1",
            format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{version}Sec-WebSocket-Key: short\r\n"),
        ),
        ("GET / HTTP/1.1", format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{version}{nonce}{nonce}")),
        ("GET / HTTP/1.1", format!("Upgrade: websocket\r\n{version}{nonce}")),
        ("GET / HTTP/1.1", format!("Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n{version}{nonce}")),
        ("GET / HTTP/1.1", format!("Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n{version}{nonce}")),
        ("GET / HTTP/1.1", format!("Connection: Upgrade\r\nUpgrade: websocket/13\r\n{version}{nonce}")),
        (
            "POST / HTTP/1.1",
            format!("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n{version}{nonce}"),
        ),
        ("GET / HTTP/1.0", format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{version}{nonce}")),
        (
            "GET / HTTP/1.1",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n".into(),
        ),
        ("GET / HTTP/1.1", "Connection: upgrade\r\nUpgrade: TLS/1.2, HTTP/2.0\r\n".into()),
    ] {
        let mut client = Client::connect(gate.address(0));
        let response = client.send(format!("{line}\r\nHost: a\r\n{key}{fields}\r\n")).read();
        assert_eq!((response.status, response.text().as_str()), (200, "ok"), "{fields}");
        let seen = origin.last();
        for name in ["upgrade", "http2-settings"] {
            assert!(seen.all(name).is_empty(), "{name} of {fields} reached the origin: {:?}", seen.headers);
        }
        assert!(seen.all("connection").iter().all(|value| !value.to_lowercase().contains("upgrade")), "{fields}");
    }
}

#[test]
fn an_upstream_that_does_not_switch_is_answered_for_plainly() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/426" => {
            Answer::raw("HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 3\r\n\r\nold")
        }
        "/400" => Answer::raw("HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"),
        "/204" => Answer::raw("HTTP/1.1 204 No Content\r\n\r\n"),
        _ => Answer::ok("plain"),
    });
    let gate = Gateway::start(&config(&origin));
    let mut client = Client::connect(gate.address(0));
    for (target, status, body) in [("/426", 426, "old"), ("/400", 400, "no"), ("/204", 204, ""), ("/200", 200, "plain")]
    {
        let response = client.send(handshake(target, &with_key())).read();
        assert_eq!((response.status, response.text().as_str()), (status, body));
    }
    // Frames sent in hope are no request, and no tunnel: they reach nobody.
    let frames = frame(TEXT, b"smuggled through", Some([0; 4]));
    client.send(handshake("/200", &with_key())).send(&frames);
    assert_eq!(client.read().status, 200);
    assert_eq!(client.read().status, 400);
    assert!(client.is_closed());
    // A request sent behind the handshake is one more request, and needs a key of its own.
    let mut client = Client::connect(gate.address(0));
    client.send(handshake("/200", &with_key()) + "GET /behind HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((client.read().status, client.read().status), (200, 401));
    let raw = origin.raw();
    assert!(!raw.windows(8).any(|bytes| bytes == b"smuggled") && !raw.windows(7).any(|bytes| bytes == b"/behind"));
    assert_eq!(origin.requests().len(), 6);
}

#[test]
fn a_101_that_is_no_websocket_is_a_bad_gateway() {
    let origin = Origin::start(|request| {
        let (_, fields) = request.target.split_once('?').expect("a query");
        let fields = fields.replace('+', " ").replace(';', "\r\n");
        Answer::raw(format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"))
    });
    let gate = Gateway::start(&config(&origin));
    for fields in [
        "Connection:+Upgrade",
        "Connection:+Upgrade;Upgrade:+h2c",
        "Connection:+Upgrade;Upgrade:+websocket,h2c",
        "Connection:+Upgrade;Upgrade:+websocket;Upgrade:+websocket",
        "Upgrade:+websocket",
    ] {
        let mut client = Client::connect(gate.address(0));
        let response = client.send(handshake(&format!("/?{fields}"), &with_key())).read();
        assert_eq!(response.status, 502, "{fields}");
        // The connection goes on as HTTP.
        assert_eq!(client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").read().status, 401);
    }
    let plain = "GET /?Connection:+Upgrade;Upgrade:+websocket HTTP/1.1\r\nHost: a\r\n";
    let response = Client::connect(gate.address(0)).send(format!("{plain}{}\r\n", with_key())).read();
    assert_eq!(response.status, 502, "a 101 that nobody asked for");
}

#[test]
fn what_is_sent_behind_the_handshake_waits_for_the_101() {
    let (early, told) = channel();
    let early = Mutex::new(early);
    let origin = Origin::start_raw(move |number, stream, log| {
        let mut reader = Reader { stream, buffer: Vec::new() };
        let Some(request) = reader.request(number, log) else { return };
        let mut stream = reader.stream;
        stream.set_read_timeout(Some(Duration::from_millis(200))).expect("set");
        let mut byte = [0];
        let came = !reader.buffer.is_empty() || matches!(stream.read(&mut byte), Ok(count) if count > 0);
        early.lock().unwrap().send(came).expect("told");
        stream.write_all(switching(&request).as_bytes()).expect("sent");
        expect(&mut stream, &frame(TEXT, b"early", Some([1, 2, 3, 4])));
        stream.write_all(&frame(TEXT, b"late", None)).expect("sent");
        let _ = stream.read(&mut byte);
    });
    let gate = Gateway::start(&config(&origin));
    let mut client = Client::connect(gate.address(0));
    let mut bytes = handshake("/", &with_key()).into_bytes();
    bytes.extend(frame(TEXT, b"early", Some([1, 2, 3, 4])));
    client.send(bytes);
    assert!(!told.recv_timeout(Duration::from_secs(10)).expect("asked"), "bytes came before the 101");
    let response = client.read();
    let mut socket = Socket { client, response };
    assert_eq!(socket.read(), Some((TEXT, b"late".to_vec())));
}

#[test]
fn what_the_upstream_sends_behind_its_101_is_not_lost() {
    let origin = Origin::start_raw(|number, stream, log| {
        let mut reader = Reader { stream, buffer: Vec::new() };
        let Some(request) = reader.request(number, log) else { return };
        let mut bytes = switching(&request).into_bytes();
        bytes.extend(frame(TEXT, b"first words", None));
        let _ = reader.stream.write_all(&bytes);
        let _ = reader.stream.read(&mut [0]);
    });
    let gate = Gateway::start(&config(&origin));
    let mut socket = Socket::open(gate.address(0), "/", ALICE);
    assert_eq!(socket.read(), Some((TEXT, b"first words".to_vec())));
}

#[test]
fn an_idle_tunnel_is_closed_with_1001() {
    let (origin, sockets) = handing_over();
    let gate = Gateway::start(&config(&origin).replace("\"] }", "\"], websocket_idle_timeout: 400ms }"));
    let mut socket = Socket::open(gate.address(0), "/", ALICE);
    let mut server = handed(&sockets);
    socket.send(PING, b"x");
    expect(&mut server, &frame(PING, b"x", Some([7, 1, 9, 3])));
    server.write_all(&frame(PONG, b"x", None)).expect("sent");
    assert_eq!(socket.read(), Some((PONG, b"x".to_vec())));
    let (code, reason) = socket.read_close();
    assert_eq!((code, reason.as_str()), (1001, "idle timeout"));
    assert!(socket.is_closed());
    // The upstream is told as well, by a masked close frame.
    let mut last = Vec::new();
    server.read_to_end(&mut last).expect("an end");
    assert_eq!((last.first(), last.get(1)), (Some(&CLOSE), Some(&0x82)));
    assert_eq!(tunnel_line(&gate)["closed"], "idle");
    gate.expect_metric(r#"keygate_connections_closed_total{reason="tunnel_timeout"}"#, 1.0);
}

#[test]
fn a_client_that_does_not_read_is_cut() {
    let (origin, sockets) = handing_over();
    let gate = Gateway::start(&format!("{}request: {{ write_timeout: 300ms }}\n", config(&origin)));
    let socket = Socket::open(gate.address(0), "/", ALICE);
    let mut server = handed(&sockets);
    server.set_write_timeout(Some(Duration::from_secs(20))).expect("set");
    let message = frame(BINARY, &vec![7; 1 << 20], None);
    // Its pings do not count as reading.
    let pinging = socket.client.stream.try_clone().expect("cloned");
    let pinger = thread::spawn(move || {
        let mut pinging = pinging;
        while pinging.write_all(&frame(PING, b"", Some([0; 4]))).is_ok() {
            thread::park_timeout(Duration::from_millis(20));
        }
    });
    while server.write_all(&message).is_ok() {}
    assert_eq!(tunnel_line(&gate)["closed"], "stalled");
    gate.expect_metric(r#"keygate_connections_closed_total{reason="write_timeout"}"#, 1.0);
    drop(socket);
    pinger.join().expect("ends");
}

#[test]
fn a_key_has_so_many_sockets_and_dead_peers_give_theirs_back() {
    let origin = echo_server();
    let gate = Gateway::start(&config_with(
        &origin,
        "  - { path: /, upstream: app }\n",
        "limits: { default: { websockets: 2 } }\n",
    ));
    let mut first = Socket::open(gate.address(0), "/", ALICE);
    let second = Socket::open(gate.address(0), "/", ALICE);
    let third = Client::connect(gate.address(0)).send(handshake("/", &with_key())).read();
    assert_eq!(third.status, 429);
    assert_eq!(third.json()["status"], 429);
    let mut others = Socket::open(gate.address(0), "/", BOB);
    others.echoes("another key has its own");
    // One dies without a word: reset, not closed.
    let stream = second.client.stream;
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("set");
    drop(stream);
    eventually("the slot is back", || {
        let response = Client::connect(gate.address(0)).send(handshake("/", &with_key())).read();
        (response.status == 101).then_some(())
    });
    first.echoes("and the first is as it was");
}

#[test]
fn a_websocket_is_a_request_in_flight_until_its_101_only() {
    let origin = echo_server();
    let limits = "limits: { default: { concurrent: 1, websockets: 5 } }\n";
    let gate = Gateway::start(&config_with(&origin, "  - { path: /, upstream: app }\n", limits));
    let mut open: Vec<_> = (0..5).map(|_| Socket::open(gate.address(0), "/", ALICE)).collect();
    eventually("all are open", || (gate.metric(OPEN) == 5.0).then_some(()));
    open.iter_mut().for_each(|socket| socket.echoes("open at once"));
    drop(open);
    eventually("all are closed", || (gate.metric(OPEN) == 0.0).then_some(()));
}

#[test]
fn a_client_that_closes_its_half_behind_a_close_frame_gets_the_answer_of_a_slow_server() {
    let (origin, sockets) = handing_over();
    let gate = Gateway::start(&config(&origin));
    let mut socket = Socket::open(gate.address(0), "/", ALICE);
    let mut server = handed(&sockets);
    let farewell = close_payload(1000, "bye");
    socket.send(CLOSE, &farewell);
    socket.client.finish();
    expect(&mut server, &frame(CLOSE, &farewell, Some([7, 1, 9, 3])));
    assert_eq!(server.read(&mut [0]).expect("an end"), 0);
    // Longer than the gate waits for a goodbye of its own.
    thread::park_timeout(Duration::from_millis(1_300));
    server.write_all(&frame(TEXT, b"one moment", None)).expect("sent");
    server.write_all(&frame(CLOSE, &farewell, None)).expect("sent");
    drop(server);
    assert_eq!(socket.read(), Some((TEXT, b"one moment".to_vec())));
    assert_eq!(socket.read_close(), (1000, "bye".to_owned()));
    assert!(socket.is_closed());
}

#[test]
fn the_last_words_of_an_upstream_that_reads_no_more_arrive() {
    let (origin, sockets) = handing_over();
    let gate = Gateway::start(&config(&origin));
    let mut socket = Socket::open(gate.address(0), "/", ALICE);
    let mut server = handed(&sockets);
    let mut sending = socket.client.stream.try_clone().expect("cloned");
    let flood = thread::spawn(move || while sending.write_all(&frame(BINARY, &[5; 4096], Some([0; 4]))).is_ok() {});
    expect(&mut server, &[0x82, 0xfe]);
    server.write_all(&frame(BINARY, &vec![9; 300_000], None)).expect("sent");
    server.write_all(&frame(CLOSE, &close_payload(1012, "restart"), None)).expect("sent");
    server.shutdown(Shutdown::Write).expect("shut");
    assert_eq!(socket.read(), Some((BINARY, vec![9; 300_000])));
    assert_eq!(socket.read_close(), (1012, "restart".to_owned()));
    let _ = socket.client.stream.shutdown(Shutdown::Both);
    flood.join().expect("ends");
}
