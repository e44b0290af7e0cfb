//! One side of an exchange, whatever its protocol: a source of body bytes and a sink for them. The relay between client and
//! upstream is written once against this trait; HTTP/1 and HTTP/2 each fill it in.

use std::io;
use std::task::{Context, Poll};

use crate::http1::head::{Field, Framing};

/// Trailer fields: names and values.
pub(crate) type Trailers = [(Box<[u8]>, Box<[u8]>)];

/// What a source has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// [`Wire::data`] holds at least one byte.
    Data,
    /// The body is over.
    End,
}

/// Why one side cannot go on.
#[derive(Debug)]
pub(crate) enum WireError {
    /// It closed in the middle of a message, or before one.
    Closed,
    /// The transport failed.
    Io,
    /// It sent what cannot be read; the rule it broke.
    Malformed(&'static str),
}

impl From<io::Error> for WireError {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

/// A source and a sink of body bytes.
pub(crate) trait Wire {
    /// Waits for body bytes or the body's end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, WireError>>;

    /// The body bytes at hand.
    fn data(&self) -> &[u8];

    /// Marks the first `count` bytes of [`Self::data`] as used.
    fn consume(&mut self, count: usize);

    /// Takes what else of the body has come, where it would lie in many small pieces until it is asked for. Asked while the
    /// other side takes nothing; holds no more than flow control let in.
    fn gather(&mut self, _cx: &mut Context<'_>) {}

    /// The trailers of the body that was read, once it is over.
    fn trailers(&self) -> &Trailers;

    /// Sends body bytes, behind whatever is queued; says how many were taken.
    fn poll_send(&mut self, data: &[u8], cx: &mut Context<'_>) -> Poll<Result<usize, WireError>>;

    /// Ends the body being sent, and flushes.
    fn poll_finish(&mut self, trailers: &Trailers, cx: &mut Context<'_>) -> Poll<Result<(), WireError>>;

    /// Sends what is queued.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>>;

    /// Waits for a sign that the other side is going, once its message has been read whole; to be asked again after
    /// [`Hangup::Quiet`]. May stay pending where there is no telling.
    fn poll_hangup(&mut self, _cx: &mut Context<'_>) -> Poll<Hangup> {
        Poll::Pending
    }
}

/// A sign that a side is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hangup {
    /// It will send nothing more; it may still read.
    Quiet,
    /// Its connection failed.
    Gone,
}

/// The client's side: it is sent responses.
pub(crate) trait Downstream: Wire + Send {
    /// Queues an interim (1xx) response.
    fn queue_interim<'f>(&mut self, status: u16, fields: impl Iterator<Item = Field<'f>>);

    /// Queues the head of the final response. `framing` is how its body is framed from here on; the fields hold neither
    /// `Content-Length` nor `Transfer-Encoding` nor hop-by-hop fields. Gives the head's length in bytes, on HTTP/2 that of
    /// its names and values before compression.
    fn queue_response<'f>(&mut self, head: ResponseLine<'_>, fields: impl Iterator<Item = Field<'f>>) -> u64;

    /// Sends the whole body of an answer of the gate's own and ends it, where the connection itself keeps it until the client
    /// takes it: then nobody waits, and nothing else of the exchange is held meanwhile. `false` where it does not.
    fn send_own(&mut self, _body: &[u8]) -> bool {
        false
    }

    /// Takes the final response back if not a byte of it went out; says whether it did. Another may be queued then.
    fn take_back(&mut self) -> bool;

    /// `Ready` when the client has said that it wants no answer any more, where the protocol can say that.
    fn poll_gone(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

/// What precedes the fields of a response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResponseLine<'a> {
    /// Status.
    pub(crate) status: u16,
    /// Reason phrase; HTTP/2 has none.
    pub(crate) reason: &'a [u8],
    /// Framing of the body that follows.
    pub(crate) framing: Framing,
    /// A `Content-Length` that describes no body here: on answers to HEAD and on 304.
    pub(crate) described_length: Option<u64>,
    /// What becomes of the connection.
    pub(crate) connection: ConnectionField,
}

/// The `Connection` field of a response; HTTP/2 has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionField {
    /// Not sent: HTTP/1.1 goes on.
    Absent,
    /// The connection ends after this response.
    Close,
    /// Told to an HTTP/1.0 client that asked for it.
    KeepAlive,
    /// With a 101: the connection is a WebSocket from here on.
    Upgrade,
}
