//! Body framing: tells which of the bytes at hand are payload and when the body is over, without copying any of them.

mod chunk_line;
mod trailers;

use crate::http1::body::chunk_line::ChunkLine;
use crate::http1::body::trailers::Trailers;
use crate::http1::head::Framing;

/// Follows one body through the bytes of a connection.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    sender: Sender,
    line: ChunkLine,
    /// Payload bytes of all chunks so far.
    payload: u64,
    /// Bytes of chunk extensions so far.
    extensions: u64,
    trailers: Option<Box<Trailers>>,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A body of known length, this much of it to come.
    Length(u64),
    /// A body that ends with the connection.
    UntilClose,
    /// A chunk-size line.
    ChunkLine,
    /// A chunk, this much of it to come.
    ChunkData(u64),
    /// The line end behind a chunk.
    ChunkEnd,
    /// The LF of the line end behind a chunk.
    ChunkEndLf,
    /// The first byte behind the last chunk's line: a trailer section or the end.
    AfterLastChunk,
    /// The LF that ends a body without trailers.
    LastLf,
    /// A trailer section.
    Trailers,
    /// Nothing: the body is over.
    Over,
    /// Nothing: a rule was broken.
    Broken(BodyError),
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

/// A trailer field: name and value.
pub type Trailer = (Box<[u8]>, Box<[u8]>);

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

/// Most bytes of a chunk-size line, extensions included.
pub const MAX_CHUNK_LINE_BYTES: usize = 1024;

/// How many more bytes of chunk extensions than of payload a body may bring: they are read and thrown away, so they may
/// not be the bulk of it.
pub const MAX_EXTENSION_SURPLUS: u64 = 16 * 1024;

impl BodyDecoder {
    /// A decoder at the first byte of a body.
    pub fn new(framing: Framing, sender: Sender) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Over,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkLine,
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, sender, line: ChunkLine::default(), payload: 0, extensions: 0, trailers: None }
    }

    /// Looks at the bytes that are there. Never asks for bytes it does not need: [`Decoded::End`] comes as soon as it can,
    /// also for empty `input`. Data is never empty. Once it failed, it fails the same way ever after.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, BodyError> {
        let outcome = self.advance(input);
        if let Err(error) = outcome {
            self.state = State::Broken(error);
        }
        outcome
    }

    /// Tells the decoder that the sender closed. Fine only where the body ends with the close.
    pub fn close(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::UntilClose | State::Over => {
                self.state = State::Over;
                Ok(())
            }
            State::Broken(error) => Err(error),
            _ => {
                let error = BodyError("truncated_body");
                self.state = State::Broken(error);
                Err(error)
            }
        }
    }

    /// Whether the body is over.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// The trailer fields, once over: names and values, checked like header fields. Names that frame, route, authenticate
    /// or describe the message are left out (RFC 9110 section 6.5.1).
    pub fn trailers(&self) -> &[Trailer] {
        self.trailers.as_ref().map(|trailers| trailers.fields()).unwrap_or_default()
    }

    fn advance(&mut self, input: &[u8]) -> Result<Decoded, BodyError> {
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            match (self.state, rest.first()) {
                (State::Over, _) => return Ok(Decoded::End { used }),
                (State::Broken(error), _) => return Err(error),
                (_, None) => return Ok(Decoded::More { used }),
                (State::UntilClose, _) => return Ok(Decoded::Data { skip: used, end: input.len() }),
                (State::Length(left) | State::ChunkData(left), _) => {
                    return Ok(Decoded::Data { skip: used, end: used + self.take_data(left, rest) });
                }
                (State::Trailers, _) => used += self.take_trailers(rest)?,
                (_, Some(byte)) => used += self.take_framing(*byte)?,
            }
        }
    }

    /// Uses up payload and returns how much.
    fn take_data(&mut self, left: u64, rest: &[u8]) -> usize {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
        let left = left - taken as u64;
        self.payload = self.payload.saturating_add(taken as u64);
        self.state = match self.state {
            State::ChunkData(_) if left == 0 => State::ChunkEnd,
            State::ChunkData(_) => State::ChunkData(left),
            _ if left == 0 => State::Over,
            _ => State::Length(left),
        };
        taken
    }

    /// Looks at one byte of chunk framing and returns how much of it is used up: nothing where a trailer section begins.
    fn take_framing(&mut self, byte: u8) -> Result<usize, BodyError> {
        let lone_lf = byte == b'\n' && self.sender == Sender::Upstream;
        self.state = match self.state {
            State::ChunkLine => return self.take_chunk_line(byte).map(|()| 1),
            State::ChunkEnd if byte == b'\r' => State::ChunkEndLf,
            State::ChunkEnd if lone_lf => State::ChunkLine,
            State::ChunkEndLf if byte == b'\n' => State::ChunkLine,
            State::AfterLastChunk if byte == b'\r' => State::LastLf,
            State::AfterLastChunk if lone_lf => State::Over,
            State::AfterLastChunk => {
                self.state = State::Trailers;
                return Ok(0);
            }
            State::LastLf if byte == b'\n' => State::Over,
            State::LastLf => return Err(BodyError("bare_cr")),
            _ => return Err(BodyError("chunk_end")),
        };
        Ok(1)
    }

    fn take_chunk_line(&mut self, byte: u8) -> Result<(), BodyError> {
        let Some((size, extensions)) = self.line.take(byte, self.sender).map_err(BodyError)? else { return Ok(()) };
        self.line = ChunkLine::default();
        self.extensions += extensions;
        if self.extensions > self.payload.saturating_add(MAX_EXTENSION_SURPLUS) {
            return Err(BodyError("chunk_extensions_too_large"));
        }
        self.state = if size == 0 { State::AfterLastChunk } else { State::ChunkData(size) };
        Ok(())
    }

    fn take_trailers(&mut self, rest: &[u8]) -> Result<usize, BodyError> {
        let (used, over) = self.trailers.get_or_insert_default().take(rest, self.sender).map_err(BodyError)?;
        if over {
            self.state = State::Over;
        }
        Ok(used)
    }
}
