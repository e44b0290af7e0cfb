//! A request head: read strictly from raw bytes, or refused with the rule it breaks (design rule 2, decisions 1-2).

mod facts;
mod line;

use crate::http1::body::Sender;
use crate::http1::fields;
use crate::http1::head::{FieldSpan, Fields, Framing, HeadLimits, Span, Version};
use crate::http1::request::facts::Facts;
use crate::http1::request::line::RequestLine;
use crate::http1::scan::{LineError, LineScan, Section};
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
    scan: LineScan,
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
    ///
    /// After `Ok(false)` the next call goes on where this one stopped looking, so it must be given the same bytes and
    /// more. Before other bytes, [`RequestHead::restart`].
    pub fn parse(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<bool, Rejection> {
        let outcome = self.read(bytes, limits);
        if outcome != Ok(false) {
            self.restart();
        }
        outcome
    }

    /// Forgets an unfinished head, for instance when its connection ended.
    pub fn restart(&mut self) {
        self.scan = LineScan::default();
    }

    /// The head over the bytes it was parsed from.
    pub fn view<'a>(&'a self, bytes: &'a [u8]) -> Request<'a> {
        Request { bytes, head: self }
    }

    fn read(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<bool, Rejection> {
        // What lies behind the bound is not looked at, so that the verdict does not hang on how the bytes arrived.
        let window = bytes.get(..limits.max_head_bytes).unwrap_or(bytes);
        line::check_start(window, limits.max_target_bytes)?;
        let max_lines = limits.max_headers.saturating_add(1);
        match self.scan.find_end(window, Sender::Client, max_lines) {
            Ok(Some(section)) => self.read_whole(window, section).map(|()| true),
            Ok(None) if bytes.len() > window.len() => Err(Rejection::HeadTooLarge),
            Ok(None) => Ok(false),
            Err(LineError::Broken(rule)) => Err(Rejection::Malformed(rule)),
            Err(LineError::TooMany) => Err(Rejection::HeadTooLarge),
        }
    }

    fn read_whole(&mut self, bytes: &[u8], section: Section) -> Result<(), Rejection> {
        let RequestLine { method, target, version, len } = line::read(bytes)?;
        self.method = method;
        self.target = target;
        self.version = version;
        self.len = section.len;
        let count = section.lines.saturating_sub(1);
        fields::read(bytes, (len, section.len), count, &mut self.fields).map_err(Rejection::Malformed)?;
        self.facts = Facts::gather(bytes, method.of(bytes), version, &self.fields)?;
        Ok(())
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

    /// Whether it waits for a `100 Continue`: never on HTTP/1.0, where the field is ignored, nor where there is no body to
    /// go on with (RFC 9110 section 10.1.1).
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
