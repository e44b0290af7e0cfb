//! A stream's head as the canonical HTTP/1 bytes that the one parser reads, so that the same checks guard both protocols
//! (design section 3). What HTTP/2 can say in two places is checked here; all other rules are the parser's.

use http::request::Parts;

use super::fields::is_line;
use crate::http1::write;
use crate::rejection::Rejection;

/// Writes the head; `has_body` is whether the stream goes on after it.
///
/// `:authority` and `Host` must agree (RFC 9113 section 8.3.1), and cookies are joined again (section 8.2.3). A length of
/// the body, where none is told, becomes chunked coding.
pub(super) fn write(parts: &Parts, has_body: bool) -> Result<Vec<u8>, Rejection> {
    let mut out = Vec::with_capacity(512);
    // CONNECT has no path: the parser refuses it by its method.
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    if !is_line(target.as_bytes()) {
        return Err(Rejection::Malformed("target_byte"));
    }
    write::request_line(&mut out, parts.method.as_str().as_bytes(), target.as_bytes());
    if let Some(host) = host(parts)? {
        write::field(&mut out, b"Host", host);
    }
    let mut has_length = false;
    for (name, value) in &parts.headers {
        if !is_line(value.as_bytes()) {
            return Err(Rejection::Malformed("field_value"));
        }
        match name.as_str() {
            "host" | "cookie" => {}
            "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" => {
                return Err(Rejection::Malformed("connection_field"));
            }
            "te" if value != "trailers" => return Err(Rejection::Malformed("connection_field")),
            other => {
                has_length |= other == "content-length";
                write::field(&mut out, other.as_bytes(), value.as_bytes());
            }
        }
    }
    write_cookies(&mut out, parts);
    if has_body && !has_length {
        write::field(&mut out, b"Transfer-Encoding", b"chunked");
    }
    out.extend_from_slice(write::END_OF_HEAD);
    Ok(out)
}

/// The one host that the request names, in either way.
fn host(parts: &Parts) -> Result<Option<&[u8]>, Rejection> {
    let mut lines = parts.headers.get_all("host").iter();
    let (line, more) = (lines.next().map(http::HeaderValue::as_bytes), lines.next());
    if more.is_some() {
        return Err(Rejection::Malformed("host_repeated"));
    }
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    match (authority, line) {
        (Some(authority), Some(line)) if !authority.eq_ignore_ascii_case(line) => {
            Err(Rejection::Malformed("host_differs"))
        }
        (one, other) => match one.or(other) {
            Some(host) if !is_line(host) => Err(Rejection::Malformed("host")),
            host => Ok(host),
        },
    }
}

fn write_cookies(out: &mut Vec<u8>, parts: &Parts) {
    let mut separator: &[u8] = b"cookie: ";
    for crumb in parts.headers.get_all("cookie") {
        out.extend_from_slice(separator);
        out.extend_from_slice(crumb.as_bytes());
        separator = b"; ";
    }
    if separator == b"; " {
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[track_caller]
    fn check(uri: &str, fields: &[(&str, &str)], has_body: bool, want: Result<&str, Rejection>) {
        let written = write(&parts(uri, fields), has_body);
        let want = want.map(|text| text.replace('\n', "\r\n") + "\r\n");
        assert_eq!(written.map(|bytes| String::from_utf8(bytes).unwrap()), want, "{uri} {fields:?}");
    }

    #[test]
    fn heads_become_canonical() {
        let head = "GET /a?b=%20 HTTP/1.1\nHost: h.test\n";
        check("https://h.test/a?b=%20", &[], false, Ok(head));
        check("https://h.test/a?b=%20", &[("host", "H.test")], false, Ok(head));
        check("/a?b=%20", &[("host", "h.test")], false, Ok(head));
        check("https://h.test/a?b=%20#c", &[], false, Ok(head));
        let chunked = "GET / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n";
        check("https://h/", &[], true, Ok(chunked));
        let length = "GET / HTTP/1.1\nHost: h\ncontent-length: 3\n";
        check("https://h/", &[("content-length", "3")], true, Ok(length));
        let joined = "GET / HTTP/1.1\nHost: h\nx: 1\nte: trailers\ncookie: a=1; b=2\n";
        let crumbs = [("cookie", "a=1"), ("x", "1"), ("cookie", "b=2"), ("te", "trailers")];
        check("https://h/", &crumbs, false, Ok(joined));
    }

    #[test]
    fn what_could_be_read_two_ways_is_refused() {
        let refused = |rule| Err(Rejection::Malformed(rule));
        check("https://a/", &[("host", "b")], false, refused("host_differs"));
        check("https://a/", &[("host", "a"), ("host", "a")], false, refused("host_repeated"));
        for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
            check("https://a/", &[(name, "x")], false, refused("connection_field"));
        }
        check("https://a/", &[("te", "gzip")], false, refused("connection_field"));
    }
}
