//! Upstreams: TLS and unix sockets towards them, how a server is chosen, and what happens when servers are down.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{Client, Response, get, request};
use crate::support::gateway::Gateway;
use crate::support::origin::{Answer, Origin};
use crate::support::pki::{Authority, TlsOrigin};
use crate::support::{ALICE, KEYS, eventually};

/// A configuration whose upstream `app` is written out by the test.
fn config(app: &str) -> String {
    format!(
        "listen: [{{ address: \"127.0.0.1:0\" }}]\nadmin: {{ address: \"127.0.0.1:0\" }}\nkeys: {{ file: keys.yaml }}\n\
         upstreams:\n  app: {{ {app} }}\nroutes: [{{ path: /, upstream: app }}]\n\
         log: {{ level: info, format: json, access: stdout }}\n"
    )
}

fn ask(gate: &Gateway) -> Response {
    get(gate.address(0), "/", &[("X-Api-Key", ALICE)])
}

fn healthy(gate: &Gateway, server: &str) -> f64 {
    gate.metric(&format!("keygate_upstream_healthy{{server=\"{server}\",upstream=\"app\"}}"))
}

fn readyz(gate: &Gateway) -> (u16, String) {
    let response = get(gate.admin(), "/readyz", &[]);
    (response.status, response.text().trim().to_owned())
}

/// An address that refuses: a port that was bound and let go.
fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// A gate before a TLS origin, with its authority's files in the gate's folder.
fn tls_gate(authority: &Authority, origin: &TlsOrigin, settings: &str) -> Gateway {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
    authority.issue_to(dir.path(), "gate", &["gate.test"]);
    let text = config(&format!("servers: [\"{}\"], tls: {{ {settings} }}", origin.address()));
    Gateway::start_in(dir, &text, KEYS, &[])
}

#[test]
fn tls_verifies_name_and_authority_and_shows_our_certificate() {
    let authority = Authority::new();
    let ours = "ca: ca.pem, cert: gate.pem, key: gate.key";
    let origin = authority.origin(&["worker.lan"], true);
    let gate = tls_gate(&authority, &origin, &format!("server_name: worker.lan, {ours}"));
    assert_eq!((ask(&gate).text(), ask(&gate).status), ("tls".to_owned(), 200));
    assert_eq!(origin.seen(), ["name worker.lan, client certificate true"; 2]);
    // A certificate for another name.
    let gate = tls_gate(&authority, &origin, &format!("server_name: other.lan, {ours}"));
    assert_eq!((ask(&gate).status, origin.seen().iter().filter(|line| !line.starts_with("failed")).count()), (502, 2));
    // No certificate of ours where one is asked for.
    let gate = tls_gate(&authority, &origin, "server_name: worker.lan, ca: ca.pem");
    assert_eq!(ask(&gate).status, 502);
    // An authority that did not issue the server's.
    let stranger = Authority::new();
    let gate = tls_gate(&stranger, &origin, &format!("server_name: worker.lan, {ours}"));
    assert_eq!(ask(&gate).status, 502);
    // TLS to a server that speaks none.
    let plain = Origin::start_raw(|_, mut stream, _| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    });
    let text = config(&format!("servers: [\"{}\"], tls: {{ server_name: worker.lan }}", plain.address()));
    assert_eq!(ask(&Gateway::start(&text)).status, 502);
    let body = ask(&gate).json();
    assert!(!body.to_string().contains("certificate"), "the client is not told of our wires: {body}");
}

#[test]
fn a_unix_socket_is_an_upstream() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("worker.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut head = Vec::new();
            let mut chunk = [0; 1024];
            while let Ok(count @ 1..) = stream.read(&mut chunk) {
                head.extend(&chunk[..count]);
                if head.ends_with(b"\r\n\r\n") {
                    tell.send(String::from_utf8(std::mem::take(&mut head)).unwrap()).unwrap();
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nunix").unwrap();
                }
            }
        }
    });
    let gate = Gateway::start(
        &config("servers: [\"unix:SOCKET\"], host: upstream").replace("SOCKET", &path.display().to_string()),
    );
    assert_eq!(ask(&gate).text(), "unix");
    assert!(told.recv().unwrap().contains("\r\nHost: localhost\r\n"));
    let gone = Gateway::start(&config("servers: [\"unix:/nonexistent.sock\"]"));
    assert_eq!(ask(&gone).status, 502);
}

#[test]
fn host_is_kept_or_the_upstreams_or_a_literal() {
    let origin = Origin::ok();
    let address = origin.address();
    for (host, want) in [("keep", "gate.test"), ("upstream", address.as_str()), ("app.internal", "app.internal")] {
        let gate = Gateway::start(&config(&format!("servers: [\"{address}\"], host: {host}")));
        assert_eq!(ask(&gate).status, 200);
        let seen = origin.last();
        assert_eq!((seen.one("host"), seen.one("x-forwarded-host")), (Some(want), Some("gate.test")), "{host}");
    }
}

