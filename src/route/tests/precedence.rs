//! Which of several routes owns a request, and which sets of routes make no router.

use super::{for_methods, on_host, outcome, route};
use crate::limit::Rate;
use crate::route::router::{Matched, Problem, Router};
use crate::route::{Access, Route, is_preflight};
use std::num::NonZeroU32;
use std::time::Duration;

#[test]
fn most_specific_host_then_exact_then_longest_path() {
    let router = Router::new(vec![
        route("/"),
        route("/v1/"),
        route("/v1/admin/"),
        route("=/v1/admin/status"),
        on_host("api.example.org", "/v1/"),
        on_host("api.example.org", "=/v1/x"),
        on_host("*.example.org", "/v1/x/"),
        on_host("*.example.org", "/v1/"),
        on_host("*.lab.example.org", "/"),
        on_host("::1", "/"),
        on_host("[2001:db8::1]", "/"),
        on_host("Caps.Example.net", "/"),
    ])
    .expect("valid");
    #[rustfmt::skip]
    let rows: &[(Option<&str>, &str, &str)] = &[
        (None, "/x", "/"),
        (None, "/v1/x", "/v1/"),
        (None, "/v1/admin/x", "/v1/admin/"),
        (None, "/v1/admin/status", "=/v1/admin/status"),
        (None, "/v1/admin/status/", "/v1/admin/"),
        (Some(""), "/x", "/"),
        (Some("other"), "/v1/x", "/v1/"),
        (Some("api.example.org"), "/v1/y", "api.example.org/v1/"),
        (Some("api.example.org"), "/v1/x", "api.example.org=/v1/x"),
        // The host comes first: its shorter path beats the wildcard's longer one.
        (Some("api.example.org"), "/v1/x/y", "api.example.org/v1/"),
        // A host without a route for the path passes it on to the next less specific one.
        (Some("api.example.org"), "/x", "/"),
        (Some("b.example.org"), "/v1/x", "*.example.org/v1/x/"),
        (Some("b.example.org"), "/v1/y", "*.example.org/v1/"),
        (Some("b.example.org"), "/y", "/"),
        (Some("a.b.example.org"), "/v1/y", "*.example.org/v1/"),
        (Some("x.lab.example.org"), "/v1/y", "*.lab.example.org/"),
        (Some("lab.example.org"), "/v1/y", "*.example.org/v1/"),
        (Some("example.org"), "/v1/y", "/v1/"),
        (Some(".example.org"), "/v1/y", "/v1/"),
        (Some("evilexample.org"), "/v1/y", "/v1/"),
        (Some("example.org.evil"), "/v1/y", "/v1/"),
        // One canonical form.
        (Some("API.EXAMPLE.org"), "/v1/y", "api.example.org/v1/"),
        (Some("api.example.org:8443"), "/v1/y", "api.example.org/v1/"),
        (Some("api.example.org:"), "/v1/y", "api.example.org/v1/"),
        (Some("api.example.org."), "/v1/y", "api.example.org/v1/"),
        (Some("Api.Example.Org.:443"), "/v1/y", "api.example.org/v1/"),
        (Some("api.example.org.."), "/v1/y", "/v1/"),
        (Some("X.LAB.example.ORG:1"), "/y", "*.lab.example.org/"),
        (Some("caps.example.net"), "/y", "Caps.Example.net/"),
        (Some("[::1]"), "/y", "::1/"),
        (Some("[0:0::1]:8443"), "/y", "::1/"),
        (Some("[2001:DB8:0::1]"), "/y", "[2001:db8::1]/"),
        (Some("[2001:db8::2]"), "/y", "/"),
        // What is no host, or two.
        (Some("api.example.org:80:80"), "/y", "host"),
        (Some("api.example.org:x"), "/y", "host"),
        (Some("api.example%2eorg"), "/y", "host"),
        (Some("a@api.example.org"), "/y", "host"),
        (Some("api.example.org/x"), "/y", "host"),
        (Some("::1"), "/y", "host"),
        (Some("[::1"), "/y", "host"),
        (Some("[::1]x"), "/y", "host"),
        (Some("[::zz]"), "/y", "host"),
        (Some("a b"), "/y", "host"),
        (Some("é.example.org"), "/y", "host"),
    ];
    for (host, path, want) in rows {
        assert_eq!(outcome(&router, *host, path, "GET"), *want, "{host:?} {path}");
    }
    let long = format!("{}.example.org", "a".repeat(300));
    assert_eq!(outcome(&router, Some(&long), "/", "GET"), "host");
}

#[test]
fn readings_count_across_hosts_too() {
    let router = Router::new(vec![route("/"), on_host("h", "/private/")]).expect("valid");
    assert_eq!(outcome(&router, Some("h"), "/x/%2e%2e/private", "GET"), "ambiguous_path");
    assert_eq!(outcome(&router, Some("h"), "/Private/x", "GET"), "ambiguous_path");
    assert_eq!(outcome(&router, Some("other"), "/x/%2e%2e/private", "GET"), "/");
}

