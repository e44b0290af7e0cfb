//! The configuration contract, served by the real binary: as it is written, then with one setting after the other turned, and
//! each turn seen in a byte, a close or a metric (decision 36). Only addresses are changed, to loopback and ports of the system.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use keygate::yaml::{self, Node, Value};
use sha2::{Digest, Sha256};

use crate::support::client::{Client, Response, get, request};
use crate::support::gateway::Gateway;
use crate::support::origin::{Answer, Origin};
use crate::support::pki::{self, Authority, TlsOrigin};
use crate::support::{ALICE, BOB, eventually};

const CONFIG: &str = include_str!("../cases/contract/keygate.yaml");
const KEYS: &str = include_str!("../cases/contract/keys.yaml");

/// A key with every role and scope that the contract's routes ask for, and no limits of its own.
const CAROL: &str = "carol-example-key-0c0ffee0";
/// The upstream's own secret.
const SECRET: &str = "the-coordinators-own-secret";

/// What stands behind the contract's gate.
struct World {
    authority: Authority,
    coordinator: Origin,
    workers: [TlsOrigin; 2],
    hold: Arc<AtomicBool>,
}

impl World {
    fn new() -> Self {
        let authority = Authority::new();
        let hold = Arc::new(AtomicBool::new(true));
        let held = hold.clone();
        let coordinator = Origin::start(move |seen| {
            while seen.target == "/v1/slow" && held.load(Ordering::SeqCst) {
                thread::park_timeout(Duration::from_millis(5));
            }
            match seen.target.as_str() {
                "/v1/stall" => Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
                _ => Answer::ok("ok"),
            }
        });
        let workers = [0; 2].map(|_| authority.origin(&["worker.lan"], true));
        Self { authority, coordinator, workers, hold }
    }

    /// The contract with its addresses changed.
    fn config(&self) -> String {
        let mut text = CONFIG.to_owned();
        for (from, to) in [
            ("0.0.0.0:8443", "127.0.0.1:0"),
            ("127.0.0.1:9100", "127.0.0.1:0"),
            ("127.0.0.1:9180", "127.0.0.1:0"),
            ("127.0.0.1:8000", &self.coordinator.address()),
            ("10.0.0.5:9101", self.workers[0].address()),
            ("10.0.0.6:9101", self.workers[1].address()),
        ] {
            assert_eq!(text.matches(from).count(), 1, "{from}");
            text = text.replace(from, to);
        }
        text
    }

    /// A gate on the contract with these edits, each of a text that stands in it once.
    fn gate(&self, edits: &[(&str, &str)]) -> Gateway {
        let mut text = self.config();
        for (from, to) in edits {
            assert_eq!(text.matches(from).count(), 1, "{from:?} is not in the contract once");
            text = text.replace(from, to);
        }
        let dir = tempfile::tempdir().unwrap();
        let certs = dir.path().join("certs");
        fs::create_dir(&certs).unwrap();
        self.authority.issue_to(&certs, "gate", &["gate.test"]);
        fs::copy(certs.join("gate.pem"), certs.join("fullchain.pem")).unwrap();
        fs::copy(certs.join("gate.key"), certs.join("privkey.pem")).unwrap();
        fs::write(certs.join("worker-ca.pem"), &self.authority.pem).unwrap();
        Gateway::start_in(dir, &text, &keys(), &[("COORDINATOR_ADMIN_KEY", SECRET)])
    }
}

/// The contract's keys, and carol's.
fn keys() -> String {
    let hash: String = Sha256::digest(CAROL).iter().map(|byte| format!("{byte:02x}")).collect();
    let carol = format!(
        "  - {{ id: 0c0ffee0, user: carol, hash: {hash}, roles: [client, admin], scopes: [\"jobs:write\"] }}\n...\n"
    );
    KEYS.replace("...\n", &carol)
}

fn ask(gate: &Gateway, target: &str, key: &str) -> Response {
    get(gate.address(1), target, &[("X-Api-Key", key)])
}

/// One request to the route of `worker.lan`.
fn ask_worker(gate: &Gateway, key: &str) -> Response {
    let mut client = Client::connect(gate.address(1));
    client.send(format!("GET /x HTTP/1.1\r\nHost: worker.lan\r\nX-Api-Key: {key}\r\n\r\n"));
    client.read()
}

