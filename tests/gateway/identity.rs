//! What the upstream is told of the caller, and that no client can say it: identity headers in every spelling, forwarded
//! headers, trusted proxies, the route's own headers, prefixes, hosts and request ids (security B1, design rules 3 and 4).

use std::os::unix::net::UnixStream;

use crate::support::client::{Client, get, request};
use crate::support::gateway::Gateway;
use crate::support::origin::{Answer, Origin, Recorded};
use crate::support::{ALICE, BOB, config_with};

/// Every token character that is no letter or digit (RFC 9110 section 5.6.2).
const SEPARATORS: &[u8] = b"!#$%&'*+-.^_`|~";
/// The names that the gate sets.
const OURS: [&str; 5] = ["x-auth-user", "x-miner-id", "x-auth-key-id", "x-auth-roles", "x-auth-scopes"];
const IDENTITY: &str = "identity: { headers: { user: [X-Auth-User, X-Miner-ID], key_id: X-Auth-Key-Id, roles: \
                        X-Auth-Roles, scopes: X-Auth-Scopes } }\n";
const ROUTES: &str = "  - { path: /, upstream: app }\n  - { path: /open/, access: public, upstream: app }\n";

fn fold(name: &str) -> String {
    name.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte.to_ascii_lowercase()) } else { '-' })
        .collect()
}

/// The fields that an upstream could take for ours, in any folding, as `name: value`.
fn identity_of(seen: &Recorded) -> Vec<String> {
    let ours = seen.headers.iter().filter(|(name, _)| OURS.contains(&fold(name).as_str()));
    ours.map(|(name, value)| format!("{name}: {value}")).collect()
}

const ALICES: [&str; 5] = [
    "X-Auth-User: alice",
    "X-Miner-ID: alice",
    "X-Auth-Key-Id: 48e8f859",
    "X-Auth-Roles: client,miner",
    "X-Auth-Scopes: jobs:write read:metadata",
];

/// All spellings of a name with one separator exchanged at a time, and with all of them, in three cases.
fn spellings(name: &str) -> Vec<String> {
    let places: Vec<usize> = name.match_indices('-').map(|(at, _)| at).collect();
    let mut made = Vec::new();
    for &separator in SEPARATORS {
        let exchanged = |at: &dyn Fn(usize) -> bool| -> String {
            let change = |(i, byte)| char::from(if places.contains(&i) && at(i) { separator } else { byte });
            name.bytes().enumerate().map(change).collect()
        };
        made.extend(places.iter().map(|place| exchanged(&|at| at == *place)));
        made.push(exchanged(&|_| true));
    }
    made.iter().flat_map(|name| [name.to_uppercase(), name.to_lowercase(), name.clone()]).collect()
}

#[test]
fn no_spelling_of_an_identity_header_reaches_the_upstream() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config_with(&origin, ROUTES, IDENTITY));
    let mut client = Client::connect(gate.address(0));
    for name in OURS {
        // Forty spellings a request keep the test short and the head below its bounds.
        for group in spellings(name).chunks(40) {
            let forged: String = group.iter().map(|name| format!("{name}: admin\r\n")).collect();
            for (target, key, want) in
                [("/x", ALICE, ALICES.as_slice()), ("/open/x", ALICE, &ALICES), ("/open/x", "", &[])]
            {
                client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\n{forged}\r\n"));
                assert_eq!(client.read().status, 200);
                assert_eq!(identity_of(&origin.last()), want, "G6: {group:?}");
            }
        }
    }
}

#[test]
fn roles_and_scopes_that_a_key_lacks_are_not_sent_at_all() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config_with(&origin, ROUTES, IDENTITY));
    let forged = [("X-Api-Key", BOB), ("X-Auth-Roles", "admin"), ("X-Auth-Scopes", "all")];
    assert_eq!(get(gate.address(0), "/x", &forged).status, 200);
    assert_eq!(identity_of(&origin.only()), ["X-Auth-User: bob", "X-Miner-ID: bob", "X-Auth-Key-Id: ba9af604"]);
}

