//! Paths: what is routed is what the origin sees, under every reading it might take (design rule 2, decision 1).

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;
use crate::support::{ALICE, BOB, config_with};

const ROUTES: &str = r#"  - { path: /public/, access: public, upstream: app }
  - { path: /admin/, roles: [admin], upstream: app }
  - { path: /client/, roles: [client], upstream: app }
  - { path: /, upstream: app }
"#;

/// Sends one request with `key` (none if empty) for `target`, raw.
fn ask(gate: &Gateway, target: &str, key: &str) -> u16 {
    let field = if key.is_empty() { String::new() } else { format!("X-Api-Key: {key}\r\n") };
    let mut client = Client::connect(gate.address(0));
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{field}\r\n"));
    client.read().status
}

/// Holds each row (target, status without a key, status with alice's key) against the gate, and the origin's view.
fn check(rows: &[(&str, u16, u16)]) {
    let origin = Origin::ok();
    let gate = Gateway::start(&config_with(&origin, ROUTES, "limits: { failed_auth: off }\n"));
    let mut expected = Vec::new();
    for (target, without, with) in rows {
        for (key, status) in [("", without), (ALICE, with)] {
            assert_eq!(ask(&gate, target, key), *status, "{target} key {key:?}");
            if *status == 200 {
                expected.push((*target).to_owned());
            }
            let seen: Vec<String> = origin.requests().into_iter().map(|request| request.target).collect();
            assert_eq!(seen, expected, "{target} key {key:?}");
        }
    }
}

#[test]
fn a_public_prefix_opens_nothing_else() {
    check(&[
        ("/public/x", 200, 200),
        ("/public/", 200, 200),
        ("/public", 200, 200),
        ("/public/a%20b?c=%2e%2e/d", 200, 200),
        ("/public/../private", 400, 400),
        ("/public/./x", 400, 400),
        ("/public/%2e%2e/private", 400, 400),
        ("/public/%2E%2e/private", 400, 400),
        ("/public/.%2e/private", 400, 400),
        ("/public/..%2fprivate", 400, 400),
        ("/public/..%5cprivate", 400, 400),
        ("/public/..\\private", 400, 400),
        ("/public\\..\\private", 400, 400),
        ("/public/..;x=y/private", 400, 400),
        ("/public/..;/private", 400, 400),
        ("/public/%2e%2e;/private", 400, 400),
        ("/public/%252e%252e/private", 400, 400),
        ("/public/%25252e%25252e/private", 400, 400),
        ("/public/%252e%252e%252fprivate", 400, 400),
        ("/public/x/..%2f..%2fprivate", 400, 400),
        ("/public/%00", 400, 400),
        ("/public/%0d%0aX-Auth-User:%20root", 400, 400),
        ("/public/%7f", 400, 400),
        ("/public/\u{e9}", 400, 400),
        ("/public#/x", 400, 400),
        ("/private#/public/x", 400, 400),
        ("http://h/public/../private", 400, 400),
        ("http://h/public/x", 400, 400),
        ("//public/x", 400, 400),
        ("/public//x", 200, 200),
        ("/PUBLIC/x", 400, 400),
        ("/%70ublic/x", 400, 400),
        ("/private;/public/x", 401, 200),
        ("/private?/public/x", 401, 200),
        ("/publicity/secret", 401, 200),
        ("/public.evil", 401, 200),
        ("/public%20/x", 401, 200),
    ]);
}

#[test]
fn a_guarded_prefix_is_guarded_in_every_spelling() {
    // Alice is a client and no admin: 403 where the gate knows the route, 400 where the spelling is in doubt.
    check(&[
        ("/admin/x", 401, 403),
        ("/admin", 401, 403),
        ("/admin/", 401, 403),
        ("/admin//x", 401, 403),
        ("//admin/x", 400, 400),
        ("/./admin/x", 400, 400),
        ("/x/../admin", 400, 400),
        ("/x/%2e%2e/admin", 400, 400),
        ("/x%2f..%2fadmin", 400, 400),
        ("/x/..%2fadmin/x", 400, 400),
        ("/%61dmin/x", 400, 400),
        ("/%2561dmin/x", 400, 400),
        ("/admin%2fx", 400, 400),
        ("/%2fadmin/x", 400, 400),
        ("/ADMIN/x", 400, 400),
        ("/Admin", 400, 400),
        ("/admin;a=b/x", 400, 400),
        ("/admin;", 400, 400),
        ("/admin%3b/x", 400, 400),
        ("\\admin", 400, 400),
        ("/\\admin/x", 400, 400),
        ("/admin\\x", 400, 400),
        ("/administrator", 401, 200),
        ("/client/a%2Fb/c", 401, 200),
        ("/client/a%252fb", 401, 200),
        ("/client/;x=1", 401, 200),
        ("/client//", 401, 200),
        ("/client/..%2fadmin/x", 400, 400),
        ("/client/A/B", 401, 200),
    ]);
}

#[test]
fn a_role_is_asked_for_in_every_spelling_that_is_forwarded() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config_with(&origin, ROUTES, ""));
    for target in ["/client/x", "/client", "/client//x", "/client/a%2fb", "/client/;a"] {
        assert_eq!(ask(&gate, target, BOB), 403, "{target}");
    }
    assert_eq!(origin.connections(), 0);
}
