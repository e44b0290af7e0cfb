//! HTTP/1 on a stream: the same type for the client's side and the upstream's, since both read one body and write another.

use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};

use super::abort::Lost;
use super::buffer::Buffer;
use super::wire::{ConnectionField, Downstream, Fill, Hangup, ResponseLine, Trailers, Wire, WireError};
use crate::http1::body::{BodyDecoder, Decoded, Sender};
use crate::http1::head::{Field, Framing};
use crate::http1::write;

/// Most bytes of a body or its framing held between a read and the write that follows.
const MAX_BUFFERED: usize = super::buffer::LARGE;
/// Pieces of a body up to this size are gathered before they are written: a client that sends chunks of one byte must not
/// cost a system call for each.
const SMALL_PIECE: usize = 1024;
/// Most bytes gathered.
const MAX_GATHERED: usize = 16 * 1024;
/// Room for a head that is about to be written: most fit, with a small body behind them, so that none grows field by field.
const HEAD_ROOM: usize = 1024;

/// One HTTP/1 connection in the middle of an exchange.
#[derive(Debug)]
pub(crate) struct H1Wire<S> {
    pub(crate) io: S,
    pub(crate) input: Buffer,
    decoder: BodyDecoder,
    payload: usize,
    queued: Vec<u8>,
    queued_at: usize,
    /// Where in the queue the head of a response begins, until all of the queue went out.
    head_at: Option<usize>,
    encoder: Encoder,
    sender: Sender,
    /// The other side was heard to send nothing more.
    quiet: bool,
    /// How the loss of a connection is told from which nothing is read, where that can be told.
    lost_by: Option<fn(&S) -> Lost>,
    lost: OnLoss,
}

/// Waits for the loss of a connection, once it is asked for.
#[derive(Default)]
struct OnLoss(Option<Lost>);

impl std::fmt::Debug for OnLoss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OnLoss").field(&self.0.is_some()).finish()
    }
}

/// How the body being sent is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoder {
    /// So many bytes more and no others: a byte too many would be read as the next message.
    Exactly(u64),
    /// All until the close.
    UntilClose,
    /// Chunked; `left` bytes of the chunk that was announced are still to come. Its CRLF goes out behind its last byte:
    /// some clients hand a chunk on only when they have that.
    Chunked { left: usize },
    /// The end was queued.
    Ended,
}

impl<S> H1Wire<S> {
    /// A wire on `io` from which `input` was read already. `sender` is who writes what is read here.
    pub(crate) fn new(io: S, input: Buffer, sender: Sender) -> Self {
        Self {
            io,
            input,
            decoder: BodyDecoder::new(Framing::None, sender),
            payload: 0,
            queued: Vec::new(),
            queued_at: 0,
            head_at: None,
            encoder: Encoder::Exactly(0),
            sender,
            quiet: false,
            lost_by: None,
            lost: OnLoss::default(),
        }
    }

    /// Says how to hear of the connection's loss while nothing is read from it.
    pub(crate) fn telling_loss(self, by: fn(&S) -> Lost) -> Self {
        Self { lost_by: Some(by), ..self }
    }

    /// Begins reading a body.
    pub(crate) fn expect_body(&mut self, framing: Framing) {
        self.decoder = BodyDecoder::new(framing, self.sender);
        self.payload = 0;
        self.lost = OnLoss::default();
    }

    /// Begins sending a message: its head goes into the queue returned, its body will be framed as told.
    pub(crate) fn begin_message(&mut self, framing: Framing) -> &mut Vec<u8> {
        self.encoder = match framing {
            Framing::Chunked => Encoder::Chunked { left: 0 },
            Framing::None => Encoder::Exactly(0),
            Framing::Length(length) => Encoder::Exactly(length),
            Framing::UntilClose => Encoder::UntilClose,
        };
        self.queued.reserve(HEAD_ROOM);
        &mut self.queued
    }

