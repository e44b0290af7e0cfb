//! Requests one after the other: logins, throttled addresses, limits, and connections that stay open.

use super::*;

#[test]
fn a_page_opened_by_its_link_logs_in_and_the_token_dies_with_the_key() {
    let navigate = "Sec-Fetch-Mode: navigate";
    for (line, lines, want) in [
        ("GET /any?a=1&api_key=key-plain", vec![navigate], "plain to =/any login /any?a=1"),
        ("GET /any?api_key=key-plain", vec!["Accept: text/html"], "plain to =/any login /any"),
        ("GET /any?api_key=key-plain", vec!["Sec-Fetch-Mode: cors"], "plain to =/any"),
        ("GET /any?api_key=key-off", vec![navigate], "401 disabled"),
        ("GET /v1/x?api_key=key-plain", vec![navigate], "403 forbidden as plain"),
        ("GET /narrow/?api_key=key-plain", vec![navigate], "401 missing"),
    ] {
        check("browser_login", line, &lines, want);
    }
    let mut bench = Bench::new();
    let bytes = head("GET /any?api_key=key-plain", &[navigate]);
    let admitted = bench.decide(&bytes, HOME, bench.at(0)).expect("admitted");
    let token = admitted.login().expect("a login").token.clone();
    let with_token = head("GET /any", &[&format!("Cookie: kg={token}")]);
    let as_header = head("GET /any", &[&format!("X-Api-Key: {token}")]);
    assert_eq!(bench.verdict(&with_token, HOME, bench.at(1)), "plain to =/any");
    assert_eq!(bench.verdict(&as_header, HOME, bench.at(1)), "401 unknown", "a token is no key");
    assert_eq!(bench.verdict(&with_token, HOME, bench.at(session::LIFETIME_SECONDS)), "401 expired clear kg");
    let mut disabled = Entry::new(KeyId::new("plain"), "user-plain", KeyHash::of(b"key-plain"));
    disabled.disabled = true;
    bench.keyring = Keyring::new(vec![Record::pack(disabled, &mut Shelf::default())]);
    assert_eq!(bench.verdict(&with_token, HOME, bench.at(1)), "401 disabled clear kg");
    let turned = Entry::new(KeyId::new("plain"), "user-plain", KeyHash::of(b"another"));
    bench.keyring = Keyring::new(vec![Record::pack(turned, &mut Shelf::default())]);
    assert_eq!(bench.verdict(&with_token, HOME, bench.at(1)), "401 unknown clear kg");
}

#[test]
fn bad_keys_are_429_once_their_address_is_throttled_and_good_ones_never() {
    let (bad, good) = ("X-Api-Key: wrong", "X-Api-Key: key-plain");
    story(
        "G14, G15, D10",
        &[
            (HOME, 0, "GET /any", bad, "401 unknown"),
            (HOME, 0, "GET /any", "", "401 missing"),
            (HOME, 0, "GET /any", "X-Api-Key: key-off", "401 disabled"),
            (HOME, 0, "GET /any", "", "401 missing"),
            (HOME, 0, "GET /open/x", bad, "401 unknown"),
            (HOME, 0, "GET /any", bad, "429 failed_auth"),
            (HOME, 0, "GET /any", "", "401 missing"),
            (HOME, 0, "GET /any", good, "plain to =/any"),
            (HOME, 0, "GET /open/x", "", "anonymous to /open/"),
            (AWAY, 0, "GET /any", bad, "401 unknown"),
            (HOME, 20, "GET /any", bad, "401 unknown"),
            (HOME, 20, "GET /any", bad, "429 failed_auth"),
            (HOME, 20, "GET /v1/x", good, "403 forbidden as plain"),
        ],
    );
}

/// Regression: a bad key that was throttled vanished from `keygate_auth_total`.
#[test]
fn a_throttled_refusal_still_says_what_was_wrong_with_the_key() {
    let bench = Bench::new();
    let bytes = head("GET /any", &["X-Api-Key: key-off"]);
    let failures: Vec<_> = (0..5).map(|_| bench.decide(&bytes, HOME, bench.at(0)).unwrap_err()).collect();
    assert!(failures.iter().all(|refused| refused.failure == Some(AuthFailure::Disabled)));
    assert_eq!(failures.iter().filter(|refused| refused.rejection.answer().status == 429).count(), 2);
}