#[test]
fn servers_take_turns_or_chances() {
    let origins: Vec<Origin> = (0..2).map(|n| Origin::start(move |_| Answer::ok(&format!("{n}")))).collect();
    let servers = format!("servers: [\"{}\", \"{}\"]", origins[0].address(), origins[1].address());
    let shares = |balance: &str, count: usize| {
        let gate = Gateway::start(&config(&format!("{servers}{balance}")));
        let mut shares: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..count {
            *shares.entry(ask(&gate).text()).or_default() += 1;
        }
        shares.into_values().collect::<Vec<_>>()
    };
    assert_eq!(shares("", 20), [10, 10], "round_robin is the default");
    assert_eq!(shares(", balance: round_robin", 20), [10, 10]);
    let random = shares(", balance: random", 60);
    assert!(random.len() == 2 && random.iter().all(|share| *share >= 10), "{random:?}");
    assert_eq!(shares(", balance: least_connections", 20).len(), 2, "equals take turns");
}

#[test]
fn least_connections_avoids_the_busy_server() {
    let release = Arc::new(AtomicBool::new(false));
    let held = release.clone();
    let slow = Origin::start(move |seen| {
        while seen.target == "/slow" && !held.load(Ordering::SeqCst) {
            thread::park_timeout(Duration::from_millis(5));
        }
        Answer::ok("slow")
    });
    let quick = Origin::start(|seen| match seen.target.as_str() {
        "/slow" => Answer::raw("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"),
        _ => Answer::ok("quick"),
    });
    let servers = format!("servers: [\"{}\", \"{}\"], balance: least_connections", slow.address(), quick.address());
    let gate = Gateway::start(&config(&servers));
    let mut held = Client::connect(gate.address(0));
    held.send(format!("GET /slow HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
    eventually("the slow one is busy", || (slow.connections() == 1).then_some(()));
    let ask_next = |_| {
        // The client has its answer a moment before the server's place is given back.
        let in_flight = || gate.metric("keygate_requests_in_flight{route=\"/\"}");
        eventually("only the slow one is in flight", || (in_flight() == 1.0).then_some(()));
        ask(&gate).text()
    };
    let answers: Vec<String> = (0..10).map(ask_next).collect();
    assert_eq!(answers, ["quick"; 10]);
    release.store(true, Ordering::SeqCst);
    assert_eq!(held.read().text(), "slow");
}

#[test]
fn a_server_that_refuses_is_passed_over_for_any_method() {
    let origin = Origin::ok();
    let text = config(&format!("servers: [\"{}\", \"{}\"]", nobody(), origin.address()));
    let gate = Gateway::start(&text);
    for method in ["GET", "POST", "PUT", "DELETE"] {
        for _ in 0..2 {
            let key = [("X-Api-Key", ALICE)];
            assert_eq!(request(gate.address(0), method, "/", &key, b"body").status, 200, "{method}");
        }
    }
    assert_eq!(origin.requests().len(), 8, "each once");
    let gate = Gateway::start(&config(&format!("servers: [\"{}\"]", nobody())));
    let refused = ask(&gate);
    assert_eq!(refused.status, 502);
    // Without a health check a server counts as healthy, and the gate as ready.
    assert_eq!(readyz(&gate), (200, "ready".into()));
}

#[test]
fn health_checks_take_a_server_out_and_back_in() {
    let sick = Arc::new(AtomicBool::new(false));
    let (is_sick, other_is_sick) = (sick.clone(), Arc::new(AtomicBool::new(false)));
    let start = |name: &'static str, sick: Arc<AtomicBool>| {
        Origin::start(move |seen| match (seen.target.as_str(), sick.load(Ordering::SeqCst)) {
            ("/health", true) => Answer::raw("HTTP/1.1 500 Sick\r\nContent-Length: 0\r\n\r\n"),
            _ => Answer::ok(name),
        })
    };
    let (one, two) = (start("one", is_sick), start("two", other_is_sick.clone()));
    let check = "health_check: { path: /health, interval: 50ms, unhealthy_after: 2, healthy_after: 2 }";
    let servers = format!("servers: [\"{}\", \"{}\"]", one.address(), two.address());
    let text = config(&format!("{servers}, {check}"));
    let gate = Gateway::start(&text);
    eventually("ready after the first round", || (readyz(&gate).0 == 200).then_some(()));
    assert_eq!((healthy(&gate, &one.address()), healthy(&gate, &two.address())), (1.0, 1.0));
    let check_seen = one.requests().into_iter().find(|seen| seen.target == "/health").unwrap();
    assert_eq!((check_seen.method.as_str(), check_seen.one("x-auth-user")), ("GET", None));

    sick.store(true, Ordering::SeqCst);
    eventually("the sick one is out", || (healthy(&gate, &one.address()) == 0.0).then_some(()));
    assert_eq!((0..6).map(|_| ask(&gate).text()).collect::<Vec<_>>(), ["two"; 6]);
    assert_eq!(readyz(&gate).0, 200, "one is up");

    other_is_sick.store(true, Ordering::SeqCst);
    eventually("both are out", || (healthy(&gate, &two.address()) == 0.0).then_some(()));
    assert_eq!(ask(&gate).status, 503);
    assert_eq!(readyz(&gate), (503, "not ready: every server of every upstream is down".into()));

    // A reload knows what the checks know, and forgets the servers that are gone.
    assert!(gate.reload(&text));
    assert_eq!((ask(&gate).status, readyz(&gate).0), (503, 503));
    sick.store(false, Ordering::SeqCst);
    eventually("one is back", || (healthy(&gate, &one.address()) == 1.0).then_some(()));
    assert_eq!((ask(&gate).text(), readyz(&gate).0), ("one".to_owned(), 200));
    assert!(gate.reload(&config(&format!("servers: [\"{}\"]", two.address()))));
    assert!(!gate.metrics().contains("keygate_upstream_healthy{"), "nothing is checked any more");
    assert_eq!((ask(&gate).text(), readyz(&gate).0), ("two".to_owned(), 200));
}

#[test]
fn the_gate_is_not_ready_before_the_first_round_of_checks() {
    // Accepts and never answers: the first check takes its whole time.
    let origin = Origin::start_raw(|_, stream, _| {
        thread::park_timeout(Duration::from_secs(30));
        drop(stream);
    });
    let check = "health_check: { path: /health, interval: 2s, unhealthy_after: 1, healthy_after: 1 }";
    let gate = Gateway::start(&config(&format!("servers: [\"{}\"], {check}", origin.address())));
    assert_eq!(readyz(&gate), (503, "not ready: first health checks pending".into()));
    eventually("the round is over", || (readyz(&gate).1.ends_with("is down")).then_some(()));
}

#[test]
fn a_server_that_does_not_answer_is_504_in_the_time_configured() {
    // A full queue drops what wants in: the connect hangs.
    let listener = socket_with_full_queue();
    let address = listener.0.local_addr().unwrap();
    let timing = |app: String, low: f64, high: f64| {
        let gate = Gateway::start(&config(&app));
        let began = Instant::now();
        assert_eq!(ask(&gate).status, 504, "{app}");
        let took = began.elapsed().as_secs_f64();
        assert!((low..high).contains(&took), "{app}: {took} s");
    };
    timing(format!("servers: [\"{address}\"], connect_timeout: 300ms"), 0.25, 1.9);
    let silent = Origin::start_raw(|_, mut stream, _| {
        let _ = stream.read(&mut [0; 4096]);
        thread::park_timeout(Duration::from_secs(30));
    });
    timing(format!("servers: [\"{}\"], response_timeout: 400ms", silent.address()), 0.35, 5.0);
}

/// A listener that nobody accepts from, and the connections that fill its queue.
pub fn socket_with_full_queue() -> (TcpListener, Vec<std::net::TcpStream>) {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(1).unwrap();
    let listener: TcpListener = socket.into();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        held.push(stream);
        assert!(held.len() < 64, "the queue does not fill");
    }
    (listener, held)
}

