//! TLS towards clients: versions, names, resumption, deadlines, and certificates that are replaced under open connections.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, ProtocolVersion};

use crate::support::client::{Client, get};
use crate::support::gateway::{Gateway, write_private};
use crate::support::origin::Origin;
use crate::support::pki::{self, Authority, TlsStream};
use crate::support::{ALICE, KEYS, config_with, eventually};

const EXPIRY: &str = "keygate_tls_certificate_expiry_timestamp_seconds";

/// A gate on TLS: `tls` is what stands beside the certificates, `certificates` the names of pairs in its folder.
fn gate(authority: &Authority, origin: &Origin, certificates: &[(&str, &str)], tls: &str, more: &str) -> Gateway {
    let dir = tempfile::tempdir().unwrap();
    let mut pairs = Vec::new();
    for (file, name) in certificates {
        authority.issue_to(dir.path(), file, &[name]);
        pairs.push(format!("{{ cert: {file}.pem, key: {file}.key }}"));
    }
    let tls = format!("127.0.0.1:0\", tls: {{ certificates: [{}]{tls} }} }}]", pairs.join(", "));
    let text = config_with(origin, "  - { path: /, upstream: app }\n", more);
    Gateway::start_in(dir, &text.replacen("127.0.0.1:0\" }]", &tls, 1), KEYS, &[])
}

fn ask(client: &mut Client<TlsStream>) -> u16 {
    client.send(format!("GET / HTTP/1.1\r\nHost: a.test\r\nX-Api-Key: {ALICE}\r\n\r\n"));
    client.read().status
}

fn handshakes(gate: &Gateway, result: &str) -> f64 {
    gate.metric(&format!("keygate_tls_handshakes_total{{result=\"{result}\"}}"))
}

#[test]
fn both_versions_are_spoken_and_logged_and_the_upstream_is_told() {
    let (authority, origin) = (Authority::new(), Origin::ok());
    let gate = gate(&authority, &origin, &[("a", "a.test")], "", "");
    for (version, name) in [(&TLS12, "1.2"), (&TLS13, "1.3")] {
        let client = authority.client(&[version], &["http/1.1"]);
        let mut client = pki::connect(gate.address(0), "a.test", &client).unwrap();
        let spoken = client.stream.conn.protocol_version().unwrap();
        assert_eq!(spoken == ProtocolVersion::TLSv1_3, name == "1.3");
        assert_eq!(client.stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        client.send(format!("GET / HTTP/1.1\r\nHost: a.test\r\nX-Api-Key: {ALICE}\r\n\r\n"));
        let response = client.read();
        assert_eq!(response.status, 200);
        assert_eq!(origin.last().one("x-forwarded-proto"), Some("https"));
        assert_eq!(gate.access_line(response.one("x-request-id").unwrap())["tls"], name);
    }
    // No protocol named is HTTP/1.1; one we do not speak is refused (RFC 7301 section 3.2).
    assert_eq!(ask(&mut pki::connect(gate.address(0), "a.test", &authority.client(&[&TLS13], &[])).unwrap()), 200);
    assert!(pki::connect(gate.address(0), "a.test", &authority.client(&[&TLS13], &["imap"])).is_err());
    let counted = || (handshakes(&gate, "full"), handshakes(&gate, "failed")) == (3.0, 1.0);
    eventually("all are counted", || counted().then_some(()));
}

#[test]
fn min_version_and_http2_off_hold() {
    let (authority, origin) = (Authority::new(), Origin::ok());
    let gate = gate(&authority, &origin, &[("a", "a.test")], ", min_version: \"1.3\", http2: false", "");
    assert!(pki::connect(gate.address(0), "a.test", &authority.client(&[&TLS12], &["http/1.1"])).is_err());
    // The client hears of it before it is counted.
    eventually("it is counted", || (handshakes(&gate, "failed") == 1.0).then_some(()));
    let both = authority.client(&[&TLS13], &["h2", "http/1.1"]);
    let mut client = pki::connect(gate.address(0), "a.test", &both).unwrap();
    assert_eq!(client.stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(ask(&mut client), 200);
    assert!(pki::connect(gate.address(0), "a.test", &authority.client(&[&TLS13], &["h2"])).is_err());
}

#[test]
fn http2_is_offered_by_alpn() {
    let (authority, origin) = (Authority::new(), Origin::ok());
    let gate = gate(&authority, &origin, &[("a", "a.test")], "", "");
    let both = authority.client(&[&TLS13], &["h2", "http/1.1"]);
    let client = pki::connect(gate.address(0), "a.test", &both).unwrap();
    assert_eq!(client.stream.conn.alpn_protocol(), Some(&b"h2"[..]));
}

#[test]
fn the_certificate_is_chosen_by_name_and_the_first_is_the_default() {
    let (authority, origin) = (Authority::new(), Origin::ok());
    let gate = gate(&authority, &origin, &[("a", "a.test"), ("b", "b.test")], "", "");
    let of = |file: &str| pki::der(&fs::read_to_string(gate.path(&format!("{file}.pem"))).unwrap());
    for (name, file) in [("a.test", "a"), ("b.test", "b"), ("B.TEST", "b")] {
        let mut client = pki::connect(gate.address(0), name, &authority.http1()).unwrap();
        assert_eq!(pki::shown(&client), of(file), "{name}");
        assert_eq!(ask(&mut client), 200);
    }
    // A name that no certificate has gets the default, which the client then refuses.
    let error = pki::connect(gate.address(0), "c.test", &authority.http1()).err().unwrap().to_string();
    assert!(error.contains("a.test") || error.contains("not valid for name"), "{error}");
    let page = gate.metrics();
    assert_eq!(page.lines().filter(|line| line.starts_with(&format!("{EXPIRY}{{"))).count(), 2, "{page}");
    assert!(page.contains(&format!("{EXPIRY}{{name=\"a.test\"}}")), "{page}");
}

#[test]
fn sessions_resume_in_both_versions() {
    let (authority, origin) = (Authority::new(), Origin::ok());
    let gate = gate(&authority, &origin, &[("a", "a.test")], "", "");
    for version in [&TLS12, &TLS13] {
        let client = authority.client(&[version], &["http/1.1"]);
        let mut kinds = Vec::new();
        for _ in 0..3 {
            let mut connection = pki::connect(gate.address(0), "a.test", &client).unwrap();
            assert_eq!(ask(&mut connection), 200);
            kinds.push(connection.stream.conn.handshake_kind().unwrap());
        }
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed], "{version:?}");
    }
    assert_eq!((handshakes(&gate, "full"), handshakes(&gate, "resumed")), (2.0, 4.0));
}

