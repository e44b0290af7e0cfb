//! The request line: a method token, an origin-form target and the version, one space between them (RFC 9112 section 3).

use crate::http1::head::{Span, Version, is_token};
use crate::rejection::Rejection;

/// The parts of a request line.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestLine {
    pub(super) method: Span,
    pub(super) target: Span,
    pub(super) version: Version,
    /// Length of the line, CRLF included.
    pub(super) len: usize,
}

/// What can be told before the line is complete: that it cannot be one, or that its target is too long.
pub(super) fn check_start(bytes: &[u8], max_target_bytes: usize) -> Result<(), Rejection> {
    match bytes.first() {
        None => return Ok(()),
        Some(b'\r' | b'\n') => return Err(Rejection::Malformed("leading_blank_line")),
        Some(first) if !is_token(&[*first]) => return Err(Rejection::Malformed("method")),
        Some(_) => {}
    }
    let line = up_to_line_end(bytes);
    let target = line.splitn(3, |byte| *byte == b' ').nth(1).unwrap_or_default();
    if target.len() > max_target_bytes { Err(Rejection::UriTooLong) } else { Ok(()) }
}

/// Reads the line at the start of `bytes`, whose line ends were checked.
pub(super) fn read(bytes: &[u8]) -> Result<RequestLine, Rejection> {
    let line = up_to_line_end(bytes);
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let (method, target, version) = (parts.next(), parts.next(), parts.next());
    let method = method.filter(|method| is_token(method)).ok_or(Rejection::Malformed("method"))?;
    // In any case of letters: an upstream that ignores case must not see what we let pass as some other method.
    if method.eq_ignore_ascii_case(b"TRACE") || method.eq_ignore_ascii_case(b"CONNECT") {
        return Err(Rejection::MethodNotSupported);
    }
    let (Some(target), Some(version)) = (target, version) else {
        return Err(Rejection::Malformed("request_line"));
    };
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        other if memchr::memchr2(b' ', b'\t', other).is_some() => return Err(Rejection::Malformed("request_line")),
        _ => return Err(Rejection::Malformed("version")),
    };
    check_target(target)?;
    let target_start = method.len() + 1;
    Ok(RequestLine {
        method: Span::new(0, method.len()),
        target: Span::new(target_start, target_start + target.len()),
        version,
        len: line.len() + 2,
    })
}

/// Origin-form only: absolute-form, authority-form and `*` are refused (decision 2), and so is a fragment (decision 1).
fn check_target(target: &[u8]) -> Result<(), Rejection> {
    let rule = match target.first() {
        Some(b'/') if !target.iter().all(u8::is_ascii_graphic) => "target_byte",
        Some(b'/') if memchr::memchr(b'#', target).is_some() => "target_fragment",
        Some(b'/') => return Ok(()),
        Some(_) => "target_form",
        None => "request_line",
    };
    Err(Rejection::Malformed(rule))
}

fn up_to_line_end(bytes: &[u8]) -> &[u8] {
    memchr::memchr2(b'\r', b'\n', bytes).and_then(|end| bytes.get(..end)).unwrap_or(bytes)
}
