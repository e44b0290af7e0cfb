//! Rows are named by their ids in the suites of other gateways (K Kong, A APISIX, E Envoy, G and B2 our own lists) or by
//! the decision (D) or design rule (R) that settles them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;
use crate::http1::request::sample::Sample;
use crate::key::{ApiKey, MAX_KEY_BYTES, is_own_format};

use AuthFailure::{Conflict, Malformed};

const GOOD: &str = "alice-example-key-48e8f859";
const OTHER: &str = "bob-example-key-ba9af604";

/// Index of each source in [`contract`].
const X_API_KEY: usize = 0;
const SCHEMES: usize = 2;
const API_KEY: usize = 3;
const TOKEN: usize = 4;
const PROTOCOL: usize = 5;
const OPENAI: usize = 6;
const BASIC: usize = 7;
const COOKIE: usize = 8;

const GUARDED: Accepts<'static> = Accepts { sources: None, public: false };
const PUBLIC: Accepts<'static> = Accepts { sources: None, public: true };

/// The sources of the configuration contract.
fn contract() -> Settings {
    let schemes = ["Bearer", "Apikey", "Api-Key", "Token"].map(Box::from).to_vec();
    Settings {
        sources: vec![
            Source::Header { name: "x-api-key".into() },
            Source::Header { name: "api-key".into() },
            Source::Scheme { name: "authorization".into(), schemes },
            Source::Query { name: "api_key".into(), browser_login: true },
            Source::Query { name: "token".into(), browser_login: false },
            Source::WebSocketProtocol { prefix: "keygate.key.".into() },
            Source::WebSocketProtocol { prefix: "openai-insecure-api-key.".into() },
            Source::Basic,
            Source::Cookie { name: "keygate_session".into() },
        ],
        realm: "keygate".into(),
    }
}

fn sources() -> Sources {
    Sources::new(&contract())
}

/// A key of our own format that is in no key file.
fn own_key() -> String {
    ApiKey::generate(None, |bytes| bytes.fill(11)).expose_secret().to_owned()
}

/// The key file of these tests; what is asked of it is never over-long.
fn known(key: &[u8]) -> bool {
    assert!(!key.is_empty() && key.len() <= MAX_KEY_BYTES);
    key == GOOD.as_bytes() || key == OTHER.as_bytes() || is_own_format(key)
}

fn basic(user: &str, password: &str) -> String {
    format!("Authorization: Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// What a row wants: the key and its source, nothing, or a failure.
type Want<'w> = Result<Option<(&'w str, usize)>, AuthFailure>;

#[track_caller]
fn check(row: &str, accepts: Accepts<'_>, target: &str, fields: &[&str], want: Want<'_>) -> Untouched {
    let (sample, sources) = (Sample::get(target, fields), sources());
    let found = sources.find(sample.request(), accepts, known);
    let got = found
        .as_ref()
        .map(|found| found.presented.as_ref().map(|presented| (presented.expose_secret(), presented.source())));
    let want = want.map(|want| want.map(|(key, source)| (key.as_bytes(), source)));
    assert_eq!(got.map_err(|failure| *failure), want, "{row}: {target} {fields:?}");
    found.map(|found| found.untouched).unwrap_or_default()
}

fn good(source: usize) -> Want<'static> {
    Ok(Some((GOOD, source)))
}