#[test]
fn the_contract_is_served_as_it_is_written() {
    let world = World::new();
    let gate = world.gate(&[]);
    // Over TLS with its certificate, and in plain.
    let mut tls = pki::connect(gate.address(0), "gate.test", &world.authority.http1()).unwrap();
    tls.send(format!("GET /v1/jobs HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {ALICE}\r\n\r\n"));
    assert_eq!(tls.read().status, 200);
    let seen = world.coordinator.last();
    let identity =
        ["x-auth-user", "x-miner-id", "x-auth-key-id", "x-auth-roles", "x-auth-scopes"].map(|name| seen.one(name));
    let want = ["alice", "alice", "48e8f859", "client", "jobs:write read:metadata"].map(Some);
    assert_eq!((identity, seen.one("x-api-key"), seen.one("host")), (want, None, Some("gate.test")));
    // The public path alone.
    assert_eq!(get(gate.address(1), "/healthz", &[]).status, 200);
    assert_eq!((get(gate.address(1), "/healthz/", &[]).status, ask(&gate, "/healthz/", BOB).status), (401, 404));
    // Admins, by these methods, with the upstream's own secret.
    assert_eq!((ask(&gate, "/v1/admin/x", ALICE).status, ask(&gate, "/v1/admin/x", CAROL).status), (403, 200));
    assert_eq!(world.coordinator.last().one("x-api-key"), Some(SECRET));
    assert_eq!(request(gate.address(1), "PUT", "/v1/admin/x", &[("X-Api-Key", CAROL)], b"").status, 405);
    // Clients with the scope; a preflight without a key.
    assert_eq!((ask(&gate, "/v1/jobs", BOB).status, ask(&gate, "/v1/jobs", CAROL).status), (403, 200));
    let preflight = [("Origin", "https://page.test"), ("Access-Control-Request-Method", "POST")];
    assert_eq!(request(gate.address(1), "OPTIONS", "/v1/jobs", &preflight, b"").status, 200);
    // Another host, over TLS with our certificate.
    for _ in 0..2 {
        assert_eq!(ask_worker(&gate, BOB).text(), "tls");
    }
    assert!(world.workers.iter().all(|worker| worker.seen() == ["name worker.lan, client certificate true"]));
    eventually("the first health check is done", || (get(gate.admin(), "/readyz", &[]).status == 200).then_some(()));
    assert!(!gate.log().contains(SECRET));
}

/// A request that is let in by the contract and not once its source is turned.
#[test]
fn each_credential_source_is_read_where_the_contract_says() {
    let world = World::new();
    let base = world.gate(&[]);
    let bearer = format!("Bearer {ALICE}");
    // "u:" and alice's key in base64.
    let basic = "Basic dTphbGljZS1leGFtcGxlLWtleS00OGU4Zjg1OQ==";
    let (ours, openai) = (format!("keygate.key.{ALICE}, chat"), format!("openai-insecure-api-key.{ALICE}, chat"));
    let cookie = format!("keygate_session={ALICE}");
    let (query, token) = (format!("/v1/a?api_key={ALICE}"), format!("/v1/a?token={ALICE}"));
    let rows: [(&str, &str, &str, (&str, &str)); 10] = [
        ("- header: X-Api-Key", "- header: X-Other", "/v1/a", ("X-Api-Key", ALICE)),
        ("- header: api-key", "- header: X-Other", "/v1/a", ("api-key", ALICE)),
        ("- header: Authorization", "- header: X-Other", "/v1/a", ("Authorization", &bearer)),
        ("schemes: [Bearer, Apikey", "schemes: [Apikey", "/v1/a", ("Authorization", &bearer)),
        ("- query: api_key", "- query: other", &query, ("X-Nothing", "-")),
        ("- query: token", "- query: other", &token, ("X-Nothing", "-")),
        ("\"keygate.key.\"", "\"other.key.\"", "/v1/a", ("Sec-WebSocket-Protocol", &ours)),
        ("\"openai-insecure-api-key.\"", "\"other.\"", "/v1/a", ("Sec-WebSocket-Protocol", &openai)),
        ("  - basic: password  ", "  - header: X-Other #", "/v1/a", ("Authorization", basic)),
        ("- cookie: keygate_session", "- cookie: other", "/v1/a", ("Cookie", &cookie)),
    ];
    for (from, to, target, field) in rows {
        let ask = |gate: &Gateway| {
            let mut fields = vec![field];
            if field.0.starts_with("Sec-") {
                fields.extend([("Connection", "Upgrade"), ("Upgrade", "websocket")]);
                fields.extend([("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")]);
            }
            get(gate.address(1), target, &fields).status
        };
        let turned = world.gate(&[(from, to)]);
        assert_eq!((ask(&base), ask(&turned)), (200, 401), "{from}");
    }
    let page = [("Accept", "text/html"), ("Sec-Fetch-Mode", "navigate")];
    let turned = world.gate(&[("browser_login: true", "browser_login: false")]);
    let login = |gate: &Gateway| get(gate.address(1), &query, &page).status;
    assert_eq!((login(&base), login(&turned)), (303, 200));
}

