//! One request at a time: what it is told, and that nobody passes without a key.

use proptest::prelude::*;

use super::*;

#[test]
fn routes_come_before_keys_and_tell_strangers_nothing() {
    for (row, line, key, want) in [
        ("D4", "GET /nowhere", "", "401 missing"),
        ("D4", "GET /nowhere", "X-Api-Key: wrong", "401 unknown"),
        ("D4", "GET /nowhere", "X-Api-Key: key-plain", "404 not_found as plain"),
        ("D3", "POST /v1/admin/x", "", "401 missing"),
        ("D3", "POST /v1/admin/x", "X-Api-Key: wrong", "401 unknown"),
        ("D3", "POST /v1/admin/x", "X-Api-Key: key-plain", "405 method_not_allowed as plain allow GET, HEAD, DELETE"),
        ("D3", "POST /v1/admin", "X-Api-Key: key-client", "405 method_not_allowed as client allow GET, HEAD, DELETE"),
        ("D3", "GET /open/post/x", "", "405 method_not_allowed allow POST"),
        ("D3", "GET /open/post/x", "X-Api-Key: wrong", "401 unknown"),
        ("R2", "GET /v1/..%2fadmin", "X-Api-Key: key-admin", "400 ambiguous_path"),
        ("R2", "GET /open/..%2f..%2fv1/admin/x", "", "400 ambiguous_path"),
        ("R2", "GET /OPEN/x", "", "400 ambiguous_path"),
        ("B2", "GET /v1/x?/open/", "", "401 missing"),
        ("G23", "HEAD /v1/x", "", "401 missing"),
        ("G23", "HEAD /v1/x", "X-Api-Key: key-client", "client to /v1/"),
        ("G23", "PURGE /v1/x", "", "401 missing"),
        ("G23", "PURGE /v1/x", "X-Api-Key: key-client", "client to /v1/"),
    ] {
        let lines: Vec<&str> = [key].into_iter().filter(|line| !line.is_empty()).collect();
        check(row, line, &lines, want);
    }
}

#[test]
fn keys_are_good_or_401() {
    for (row, address, seconds, key, want) in [
        ("K19", HOME, 0, "key-plain", "plain to =/any"),
        ("K20", HOME, 0, "wrong", "401 unknown"),
        ("K4", HOME, 0, "", "401 missing"),
        ("K46", HOME, -1, "key-old", "old to =/any"),
        ("K46", HOME, 0, "key-old", "401 expired"),
        ("G25", HOME, -86_400, "key-old", "old to =/any"),
        ("G10", HOME, -1, "key-before", "turned to =/any"),
        ("G10", HOME, 0, "key-before", "401 expired"),
        ("G10", HOME, 0, "key-turned", "turned to =/any"),
        ("R5", HOME, 0, "key-off", "401 disabled"),
        ("R5", AWAY, 0, "key-home", "401 address"),
        ("R5", HOME, 0, "key-home", "home to =/any"),
        ("R5", "", 0, "key-home", "401 address"),
        ("D9", HOME, 0, "KEY-PLAIN", "401 unknown"),
        ("D9", HOME, 0, "  key-plain\t", "plain to =/any"),
        ("D9", HOME, 0, "key-plain.", "401 unknown"),
    ] {
        check_from(row, address, seconds, "GET /any", &[&format!("X-Api-Key: {key}")], want);
    }
    let long = "k".repeat(1025);
    check("D9", "GET /any", &[&format!("X-Api-Key: {long}")], "401 malformed");
    let hash = KeyHash::of(b"key-plain").as_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    check("B2 pass the hash", "GET /any", &[&format!("X-Api-Key: {hash}")], "401 unknown");
    check("B2 pass the hash", "GET /any", &[&format!("X-Api-Key: sha256:{hash}")], "401 unknown");
}