#[test]
fn a_method_never_widens_the_search() {
    let router = Router::new(vec![
        route("/"),
        for_methods("/v1/", &["GET", "POST"]),
        for_methods("/v1/", &["DELETE", "HEAD"]),
        for_methods("/open/", &["GET"]),
        Route { name: "rest".into(), ..route("/open/") },
    ])
    .expect("valid");
    let rows = [
        ("/v1/x", "GET", "GET+POST /v1/"),
        ("/v1/x", "POST", "GET+POST /v1/"),
        ("/v1/x", "DELETE", "DELETE+HEAD /v1/"),
        ("/v1/x", "HEAD", "DELETE+HEAD /v1/"),
        ("/v1/x", "PUT", "405 GET, HEAD, POST, DELETE"),
        ("/v1/x", "get", "405 GET, HEAD, POST, DELETE"),
        ("/v1/x", "OPTIONS", "405 GET, HEAD, POST, DELETE"),
        ("/open/x", "GET", "GET /open/"),
        ("/open/x", "HEAD", "GET /open/"),
        ("/open/x", "PATCH", "rest"),
        ("/x", "PUT", "/"),
    ];
    for (path, method, want) in rows {
        assert_eq!(outcome(&router, None, path, method), want, "{method} {path}");
    }
}

#[test]
fn a_wrong_method_is_judged_by_a_route_that_needs_a_key() {
    let open = Route { access: Access::Public, ..for_methods("/v1/", &["GET"]) };
    let router = Router::new(vec![open, for_methods("/v1/", &["POST"])]).expect("valid");
    let Ok(Matched::WrongMethod { route, .. }) = router.find(None, b"/v1/x", b"PUT") else { panic!("405") };
    assert_eq!((route.route.access, route.id.index()), (Access::Key, 1));
    assert_eq!(router.route(route.id).map(|route| &*route.name), Some("POST /v1/"));
}

#[test]
fn a_preflight_is_judged_by_the_method_it_asks_for() {
    let router = Router::new(vec![
        Route { cors_preflight: true, ..for_methods("/v1/", &["GET"]) },
        for_methods("/v1/", &["POST"]),
        route("/"),
    ])
    .expect("valid");
    let rows = [
        ("/v1/x", "GET", Some("GET /v1/")),
        ("/v1/x", "POST", None),
        ("/v1/x", "PUT", Some("GET /v1/")),
        ("/x", "GET", None),
    ];
    for (path, requested, want) in rows {
        let found = router.find_preflight(None, path.as_bytes(), requested.as_bytes()).expect("plain paths");
        assert_eq!(found.map(|found| &*found.route.name), want, "{requested} {path}");
    }
    assert!(router.find_preflight(None, b"/v1/../x", b"GET").is_err());
}

#[test]
fn a_preflight_is_options_with_both_headers() {
    let rows: [(&[u8], bool, bool, bool); 5] = [
        (b"OPTIONS", true, true, true),
        (b"OPTIONS", true, false, false),
        (b"OPTIONS", false, true, false),
        (b"GET", true, true, false),
        (b"options", true, true, false),
    ];
    for (method, origin, requested, want) in rows {
        assert_eq!(is_preflight(method, origin, requested), want);
    }
}

#[test]
fn sets_that_make_no_router_say_which_route_and_why() {
    let limits = |requests| {
        let requests = NonZeroU32::new(requests).expect("not zero");
        Some(Rate { requests, per: Duration::from_secs(1), burst: requests })
    };
    let named = |path, requests| Route { name: "n".into(), limits: limits(requests), ..route(path) };
    let strip = |path, prefix: &str| Route { strip_prefix: prefix.into(), ..route(path) };
    #[rustfmt::skip]
    let rows: Vec<(Vec<Route>, Option<Problem>)> = vec![
        (vec![route("/a/"), route("/a")], Some(Problem::MethodTaken { other: 0 })),
        (vec![route("=/a"), route("/a")], None),
        (vec![for_methods("/a", &["GET", "POST"]), for_methods("/a", &["POST"])], Some(Problem::MethodTaken { other: 0 })),
        (vec![for_methods("/a", &["GET"]), for_methods("/a", &["POST"])], None),
        (vec![on_host("a", "/"), on_host("b", "/"), route("/")], None),
        (vec![on_host("a", "/"), Route { name: "m".into(), ..on_host("A", "/") }], Some(Problem::MethodTaken { other: 0 })),
        (vec![route("/Api/"), route("/api/")], Some(Problem::DiffersInCase { other: 0 })),
        (vec![route("/Api/"), on_host("h", "/api/")], None),
        (vec![route("/"), route("/a%2fb")], Some(Problem::PathNotPlain)),
        (vec![route("/"), route("/a//b")], Some(Problem::PathNotPlain)),
        (vec![route("/"), route("/a/../b")], Some(Problem::PathNotPlain)),
        (vec![route("/"), route("/a;b")], Some(Problem::PathNotPlain)),
        (vec![route("/"), route("a")], Some(Problem::PathNotPlain)),
        (vec![route("/"), route("/é")], Some(Problem::PathNotPlain)),
        (vec![route("/"), strip("/a/b/", "/b")], Some(Problem::StripPrefixOutside)),
        (vec![route("/"), strip("/a/b/", "/a/")], None),
        (vec![route("/"), strip("/ab/", "/a")], Some(Problem::StripPrefixOutside)),
        (vec![route("/"), strip("=/a", "/a")], None),
        (vec![named("/a", 1), named("/b", 2)], Some(Problem::NameTaken { other: 0 })),
        (vec![named("/a", 1), named("/b", 1)], None),
    ];
    for (routes, want) in rows {
        let patterns: Vec<_> = routes.iter().map(|route| route.path.clone()).collect();
        let got = Router::new(routes).err().unwrap_or_default();
        assert_eq!(got, want.map(|problem| (1, problem)).into_iter().collect::<Vec<_>>(), "{patterns:?}");
    }
}
