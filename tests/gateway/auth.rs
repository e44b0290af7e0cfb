//! Who passes, who does not, and what each is told.

use crate::support::client::{Client, get, request};
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;
use crate::support::{ALICE, config};

#[test]
fn a_good_key_passes_and_the_upstream_learns_who_it_is() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    let response = get(gate.address(0), "/v1/jobs?a=1&api_key=&b=2", &[("X-Api-Key", ALICE), ("X-Auth-User", "root")]);
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    let seen = origin.only();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/v1/jobs?a=1&b=2"));
    assert_eq!((seen.one("x-auth-user"), seen.one("x-auth-key-id")), (Some("alice"), Some("48e8f859")));
    assert_eq!((seen.one("x-api-key"), seen.one("host")), (None, Some("gate.test")));
    let line = gate.access_line(response.one("x-request-id").expect("an id"));
    assert_eq!((line["status"].as_u64(), line["user"].as_str()), (Some(200), Some("alice")));
}

#[test]
fn missing_and_wrong_keys_get_the_same_answer_and_reach_nobody() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    let missing = get(gate.address(0), "/v1/jobs", &[]);
    let wrong = get(gate.address(0), "/v1/jobs", &[("X-Api-Key", "wrong")]);
    for response in [&missing, &wrong] {
        assert_eq!(response.status, 401);
        assert_eq!(response.json()["error"]["code"], "unauthorized");
        assert_eq!(response.all("www-authenticate"), missing.all("www-authenticate"));
    }
    assert_eq!(origin.connections(), 0);
    gate.expect_metric(r#"keygate_auth_total{outcome="missing"}"#, 1.0);
    gate.expect_metric(r#"keygate_auth_total{outcome="unknown"}"#, 1.0);
}

#[test]
fn a_reused_connection_survives_a_401_and_asks_again() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    let mut client = Client::connect(gate.address(0));
    for (key, status) in [(ALICE, 200), ("", 401), (ALICE, 200), ("x", 401)] {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\n\r\n"));
        assert_eq!(client.read().status, status);
    }
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn an_upgrade_header_changes_nothing_about_admission() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    for extra in ["Upgrade: x\r\n", "Connection: upgrade\r\nUpgrade: websocket\r\n"] {
        let mut client = Client::connect(gate.address(0));
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{extra}\r\n"));
        assert_eq!(client.read().status, 401, "{extra}");
    }
    assert_eq!(request(gate.address(0), "TRACE", "/", &[("X-Api-Key", ALICE)], b"").status, 405);
    assert_eq!(origin.connections(), 0);
}
