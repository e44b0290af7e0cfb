//! Browsers: a page opened by a link with its key, the cookie that follows, what leaks in `Referer`, and CORS (decisions 7,
//! 12 and 24; row G18).

use std::process::{Command, Stdio};

use crate::support::client::{Client, Response, get, request};
use crate::support::gateway::{Gateway, write_private};
use crate::support::origin::Origin;
use crate::support::{ALICE, BOB, KEYS, config, config_with, eventually};

const NAVIGATE: (&str, &str) = ("Sec-Fetch-Mode", "navigate");

/// Opens a page by its link and gives the cookie pair that came of it.
fn log_in(gate: &Gateway) -> String {
    let response = get(gate.address(0), &format!("/page?a=1&api_key={ALICE}&b=%20"), &[NAVIGATE]);
    assert_eq!((response.status, response.one("location")), (303, Some("/page?a=1&b=%20")));
    assert_eq!(response.one("cache-control"), Some("no-store"));
    assert_eq!(response.one("referrer-policy"), Some("no-referrer"));
    let cookie = response.one("set-cookie").expect("a cookie").to_owned();
    let (pair, attributes) = cookie.split_once("; ").expect("attributes");
    assert_eq!(attributes, "Path=/; Max-Age=43200; HttpOnly; SameSite=Lax");
    assert!(pair.starts_with("keygate_session=kgs1."), "{pair}");
    pair.to_owned()
}

#[test]
fn a_link_with_a_key_becomes_a_cookie_that_dies_with_the_key() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    let pair = log_in(&gate);
    assert_eq!(origin.connections(), 0, "the login is the gate's own answer");
    let both = format!("theme=dark; {pair}; lang=de");
    assert_eq!(get(gate.address(0), "/page?a=1", &[("Cookie", &both)]).status, 200);
    let seen = origin.only();
    assert_eq!((seen.one("cookie"), seen.one("x-auth-user")), (Some("theme=dark; lang=de"), Some("alice")));
    let token = pair.trim_start_matches("keygate_session=");
    assert_eq!(get(gate.address(0), "/", &[("X-Api-Key", token)]).status, 401, "a token is no key");
    let forged = format!("keygate_session={}", token.replace("kgs1.A", "kgs1.B"));
    assert_eq!(get(gate.address(0), "/", &[("Cookie", &forged)]).status, 401);
    gate.replace_keys(&KEYS.replace("roles: [client, miner]", "disabled: true"));
    let refused = eventually("the key ends", || {
        Some(get(gate.address(0), "/", &[("Cookie", &pair)])).filter(|response| response.status == 401)
    });
    assert_eq!(refused.one("set-cookie"), Some("keygate_session=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"));
    assert!(!gate.log().contains(token), "the log shows the token");
    assert!(!gate.access().iter().any(|line| line.to_string().contains(token)), "the access log shows the token");
}

/// Regression: behind a proxy that speaks TLS for the gate the cookie lacked `Secure`.
#[test]
fn the_cookie_is_secure_where_the_client_speaks_tls() {
    let origin = Origin::ok();
    let more = "identity: { trusted_proxies: [127.0.0.1] }\n";
    let gate = Gateway::start(&config_with(&origin, "  - { path: /, upstream: app }\n", more));
    let link = format!("/?api_key={ALICE}");
    for (proto, secure) in [("https", true), ("http", false)] {
        let opened = get(gate.address(0), &link, &[NAVIGATE, ("X-Forwarded-Proto", proto)]);
        assert_eq!(opened.one("set-cookie").expect("a cookie").ends_with("; Secure"), secure, "{proto}");
        let bad = get(gate.address(0), "/", &[("Cookie", "keygate_session=x"), ("X-Forwarded-Proto", proto)]);
        assert_eq!(bad.one("set-cookie").expect("cleared").ends_with("; Secure"), secure, "{proto}");
    }
}