#[test]
fn each_source_is_read() {
    let guarded = |row, target: &str, fields: &[&str], want| check(row, GUARDED, target, fields, want);
    guarded("K3 K8 E1 E15 A7", "/", &[], Ok(None));
    guarded("K4", "/", &["X-Api-Key:"], Ok(None));
    guarded("K4 blanks", "/", &["X-Api-Key:  \t "], Ok(None));
    guarded("K7", "/?api_key", &[], Ok(None));
    guarded("K7", "/?api_key=", &[], Ok(None));
    guarded("K9 A13 E3 E5", &format!("/?api_key={GOOD}"), &[], good(API_KEY));
    guarded("K10", "/?api_key=wrong", &[], Ok(Some(("wrong", API_KEY))));
    guarded("K18", &format!("/?api_key[]={GOOD}"), &[], Ok(None));
    guarded("K18", &format!("/?api_key%5B1%5D={GOOD}"), &[], Ok(None));
    guarded("K19 K22 A5", "/", &[&format!("X-Api-Key: {GOOD}")], good(X_API_KEY));
    guarded("K20 K24 A6 E11", "/", &["X-Api-Key: wrong"], Ok(Some(("wrong", X_API_KEY))));
    guarded("K23 alt", "/", &[&format!("x_api_key: {GOOD}")], Ok(None));
    guarded("K23 alt", "/", &[&format!("api_key: {GOOD}")], Ok(None));
    guarded("K34", &format!("/?a=1&api%5fkey={GOOD}"), &[], good(API_KEY));
    guarded("A10 alt: no scheme", "/", &[&format!("Authorization: {GOOD}")], Ok(None));
    guarded("A33", "/", &["X-Api-Key: ${env:KEY}"], Ok(Some(("${env:KEY}", X_API_KEY))));
    for scheme in ["Bearer", "bearer", "BEARER", "Apikey", "api-key", "tOkEn"] {
        guarded("E2 D9", "/", &[&format!("Authorization: {scheme} {GOOD}")], good(SCHEMES));
        guarded("E2 D9", "/", &[&format!("authorization: {scheme} \t {GOOD} ")], good(SCHEMES));
    }
    guarded("D9 no key after the scheme", "/", &["Authorization: Bearer"], Ok(None));
    guarded("R6 a foreign scheme is not ours", "/", &["Authorization: Digest abc"], Ok(None));
    guarded("R6 no blank, no scheme", "/", &[&format!("Authorization: Bearer:{GOOD}")], Ok(None));
    guarded("K23 K24 B2 keycloak", "/", &[&format!("x-aPI-kEY: {GOOD}")], good(X_API_KEY));
    guarded("E4 E6", "/", &[&format!("Cookie: a=1; keygate_session={GOOD}; b")], good(COOKIE));
    guarded("E4", "/", &["Cookie: a=1; xkeygate_session=x; KEYGATE_SESSION=y"], Ok(None));
    guarded("D9 cookie lines", "/", &["Cookie: a=1", &format!("Cookie: keygate_session={GOOD}")], good(COOKIE));
    guarded("B2 body, fragment, matrix", &format!("/;api_key={GOOD}"), &[], Ok(None));
    guarded("B2 semicolon", &format!("/?a=1;api_key={GOOD}"), &[], Ok(None));
    guarded("B2 CVE-2025-54576", &format!("/private?/public/x&api_key={GOOD}"), &[], good(API_KEY));
}

#[test]
fn websocket_protocols_carry_keys() {
    let guarded = |row, fields: &[&str], want| check(row, GUARDED, "/", fields, want);
    let item = format!("keygate.key.{GOOD}");
    guarded("G22", &[&format!("Sec-WebSocket-Protocol: chat,{item} , v2")], good(PROTOCOL));
    guarded("G22", &["sec-websocket-protocol: chat", &format!("Sec-WebSocket-Protocol: {item}")], good(PROTOCOL));
    guarded("G22 alone", &[&format!("Sec-WebSocket-Protocol: {item}")], good(PROTOCOL));
    let openai = format!("Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.{GOOD}");
    guarded("G22 openai", &[&openai], good(OPENAI));
    guarded("G22 case", &[&format!("Sec-WebSocket-Protocol: KeyGate.Key.{GOOD}")], Ok(None));
    guarded("G22 empty", &["Sec-WebSocket-Protocol: chat, keygate.key."], Ok(None));
    guarded("G4", &[&format!("Sec-WebSocket-Protocol: {item}, {item}")], Err(Conflict));
    let both = format!("Sec-WebSocket-Protocol: {item}, openai-insecure-api-key.{GOOD}");
    guarded("R6 equal in two sources", &[&both], good(PROTOCOL));
}

#[test]
fn basic_passwords_are_keys() {
    let guarded = |row, field: &str, want| check(row, GUARDED, "/", &[field], want);
    guarded("D8", &basic("anybody", GOOD), good(BASIC));
    guarded("D8 no user", &basic("", GOOD), good(BASIC));
    guarded("D8 first colon", &basic("u", "a:b"), Ok(Some(("a:b", BASIC))));
    guarded("D8 any case", &basic("u", GOOD).replace("Basic", "bASIC"), good(BASIC));
    guarded("D8 no padding", basic("us", GOOD).trim_end_matches('='), good(BASIC));
    guarded("K4", &basic("u", ""), Ok(None));
    for junk in ["", "====", "!!!!", "dXNlcg", "dXNlcg==", "dQ=x"] {
        guarded("D8", &format!("Authorization: Basic {junk}"), Err(Malformed));
    }
}

