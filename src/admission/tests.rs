//! Admission as tables: request bytes, keys, routes and limits in, one verdict out, in words. Rows are named by their ids in
//! the research (K Kong, A APISIX, E Envoy, G our own list) or by the design rule (R) or decision (D) that settles them.

mod stories;
mod tables;

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use super::*;
use crate::credential::{Settings, Source};
use crate::http1::head::HeadLimits;
use crate::http1::request::RequestHead;
use crate::key::KeyId;
use crate::keyring::record::{Fields as Entry, Previous, Record, Shelf};
use crate::limit::{FailedAuth, Rate};
use crate::route::PathPattern;

const LIMITS: HeadLimits = HeadLimits { max_head_bytes: 32 * 1024, max_headers: 100, max_target_bytes: 8192 };
const NOON: &str = "2026-03-15T12:00:00Z";
const HOME: &str = "10.0.0.1";
const AWAY: &str = "192.0.2.1";

/// Index of the plain header in [`sources`]: what `/narrow/` takes alone.
const X_API_KEY: usize = 0;

fn sources() -> Settings {
    Settings {
        sources: vec![
            Source::Header { name: "x-api-key".into() },
            Source::Scheme { name: "authorization".into(), schemes: vec!["Bearer".into()] },
            Source::Query { name: "api_key".into(), browser_login: true },
            Source::Basic,
            Source::Cookie { name: "kg".into() },
        ],
        realm: "keygate".into(),
    }
}

/// A route below `path`, or of `path` alone when it begins with `=`, for good keys.
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

fn words(words: &[&str]) -> Vec<Box<str>> {
    words.iter().map(|word| Box::from(*word)).collect()
}

fn rate(requests: u32) -> Rate {
    let requests = NonZeroU32::new(requests).unwrap();
    Rate { requests, per: Duration::from_secs(1), burst: requests }
}

fn routes() -> Vec<Route> {
    vec![
        Route { roles: words(&["client", "miner"]), cors_preflight: true, ..route("/v1/") },
        Route { roles: words(&["admin"]), methods: Some(words(&["GET", "DELETE"])), ..route("/v1/admin/") },
        Route { scopes: words(&["read", "write"]), ..route("/scoped/") },
        Route { access: Access::Public, ..route("/open/") },
        Route { access: Access::Public, methods: Some(words(&["POST"])), ..route("/open/post/") },
        Route { access: Access::Public, roles: words(&["admin"]), ..route("/open/half/") },
        Route { access: Access::Public, limits: Some(rate(2)), cors_preflight: true, ..route("/open/slow/") },
        Route { credentials: Some(vec![X_API_KEY]), ..route("/narrow/") },
        Route { limits: Some(rate(2)), ..route("/slow/") },
        route("=/any"),
    ]
}

/// A key file: the key of an entry is `key-` and its id.
fn keyring() -> Keyring {
    let entry = |id: &str, change: &dyn Fn(&mut Entry)| {
        let hash = KeyHash::of(format!("key-{id}").as_bytes());
        let mut fields = Entry::new(KeyId::new(id), &format!("user-{id}"), hash);
        change(&mut fields);
        Record::pack(fields, &mut Shelf::default())
    };
    let noon = || NOON.parse().unwrap();
    let strings = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    Keyring::new(vec![
        entry("plain", &|_| {}),
        entry("client", &|key| key.roles = strings(&["other", "client"])),
        entry("admin", &|key| key.roles = strings(&["admin"])),
        entry("reader", &|key| key.scopes = strings(&["read"])),
        entry("writer", &|key| key.scopes = strings(&["write", "read"])),
        entry("off", &|key| key.disabled = true),
        entry("old", &|key| key.expires = Some(noon())),
        entry("home", &|key| key.allow_from = vec!["10.0.0.0/8".parse().unwrap()]),
        entry("turned", &|key| key.previous = Some(Previous { hash: KeyHash::of(b"key-before"), until: noon() })),
        entry("few", &|key| key.limits.rate = Some(rate(1))),
        entry("one", &|key| key.limits.concurrent = NonZeroU32::new(1)),
    ])
}

/// Everything that admission decides by, and the clocks.
struct Bench {
    router: Router,
    sources: Sources,
    keyring: Keyring,
    limiter: Limiter,
    throttle: Throttle,
    session: SessionSecret,
    start: Instant,
}

