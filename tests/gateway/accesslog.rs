//! What operators see: every field of the access line and every metric of the request path, told by requests through the
//! binary and true of them. Metrics of TLS, tunnels and upstream health are tested with what they count.

use crate::support::client::{Client, get, request};
use crate::support::gateway::Gateway;
use crate::support::origin::{Answer, Origin};
use crate::support::{ALICE, BOB, KEYS, config, config_with, entry, eventually, keys_with};

/// Every field of a line, in order.
const FIELDS: [&str; 22] = [
    "time",
    "request_id",
    "remote",
    "method",
    "host",
    "target",
    "protocol",
    "tls",
    "key_id",
    "user",
    "route",
    "status",
    "outcome",
    "reason",
    "bytes_in",
    "bytes_out",
    "duration_ms",
    "upstream_ms",
    "gate_ms",
    "server",
    "closed",
    "user_agent",
];

const ROUTES: &str = "  - { path: /, name: all, upstream: app }\n  \
                      - { path: /v1/, name: v1, upstream: app, roles: [client], limits: { requests: 2, per: 1h } }\n  \
                      - { path: /open/, name: open, upstream: app, access: public }\n  \
                      - { path: /gone/, name: gone, upstream: gone }\n";

fn gone(config: &str) -> String {
    // Port 1 on loopback: nobody listens there.
    config.replace("upstreams:\n", "upstreams:\n  gone: { servers: [\"127.0.0.1:1\"] }\n")
}

#[test]
fn every_field_is_there_and_true() {
    let origin = Origin::start(|_| Answer::ok("four"));
    let gate = Gateway::start(&gone(&config_with(&origin, ROUTES, "")));
    let mut client = Client::connect(gate.address(0));
    let sent = format!(
        "POST /v1/x?a=1&api_key={ALICE}&b=%22 HTTP/1.1\r\nHost: Gate.Test:80\r\nX-Request-Id: r-1\r\n\
         User-Agent: curl/8 \"q\"\r\nContent-Length: 3\r\n\r\nabc"
    );
    client.send(&sent);
    assert_eq!(client.read().status, 200);
    let line = gate.access_line("r-1");
    let mut names: Vec<&str> = line.as_object().expect("an object").keys().map(String::as_str).collect();
    let mut want = FIELDS;
    names.sort_unstable();
    want.sort_unstable();
    assert_eq!(names, want);
    let time: jiff::Timestamp = line["time"].as_str().expect("text").parse().expect("RFC 3339");
    assert!((jiff::Timestamp::now().as_second() - time.as_second()).abs() < 60);
    for (name, want) in [
        ("remote", serde_json::json!("127.0.0.1")),
        ("method", serde_json::json!("POST")),
        ("host", serde_json::json!("Gate.Test:80")),
        ("target", serde_json::json!("/v1/x?a=1&api_key=***&b=%22")),
        ("protocol", serde_json::json!("HTTP/1.1")),
        ("tls", serde_json::Value::Null),
        ("key_id", serde_json::json!("48e8f859")),
        ("user", serde_json::json!("alice")),
        ("route", serde_json::json!("v1")),
        ("status", serde_json::json!(200)),
        ("outcome", serde_json::json!("admitted")),
        ("reason", serde_json::Value::Null),
        ("bytes_in", serde_json::json!(sent.len())),
        ("server", serde_json::json!(origin.address())),
        ("closed", serde_json::Value::Null),
        ("user_agent", serde_json::json!("curl/8 \"q\"")),
    ] {
        assert_eq!(line[name], want, "{name}");
    }
    let number = |name: &str| line[name].as_f64().unwrap_or_else(|| panic!("{name}: {line}"));
    assert!(number("duration_ms") >= number("upstream_ms") && number("upstream_ms") > 0.0, "{line}");
    let own = number("duration_ms") - number("upstream_ms");
    assert!((number("gate_ms") - own).abs() < 0.01, "{line}");
}

