//! Field lines: read by `httparse` from a section whose line ends were already checked, and the rules for the values that
//! decide framing, which requests and responses share (RFC 9110 sections 5 and 8.6, RFC 9112 section 6).

use crate::http1::head::{FieldSpan, Span, list_items};

/// Why field lines cannot be read: the rule that was broken.
pub(crate) type FieldError = &'static str;

/// Reads the `count` field lines of `bytes[start..end]`, blank line included, into `spans`, which keeps its allocation.
///
/// Names are tokens directly followed by the colon; values hold no control byte but HTAB.
pub(crate) fn read(
    bytes: &[u8],
    (start, end): (usize, usize),
    count: usize,
    spans: &mut Vec<FieldSpan>,
) -> Result<(), FieldError> {
    // On the stack for every head met in practice, and small for most: the array is written before it is read.
    match count {
        0..=32 => read_with(bytes, (start, end), &mut [httparse::EMPTY_HEADER; 32], spans),
        33..=128 => read_with(bytes, (start, end), &mut [httparse::EMPTY_HEADER; 128], spans),
        _ => read_with(bytes, (start, end), &mut vec![httparse::EMPTY_HEADER; count], spans),
    }
}

fn read_with<'b>(
    bytes: &'b [u8],
    (start, end): (usize, usize),
    headers: &mut [httparse::Header<'b>],
    spans: &mut Vec<FieldSpan>,
) -> Result<(), FieldError> {
    spans.clear();
    let section = bytes.get(start..end).ok_or("field_line")?;
    let headers = match httparse::parse_headers(section, headers) {
        Ok(httparse::Status::Complete((len, headers))) if len == section.len() => headers,
        Err(httparse::Error::HeaderName) => return Err("field_name"),
        Err(httparse::Error::HeaderValue) => return Err("field_value"),
        // Not reached while the section was scanned first; the two readers of line ends must agree.
        Ok(_) | Err(_) => return Err("field_line"),
    };
    spans.extend(
        headers
            .iter()
            .map(|header| FieldSpan::new(span_of(bytes, header.name.as_bytes()), span_of(bytes, header.value))),
    );
    Ok(())
}

/// The range that `part`, a slice of `bytes`, takes up in it.
fn span_of(bytes: &[u8], part: &[u8]) -> Span {
    let start = part.as_ptr().addr().saturating_sub(bytes.as_ptr().addr());
    Span::new(start, start + part.len())
}

/// The value of one `Content-Length` line: decimal digits alone, below 2^64.
pub(crate) fn content_length(value: &[u8]) -> Result<u64, FieldError> {
    if value.is_empty() {
        return Err("content_length");
    }
    value
        .iter()
        .try_fold(0_u64, |sum, byte| {
            let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
            sum.checked_mul(10)?.checked_add(digit)
        })
        .ok_or("content_length")
}

/// The one length that a list of equal lengths names, such as `5, 5`; for responses only (decision 5).
pub(crate) fn equal_lengths(value: &[u8]) -> Result<u64, FieldError> {
    let mut lengths = value.split(|byte| *byte == b',').map(|item| content_length(item.trim_ascii()));
    let first = lengths.next().unwrap_or(Err("content_length"))?;
    for length in lengths {
        if length? != first {
            return Err("content_length_differs");
        }
    }
    Ok(first)
}

/// Whether a `Transfer-Encoding` value is exactly `chunked`, the only coding the gate reads.
pub(crate) fn is_chunked(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"chunked")
}

/// Whether a list of tokens has `token`, in any case.
pub(crate) fn has_token(value: &[u8], token: &str) -> bool {
    list_items(value).any(|item| item.eq_ignore_ascii_case(token.as_bytes()))
}

/// Whether `name` is `known` to a reader that knows no case and takes every other byte for a hyphen, as CGI and its
/// heirs do.
pub(crate) fn folds_to(name: &[u8], known: &str) -> bool {
    name.len() == known.len()
        && name
            .iter()
            .zip(known.as_bytes())
            .all(|(byte, known)| byte.eq_ignore_ascii_case(known) || (*known == b'-' && !byte.is_ascii_alphanumeric()))
}
