//! What the upstream sees. Rows are named by the suite ids of the research notes, decisions (D) and design rules (R).

use proptest::prelude::*;

use super::*;
use crate::credential::{self, Accepts};
use crate::http1::request::sample::Sample;
use crate::key::ApiKey;

const GOOD: &str = "alice-example-key-48e8f859";
const CALLER: Caller<'static> =
    Caller { user: "alice", key_id: "48e8f859", roles: "client,miner", scopes: "jobs:write read:metadata" };

/// What the gate adds for [`CALLER`] on a plain listener, after the client's own fields.
const OURS: &[&str] = &[
    "X-Forwarded-For: 192.0.2.7",
    "X-Forwarded-Proto: http",
    "X-Forwarded-Host: gate.lan",
    "X-Request-Id: 0102",
    "X-Auth-User: alice",
    "X-Miner-ID: alice",
    "X-Auth-Key-Id: 48e8f859",
    "X-Auth-Roles: client,miner",
    "X-Auth-Scopes: jobs:write read:metadata",
];

fn names(names: &[&str]) -> Vec<Box<str>> {
    names.iter().copied().map(Box::from).collect()
}

fn sources() -> Sources {
    let schemes = names(&["Bearer", "Apikey"]);
    Sources::new(&credential::Settings {
        sources: vec![
            Source::Header { name: "x-api-key".into() },
            Source::Scheme { name: "authorization".into(), schemes },
            Source::Query { name: "api_key".into(), browser_login: true },
            Source::WebSocketProtocol { prefix: "keygate.key.".into() },
            Source::Basic,
            Source::Cookie { name: "keygate_session".into() },
        ],
        realm: "keygate".into(),
    })
}

fn policy() -> Policy {
    let settings = Settings {
        user: names(&["X-Auth-User", "X-Miner-ID"]),
        key_id: names(&["X-Auth-Key-Id"]),
        roles: names(&["X-Auth-Roles"]),
        scopes: names(&["X-Auth-Scopes"]),
        trusted_proxies: Vec::new(),
    };
    Policy::new(&settings, Arc::new(sources()))
}

fn request_id() -> RequestId {
    RequestId::sent(Sample::get("/", &["X-Request-Id: 0102"]).request()).unwrap()
}

fn forward(request_id: &RequestId) -> Forward<'_> {
    Forward {
        who: Who::Caller(CALLER),
        untouched: Untouched::default(),
        client_address: "192.0.2.7".parse().ok(),
        peer_trusted: false,
        scheme: Scheme::Http,
        host: b"gate.lan",
        request_id,
        framing: Framing::None,
        protocol: Protocol::Http1,
        strip_prefix: "",
        methods_listed: false,
        set_headers: &[],
    }
}

/// Request line and fields as the upstream gets them.
fn written(sample: &Sample, forward: &Forward<'_>) -> (String, Vec<String>) {
    let mut out = Vec::new();
    policy().write_request_head(&mut out, sample.request(), forward);
    let text: String = out.iter().copied().map(char::from).collect();
    let head = text.strip_suffix("\r\n\r\n").expect("a blank line ends the head");
    let mut lines = head.split("\r\n").map(str::to_owned);
    (lines.next().unwrap(), lines.collect())
}

/// Checks that of the client's fields exactly `kept` pass, in order, between `Host` and ours.
#[track_caller]
fn check(row: &str, fields: &[&str], forward: &Forward<'_>, kept: &[&str]) {
    let sent: Vec<&str> = ["Host: gate.lan"].iter().chain(fields).copied().collect();
    let (_, got) = written(&Sample::get("/", &sent), forward);
    let want: Vec<&str> = ["Host: gate.lan"].iter().chain(kept).chain(OURS).copied().collect();
    assert_eq!(got, want, "{row}: {fields:?}");
}

