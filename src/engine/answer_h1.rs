//! An upstream's side over HTTP/1: its response heads are found in front of the bodies that the wire reads.

use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};

use super::relay::Answering;
use super::wire::{Fill, Trailers, Wire, WireError};
use super::wire_h1::H1Wire;
use crate::http1::response::{Asked, MAX_RESPONSE_HEAD_BYTES, ResponseHead};

/// An HTTP/1 connection to an upstream in the middle of an exchange.
#[derive(Debug)]
pub(crate) struct H1Answer<S> {
    pub(crate) wire: H1Wire<S>,
    answered: bool,
}

impl<S> H1Answer<S> {
    /// An exchange that begins on `wire`.
    pub(crate) fn new(wire: H1Wire<S>) -> Self {
        Self { wire, answered: false }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire for H1Answer<S> {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, WireError>> {
        self.wire.poll_fill(cx)
    }

    fn data(&self) -> &[u8] {
        self.wire.data()
    }

    fn consume(&mut self, count: usize) {
        self.wire.consume(count);
    }

    fn trailers(&self) -> &Trailers {
        self.wire.trailers()
    }

    fn poll_send(&mut self, data: &[u8], cx: &mut Context<'_>) -> Poll<Result<usize, WireError>> {
        self.wire.poll_send(data, cx)
    }

    fn poll_finish(&mut self, trailers: &Trailers, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        self.wire.poll_finish(trailers, cx)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        self.wire.poll_flush(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Answering for H1Answer<S> {
    fn poll_head(
        &mut self,
        asked: Asked,
        head: &mut ResponseHead,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), WireError>> {
        loop {
            let bytes = self.wire.input.bytes();
            if !bytes.is_empty() && head.parse(bytes, asked).map_err(WireError::Malformed)? {
                return Poll::Ready(Ok(()));
            }
            let H1Wire { input, io, .. } = &mut self.wire;
            // One byte over the bound lets the parser see that the bound is broken.
            match ready!(input.poll_read_more(io, MAX_RESPONSE_HEAD_BYTES + 1, cx))? {
                0 => return Poll::Ready(Err(WireError::Closed)),
                _ => self.answered = true,
            }
        }
    }

    fn head_bytes(&self) -> &[u8] {
        self.wire.input.bytes()
    }

    fn take_head(&mut self, head: &ResponseHead) {
        let view = head.view(self.wire.input.bytes());
        let (length, framing, status) = (view.len(), view.framing(), view.status());
        self.wire.input.consume(length);
        if !(100..200).contains(&status) {
            self.wire.expect_body(framing);
        }
    }

    fn has_answered(&self) -> bool {
        self.answered
    }
}
