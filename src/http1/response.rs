//! An upstream's response head, read as strictly as a request: what cannot be read one way only is a 502 (decision 5).

use crate::http1::head::{FieldSpan, Fields, Framing, Span, Version};

/// The ranges of one response head.
#[derive(Debug, Default)]
pub struct ResponseHead {
    version: Version,
    status: u16,
    reason: Span,
    fields: Vec<FieldSpan>,
    len: usize,
    framing: Framing,
    close: bool,
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

/// A response head together with the bytes it stands in.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    bytes: &'a [u8],
    head: &'a ResponseHead,
}

impl ResponseHead {
    /// Reads a head from the start of `bytes`. `Ok(false)` asks for more bytes; `Err` names the rule that was broken,
    /// for log and metric.
    pub fn parse(&mut self, bytes: &[u8], asked: Asked) -> Result<bool, &'static str> {
        let _ = (bytes, asked);
        Err("unimplemented")
    }

    /// The head over the bytes it was parsed from.
    pub fn view<'a>(&'a self, bytes: &'a [u8]) -> Response<'a> {
        Response { bytes, head: self }
    }
}

impl<'a> Response<'a> {
    /// Version on the status line.
    pub fn version(self) -> Version {
        self.head.version
    }

    /// Status, 100 to 999.
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

    /// Whether the upstream will close after this answer (version, `Connection`, or a body that ends with the close).
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
