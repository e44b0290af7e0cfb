//! SIGHUP reads the whole configuration again, all or nothing; what is open stays open.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;

use crate::support::client::{Client, get};
use crate::support::gateway::Gateway;
use crate::support::origin::{Answer, Origin};
use crate::support::pki::{self, Authority};
use crate::support::{ALICE, BOB, config, config_with, entry, eventually, keys_with};

/// The addresses that the gate said it listens on since line `from` of its log, in order.
fn listening(gate: &Gateway) -> Vec<String> {
    let of = |event: &serde_json::Value| event["address"].as_str().map(str::to_owned);
    gate.events().iter().filter(|event| event["message"] == "listening").filter_map(of).collect()
}

fn refuses(gate: &Gateway, config: &str, says: &str) {
    assert!(!gate.reload(config), "{says}");
    let told = |event: &serde_json::Value| {
        event["message"] == "configuration refused, the old one stays"
            && event["problem"].as_str().is_some_and(|problem| problem.contains(says))
    };
    eventually(says, || gate.events().iter().any(told).then_some(()));
}

#[test]
fn routes_upstreams_and_limits_change_live() {
    let (one, two) = (Origin::start(|_| Answer::ok("one")), Origin::start(|_| Answer::ok("two")));
    let gate = Gateway::start(&config(&one));
    let ask = |target: &str| get(gate.address(0), target, &[("X-Api-Key", ALICE)]);
    assert_eq!(ask("/a").text(), "one");
    // Another upstream.
    assert!(gate.reload(&config(&two)));
    assert_eq!(ask("/a").text(), "two");
    // Another set of routes, one of them not for alice; a header of the route's own.
    let routes = "  - { path: /x/, upstream: app, set_headers: { X-New: fresh } }\n  - { path: /y/, roles: [admin], upstream: app }\n";
    assert!(gate.reload(&config_with(&two, routes, "")));
    assert_eq!((ask("/a").status, ask("/x/a").status, ask("/y/a").status), (404, 200, 403));
    assert_eq!(two.last().one("x-new"), Some("fresh"));
    // A limit.
    let limits = "limits: { default: { requests: 1, per: 1h } }\n";
    assert!(gate.reload(&config_with(&two, "  - { path: /, upstream: app }\n", limits)));
    assert_eq!((ask("/a").status, ask("/a").status), (200, 429));
    // Counters stay: the same limits once more refill nothing.
    assert!(gate.reload(&config_with(&two, "  - { path: /, upstream: app }\n", limits)));
    assert_eq!(ask("/a").status, 429);
    let counted = gate.metric(r#"keygate_requests_total{code="200",method="GET",route="/"}"#);
    assert_eq!(counted, 3.0, "counters outlive reloads");
}

#[test]
fn a_bad_file_changes_nothing_but_log_and_metric() {
    let origin = Origin::ok();
    let good = config(&origin);
    let gate = Gateway::start(&good);
    let mut open = Client::connect(gate.address(0));
    let rows = [
        (good.replace("routes:", "ruotes:"), "did you mean `routes`?"),
        (good.replace("upstream: app", "upstream: ap"), "did you mean `app`?"),
        (String::new(), "keygate.yaml"),
        (good.replace("format: json", "format: jsn"), "jsn"),
        (format!("{good}threads: 7\n"), "threads changed: that takes a restart"),
        (format!("{good}state: {{ path: elsewhere.db }}\n"), "state.path changed: that takes a restart"),
        (good.replacen("admin: { address: \"127.0.0.1:0\" }", "", 1), "admin.address changed: that takes a restart"),
        (good.replace("keys.yaml", "other.yaml"), "keys.file changed: that takes a restart"),
        (good.replace("access: stdout", "access: /nonexistent/access.log"), "log.access"),
        // A listener that cannot be: nothing of the rest is in force either.
        (
            good.replace("127.0.0.1:0\" }]", "127.0.0.1:0\" }, { address: \"unix:/nonexistent/gate.sock\" }]")
                .replace("path: /,", "path: /elsewhere/,"),
            "unix:/nonexistent/gate.sock",
        ),
    ];
    for (text, says) in &rows {
        refuses(&gate, text, says);
        open.send(format!("GET /still HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
        assert_eq!(open.read().status, 200, "{says}");
        assert_eq!(get(gate.address(0), "/new", &[("X-Api-Key", BOB)]).status, 200, "{says}");
    }
    fs::remove_file(gate.path("keygate.yaml")).unwrap();
    gate.signal("HUP");
    let failures = r#"keygate_config_reloads_total{result="failure"}"#;
    eventually("a missing file is refused", || (gate.metric(failures) > rows.len() as f64).then_some(()));
    gate.expect_metric(r#"keygate_config_reloads_total{result="success"}"#, 0.0);
    assert!(gate.reload(&good));
}

/// A reload that fails late, when its new listener was already bound, must not leave that listener behind: clients would
/// wait in the system's queue for ever.
#[test]
fn a_listener_of_a_refused_reload_is_closed_again() {
    let origin = Origin::ok();
    let good = config(&origin);
    let gate = Gateway::start(&good);
    let socket = gate.path("extra.sock");
    let extra = format!("127.0.0.1:0\" }}, {{ address: \"unix:{}\" }}]", socket.display());
    let bad = good.replace("127.0.0.1:0\" }]", &extra).replace("access: stdout", "access: /nonexistent/access.log");
    refuses(&gate, &bad, "log.access");
    assert!(UnixStream::connect(&socket).is_err() && !socket.exists());
    assert!(gate.reload(&bad.replace("/nonexistent/access.log", "off")));
    assert!(UnixStream::connect(&socket).is_ok());
}

#[test]
fn listeners_come_and_go_while_others_serve() {
    let origin = Origin::ok();
    let good = config(&origin);
    let gate = Gateway::start(&good);
    let mut open = Client::connect(gate.address(0));
    let ask = |client: &mut Client| {
        client.send(format!("GET /still HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
        assert_eq!(client.read().status, 200);
    };
    ask(&mut open);
    let socket = gate.path("gate.sock");
    let with_socket =
        good.replace("127.0.0.1:0\" }]", &format!("127.0.0.1:0\" }}, {{ address: \"unix:{}\" }}]", socket.display()));
    assert!(gate.reload(&with_socket));
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(format!("GET /unix HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n").as_bytes()).unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    assert_eq!(origin.last().one("x-forwarded-for"), None, "a unix client has no address");
    ask(&mut open);
    // The port that the system chose stays while the words of its listener stay.
    ask(&mut Client::connect(gate.address(0)));
    assert!(gate.reload(&good));
    assert!(UnixStream::connect(&socket).is_err() && !socket.exists());
    ask(&mut open);
    // The address in use goes, and with it its socket and what is idle on it.
    assert!(gate.reload(&with_socket.replace("{ address: \"127.0.0.1:0\" }, ", "")));
    eventually("the port is closed", || TcpStream::connect(gate.address(0)).is_err().then_some(()));
    assert!(open.is_closed());
    assert!(UnixStream::connect(&socket).is_ok());
}

/// Two listeners that ask for any port are two listeners, after a reload too.
#[test]
fn two_listeners_on_port_zero_stay_two() {
    let origin = Origin::ok();
    let text = config(&origin).replace("127.0.0.1:0\" }]", "127.0.0.1:0\" }, { address: \"127.0.0.1:0\" }]");
    let gate = Gateway::start(&text);
    assert_eq!(listening(&gate).len(), 2);
    for _ in 0..2 {
        assert!(gate.reload(&text));
        for index in 0..2 {
            assert_eq!(get(gate.address(index), "/", &[("X-Api-Key", ALICE)]).status, 200);
        }
    }
}

#[test]
fn tls_changes_live_and_open_connections_keep_theirs() {
    let origin = Origin::ok();
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    authority.issue_to(dir.path(), "one", &["gate.test"]);
    authority.issue_to(dir.path(), "two", &["gate.test"]);
    let tls = |name: &str, version: &str| {
        let tls =
            format!("tls: {{ certificates: [{{ cert: {name}.pem, key: {name}.key }}], min_version: \"{version}\" }}");
        config(&origin).replace("127.0.0.1:0\" }]", &format!("127.0.0.1:0\", {tls} }}]"))
    };
    let gate = Gateway::start_in(dir, &tls("one", "1.2"), crate::support::KEYS, &[]);
    let client = authority.http1();
    let mut open = pki::connect(gate.address(0), "gate.test", &client).unwrap();
    let first = pki::shown(&open);
    assert!(gate.reload(&tls("two", "1.3")));
    // The accepting task changes over between two connections, moments after the reload is told.
    eventually("the other certificate is shown", || {
        let second = pki::connect(gate.address(0), "gate.test", &authority.http1()).ok()?;
        (pki::shown(&second) != first).then_some(())
    });
    let old = authority.client(&[&rustls::version::TLS12], &["http/1.1"]);
    assert!(pki::connect(gate.address(0), "gate.test", &old).is_err(), "TLS 1.2 is refused now");
    open.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
    assert_eq!(open.read().status, 200);
    let expiry = || gate.metrics().contains("keygate_tls_certificate_expiry_timestamp_seconds{");
    assert!(expiry());
    // Plain now: the same address, another protocol.
    assert!(gate.reload(&config(&origin)));
    eventually("plain requests are answered", || {
        let mut stream = TcpStream::connect(gate.address(0)).ok()?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).ok()?;
        write!(stream, "GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n").ok()?;
        let mut first = [0; 12];
        stream.read_exact(&mut first).ok()?;
        (&first == b"HTTP/1.1 200").then_some(())
    });
    assert!(!expiry(), "no certificate is in force any more");
}

#[test]
fn the_log_changes_live() {
    let origin = Origin::ok();
    let good = config(&origin);
    let gate = Gateway::start(&good);
    let file = gate.path("access.log");
    let to_file = good.replace("access: stdout", &format!("access: {}", file.display())).replace("info", "debug");
    assert!(gate.reload(&to_file));
    assert_eq!(get(gate.address(0), "/one", &[("X-Api-Key", ALICE)]).status, 200);
    let written = |path: &str| fs::read_to_string(&file).is_ok_and(|text| text.contains(path)).then_some(());
    eventually("a line in the file", || written("/one"));
    // Log rotation: moved away, and opened anew.
    fs::rename(&file, gate.path("access.log.1")).unwrap();
    assert!(gate.reload(&to_file.replace("debug", "error")));
    assert_eq!(get(gate.address(0), "/two", &[("X-Api-Key", ALICE)]).status, 200);
    eventually("a line in the new file", || written("/two"));
    // At level error the second reload is not told of; at debug the first was, if only as the last word.
    let told = gate.events().iter().filter(|event| event["message"] == "configuration reloaded").count();
    assert_eq!(told, 1, "{}", gate.log());
    assert!(!fs::read_to_string(gate.path("access.log.1")).unwrap().contains("/two"));
}

#[test]
fn variables_and_files_are_read_again() {
    let origin = Origin::ok();
    let routes =
        "  - { path: /, upstream: app, set_headers: { X-Secret: \"${file:secret.txt}\", X-Name: \"${env:NAME}\" } }\n";
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("secret.txt"), "first\n").unwrap();
    let text = config_with(&origin, routes, "");
    let gate = Gateway::start_in(dir, &text, crate::support::KEYS, &[("NAME", "of the variable")]);
    let seen = || {
        assert_eq!(get(gate.address(0), "/", &[("X-Api-Key", ALICE)]).status, 200);
        let last = origin.last();
        (last.one("x-secret").unwrap().to_owned(), last.one("x-name").unwrap().to_owned())
    };
    assert_eq!(seen(), ("first".into(), "of the variable".into()));
    fs::write(gate.path("secret.txt"), "second\n").unwrap();
    assert_eq!(seen().0, "first", "only SIGHUP reads it again");
    assert!(gate.reload(&text));
    assert_eq!(seen().0, "second");
    fs::remove_file(gate.path("secret.txt")).unwrap();
    refuses(&gate, &text, "secret.txt");
    assert_eq!(seen().0, "second");
}

/// The secret that signs logins is made when a cookie becomes a credential, be it by a reload.
#[test]
fn a_login_added_by_reload_works() {
    let origin = Origin::ok();
    let with_login = config(&origin);
    let without = with_login.replace(", browser_login: true", "").replace("  - cookie: keygate_session\n", "");
    assert_ne!(with_login, without);
    let gate = Gateway::start(&without);
    assert!(gate.reload(&with_login));
    let page = [("Accept", "text/html"), ("Sec-Fetch-Mode", "navigate")];
    let response = get(gate.address(0), &format!("/page?api_key={ALICE}"), &page);
    assert_eq!((response.status, response.one("location")), (303, Some("/page")));
    let cookie = response.one("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(get(gate.address(0), "/page", &[("Cookie", &cookie)]).status, 200);
    // It stays the same over the next reload.
    assert!(gate.reload(&with_login));
    assert_eq!(get(gate.address(0), "/page", &[("Cookie", &cookie)]).status, 200);
}

/// A pipe at any of these places held the reload for ever, with it every later one, and at some the reload of keys too.
#[test]
fn a_pipe_in_place_of_any_file_holds_nothing_up() {
    let origin = Origin::ok();
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.issue_to(dir.path(), "good", &["gate.test"]);
    assert!(Command::new("mkfifo").arg(dir.path().join("pipe")).status().unwrap().success());
    let good = config(&origin);
    let gate = Gateway::start_in(dir, &good, crate::support::KEYS, &[]);
    let tls = |cert: &str, key: &str| {
        let tls = format!("tls: {{ certificates: [{{ cert: {cert}, key: {key} }}] }}");
        good.replace("127.0.0.1:0\" }]", &format!("127.0.0.1:0\", {tls} }}]"))
    };
    let secret = "  - { path: /, upstream: app, set_headers: { X-Secret: \"${file:pipe}\" } }\n";
    let log = good.replace("access: stdout", &format!("access: {}", gate.path("pipe").display()));
    assert_ne!(log, good);
    for (text, says) in [
        (config_with(&origin, secret, ""), "it is not a regular file"),
        (tls("pipe", "good.key"), "it is not a regular file"),
        (tls("good.pem", "pipe"), "it is not a regular file"),
        (log, "log.access"),
    ] {
        refuses(&gate, &text, says);
    }
    // The configuration itself.
    let failures = r#"keygate_config_reloads_total{result="failure"}"#;
    let before = gate.metric(failures);
    fs::remove_file(gate.path("keygate.yaml")).unwrap();
    fs::rename(gate.path("pipe"), gate.path("keygate.yaml")).unwrap();
    gate.signal("HUP");
    eventually("a pipe is refused", || (gate.metric(failures) > before).then_some(()));
    // Keys and the next reload work as ever.
    gate.replace_keys(&keys_with(&[entry("f4a2c000", "frank", "frank-key", "")]));
    let status = || get(gate.address(0), "/", &[("X-Api-Key", "frank-key")]).status;
    eventually("the new key", || (status() == 200).then_some(()));
    fs::remove_file(gate.path("keygate.yaml")).unwrap();
    assert!(gate.reload(&good));
}