#[test]
fn one_source_twice_is_refused() {
    let (key, bearer) = (format!("X-Api-Key: {GOOD}"), format!("Authorization: Bearer {GOOD}"));
    let cookie = format!("keygate_session={GOOD}");
    for (row, target, fields) in [
        ("K11", format!("/?api_key={GOOD}&api_key={GOOD}"), vec![]),
        ("K11 encoded", format!("/?api_key={GOOD}&x=1&api%5Fkey={GOOD}"), vec![]),
        ("K11 empty", format!("/?api_key&api_key={GOOD}"), vec![]),
        ("G4 E34 equal", "/".into(), vec![key.clone(), key.clone()]),
        ("G4 E34 differ", "/".into(), vec![key.clone(), format!("x-api-key: {OTHER}")]),
        ("G4 B2 good then bad", "/".into(), vec![key.clone(), "X-Api-Key: bad".into()]),
        ("G4 B2 bad then good", "/".into(), vec!["X-Api-Key: bad".into(), key.clone()]),
        ("G4 empty", "/".into(), vec!["X-Api-Key:".into(), key]),
        ("G4", "/".into(), vec![bearer.clone(), bearer.clone()]),
        ("G4 two schemes", "/".into(), vec![bearer.clone(), "Authorization: Digest x".into()]),
        ("G4 two schemes", "/".into(), vec![basic("u", GOOD), bearer]),
        ("G4 foreign twice", "/".into(), vec!["Authorization: Bearer x".into(), "Authorization: Bearer x".into()]),
        ("G4", "/".into(), vec![format!("Cookie: {cookie}; {cookie}")]),
        ("G4", "/".into(), vec![format!("Cookie: {cookie}"), format!("Cookie: {cookie}")]),
    ] {
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        check(row, GUARDED, &target, &fields, Err(Conflict));
    }
}

/// K48, G5, E7-E10: Kong takes the first source that holds a value; here two that differ are refused.
#[test]
fn the_source_matrix() {
    let values = ["", GOOD, OTHER];
    for header in values {
        for query in values {
            for scheme in values {
                let target = if query.is_empty() { "/".to_owned() } else { format!("/?token={query}") };
                let mut fields = Vec::new();
                fields.extend((!header.is_empty()).then(|| format!("X-Api-Key: {header}")));
                fields.extend((!scheme.is_empty()).then(|| format!("Authorization: Bearer {scheme}")));
                let mut sent = [(header, X_API_KEY), (query, TOKEN), (scheme, SCHEMES)].to_vec();
                sent.retain(|(value, _)| !value.is_empty());
                let first = sent.first().copied();
                let agree = sent.iter().all(|(value, _)| Some(*value) == first.map(|(value, _)| value));
                let want = if agree { Ok(first) } else { Err(Conflict) };
                let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
                check("K48", GUARDED, &target, &fields, want);
                check("K48 public", PUBLIC, &target, &fields, want);
            }
        }
    }
    let wrong = format!("/?api_key={GOOD}");
    check("K48 wrong, right", GUARDED, &wrong, &["X-Api-Key: wrong"], Err(Conflict));
    check("K14", GUARDED, &format!("/?api_key={GOOD}"), &[&format!("X-Api-Key: {GOOD}")], good(X_API_KEY));
    check("R6", GUARDED, &format!("/?api_key={GOOD}&token={GOOD}"), &[], good(API_KEY));
    check("G5", GUARDED, &format!("/?api_key={GOOD}&token={OTHER}"), &[], Err(Conflict));
    check("G5", GUARDED, "/", &[&format!("X-Api-Key: {GOOD}"), &format!("Api-Key: {OTHER}")], Err(Conflict));
}