#[test]
fn only_pages_are_logged_in() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    let link = format!("/page?api_key={ALICE}");
    for (method, target, field, status) in [
        ("GET", link.as_str(), ("Accept", "text/html,*/*"), 303),
        ("GET", &link, ("Accept", "*/*"), 200),
        ("GET", &link, ("Sec-Fetch-Mode", "cors"), 200),
        ("POST", &link, NAVIGATE, 200),
        ("GET", &format!("/page?token={ALICE}"), NAVIGATE, 200),
        ("GET", "/page?api_key=wrong", NAVIGATE, 401),
    ] {
        let response = request(gate.address(0), method, target, &[field], b"");
        assert_eq!(response.status, status, "{method} {target} {field:?}");
        assert_eq!(response.one("set-cookie").is_some(), status == 303);
    }
    assert!(origin.requests().iter().all(|seen| seen.target == "/page"));
}

#[test]
fn a_cookie_cannot_be_used_by_other_sites() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    let pair = log_in(&gate);
    let own = ("Origin", "http://gate.test");
    for cookie in [pair.as_str(), &format!("keygate_session={ALICE}")] {
        for (method, field, status) in [
            ("GET", ("Origin", "https://evil.example"), 200),
            ("POST", ("X-A", "1"), 403),
            ("POST", own, 200),
            ("POST", ("Origin", "https://gate.test"), 403),
            ("POST", ("Origin", "http://gate.test.evil.example"), 403),
            ("DELETE", ("Origin", "null"), 403),
            ("GET", ("Upgrade", "websocket"), 403),
        ] {
            let response = request(gate.address(0), method, "/x", &[("Cookie", cookie), field], b"");
            assert_eq!(response.status, status, "{method} {field:?}");
        }
    }
    let keyed = [("X-Api-Key", ALICE), ("Cookie", pair.as_str()), ("Origin", "https://evil.example")];
    assert_eq!(request(gate.address(0), "POST", "/x", &keyed, b"").status, 200, "a key in a header is no cookie");
}

#[test]
fn no_key_is_left_in_referer_cookie_or_protocols() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    for (name, sent, want) in [
        ("Referer", format!("http://a/p?x=1&api_key={ALICE}&y=%2f"), Some("http://a/p?x=1&y=%2f")),
        ("Referer", format!("http://a/p?api_key={ALICE}#api_key={ALICE}"), Some("http://a/p")),
        ("Referer", format!("http://a/p?api%5fkey={ALICE}"), Some("http://a/p")),
        ("Referer", format!("http://x:{ALICE}@a/p"), Some("http://a/p")),
        ("Referer", "http://a/p?q=1".to_owned(), Some("http://a/p?q=1")),
        ("Cookie", format!("a=1; keygate_session={ALICE}; b=\"2\";c=3"), Some("a=1; b=\"2\";c=3")),
        ("Cookie", format!("keygate_session={ALICE}"), None),
        ("Sec-WebSocket-Protocol", format!("a,keygate.key.{ALICE},b"), Some("a, b")),
        ("Sec-WebSocket-Protocol", format!("openai-insecure-api-key.{ALICE}"), None),
    ] {
        let fields = [("X-Api-Key", ALICE), (name, sent.as_str())];
        assert_eq!(get(gate.address(0), "/x", &fields).status, 200, "{sent}");
        assert_eq!(origin.last().one(name), want, "{sent}");
    }
    assert!(!String::from_utf8_lossy(&origin.raw()).contains(ALICE));
}

const CORS: &str = "  - { path: /, upstream: app, limits: { requests: 3, per: 1h } }\n  \
                    - { path: /api/, upstream: app, roles: [client], cors_preflight: true, methods: [GET, POST], \
                    limits: { requests: 1, per: 1h }, set_headers: { X-Secret: of-the-upstream } }\n";
const ORIGIN: (&str, &str) = ("Origin", "https://app.example");
const ASKED: (&str, &str) = ("Access-Control-Request-Method", "POST");

