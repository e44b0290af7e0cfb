//! What the upstream is told about the caller, and what it is not told: every credential and every header that could pass
//! for ours is dropped, then ours are set (design rules 3 and 4).

use std::io::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use crate::credential::{Source, Sources, Untouched};
use crate::http1::head::{Field, Fields, Framing, list_items};
use crate::http1::request::Request;
use crate::http1::write;
use crate::route::HeaderSecret;

pub mod forwarded;
mod names;
mod path;
pub mod request_id;
pub mod response;

use forwarded::{Scheme, public_origin};
use names::{Class, Names};
use request_id::RequestId;
use response::Nominations;

/// The identity headers and whose forwarded headers are believed.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Headers that carry the user name.
    pub user: Vec<Box<str>>,
    /// Headers that carry the key id.
    pub key_id: Vec<Box<str>>,
    /// Headers that carry the roles, comma separated.
    pub roles: Vec<Box<str>>,
    /// Headers that carry the scopes, space separated.
    pub scopes: Vec<Box<str>>,
    /// Peers whose `X-Forwarded-*` are believed.
    pub trusted_proxies: Vec<TrustedProxy>,
}

/// A peer whose forwarded headers are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedProxy {
    /// Peers in this network.
    Net(ipnet::IpNet),
    /// Every peer on a unix listener.
    Unix,
}

/// Whom a request is sent on for.
#[derive(Clone, Copy, Debug)]
pub enum Who<'a> {
    /// The holder of a good key.
    Caller(Caller<'a>),
    /// Nobody known, on a public route.
    Anonymous,
    /// A CORS preflight: it carries no identity and no secret, ours or anybody's (decision 24). Its body is the
    /// engine's to withhold: [`Forward::framing`] must say that there is none.
    Preflight,
}

/// The holder of a good key, in words that are safe in a header.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// User name.
    pub user: &'a str,
    /// Public id of the key.
    pub key_id: &'a str,
    /// Roles, joined by commas.
    pub roles: &'a str,
    /// Scopes, joined by spaces.
    pub scopes: &'a str,
}

/// What is to be known of a request, beside its head, to write the head that the upstream gets.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// Whom it is sent for.
    pub who: Who<'a>,
    /// What belongs to the upstream, as [`Sources::find`] said. The default cuts every source.
    pub untouched: Untouched,
    /// [`forwarded::client_address`].
    pub client_address: Option<IpAddr>,
    /// [`forwarded::is_trusted`].
    pub peer_trusted: bool,
    /// Scheme of the listener.
    pub scheme: Scheme,
    /// `Host` to send.
    pub host: &'a [u8],
    /// Its id.
    pub request_id: &'a RequestId,
    /// How its body will be framed.
    pub framing: Framing,
    /// What it is sent over.
    pub protocol: Protocol,
    /// Prefix cut from the path; empty cuts nothing.
    pub strip_prefix: &'a str,
    /// Whether the route lists its methods; then a header that names another method does not pass.
    pub methods_listed: bool,
    /// The route's own headers; values may be secrets of the upstream.
    pub set_headers: &'a [(Box<str>, HeaderSecret)],
}

/// What a request is sent over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/1.1, asking for a WebSocket: the only upgrade there is.
    WebSocket,
    /// HTTP/2: the head written is the canonical form that the HTTP/2 client reads its fields from, and `TE: trailers`
    /// passes, which gRPC asks for.
    Http2,
}

/// The configured edits, made ready.
#[derive(Clone, Debug)]
pub struct Policy {
    settings: Settings,
    sources: Arc<Sources>,
    names: Names,
}

/// Names that no client header ever passes under: what belongs to one connection (RFC 9110 section 7.6.1), what is
/// written anew, and `Proxy`, which CGI hands to programs as their outgoing proxy.
const OURS: [&str; 13] = [
    "connection",
    "keep-alive",
    "proxy",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "expect",
    "host",
    "content-length",
    "x-request-id",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
];