#[test]
fn what_connection_nominates_goes_and_what_is_ours_stays() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config_with(&origin, ROUTES, IDENTITY));
    let mut client = Client::connect(gate.address(0));
    for nominated in ["X-Auth-User", "x-auth-user", "close-not, X-AUTH-USER", "X-Auth-Key-Id, x-miner-id", "x-api-key"]
    {
        client.send(format!(
            "GET /x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, {nominated}, X-Hop\r\nX-Api-Key: {ALICE}\r\n\
             X-Hop: v\r\nX-Auth-User: admin\r\nProxy-Authorization: Basic eA==\r\nKeep-Alive: 5\r\nX-Stays: 1\r\n\r\n"
        ));
        assert_eq!(client.read().status, 200);
        let seen = origin.last();
        assert_eq!(identity_of(&seen), ALICES, "G7: {nominated}");
        for gone in ["x-hop", "proxy-authorization", "keep-alive", "connection", "x-api-key"] {
            assert_eq!(seen.one(gone), None, "{nominated}: {gone}");
        }
        assert_eq!((seen.one("x-stays"), seen.one("x-request-id").is_some()), (Some("1"), true), "{nominated}");
    }
    for framing in ["Host", "Content-Length", "Transfer-Encoding", "Authorization"] {
        let mut client = Client::connect(gate.address(0));
        client.send(format!("GET /x HTTP/1.1\r\nHost: a\r\nConnection: {framing}\r\nX-Api-Key: {ALICE}\r\n\r\n"));
        assert_eq!(client.read().status, 400, "D2: {framing}");
    }
}

#[test]
fn trailers_carry_nothing_that_the_gate_guards() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config_with(&origin, ROUTES, IDENTITY));
    for (target, key) in [("/x", ALICE), ("/open/x", "")] {
        let mut client = Client::connect(gate.address(0));
        client.send(format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\nTransfer-Encoding: chunked\r\n\
             Trailer: X-Auth-User, X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Auth-User: admin\r\nx_auth_roles: admin\r\n\
             X-Api-Key: {ALICE}\r\nAuthorization: Bearer {ALICE}\r\nCookie: keygate_session={ALICE}\r\n\
             X-Forwarded-For: 1.1.1.1\r\nContent-Length: 5\r\nHost: b\r\nX-Sum: 9\r\n\r\n"
        ));
        assert_eq!(client.read().status, 200);
        let seen = origin.last();
        assert_eq!(seen.trailers, [("X-Sum".to_owned(), "9".to_owned())], "B1 trailers");
        assert_eq!(seen.body, b"abc");
    }
    assert!(!String::from_utf8_lossy(&origin.raw()).contains(ALICE));
}

/// What clients forge about where they come from.
const FORGED: [(&str, &str); 9] = [
    ("X-Forwarded-For", "203.0.113.7"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "public.example:8443"),
    ("X-Forwarded-Prefix", "/admin"),
    ("X-Forwarded-User", "admin"),
    ("X_Forwarded_For", "127.0.0.1"),
    ("X-Real-IP", "203.0.113.7"),
    ("Forwarded", "for=203.0.113.7;proto=https"),
    ("X-Original-URL", "/admin"),
];

fn with_key(fields: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    [&[("X-Api-Key", ALICE)], fields].concat()
}

#[test]
fn strangers_are_not_believed_about_where_they_come_from() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config_with(&origin, ROUTES, IDENTITY));
    let response = get(gate.address(0), "/x", &with_key(&FORGED));
    let seen = origin.only();
    assert_eq!(seen.one("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.one("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.one("x-forwarded-host"), Some("gate.test"));
    for gone in
        ["x-forwarded-prefix", "x-forwarded-user", "x_forwarded_for", "x-real-ip", "forwarded", "x-original-url"]
    {
        assert_eq!(seen.one(gone), None, "{gone}");
    }
    let line = gate.access_line(response.one("x-request-id").expect("an id"));
    assert_eq!(line["remote"], "127.0.0.1");
}

