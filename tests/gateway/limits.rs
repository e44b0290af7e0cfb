//! Limits through real sockets: exact under parallel load, told in the fields of the draft, per key, route and address, and
//! the throttle on bad keys (design rule 9, decisions 10 and 13-15; rows G12-G17 and R1-R11 of the suites).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use crate::support::client::{Client, Response, get};
use crate::support::gateway::Gateway;
use crate::support::origin::{Answer, Origin};
use crate::support::{ALICE, BOB, KEYS, config_with, eventually};

const ROUTE: &str = "  - { path: /, upstream: app }\n";

fn default_limits(limits: &str) -> String {
    format!("limits: {{ default: {{ {limits} }} }}\n")
}

fn with(key: &str) -> [(&str, &str); 1] {
    [("X-Api-Key", key)]
}

/// Reads a list of strings with integer or string parameters (RFC 9651), strictly; gives each item's name and parameters.
fn list(field: &str) -> Vec<(String, Vec<(String, String)>)> {
    let item = |item: &str| {
        let mut parts = item.split(';');
        let name = parts.next().and_then(|name| name.strip_prefix('"')?.strip_suffix('"')).expect("a string");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase()), "{name}");
        let parameter = |part: &str| {
            let (key, value) = part.split_once('=').unwrap_or_else(|| panic!("{part} in {field}"));
            let number = !value.is_empty() && value.len() <= 15 && value.bytes().all(|byte| byte.is_ascii_digit());
            assert!(number && (value == "0" || !value.starts_with('0')) || value.starts_with('"'), "{part} in {field}");
            (key.to_owned(), value.trim_matches('"').to_owned())
        };
        (name.to_owned(), parts.map(parameter).collect())
    };
    field.split(", ").map(item).collect()
}

/// One parameter of one policy.
fn parameter(response: &Response, field: &str, policy: &str, name: &str) -> Option<u64> {
    let items = list(response.one(field)?);
    let (_, parameters) = items.into_iter().find(|(found, _)| found == policy)?;
    parameters.into_iter().find(|(found, _)| found == name)?.1.parse().ok()
}

/// A 429 that is told as the draft wants it, by this policy.
#[track_caller]
fn check_refused(row: &str, response: &Response, policy: &str) {
    assert_eq!(response.status, 429, "{row}");
    let wait: u64 = response.one("retry-after").expect("Retry-After").parse().expect("whole seconds");
    assert!(wait >= 1, "{row}");
    assert_eq!(parameter(response, "ratelimit", policy, "r"), Some(0), "{row}: {:?}", response.headers);
    assert_eq!(parameter(response, "ratelimit", policy, "t"), Some(wait), "{row}: {:?}", response.headers);
    assert!(parameter(response, "ratelimit-policy", policy, "q").is_some(), "{row}: {:?}", response.headers);
    let body = response.json();
    assert_eq!(body["violated-policies"], serde_json::json!([policy]), "{row}");
    assert_eq!(body["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded", "{row}");
    assert_eq!(body["error"]["type"], "rate_limit_error", "{row}");
}

#[test]
fn a_thousand_parallel_requests_against_a_burst_of_ten_admit_exactly_ten() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config_with(&origin, ROUTE, &default_limits("requests: 1, per: 1h, burst: 10")));
    let admitted = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                let mut client = Client::connect(gate.address(0));
                client.send(format!("GET /x HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n").repeat(20));
                for _ in 0..20 {
                    let response = client.read();
                    match response.status {
                        200 => _ = admitted.fetch_add(1, Ordering::Relaxed),
                        _ => check_refused("G13", &response, "key"),
                    }
                }
            });
        }
    });
    assert_eq!((admitted.into_inner(), origin.requests().len()), (10, 10), "G13, rule 9");
    gate.expect_metric(r#"keygate_rate_limited_total{limit="key_rate"}"#, 990.0);
    let bobs = get(gate.address(0), "/x", &with(BOB));
    assert_eq!((bobs.status, parameter(&bobs, "ratelimit", "key", "r")), (200, Some(9)), "each key has its own");
}

