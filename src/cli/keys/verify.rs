//! `keygate keys verify`: whose key this is, what state it is in, and what it may do at one path, decided by the same rooms
//! that decide on requests. The key comes from standard input or is typed unseen; neither it nor its hash is shown.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;

use super::change::look;
use super::place::Place;
use super::selector::{described, secret_from_stdin};
use super::{Failure, say};
use crate::admission;
use crate::cli::FAILED;
use crate::config::Config;
use crate::http1::request::RequestHead;
use crate::key::KeyHash;
use crate::keyring::Principal;
use crate::keyring::record::{Record, Which};
use crate::rejection::{AuthFailure, Rejection};
use crate::route::router::{Found, Matched, Router};
use crate::route::{Access, Route};

/// `keygate keys verify`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the key comes from: standard input, also without this
    #[arg(value_name = "-")]
    key: Option<String>,
    /// Path to try, such as /v1/jobs
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Method to try
    #[arg(long, value_name = "METHOD", default_value = "GET", requires = "path")]
    method: String,
    /// Host to try, as in the request [default: one that no route names]
    #[arg(long, value_name = "HOST", requires = "path")]
    host: Option<String>,
    /// Client address to try [default: one that the key may be used from]
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A host that routes with hosts do not have (RFC 2606 section 2).
const NO_HOST: &str = "keygate.invalid";

/// What is printed. No hash, no key.
#[derive(Debug, Serialize)]
struct Answer {
    /// Whether the key may be used, at the path too where one was asked for.
    good: bool,
    state: &'static str,
    #[serde(flatten)]
    about: Option<About>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<Verdict>,
}

#[derive(Debug, Serialize)]
struct About {
    id: String,
    name: Option<String>,
    user: String,
    roles: Vec<String>,
    scopes: Vec<String>,
    expires: Option<String>,
    grace_until: Option<String>,
    allow_from: Vec<String>,
}

/// What the gate would say to one request with the key.
#[derive(Debug, Serialize)]
struct Verdict {
    allowed: bool,
    /// The status of the gate's own answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    why: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<String>,
}

/// Looks at one key.
pub(super) fn run(place: &Place, args: &Args) -> Result<(), Failure> {
    if args.key.as_ref().is_some_and(|word| word != "-") {
        return Err(Failure::usage(
            "a key is read from standard input; one on the command line stands in the shell's history, and others see it",
        ));
    }
    let trial = args.path.as_deref().map(|path| Trial::new(place, args, path)).transpose()?;
    let keyring = look(place)?;
    let hash = KeyHash::of(secret_from_stdin()?.as_bytes());
    let now = Timestamp::now();
    let record = keyring.records().find(|record| holds(record, &hash));
    // Without an address to try, one is taken that the key is not refused for.
    let address = args.from.or_else(|| Some(record?.allow_from().first()?.addr()));
    let identity = keyring.identify(&hash, address, now);
    let path = trial.map(|trial| trial.judge(&identity));
    let answer = Answer {
        good: identity.is_ok() && path.as_ref().is_none_or(|verdict| verdict.allowed),
        state: state(&identity),
        about: record.map(|record| about(record, &hash)),
        path,
    };
    if args.json {
        let json = serde_json::to_string(&answer).map_err(|e| Failure::failed(e.to_string()))?;
        say(&json)?;
    } else {
        show(&answer, record.map(|record| &**record))?;
    }
    if answer.good { Ok(()) } else { Err(Failure { status: FAILED, lines: Vec::new() }) }
}

fn holds(record: &Record, hash: &KeyHash) -> bool {
    record.hash() == hash || record.previous().is_some_and(|previous| previous.hash == *hash)
}

fn state(identity: &Result<Principal, AuthFailure>) -> &'static str {
    match identity {
        Ok(principal) if principal.which() == Which::Previous => "grace",
        Ok(_) => "active",
        Err(failure) => failure.label(),
    }
}

fn about(record: &Record, hash: &KeyHash) -> About {
    let owned = |words: &mut dyn Iterator<Item = &str>| words.map(str::to_owned).collect();
    let previous = record.previous().filter(|previous| previous.hash == *hash);
    About {
        id: record.id().as_str().to_owned(),
        name: record.name().map(str::to_owned),
        user: record.user().to_owned(),
        roles: owned(&mut record.roles()),
        scopes: owned(&mut record.scopes()),
        expires: record.expires().map(|end| end.to_string()),
        grace_until: previous.map(|previous| previous.until.to_string()),
        allow_from: record.allow_from().iter().map(ToString::to_string).collect(),
    }
}

fn show(answer: &Answer, record: Option<&Record>) -> Result<(), Failure> {
    let (Some(about), Some(record)) = (&answer.about, record) else {
        say("this key is not in the key file")?;
        return answer.path.as_ref().map_or(Ok(()), show_verdict);
    };
    say(&described(record))?;
    say(&format!("  state: {}", told_state(answer.state, about)))?;
    for (what, words) in [("roles", &about.roles), ("scopes", &about.scopes), ("only from", &about.allow_from)] {
        if !words.is_empty() {
            say(&format!("  {what}: {}", words.join(", ")))?;
        }
    }
    answer.path.as_ref().map_or(Ok(()), show_verdict)
}