#[test]
fn identity_goes_out_under_the_configured_names() {
    let world = World::new();
    let edits = [
        ("user: [X-Auth-User, X-Miner-ID]", "user: X-Who"),
        ("key_id: X-Auth-Key-Id", "key_id: X-Which"),
        ("roles: X-Auth-Roles", "roles: X-What"),
        ("scopes: X-Auth-Scopes", "scopes: X-Whither"),
    ];
    let gate = world.gate(&edits);
    assert_eq!(ask(&gate, "/v1/a", ALICE).status, 200);
    let seen = world.coordinator.last();
    let names = ["x-who", "x-which", "x-what", "x-whither", "x-auth-user", "x-miner-id"].map(|name| seen.one(name));
    let want = [Some("alice"), Some("48e8f859"), Some("client"), Some("jobs:write read:metadata"), None, None];
    assert_eq!(names, want);
    // Whose forwarded headers are believed; and a name that upstreams of oauth2-proxy read.
    for (proxies, want) in [("[]", "127.0.0.1"), ("[127.0.0.0/8]", "203.0.113.9")] {
        let trusted = format!("trusted_proxies: {proxies}");
        let gate = world.gate(&[("trusted_proxies: []", &trusted), ("[X-Auth-User, X-Miner-ID]", "X-Forwarded-User")]);
        let fields = [("X-Api-Key", CAROL), ("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-User", "root")];
        assert_eq!(get(gate.address(1), "/v1/a", &fields).status, 200);
        let seen = world.coordinator.last();
        assert_eq!(
            (seen.one("x-forwarded-for"), seen.one("x-forwarded-user")),
            (Some(want), Some("carol")),
            "{proxies}"
        );
    }
}

#[test]
fn the_default_limits_are_the_configured_ones() {
    let world = World::new();
    let policy = |edits: &[(&str, &str)]| ask_worker(&world.gate(edits), BOB).all("ratelimit-policy").join(", ");
    let base = policy(&[]);
    assert!(
        base.contains("q=200") && base.contains("w=2") && base.contains("q=1000000") && base.contains("w=86400"),
        "{base}"
    );
    for (from, to, says) in [
        ("requests: 100\n", "requests: 50\n", "w=4"),
        ("    per: 1s\n    burst", "    per: 5s\n    burst", "w=10"),
        ("burst: 200", "burst: 300", "q=300"),
        ("requests: 1000000", "requests: 77", "q=77"),
        ("per: 1d", "per: 1h", "w=3600"),
    ] {
        let turned = policy(&[(from, to)]);
        assert!(turned.contains(says) && !base.contains(says), "{from} -> {to}: {base} -> {turned}");
    }
    let gate = world.gate(&[("requests: 1000000", "requests: 2")]);
    assert_eq!([0; 3].map(|_| ask_worker(&gate, BOB).status), [200, 200, 429]);
    // In flight.
    for (edits, want) in [(&[][..], 200), (&[("concurrent: 50", "concurrent: 1")][..], 429)] {
        let gate = world.gate(edits);
        world.hold.store(true, Ordering::SeqCst);
        let before = world.coordinator.connections();
        let mut held = Client::connect(gate.address(1));
        held.send(format!("GET /v1/slow HTTP/1.1\r\nHost: a\r\nX-Api-Key: {CAROL}\r\n\r\n"));
        eventually("one is in flight", || {
            (gate.metric("keygate_requests_in_flight{route=\"/v1/\"}") == 1.0).then_some(())
        });
        assert_eq!(ask(&gate, "/v1/a", CAROL).status, want);
        world.hold.store(false, Ordering::SeqCst);
        assert_eq!(held.read().status, 200);
        assert!(world.coordinator.connections() > before);
    }
}

