//! Which fields of an answer are the upstream connection's own affair. All others pass as they came, repeated lines too.

use crate::http1::head::{Fields, list_items};

/// Fields that belong to one connection (RFC 9110 section 7.6.1) or that the engine writes anew from the framing it
/// chose. An answer to HEAD and a 304 have no body but may say how long it would be: there the engine repeats the
/// upstream's `Content-Length`.
const OF_ONE_CONNECTION: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authentication-info",
    "te",
    "transfer-encoding",
    "content-length",
    "upgrade",
];

/// Fields that mean nothing, or something dangerous, after the body (RFC 9110 section 6.5.1).
const NOT_IN_TRAILERS: [&str; 16] = [
    "host",
    "trailer",
    "cookie",
    "set-cookie",
    "authorization",
    "www-authenticate",
    "cache-control",
    "expect",
    "max-forwards",
    "content-type",
    "content-encoding",
    "content-range",
    "location",
    "range",
    "te",
    "age",
];

/// The names that a head's `Connection` nominates as hop-by-hop. Past 16 every name counts as nominated:
/// no real sender comes near, and comparing thousands with every field is work that a stranger should not be able to ask.
#[derive(Clone, Copy, Debug)]
pub struct Nominations<'a> {
    names: [&'a [u8]; MAX_NOMINATED],
    count: usize,
}

const MAX_NOMINATED: usize = 16;

impl<'a> Nominations<'a> {
    /// Reads every `Connection` line of a head.
    pub fn of(fields: Fields<'a>) -> Self {
        let options: [&[u8]; 3] = [b"close", b"keep-alive", b"upgrade"];
        let is_name = |item: &&[u8]| !options.iter().any(|option| item.eq_ignore_ascii_case(option));
        let (mut names, mut count): ([&[u8]; MAX_NOMINATED], usize) = (Default::default(), 0);
        for item in fields.values("connection").flat_map(list_items).filter(is_name) {
            if let Some(slot) = names.get_mut(count) {
                *slot = item;
            }
            count += 1;
        }
        Self { names, count }
    }

    /// Whether `name` is one of them.
    pub fn name(&self, name: &[u8]) -> bool {
        self.count > MAX_NOMINATED || self.names.iter().take(self.count).any(|item| item.eq_ignore_ascii_case(name))
    }
}

/// Whether a field of an upstream's answer passes to the client.
pub fn keeps_response_field(name: &[u8], nominations: &Nominations<'_>) -> bool {
    !is_one_of(name, &OF_ONE_CONNECTION) && !nominations.name(name)
}

/// Whether a trailer of an upstream's answer passes to the client.
pub fn keeps_trailer(name: &[u8]) -> bool {
    !is_one_of(name, &OF_ONE_CONNECTION) && !is_one_of(name, &NOT_IN_TRAILERS)
}

fn is_one_of(name: &[u8], names: &[&str]) -> bool {
    names.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::request::sample::Sample;

    #[test]
    fn answers_lose_what_belongs_to_the_upstream_connection() {
        let sample = Sample::get("/", &["Connection: close, X-Hop", "connection: x-other"]);
        let nominations = Nominations::of(sample.request().fields());
        for (name, want) in [
            ("Connection", false),
            ("Keep-Alive", false),
            ("TRANSFER-ENCODING", false),
            ("Content-Length", false),
            ("Upgrade", false),
            ("Proxy-Authenticate", false),
            ("x-hop", false),
            ("X-Other", false),
            ("Set-Cookie", true),
            ("ETag", true),
            ("Trailer", true),
            ("X-Auth-User", true),
        ] {
            assert_eq!(keeps_response_field(name.as_bytes(), &nominations), want, "{name}");
        }
        let many = format!("Connection: {}", "a,".repeat(17));
        let many = Sample::get("/", &[&many]);
        assert!(!keeps_response_field(b"X-Any", &Nominations::of(many.request().fields())));
        let sixteen = (0..16).map(|n| format!("x-{n}")).collect::<Vec<_>>().join(",");
        let sixteen = Sample::get("/", &[format!("Connection: {sixteen}")]);
        let nominations = Nominations::of(sixteen.request().fields());
        assert!(nominations.name(b"X-15") && !nominations.name(b"X-16") && !nominations.name(b""));
        let plain = Sample::get("/", &["Connection: keep-alive, Upgrade"]);
        assert!(keeps_response_field(b"X-Hop", &Nominations::of(plain.request().fields())));
    }

    #[test]
    fn trailers_of_answers_are_those_that_mean_something_there() {
        for (name, want) in [
            ("grpc-status", true),
            ("Server-Timing", true),
            ("Digest", true),
            ("Content-Length", false),
            ("transfer-encoding", false),
            ("Set-Cookie", false),
            ("content-encoding", false),
        ] {
            assert_eq!(keeps_trailer(name.as_bytes()), want, "{name}");
        }
    }
}
