//! Values that go into HTTP by name: headers, cookies, paths, methods, schemes, roles and scopes.

use super::problem::Fault;
use crate::route::HeaderSecret;

/// The name of a header that the gate may read or set: an RFC 9110 token, and none whose meaning is the connection's
/// own or the gate's.
pub(super) fn header(text: &str) -> Result<Box<str>, Fault> {
    if let Some(name) = text.strip_suffix(':').filter(|name| is_token(name)) {
        return Err(Fault::new("is not a header name").suggest(format!("write `{name}`, without the colon")));
    }
    if !is_token(text) {
        return Err(Fault::new("is not a header name").hint("names are letters, digits and !#$%&'*+-.^_`|~"));
    }
    let lower = text.to_ascii_lowercase();
    if lower == "host" {
        return Err(
            Fault::new("is not the gate's to use here").hint("the upstream's `host:` says what is sent as Host")
        );
    }
    if lower.starts_with("sec-websocket-") {
        return Err(Fault::new("belongs to the WebSocket handshake").hint("a key in it is `websocket_protocol:`"));
    }
    if CONNECTION_FIELDS.contains(&lower.as_str()) {
        return Err(Fault::new("belongs to the connection and cannot be used here"));
    }
    let folded = fold(text);
    if OWN_FIELDS.contains(&folded.as_str()) || is_forwarded(text) {
        return Err(Fault::new("is one of the gate's own")
            .hint("these are X-Request-Id, X-Real-IP, Forwarded and X-Forwarded-…"));
    }
    Ok(text.into())
}

/// The name of a header that carries an identity.
pub(super) fn identity_header(text: &str) -> Result<Box<str>, Fault> {
    match text.to_ascii_lowercase().as_str() {
        "authorization" | "cookie" | "set-cookie" | "content-type" | "origin" => {
            Err(Fault::new("has a meaning of its own and cannot carry an identity")
                .hint("take a name such as X-Auth-User"))
        }
        // Upstreams made for oauth2-proxy and its like read X-Forwarded-User, X-Forwarded-Groups and so on. The whole family
        // is dropped from clients, so that ours is the only one; the three that tell of the request itself stay ours.
        _ if is_forwarded(text) && !FORWARDED_ORIGIN.contains(&fold(text).as_str()) => match is_token(text) {
            true => Ok(text.into()),
            false => header(text),
        },
        _ => header(text),
    }
}

fn is_forwarded(text: &str) -> bool {
    fold(text).starts_with("x-forwarded-")
}

/// What the gate itself says about where a request came from, folded; and their usual kin, which upstreams believe alike.
const FORWARDED_ORIGIN: [&str; 8] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-scheme",
    "x-forwarded-ssl",
    "x-forwarded-server",
    "x-forwarded-prefix",
];

/// The name of a header that carries a key.
pub(super) fn credential_header(text: &str) -> Result<Box<str>, Fault> {
    match text.to_ascii_lowercase().as_str() {
        "cookie" => Err(Fault::new("holds many values").hint("write `- cookie: NAME` to take a key from one cookie")),
        "set-cookie" | "content-type" | "origin" | "referer" => {
            Err(Fault::new("has a meaning of its own and cannot carry a key"))
        }
        _ => header(text),
    }
}

/// The value of a header that is sent upstream (RFC 9110 section 5.5, UTF-8 allowed); never empty.
pub(super) fn header_value(text: &str) -> Result<HeaderSecret, Fault> {
    if text.is_empty() {
        return Err(Fault::new("is empty").hint("a header without a value protects nothing; take the line out"));
    }
    if text.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7f) {
        return Err(Fault::new("holds a line break or another control byte, which no header can"));
    }
    if text.trim_matches([' ', '\t']) != text {
        return Err(Fault::new("begins or ends with a blank, which would be lost on the way"));
    }
    Ok(HeaderSecret::new(text.as_bytes()))
}

/// A cookie name (RFC 6265).
pub(super) fn cookie(text: &str) -> Result<Box<str>, Fault> {
    token(text, "is not a cookie name")
}

/// A method: upper-case letters, since methods are case-sensitive.
pub(super) fn method(text: &str) -> Result<Box<str>, Fault> {
    let upper = text.to_ascii_uppercase();
    if matches!(upper.as_str(), "TRACE" | "CONNECT") {
        return Err(Fault::new("never passes the gate"));
    }
    if text == "*" {
        return Err(Fault::new("is not a method").hint("a route without `methods` takes all"));
    }
    if upper != text {
        return Err(Fault::new("is not a method").suggest(format!("methods are upper case: write `{upper}`")));
    }
    token(text, "is not a method")
}