#[test]
fn bytes_are_what_went_over_the_wire() {
    let origin = Origin::start(|_| Answer::ok(&"x".repeat(1000)));
    let gate = Gateway::start(&config(&origin));
    for (key, id) in [(ALICE, "r-ok"), ("wrong", "r-bad")] {
        let mut client = Client::connect(gate.address(0));
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Request-Id: {id}\r\nX-Api-Key: {key}\r\n\r\n"
        ));
        let whole = client.read_to_close();
        let line = gate.access_line(id);
        assert_eq!(line["bytes_out"], whole.len(), "{line} {}", String::from_utf8_lossy(&whole));
    }
    let seen: u64 = gate.access().iter().map(|line| line["bytes_out"].as_u64().expect("a number")).sum();
    gate.expect_metric(r#"keygate_bytes_total{direction="out"}"#, seen as f64);
    let seen: u64 = gate.access().iter().map(|line| line["bytes_in"].as_u64().expect("a number")).sum();
    gate.expect_metric(r#"keygate_bytes_total{direction="in"}"#, seen as f64);
}

#[test]
fn every_outcome_has_its_word_and_reason() {
    let origin = Origin::ok();
    let gate =
        Gateway::start(&gone(&config_with(&origin, ROUTES, "limits: { failed_auth: { attempts: 1, per: 1h } }\n")));
    for (target, key, want) in [
        ("/x", ALICE, "200 admitted null all alice"),
        ("/open/x", "", "200 admitted null open null"),
        ("/x", "", "401 unauthorized missing all null"),
        ("/x", "wrong", "401 unauthorized unknown all null"),
        ("/x", "wrong", "429 limited failed_auth all null"),
        ("/v1/x", BOB, "403 forbidden forbidden v1 bob"),
        ("/v1/x", ALICE, "200 admitted null v1 alice"),
        ("/v1/x", ALICE, "200 admitted null v1 alice"),
        ("/v1/x", ALICE, "429 limited route_rate v1 alice"),
        ("/gone/x", ALICE, "502 failed connect gone alice"),
        ("/x%2f..%2fv1/x", ALICE, "400 refused ambiguous_path null null"),
    ] {
        let response = get(gate.address(0), target, &[("X-Api-Key", key)]);
        let line = gate.access_line(response.one("x-request-id").expect("an id"));
        let word = |name: &str| line[name].as_str().unwrap_or("null").to_owned();
        let got =
            format!("{} {} {} {} {}", line["status"], word("outcome"), word("reason"), word("route"), word("user"));
        let got = if target.starts_with("/gone") { got.replace(&word("reason"), "connect") } else { got };
        assert_eq!(got, want, "{target} {key}");
    }
}

#[test]
fn the_client_cannot_write_lines_of_its_own() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    let fields = [("User-Agent", "a\"},{\"status\":200\u{9b}31m"), ("X-Api-Key", ALICE)];
    let response = get(gate.address(0), "/a%0a%1b[31m?\"x\\", &fields);
    let line = gate.access_line(response.one("x-request-id").expect("an id"));
    assert_eq!(line["user_agent"].as_str().map(|agent| agent.starts_with("a\"},{\"status\":200")), Some(true));
    assert_eq!(gate.access().len(), 1);
}