#[test]
fn one_credential_decides_and_two_that_differ_are_refused() {
    let token = "Authorization: Bearer a-token-of-the-upstream";
    for (row, line, lines, want) in [
        ("K1", "OPTIONS /any", vec![], "401 missing"),
        ("K9", "GET /any?api_key=key-plain", vec![], "plain to =/any"),
        ("K10", "GET /any?api_key=wrong", vec![], "401 unknown"),
        ("K11", "GET /any?api_key=key-plain&api_key=key-plain", vec![], "401 conflict"),
        ("K18", "GET /any?api_key[]=key-plain", vec![], "401 missing"),
        ("G4", "GET /any", vec!["X-Api-Key: key-plain", "X-Api-Key: key-plain"], "401 conflict"),
        ("G4", "GET /any", vec!["X-Api-Key: key-plain", "X-Api-Key: wrong"], "401 conflict"),
        ("G5", "GET /any?api_key=key-plain", vec!["X-Api-Key: key-client"], "401 conflict"),
        ("G5", "GET /any?api_key=wrong", vec!["X-Api-Key: key-plain"], "401 conflict"),
        ("R6", "GET /any?api_key=key-plain", vec!["X-Api-Key: key-plain"], "plain to =/any"),
        ("R6", "GET /any", vec!["X-Api-Key: key-plain", token], "plain to =/any"),
        ("R6", "GET /any", vec!["X-Api-Key: key-plain", "Authorization: Bearer key-client"], "401 conflict"),
        ("R6", "GET /any", vec![token], "401 unknown"),
        ("E2", "GET /any", vec!["Authorization: bearer key-plain"], "plain to =/any"),
        ("A10", "GET /any", vec!["Authorization: key-plain"], "401 missing"),
        ("E24", "GET /any", vec!["Cookie: kg=key-plain"], "plain to =/any"),
        ("D7", "GET /any", vec!["Cookie: kg=wrong", "X-Api-Key: key-plain"], "plain to =/any"),
        ("D7", "GET /any", vec!["Cookie: kg=wrong"], "401 unknown clear kg"),
        ("D7", "GET /any", vec!["Cookie: kg=kgs1.forged"], "401 malformed clear kg"),
        ("E13", "GET /narrow/", vec!["X-Api-Key: key-plain"], "plain to /narrow/"),
        ("E13", "GET /narrow/?api_key=key-plain", vec![], "401 missing"),
        ("E13", "GET /narrow/", vec!["Authorization: Bearer key-plain"], "401 missing"),
        ("K23", "GET /any", vec!["X_Api_Key: key-plain"], "401 missing"),
        ("B2", "GET /any", vec!["x-api-key: key-plain"], "plain to =/any"),
        ("B2", "GET /any", vec!["User-Agent: GoogleHC/1.0", "X-Forwarded-Uri: /open/x"], "401 missing"),
        ("G1", "GET /any", vec!["Connection: upgrade", "Upgrade: x"], "401 missing"),
        ("G1", "GET /any", vec!["Upgrade: websocket"], "401 missing"),
    ] {
        check(row, line, &lines, want);
    }
}

#[test]
fn good_keys_need_a_role_and_all_scopes() {
    for (row, line, key, want) in [
        ("E17", "GET /v1/x", "plain", "403 forbidden as plain"),
        ("E18", "GET /v1/x", "client", "client to /v1/"),
        ("E17", "GET /v1/x", "admin", "403 forbidden as admin"),
        ("E17", "GET /v1/admin/x", "client", "403 forbidden as client"),
        ("E18", "GET /v1/admin/x", "admin", "admin to /v1/admin/"),
        ("scopes", "GET /scoped/", "reader", "403 forbidden as reader"),
        ("scopes", "GET /scoped/", "writer", "writer to /scoped/"),
        ("scopes", "GET /scoped/", "plain", "403 forbidden as plain"),
    ] {
        check(row, line, &[&format!("X-Api-Key: key-{key}")], want);
    }
}

#[test]
fn public_routes_let_strangers_in_but_no_bad_key() {
    for (row, line, lines, want) in [
        ("K36", "GET /open/x", vec![], "anonymous to /open/"),
        ("K35", "GET /open/x", vec!["X-Api-Key: key-plain"], "plain to /open/"),
        ("AA8", "GET /open/x", vec!["X-Api-Key: wrong"], "401 unknown"),
        ("AA8", "GET /open/x", vec!["X-Api-Key: key-off"], "401 disabled"),
        ("D8", "GET /open/x", vec!["Authorization: Bearer theirs"], "anonymous to /open/"),
        ("D8", "GET /open/x", vec!["Authorization: Bearer key-plain"], "plain to /open/"),
        ("D8", "GET /open/x", vec!["Authorization: Bearer key-off"], "401 disabled"),
        ("D8", "GET /open/x?api_key=theirs", vec![], "anonymous to /open/"),
        ("D8", "GET /open/x?api_key=key-old", vec![], "401 expired"),
        ("roles", "GET /open/half/", vec![], "anonymous to /open/half/"),
        ("roles", "GET /open/half/", vec!["X-Api-Key: key-plain"], "403 forbidden as plain"),
    ] {
        check(row, line, &lines, want);
    }
}