/// An authentication scheme, as written before the key in a header.
pub(super) fn scheme(text: &str) -> Result<Box<str>, Fault> {
    if text.eq_ignore_ascii_case("basic") {
        return Err(
            Fault::new("carries a name and a password, not a key").hint("write `- basic: password` as a source")
        );
    }
    token(text.trim_end(), "is not a scheme").and_then(|scheme| {
        if scheme.len() == text.len() {
            return Ok(scheme);
        }
        Err(Fault::new("ends with a blank").suggest(format!("write `{scheme}`; the blank is understood")))
    })
}

/// The beginning of a WebSocket subprotocol item; what follows it is the key.
pub(super) fn protocol_prefix(text: &str) -> Result<Box<str>, Fault> {
    token(text, "is not the beginning of a WebSocket subprotocol")
}

/// The decoded name of a query parameter.
pub(super) fn query(text: &str) -> Result<Box<str>, Fault> {
    let legal = |b: u8| b.is_ascii_graphic() && !b"&=#%+?;".contains(&b);
    if text.is_empty() || !text.bytes().all(legal) {
        return Err(Fault::new("is not the name of a query parameter").hint("write the name alone, not encoded"));
    }
    Ok(text.into())
}

/// A role: visible ASCII without `,`, since a header carries several with commas between.
pub(super) fn role(text: &str) -> Result<Box<str>, Fault> {
    let legal = |b: u8| b.is_ascii_graphic() && !b",\"\\".contains(&b);
    if text.is_empty() || !text.bytes().all(legal) {
        return Err(Fault::new("is not a role").hint("roles are visible ASCII without blanks, commas and quotes"));
    }
    Ok(text.into())
}

/// A scope (RFC 6749 section 3.3): visible ASCII but `"` and `\`.
pub(super) fn scope(text: &str) -> Result<Box<str>, Fault> {
    let legal = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    if text.is_empty() || !text.bytes().all(legal) {
        return Err(
            Fault::new("is not a scope").hint("scopes are visible ASCII without blanks and quotes; one an item")
        );
    }
    Ok(text.into())
}

/// A path of a route, or one asked of an upstream: what every reading of it agrees on.
pub(super) fn path(text: &str) -> Result<Box<str>, Fault> {
    let fault = || Fault::new("is not a path");
    if !text.starts_with('/') {
        return Err(fault().hint("a path begins with `/`"));
    }
    if text.contains(['*', '{', '}', '^', '$', '(', ')', '|']) {
        return Err(fault().hint("there are no patterns: `path` owns all below it, `exact` one path alone"));
    }
    if text.contains(['?', '#']) {
        return Err(fault().hint("routes look at the path alone, not at the query"));
    }
    if text.contains('%') {
        return Err(fault().hint("write it decoded; encoded requests are read under every reading anyway"));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic() && !b"\\;\"<>`".contains(&b)) {
        return Err(fault().hint("paths are visible ASCII without blanks, quotes, `\\` and `;`"));
    }
    if text.contains("//") {
        return Err(fault().hint("two slashes in a row are read as one by many servers; write one"));
    }
    if text.split('/').any(|segment| segment == "." || segment == "..") {
        return Err(fault().hint("no `.` and `..` segments"));
    }
    Ok(text.into())
}

/// A request target to ask an upstream for: path, and query if any (RFC 9112 section 3.2.1).
pub(super) fn target(text: &str) -> Result<Box<str>, Fault> {
    let legal = |b: u8| b.is_ascii_graphic() && !b"#\"<>\\`".contains(&b);
    if !text.starts_with('/') || !text.bytes().all(legal) {
        return Err(Fault::new("is not a path").hint("a path begins with `/` and is visible ASCII, a query included"));
    }
    Ok(text.into())
}

/// A prefix to cut off: empty, or a path without a slash at its end.
pub(super) fn strip_prefix(text: &str) -> Result<Box<str>, Fault> {
    match text.strip_suffix('/') {
        None if text.is_empty() => Ok(text.into()),
        Some(rest) => Err(Fault::new("ends with a slash, which has to stay on the path").suggest(if rest.is_empty() {
            "write \"\" to cut nothing".to_owned()
        } else {
            format!("write `{rest}`")
        })),
        None => path(text),
    }
}

/// The name of an upstream or a route, which becomes a metric label.
pub(super) fn label(text: &str) -> Result<Box<str>, Fault> {
    let legal = |b: u8| b.is_ascii_graphic() && !b"\"\\`".contains(&b);
    if text.is_empty() || text.len() > LONGEST_LABEL || !text.bytes().all(legal) {
        return Err(Fault::new("is not a name")
            .hint(format!("names are visible ASCII without blanks and quotes, at most {LONGEST_LABEL} long")));
    }
    Ok(text.into())
}