#[test]
fn requests_and_keys_are_counted_where_they_belong() {
    let origin = Origin::ok();
    let gate = Gateway::start(&gone(&config_with(&origin, ROUTES, "")));
    let ask =
        |method: &str, target: &str, key: &str| request(gate.address(0), method, target, &[("X-Api-Key", key)], b"");
    for (method, target, key) in [
        ("GET", "/x", ALICE),
        ("GET", "/x", ALICE),
        ("BREW", "/x", ALICE),
        ("GET", "/x", "wrong"),
        ("GET", "/x", ""),
        ("GET", "/open/x", ""),
        ("GET", "/v1/x", BOB),
        ("GET", "/v1/x", ALICE),
        ("GET", "/v1/x", ALICE),
        ("GET", "/v1/x", ALICE),
        ("GET", "/gone/x", BOB),
    ] {
        ask(method, target, key);
    }
    for (series, want) in [
        (r#"keygate_requests_total{code="200",method="GET",route="all"}"#, 2.0),
        (r#"keygate_requests_total{code="200",method="other",route="all"}"#, 1.0),
        (r#"keygate_requests_total{code="401",method="GET",route="all"}"#, 2.0),
        (r#"keygate_requests_total{code="200",method="GET",route="open"}"#, 1.0),
        (r#"keygate_requests_total{code="403",method="GET",route="v1"}"#, 1.0),
        (r#"keygate_requests_total{code="429",method="GET",route="v1"}"#, 1.0),
        (r#"keygate_requests_total{code="502",method="GET",route="gone"}"#, 1.0),
        (r#"keygate_auth_total{outcome="ok"}"#, 8.0),
        (r#"keygate_auth_total{outcome="unknown"}"#, 1.0),
        (r#"keygate_auth_total{outcome="missing"}"#, 1.0),
        (r#"keygate_auth_total{outcome="anonymous"}"#, 1.0),
        (r#"keygate_key_requests_total{key="48e8f859",outcome="admitted",user="alice"}"#, 5.0),
        (r#"keygate_key_requests_total{key="48e8f859",outcome="limited",user="alice"}"#, 1.0),
        (r#"keygate_key_requests_total{key="ba9af604",outcome="forbidden",user="bob"}"#, 1.0),
        (r#"keygate_key_requests_total{key="ba9af604",outcome="admitted",user="bob"}"#, 1.0),
        (r#"keygate_rate_limited_total{limit="route_rate"}"#, 1.0),
        (r#"keygate_request_duration_seconds_count{route="all"}"#, 5.0),
        (r#"keygate_request_duration_seconds_count{route="v1"}"#, 4.0),
        (r#"keygate_upstream_duration_seconds_count{upstream="app"}"#, 6.0),
        (r#"keygate_requests_in_flight{route="all"}"#, 0.0),
    ] {
        // The line of a request is written once its answer is out, which the client may see first.
        eventually(series, || (gate.metric(series) == want).then_some(()));
    }
    let page = gate.metrics();
    let sum = page.lines().find_map(|line| line.strip_prefix(r#"keygate_request_duration_seconds_sum{route="all"} "#));
    let sum: f64 = sum.expect("a sum").parse().expect("a number");
    assert!(sum > 0.0 && sum < 60.0, "{sum} seconds");
    assert!(!page.contains("BREW") && !page.contains("wrong"), "labels are closed sets");
}

#[test]
fn connections_and_unreadable_requests_are_counted_by_their_end() {
    let origin = Origin::ok();
    let more = "request: { header_timeout: 1s, keepalive_timeout: 1s }\n";
    let gate = Gateway::start(&config_with(&origin, "  - { path: /, upstream: app }\n", more));
    let key = format!("X-Api-Key: {ALICE}\r\n");
    drop(Client::connect(gate.address(0)));
    let mut closing = Client::connect(gate.address(0));
    closing.send(format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{key}\r\n"));
    assert_eq!(closing.read().status, 200);
    let mut broken = Client::connect(gate.address(0));
    broken.send("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(broken.read().status, 400);
    let mut slow = Client::connect(gate.address(0));
    slow.send("GET / HTTP/1.1\r\n");
    assert_eq!(slow.read().status, 408);
    let mut idle = Client::connect(gate.address(0));
    idle.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{key}\r\n"));
    assert_eq!(idle.read().status, 200);
    assert!(idle.is_closed());
    for reason in ["client", "answered", "malformed", "head_timeout", "keepalive_timeout"] {
        let series = format!("keygate_connections_closed_total{{reason=\"{reason}\"}}");
        eventually(&series, || (gate.metric(&series) >= 1.0).then_some(()));
    }
    let page = gate.metrics();
    let malformed = page.lines().filter(|line| line.starts_with("keygate_malformed_requests_total{")).count();
    assert_eq!(malformed, 1, "a slow head is not malformed: {page}");
}

#[test]
fn heads_that_could_not_be_read_have_an_access_line() {
    let origin = Origin::ok();
    let gate =
        Gateway::start(&config_with(&origin, "  - { path: /, upstream: app }\n", "request: { header_timeout: 1s }\n"));
    for (head, status, reason) in [
        ("GET /secret HTTP/1.1\r\nHost: a\r\nHost: b\r\nUser-Agent: secret\r\n\r\n", 400, "host_repeated"),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method_not_supported"),
        ("GET /secret HTTP/1.1\r\n", 408, "request_timeout"),
    ] {
        let mut client = Client::connect(gate.address(0));
        client.send(head);
        let response = client.read();
        assert_eq!(response.status, status);
        let line = gate.access_line(response.one("x-request-id").expect("an id"));
        let told = ["status", "outcome", "reason", "remote", "protocol"].map(|name| line[name].clone());
        assert_eq!(serde_json::json!(told), serde_json::json!([status, "refused", reason, "127.0.0.1", "HTTP/1.1"]));
        assert!(line["target"].is_null() && line["host"].is_null() && line["method"] == "", "{line}");
        assert!(line["bytes_out"].as_u64() > Some(100) && !line.to_string().contains("secret"), "{line}");
    }
    let total = || {
        let page = gate.metrics();
        let requests = page.lines().filter(|line| line.starts_with("keygate_requests_total{"));
        requests.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum::<f64>()
    };
    assert_eq!((gate.access().len(), total()), (3, 3.0), "as many lines as requests");
}

#[test]
fn the_key_file_is_seen_in_the_metrics() {
    let origin = Origin::ok();
    let keys = keys_with(&[
        entry("0ff00000", "carol", "carol-key", "    disabled: true\n"),
        entry("01d00000", "dave", "dave-key", "    expires: 2020-01-01T00:00:00Z\n"),
        entry("fa500000", "erin", "erin-key", "    expires: 2100-01-01T00:00:00Z\n"),
    ]);
    let gate = Gateway::start_with(&config(&origin), &keys, &[]);
    for (series, want) in [
        (r#"keygate_keys{state="active"}"#, 3.0),
        (r#"keygate_keys{state="disabled"}"#, 1.0),
        (r#"keygate_keys{state="expired"}"#, 1.0),
        (r#"keygate_key_expiry_timestamp_seconds{key="fa500000",user="erin"}"#, 4_102_444_800.0),
    ] {
        gate.expect_metric(series, want);
    }
    let info = || gate.metrics().lines().find(|line| line.starts_with("keygate_keyfile_info{")).map(str::to_owned);
    let (before, loaded) = (info(), gate.metric("keygate_keyfile_last_success_timestamp_seconds"));
    let now = jiff::Timestamp::now().as_second() as f64;
    assert!(before.is_some() && (now - loaded).abs() < 60.0, "{loaded}");
    let successes = gate.metric(r#"keygate_keyfile_reloads_total{result="success"}"#);
    gate.replace_keys("version: 1\nkeys: nonsense\n...\n");
    eventually("the refused reload", || {
        (gate.metric(r#"keygate_keyfile_reloads_total{result="failure"}"#) >= 1.0).then_some(())
    });
    assert_eq!((info(), gate.metric(r#"keygate_keys{state="active"}"#)), (before.clone(), 3.0), "nothing changed");
    gate.replace_keys(KEYS);
    eventually("the good reload", || (gate.metric(r#"keygate_keys{state="active"}"#) == 2.0).then_some(()));
    assert!(gate.metric(r#"keygate_keyfile_reloads_total{result="success"}"#) > successes);
    assert_ne!(info(), before, "the digest is another");
    gate.expect_metric(r#"keygate_key_expiry_timestamp_seconds{key="fa500000",user="erin"}"#, 0.0);
}

#[test]
fn the_page_tells_build_and_process() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    let page = gate.metrics();
    assert!(page.lines().any(|line| line.starts_with("keygate_build_info{") && line.ends_with(" 1")), "{page}");
    for (name, least) in [
        ("process_resident_memory_bytes", 1e6),
        ("process_cpu_seconds_total", 0.0),
        ("process_open_fds", 3.0),
        ("process_start_time_seconds", 1.5e9),
    ] {
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        assert!(value.is_some_and(|value| value >= least), "{name}: {value:?}");
    }
}
