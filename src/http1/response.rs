//! An upstream's response head, read as strictly as a request: what cannot be read one way only is a 502 (decision 5).

use crate::http1::body::Sender;
use crate::http1::fields;
use crate::http1::head::{FieldSpan, Fields, Framing, Span, Version};
use crate::http1::scan::{LineError, LineScan, Section};

/// The ranges of one response head. Reused from answer to answer, so that its list keeps its allocation.
#[derive(Debug, Default)]
pub struct ResponseHead {
    version: Version,
    status: u16,
    reason: Span,
    fields: Vec<FieldSpan>,
    len: usize,
    framing: Framing,
    close: bool,
    scan: LineScan,
}

/// What must be known of the request to read its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The request was HEAD: the answer has no body, whatever its fields say.
    pub head: bool,
    /// The request was a WebSocket handshake: only then is a 101 an answer.
    pub websocket: bool,
}

/// Largest response head read from an upstream, in bytes (decision 5).
pub const MAX_RESPONSE_HEAD_BYTES: usize = 64 * 1024;

/// Most field lines of a response.
pub const MAX_RESPONSE_FIELDS: usize = 1000;

/// A response head together with the bytes it stands in.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    bytes: &'a [u8],
    head: &'a ResponseHead,
}

impl ResponseHead {
    /// Reads a head from the start of `bytes`. `Ok(false)` asks for more bytes; `Err` names the rule that was broken,
    /// for log and metric. Line ends may be a bare LF, and one `Content-Length` may be said several times (decision 5).
    ///
    /// After `Ok(false)` the next call goes on where this one stopped looking, so it must be given the same bytes and
    /// more. Before other bytes, [`ResponseHead::restart`].
    pub fn parse(&mut self, bytes: &[u8], asked: Asked) -> Result<bool, &'static str> {
        let outcome = self.read(bytes, asked);
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
    pub fn view<'a>(&'a self, bytes: &'a [u8]) -> Response<'a> {
        Response { bytes, head: self }
    }