#[test]
fn preflights_pass_without_a_key_and_carry_nothing() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config_with(&origin, CORS, ""));
    let mut client = Client::connect(gate.address(0));
    client.send(format!(
        "OPTIONS /api/x?api_key={BOB}&q=1 HTTP/1.1\r\nHost: a\r\nOrigin: https://app.example\r\n\
         Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-api-key\r\nX-Api-Key: {ALICE}\r\n\
         Authorization: Bearer {ALICE}\r\nCookie: a=b\r\nX-Auth-User: admin\r\nContent-Length: 4\r\n\r\nbody"
    ));
    assert_eq!(client.read().status, 200, "G18");
    let seen = origin.only();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("OPTIONS", "/api/x?q=1"));
    assert_eq!(seen.one("access-control-request-headers"), Some("x-api-key"));
    for gone in ["x-api-key", "authorization", "cookie", "x-auth-user", "x-auth-key-id", "x-secret", "content-length"] {
        assert_eq!(seen.one(gone), None, "D24: {gone}");
    }
    assert!(seen.body.is_empty(), "D24");
    gate.expect_metric(r#"keygate_auth_total{outcome="preflight"}"#, 1.0);
}

#[test]
fn what_is_no_preflight_needs_a_key() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config_with(&origin, CORS, ""));
    for (method, target, fields) in [
        ("OPTIONS", "/api/x", vec![]),
        ("OPTIONS", "/api/x", vec![ORIGIN]),
        ("OPTIONS", "/api/x", vec![ASKED]),
        ("POST", "/api/x", vec![ORIGIN, ASKED]),
        ("OPTIONS", "/x", vec![ORIGIN, ASKED]),
    ] {
        assert_eq!(
            request(gate.address(0), method, target, &fields, b"").status,
            401,
            "K1: {method} {target} {fields:?}"
        );
    }
    assert_eq!(origin.connections(), 0);
    let keyed = [("X-Api-Key", ALICE)];
    assert_eq!(request(gate.address(0), "OPTIONS", "/x", &keyed, b"").status, 200, "a bare OPTIONS with a key passes");
}

#[test]
fn pages_can_read_why_they_were_refused() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config_with(&origin, CORS, ""));
    let ask = |target: &str, key: &str| get(gate.address(0), target, &[("X-Api-Key", key), ORIGIN]);
    let readable = |response: &Response| {
        let exposed = response.one("access-control-expose-headers").unwrap_or_default();
        assert_eq!(exposed.is_empty(), response.one("access-control-allow-origin").is_none());
        response.one("access-control-allow-origin") == Some("https://app.example")
            && response.one("access-control-allow-credentials") == Some("true")
            && response.one("vary") == Some("Origin")
            && ["Retry-After", "RateLimit", "X-Request-Id"].iter().all(|name| exposed.contains(name))
    };
    assert_eq!(ask("/api/x", ALICE).status, 200);
    for (target, key, status, want) in [
        ("/api/x", "", 401, true),
        ("/api/x", "wrong", 401, true),
        ("/api/x", BOB, 403, true),
        ("/api/x", ALICE, 429, true),
        ("/x", "", 401, false),
    ] {
        let response = ask(target, key);
        assert_eq!((response.status, readable(&response)), (status, want), "G18: {target} {key}");
    }
    let method = request(gate.address(0), "DELETE", "/api/x", &[("X-Api-Key", ALICE), ORIGIN], b"");
    assert_eq!((method.status, readable(&method)), (405, true));
    assert!(!readable(&get(gate.address(0), "/api/x", &[])), "only where a page asks");
}

/// A disk that was full while the secret was written left an empty file, and no later start got past it.
#[test]
fn a_full_disk_at_the_first_start_does_not_spoil_the_next() {
    let origin = Origin::ok();
    let config = config_with(&origin, "  - { path: /, upstream: app }\n", "state: { path: state.db }\n");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("keygate.yaml"), &config).unwrap();
    write_private(&dir.path().join("keys.yaml"), KEYS);
    let first = Command::new("sh")
        .args(["-c", "ulimit -f 0; exec \"$0\" serve --config keygate.yaml", env!("CARGO_BIN_EXE_keygate")])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!first.status.success() && !dir.path().join("state.db.session").exists(), "{first:?}");
    let gate = Gateway::start_in(dir, &config, KEYS, &[]);
    log_in(&gate);
    assert_eq!(std::fs::read(gate.path("state.db.session")).unwrap().len(), 32);
    assert!(!gate.path("state.db.session.new").exists());
}
