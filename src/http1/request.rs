//! A request head: read strictly from raw bytes, or refused with the rule it breaks (design rule 2, decisions 1-2).

use crate::http1::head::{FieldSpan, Fields, Framing, HeadLimits, Span, Version};
use crate::rejection::Rejection;

/// The ranges of one request head. Reused from request to request, so that its list keeps its allocation.
#[derive(Debug, Default)]
pub struct RequestHead {
    method: Span,
    target: Span,
    version: Version,
    fields: Vec<FieldSpan>,
    len: usize,
    facts: Facts,
}

/// What the strict checks learned on the way, so that nobody reads those fields again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Facts {
    framing: Framing,
    host: Option<Span>,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
    websocket: bool,
}

/// A request head together with the bytes it stands in.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    bytes: &'a [u8],
    head: &'a RequestHead,
}

impl RequestHead {
    /// Reads a head from the start of `bytes`.
    ///
    /// `Ok(true)`: whole, [`Request::len`] bytes long. `Ok(false)`: more bytes are needed, and those that are there are
    /// within the bounds. `Err`: refuse and close; the bytes have no one reading.
    pub fn parse(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<bool, Rejection> {
        let _ = (bytes, limits);
        Err(Rejection::Internal)
    }

    /// The head over the bytes it was parsed from.
    pub fn view<'a>(&'a self, bytes: &'a [u8]) -> Request<'a> {
        Request { bytes, head: self }
    }
}

impl<'a> Request<'a> {
    /// The method, a token in the case it was sent in.
    pub fn method(self) -> &'a [u8] {
        self.head.method.of(self.bytes)
    }

    /// The request target: origin-form, path and query.
    pub fn target(self) -> &'a [u8] {
        self.head.target.of(self.bytes)
    }

    /// The target up to its first `?`.
    pub fn path(self) -> &'a [u8] {
        let target = self.target();
        target.split(|byte| *byte == b'?').next().unwrap_or(target)
    }

    /// What follows the first `?` of the target; `Some` and empty for a bare `?`.
    pub fn query(self) -> Option<&'a [u8]> {
        let target = self.target();
        memchr::memchr(b'?', target).and_then(|at| target.get(at + 1..))
    }

    /// The version on the request line.
    pub fn version(self) -> Version {
        self.head.version
    }

    /// All field lines.
    pub fn fields(self) -> Fields<'a> {
        Fields::new(self.bytes, &self.head.fields)
    }

    /// `Host`, checked against `uri-host [":" port]`, as sent. `None` only for HTTP/1.0 without one.
    pub fn host(self) -> Option<&'a [u8]> {
        self.head.facts.host.map(|span| span.of(self.bytes))
    }

    /// How its body is framed; never [`Framing::UntilClose`].
    pub fn framing(self) -> Framing {
        self.head.facts.framing
    }

    /// Whether the client wants the connection kept after the answer: version and `Connection` together.
    pub fn keep_alive(self) -> bool {
        match self.head.version {
            Version::Http11 => !self.head.facts.close,
            Version::Http10 => self.head.facts.keep_alive && !self.head.facts.close,
        }
    }

    /// Whether it asked for `100-continue` (never on HTTP/1.0, where it is ignored).
    pub fn expects_continue(self) -> bool {
        self.head.facts.expects_continue
    }

    /// Whether it is a well-formed WebSocket handshake (RFC 6455 section 4.2.1): GET, HTTP/1.1, no body,
    /// `Upgrade: websocket`, `Connection: upgrade`, version 13 and a 16-byte key.
    pub fn is_websocket(self) -> bool {
        self.head.facts.websocket
    }

    /// Length of the whole head in bytes, blank line included.
    pub fn len(self) -> usize {
        self.head.len
    }

    /// Never: a head has at least a request line.
    pub fn is_empty(self) -> bool {
        self.head.len == 0
    }
}

#[cfg(test)]
pub(crate) mod sample;