fn told_state(state: &str, about: &About) -> String {
    let moment = |end: &Option<String>| end.clone().unwrap_or_default();
    match state {
        "grace" => format!("replaced, good until {}", moment(&about.grace_until)),
        "expired" if about.grace_until.is_some() => {
            format!("expired: replaced, its grace ended {}", moment(&about.grace_until))
        }
        "expired" => format!("expired {}", moment(&about.expires)),
        "address" => "not good from this address".to_owned(),
        "active" => about.expires.as_ref().map_or("active".to_owned(), |end| format!("active until {end}")),
        other => other.to_owned(),
    }
}

fn show_verdict(verdict: &Verdict) -> Result<(), Failure> {
    match verdict.status {
        None => say(&format!("  allowed: {}", verdict.why)),
        Some(status) => say(&format!("  refused with {status}: {}", verdict.why)),
    }
}

/// One request to try.
struct Trial<'a> {
    config: &'a Config,
    router: Router,
    bytes: Vec<u8>,
}

impl<'a> Trial<'a> {
    fn new(place: &'a Place, args: &Args, path: &str) -> Result<Self, Failure> {
        let config = place.config.as_deref().ok_or_else(|| {
            Failure::usage("--path needs the whole configuration, which cannot be read here: see `keygate check`")
        })?;
        let router = Router::new(config.routes.clone())
            .map_err(|_checked| Failure::failed("the routes cannot be used: see `keygate check`"))?;
        let host = args.host.as_deref().unwrap_or(NO_HOST);
        if [path, host, &args.method].iter().any(|word| word.chars().any(|c| c.is_control() || c == ' ')) {
            return Err(Failure::usage("a path, method or host to try holds no blanks: write %20"));
        }
        let bytes = format!("{} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n", args.method).into_bytes();
        Ok(Self { config, router, bytes })
    }

    /// In the order of [`admission::decide`]: form and path, key, route, method, role and scope.
    fn judge(&self, identity: &Result<Principal, AuthFailure>) -> Verdict {
        let mut head = RequestHead::default();
        match head.parse(&self.bytes, &self.config.request.head) {
            Ok(true) => {}
            Ok(false) => return refused(&Rejection::Malformed("incomplete"), None, None),
            Err(rejection) => return refused(&rejection, None, None),
        }
        let request = head.view(&self.bytes);
        let matched = match self.router.find(request.host(), request.path(), request.method()) {
            Ok(matched) => matched,
            Err(rejection) => return refused(&rejection, None, None),
        };
        let principal = match identity {
            Ok(principal) => principal,
            Err(failure) => {
                let why = format!("the key is not good ({})", failure.label());
                return refused(&Rejection::Unauthorized(*failure), None, Some(why));
            }
        };
        match matched {
            Matched::None => self.no_route(),
            Matched::WrongMethod { route, allow } => {
                let why = format!("route `{}` takes {allow} only", route.route.name);
                refused(&Rejection::MethodNotAllowed, Some(route.route), Some(why))
            }
            Matched::Route(found) => on_route(found, principal),
        }
    }

    fn no_route(&self) -> Verdict {
        let hosts = self.router.routes().iter().any(|route| route.host.is_some());
        let hint = if hosts { " (some routes are for a host: try --host)" } else { "" };
        refused(&Rejection::NoRoute, None, Some(format!("no route has this host and path{hint}")))
    }
}

fn on_route(found: Found<'_>, principal: &Principal) -> Verdict {
    let route = found.route;
    if admission::may_use(principal, route) {
        let open = if route.access == Access::Public { ", which needs no key" } else { "" };
        let why = format!("route `{}` to `{}`{open}", route.name, route.upstream);
        let (name, upstream) = (route.name.to_string(), route.upstream.to_string());
        return Verdict { allowed: true, status: None, why, route: Some(name), upstream: Some(upstream) };
    }
    let missing: Vec<&str> = route
        .scopes
        .iter()
        .map(|scope| &**scope)
        .filter(|scope| principal.scopes().all(|held| held != *scope))
        .collect();
    let why = if missing.is_empty() {
        format!("route `{}` asks for one of these roles: {}", route.name, route.roles.join(", "))
    } else {
        format!("route `{}` asks for more scopes: {}", route.name, missing.join(", "))
    };
    refused(&Rejection::Forbidden, Some(route), Some(why))
}

/// The gate's own answer, and why in words for the operator, or else those that the client sees.
fn refused(rejection: &Rejection, route: Option<&std::sync::Arc<Route>>, why: Option<String>) -> Verdict {
    let answer = rejection.answer();
    let why = why.unwrap_or_else(|| match rejection {
        Rejection::Malformed(rule) => format!("{} ({rule})", answer.message),
        _ => answer.message.to_owned(),
    });
    Verdict {
        allowed: false,
        status: Some(answer.status),
        why,
        route: route.map(|route| route.name.to_string()),
        upstream: None,
    }
}