#[test]
fn what_is_left_falls_to_nothing_and_comes_back() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config_with(&origin, ROUTE, &default_limits("requests: 2, per: 1s, burst: 3")));
    let mut client = Client::connect(gate.address(0));
    let mut ask = || client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n")).read();
    let first = ask();
    assert_eq!(parameter(&first, "ratelimit", "key", "r"), Some(2), "R1: {:?}", first.headers);
    assert_eq!(first.one("ratelimit-policy"), Some("\"key\";q=3;w=2"), "D14: q is the burst, w the time to regain it");
    let refused = eventually("the limit", || Some(ask()).filter(|response| response.status == 429));
    check_refused("R1, G17, AA1", &refused, "key");
    let again = eventually("the window passes", || Some(ask()).filter(|response| response.status == 200));
    assert!(parameter(&again, "ratelimit", "key", "r").is_some(), "R5");
}

#[test]
fn a_keys_own_limits_a_routes_and_the_default_all_count() {
    let origin = Origin::ok();
    let own = "    limits: { requests: 5, per: 1h }\n";
    let keys = KEYS.replace("  - id: ba9af604\n", &format!("  - id: ba9af604\n{own}"));
    let routes = format!("{ROUTE}  - {{ path: /slow/, upstream: app, limits: {{ requests: 2, per: 1h }} }}\n");
    let more = default_limits("requests: 3, per: 1h");
    let gate = Gateway::start_with(&config_with(&origin, &routes, &more), &keys, &[]);
    let statuses = |target: &str, key: &str, times: usize| -> Vec<Response> {
        (0..times).map(|_| get(gate.address(0), target, &with(key))).collect()
    };
    let slow = statuses("/slow/", BOB, 3);
    assert_eq!(slow.iter().map(|response| response.status).collect::<Vec<_>>(), [200, 200, 429]);
    assert_eq!(slow[0].one("ratelimit-policy"), Some("\"key\";q=5;w=3600, \"route\";q=2;w=3600"), "R4: both are shown");
    check_refused("R4: the tighter decides", &slow[2], "route");
    assert_eq!(parameter(&slow[2], "ratelimit", "key", "r"), Some(3), "D13: a refusal spends nothing");
    let rest = statuses("/x", BOB, 4);
    assert_eq!(rest.iter().map(|response| response.status).collect::<Vec<_>>(), [200, 200, 200, 429], "R9");
    check_refused("R1", &rest[3], "key");
    let alices = statuses("/x", ALICE, 4);
    assert_eq!(alices.iter().map(|response| response.status).collect::<Vec<_>>(), [200, 200, 200, 429], "default");
    gate.expect_metric(r#"keygate_rate_limited_total{limit="route_rate"}"#, 1.0);
    gate.expect_metric(r#"keygate_rate_limited_total{limit="key_rate"}"#, 2.0);
}

#[test]
fn public_routes_count_by_address() {
    let origin = Origin::ok();
    let routes =
        format!("{ROUTE}  - {{ path: /open/, access: public, upstream: app, limits: {{ requests: 2, per: 1h }} }}\n");
    let more = "identity: { trusted_proxies: [127.0.0.1] }\n";
    let gate = Gateway::start(&config_with(&origin, &routes, more));
    let ask = |from: &str| get(gate.address(0), "/open/x", &[("X-Forwarded-For", from)]);
    assert_eq!([ask("203.0.113.1").status, ask("203.0.113.1").status], [200, 200], "AA4");
    check_refused("AA4", &ask("203.0.113.1"), "route");
    assert_eq!(ask("203.0.113.2").status, 200, "another address has its own");
    assert_eq!(
        [ask("2001:db8::1").status, ask("2001:db8::2").status, ask("2001:db8::3").status],
        [200, 200, 429],
        "/64"
    );
    let keyed = get(gate.address(0), "/open/x", &[("X-Api-Key", ALICE), ("X-Forwarded-For", "203.0.113.1")]);
    assert_eq!(keyed.status, 200, "AA5: strangers and keys do not share");
}

/// An origin that holds every request until it is let go.
struct Held {
    origin: Origin,
    gone: Arc<(Mutex<bool>, Condvar)>,
    waiting: Arc<AtomicUsize>,
}

impl Held {
    fn start() -> Self {
        let (gone, waiting) = (Arc::new((Mutex::new(false), Condvar::new())), Arc::new(AtomicUsize::new(0)));
        let (door, count) = (gone.clone(), waiting.clone());
        let origin = Origin::start(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            let open = door.1.wait_while(door.0.lock().unwrap(), |open| !*open).unwrap();
            drop(open);
            Answer::ok("late")
        });
        Self { origin, gone, waiting }
    }

    fn waits_for(&self, count: usize) {
        eventually("requests at the origin", || (self.waiting.load(Ordering::SeqCst) == count).then_some(()));
    }

    fn let_go(&self) {
        *self.gone.0.lock().unwrap() = true;
        self.gone.1.notify_all();
    }
}

#[test]
fn requests_in_flight_are_counted_until_their_end() {
    let held = Held::start();
    let gate = Gateway::start(&config_with(&held.origin, ROUTE, &default_limits("concurrent: 2")));
    let mut clients: Vec<_> = (0..2).map(|_| Client::connect(gate.address(0))).collect();
    for client in &mut clients {
        client.send(format!("GET /slow HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
    }
    held.waits_for(2);
    gate.expect_metric(r#"keygate_requests_in_flight{route="/"}"#, 2.0);
    let refused = get(gate.address(0), "/slow", &with(ALICE));
    check_refused("concurrent", &refused, "concurrent");
    assert_eq!(refused.json()["error"]["code"], "too_many_concurrent_requests");
    // Another key is not held up by it.
    let mut bob = Client::connect(gate.address(0));
    bob.send(format!("GET /slow HTTP/1.1\r\nHost: a\r\nX-Api-Key: {BOB}\r\n\r\n"));
    held.waits_for(3);
    held.let_go();
    assert!(clients.iter_mut().chain([&mut bob]).all(|client| client.read().status == 200));
    eventually("nothing in flight", || (gate.metric(r#"keygate_requests_in_flight{route="/"}"#) == 0.0).then_some(()));
    assert_eq!(get(gate.address(0), "/slow", &with(ALICE)).status, 200);
}

/// Regression: a request whose key ended before its answer began was cut without a word, which clients retry.
#[test]
fn a_request_whose_key_ends_while_the_upstream_works_is_told_so() {
    let held = Held::start();
    let gate = Gateway::start(&config_with(&held.origin, ROUTE, ""));
    let mut clients: Vec<_> = (0..2).map(|_| Client::connect(gate.address(0))).collect();
    for (client, key) in clients.iter_mut().zip([ALICE, BOB]) {
        client.send(format!("GET /slow HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\n\r\n"));
    }
    held.waits_for(2);
    gate.replace_keys(&KEYS.replace("    user: alice\n", "    user: alice\n    disabled: true\n"));
    let refused = clients[0].read();
    assert_eq!((refused.status, refused.all("www-authenticate").is_empty()), (401, false));
    let line = gate.access_line(refused.one("x-request-id").expect("an id"));
    assert_eq!((line["outcome"].as_str(), line["reason"].as_str()), (Some("unauthorized"), Some("disabled")));
    held.let_go();
    assert_eq!(clients[1].read().status, 200, "other keys' requests go on");
}

#[test]
fn a_reload_keeps_what_was_used() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config_with(&origin, ROUTE, &default_limits("requests: 4, per: 1h")));
    let left = || parameter(&get(gate.address(0), "/", &with(ALICE)), "ratelimit", "key", "r");
    assert_eq!([left(), left()], [Some(3), Some(2)]);
    let info = || gate.metrics().lines().find(|line| line.starts_with("keygate_keyfile_info")).map(str::to_owned);
    let before = info();
    gate.replace_keys(&format!("# written anew\n{KEYS}"));
    eventually("the reload", || (info() != before).then_some(()));
    assert_eq!(left(), Some(1), "G12");
    assert_eq!(left(), Some(0), "G12");
    check_refused("G12", &get(gate.address(0), "/", &with(ALICE)), "key");
}

#[test]
fn bad_keys_are_throttled_by_address_and_good_ones_never() {
    let origin = Origin::ok();
    let more = "identity: { trusted_proxies: [127.0.0.1] }\nlimits: { failed_auth: { attempts: 3, per: 1h } }\n";
    let gate = Gateway::start(&config_with(&origin, ROUTE, more));
    let ask = |from: &str, key: &str| get(gate.address(0), "/", &[("X-Forwarded-For", from), ("X-Api-Key", key)]);
    let (home, away) = ("203.0.113.1", "203.0.113.2");
    for _ in 0..5 {
        assert_eq!(ask(home, "").status, 401, "D10: a missing key is no guess");
    }
    for _ in 0..3 {
        assert_eq!(ask(home, "wrong").status, 401, "G14");
    }
    for _ in 0..2 {
        let refused = ask(home, "wrong");
        assert_eq!(refused.status, 429, "G14");
        assert!(refused.one("retry-after").and_then(|wait| wait.parse::<u64>().ok()).is_some_and(|wait| wait >= 1));
        assert_eq!(refused.json()["error"]["code"], "too_many_failed_attempts");
        assert_eq!(
            (refused.one("ratelimit"), refused.json().get("violated-policies")),
            (None, None),
            "no policy of a key"
        );
    }
    assert_eq!(ask(home, ALICE).status, 200, "G14, G15: the right key passes");
    assert_eq!(ask(home, "").status, 401);
    assert_eq!(ask(away, "wrong").status, 401, "another address is not affected");
    gate.expect_metric(r#"keygate_rate_limited_total{limit="failed_auth"}"#, 2.0);
    gate.expect_metric(r#"keygate_auth_total{outcome="unknown"}"#, 6.0);
    gate.expect_metric(r#"keygate_auth_total{outcome="missing"}"#, 6.0);
}

#[test]
fn parallel_guesses_get_no_more_attempts_than_allowed() {
    let origin = Origin::ok();
    let more = "limits: { failed_auth: { attempts: 7, per: 1h } }\n";
    let gate = Gateway::start(&config_with(&origin, ROUTE, more));
    let told = AtomicUsize::new(0);
    thread::scope(|scope| {
        for guesser in 0..20 {
            let (gate, told) = (&gate, &told);
            scope.spawn(move || {
                let mut client = Client::connect(gate.address(0));
                for guess in 0..10 {
                    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: guess-{guesser}-{guess}\r\n\r\n"));
                    if client.read().status == 401 {
                        told.fetch_add(1, Ordering::Relaxed);
                    }
                }
                // A good key beside the guesses, from the same address.
                client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
                assert_eq!(client.read().status, 200, "G15");
            });
        }
    });
    assert_eq!(told.into_inner(), 7);
}

#[test]
fn without_limits_no_field_speaks_of_any() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config_with(&origin, ROUTE, ""));
    let response = get(gate.address(0), "/", &with(ALICE));
    assert_eq!((response.one("ratelimit"), response.one("ratelimit-policy")), (None, None), "R3");
}

#[test]
fn an_upstreams_own_fields_give_way_to_the_gates() {
    let answer =
        "HTTP/1.1 200 OK\r\nRateLimit: \"theirs\";r=1\r\nRateLimit-Policy: \"theirs\";q=1\r\nContent-Length: 0\r\n\r\n";
    let origin = Origin::start(move |_| Answer::raw(answer));
    let routes = "  - { path: /, upstream: app, access: public }\n";
    let gate = Gateway::start(&config_with(&origin, routes, &default_limits("requests: 4, per: 1h")));
    let ours = get(gate.address(0), "/", &with(ALICE));
    assert_eq!(ours.all("ratelimit").len(), 1);
    assert_eq!(parameter(&ours, "ratelimit", "key", "r"), Some(3));
    let theirs = get(gate.address(0), "/", &[]);
    assert_eq!(theirs.one("ratelimit"), Some("\"theirs\";r=1"), "where the gate has nothing to say");
}
