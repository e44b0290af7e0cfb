//! The admission suites of other gateways as tables (rows named K Kong, A APISIX, E Envoy, G and B our own lists): each
//! request goes through the real binary, and what counts is what the client was told, what the log says of it, and what
//! reached the upstream.
//!
//! Rows that other tests hold: A2, E28 and what a key file may say in `tests/cases/keyfile`; A26, E16, E29, E30, K38
//! and the settings that we refuse (AA6, AA7, AR5, AR6, E12, E14, E27, K37, R10) in `tests/cases/config`,
//! `anonymous-consumer` and its neighbours; A1, A3, A4 in `leak`; AA1 to AA3 and R1 to R5 in `limits`; G3 in
//! `http2_limits`, where `:protocol` is reset; G8 to G10 in `revocation` and `scale`; G11 in `keyreload` and
//! `keyfiles`; G13 in `limits` and `http2_limits`; G21 in `websocket`, where a silent tunnel ends, and `early`, where
//! silent peers are probed; KL1 to KL12 in `suites_keys`; G25 in `src/limit/tests` and `src/engine/clock.rs`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::client::{Client, Response, get};
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;
use crate::support::{ALICE, BOB, config, config_with, entry, eventually, keys_with};

const ROUTES: &str = r#"  - { path: /, upstream: app }
  - { path: /open/, access: public, upstream: app }
  - { path: /v1/, roles: [client], upstream: app }
  - { path: /v1/admin/, roles: [admin], methods: [GET], upstream: app }
  - { path: /scoped/, scopes: ["jobs:write"], upstream: app }
  - { path: /narrow/, credentials: [X-Api-Key], upstream: app }
"#;

/// A gate, its origin, and one connection that must survive every row.
struct Bench {
    origin: Origin,
    gate: Gateway,
    client: Client,
}

impl Bench {
    fn start() -> Self {
        let origin = Origin::ok();
        let keys = keys_with(&[
            entry("0ff00000", "carol", "carol-key", "    disabled: true\n"),
            entry("01d00000", "dave", "dave-key", "    expires: 2020-01-01T00:00:00Z\n"),
            entry("fa500000", "erin", "erin-key", "    allow_from: [203.0.113.0/24]\n"),
        ]);
        let config = config_with(&origin, ROUTES, "limits: { failed_auth: off }\n");
        let gate = Gateway::start_with(&config, &keys, &[]);
        let client = Client::connect(gate.address(0));
        Self { origin, gate, client }
    }

    /// Sends one request on the kept connection. `want` is `200 <user or -> <target that the upstream saw>`, or the
    /// status and reason of a refusal that reaches nobody.
    #[track_caller]
    fn check(&mut self, row: &str, line: &str, fields: &[&str], want: &str) -> Response {
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        self.check_raw(row, format!("{line} HTTP/1.1\r\nHost: gate.test\r\n{fields}\r\n").as_bytes(), want)
    }