#[test]
fn identity_headers_are_ours_alone() {
    let id = request_id();
    let forward = forward(&id);
    for (row, fields) in [
        ("B1 CVE-2026-30851", vec!["X-Auth-User: admin"]),
        ("B1 CVE-2025-64484", vec!["X_Auth_User: admin"]),
        ("B1 CVE-2026-88011", vec!["X.Auth.User: admin", "x~auth!roles: admin", "X-Auth_Scopes: *"]),
        ("B1 CVE-2026-33433", vec!["x-auth-user: admin", "X-AUTH-USER: root"]),
        ("G6", vec!["X-Miner-Id: bob", "x_miner.id: bob", "X-Auth-Key-ID: 1"]),
        ("G7 CVE-2024-45410", vec!["Connection: close, X-Auth-User"]),
        ("G7 CVE-2026-29054", vec!["Connection: close, x-auth-user, x-forwarded-for", "X-Auth-User: admin"]),
        ("G7 the key header", vec!["Connection: X-Api-Key", "X-Api-Key: K"]),
        ("B1 GO-2026-6874", vec!["Connection: close, X-Hop", "X-Hop: v", "Proxy-Authorization: Basic x"]),
        ("B1 CVE-2024-45614", vec!["X_Forwarded_For: 127.0.0.1", "X-Forwarded-For: 127.0.0.1"]),
        ("3B", vec!["X-Forwarded-Prefix: /a", "X-Forwarded-User: root", "x.forwarded.port: 1"]),
        ("B2 CVE-2022-24112", vec!["X-Real-IP: 127.0.0.1", "Forwarded: for=127.0.0.1", "X_Real_IP: ::1"]),
        ("B2 CVE-2026-40575", vec!["X-Forwarded-Uri: /public/x", "X-Original-URL: /public/x", "X-Rewrite-Url: /"]),
        ("CVE-2016-5385", vec!["Proxy: http://evil"]),
        ("R2", vec!["Transfer_Encoding: chunked", "Content.Length: 5"]),
        ("A3 8", vec!["Upgrade: h2c", "HTTP2-Settings: AAA", "Connection: Upgrade, HTTP2-Settings"]),
        (
            "hop by hop",
            vec!["Keep-Alive: timeout=5", "TE: trailers", "Proxy-Connection: close", "Expect: 100-continue"],
        ),
        ("A3 8 not nominated", vec!["HTTP2-Settings: AAA", "Upgrade: websocket"]),
        ("request id", vec!["X-Request-ID: mine", "X_Request_Id: mine"]),
        ("Trailer without trailers", vec!["Trailer: X-Auth-User"]),
    ] {
        check(row, &fields, &forward, &[]);
    }
}

#[test]
fn other_fields_pass_as_they_came() {
    let id = request_id();
    let fields = [
        "user-agent: curl/8",
        "ACCEPT: */*",
        "X-Authentic-User: x",
        "X-Auth-Users: x",
        "X-Goog-Api-Key: x",
        "If-None-Match: bare-etag",
        "Accept-Encoding: blosc2, gzip",
        "X-Twice: 1",
        "X-Twice: 2",
        "Cookie: a=1; b=\"2\"",
        "Referer: https://gate.lan/a?b=%2C",
        "Empty: ",
        "Origin: https://x",
        "X-Close: c",
    ];
    let mut sent = fields.to_vec();
    sent.insert(3, "Connection: close");
    check("A18", &sent, &forward(&id), &fields);
}

#[test]
fn credentials_stay_here() {
    let id = request_id();
    let base = forward(&id);
    for (row, fields, kept) in [
        ("A16 E20", vec!["X-Api-Key: K", "A: b"], vec!["A: b"]),
        ("K23", vec!["X_Api_Key: K", "x.api.key: K", "x-API-key: K"], vec![]),
        ("E20", vec!["Authorization: Bearer K"], vec![]),
        ("E24", vec!["Cookie: keygate_session=K"], vec![]),
        ("E25", vec!["Cookie: a=1; keygate_session=K", "X: y", "Cookie: b=2"], vec!["Cookie: a=1; b=2", "X: y"]),
        ("G22", vec!["Sec-WebSocket-Protocol: chat, keygate.key.K"], vec!["Sec-WebSocket-Protocol: chat"]),
        ("D11", vec!["Sec-WebSocket-Protocol: keygate.key.K"], vec![]),
        ("G22 twin", vec!["Sec_WebSocket_Protocol: keygate.key.K"], vec![]),
        ("R4", vec!["Referer: https://gate.lan/?api_key=K&a=1"], vec!["Referer: https://gate.lan/?a=1"]),
    ] {
        check(row, &fields, &base, &kept);
    }
}