#[test]
fn an_authorization_that_is_no_key_of_ours_is_the_upstreams() {
    let key = format!("X-Api-Key: {GOOD}");
    let long = format!("Authorization: Bearer {}", "j".repeat(3000));
    for foreign in [
        "Authorization: Bearer jwt.of.the.app",
        "Authorization: Token abc",
        "Authorization: Digest username=x",
        "Authorization: opaque",
        "Authorization:",
        "Authorization: Basic not-base64!",
        &basic("app", "its password"),
        &long,
    ] {
        let untouched = check("R6 D8", GUARDED, "/", &[&key, foreign], good(X_API_KEY));
        assert!(untouched.authorization(), "{foreign}");
        let untouched = check("R6 query decides", GUARDED, &format!("/?token={GOOD}"), &[foreign], good(TOKEN));
        assert!(untouched.authorization(), "{foreign}");
        assert!(check("D8 public", PUBLIC, "/", &[foreign], Ok(None)).authorization(), "{foreign}");
        let both = [foreign, foreign];
        assert!(check("D8 public, twice", PUBLIC, "/", &both, Ok(None)).authorization(), "{foreign}");
    }
    let own = own_key();
    for (row, ours, want) in [
        ("R6 equal", format!("Authorization: Bearer {GOOD}"), good(X_API_KEY)),
        ("R6 equal", basic("u", GOOD), good(X_API_KEY)),
        ("R6 another key of ours", format!("Authorization: Bearer {OTHER}"), Err(Conflict)),
        ("R6 revoked and forgotten", format!("Authorization: Bearer {own}"), Err(Conflict)),
        ("R6 another key of ours", basic("u", OTHER), Err(Conflict)),
        ("R4 without a scheme", format!("Authorization: {GOOD}"), good(X_API_KEY)),
        ("R4 in a foreign scheme", format!("Authorization: Digest {GOOD}"), good(X_API_KEY)),
        ("R4 as a user name", basic(GOOD, ""), good(X_API_KEY)),
        ("R4 among others", format!("Authorization: Digest x=\"{own}\""), good(X_API_KEY)),
        ("R4 before others", format!("Authorization: Bearer {own}, x"), Err(Conflict)),
    ] {
        assert!(!check(row, GUARDED, "/", &[&key, &ours], want).authorization(), "{row}");
    }
    check("R6 it decides alone", GUARDED, "/", &["Authorization: Bearer x"], Ok(Some(("x", SCHEMES))));
    check("R6 a bad key decides", GUARDED, "/", &["X-Api-Key: bad", "Authorization: Bearer x"], Ok(Some(("bad", 0))));
    let absent = check("R6 not there", GUARDED, "/", &[&key], good(X_API_KEY));
    assert!(!absent.authorization());
}

#[test]
fn public_routes_leave_what_is_no_key_of_ours() {
    let left = check("D8", PUBLIC, "/?token=abc&token=def&api_key=x", &[], Ok(None));
    assert!(left.source(TOKEN) && left.source(API_KEY) && !left.source(X_API_KEY));
    let left = check("D8 too long for a key", PUBLIC, &format!("/?token={}", "j".repeat(2000)), &[], Ok(None));
    assert!(left.source(TOKEN));
    let taken = check("R1", PUBLIC, &format!("/?token={GOOD}&api_key=x"), &[], good(TOKEN));
    assert!(!taken.source(TOKEN) && taken.source(API_KEY));
    let own = own_key();
    check("D8 a key of ours that nobody knows", PUBLIC, &format!("/?token={own}"), &[], Ok(Some((&own, TOKEN))));
    check("R6", PUBLIC, &format!("/?token={GOOD}&token=x"), &[], Err(Conflict));
    check("R1 a bad key is still bad", PUBLIC, "/", &["X-Api-Key: bad"], Ok(Some(("bad", X_API_KEY))));
    check("R1", PUBLIC, "/", &["Cookie: keygate_session=bad"], Ok(Some(("bad", COOKIE))));
    check(
        "D7 a foreign Authorization is no source",
        PUBLIC,
        "/",
        &["Authorization: Bearer x", &format!("Cookie: keygate_session={GOOD}")],
        good(COOKIE),
    );
    check("D9", PUBLIC, &format!("/?token={GOOD}%00"), &[], Err(Malformed));
}