#[test]
fn preflights_pass_where_the_route_says_so() {
    let (origin, method) = ("Origin: https://app.example", "Access-Control-Request-Method: POST");
    for (row, line, lines, want) in [
        ("G18", "OPTIONS /v1/x", vec![origin, method], "preflight to /v1/"),
        ("G18", "OPTIONS /v1/x", vec![origin, method, "X-Api-Key: wrong"], "preflight to /v1/"),
        ("G18", "OPTIONS /v1/x", vec![origin], "401 missing"),
        ("G18", "OPTIONS /v1/x", vec![method], "401 missing"),
        ("G18", "GET /v1/x", vec![origin, method], "401 missing"),
        ("G18", "options /v1/x", vec![origin, method], "401 missing"),
        ("G18", "OPTIONS /any", vec![origin, method], "401 missing"),
        ("G18", "OPTIONS /any", vec![origin, method, "X-Api-Key: key-plain"], "plain to =/any"),
        ("G18", "OPTIONS /nowhere", vec![origin, method], "401 missing"),
        ("G18", "OPTIONS /v1/..%2fany", vec![origin, method], "400 ambiguous_path"),
    ] {
        check(row, line, &lines, want);
    }
}

#[test]
fn a_cookie_is_taken_from_our_own_pages_only() {
    let cookie = "Cookie: kg=key-plain";
    for (row, line, lines, want) in [
        ("D7", "GET /any", vec![cookie, "Origin: https://evil.example"], "plain to =/any"),
        ("D7", "POST /any", vec![cookie], "403 foreign_origin as plain"),
        ("D7", "POST /any", vec![cookie, "Origin: http://gate.lan"], "plain to =/any"),
        ("D7", "POST /any", vec![cookie, "Origin: https://gate.lan"], "403 foreign_origin as plain"),
        ("D7", "POST /any", vec![cookie, "Origin: http://evil.example"], "403 foreign_origin as plain"),
        ("D7", "POST /any", vec![cookie, "Origin: null"], "403 foreign_origin as plain"),
        ("D7", "DELETE /nowhere", vec![cookie], "403 foreign_origin as plain"),
        ("D7", "GET /any", vec![cookie, "Connection: upgrade", "Upgrade: websocket"], "403 foreign_origin as plain"),
        ("D7", "POST /any", vec!["X-Api-Key: key-plain", "Origin: http://evil.example"], "plain to =/any"),
    ] {
        check(row, line, &lines, want);
    }
}

proptest! {
    /// Design rule 1: whatever else a request says, without a good key it is admitted on public routes and as a preflight
    /// only.
    #[test]
    fn nobody_passes_without_a_key(
        method in prop::sample::select(vec!["GET", "HEAD", "POST", "PUT", "OPTIONS", "PATCH", "PROPFIND", "QUERY"]),
        path in prop::sample::select(vec!["/v1/x", "/v1/admin", "/any", "/open/x", "/scoped/", "/slow/", "/", "/narrow/"]),
        lines in prop::collection::vec(prop::sample::select(vec![
            "Upgrade: websocket", "Connection: upgrade", "Origin: http://gate.lan", "Expect: 100-continue",
            "Access-Control-Request-Method: GET", "X-Forwarded-Uri: /open/x", "X-Original-Url: /open/x",
            "X-Auth-User: user-admin", "X-Api-Key:", "Authorization: Bearer", "Authorization: Bearer x", "Cookie: kg=",
            "X_Api_Key: key-admin", "Api-Key: key-admin", "X-Real-Ip: 127.0.0.1", "User-Agent: kube-probe/1.0",
        ]), 0..6),
    ) {
        let bench = Bench::new();
        let bytes = head(&format!("{method} {path}"), &lines);
        let mut parsed = RequestHead::default();
        prop_assume!(parsed.parse(&bytes, &LIMITS) == Ok(true));
        if let Ok(admitted) = bench.decide(&bytes, HOME, bench.at(0)) {
            let route = bench.router.route(admitted.route()).expect("a route");
            match admitted.caller() {
                Caller::Key(principal) => prop_assert!(false, "{} passed", principal.id().as_str()),
                Caller::Anonymous => prop_assert_eq!(route.access, Access::Public),
                Caller::Preflight => prop_assert!(route.cors_preflight && method == "OPTIONS"),
            }
        }
    }
}