/// What `find` leaves to the upstream passes, and nothing else does.
#[test]
fn what_is_the_upstreams_passes() {
    let id = request_id();
    let known = |key: &[u8]| key == GOOD.as_bytes();
    let key = format!("X-Api-Key: {GOOD}");
    let ours = format!("Authorization: Bearer {GOOD}");
    let narrow = Accepts { sources: Some(&[1]), public: false };
    for (row, accepts, target, fields, line, kept) in [
        (
            "R6",
            Accepts::default(),
            "/",
            vec![&*key, "Authorization: Bearer jwt"],
            "/",
            vec!["Authorization: Bearer jwt"],
        ),
        ("R6", Accepts::default(), "/", vec![&*key, &*ours], "/", vec![]),
        ("D8", narrow, "/?api_key=app", vec![&*ours, "X-Api-Key: app"], "/?api_key=app", vec!["X-Api-Key: app"]),
        ("D8 twin", narrow, "/", vec![&*ours, "x_api_key: app", "X-API-Key: app"], "/", vec!["X-API-Key: app"]),
        ("R4", narrow, "/", vec![&*ours, &*key], "/", vec![]),
        ("A23 alt", Accepts::default(), "/?api_key=alice-example-key-48e8f859", vec![&*key], "/", vec![]),
    ] {
        let sample = Sample::get(target, &fields);
        let found = sources().find(sample.request(), accepts, known).unwrap();
        let (request_line, got) = written(&sample, &Forward { untouched: found.untouched, ..forward(&id) });
        assert_eq!(request_line, format!("GET {line} HTTP/1.1"), "{row}");
        let passed: Vec<&String> = got.iter().filter(|field| fields.contains(&field.as_str())).collect();
        assert_eq!(passed, kept, "{row}");
    }
}

#[test]
fn targets_lose_prefix_and_key() {
    let id = request_id();
    let base = Forward { strip_prefix: "/api/", ..forward(&id) };
    for (target, want) in [
        ("/api/v1?api_key=K", "/v1"),
        ("/api?b=%2f&api_key=K", "/?b=%2f"),
        ("/api/a%2Fb//c;d?x", "/a%2Fb//c;d?x"),
        ("/apis", "/apis"),
    ] {
        let (line, _) = written(&Sample::get(target, &[] as &[&str]), &base);
        assert_eq!(line, format!("GET {want} HTTP/1.1"), "{target}");
    }
    let (line, _) = written(&Sample::new(b"MKCOL /x HTTP/1.0", &[] as &[&str]), &forward(&id));
    assert_eq!(line, "MKCOL /x HTTP/1.1", "one version is spoken upstream");
}

#[test]
fn nobody_known_means_no_identity() {
    let id = request_id();
    let public = Forward { who: Who::Anonymous, ..forward(&id) };
    let sample = Sample::get("/", &["Host: gate.lan", "X_Auth_User: admin", "X-Auth-Roles: admin"]);
    let (_, got) = written(&sample, &public);
    assert_eq!(got[1..], OURS[..4], "G6 K36");
    let unix = Forward { client_address: None, ..public };
    let (_, got) = written(&sample, &unix);
    assert_eq!(got[1..], OURS[1..4], "D25: no address, no X-Forwarded-For");
    let caller = Caller { roles: "", scopes: "", ..CALLER };
    let (_, got) = written(&sample, &Forward { who: Who::Caller(caller), ..forward(&id) });
    assert_eq!(got[1..], OURS[..7], "no roles, no header, and not the client's");
}