#[test]
fn routes_narrow_their_sources() {
    let only = Accepts { sources: Some(&[X_API_KEY]), public: false };
    let key = format!("X-Api-Key: {GOOD}");
    check("E13", only, &format!("/?api_key={GOOD}"), &[&format!("Authorization: Bearer {GOOD}")], Ok(None));
    check("E13", only, "/", &[&key], good(X_API_KEY));
    check("E13 not read, so no conflict", only, &format!("/?token={OTHER}"), &[&key], good(X_API_KEY));
    let left = check("D8", only, "/?token=app&token=app", &[&key, "Authorization: Bearer app"], good(X_API_KEY));
    assert!(left.source(TOKEN) && left.authorization());
    let target = format!("/?token={GOOD}");
    let ours = check("R4", only, &target, &[&key, &format!("Authorization: Bearer {GOOD}")], good(X_API_KEY));
    assert!(!ours.source(TOKEN) && !ours.authorization());
    let own = own_key();
    let target = format!("/?api_key=x,{own}");
    let ours = check("R4 hidden in a value", only, &target, &[&key], good(X_API_KEY));
    assert!(!ours.source(API_KEY));
    let none = Accepts { sources: Some(&[]), public: false };
    check("E16 no source", none, "/", &[&key], Ok(None));
    let cookie = Accepts { sources: Some(&[COOKIE]), public: false };
    let fields = [format!("Cookie: keygate_session={GOOD}"), "X-Api-Key: of-the-app".into()];
    let left = check("D7 D8", cookie, "/", &[&fields[0], &fields[1]], good(COOKIE));
    assert!(left.source(X_API_KEY) && !left.source(COOKIE));
}

#[test]
fn a_cookie_counts_only_alone() {
    let cookie = format!("Cookie: keygate_session={GOOD}");
    for (row, target, field, want) in [
        ("D7", "/", "X-Api-Key: bad", Ok(Some(("bad", X_API_KEY)))),
        ("D7 E7", "/", "Authorization: Bearer bad", Ok(Some(("bad", SCHEMES)))),
        ("D7 E9", "/?token=bad", "X: y", Ok(Some(("bad", TOKEN)))),
        ("D7", "/?token=", "X-Api-Key:", good(COOKIE)),
        ("R6", "/", "Authorization: Negotiate abc", good(COOKIE)),
    ] {
        check(row, GUARDED, target, &[&cookie, field], want);
    }
    let other = format!("X-Api-Key: {OTHER}");
    check("D7 no conflict with a cookie", GUARDED, "/", &[&cookie, &other], Ok(Some((OTHER, X_API_KEY))));
    assert_eq!(sources().login_cookie(None), Some("keygate_session"));
    assert_eq!(sources().login_cookie(Some(&[X_API_KEY])), None);
}

#[test]
fn strange_bytes_are_small_work() {
    let edge = "k".repeat(MAX_KEY_BYTES);
    check("D9 G20", GUARDED, "/", &[&format!("X-Api-Key: {edge}")], Ok(Some((&edge, X_API_KEY))));
    check("D9 G20", GUARDED, "/", &[&format!("X-Api-Key: {edge}k")], Err(Malformed));
    check("D9 G20", GUARDED, &format!("/?token={edge}k"), &[], Err(Malformed));
    check("D9 G20", GUARDED, "/", &[&basic("u", &format!("{edge}k"))], Err(Malformed));
    check("D9 G20", GUARDED, "/", &[&format!("Cookie: keygate_session={edge}k")], Err(Malformed));
    let encoded: String = (0..MAX_KEY_BYTES).map(|_| "%6b").collect();
    check("D9 decoded length", GUARDED, &format!("/?token={encoded}"), &[], Ok(Some((&edge, TOKEN))));
    check("D9", GUARDED, &format!("/?token={GOOD}%00zz"), &[], Err(Malformed));
    check("D9", GUARDED, "/?token=%00", &[], Err(Malformed));
    check("D9", GUARDED, "/", &[&basic("u", "a\0b")], Err(Malformed));
    check("D9 plus stays", GUARDED, "/?token=a+b%20c", &[], Ok(Some(("a+b c", TOKEN))));
    check("D9 blanks trimmed", GUARDED, &format!("/?token=%20{GOOD}%09"), &[], good(TOKEN));
    check("D9 no Unicode step", GUARDED, "/?token=%C2%A0k", &[], Ok(Some(("\u{a0}k", TOKEN))));
    let sample = Sample::get("/", &[b"X-API-Key: \xff\xfe".as_slice()]);
    let sources = sources();
    let found = sources.find(sample.request(), GUARDED, known).unwrap().presented.unwrap();
    assert_eq!(found.expose_secret(), b"\xff\xfe", "B2 CVE-2026-73552: hashed as it is");
}