#[test]
fn bad_keys_are_throttled_as_configured() {
    let world = World::new();
    let statuses = |gate: &Gateway| [0; 3].map(|_| ask(gate, "/v1/a", "wrong"));
    let base = statuses(&world.gate(&[])).map(|response| response.status);
    let few = ("attempts: 20", "attempts: 2");
    let [_, _, third] = statuses(&world.gate(&[few]));
    assert_eq!((base, third.status), ([401; 3], 429));
    let [_, _, longer] = statuses(&world.gate(&[few, ("    per: 1m", "    per: 1h")]));
    let wait = |response: &Response| response.one("retry-after").unwrap().parse::<u32>().unwrap();
    assert!(wait(&third) <= 60 && wait(&longer) > 60, "{} {}", wait(&third), wait(&longer));
}

#[test]
fn connections_are_bounded_as_configured() {
    let world = World::new();
    let ping = |client: &mut Client| client.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").read_for("GET");
    // In all: the second waits for the first to go.
    let gate = world.gate(&[("max: 10000", "max: 1")]);
    let mut first = Client::connect(gate.address(1));
    assert_eq!(ping(&mut first).unwrap().status, 200);
    let mut second = Client::connect(gate.address(1));
    second.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    second.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(second.stream.peek(&mut [0; 1]).is_err(), "nobody serves it yet");
    drop(first);
    second.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(second.read().status, 200);
    // Of one address: the second is closed and counted.
    let gate = world.gate(&[("per_address: 1000", "per_address: 1")]);
    let mut first = Client::connect(gate.address(1));
    assert_eq!(ping(&mut first).unwrap().status, 200);
    assert!(ping(&mut Client::connect(gate.address(1))).is_none());
    gate.expect_metric(r#"keygate_connections_closed_total{reason="per_address"}"#, 1.0);
    assert_eq!(ping(&mut first).unwrap().status, 200);
}

/// What the gate accepts of a request: the same bytes under the contract and with one bound turned.
/// Edits of the configuration, a request, and the status it gets.
type Row<'a> = (&'a [(&'a str, &'a str)], String, u16);

#[test]
fn requests_are_bounded_as_configured() {
    let world = World::new();
    let base = world.gate(&[]);
    let key = format!("X-Api-Key: {ALICE}\r\n");
    let head = |target: &str, more: &str| format!("POST {target} HTTP/1.1\r\nHost: a\r\n{key}{more}\r\n");
    let fields: String = (0..40).map(|number| format!("X-F{number}: {}\r\n", "y".repeat(40))).collect();
    let long = format!("/v1/{}", "a".repeat(400));
    // A target may not be longer than a head, so its bound goes down too.
    let small_head =
        [("max_header_bytes: 32KiB", "max_header_bytes: 1KiB"), ("max_uri_bytes: 8KiB", "max_uri_bytes: 512B")];
    let rows: [Row<'_>; 4] = [
        (&small_head, head("/v1/a", &fields), 431),
        (&[("max_headers: 100", "max_headers: 20")], head("/v1/a", &fields), 431),
        (&[("max_uri_bytes: 8KiB", "max_uri_bytes: 300B")], head(&long, ""), 414),
        (
            &[("max_body_bytes: 1GiB", "max_body_bytes: 10B")],
            head("/v1/a", "Content-Length: 11\r\n") + "01234567890",
            413,
        ),
    ];
    for (edits, bytes, want) in rows {
        let ask = |gate: &Gateway| Client::connect(gate.address(1)).send(&bytes).read().status;
        assert_eq!((ask(&base), ask(&world.gate(edits))), (200, want), "{edits:?}");
    }
}