#[test]
fn trusted_proxies_are_believed_and_their_clients_are_told_apart() {
    let origin = Origin::ok();
    let more = "identity: { trusted_proxies: [127.0.0.0/8] }\n";
    let gate = Gateway::start(&config_with(&origin, ROUTES, more));
    let response = get(gate.address(0), "/x", &with_key(&FORGED));
    let seen = origin.only();
    assert_eq!(seen.one("x-forwarded-for"), Some("203.0.113.7"));
    assert_eq!(seen.one("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.one("x-forwarded-host"), Some("public.example:8443"));
    assert_eq!(seen.one("x-forwarded-prefix"), Some("/admin"));
    assert_eq!((seen.one("x_forwarded_for"), seen.one("host")), (None, Some("gate.test")));
    let line = gate.access_line(response.one("x-request-id").expect("an id"));
    assert_eq!(line["remote"], "203.0.113.7");
    for (sent, want) in [
        ("1.1.1.1, 203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, 127.0.0.5", "203.0.113.9"),
        ("203.0.113.9, junk", "127.0.0.1"),
        ("2001:db8::9", "2001:db8::9"),
    ] {
        get(gate.address(0), "/x", &with_key(&[("X-Forwarded-For", sent)]));
        assert_eq!(origin.last().all("x-forwarded-for"), [want], "D25: {sent}");
    }
}

#[test]
fn allow_from_is_asked_about_the_client_behind_a_trusted_proxy() {
    let origin = Origin::ok();
    let keys = crate::support::keys_with(&[crate::support::entry(
        "fa500000",
        "erin",
        "erin-key",
        "    allow_from: [203.0.113.0/24]\n",
    )]);
    let more = "identity: { trusted_proxies: [127.0.0.1] }\n";
    let gate = Gateway::start_with(&config_with(&origin, ROUTES, more), &keys, &[]);
    for (from, status) in [("203.0.113.7", 200), ("198.51.100.7", 401), ("203.0.113.7, 198.51.100.7", 401)] {
        let fields = [("X-Api-Key", "erin-key"), ("X-Forwarded-For", from)];
        assert_eq!(get(gate.address(0), "/x", &fields).status, status, "{from}");
    }
    assert_eq!(get(gate.address(0), "/x", &[("X-Api-Key", "erin-key")]).status, 401);
}

#[test]
fn clients_of_a_unix_listener_have_no_address_until_it_is_trusted() {
    for (trusted, want) in [("", None), ("identity: { trusted_proxies: [unix] }\n", Some("203.0.113.7"))] {
        let origin = Origin::ok();
        let dir = tempfile::tempdir().expect("a folder");
        let socket = dir.path().join("gate.sock");
        let config = config_with(&origin, ROUTES, trusted)
            .replace("\"127.0.0.1:0\" }]\nadmin", &format!("\"unix:{}\" }}]\nadmin", socket.display()));
        let gate = Gateway::start_in(dir, &config, crate::support::KEYS, &[]);
        let mut client = Client::on(UnixStream::connect(&socket).expect("connects"));
        client
            .send(format!("GET /x HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n"));
        let response = client.read();
        assert_eq!((response.status, origin.only().one("x-forwarded-for")), (200, want));
        let line = gate.access_line(response.one("x-request-id").expect("an id"));
        assert_eq!(line["remote"].as_str(), want);
        assert_eq!(client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").read().status, 401);
    }
}

#[test]
fn the_routes_own_headers_replace_the_clients_and_stay_off_preflights() {
    let origin = Origin::ok();
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("secret"), "from-a-file\n").expect("writes");
    let secret = dir.path().join("secret").display().to_string();
    let routes = format!(
        "  - path: /\n    upstream: app\n    cors_preflight: true\n    set_headers:\n      \
         Authorization: \"Apikey ${{env:UPSTREAM_KEY}}\"\n      X-From-File: \"${{file:{secret}}}\"\n      \
         X-Api-Key: plain\n"
    );
    let gate =
        Gateway::start_in(dir, &config_with(&origin, &routes, ""), crate::support::KEYS, &[("UPSTREAM_KEY", "of-env")]);
    let forged = [("X-From-File", "forged"), ("x_from_file", "forged"), ("Authorization", "Bearer theirs")];
    assert_eq!(get(gate.address(0), "/x", &with_key(&forged)).status, 200);
    let seen = origin.last();
    assert_eq!(seen.all("authorization"), ["Apikey of-env"]);
    assert_eq!(seen.all("x-from-file"), ["from-a-file"], "one newline is cut");
    assert_eq!((seen.all("x-api-key"), seen.one("x_from_file")), (vec!["plain"], None));
    let preflight = [
        ("Origin", "https://app.example"),
        ("Access-Control-Request-Method", "GET"),
        ("X-From-File", "forged"),
        ("Authorization", "Bearer theirs"),
    ];
    assert_eq!(request(gate.address(0), "OPTIONS", "/x", &preflight, b"").status, 200);
    let seen = String::from_utf8_lossy(&origin.last().head).to_lowercase();
    for gone in ["of-env", "from-a-file", "forged", "theirs", "plain", "x-auth-user"] {
        assert!(!seen.contains(gone), "D24: {gone} in {seen}");
    }
    for secret in ["of-env", "from-a-file"] {
        assert!(!gate.log().contains(secret), "the log shows {secret}");
    }
}

#[test]
fn prefixes_go_and_the_rest_keeps_its_bytes() {
    let origin = Origin::ok();
    let routes = "  - { path: /api/, strip_prefix: /api, upstream: app }\n";
    let gate = Gateway::start(&config_with(&origin, routes, ""));
    for (target, want) in [
        ("/api/x", "/x"),
        ("/api", "/"),
        ("/api/", "/"),
        ("/api/a%2Fb//c?q=%2f&api_key=&r", "/a%2Fb//c?q=%2f&r"),
        ("/api/api/x", "/api/x"),
    ] {
        assert_eq!(get(gate.address(0), target, &with_key(&[])).status, 200, "{target}");
        assert_eq!(origin.last().target, want, "{target}");
    }
    assert_eq!(get(gate.address(0), "/apix", &with_key(&[])).status, 404);
    assert_eq!(get(gate.address(0), "//api/x", &with_key(&[])).status, 400);
}

#[test]
fn the_host_is_kept_or_the_servers_or_as_named() {
    for (policy, want) in [("keep", "gate.test"), ("upstream", ""), ("app.lan", "app.lan")] {
        let origin = Origin::ok();
        let server = format!("app: {{ servers: [\"{}\"] }}", origin.address());
        let config = config_with(&origin, ROUTES, "")
            .replace(&server, &format!("app: {{ servers: [\"{}\"], host: {policy} }}", origin.address()));
        let gate = Gateway::start(&config);
        assert_eq!(get(gate.address(0), "/x", &with_key(&[])).status, 200);
        let seen = origin.only();
        let want = if want.is_empty() { origin.address() } else { want.to_owned() };
        assert_eq!((seen.one("host"), seen.one("x-forwarded-host")), (Some(want.as_str()), Some("gate.test")));
    }
}

#[test]
fn the_most_specific_host_takes_the_request() {
    let origin = Origin::start(|_| Answer::ok("ok"));
    let routes = "  - { path: /, name: any, access: public, upstream: app }\n  \
                  - { host: \"*.example.org\", path: /, name: below, access: public, upstream: app }\n  \
                  - { host: a.example.org, path: /, name: exact, access: public, upstream: app }\n";
    let gate = Gateway::start(&config_with(&origin, routes, ""));
    for (host, route) in [
        ("a.example.org", "exact"),
        ("A.Example.ORG:8443", "exact"),
        ("a.example.org.", "exact"),
        ("b.example.org", "below"),
        ("x.a.example.org", "below"),
        ("example.org", "any"),
        ("badexample.org", "any"),
        ("127.0.0.1", "any"),
    ] {
        let mut client = Client::connect(gate.address(0));
        let response = client.send(format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n")).read();
        let line = gate.access_line(response.one("x-request-id").expect("an id"));
        assert_eq!((response.status, line["route"].as_str()), (200, Some(route)), "{host}");
        assert_eq!(origin.last().one("host"), Some(host));
    }
}

#[test]
fn request_ids_are_kept_or_made_and_are_the_same_everywhere() {
    let origin = Origin::start(|_| Answer::raw("HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nContent-Length: 0\r\n\r\n"));
    let gate = Gateway::start(&config_with(&origin, ROUTES, ""));
    for (sent, kept) in [("0af7651916cd43dd8448eb211c80319c", true), ("a.B-c_9", true), ("a b", false), ("", false)] {
        let response = get(gate.address(0), "/x", &[("X-Api-Key", ALICE), ("X-Request-Id", sent)]);
        let id = response.one("x-request-id").expect("an id").to_owned();
        assert_eq!(id == sent, kept, "{sent}");
        assert!(kept || (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())), "{id}");
        assert_eq!(origin.last().all("x-request-id"), [id.as_str()]);
        assert_eq!(gate.access_line(&id)["status"], 200);
    }
    let refused = get(gate.address(0), "/x", &[("X-Request-Id", "mine")]);
    assert_eq!((refused.status, refused.json()["request_id"].as_str()), (401, Some("mine")));
}

#[test]
fn no_header_names_a_method_that_the_route_does_not_take() {
    let origin = Origin::ok();
    let routes = "  - { path: /, upstream: app }\n  - { path: /some/, methods: [GET, POST], upstream: app }\n";
    let gate = Gateway::start(&config_with(&origin, routes, ""));
    let fields = with_key(&[("X-HTTP-Method-Override", "DELETE"), ("X-HTTP-Method", "DELETE")]);
    for (target, passes) in [("/x", true), ("/some/x", false)] {
        assert_eq!(request(gate.address(0), "POST", target, &fields, b"x").status, 200);
        assert_eq!(String::from_utf8_lossy(&origin.last().head).contains("DELETE"), passes, "{target}");
    }
}

#[test]
fn an_authorization_that_is_no_source_passes_but_never_with_our_key() {
    let origin = Origin::ok();
    let config = config_with(&origin, "  - { path: /, upstream: app }\n", "");
    let (start, rest) = config.split_once("credentials:").expect("a section");
    let (_, end) = rest.split_once("upstreams:").expect("a section");
    let gate = Gateway::start(&format!("{start}credentials: [{{ header: X-Api-Key }}]\nupstreams:{end}"));
    let bearer = format!("Bearer {ALICE}");
    for (sent, want) in [("Bearer theirs", Some("Bearer theirs")), (bearer.as_str(), None)] {
        let fields = [("X-Api-Key", ALICE), ("Authorization", sent)];
        assert_eq!(get(gate.address(0), "/x", &fields).status, 200);
        assert_eq!(origin.last().one("authorization"), want);
    }
    assert_eq!(get(gate.address(0), "/x", &[("Authorization", &bearer)]).status, 401);
    assert!(!String::from_utf8_lossy(&origin.raw()).contains(ALICE));
}