impl Bench {
    fn new() -> Self {
        let attempts = NonZeroU32::new(3).unwrap();
        let throttle = FailedAuth { attempts, per: Duration::from_secs(60), max_addresses: 16 };
        Self {
            router: Router::new(routes()).expect("the routes of a test"),
            sources: Sources::new(&sources()),
            keyring: keyring(),
            limiter: Limiter::new(16),
            throttle: Throttle::new(throttle),
            session: SessionSecret::new(&[7; 32]),
            start: Instant::now(),
        }
    }

    fn rules(&self) -> Rules<'_> {
        Rules {
            router: &self.router,
            sources: &self.sources,
            default_limits: Limits::default(),
            keyring: &self.keyring,
            limiter: &self.limiter,
            throttle: Some(&self.throttle),
            session: Some(&self.session),
        }
    }

    /// `seconds` after noon, which may be before it by the wall clock alone.
    fn at(&self, seconds: i64) -> Now {
        let noon: jiff::Timestamp = NOON.parse().unwrap();
        let mono = self.start + Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        Now { wall: jiff::Timestamp::from_second(noon.as_second() + seconds).unwrap(), mono }
    }

    fn decide(&self, bytes: &[u8], address: &str, now: Now) -> Result<Admitted, Box<Refused>> {
        let mut head = RequestHead::default();
        assert_eq!(head.parse(bytes, &LIMITS), Ok(true), "{}", String::from_utf8_lossy(bytes));
        let client = ClientSide { address: address.parse().ok(), scheme: "http", host: b"gate.lan" };
        decide(self.rules(), head.view(bytes), client, now)
    }

    fn verdict(&self, bytes: &[u8], address: &str, now: Now) -> String {
        match self.decide(bytes, address, now) {
            Ok(admitted) => self.admitted(&admitted),
            Err(refused) => self.refused(&refused),
        }
    }

    fn admitted(&self, admitted: &Admitted) -> String {
        let who = match admitted.caller() {
            Caller::Key(principal) => principal.id().as_str().to_owned(),
            Caller::Anonymous => "anonymous".to_owned(),
            Caller::Preflight => "preflight".to_owned(),
        };
        let route = self.router.route(admitted.route()).expect("of this router");
        let login = admitted.login().map(|login| format!(" login {}", String::from_utf8_lossy(&login.location)));
        format!("{who} to {}{}", route.name, login.unwrap_or_default())
    }

    fn refused(&self, refused: &Refused) -> String {
        let mut said = format!("{} {}", refused.rejection.answer().status, refused.rejection.label());
        if let Some(principal) = &refused.principal {
            said.push_str(&format!(" as {}", principal.id().as_str()));
        }
        if let Some(allow) = &refused.allow {
            said.push_str(&format!(" allow {allow}"));
        }
        if let Some(cookie) = &refused.clear_cookie {
            said.push_str(&format!(" clear {cookie}"));
        }
        said
    }
}

/// A head with `Host` and these lines.
fn head(line: &str, lines: &[&str]) -> Vec<u8> {
    let mut text = format!("{line} HTTP/1.1\r\nHost: gate.lan\r\n");
    for line in lines {
        text.push_str(line);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// One request alone, from home at noon, against everything above.
#[track_caller]
fn check(row: &str, line: &str, lines: &[&str], want: &str) {
    check_from(row, HOME, 0, line, lines, want);
}

#[track_caller]
fn check_from(row: &str, address: &str, seconds: i64, line: &str, lines: &[&str], want: &str) {
    let bench = Bench::new();
    let got = bench.verdict(&head(line, lines), address, bench.at(seconds));
    assert_eq!(got, want, "{row}: {line} {lines:?}");
}

/// Requests one after the other on one bench: address, seconds, request, verdict.
#[track_caller]
fn story(row: &str, steps: &[(&str, i64, &str, &str, &str)]) {
    let bench = Bench::new();
    for (number, (address, seconds, line, field, want)) in steps.iter().enumerate() {
        let lines: Vec<&str> = [*field].into_iter().filter(|line| !line.is_empty()).collect();
        let got = bench.verdict(&head(line, &lines), address, bench.at(*seconds));
        assert_eq!(got, *want, "{row}, step {number}");
    }
}
