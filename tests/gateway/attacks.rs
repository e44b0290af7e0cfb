//! Ways past the gate that were open once, each test named after its hole: what an upstream could be talked into reading
//! differently from what was admitted.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::client::{Client, request};
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;
use crate::support::socket::handshake;
use crate::support::{ALICE, config_with};

/// gunicorn believes this header from loopback, as it comes, and cuts the value from the path: `/open/admin` was `/admin`.
#[test]
fn script_name_does_not_move_the_path_behind_the_gate() {
    let origin = Origin::ok();
    let routes = "  - { path: /, upstream: app }\n  - { path: /open/, access: public, upstream: app }\n";
    let gate = Gateway::start(&config_with(&origin, routes, ""));
    for name in ["SCRIPT_NAME", "Script-Name", "script.name", "PATH_INFO", "Path-Info"] {
        assert_eq!(request(gate.address(0), "GET", "/open/admin", &[(name, "/open")], b"").status, 200);
        assert_eq!(origin.last().all(name), [""; 0], "{name}");
    }
    let set = routes.replace("access: public", "access: public, set_headers: { SCRIPT_NAME: /app }");
    let gate = Gateway::start(&config_with(&origin, &set, ""));
    assert_eq!(request(gate.address(0), "GET", "/open/x", &[("SCRIPT_NAME", "/open")], b"").status, 200);
    assert_eq!(origin.last().all("SCRIPT_NAME"), ["/app"], "the operator's own passes");
}

/// A preflight passes without a key; with an override it was whatever method the header named.
#[test]
fn a_preflight_names_no_other_method() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config_with(&origin, "  - { path: /, upstream: app, cors_preflight: true }\n", ""));
    let asks = [("Origin", "https://page.test"), ("Access-Control-Request-Method", "GET")];
    for name in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"] {
        let fields = [asks[0], asks[1], (name, "DELETE")];
        assert_eq!(request(gate.address(0), "OPTIONS", "/x", &fields, b"").status, 200);
        assert_eq!(origin.last().all(name), [""; 0], "{name}");
        let fields = [("X-Api-Key", ALICE), (name, "DELETE")];
        assert_eq!(request(gate.address(0), "POST", "/x", &fields, b"").status, 200);
        assert_eq!(origin.last().all(name), ["DELETE"], "with a key it is the client's affair");
    }
}

/// Frameworks read where a request came from in more headers than `X-Forwarded-*`: Tornado `X-Scheme`, Rails `Client-IP`.
#[test]
fn no_other_forwarding_header_is_forged() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config_with(&origin, "  - { path: /, upstream: app, access: public }\n", ""));
    let names = [
        "Client-IP",
        "True-Client-IP",
        "X-Client-IP",
        "X-Cluster-Client-IP",
        "CF-Connecting-IP",
        "Fastly-Client-IP",
        "X-Scheme",
        "X-URL-Scheme",
        "Front-End-Https",
    ];
    for name in names {
        let twin = name.replace('-', "_");
        assert_eq!(request(gate.address(0), "GET", "/x", &[(name, "forged"), (&twin, "forged")], b"").status, 200);
        assert!(!String::from_utf8_lossy(&origin.last().head).contains("forged"), "{name}");
    }
    let trusting =
        config_with(&origin, "  - { path: /, upstream: app }\n", "identity: { trusted_proxies: [127.0.0.1] }\n");
    let gate = Gateway::start(&trusting);
    for name in names {
        assert_eq!(request(gate.address(0), "GET", "/x", &[(name, "told"), ("X-Api-Key", ALICE)], b"").status, 200);
        assert_eq!(origin.last().all(name), ["told"], "a trusted proxy is believed");
    }
}

/// A browser that was asked for a name and password once adds them to what any page makes it ask, as it does cookies.
#[test]
fn a_foreign_page_cannot_use_the_basic_password_of_a_browser() {
    let origin = Origin::ok();
    let routes = "  - { path: /, upstream: app }\n  - { path: /cors/, upstream: app, cors_preflight: true }\n";
    let gate = Gateway::start(&config_with(&origin, routes, ""));
    let basic = format!("Basic {}", STANDARD.encode(format!("alice:{ALICE}")));
    let ask = |method: &str, target: &str, page: &str| {
        let fields = [("Authorization", basic.as_str()), ("Origin", page)];
        let fields = if page.is_empty() { &fields[..1] } else { &fields };
        request(gate.address(0), method, target, fields, b"").status
    };
    for page in ["https://evil.test", "null", "http://gate.test.evil.test", "http://gate.test:81", "gate.test"] {
        assert_eq!((ask("POST", "/x", page), ask("DELETE", "/x", page)), (403, 403), "{page}");
        assert_eq!((ask("GET", "/x", page), ask("POST", "/cors/x", page)), (200, 200), "{page}");
    }
    // Its own pages, also behind a proxy that ends TLS; and clients that are no browser.
    for page in ["http://gate.test", "https://gate.test", "https://GATE.test:443", ""] {
        assert_eq!(ask("POST", "/x", page), 200, "{page}");
    }
    for (page, want) in [("Origin: https://evil.test\r\n", 403), ("", 200)] {
        let mut client = Client::connect(gate.address(0));
        client.send(handshake("/x", &format!("Authorization: {basic}\r\n{page}")));
        assert_eq!(client.read().status, want, "a WebSocket: 200 is what this service says to it");
    }
}