#[test]
fn trusted_proxies_are_believed() {
    let id = request_id();
    let trusted = Forward { peer_trusted: true, client_address: "2001:db8::9".parse().ok(), ..forward(&id) };
    let fields = [
        "Host: inner:9100",
        "X-Forwarded-For: 127.0.0.1, 2001:db8::9",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: public.example",
        "X-Forwarded-Port: 443",
        "X-Real-IP: 2001:db8::9",
        "Forwarded: for=\"[2001:db8::9]\"",
        "X_Forwarded_Port: 1",
        "X_Real_IP: ::1",
    ];
    let (_, got) = written(&Sample::get("/", &fields), &trusted);
    assert_eq!(
        got[..8],
        [
            "Host: gate.lan",
            "X-Forwarded-Port: 443",
            "X-Real-IP: 2001:db8::9",
            "Forwarded: for=\"[2001:db8::9]\"",
            "X-Forwarded-For: 2001:db8::9",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: public.example",
            "X-Request-Id: 0102",
        ]
    );
}

#[test]
fn set_headers_replace_and_stay_off_preflights() {
    let id = request_id();
    let set: Vec<(Box<str>, HeaderSecret)> = vec![
        ("X-Api-Key".into(), HeaderSecret::new(b"UPSTREAM")),
        ("Authorization".into(), HeaderSecret::new(b"Apikey UPSTREAM")),
        ("X-Plain".into(), HeaderSecret::new(b"1")),
    ];
    let known = |key: &[u8]| key == GOOD.as_bytes();
    let key = format!("X-Api-Key: {GOOD}");
    let fields = ["Host: gate.lan", &key, "Authorization: Bearer app", "x_plain: 2", "X-PLAIN: 3", "Other: 4"];
    let sample = Sample::get("/", &fields);
    let untouched = sources().find(sample.request(), Accepts::default(), known).unwrap().untouched;
    assert!(untouched.authorization());
    let (_, got) = written(&sample, &Forward { set_headers: &set, untouched, ..forward(&id) });
    let tail = ["X-Api-Key: UPSTREAM", "Authorization: Apikey UPSTREAM", "X-Plain: 1"];
    let want: Vec<&str> = ["Host: gate.lan", "Other: 4"].iter().chain(OURS).chain(&tail).copied().collect();
    assert_eq!(got, want, "D24");

    let preflight = Forward { who: Who::Preflight, set_headers: &set[2..], untouched, ..forward(&id) };
    let fields = [
        "Host: gate.lan",
        "Origin: https://a",
        "Access-Control-Request-Method: PUT",
        "Access-Control-Request-Headers: x-api-key",
        "Authorization: Bearer app",
        "Cookie: app=1",
        &key,
    ];
    let sample = Sample::new(b"OPTIONS /x HTTP/1.1", &fields);
    let (_, got) = written(&sample, &preflight);
    let want: Vec<&str> = fields[..4].iter().chain(&OURS[..4]).copied().collect();
    assert_eq!(got, want, "D24 K1");
    let narrow = Accepts { sources: Some(&[3]), public: false };
    let untouched = sources().find(sample.request(), narrow, |_| false).unwrap().untouched;
    assert!(untouched.source(0) && untouched.authorization());
    let (_, got) = written(&sample, &Forward { untouched, ..preflight });
    assert_eq!(got, want, "D24: whoever it belongs to");
}

#[test]
fn without_a_source_in_it_authorization_passes_unless_it_holds_our_key() {
    let id = request_id();
    let settings = credential::Settings { sources: Vec::new(), realm: "g".into() };
    let sources = Arc::new(Sources::new(&settings));
    let policy = Policy::new(&Settings::default(), sources.clone());
    let known = |key: &[u8]| key == b"ours";
    for (who, value, want) in [
        (Who::Anonymous, "Bearer app", true),
        (Who::Caller(CALLER), "Bearer app", true),
        (Who::Caller(CALLER), "app", true),
        (Who::Preflight, "Bearer app", false),
        (Who::Anonymous, "Bearer ours", false),
        (Who::Caller(CALLER), "Bearer ours", false),
        (Who::Caller(CALLER), "ours", false),
        (Who::Caller(CALLER), "Basic dTpvdXJz", false),
    ] {
        let authorization = format!("Authorization: {value}");
        let sample = Sample::get("/", &[&authorization, "X-Api-Key: app", "Cookie: keygate_session=app"]);
        let untouched = sources.find(sample.request(), Accepts::default(), known).expect("nothing to refuse").untouched;
        let mut out = Vec::new();
        policy.write_request_head(&mut out, sample.request(), &Forward { who, untouched, ..forward(&id) });
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.contains(&authorization), want, "{who:?} {value}");
        let preflight = matches!(who, Who::Preflight);
        assert_eq!(text.contains("Cookie: keygate_session=app\r\n"), !preflight, "{who:?}");
        assert!(text.contains("X-Api-Key: app\r\n") && !text.contains("alice"));
    }
}

