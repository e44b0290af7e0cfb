//! The operators' listener, and Prometheus as its reader.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::client::{Client, get, request};
use crate::support::gateway::{Gateway, write_private};
use crate::support::origin::Origin;
use crate::support::{ALICE, KEYS, config, config_with, eventually};

#[test]
fn metrics_and_probes_are_on_the_admin_listener_alone() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    assert_eq!(get(gate.address(0), "/", &[("X-Api-Key", ALICE)]).status, 200);
    for (target, text) in [("/healthz", "ok\n"), ("/readyz", "ready\n"), ("/readyz?verbose", "ready\n")] {
        let response = get(gate.admin(), target, &[]);
        assert_eq!((response.status, response.text().as_str()), (200, text), "{target}");
    }
    assert!(gate.metrics().contains("keygate_requests_total{code=\"200\",method=\"GET\",route=\"/\"} 1"));
    for (target, status) in [("/", 404), ("/metrics/", 404), ("/config", 404)] {
        assert_eq!(get(gate.admin(), target, &[]).status, status, "{target}");
    }
    assert_eq!(request(gate.admin(), "POST", "/metrics", &[], b"").status, 405);
    // On a public listener these are paths like any other: no key, no answer; with one, the upstream's.
    for target in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(get(gate.address(0), target, &[]).status, 401, "{target}");
        assert_eq!(get(gate.address(0), target, &[("X-Api-Key", ALICE)]).text(), "ok", "{target}");
    }
}

#[test]
fn without_admin_there_is_no_listener_for_it() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin).replace("admin: { address: \"127.0.0.1:0\" }\n", ""));
    assert_eq!(gate.admin(), "");
    assert_eq!(get(gate.address(0), "/metrics", &[]).status, 401);
}

#[test]
fn an_admin_listener_for_everybody_is_warned_of() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin).replace("admin: { address: \"127.0.0.1", "admin: { address: \"0.0.0.0"));
    assert!(gate.log().contains("warning: ") && gate.log().contains("others than this host"), "{}", gate.log());
    let quiet = Gateway::start(&config(&origin));
    assert!(!quiet.log().contains("others than this host"));
}

#[test]
fn a_unix_socket_can_be_the_admin_listener() {
    use std::io::Read;
    let origin = Origin::ok();
    let gate = Gateway::start(
        &config(&origin).replace("admin: { address: \"127.0.0.1:0\" }", "admin: { address: \"unix:admin.sock\" }"),
    );
    let mut stream = std::os::unix::net::UnixStream::connect(gate.path("admin.sock")).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn a_draining_gate_says_so_and_stops_accepting() {
    let origin = Origin::start_raw(|_, mut stream, _| {
        use std::io::Read;
        let _ = stream.read(&mut [0; 4096]);
        // Holds the request, and so the gate, until the gate hangs up.
        let _ = stream.read(&mut [0; 4096]);
    });
    let mut gate =
        Gateway::start(&config_with(&origin, "  - { path: /, upstream: app }\n", "shutdown: { grace: 3s }\n"));
    let mut held = Client::connect(gate.address(0));
    held.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
    eventually("the request is under way", || (origin.connections() == 1).then_some(()));
    gate.signal("TERM");
    eventually("not ready", || {
        let response = get(gate.admin(), "/readyz", &[]);
        (response.status == 503 && response.text() == "not ready: draining\n").then_some(())
    });
    assert_eq!(get(gate.admin(), "/healthz", &[]).status, 200);
    // A new client is refused, not left waiting.
    eventually("refused", || std::net::TcpStream::connect(gate.address(0)).is_err().then_some(()));
    assert_eq!(gate.wait().code(), Some(0), "the grace is over");
}

/// Ends a process when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Fails, with the name of the package, where a program of the system is missing: a check that was not made is no check.
fn needs(program: &str, package: &str) {
    assert!(Path::new(program).exists(), "{program} is missing: it comes with Debian's package {package}");
}

#[test]
fn prometheus_scrapes_the_gate_and_promtool_has_nothing_to_say() {
    needs("/usr/bin/prometheus", "prometheus");
    needs("/usr/bin/promtool", "prometheus");
    let origin = Origin::ok();
    let keys = KEYS.replace("    roles: [client, miner]\n", "    expires: 2999-01-01T00:00:00Z\n    roles: [client]\n");
    let gate = Gateway::start_with(&config(&origin), &keys, &[]);
    for key in [ALICE, ALICE, "wrong"] {
        let _ = get(gate.address(0), "/", &[("X-Api-Key", key)]);
    }
    let mut promtool = Command::new("/usr/bin/promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(gate.metrics().as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    assert!(said.status.success(), "{said:?}");
    assert_eq!((said.stdout.len(), said.stderr.len()), (0, 0), "{said:?}");

    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = gate.path("prometheus.yml");
    let text = format!(
        "global: {{ scrape_interval: 500ms, scrape_timeout: 500ms }}\n\
         scrape_configs:\n  - job_name: keygate\n    static_configs: [{{ targets: [\"{}\"] }}]\n",
        gate.admin()
    );
    write_private(&file, &text);
    let log = fs::File::create(gate.path("prometheus.log")).unwrap();
    let process = Command::new("/usr/bin/prometheus")
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", gate.path("tsdb").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let _prometheus = Running(process);
    let address = format!("127.0.0.1:{port}");
    let query = |query: &str| -> Option<serde_json::Value> {
        std::net::TcpStream::connect(&address).ok()?;
        let response = get(&address, &format!("/api/v1/query?query={query}"), &[]);
        (response.status == 200).then(|| response.json()["data"]["result"].clone())
    };
    let found = eventually("Prometheus knows the requests", || {
        let found = query("keygate_requests_total%7Bcode=%22200%22%7D")?;
        (found.as_array()?.len() == 1).then_some(found)
    });
    assert_eq!(found[0]["metric"]["route"], "/");
    assert_eq!(found[0]["metric"]["method"], "GET");
    assert_eq!(found[0]["value"][1], "2");
    let up = query("up%7Bjob=%22keygate%22%7D").unwrap();
    assert_eq!(up[0]["value"][1], "1");
    let expiry = query("keygate_key_expiry_timestamp_seconds").unwrap();
    assert_eq!(expiry[0]["metric"]["user"], "alice");
}