/// The realm in `WWW-Authenticate`: what fits a quoted string without escapes.
pub(super) fn realm(text: &str) -> Result<Box<str>, Fault> {
    let legal = |b: u8| (b.is_ascii_graphic() || b == b' ') && b != b'"' && b != b'\\';
    if text.is_empty() || !text.bytes().all(legal) {
        return Err(Fault::new("is not a realm").hint("write visible ASCII without quotes and `\\`"));
    }
    Ok(text.into())
}

/// A header name as careless upstreams read it: lower case, every non-alphanumeric a `-` (design rule 3).
pub(super) fn fold(name: &str) -> String {
    name.bytes().map(|b| if b.is_ascii_alphanumeric() { char::from(b.to_ascii_lowercase()) } else { '-' }).collect()
}

fn token(text: &str, what: &str) -> Result<Box<str>, Fault> {
    if is_token(text) { Ok(text.into()) } else { Err(Fault::new(what).hint("use letters, digits and !#$%&'*+-.^_`|~")) }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Framing and hop-by-hop fields (RFC 9110 section 7.6.1, RFC 9112), which the gate writes anew.
const CONNECTION_FIELDS: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields the gate sets, by folded name; `x-forwarded-…` besides.
const OWN_FIELDS: [&str; 3] = ["x-request-id", "forwarded", "x-real-ip"];

const LONGEST_LABEL: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: std::fmt::Debug>(parse: impl Fn(&str) -> Result<T, Fault>, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(parse(text).is_ok(), "{text:?} was refused: {:?}", parse(text));
        }
        for text in bad {
            assert!(parse(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn headers() {
        let framing = ["Host", "connection", "Content-Length", "TRANSFER-ENCODING", "te", "Upgrade", "Keep-Alive"];
        check(header, &["X-Api-Key", "Authorization", "x_y.z"], &framing);
        check(header, &[], &["", "a b", "a:", "a\r\n", "é", "X-Request-Id", "x_request_id", "Forwarded", "X-Real-IP"]);
        check(header, &[], &["X-Forwarded-For", "X.Forwarded.User", "Sec-WebSocket-Key", "Proxy-Authorization"]);
        check(
            identity_header,
            &["X-Auth-User", "X-Forwarded-User", "x-forwarded-groups"],
            &["Authorization", "cookie"],
        );
        check(
            identity_header,
            &[],
            &["Host", "X-Forwarded-For", "x_forwarded_host", "X-Forwarded-Port", "X-Forwarded-é"],
        );
        check(credential_header, &["Authorization"], &["Cookie", "Referer"]);
        check(header_value, &["a b\tc", "ü"], &["", " a", "a ", "a\nb", "a\0", "\u{7f}"]);
    }

    #[test]
    fn words() {
        check(cookie, &["keygate_session", "__Host-k"], &["", "a=b", "a;b", "a b"]);
        check(method, &["GET", "PURGE", "M-SEARCH"], &["get", "", "TRACE", "CONNECT", "*", "A B"]);
        check(scheme, &["Bearer", "Api-Key"], &["", "Basic", "Bearer ", "A B"]);
        check(query, &["api_key", "key[]"], &["", "a=", "a&b", "api%5Fkey", "a b"]);
        check(role, &["admin", "a:b/c"], &["", "a b", "a,b", "ä", "a\"b"]);
        check(scope, &["jobs:write", "a,b"], &["", "a b", "a\"b", "ä"]);
        check(label, &["worker.lan/v1/"], &["", "a b", "a\"b"]);
        check(realm, &["keygate", "my lab"], &["", "a\"b", "ä"]);
        check(protocol_prefix, &["keygate.key."], &["", "a b", "a,b"]);
    }

    #[test]
    fn paths() {
        check(
            path,
            &["/", "/v1/", "/v1", "/a.b/~c/:d/@e"],
            &["", "v1", "/a//b", "/../a", "/a/.", "/a?b", "/a#b", "/%61"],
        );
        check(path, &[], &["/a b", "/*", "/v1/*", "/{id}", "^/v1", "/a;b", "/a\\b", "/ä", "/(x|y)"]);
        check(target, &["/healthz?full=1", "/%61"], &["", "healthz", "http://a/", "/a b", "/a#b", "/a\r\n"]);
        check(strip_prefix, &["", "/v1"], &["/", "/v1/", "v1"]);
    }

    #[test]
    fn folding() {
        for name in ["X-Auth-User", "x_auth.user", "X!AUTH~USER"] {
            assert_eq!(fold(name), "x-auth-user");
        }
    }
}