#[test]
fn many_occurrences_are_hashed_a_few_times() {
    let asked = std::cell::Cell::new(0);
    let count = |_: &[u8]| {
        asked.set(asked.get() + 1);
        false
    };
    let target = format!("/?{}", "token=a&".repeat(900));
    let lines = vec!["Authorization: Bearer x"; 90];
    let (query, header) = (Sample::get(&target, &[] as &[&str]), Sample::get("/", &lines));
    for (sample, in_query) in [(query, true), (header, false)] {
        asked.set(0);
        assert_eq!(sources().find(sample.request(), PUBLIC, count), Err(Conflict));
        let narrow = Accepts { sources: Some(&[X_API_KEY]), public: true };
        let untouched = sources().find(sample.request(), narrow, count).unwrap().untouched;
        assert!(if in_query { !untouched.source(TOKEN) } else { !untouched.authorization() });
        assert!(asked.get() <= 24, "{}", asked.get());
    }
}

#[test]
fn a_presented_key_does_not_show() {
    let sample = Sample::get(&format!("/?token=%61{}", &GOOD[1..]), &[] as &[&str]);
    let sources = sources();
    let found = sources.find(sample.request(), GUARDED, known).unwrap();
    assert!(!format!("{found:?}").contains("alice"));
    assert_eq!(format!("{:?}", found.presented.unwrap()), "Presented(.., Query { browser_login: false })");
}

#[test]
fn a_source_past_the_bits_is_cut() {
    let mut untouched = Untouched::default();
    for index in [0, 63, 64, 65, 1 << 40] {
        untouched.leave(index);
        assert_eq!(untouched.source(index), index < 64, "{index}");
    }
    assert!(!untouched.source(1));
}

#[track_caller]
fn check_cut(row: &str, got: (Vec<u8>, bool), want: &str) {
    assert_eq!((String::from_utf8(got.0).unwrap().as_str(), got.1), (want, !want.is_empty()), "{row}");
}

#[test]
fn queries_lose_their_keys_and_no_other_byte() {
    for (row, target, want) in [
        ("E22", "/?api_key=K", "/"),
        ("E22", "/?api_key", "/"),
        ("E22", "/?api_key=K&token=K", "/"),
        ("K32", "/?b=2&a=1", "/?b=2&a=1"),
        ("K33 A22 E23", "/?b=2&api_key=K&a=1", "/?b=2&a=1"),
        ("K33", "/?api_key=K&b=2", "/?b=2"),
        ("K33", "/?b=2&token=K", "/?b=2"),
        ("K34", "/?x=%2C+%zz&api%5Fkey=K&%61=%20", "/?x=%2C+%zz&%61=%20"),
        ("K18", "/?api_key[]=K", "/?api_key[]=K"),
        ("R4", "/?a&&b=&token=K&=", "/?a&&b=&="),
        ("R4", "/?", "/?"),
        ("R4", "/?a?token=K", "/?a?token=K"),
        ("R4", "/", "/"),
        ("R4 twice", "/?token=a&x&token=b", "/?x"),
    ] {
        let (sample, mut out) = (Sample::get(target, &[] as &[&str]), Vec::new());
        sources().write_target(&mut out, sample.request().path(), sample.request().query(), Untouched::default());
        assert_eq!(String::from_utf8(out).unwrap(), want, "{row}: {target}");
    }
    let mut untouched = Untouched::default();
    untouched.leave(TOKEN);
    let mut out = Vec::new();
    sources().write_target(&mut out, b"/", Some(b"token=app&api_key=K"), untouched);
    assert_eq!(out, b"/?token=app", "D8");
}

#[test]
fn referers_lose_their_keys() {
    for (value, want) in [
        ("https://gate.lan/ui/?api_key=K", "https://gate.lan/ui/"),
        ("https://gate.lan/ui/?a=1&token=K&b=%2C#token=K", "https://gate.lan/ui/?a=1&b=%2C"),
        ("https://u:K@gate.lan:8443/a@b?x=@", "https://gate.lan:8443/a@b?x=@"),
        ("https://u:K@gate.lan", "https://gate.lan"),
        ("/ui?token=K", "/ui"),
        ("about:blank", "about:blank"),
        ("", ""),
    ] {
        let mut out = Vec::new();
        sources().write_referer(&mut out, value.as_bytes());
        assert_eq!(String::from_utf8(out).unwrap(), want, "{value}");
    }
}