#[test]
fn where_methods_are_listed_no_header_names_another() {
    let id = request_id();
    let lines = ["X-HTTP-Method-Override: DELETE", "x-http-method: DELETE", "X-Method-Override: DELETE"];
    let sample = Sample::get("/", &lines);
    let free = written(&sample, &forward(&id)).1;
    assert!(lines.iter().all(|line| free.iter().any(|field| field == line)), "{free:?}");
    let (_, listed) = written(&sample, &Forward { methods_listed: true, ..forward(&id) });
    assert!(!listed.iter().any(|field| field.to_lowercase().contains("method")), "{listed:?}");
    let twin = Sample::get("/", &["X_HTTP_Method_Override: DELETE"]);
    assert!(!written(&twin, &forward(&id)).1.iter().any(|field| field.contains("DELETE")));
}

#[test]
fn framing_and_upgrade_are_written_anew() {
    let id = request_id();
    let sample = Sample::get(
        "/",
        &[
            "Host: gate.lan",
            "content-length: 005",
            "Transfer-Encoding: chunked",
            "Connection: keep-alive, Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "TE: trailers",
            "Trailer: X-Sum",
        ],
    );
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    for (row, framing, protocol, kept, tail) in [
        ("none", Framing::None, Protocol::Http1, vec![key], vec![]),
        ("length", Framing::Length(5), Protocol::Http1, vec![key, "Content-Length: 5"], vec![]),
        ("zero", Framing::Length(0), Protocol::Http1, vec![key, "Content-Length: 0"], vec![]),
        (
            "chunked",
            Framing::Chunked,
            Protocol::Http1,
            vec![key, "Trailer: X-Sum", "Transfer-Encoding: chunked"],
            vec![],
        ),
        ("G2", Framing::None, Protocol::WebSocket, vec![key], vec!["Connection: Upgrade", "Upgrade: websocket"]),
        ("gRPC", Framing::None, Protocol::Http2, vec![key, "TE: trailers", "Trailer: X-Sum"], vec![]),
    ] {
        let (_, got) = written(&sample, &Forward { framing, protocol, ..forward(&id) });
        let want: Vec<&str> = ["Host: gate.lan"].iter().chain(&kept).chain(OURS).chain(&tail).copied().collect();
        let (mut got, mut want) = (got, want);
        // Where among our own fields the framing stands does not matter.
        got.sort();
        want.sort_unstable();
        assert_eq!(got, want, "{row}");
    }
}

#[test]
fn trailers_cannot_pass_for_guarded_fields() {
    let set: Vec<(Box<str>, HeaderSecret)> = vec![("X-Secret".into(), HeaderSecret::new(b"1"))];
    for (name, want) in [
        ("X-Checksum", true),
        ("Digest", true),
        ("X-Auth-User", false),
        ("x_auth.user", false),
        ("X-Api-Key", false),
        ("Authorization", false),
        ("Cookie", false),
        ("Content-Length", false),
        ("Transfer-Encoding", false),
        ("Host", false),
        ("X-Forwarded-For", false),
        ("X-Forwarded-Anything", false),
        ("X_Secret", false),
        ("Content-Type", false),
    ] {
        assert_eq!(policy().keeps_trailer(name.as_bytes(), &set), want, "B1 trailers: {name}");
    }
}

