//! Request heads for the tests of other rooms: cut at its line ends without a single check, which are `parse`'s part.

use super::{Request, RequestHead};
use crate::http1::head::{FieldSpan, Framing, Span, Version};

/// A head with its bytes.
pub(crate) struct Sample {
    bytes: Vec<u8>,
    head: RequestHead,
}

impl Sample {
    /// A head of this request line and these field lines, `name: value` each.
    pub(crate) fn new<L: AsRef<[u8]>>(line: &[u8], lines: &[L]) -> Self {
        let mut bytes = line.to_vec();
        let mut head = RequestHead { version: Version::Http11, ..RequestHead::default() };
        let method = memchr::memchr(b' ', line).unwrap();
        let target = memchr::memrchr(b' ', line).unwrap();
        (head.method, head.target) = (Span::new(0, method), Span::new(method + 1, target));
        for field in lines.iter().map(AsRef::as_ref) {
            bytes.extend_from_slice(b"\r\n");
            let start = bytes.len();
            bytes.extend_from_slice(field);
            let colon = memchr::memchr(b':', field).unwrap();
            let value = field[colon + 1..].trim_ascii();
            let from = start + field.len() - field[colon + 1..].trim_ascii_start().len();
            let span = Span::new(from, from + value.len());
            head.fields.push(FieldSpan::new(Span::new(start, start + colon), span));
            match field[..colon].to_ascii_lowercase().as_slice() {
                b"host" => head.facts.host = Some(span),
                b"upgrade" => head.facts.websocket = value.eq_ignore_ascii_case(b"websocket"),
                b"transfer-encoding" => head.facts.framing = Framing::Chunked,
                _ => {}
            }
        }
        bytes.extend_from_slice(b"\r\n\r\n");
        head.len = bytes.len();
        Self { bytes, head }
    }

    /// `GET target` with these field lines.
    pub(crate) fn get<L: AsRef<[u8]>>(target: &str, lines: &[L]) -> Self {
        Self::new(format!("GET {target} HTTP/1.1").as_bytes(), lines)
    }

    /// The head as the rooms see it.
    pub(crate) fn request(&self) -> Request<'_> {
        self.head.view(&self.bytes)
    }
}