    fn read(&mut self, bytes: &[u8], asked: Asked) -> Result<bool, &'static str> {
        // What lies behind the bound is not looked at, so that the verdict does not hang on how the bytes arrived.
        let window = bytes.get(..MAX_RESPONSE_HEAD_BYTES).unwrap_or(bytes);
        if window.first().is_some_and(|first| *first != b'H') {
            return Err("status_line");
        }
        match self.scan.find_end(window, Sender::Upstream, MAX_RESPONSE_FIELDS + 1) {
            Ok(Some(section)) => self.read_whole(window, section, asked).map(|()| true),
            Ok(None) if bytes.len() > window.len() => Err("head_too_large"),
            Ok(None) => Ok(false),
            Err(LineError::Broken(rule)) => Err(rule),
            Err(LineError::TooMany) => Err("too_many_fields"),
        }
    }

    fn read_whole(&mut self, bytes: &[u8], section: Section, asked: Asked) -> Result<(), &'static str> {
        let line_len = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
        let line = bytes.get(..line_len).unwrap_or_default();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        self.read_status_line(line.strip_suffix(b"\r").unwrap_or(line))?;
        self.len = section.len;
        fields::read(bytes, (line_len, section.len), section.lines.saturating_sub(1), &mut self.fields)?;
        self.weigh(bytes, asked)
    }

    /// `HTTP-version SP status-code [SP reason-phrase]`: the last space may be missing (RFC 9112 section 4 asks for it,
    /// but many leave it out with an empty phrase).
    fn read_status_line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        let (version, rest) = line.split_at_checked(b"HTTP/1.1 ".len()).ok_or("status_line")?;
        self.version = match version {
            b"HTTP/1.1 " => Version::Http11,
            b"HTTP/1.0 " => Version::Http10,
            _ => return Err("version"),
        };
        let (code, rest) = rest.split_at_checked(3).ok_or("status")?;
        let is_code = code.iter().all(u8::is_ascii_digit);
        self.status = code.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit.wrapping_sub(b'0')));
        if !is_code || !(100..=599).contains(&self.status) {
            return Err("status");
        }
        let reason = match rest.split_first() {
            None => rest,
            Some((b' ', reason)) => reason,
            Some(_) => return Err("status"),
        };
        if reason.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err("reason");
        }
        self.reason = Span::new(line.len() - reason.len(), line.len());
        Ok(())
    }

    /// Framing by RFC 9112 section 6.3, narrowed: what that section lets a recipient repair is refused.
    fn weigh(&mut self, bytes: &[u8], asked: Asked) -> Result<(), &'static str> {
        let fields = Fields::new(bytes, &self.fields);
        let (mut length, mut chunked, mut close, mut keep_alive) = (None, false, false, false);
        let (mut upgrades, mut to_websocket, mut connection_upgrade) = (0, false, false);
        for field in fields.iter() {
            if field.is("Content-Length") {
                let value = fields::equal_lengths(field.value)?;
                if length.replace(value).is_some_and(|earlier| earlier != value) {
                    return Err("content_length_differs");
                }
            } else if field.is("Transfer-Encoding") {
                if chunked || !fields::is_chunked(field.value) {
                    return Err("transfer_encoding");
                }
                chunked = true;
            } else if field.is("Connection") {
                close |= fields::has_token(field.value, "close");
                keep_alive |= fields::has_token(field.value, "keep-alive");
                connection_upgrade |= fields::has_token(field.value, "upgrade");
            } else if field.is("Upgrade") {
                upgrades += 1;
                to_websocket = field.value.eq_ignore_ascii_case(b"websocket");
            }
        }
        if chunked && length.is_some() {
            return Err("content_length_with_transfer_encoding");
        }
        if chunked && self.version == Version::Http10 {
            return Err("transfer_encoding_http10");
        }
        if self.status == 101 && !asked.websocket {
            return Err("unexpected_101");
        }
        // Both say what is switched to (RFC 6455 section 4.1); behind anything else there is no WebSocket.
        if self.status == 101 && !(upgrades == 1 && to_websocket && connection_upgrade) {
            return Err("upgrade_of_101");
        }
        let never_has_body = matches!(self.status, 100..=199 | 204);
        self.framing = match length {
            _ if never_has_body || self.status == 304 || asked.head => Framing::None,
            _ if chunked => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => Framing::UntilClose,
        };
        // A sender that announces a body where there is none may send one, so nothing is read behind such an answer.
        let stray_body = never_has_body && (chunked || length.is_some_and(|length| length > 0));
        self.close = close
            || stray_body
            || self.framing == Framing::UntilClose
            || (self.version == Version::Http10 && !keep_alive);
        Ok(())
    }
}

impl<'a> Response<'a> {
    /// Version on the status line.
    pub fn version(self) -> Version {
        self.head.version
    }

    /// Status, 100 to 599.
    pub fn status(self) -> u16 {
        self.head.status
    }

    /// Reason phrase, possibly empty.
    pub fn reason(self) -> &'a [u8] {
        self.head.reason.of(self.bytes)
    }

    /// All field lines.
    pub fn fields(self) -> Fields<'a> {
        Fields::new(self.bytes, &self.head.fields)
    }

    /// How its body is framed, given what was asked.
    pub fn framing(self) -> Framing {
        self.head.framing
    }

    /// Whether the connection ends with this answer: the upstream says so (version, `Connection`, or a body that ends with
    /// the close), or it announced a body on a status that has none.
    pub fn closes(self) -> bool {
        self.head.close
    }

    /// Length of the whole head in bytes.
    pub fn len(self) -> usize {
        self.head.len
    }

    /// Never: a head has at least a status line.
    pub fn is_empty(self) -> bool {
        self.head.len == 0
    }
}
