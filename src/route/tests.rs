//! What the tests of the routes share, and the tables by theme.

mod paths;
mod precedence;
mod upstreams;

use super::router::{Matched, Router};
use super::{Access, HostPattern, PathPattern, Route};
use crate::rejection::Rejection;

/// A keyed route for all methods, below `path`, or exactly `path` when it begins with `=`.
fn route(path: &str) -> Route {
    let pattern = match path.strip_prefix('=') {
        Some(exact) => PathPattern::Exact(exact.into()),
        None => PathPattern::Below(path.into()),
    };
    Route {
        name: path.into(),
        host: None,
        path: pattern,
        methods: None,
        access: Access::Key,
        roles: Vec::new(),
        scopes: Vec::new(),
        cors_preflight: false,
        limits: None,
        credentials: None,
        upstream: "u".into(),
        set_headers: Vec::new(),
        strip_prefix: "".into(),
    }
}

/// A route for a host, `*.` in front for those below it; its name is host and path.
fn on_host(host: &str, path: &str) -> Route {
    let pattern = match host.strip_prefix('*') {
        Some(suffix) => HostPattern::Below(suffix.into()),
        None => HostPattern::Exact(host.into()),
    };
    Route { host: Some(pattern), name: format!("{host}{path}").into(), ..route(path) }
}

fn for_methods(path: &str, methods: &[&str]) -> Route {
    let name = format!("{} {path}", methods.join("+"));
    Route { methods: Some(methods.iter().map(|m| (*m).into()).collect()), name: name.into(), ..route(path) }
}

/// The outcome as one word: the route's name, `-` for none, `405`, or the label of the refusal.
fn outcome(router: &Router, host: Option<&str>, path: impl AsRef<[u8]>, method: &str) -> String {
    match router.find(host.map(str::as_bytes), path.as_ref(), method.as_bytes()) {
        Ok(Matched::Route(found)) => found.route.name.to_string(),
        Ok(Matched::WrongMethod { allow, .. }) => format!("405 {allow}"),
        Ok(Matched::None) => "-".to_owned(),
        Err(rejection @ (Rejection::AmbiguousPath | Rejection::Malformed(_))) => rejection.label().to_owned(),
        Err(other) => panic!("{other:?} is no answer of the router"),
    }
}

fn router(routes: &[&str]) -> Router {
    Router::new(routes.iter().map(|path| route(path)).collect()).expect("the routes of a test")
}
