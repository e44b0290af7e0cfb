//! HTTP/2 towards clients: the same answers as over HTTP/1, bodies and trailers both ways, bounds, and frames meant to harm.

use crate::support::http2::TlsGate;
use crate::support::origin::Origin;
use crate::support::{ALICE, config_with};

#[test]
fn one_connection_carries_every_answer_and_the_upstream_learns_who_it_is() {
    let origin = Origin::ok();
    let more = "limits: { default: { requests: 2, per: 1h, burst: 2 } }\n";
    let gate = TlsGate::start(&config_with(&origin, "  - { path: /, upstream: app }\n", more));
    let mut client = gate.connect();
    let missing = client.request("GET", "/v1/jobs", &[], b"");
    assert_eq!((missing.status, missing.headers.contains_key("www-authenticate")), (401, true));
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&missing.body).unwrap()["error"]["code"], "unauthorized");
    let key = [("x-api-key", ALICE), ("x-auth-user", "root"), ("cookie", "a=1"), ("cookie", "b=2")];
    let good = client.request("GET", "/v1/jobs?a=1&api_key=&b=2", &key, b"");
    assert_eq!((good.status, good.text().as_str(), good.one("content-length")), (200, "ok", Some("2")));
    let seen = origin.only();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/v1/jobs?a=1&b=2"));
    assert_eq!(
        (seen.one("x-auth-user"), seen.one("x-api-key"), seen.one("host")),
        (Some("alice"), None, Some("gate.test"))
    );
    assert_eq!((seen.one("cookie"), seen.one("x-forwarded-proto")), (Some("a=1; b=2"), Some("https")));
    let line = gate.gate.access_line(good.one("x-request-id").expect("an id"));
    assert_eq!((line["status"].as_u64(), line["user"].as_str()), (Some(200), Some("alice")));
    assert_eq!(line["protocol"], "HTTP/2");
    assert_eq!(client.request("HEAD", "/", &[("x-api-key", ALICE)], b"").status, 200);
    let limited = client.request("GET", "/", &[("x-api-key", ALICE)], b"");
    assert_eq!((limited.status, limited.headers.contains_key("retry-after")), (429, true));
    assert_eq!(origin.requests().len(), 2);
}