    /// Whether the body being read is over and all of it was used.
    pub(crate) fn body_is_over(&self) -> bool {
        self.payload == 0 && self.decoder.is_over()
    }

    /// Whether the message being sent has no other end than the connection's, and has not come to it.
    pub(crate) fn ends_with_its_close(&self) -> bool {
        self.encoder == Encoder::UntilClose
    }

    /// Gives back what an idle connection does not need.
    pub(crate) fn rest(&mut self) {
        self.input.release();
        if self.queued_at >= self.queued.len() {
            self.queued = Vec::new();
            self.queued_at = 0;
            self.head_at = None;
        }
        self.lost = OnLoss::default();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> H1Wire<S> {
    /// Writes queued bytes, then `data`, then `tail`, which is queued where it does not go out along; says how many of `data`
    /// went out.
    fn poll_write_behind(&mut self, data: &[u8], tail: &[u8], cx: &mut Context<'_>) -> Poll<Result<usize, WireError>> {
        loop {
            let queued = self.queued.get(self.queued_at..).unwrap_or_default();
            let written = match (queued.is_empty(), data.is_empty()) {
                (true, true) => return Poll::Ready(Ok(0)),
                (true, false) if tail.is_empty() => ready!(Pin::new(&mut self.io).poll_write(cx, data))?,
                (false, true) => ready!(Pin::new(&mut self.io).poll_write(cx, queued))?,
                (_, false) => {
                    let all = [IoSlice::new(queued), IoSlice::new(data), IoSlice::new(tail)];
                    ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &all))?
                }
            };
            if written == 0 {
                return Poll::Ready(Err(WireError::Io));
            }
            let of_queued = written.min(queued.len());
            self.queued_at += of_queued;
            if self.queued_at >= self.queued.len() {
                self.queued.clear();
                self.queued_at = 0;
                self.head_at = None;
            }
            if written > of_queued {
                let of_data = (written - of_queued).min(data.len());
                if of_data == data.len() {
                    self.queued.extend_from_slice(tail.get(written - of_queued - of_data..).unwrap_or_default());
                }
                return Poll::Ready(Ok(of_data));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire for H1Wire<S> {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, WireError>> {
        loop {
            if self.payload > 0 {
                return Poll::Ready(Ok(Fill::Data));
            }
            match self.decoder.decode(self.input.bytes()).map_err(|e| WireError::Malformed(e.0))? {
                Decoded::Data { skip, end } => {
                    self.input.consume(skip);
                    self.payload = end - skip;
                    continue;
                }
                Decoded::End { used } => {
                    self.input.consume(used);
                    return Poll::Ready(Ok(Fill::End));
                }
                Decoded::More { used } => self.input.consume(used),
            }
            if ready!(self.input.poll_read_more(&mut self.io, MAX_BUFFERED, cx))? == 0 {
                self.decoder.close().map_err(|_truncated| WireError::Closed)?;
            }
        }
    }

    fn data(&self) -> &[u8] {
        self.input.bytes().get(..self.payload).unwrap_or_default()
    }

    fn consume(&mut self, count: usize) {
        let count = count.min(self.payload);
        self.payload -= count;
        self.input.consume(count);
    }

    fn trailers(&self) -> &Trailers {
        self.decoder.trailers()
    }

    fn poll_send(&mut self, data: &[u8], cx: &mut Context<'_>) -> Poll<Result<usize, WireError>> {
        let (mut most, mut tail) = (data.len(), [].as_slice());
        match &mut self.encoder {
            Encoder::Exactly(left) if *left < data.len() as u64 => {
                return Poll::Ready(Err(WireError::Malformed("body_longer_than_declared")));
            }
            Encoder::Chunked { left } => {
                if *left == 0 && !data.is_empty() {
                    write::chunk_head(&mut self.queued, data.len());
                    *left = data.len();
                }
                most = most.min(*left);
                if most == *left {
                    tail = b"\r\n";
                }
            }
            Encoder::Exactly(_) | Encoder::UntilClose => {}
            Encoder::Ended => return Poll::Ready(Err(WireError::Malformed("body_after_its_end"))),
        }
        let data = data.get(..most).unwrap_or_default();
        let waiting = self.queued.len() - self.queued_at;
        let sent = if most <= SMALL_PIECE && waiting + most <= MAX_GATHERED {
            // Whoever sends pieces flushes before it waits for more, so that a piece stays here only while others come.
            self.queued.extend_from_slice(data);
            self.queued.extend_from_slice(tail);
            most
        } else {
            ready!(self.poll_write_behind(data, tail, cx))?
        };
        match &mut self.encoder {
            Encoder::Exactly(left) => *left -= sent as u64,
            Encoder::Chunked { left } => *left -= sent,
            Encoder::UntilClose | Encoder::Ended => {}
        }
        Poll::Ready(Ok(sent))
    }

    fn poll_finish(&mut self, trailers: &Trailers, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        if let Encoder::Chunked { .. } = self.encoder {
            self.queued.extend_from_slice(b"0\r\n");
            for (name, value) in trailers {
                write::field(&mut self.queued, name, value);
            }
            self.queued.extend_from_slice(b"\r\n");
        }
        if matches!(self.encoder, Encoder::Exactly(1..)) {
            return Poll::Ready(Err(WireError::Malformed("body_shorter_than_declared")));
        }
        self.encoder = Encoder::Ended;
        self.poll_flush(cx)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        ready!(self.poll_write_behind(&[], &[], cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        Poll::Ready(Ok(()))
    }

    fn poll_hangup(&mut self, cx: &mut Context<'_>) -> Poll<Hangup> {
        if !self.body_is_over() {
            return Poll::Pending;
        }
        // What a client sends ahead is kept for its turn; nothing is read behind it.
        if !self.quiet && self.input.bytes().is_empty() {
            match ready!(self.input.poll_read_more(&mut self.io, super::buffer::SMALL, cx)) {
                Ok(0) => {
                    self.quiet = true;
                    return Poll::Ready(Hangup::Quiet);
                }
                Ok(_) => {}
                Err(_) => return Poll::Ready(Hangup::Gone),
            }
        }
        let Some(lost_by) = self.lost_by else { return Poll::Pending };
        self.lost.0.get_or_insert_with(|| lost_by(&self.io)).as_mut().poll(cx).map(|()| Hangup::Gone)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Downstream for H1Wire<S> {
    fn queue_interim<'f>(&mut self, status: u16, fields: impl Iterator<Item = Field<'f>>) {
        let reason = if status == 100 { "Continue" } else { "" };
        write::status_line(&mut self.queued, status, reason.as_bytes());
        for field in fields {
            write::field(&mut self.queued, field.name, field.value);
        }
        self.queued.extend_from_slice(b"\r\n");
    }

    fn queue_response<'f>(&mut self, head: ResponseLine<'_>, fields: impl Iterator<Item = Field<'f>>) -> u64 {
        let out = self.begin_message(head.framing);
        let start = out.len();
        self.head_at = Some(start);
        let out = &mut self.queued;
        write::status_line(out, head.status, head.reason);
        for field in fields {
            write::field(out, field.name, field.value);
        }
        if let Some(length) = head.described_length {
            write::framing(out, Framing::Length(length));
        }
        write::framing(out, head.framing);
        match head.connection {
            ConnectionField::Absent => {}
            ConnectionField::Close => write::field(out, b"Connection", b"close"),
            ConnectionField::KeepAlive => write::field(out, b"Connection", b"keep-alive"),
            ConnectionField::Upgrade => out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        }
        out.extend_from_slice(b"\r\n");
        (out.len() - start) as u64
    }

    fn take_back(&mut self) -> bool {
        let Some(start) = self.head_at.take().filter(|start| self.queued_at <= *start) else { return false };
        self.queued.truncate(start);
        self.encoder = Encoder::Exactly(0);
        true
    }
}

#[cfg(test)]
mod tests;