/// Names under which proxies tell upstreams where a request came from and went to; `X-Forwarded-*` and `Proxy-*` are
/// reserved as families. Tornado believes `X-Scheme` before `X-Forwarded-Proto`; some frameworks route by the last two.
const FORWARDED: [&str; 13] = [
    "forwarded",
    "x-real-ip",
    "client-ip",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "x-scheme",
    "x-url-scheme",
    "front-end-https",
    "x-original-url",
    "x-rewrite-url",
];

/// Names by which a server lets its proxy say which part of the path is the application's: gunicorn takes `SCRIPT_NAME`, as
/// it comes, from the loopback address, and cuts it from the path. The gate decides on the path of the request line, so
/// nobody else may say another (design rule 2); an operator's `set_headers` may.
const PATH_SPLIT: [&str; 2] = ["script-name", "path-info"];

/// Names by which frameworks let a POST pass for another method. The gate decides on the method of the request line, so
/// where a route lists its methods nothing may name another behind its back (design rule 2).
const METHOD_OVERRIDE: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

impl Policy {
    /// Compiles the edits for these identity headers and credential sources.
    pub fn new(settings: &Settings, sources: Arc<Sources>) -> Self {
        let identity = [&settings.user, &settings.key_id, &settings.roles, &settings.scopes];
        let identity = identity.into_iter().flatten().map(|name| (name.clone(), Class::Drop));
        let ours = OURS.iter().chain(&PATH_SPLIT).map(|name| (Box::from(*name), Class::Drop));
        let credentials = sources.list().iter().enumerate().filter_map(|(index, source)| match source {
            Source::Header { name } | Source::Scheme { name, .. } if name.eq_ignore_ascii_case("authorization") => {
                Some((name.clone(), Class::Authorization))
            }
            Source::Header { name } | Source::Scheme { name, .. } => Some((name.clone(), Class::Source(index))),
            Source::Basic => Some(("authorization".into(), Class::Authorization)),
            Source::WebSocketProtocol { .. } => Some(("sec-websocket-protocol".into(), Class::Protocols)),
            Source::Query { .. } | Source::Cookie { .. } => None,
        });
        let forwarded = FORWARDED.iter().map(|name| (Box::from(*name), Class::Forwarded));
        let overrides = METHOD_OVERRIDE.iter().map(|name| (Box::from(*name), Class::MethodOverride));
        let special = [
            // Where the standard has credentials stand, whether or not it is a source: our keys stay here all the same.
            ("authorization".into(), Class::Authorization),
            ("cookie".into(), Class::Cookie),
            ("referer".into(), Class::Referer),
            ("te".into(), Class::Te),
            ("trailer".into(), Class::Trailer),
        ];
        let names =
            Names::new(identity.chain(ours).chain(credentials).chain(forwarded).chain(overrides).chain(special));
        Self { settings: settings.clone(), sources, names }
    }