#[test]
fn requests_are_timed_as_configured() {
    let world = World::new();
    let key = format!("X-Api-Key: {ALICE}\r\n");
    // What is sent, and what comes of it, after how long.
    let timed = |edits: &[(&str, &str)], bytes: &str| {
        let gate = world.gate(edits);
        let mut stream = TcpStream::connect(gate.address(1)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        stream.write_all(bytes.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let closed = stream.read_to_end(&mut answer).is_ok();
        (String::from_utf8_lossy(&answer).chars().take(12).collect::<String>(), closed)
    };
    let unfinished = "GET /v1/a HTTP/1.1\r\nHost: a\r\n";
    let stalled = format!("POST /v1/a HTTP/1.1\r\nHost: a\r\n{key}Content-Length: 5\r\n\r\nab");
    let whole = format!("GET /v1/a HTTP/1.1\r\nHost: a\r\n{key}\r\n");
    let half = format!("GET /v1/stall HTTP/1.1\r\nHost: a\r\n{key}\r\n");
    let (open, answered) = ((String::new(), false), ("HTTP/1.1 200".to_owned(), false));
    assert_eq!(timed(&[], unfinished), open);
    assert_eq!(timed(&[("header_timeout: 10s", "header_timeout: 300ms")], unfinished), ("HTTP/1.1 408".into(), true));
    assert_eq!(timed(&[], &stalled), open);
    assert_eq!(
        timed(&[("body_idle_timeout: 60s", "body_idle_timeout: 300ms")], &stalled),
        ("HTTP/1.1 408".into(), true)
    );
    assert_eq!(timed(&[], &whole), answered);
    assert_eq!(timed(&[("keepalive_timeout: 75s", "keepalive_timeout: 300ms")], &whole), ("HTTP/1.1 200".into(), true));
    // The upstream's side: half an answer, and then none.
    assert_eq!(timed(&[], &half), answered);
    assert_eq!(timed(&[("    idle_timeout: 60s", "    idle_timeout: 300ms")], &half), ("HTTP/1.1 200".into(), true));
}

/// Sends a byte of a long body every 100 ms for twelve seconds; gives the start of an answer and when it came.
fn trickle(gate: &Gateway) -> Option<(Vec<u8>, Duration)> {
    let mut stream = TcpStream::connect(gate.address(1)).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let head = format!("POST /v1/a HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\nContent-Length: 100000\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let began = Instant::now();
    let mut start = [0; 12];
    while began.elapsed() < Duration::from_secs(13) {
        if stream.read_exact(&mut start).is_ok() {
            return Some((start.to_vec(), began.elapsed()));
        }
        let _ = stream.write_all(b"x");
    }
    None
}

/// A body that trickles is let be for ten seconds, then measured: ten bytes a second are too few, or more than enough.
#[test]
fn a_slow_body_is_ended_by_its_rate() {
    let world = World::new();
    let (base, turned) = (world.gate(&[]), world.gate(&[("body_min_rate: 256B", "body_min_rate: 1B")]));
    thread::scope(|scope| {
        let patient = scope.spawn(|| trickle(&turned));
        let (start, after) = trickle(&base).expect("ended by the contract's rate");
        assert_eq!(start, b"HTTP/1.1 408");
        assert!(after > Duration::from_secs(9), "{after:?}");
        assert_eq!(patient.join().unwrap(), None);
    });
}

/// One request, its status under the contract and with one setting of a route turned.
#[test]
fn routes_are_matched_and_guarded_as_configured() {
    let world = World::new();
    let base = world.gate(&[]);
    let preflight = [("Origin", "https://page.test"), ("Access-Control-Request-Method", "POST")];
    let rows: [(&str, &str, &str, &str, &str, u16, u16); 9] = [
        ("exact: /healthz", "exact: /other", "GET", "/healthz", "", 200, 401),
        ("access: public", "access: key", "GET", "/healthz", "", 200, 401),
        ("path: /v1/admin/", "path: /v1/boss/", "GET", "/v1/admin/x", ALICE, 403, 200),
        ("methods: [GET, POST, DELETE]", "methods: [GET, PUT]", "PUT", "/v1/admin/x", CAROL, 405, 200),
        ("roles: [admin]", "roles: [client]", "GET", "/v1/admin/x", ALICE, 403, 200),
        ("roles: [client, miner]", "roles: [miner]", "GET", "/v1/x", CAROL, 200, 403),
        ("scopes: [\"jobs:write\"] ", "scopes: [\"jobs:read\"] ", "GET", "/v1/x", CAROL, 200, 403),
        ("cors_preflight: true", "cors_preflight: false", "OPTIONS", "/v1/x", "", 200, 401),
        ("host: worker.lan", "host: other.lan", "GET", "worker.lan", BOB, 200, 404),
    ];
    for (from, to, method, target, key, before, after) in rows {
        let turned = world.gate(&[(from, to)]);
        let ask = |gate: &Gateway| {
            if target == "worker.lan" {
                return ask_worker(gate, key).status;
            }
            let mut fields = if key.is_empty() { vec![] } else { vec![("X-Api-Key", key)] };
            fields.extend(preflight.iter().filter(|_| method == "OPTIONS"));
            request(gate.address(1), method, target, &fields, b"").status
        };
        assert_eq!((ask(&base), ask(&turned)), (before, after), "{from}");
    }
    let turned = world.gate(&[("limits: { requests: 10, per: 1s }", "limits: { requests: 1, per: 1h }")]);
    assert_eq!([0; 2].map(|_| ask(&turned, "/v1/x", CAROL).status), [200, 429]);
    let turned = world.gate(&[("    upstream: coordinator\n  - host", "    upstream: worker\n  - host")]);
    assert_eq!((ask(&base, "/v1/x", CAROL).text(), ask(&turned, "/v1/x", CAROL).text()), ("ok".into(), "tls".into()));
    let turned = world.gate(&[("{ X-Api-Key: \"${env:COORDINATOR_ADMIN_KEY}\" }", "{ X-Other: plain }")]);
    assert_eq!(ask(&turned, "/v1/admin/x", CAROL).status, 200);
    assert_eq!(
        (world.coordinator.last().one("x-api-key"), world.coordinator.last().one("x-other")),
        (None, Some("plain"))
    );
    let route = "path: /\n    strip_prefix: \"\"\n    upstream: worker";
    let turned = world.gate(&[(route, "path: /x\n    strip_prefix: /x\n    upstream: coordinator")]);
    assert_eq!(ask_worker(&turned, BOB).status, 200);
    assert_eq!(world.coordinator.last().target, "/");
}

#[test]
fn the_rest_of_the_contract_turns_too() {
    let world = World::new();
    let base = world.gate(&[]);
    // Pingora tells of each worker's start, one level below our own lines.
    let told = ("level: info", "level: debug");
    let workers = |gate: &Gateway| gate.log().matches("Starting service: worker").count();
    let cores = thread::available_parallelism().unwrap().get();
    let counts = [world.gate(&[told]), world.gate(&[told, ("threads: auto", "threads: 3")])].map(|gate| workers(&gate));
    assert_eq!(counts, [cores, 3]);
    let kept = |gate: &Gateway| ["state.db.session", "other.db.session"].map(|file| gate.path(file).exists());
    assert_eq!(kept(&base), [true, false]);
    let turned = world.gate(&[("path: state.db", "path: other.db")]);
    assert_eq!(kept(&turned), [false, true]);
    let turned = world.gate(&[("host: keep", "host: app.internal")]);
    assert_eq!(ask(&turned, "/v1/x", ALICE).status, 200);
    assert_eq!(world.coordinator.last().one("host"), Some("app.internal"));
    // What is checked, and how often.
    let checks = |path: &str| world.coordinator.requests().iter().filter(|seen| seen.target == path).count();
    assert_eq!(checks("/alive"), 0);
    let turned = world.gate(&[("path: /healthz, interval: 5s", "path: /alive, interval: 50ms")]);
    eventually("many checks", || (checks("/alive") > 5).then_some(()));
    drop(turned);
    let text = world.gate(&[("    response_timeout: 60s", "    response_timeout: 300ms")]);
    world.hold.store(true, Ordering::SeqCst);
    assert_eq!(ask(&text, "/v1/slow", ALICE).status, 504);
    world.hold.store(false, Ordering::SeqCst);
}

/// Which test turns which setting of the contract and sees it. A row for each; the test below looks after that.
const TURNED_BY: &[(&str, &str)] = &[
    ("listen[].address", "configreload::listeners_come_and_go_while_others_serve"),
    ("listen[].tls.certificates[].cert", "tls::the_certificate_is_chosen_by_name_and_the_first_is_the_default"),
    ("listen[].tls.certificates[].key", "tls::a_new_certificate_is_in_force_at_once_and_a_bad_pair_never"),
    ("listen[].tls.min_version", "tls::min_version_and_http2_off_hold"),
    ("listen[].tls.http2", "tls::min_version_and_http2_off_hold"),
    ("admin.address", "admin::without_admin_there_is_no_listener_for_it"),
    ("keys.file", "keyreload::a_kubernetes_data_swap_is_noticed"),
    ("state.path", "state::a_quota_outlives_sigterm_and_sigkill"),
    ("credentials[].header", "contract::each_credential_source_is_read_where_the_contract_says"),
    ("credentials[].schemes", "contract::each_credential_source_is_read_where_the_contract_says"),
    ("credentials[].query", "contract::each_credential_source_is_read_where_the_contract_says"),
    ("credentials[].browser_login", "contract::each_credential_source_is_read_where_the_contract_says"),
    ("credentials[].websocket_protocol", "contract::each_credential_source_is_read_where_the_contract_says"),
    ("credentials[].basic", "contract::each_credential_source_is_read_where_the_contract_says"),
    ("credentials[].cookie", "contract::each_credential_source_is_read_where_the_contract_says"),
    ("identity.headers.user", "contract::identity_goes_out_under_the_configured_names"),
    ("identity.headers.key_id", "contract::identity_goes_out_under_the_configured_names"),
    ("identity.headers.roles", "contract::identity_goes_out_under_the_configured_names"),
    ("identity.headers.scopes", "contract::identity_goes_out_under_the_configured_names"),
    ("identity.trusted_proxies", "contract::identity_goes_out_under_the_configured_names"),
    ("limits.default.requests", "contract::the_default_limits_are_the_configured_ones"),
    ("limits.default.per", "contract::the_default_limits_are_the_configured_ones"),
    ("limits.default.burst", "contract::the_default_limits_are_the_configured_ones"),
    ("limits.default.concurrent", "contract::the_default_limits_are_the_configured_ones"),
    ("limits.default.websockets", "websocket::a_key_has_so_many_sockets_and_dead_peers_give_theirs_back"),
    ("limits.default.quota.requests", "contract::the_default_limits_are_the_configured_ones"),
    ("limits.default.quota.per", "contract::the_default_limits_are_the_configured_ones"),
    ("limits.failed_auth.attempts", "contract::bad_keys_are_throttled_as_configured"),
    ("limits.failed_auth.per", "contract::bad_keys_are_throttled_as_configured"),
    ("connections.max", "contract::connections_are_bounded_as_configured"),
    ("connections.per_address", "contract::connections_are_bounded_as_configured"),
    ("connections.handshake_timeout", "tls::a_silent_or_strange_client_is_let_go_and_counted"),
    ("shutdown.grace", "admin::a_draining_gate_says_so_and_stops_accepting"),
    ("threads", "contract::the_rest_of_the_contract_turns_too"),
    ("request.max_header_bytes", "contract::requests_are_bounded_as_configured"),
    ("request.max_headers", "contract::requests_are_bounded_as_configured"),
    ("request.max_uri_bytes", "contract::requests_are_bounded_as_configured"),
    ("request.max_body_bytes", "contract::requests_are_bounded_as_configured"),
    ("request.header_timeout", "contract::requests_are_timed_as_configured"),
    ("request.body_idle_timeout", "contract::requests_are_timed_as_configured"),
    ("request.body_min_rate", "contract::a_slow_body_is_ended_by_its_rate"),
    ("request.keepalive_timeout", "contract::requests_are_timed_as_configured"),
    ("upstreams.*.servers", "upstreams::servers_take_turns_or_chances"),
    ("upstreams.*.host", "contract::the_rest_of_the_contract_turns_too"),
    ("upstreams.*.connect_timeout", "upstreams::a_server_that_does_not_answer_is_504_in_the_time_configured"),
    ("upstreams.*.response_timeout", "contract::the_rest_of_the_contract_turns_too"),
    ("upstreams.*.idle_timeout", "contract::requests_are_timed_as_configured"),
    ("upstreams.*.websocket_idle_timeout", "websocket::an_idle_tunnel_is_closed_with_1001"),
    ("upstreams.*.health_check.path", "contract::the_rest_of_the_contract_turns_too"),
    ("upstreams.*.health_check.interval", "contract::the_rest_of_the_contract_turns_too"),
    ("upstreams.*.health_check.unhealthy_after", "upstreams::a_server_changes_sides_after_so_many_checks"),
    ("upstreams.*.health_check.healthy_after", "upstreams::a_server_changes_sides_after_so_many_checks"),
    ("upstreams.*.balance", "upstreams::servers_take_turns_or_chances"),
    ("upstreams.*.tls.server_name", "upstreams::tls_verifies_name_and_authority_and_shows_our_certificate"),
    ("upstreams.*.tls.ca", "upstreams::tls_verifies_name_and_authority_and_shows_our_certificate"),
    ("upstreams.*.tls.cert", "upstreams::tls_verifies_name_and_authority_and_shows_our_certificate"),
    ("upstreams.*.tls.key", "upstreams::tls_verifies_name_and_authority_and_shows_our_certificate"),
    ("routes[].exact", "contract::routes_are_matched_and_guarded_as_configured"),
    ("routes[].access", "contract::routes_are_matched_and_guarded_as_configured"),
    ("routes[].upstream", "contract::routes_are_matched_and_guarded_as_configured"),
    ("routes[].path", "contract::routes_are_matched_and_guarded_as_configured"),
    ("routes[].methods", "contract::routes_are_matched_and_guarded_as_configured"),
    ("routes[].roles", "contract::routes_are_matched_and_guarded_as_configured"),
    ("routes[].set_headers", "contract::routes_are_matched_and_guarded_as_configured"),
    ("routes[].cors_preflight", "contract::routes_are_matched_and_guarded_as_configured"),
    ("routes[].scopes", "contract::routes_are_matched_and_guarded_as_configured"),
    ("routes[].limits.requests", "contract::routes_are_matched_and_guarded_as_configured"),
    ("routes[].limits.per", "contract::routes_are_matched_and_guarded_as_configured"),
    ("routes[].host", "contract::routes_are_matched_and_guarded_as_configured"),
    ("routes[].strip_prefix", "contract::routes_are_matched_and_guarded_as_configured"),
    ("log.level", "configreload::the_log_changes_live"),
    ("log.format", "commands::the_log_is_for_machines_or_people"),
    ("log.access", "configreload::the_log_changes_live"),
];

/// The settings with a value of their own that stand in a tree.
fn settings(node: &Node, path: &str, found: &mut BTreeSet<String>) {
    match &node.value {
        Value::Mapping(entries) if path != "routes[].set_headers" => {
            for entry in entries {
                let name = if path == "upstreams" { "*" } else { &entry.key };
                settings(
                    &entry.value,
                    &if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") },
                    found,
                );
            }
        }
        Value::Sequence(items) if items.iter().any(|item| matches!(item.value, Value::Mapping(_))) => {
            items.iter().for_each(|item| settings(item, &format!("{path}[]"), found));
        }
        _ => drop(found.insert(path.to_owned())),
    }
}

#[test]
fn every_setting_of_the_contract_has_a_test_that_turns_it() {
    let mut written = BTreeSet::new();
    settings(&yaml::parse(CONFIG).unwrap(), "", &mut written);
    let turned: BTreeMap<&str, &str> = TURNED_BY.iter().copied().collect();
    assert_eq!(turned.len(), TURNED_BY.len(), "a setting stands in the table twice");
    let untested: Vec<_> = written.iter().filter(|setting| !turned.contains_key(setting.as_str())).collect();
    assert!(untested.is_empty(), "no test turns {untested:?}");
    let unknown: Vec<_> = turned.keys().filter(|setting| !written.contains(**setting)).collect();
    assert!(unknown.is_empty(), "not in the contract: {unknown:?}");
    for (setting, test) in turned {
        let (module, name) = test.split_once("::").unwrap();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway").join(format!("{module}.rs"));
        let source = fs::read_to_string(&file).unwrap_or_default();
        assert!(source.contains(&format!("#[test]\nfn {name}()")), "{setting}: there is no test {test}");
    }
}