/// Names that are, fold to, or nearly are, reserved ones.
fn field_name() -> impl Strategy<Value = String> {
    let reserved = prop::sample::select(vec![
        "x-auth-user",
        "x-miner-id",
        "x-auth-roles",
        "x-api-key",
        "x-request-id",
        "x-forwarded-for",
        "x-forwarded-proto",
        "content-length",
        "transfer-encoding",
        "x-free-field",
    ]);
    let separators = prop::collection::vec(prop::sample::select(b"-_.~!#$%&'*+^`|".to_vec()), 3);
    (reserved, separators, any::<u32>()).prop_map(|(name, separators, case)| {
        let mut separators = separators.into_iter().map(char::from).cycle();
        let spell = |(at, letter): (usize, char)| match letter {
            '-' => separators.next().unwrap(),
            letter if case >> (at % 32) & 1 == 1 => letter.to_ascii_uppercase(),
            letter => letter,
        };
        name.chars().enumerate().map(spell).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_spelling_of_our_names_survives(
        names in prop::collection::vec(field_name(), 0..12),
        nominated in prop::collection::vec(field_name(), 0..4),
        anonymous: bool,
    ) {
        let id = request_id();
        let mut fields: Vec<String> = names.iter().map(|name| format!("{name}: forged")).collect();
        fields.push(format!("Connection: {}", nominated.join(",")));
        let who = if anonymous { Who::Anonymous } else { Who::Caller(CALLER) };
        let (_, got) = written(&Sample::get("/", &fields), &Forward { who, ..forward(&id) });
        let fold = |name: &str| name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-").to_ascii_lowercase();
        for line in &got {
            let name = line.split(':').next().unwrap();
            prop_assert!(!line.ends_with("forged") || fold(name) == "x-free-field", "{line}");
        }
        let mut folded: Vec<String> = got.iter().map(|line| fold(line.split(':').next().unwrap())).collect();
        folded.retain(|name| name != "x-free-field");
        let total = folded.len();
        folded.sort();
        folded.dedup();
        prop_assert_eq!(folded.len(), total, "each of ours stands once");
        prop_assert_eq!(folded.iter().any(|name| name == "x-auth-user"), !anonymous);
    }

    /// The planted key, raw or percent-encoded, in every source at once or some of them.
    #[test]
    fn a_key_never_leaves(places in 0u32..512, encode: bool, public: bool, narrow in prop::option::of(0usize..6)) {
        use base64::Engine as _;
        let key = ApiKey::generate(None, |bytes| bytes.fill(9));
        let key = key.expose_secret();
        let coded: String = key.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let base64 = base64::engine::general_purpose::STANDARD.encode(format!("u:{key}"));
        let in_query = if encode { &*coded } else { key };
        let chosen = |place: u32| places >> place & 1 == 1;
        let mut target = "/p?a=1".to_owned();
        if chosen(0) { target += &format!("&api%5Fkey={in_query}") }
        if chosen(1) { target += &format!("&b=2&api_key={in_query}&c") }
        let all = [
            format!("X-Api-Key: {key}"),
            format!("x_api_key: {key}"),
            format!("Authorization: Bearer {key}"),
            format!("Authorization: Basic {base64}"),
            format!("Cookie: a=b; keygate_session={key}"),
            format!("Sec-WebSocket-Protocol: chat, keygate.key.{key}"),
            format!("Referer: https://gate.lan/?api_key={in_query}"),
        ];
        let fields: Vec<&String> = all.iter().enumerate().filter(|(at, _)| chosen(*at as u32 + 2)).map(|(_, f)| f).collect();
        let sample = Sample::get(&target, &fields);
        let narrow = narrow.map(|index| [index]);
        let accepts = Accepts { sources: narrow.as_ref().map(<[usize; 1]>::as_slice), public };
        let id = request_id();
        if let Ok(found) = sources().find(sample.request(), accepts, |bytes| bytes == key.as_bytes()) {
            let (line, got) = written(&sample, &Forward { untouched: found.untouched, ..forward(&id) });
            let head = format!("{line}\n{}", got.join("\n"));
            for form in [key, &coded, &base64] {
                prop_assert!(!head.contains(form), "{head}");
            }
            prop_assert!(line.starts_with("GET /p?a=1"));
        }
    }
}