    /// Appends the head that the upstream gets: the client's fields in their order without what must not pass, then ours.
    pub fn write_request_head(&self, out: &mut Vec<u8>, request: Request<'_>, forward: &Forward<'_>) {
        out.extend_from_slice(request.method());
        out.push(b' ');
        let path = path::without_prefix(request.path(), forward.strip_prefix);
        self.sources.write_target(out, path, request.query(), forward.untouched);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        write::field(out, b"Host", forward.host);
        self.write_client_fields(out, request.fields(), forward);
        write::framing(out, forward.framing);
        self.write_origin(out, request, forward);
        if let Who::Caller(caller) = forward.who {
            self.write_identity(out, caller);
        }
        if !matches!(forward.who, Who::Preflight) {
            forward.set_headers.iter().for_each(|(name, value)| {
                write::field(out, name.as_bytes(), value.expose_secret());
            });
        }
        if forward.protocol == Protocol::WebSocket {
            out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Whether a request trailer passes: none that could be taken for a field the gate guards or frames by (RFC 9110
    /// section 6.5.1). `set_headers` are the route's.
    pub fn keeps_trailer(&self, name: &[u8], set_headers: &[(Box<str>, HeaderSecret)]) -> bool {
        self.names.class(name) == Class::Free && response::keeps_trailer(name) && !is_set(name, set_headers)
    }

    fn write_client_fields(&self, out: &mut Vec<u8>, fields: Fields<'_>, forward: &Forward<'_>) {
        let nominations = Nominations::of(fields);
        let (mut cookies, mut protocols) = (false, false);
        for field in fields.iter() {
            if nominations.name(field.name) || is_set(field.name, forward.set_headers) {
                continue;
            }
            match self.names.class(field.name) {
                Class::Cookie if !std::mem::replace(&mut cookies, true) => self.write_cookies(out, fields, forward),
                Class::Protocols if !std::mem::replace(&mut protocols, true) => {
                    self.write_protocols(out, fields, forward);
                }
                Class::Referer => {
                    out.extend_from_slice(b"Referer: ");
                    self.sources.write_referer(out, field.value);
                    out.extend_from_slice(b"\r\n");
                }
                class if passes(class, field, forward) => write::field(out, field.name, field.value),
                _ => {}
            }
        }
    }

    fn write_cookies(&self, out: &mut Vec<u8>, fields: Fields<'_>, forward: &Forward<'_>) {
        if !matches!(forward.who, Who::Preflight) {
            write_if_any(out, b"Cookie: ", |out| self.sources.write_cookies(out, fields.values("cookie")));
        }
    }

    fn write_protocols(&self, out: &mut Vec<u8>, fields: Fields<'_>, forward: &Forward<'_>) {
        let lines = fields.values("sec-websocket-protocol");
        write_if_any(out, b"Sec-WebSocket-Protocol: ", |out| {
            self.sources.write_protocols(out, lines, forward.untouched)
        });
    }

    fn write_origin(&self, out: &mut Vec<u8>, request: Request<'_>, forward: &Forward<'_>) {
        let origin = public_origin(request, forward.scheme, forward.peer_trusted);
        if let Some(address) = forward.client_address {
            // Writing to memory cannot fail.
            let _ = write!(out, "X-Forwarded-For: {}\r\n", address.to_canonical());
        }
        write::field(out, b"X-Forwarded-Proto", origin.scheme.as_str().as_bytes());
        if let Some(host) = origin.host {
            write::field(out, b"X-Forwarded-Host", host);
        }
        write::field(out, b"X-Request-Id", forward.request_id.as_bytes());
    }

    fn write_identity(&self, out: &mut Vec<u8>, caller: Caller<'_>) {
        for (names, value) in [
            (&self.settings.user, caller.user),
            (&self.settings.key_id, caller.key_id),
            (&self.settings.roles, caller.roles),
            (&self.settings.scopes, caller.scopes),
        ] {
            if !value.is_empty() {
                names.iter().for_each(|name| write::field(out, name.as_bytes(), value.as_bytes()));
            }
        }
    }
}

/// Whether a client's field that needs no rewriting passes as it came.
fn passes(class: Class, field: Field<'_>, forward: &Forward<'_>) -> bool {
    let preflight = matches!(forward.who, Who::Preflight);
    match class {
        Class::Free => true,
        // A preflight passes without a key because it is an OPTIONS: so must it be for the upstream.
        Class::MethodOverride => !forward.methods_listed && !preflight,
        Class::Forwarded => forward.peer_trusted,
        Class::Source(index) => forward.untouched.source(index) && !preflight,
        Class::Authorization => forward.untouched.authorization() && !preflight,
        Class::Te => forward.protocol == Protocol::Http2 && list_items(field.value).eq([b"trailers".as_slice()]),
        Class::Trailer => forward.framing == Framing::Chunked || forward.protocol == Protocol::Http2,
        Class::Drop | Class::Cookie | Class::Referer | Class::Protocols => false,
    }
}

fn is_set(name: &[u8], set_headers: &[(Box<str>, HeaderSecret)]) -> bool {
    set_headers.iter().any(|(set, _)| names::folds_to(name, set.as_bytes()))
}

/// Appends `start` and what `content` writes as one line, or nothing when it wrote nothing.
fn write_if_any(out: &mut Vec<u8>, start: &[u8], content: impl FnOnce(&mut Vec<u8>) -> bool) {
    let before = out.len();
    out.extend_from_slice(start);
    if content(out) {
        out.extend_from_slice(b"\r\n");
    } else {
        out.truncate(before);
    }
}

#[cfg(test)]
mod tests;