#[test]
fn a_name_is_resolved_before_the_first_request() {
    let origin = Origin::ok();
    let port = origin.address().rsplit(':').next().unwrap().to_owned();
    let gate = Gateway::start(&config(&format!("servers: [\"localhost:{port}\"]")));
    assert_eq!(ask(&gate).status, 200);
    let gate = Gateway::start(&config("servers: [\"no-such-name.invalid:80\"]"));
    assert!(matches!(ask(&gate).status, 502 | 503), "a name without an address is no server");
}

/// Checks of which the n-th passes when the n-th letter of `script` is `+` and fails when it is `-`, the last for ever.
fn scripted(script: &'static str, thresholds: &str) -> Vec<&'static str> {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let origin = Origin::start(move |_| {
        let number = asked.fetch_add(1, Ordering::SeqCst).min(script.len() - 1);
        if script.as_bytes()[number] == b'+' {
            Answer::ok("well")
        } else {
            Answer::raw("HTTP/1.1 500 Sick\r\nContent-Length: 0\r\n\r\n")
        }
    });
    let check = format!("health_check: {{ path: /health, interval: 30ms, {thresholds} }}");
    let gate = Gateway::start(&config(&format!("servers: [\"{}\"], {check}", origin.address())));
    eventually("the script is over", || (origin.requests().len() > script.len() + 2).then_some(()));
    let events = gate.events();
    let told = events.iter().filter_map(|event| event["message"].as_str());
    told.filter_map(|message| ["server is unhealthy", "server is healthy again"].into_iter().find(|m| *m == message))
        .collect()
}

#[test]
fn a_server_changes_sides_after_so_many_checks() {
    let (out, back) = ("server is unhealthy", "server is healthy again");
    assert!(scripted("+--+--+", "unhealthy_after: 3, healthy_after: 1").is_empty());
    assert_eq!(scripted("+--+++", "unhealthy_after: 2, healthy_after: 1"), [out, back]);
    assert_eq!(scripted("--+-+-+-", "unhealthy_after: 2, healthy_after: 2"), [out]);
    assert_eq!(scripted("--+-++++", "unhealthy_after: 2, healthy_after: 2"), [out, back]);
}