#[test]
fn cookies_and_protocols_lose_their_keys() {
    for (row, lines, want) in [
        ("E24", vec!["keygate_session=K"], ""),
        ("E24", vec![" keygate_session = K ;"], ""),
        ("E25", vec!["a=1; keygate_session=K; b=\"2\""], "a=1; b=\"2\""),
        ("E25", vec!["keygate_session=K; a=1;b=2;  c"], "a=1;b=2;  c"),
        ("E25 K11", vec!["a=1;keygate_session=K;keygate_session=L"], "a=1"),
        ("E25", vec!["Keygate_Session=K; a=;"], "Keygate_Session=K; a=;"),
        ("D9", vec!["a=1", "keygate_session=K; b=2", "c=3"], "a=1; b=2; c=3"),
    ] {
        let mut out = Vec::new();
        let left = sources().write_cookies(&mut out, lines.iter().map(|line| line.as_bytes()));
        check_cut(row, (out, left), want);
    }
    for (row, lines, want) in [
        ("D11", vec!["keygate.key.K"], ""),
        ("G22", vec!["realtime, openai-insecure-api-key.K"], "realtime"),
        ("G22", vec!["keygate.key.K,a,b"], "a, b"),
        ("G22", vec!["a", "keygate.key.K, keygate.key"], "a, keygate.key"),
    ] {
        let mut out = Vec::new();
        let lines = lines.iter().map(|line| line.as_bytes());
        let left = sources().write_protocols(&mut out, lines, Untouched::default());
        check_cut(row, (out, left), want);
    }
}

/// Arguments that are nearly, or really, credentials, and the bytes around them.
fn argument() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["api_key", "token", "a", "tok%65n", "%61pi_key", "api_key%00", "API_KEY", ""]);
    (name, prop::sample::select(vec!["", "=", "=x", "=%2C+", "=a=b", "=%", "=%00"]))
        .prop_map(|(n, v)| format!("{n}{v}"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_cut_leaves_the_rest_in_order(arguments in prop::collection::vec(argument(), 0..8)) {
        let query = arguments.join("&");
        let mut out = Vec::new();
        sources().write_target(&mut out, b"/p", Some(query.as_bytes()), Untouched::default());
        let is_key = |argument: &str| {
            let name = argument.split('=').next().unwrap();
            ["api_key", "token"].contains(&name.replace("%65", "e").replace("%61", "a").as_str())
        };
        let kept: Vec<&str> = query.split('&').filter(|argument| !is_key(argument)).collect();
        let bare = kept.iter().all(|argument| argument.is_empty()) && kept.len() <= 1 && kept.len() < query.split('&').count();
        let want = if bare { "/p".to_owned() } else { format!("/p?{}", kept.join("&")) };
        prop_assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn find_never_panics(
        target in "/[ -~]{0,40}",
        fields in prop::collection::vec(
            (prop::sample::select(vec!["X-Api-Key", "Authorization", "Cookie", "Sec-WebSocket-Protocol"]), any::<Vec<u8>>()),
            0..6,
        ),
        public: bool,
        narrow in prop::option::of(prop::collection::vec(0usize..70, 0..4)),
    ) {
        let lines: Vec<Vec<u8>> = fields.iter().map(|(name, value)| {
            let clean = value.iter().filter(|byte| !matches!(byte, b'\r' | b'\n' | 0));
            format!("{name}: ").into_bytes().into_iter().chain(clean.copied()).collect()
        }).collect();
        let sample = Sample::get(&target.replace(' ', "+"), &lines);
        let sources = sources();
        let accepts = Accepts { sources: narrow.as_deref(), public };
        if let Ok(Found { presented: Some(presented), .. }) = sources.find(sample.request(), accepts, known) {
            let key = presented.expose_secret();
            prop_assert!((1..=MAX_KEY_BYTES).contains(&key.len()) && !key.contains(&0));
            prop_assert!(accepts.source(presented.source()));
        }
    }
}