    #[track_caller]
    fn check_raw(&mut self, row: &str, bytes: &[u8], want: &str) -> Response {
        let before = self.origin.requests().len();
        let shown = String::from_utf8_lossy(bytes).into_owned();
        self.client.send(bytes);
        let method = shown.split(' ').next().unwrap_or_default();
        let response = self.client.read_for(method).unwrap_or_else(|| panic!("{row}: no answer to {shown}"));
        let passed = self.origin.requests().len() - before;
        let got = if passed == 0 {
            let line = self.gate.access_line(response.one("x-request-id").expect("an id"));
            format!("{} {}", response.status, line["reason"].as_str().unwrap_or("-"))
        } else {
            let seen = self.origin.last();
            format!("{} {} {}", response.status, seen.one("x-auth-user").unwrap_or("-"), seen.target)
        };
        assert_eq!(got, want, "{row}: {shown}");
        if response.status == 401 {
            let told = (response.json()["error"]["code"].clone(), response.all("www-authenticate").len());
            assert_eq!((told.0.as_str(), told.1 > 0), (Some("unauthorized"), true), "{row}: K8");
        }
        if passed > 0 {
            let head = String::from_utf8_lossy(&self.origin.last().head).into_owned();
            assert!(!head.contains(ALICE) && !head.contains(BOB), "{row}: {head}");
        }
        response
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Authorization: Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

#[test]
fn every_source_lets_a_good_key_in_and_is_cut() {
    let mut bench = Bench::start();
    let basic = basic("whoever", ALICE);
    for (row, target, field, seen) in [
        ("K19, K28, A14 to A18, A24, A25, E19", "/x", format!("X-Api-Key: {ALICE}"), "/x"),
        ("K19", "/x", format!("x-API-key:{ALICE}"), "/x"),
        ("K23", "/x", format!("api-key: {ALICE}"), "/x"),
        ("E2", "/x", format!("Authorization: Bearer {ALICE}"), "/x"),
        ("E2", "/x", format!("Authorization: bEARER   {ALICE}"), "/x"),
        ("clients 1", "/x", format!("Authorization: Apikey {ALICE}"), "/x"),
        ("clients 3", "/x", format!("Authorization: Api-Key {ALICE}"), "/x"),
        ("clients 3", "/x", format!("Authorization: token {ALICE}"), "/x"),
        ("basic", "/x", basic, "/x"),
        ("E24", "/x", format!("Cookie: keygate_session={ALICE}"), "/x"),
        ("K9, K13, K26, K27, E22", &format!("/x?api_key={ALICE}"), String::new(), "/x"),
        ("A12, A20, A21", &format!("/x?token={ALICE}"), String::new(), "/x"),
        ("K33", &format!("/x?b=2&api_key={ALICE}&a=1"), String::new(), "/x?b=2&a=1"),
        ("K34", &format!("/x?b=%2f+&api%5Fkey={ALICE}&a=%41"), String::new(), "/x?b=%2f+&a=%41"),
        ("A22", &format!("/x?api_key={ALICE}&&=&api_keys=1&Api_Key=2"), String::new(), "/x?&=&api_keys=1&Api_Key=2"),
        ("D9", "/x?api_key=alice%2dexample-key-48e8f859", String::new(), "/x"),
        ("A19, E8", &format!("/x?api_key={ALICE}&token={ALICE}"), format!("X-Api-Key: {ALICE}"), "/x"),
        ("E26", &format!("/x?token={ALICE}"), format!("Cookie: keygate_session={ALICE}; a=b"), "/x"),
        ("websocket_protocol", "/x", format!("Sec-WebSocket-Protocol: a, keygate.key.{ALICE}, b"), "/x"),
    ] {
        let fields: Vec<&str> = [field.as_str()].into_iter().filter(|field| !field.is_empty()).collect();
        bench.check(row, &format!("GET {target}"), &fields, &format!("200 alice {seen}"));
        let last = bench.origin.last();
        for gone in ["x-api-key", "api-key", "authorization"] {
            assert_eq!(last.one(gone), None, "{row}");
        }
        match row {
            "E26" => assert_eq!(last.one("cookie"), Some("a=b"), "E25"),
            "websocket_protocol" => assert_eq!(last.one("sec-websocket-protocol"), Some("a, b"), "G22"),
            _ => assert_eq!(last.one("cookie"), None, "{row}: E24"),
        }
    }
    assert_eq!(bench.origin.last().one("x-auth-key-id"), Some("48e8f859"), "K25, E21");
}

#[test]
fn bad_missing_and_doubled_keys_get_one_401() {
    let mut bench = Bench::start();
    let (good, bob) = (format!("X-Api-Key: {ALICE}"), format!("api-key: {BOB}"));
    let (query, bearer) = (format!("GET /x?api_key={ALICE}"), format!("Authorization: Bearer {BOB}"));
    let hash = "X-Api-Key: 6e87f34a127b2efbebc6b7329b94db222d67d7557b432f466cb70fdf9a51601f";
    let prefixed = "X-Api-Key: sha256:6e87f34a127b2efbebc6b7329b94db222d67d7557b432f466cb70fdf9a51601f";
    let huge = format!("X-Api-Key: {}", "k".repeat(8 * 1024));
    let rows: Vec<(&str, &str, Vec<&str>, &str)> = vec![
        ("K3, A7, E1", "GET /x", vec![], "401 missing"),
        ("K4", "GET /x", vec!["X-Api-Key:"], "401 missing"),
        ("K7", "GET /x?api_key", vec![], "401 missing"),
        ("K7", "GET /x?api_key=", vec![], "401 missing"),
        ("K2", "OPTIONS /x", vec![], "401 missing"),
        ("K10", "GET /x?api_key=wrong", vec![], "401 unknown"),
        ("K20, A6, E11", "GET /x", vec!["X-Api-Key: wrong"], "401 unknown"),
        ("K24", "GET /x", vec!["api-key: wrong"], "401 unknown"),
        ("R5", "GET /x", vec!["X-Api-Key: carol-key"], "401 disabled"),
        ("R5", "GET /x", vec!["X-Api-Key: dave-key"], "401 expired"),
        ("R5", "GET /x", vec!["X-Api-Key: erin-key"], "401 address"),
        ("K11", "GET /x?token=a&token=a", vec![], "401 conflict"),
        ("G4, E34", "GET /x", vec![&good, &good], "401 conflict"),
        ("G4, B2", "GET /x", vec![&good, "X-Api-Key: wrong"], "401 conflict"),
        ("G4, B2", "GET /x", vec!["X-Api-Key: wrong", &good], "401 conflict"),
        ("G5", "GET /x", vec![&good, &bob], "401 conflict"),
        ("G5", &query, vec![&bob], "401 conflict"),
        ("R6", "GET /x", vec![&good, &bearer], "401 conflict"),
        ("K18", "GET /x?api_key[]=alice-example-key-48e8f859", vec![], "401 missing"),
        ("K18", "GET /x?api_key%5b1%5d=alice-example-key-48e8f859", vec![], "401 missing"),
        ("B2", "GET /x?a=1;api_key=alice-example-key-48e8f859", vec![], "401 missing"),
        ("B2", "GET /x;api_key=alice-example-key-48e8f859", vec![], "401 missing"),
        ("K23", "GET /x", vec!["X_Api_Key: alice-example-key-48e8f859"], "401 missing"),
        ("A10, A11", "GET /x", vec!["Authorization: alice-example-key-48e8f859"], "401 missing"),
        ("A33", "GET /x", vec!["X-Api-Key: ${env:KEY}"], "401 unknown"),
        ("B2 pass the hash", "GET /x", vec![hash], "401 unknown"),
        ("B2 pass the hash", "GET /x", vec![prefixed], "401 unknown"),
        ("B2 swapped case", "GET /x", vec!["X-Api-Key: ALICE-EXAMPLE-KEY-48E8F859"], "401 unknown"),
        ("B2 suffix", "GET /x", vec!["X-Api-Key: alice-example-key-48e8f859x"], "401 unknown"),
        ("B2 prefix", "GET /x", vec!["X-Api-Key: alice-example-key-48e8f85"], "401 unknown"),
        ("D9", "GET /x?api_key=alice-example-key-48e8f859%00", vec![], "401 malformed"),
        ("D9", "GET /x?api_key=alice+example-key-48e8f859", vec![], "401 unknown"),
        ("G20", "GET /x", vec![&huge], "401 malformed"),
        ("basic", "GET /x", vec!["Authorization: Basic !!!"], "401 malformed"),
        ("basic", "GET /x", vec!["Authorization: Basic YWxpY2U="], "401 malformed"),
        ("B2", "GET /x", vec!["User-Agent: GoogleHC/1.0"], "401 missing"),
        ("B2", "GET /x", vec!["X-Forwarded-Uri: /open/x", "X-Original-URL: /open/"], "401 missing"),
        ("B2", "GET /x", vec!["X-Real-IP: 127.0.0.1", "X-Auth-User: alice"], "401 missing"),
        ("B2", "GET /x?/open/x", vec![], "401 missing"),
        ("E13", "GET /narrow/", vec!["api-key: alice-example-key-48e8f859"], "401 missing"),
        ("E13", "GET /narrow/?api_key=alice-example-key-48e8f859", vec![], "401 missing"),
        ("G1", "GET /x", vec!["Upgrade: x"], "401 missing"),
        ("G1", "GET /x", vec!["Connection: upgrade", "Upgrade: h2c"], "401 missing"),
        ("D4", "GET /v1/admin/x", vec!["X-Api-Key: wrong"], "401 unknown"),
        ("D3", "POST /v1/admin/x", vec![], "401 missing"),
        ("AA8, AA9", "GET /open/x", vec!["X-Api-Key: wrong"], "401 unknown"),
        ("AA10", "GET /open/x", vec!["X-Api-Key: carol-key"], "401 disabled"),
        ("AA11", "GET /open/x?token=carol-key", vec!["X-Api-Key: carol-key"], "401 disabled"),
    ];
    let first = bench.check("E32", "GET /x", &[], "401 missing");
    for (row, line, fields, want) in rows {
        let response = bench.check(row, line, &fields, want);
        // One answer (design rule 5): all but the id is the same, byte for byte.
        let without_id = |response: &Response| {
            let mut body = response.json();
            body["request_id"] = serde_json::Value::Null;
            let fields: Vec<_> = response.headers.iter().filter(|(n, _)| n != "X-Request-Id" && n != "Date").collect();
            format!("{} {body} {fields:?}", response.status)
        };
        // `/narrow/` takes one source and challenges for that alone.
        if !line.contains("narrow") {
            assert_eq!(without_id(&response), without_id(&first), "{row}");
        }
    }
    bench.check_raw("B2", b"GET /x HTTP/1.1\r\nHost: a\r\nX-Api-Key: \xff\xfe\r\n\r\n", "401 unknown");
    let last = bench.check("AR1, AR2, AR3, K6", "GET /x", &[], "401 missing");
    assert!(last.all("www-authenticate").contains(&"Bearer realm=\"keygate\""), "{:?}", last.headers);
    assert!(!last.all("www-authenticate").iter().any(|value| value.starts_with("Basic")), "D12");
    let page = bench.check("D12", "GET /x", &["Accept: text/html"], "401 missing");
    assert!(page.all("www-authenticate").iter().any(|value| value.starts_with("Basic")), "D12");
    assert_eq!(bench.origin.connections(), 0, "the upstream was never contacted");
    bench.check("B2 keep-alive", "GET /x", &[&good], "200 alice /x");
    bench.check("B2 keep-alive", "GET /x", &[], "401 missing");
}

#[test]
fn rights_methods_and_public_routes() {
    let mut bench = Bench::start();
    let (alice, bob) = (format!("X-Api-Key: {ALICE}"), format!("X-Api-Key: {BOB}"));
    let theirs = "Authorization: Bearer a-token-of-the-upstream";
    for (row, line, fields, want) in [
        ("E18", "GET /v1/x", vec![alice.as_str()], "200 alice /v1/x"),
        ("E17, E33", "GET /v1/x", vec![&bob], "403 forbidden"),
        ("E17", "GET /v1/admin/x", vec![&alice], "403 forbidden"),
        ("scopes", "GET /scoped/x", vec![&alice], "200 alice /scoped/x"),
        ("scopes", "GET /scoped/x", vec![&bob], "403 forbidden"),
        ("D3", "POST /v1/admin", vec![&alice], "405 method_not_allowed"),
        ("E13", "GET /narrow/x", vec![&alice], "200 alice /narrow/x"),
        ("K35, E31", "GET /open/x", vec![&alice], "200 alice /open/x"),
        ("K36", "GET /open/x", vec![], "200 - /open/x"),
        ("D8", "GET /open/x", vec![theirs], "200 - /open/x"),
        ("D8", "GET /open/x?token=theirs&a", vec![], "200 - /open/x?token=theirs&a"),
        ("R6", "GET /x", vec![&alice, theirs], "200 alice /x"),
        ("G19", "GET /open//x", vec![&bob], "200 bob /open//x"),
        ("G19", "GET /open/..%2fv1/x", vec![], "400 ambiguous_path"),
        ("G19", "GET /open/%2e%2e/v1/x", vec![], "400 ambiguous_path"),
        ("G19", "GET /v1//admin/x", vec![&alice], "400 ambiguous_path"),
        ("G19", "GET /v1/%61dmin/x", vec![&alice], "400 ambiguous_path"),
        ("G19", "GET /v1/ADMIN/x", vec![&alice], "400 ambiguous_path"),
        ("G19", "GET /v1/admin;a/x", vec![&alice], "400 ambiguous_path"),
        ("G19", "GET /v1/admin%2fx", vec![&alice], "400 ambiguous_path"),
    ] {
        // A path with two readings ends its connection.
        let response = bench.check(row, line, &fields, want);
        if response.status == 400 {
            bench.client = Client::connect(bench.gate.address(0));
        }
        if response.status == 405 {
            assert_eq!(response.one("allow"), Some("GET, HEAD"));
        }
        if fields.contains(&theirs) {
            let seen = bench.origin.last();
            assert_eq!(seen.one("authorization"), Some("Bearer a-token-of-the-upstream"), "{row}");
            assert_eq!(seen.one("x-api-key"), None, "{row}");
        }
    }
}

/// K48 of Kong's suite over our four kinds of source, 256 requests: ours refuses what disagrees, where Kong took the first.
#[test]
fn the_matrix_of_sources_follows_one_rule() {
    let mut bench = Bench::start();
    let values = [None, Some(ALICE), Some(BOB), Some("wrong")];
    let user = |key: &str| match key {
        ALICE => "200 alice /x".to_owned(),
        BOB => "200 bob /x".to_owned(),
        _ => "401 unknown".to_owned(),
    };
    for case in 0..256usize {
        let [header, query, bearer, cookie] = [0, 2, 4, 6].map(|shift| values[case >> shift & 3]);
        let line = query.map_or("GET /x".to_owned(), |key| format!("GET /x?api_key={key}"));
        let field = |name: &str, key: Option<&str>| key.map(|key| format!("{name}{key}"));
        let fields: Vec<String> = [
            field("X-Api-Key: ", header),
            field("Authorization: Bearer ", bearer),
            field("Cookie: keygate_session=", cookie),
        ]
        .into_iter()
        .flatten()
        .collect();
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let mut say: Vec<&str> = [header, query].into_iter().flatten().collect();
        let theirs = !say.is_empty() && bearer == Some("wrong");
        say.extend(bearer.filter(|_| !theirs));
        say.dedup();
        let want = match say.as_slice() {
            [] => cookie.map_or("401 missing".to_owned(), user),
            [key] => user(key),
            _ => "401 conflict".to_owned(),
        };
        let row = format!("K48 {case}");
        let response = bench.check(&row, &line, &fields, &want);
        if response.status == 200 {
            let authorization = bench.origin.last().one("authorization").map(str::to_owned);
            assert_eq!(authorization.as_deref(), theirs.then_some("Bearer wrong"), "{row}");
        }
        let cleared = say.is_empty() && cookie == Some("wrong");
        let set = response.one("set-cookie");
        assert_eq!(set.is_some_and(|set| set.starts_with("keygate_session=; ")), cleared, "{row}: D7");
    }
}

#[test]
fn bodies_are_no_source_and_no_second_request() {
    let mut bench = Bench::start();
    let hidden = format!("GET /x HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {ALICE}\r\n\r\n");
    let post = |fields: &str, body: &str| {
        format!("POST /x HTTP/1.1\r\nHost: gate.test\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    bench.check_raw("B2", post("", &hidden).as_bytes(), "401 missing");
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    bench.check_raw("K12", post(form, &format!("api_key={ALICE}")).as_bytes(), "401 missing");
    let keyed = format!("{form}X-Api-Key: {ALICE}\r\n");
    bench.check_raw("K14", post(&keyed, "api_key=other").as_bytes(), "200 alice /x");
    assert_eq!(bench.origin.last().body, b"api_key=other");
    let chunked = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    bench.check_raw("D6", chunked.as_bytes(), "401 missing");
}

#[test]
fn every_method_version_and_target_form_meets_the_same_gate() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    let key = format!("X-Api-Key: {ALICE}\r\n");
    for (row, bytes, status) in [
        ("G23", "HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 401),
        ("G23", format!("HEAD /x HTTP/1.1\r\nHost: a\r\n{key}\r\n"), 200),
        ("G23", format!("TRACE /x HTTP/1.1\r\nHost: a\r\n{key}\r\n"), 405),
        ("G23", format!("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n{key}\r\n"), 405),
        ("G23", format!("GET http://a/x HTTP/1.1\r\nHost: a\r\n{key}\r\n"), 400),
        ("G23", format!("OPTIONS * HTTP/1.1\r\nHost: a\r\n{key}\r\n"), 400),
        ("G23", "GET /x HTTP/1.0\r\n\r\n".to_owned(), 401),
        ("G23", format!("GET /x HTTP/1.0\r\n{key}\r\n"), 200),
        ("G20", format!("GET /x HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\0zz\r\n\r\n"), 400),
        ("B1", format!("GET /x HTTP/1.1\r\nHost: a\r\n: x\r\n{key}\r\n"), 400),
        ("B1", format!("GET /x HTTP/1.1\r\nHost: a, for=127.0.0.1\r\n{key}\r\n"), 400),
        ("GHSA-pxq7", "GET /x#/open/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("G20", format!("GET /x HTTP/1.1\r\nHost: a\r\nX-Api-Key: {}\r\n\r\n", "k".repeat(64 * 1024)), 431),
    ] {
        let before = origin.requests().len();
        let mut client = Client::connect(gate.address(0));
        client.send(&bytes);
        let response = client.read_for(bytes.split(' ').next().unwrap_or_default()).expect("an answer");
        assert_eq!((response.status, origin.requests().len() - before), (status, usize::from(status == 200)), "{row}");
    }
}

#[test]
fn an_expectation_is_answered_after_admission() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    let head = |key: &str| {
        format!("POST / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    };
    let mut client = Client::connect(gate.address(0));
    let refused = client.send(head("wrong")).read();
    assert_eq!((refused.status, refused.interim.len(), refused.one("connection")), (401, 0, Some("close")), "G24");
    let mut client = Client::connect(gate.address(0));
    client.send(head(ALICE)).send("abc");
    let passed = client.read();
    assert_eq!((passed.status, passed.interim), (200, vec![100]));
    assert_eq!((origin.only().body.as_slice(), origin.only().one("expect")), (b"abc".as_slice(), None));
}

#[test]
fn a_handshake_without_a_good_key_is_a_401_that_can_be_read() {
    let mut bench = Bench::start();
    let handshake = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    for (fields, want) in [
        (vec![], "401 missing"),
        (vec!["X-Api-Key: wrong"], "401 unknown"),
        (vec!["Sec-WebSocket-Protocol: chat, keygate.key.wrong"], "401 unknown"),
        (vec!["Sec-WebSocket-Protocol: keygate.key.a, openai-insecure-api-key.b"], "401 conflict"),
    ] {
        bench.check("G2", "GET /x", &[handshake.as_slice(), &fields].concat(), want);
    }
    assert_eq!(bench.origin.connections(), 0);
}

#[test]
fn grpc_callers_are_refused_with_a_grpc_status() {
    let origin = Origin::ok();
    let routes = "  - { path: /, upstream: app, roles: [client], limits: { requests: 1, per: 1h } }\n";
    let gate = Gateway::start(&config_with(&origin, routes, ""));
    for (row, key, status) in
        [("K21", "", "16"), ("K21", "wrong", "16"), ("E17", BOB, "7"), ("K22", ALICE, ""), ("R2", ALICE, "8")]
    {
        let response = get(gate.address(0), "/x", &[("Content-Type", "application/grpc"), ("X-Api-Key", key)]);
        assert_eq!((response.status, response.one("grpc-status").unwrap_or_default()), (200, status), "{row}");
        assert_eq!(response.one("grpc-message").is_some(), !status.is_empty(), "{row}");
        assert_eq!(response.one("retry-after").is_some(), status == "8", "{row}: headers are there too");
        assert_eq!(response.one("ratelimit").is_some(), key == ALICE, "{row}");
    }
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn a_key_ends_at_its_time_without_a_restart_and_after_a_reload() {
    let origin = Origin::ok();
    let ends = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(1500);
    let keys = keys_with(&[entry("e4d50000", "frank", "frank-key", &format!("    expires: {ends}\n"))]);
    let gate = Gateway::start_with(&config(&origin), &keys, &[]);
    let ask = || get(gate.address(0), "/", &[("X-Api-Key", "frank-key")]).status;
    let before = ask();
    assert!(before == 200 || jiff::Timestamp::now() >= ends, "K46");
    eventually("the key expires", || (ask() == 401).then_some(()));
    assert!(jiff::Timestamp::now() >= ends, "K46: not before its time");
    let digest = |page: String| page.lines().find(|line| line.starts_with("keygate_keyfile_info")).map(str::to_owned);
    let old = digest(gate.metrics());
    gate.replace_keys(&format!("# another file\n{keys}"));
    eventually("the reload", || (digest(gate.metrics()) != old).then_some(()));
    assert_eq!(ask(), 401, "K47");
}

#[test]
fn twenty_new_keys_are_good_on_a_connection_that_was_open_before() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    let mut client = Client::connect(gate.address(0));
    let mut ask =
        |key: &str| client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\n\r\n")).read().status;
    assert_eq!(ask("new-key-7"), 401, "A8");
    let new: Vec<String> = (0..20).map(|n| entry(&format!("new{n}"), "grace", &format!("new-key-{n}"), "")).collect();
    gate.replace_keys(&keys_with(&new));
    eventually("the new keys are in force", || (ask("new-key-7") == 200).then_some(()));
    assert_eq!([0, 19, 20].map(|n| ask(&format!("new-key-{n}"))), [200, 200, 401], "A8");
}

#[test]
fn a_limit_counts_right_before_an_upstream_with_a_name() {
    let origin = Origin::ok();
    let named = origin.address().replace("127.0.0.1", "localhost");
    let limits = "limits: { default: { requests: 2, per: 1h } }\n";
    let config = config_with(&origin, "  - { path: /, upstream: app }\n", limits).replace(&origin.address(), &named);
    assert!(config.contains("localhost:"), "{config}");
    let gate = Gateway::start(&config);
    let ask = |key| get(gate.address(0), "/", &[("X-Api-Key", key)]).status;
    assert_eq!([ALICE, ALICE, ALICE, BOB].map(ask), [200, 200, 429, 200], "AU");
    assert_eq!(origin.requests().len(), 3);
}

#[test]
fn the_realm_is_the_operators() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config_with(&origin, "  - { path: /, upstream: app }\n", "realm: The lab\n"));
    let refused = get(gate.address(0), "/", &[]);
    let challenges = refused.all("www-authenticate");
    assert!(
        !challenges.is_empty() && challenges.iter().all(|it| it.ends_with(" realm=\"The lab\"")),
        "AR3, AR4: {challenges:?}"
    );
}