#[test]
fn a_silent_or_strange_client_is_let_go_and_counted() {
    let (authority, origin) = (Authority::new(), Origin::ok());
    let gate = gate(&authority, &origin, &[("a", "a.test")], "", "connections: { handshake_timeout: 1s }\n");
    let silent = TcpStream::connect(gate.address(0)).unwrap();
    let mut dripping = TcpStream::connect(gate.address(0)).unwrap();
    let began = Instant::now();
    // The beginning of a record that never ends.
    dripping.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
    for stream in [silent, dripping] {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!((&stream).read(&mut [0; 64]).unwrap_or(0), 0, "closed without a word");
    }
    assert!(began.elapsed() >= Duration::from_millis(900) && began.elapsed() < Duration::from_secs(8));
    eventually("both are counted", || (handshakes(&gate, "timeout") == 2.0).then_some(()));
    gate.expect_metric(r#"keygate_connections_closed_total{reason="handshake_timeout"}"#, 2.0);
    // Plain HTTP on a TLS port gets no HTTP answer, and reaches nobody.
    let mut plain = Client::connect(gate.address(0));
    plain.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
    let answer = plain.read_to_close();
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    eventually("it is counted", || (handshakes(&gate, "failed") == 1.0).then_some(()));
    assert_eq!(origin.connections(), 0);
}

/// The default of ten seconds, seen once.
#[test]
fn the_default_handshake_timeout_is_ten_seconds() {
    let (authority, origin) = (Authority::new(), Origin::ok());
    let gate = gate(&authority, &origin, &[("a", "a.test")], "", "");
    let silent = TcpStream::connect(gate.address(0)).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    let began = Instant::now();
    assert_eq!((&silent).read(&mut [0; 64]).unwrap_or(0), 0);
    assert!(began.elapsed() > Duration::from_millis(9500), "{:?}", began.elapsed());
}

/// What is done to a key file, in words and in deed.
type Damage<'a> = (&'a str, &'a dyn Fn(&Path));

#[test]
fn a_new_certificate_is_in_force_at_once_and_a_bad_pair_never() {
    let (authority, origin) = (Authority::new(), Origin::ok());
    let gate = gate(&authority, &origin, &[("a", "a.test"), ("b", "b.test")], "", "");
    let shown = || pki::shown(&pki::connect(gate.address(0), "a.test", &authority.http1()).unwrap());
    let mut open = pki::connect(gate.address(0), "a.test", &authority.http1()).unwrap();
    assert_eq!(ask(&mut open), 200);
    let first = shown();
    // Replaced by rename, the certificate first: for a moment the pair does not match.
    let replace = |cert: &str, key: &str| {
        for (text, file) in [(cert, "a.pem"), (key, "a.key")] {
            write_private(&gate.path("next"), text);
            fs::rename(gate.path("next"), gate.path(file)).unwrap();
        }
    };
    let (cert, key) = authority.issue(&["a.test"]);
    let began = Instant::now();
    replace(&cert, &key);
    eventually("the new certificate is shown", || (shown() == pki::der(&cert)).then_some(()));
    println!("certificate in force after {:?}", began.elapsed());
    assert_ne!(first, pki::der(&cert));
    assert_eq!(ask(&mut open), 200, "the open connection goes on");
    // Bad: a key of another certificate, junk, an empty file, a missing one. Each is told, none is in force.
    let told = |from: usize| {
        let log = gate.log();
        log.lines().skip(from).find(|line| line.contains("certificate refused")).map(str::to_owned)
    };
    let other = fs::read_to_string(gate.path("b.key")).unwrap();
    let rows: [Damage<'_>; 4] = [
        ("another key", &|path| fs::write(path, &other).unwrap()),
        ("junk", &|path| fs::write(path, "junk").unwrap()),
        ("empty", &|path| fs::write(path, "").unwrap()),
        ("gone", &|path| fs::remove_file(path).unwrap()),
    ];
    for (what, break_it) in rows {
        let lines = gate.log().lines().count();
        break_it(&gate.path("a.key"));
        let line = eventually(what, || told(lines));
        assert!(line.contains("a.key") || line.contains("a.pem"), "{what}: {line}");
        assert_eq!(shown(), pki::der(&cert), "{what}");
        // SIGHUP will not have it either.
        let text = fs::read_to_string(gate.path("keygate.yaml")).unwrap();
        assert!(!gate.reload(&text), "{what}");
        assert_eq!(shown(), pki::der(&cert), "{what}");
    }
    replace(&cert, &key);
    let (cert, key) = authority.issue(&["a.test"]);
    replace(&cert, &key);
    eventually("the next certificate is shown", || (shown() == pki::der(&cert)).then_some(()));
    assert_eq!(ask(&mut open), 200);
    assert_eq!(get(gate.admin(), "/readyz", &[]).status, 200);
}
