//! Body framing: tells which of the bytes at hand are payload and when the body is over, without copying any of them.

use crate::http1::head::Framing;

/// Follows one body through the bytes of a connection.
#[derive(Debug)]
pub struct BodyDecoder {
    framing: Framing,
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// `input[skip..end]` is payload; all of `input[..end]` is used up.
    Data {
        /// Framing bytes before the payload.
        skip: usize,
        /// Where the payload ends.
        end: usize,
    },
    /// `input[..used]` is framing and used up; more bytes are needed.
    More {
        /// How much is used up.
        used: usize,
    },
    /// `input[..used]` is the rest of the body; it is over. Trailers, if any, are in [`BodyDecoder::trailers`].
    End {
        /// How much is used up.
        used: usize,
    },
}

/// Why a body cannot be read: the rule that was broken, for log and metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BodyError(pub &'static str);

/// Whose body it is: a client's is held to every letter, an upstream's may end lines with a bare LF (decision 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A client.
    Client,
    /// An upstream.
    Upstream,
}

/// Most bytes of a trailer section.
pub const MAX_TRAILER_BYTES: usize = 16 * 1024;

impl BodyDecoder {
    /// A decoder at the first byte of a body.
    pub fn new(framing: Framing, sender: Sender) -> Self {
        let _ = sender;
        Self { framing }
    }

    /// Looks at the bytes that are there. Never asks for bytes it does not need: [`Decoded::End`] comes as soon as it can,
    /// also for empty `input`.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, BodyError> {
        let _ = (input, self.framing);
        Err(BodyError("unimplemented"))
    }

    /// Tells the decoder that the sender closed. Fine only where the body ends with the close.
    pub fn close(&mut self) -> Result<(), BodyError> {
        Err(BodyError("truncated_body"))
    }

    /// Whether the body is over.
    pub fn is_over(&self) -> bool {
        false
    }

    /// The trailer fields, once over: names and values, checked like header fields.
    pub fn trailers(&self) -> &[(Box<[u8]>, Box<[u8]>)] {
        &[]
    }
}