#[test]
fn limits_come_last_and_spend_nothing_on_refusals() {
    let few = "X-Api-Key: key-few";
    story(
        "R1",
        &[
            (HOME, 0, "GET /v1/x", few, "403 forbidden as few"),
            (HOME, 0, "GET /nowhere", few, "404 not_found as few"),
            (HOME, 0, "POST /v1/admin/", few, "405 method_not_allowed as few allow GET, HEAD, DELETE"),
            (HOME, 0, "GET /any", few, "few to =/any"),
            (HOME, 0, "GET /any", few, "429 key_rate as few"),
            (AWAY, 0, "GET /any", few, "429 key_rate as few"),
            (HOME, 0, "GET /any", "X-Api-Key: key-plain", "plain to =/any"),
            (HOME, 1, "GET /any", few, "few to =/any"),
        ],
    );
    let plain = "X-Api-Key: key-plain";
    story(
        "D13, per route",
        &[
            (HOME, 0, "GET /slow/", plain, "plain to /slow/"),
            (HOME, 0, "GET /slow/", plain, "plain to /slow/"),
            (HOME, 0, "GET /slow/", plain, "429 route_rate as plain"),
            (HOME, 0, "GET /any", plain, "plain to =/any"),
            (HOME, 0, "GET /slow/", "X-Api-Key: key-client", "client to /slow/"),
        ],
    );
    story(
        "AA4, D13, per address on public routes",
        &[
            (HOME, 0, "GET /open/slow/", "", "anonymous to /open/slow/"),
            (HOME, 0, "GET /open/slow/", "", "anonymous to /open/slow/"),
            (HOME, 0, "GET /open/slow/", "", "429 route_rate"),
            (AWAY, 0, "GET /open/slow/", "", "anonymous to /open/slow/"),
            (HOME, 0, "GET /open/slow/", plain, "plain to /open/slow/"),
            (HOME, 1, "GET /open/slow/", "", "anonymous to /open/slow/"),
        ],
    );
}

#[test]
fn a_request_in_flight_holds_its_place_until_its_permit_goes() {
    let bench = Bench::new();
    let bytes = head("GET /any", &["X-Api-Key: key-one"]);
    let first = bench.decide(&bytes, HOME, bench.at(0)).expect("admitted");
    let refused = bench.decide(&bytes, HOME, bench.at(0)).expect_err("one at once");
    assert_eq!(bench.refused(&refused), "429 concurrent as one");
    let mut policy = Vec::new();
    refused.limits.expect("the limits stand in the answer").write_policy(&mut policy);
    assert_eq!(String::from_utf8(policy).unwrap(), "\"concurrent\";q=1;qu=\"concurrent-requests\"");
    drop(first.into_permit());
    assert_eq!(bench.verdict(&bytes, HOME, bench.at(0)), "one to =/any");
}

#[test]
fn without_keys_nobody_passes() {
    let mut bench = Bench::new();
    bench.keyring = Keyring::new(Vec::new());
    for line in ["", "X-Api-Key: key-plain", "Authorization: Bearer key-plain"] {
        let lines: Vec<&str> = [line].into_iter().filter(|line| !line.is_empty()).collect();
        let got = bench.verdict(&head("GET /any", &lines), HOME, bench.at(0));
        assert!(got.starts_with("401 "), "E15: {got}");
    }
}

#[test]
fn open_connections_are_asked_again_by_the_same_rules() {
    let bench = Bench::new();
    let bytes = head("GET /v1/x", &["X-Api-Key: key-client"]);
    let admitted = bench.decide(&bytes, HOME, bench.at(0)).expect("admitted");
    let principal = admitted.principal().expect("a key").clone();
    let route = bench.router.route(admitted.route()).expect("a route");
    let ask = |keyring: &Keyring, route: &Route| {
        still_admitted(keyring, &principal, route, HOME.parse().ok(), bench.at(1)).map(|_| ())
    };
    assert_eq!(ask(&bench.keyring, route), Ok(()));
    let narrowed = Route { roles: words(&["admin"]), ..Route::clone(route) };
    assert_eq!(ask(&bench.keyring, &narrowed), Err(AuthFailure::Disabled));
    assert_eq!(ask(&Keyring::new(Vec::new()), route), Err(AuthFailure::Unknown));
    let mut demoted = Entry::new(KeyId::new("client"), "user-client", KeyHash::of(b"key-client"));
    demoted.roles = vec!["other".to_owned()];
    let demoted = Keyring::new(vec![Record::pack(demoted, &mut Shelf::default())]);
    assert_eq!(ask(&demoted, route), Err(AuthFailure::Disabled), "the roles in force count, not those at the start");
}
