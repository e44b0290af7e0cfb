//! One stream of a client as a source and a sink of body bytes. What is read is given back to flow control only once it was
//! handed on, so that a slow upstream slows the client and nothing piles up here.

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderValue, Response, StatusCode};

use super::fields;
use crate::engine::wire::{Downstream, Fill, ResponseLine, Trailers, Wire, WireError};
use crate::http1::body::{BodyDecoder, Sender};
use crate::http1::head::{Field, Framing};
use crate::http1::write;

/// The receiving half of a stream, of a client or of an upstream.
#[derive(Debug)]
pub(crate) struct Receiving {
    body: RecvStream,
    data: Bytes,
    /// What came behind `data` while the other side took nothing.
    gathered: BytesMut,
    /// What came behind that.
    fault: Option<WireError>,
    trailers: Option<BodyDecoder>,
    over: bool,
    sender: Sender,
}

/// The sending half of a stream, once its head is out.
#[derive(Debug)]
pub(crate) struct Sending {
    stream: SendStream<Bytes>,
}

/// A client's stream in the middle of an exchange.
#[derive(Debug)]
pub(crate) struct H2Wire {
    receiving: Receiving,
    respond: SendResponse<Bytes>,
    /// The final head while it waits to be known whether a body follows.
    head: Option<Response<()>>,
    sending: Option<Sending>,
    /// How many bytes of body must still go out, where the head said how many.
    left: Option<u64>,
    ended: bool,
}

impl Receiving {
    pub(crate) fn new(body: RecvStream, sender: Sender) -> Self {
        Self { body, data: Bytes::new(), gathered: BytesMut::new(), fault: None, trailers: None, over: false, sender }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.data.is_empty() && self.gathered.is_empty() && (self.over || self.body.is_end_stream())
    }

    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, WireError>> {
        if self.data.is_empty() {
            self.data = std::mem::take(&mut self.gathered).freeze();
        }
        while self.data.is_empty() {
            if let Some(fault) = self.fault.take() {
                return Poll::Ready(Err(fault));
            }
            if self.over {
                return Poll::Ready(Ok(Fill::End));
            }
            match ready!(self.body.poll_data(cx)) {
                Some(data) => self.data = data.map_err(failed)?,
                None => {
                    if let Some(map) = ready!(self.body.poll_trailers(cx)).map_err(failed)? {
                        let read = fields::read_trailers(&map, self.sender);
                        self.trailers = Some(read.map_err(WireError::Malformed)?);
                    }
                    self.over = true;
                }
            }
        }
        Poll::Ready(Ok(Fill::Data))
    }

    /// The crate counts some 256 bytes for each small frame that waits with it, by connection, and ends the connection of
    /// them all where there are too many: a dozen readers that stall would end it for the others. Here only bytes count,
    /// and those the stream's window bounds: it opens again as they are used.
    pub(crate) fn gather(&mut self, cx: &mut Context<'_>) {
        while self.fault.is_none() && !self.over {
            match self.body.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => self.gathered.extend_from_slice(&data),
                Poll::Ready(Some(Err(error))) => self.fault = Some(failed(error)),
                // The trailers wait for their turn.
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
    }

    pub(crate) fn data(&self) -> &[u8] {
        &self.data
    }

    pub(crate) fn consume(&mut self, count: usize) {
        let count = count.min(self.data.len());
        self.data.advance(count);
        // Fails only where the stream is gone, which the next read tells.
        let _ = self.body.flow_control().release_capacity(count);
    }

    pub(crate) fn trailers(&self) -> &Trailers {
        self.trailers.as_ref().map(BodyDecoder::trailers).unwrap_or_default()
    }
}

impl Sending {
    pub(crate) fn new(stream: SendStream<Bytes>) -> Self {
        Self { stream }
    }

    /// Hands on what the other side's window has room for.
    pub(crate) fn poll_send(&mut self, data: &[u8], cx: &mut Context<'_>) -> Poll<Result<usize, WireError>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.stream.reserve_capacity(data.len());
        let mut room = self.stream.capacity();
        while room == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(capacity) => room = capacity.map_err(failed)?,
                None => return Poll::Ready(Err(WireError::Closed)),
            }
        }
        let part = data.get(..room.min(data.len())).unwrap_or_default();
        self.stream.send_data(Bytes::copy_from_slice(part), false).map_err(failed)?;
        Poll::Ready(Ok(part.len()))
    }

    pub(crate) fn finish(&mut self, trailers: &Trailers) -> Result<(), WireError> {
        let sent = if trailers.is_empty() {
            self.stream.send_data(Bytes::new(), true)
        } else {
            self.stream.send_trailers(fields::trailers_to_map(trailers))
        };
        sent.map_err(failed)
    }

    pub(crate) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(|_reason| ())
    }

    pub(crate) fn reset(&mut self, reason: h2::Reason) {
        self.stream.send_reset(reason);
    }
}

impl H2Wire {
    pub(crate) fn new(body: RecvStream, respond: SendResponse<Bytes>) -> Self {
        let receiving = Receiving::new(body, Sender::Client);
        Self { receiving, respond, head: None, sending: None, left: None, ended: false }
    }

    /// Whether the request's body was read to its end and used.
    pub(crate) fn body_is_over(&self) -> bool {
        self.receiving.is_over()
    }

    /// Ends the stream where it stands.
    pub(crate) fn reset(&mut self, reason: h2::Reason) {
        match &mut self.sending {
            Some(sending) => sending.reset(reason),
            None => self.respond.send_reset(reason),
        }
    }

    /// Where body bytes go, once the head is out; these must fit into what it declared.
    fn begin_send(&mut self, data: &[u8]) -> Result<&mut Sending, WireError> {
        if self.left.is_some_and(|left| left < data.len() as u64) {
            return Err(WireError::Malformed("body_longer_than_declared"));
        }
        self.send_head(false)?;
        self.sending.as_mut().ok_or(WireError::Closed)
    }

    /// Sends the head that waits, if one does.
    fn send_head(&mut self, ends: bool) -> Result<(), WireError> {
        if let Some(head) = self.head.take() {
            self.sending = Some(Sending::new(self.respond.send_response(head, ends).map_err(failed)?));
        }
        Ok(())
    }
}

impl Wire for H2Wire {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, WireError>> {
        self.receiving.poll_fill(cx)
    }

    fn data(&self) -> &[u8] {
        self.receiving.data()
    }

    fn consume(&mut self, count: usize) {
        self.receiving.consume(count);
    }

    fn gather(&mut self, cx: &mut Context<'_>) {
        self.receiving.gather(cx);
    }

    fn trailers(&self) -> &Trailers {
        self.receiving.trailers()
    }

    fn poll_send(&mut self, data: &[u8], cx: &mut Context<'_>) -> Poll<Result<usize, WireError>> {
        let sent = ready!(self.begin_send(data)?.poll_send(data, cx))?;
        if let Some(left) = &mut self.left {
            *left -= sent as u64;
        }
        Poll::Ready(Ok(sent))
    }

    fn poll_finish(&mut self, trailers: &Trailers, _cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        if self.left.is_some_and(|left| left > 0) {
            return Poll::Ready(Err(WireError::Malformed("body_shorter_than_declared")));
        }
        let with_head = self.head.is_some() && trailers.is_empty();
        self.send_head(with_head)?;
        if !with_head {
            let Some(sending) = &mut self.sending else { return Poll::Ready(Err(WireError::Closed)) };
            sending.finish(trailers)?;
        }
        self.ended = true;
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        // The connection's own task writes; here only a head may still wait.
        Poll::Ready(self.send_head(false))
    }
}

impl Downstream for H2Wire {
    fn queue_interim<'f>(&mut self, status: u16, fields: impl Iterator<Item = Field<'f>>) {
        if let Some(interim) = response(status, fields) {
            // An interim answer may be lost: nothing hangs on it (RFC 9110 section 15.2).
            let _ = self.respond.send_informational(interim);
        }
    }

    fn queue_response<'f>(&mut self, head: ResponseLine<'_>, fields: impl Iterator<Item = Field<'f>>) -> u64 {
        let length = match head.framing {
            Framing::Length(length) => Some(length),
            Framing::None => head.described_length,
            Framing::Chunked | Framing::UntilClose => None,
        };
        self.left = match head.framing {
            Framing::Length(length) => Some(length),
            Framing::None => Some(0),
            Framing::Chunked | Framing::UntilClose => None,
        };
        self.head = response(head.status, fields);
        if let (Some(response), Some(length)) = (&mut self.head, length)
            && let Ok(value) = HeaderValue::from_bytes(write::decimal(length, &mut [0; 20]))
        {
            response.headers_mut().insert("content-length", value);
        }
        let fields = self.head.iter().flat_map(|head| head.headers());
        fields.map(|(name, value)| (name.as_str().len() + value.len()) as u64).sum()
    }

    fn send_own(&mut self, body: &[u8]) -> bool {
        if body.is_empty() || self.left != Some(body.len() as u64) || self.send_head(false).is_err() {
            return false;
        }
        let Some(sending) = &mut self.sending else { return false };
        self.ended = sending.stream.send_data(Bytes::copy_from_slice(body), true).is_ok();
        self.ended
    }

    fn take_back(&mut self) -> bool {
        self.head.take().is_some()
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.sending {
            Some(sending) => sending.poll_reset(cx),
            None => self.respond.poll_reset(cx).map(|_reason| ()),
        }
    }
}

fn response<'f>(status: u16, fields: impl Iterator<Item = Field<'f>>) -> Option<Response<()>> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).ok()?;
    *response.headers_mut() = fields::to_map(fields);
    Some(response)
}

/// What an error of the crate says about the other side.
pub(crate) fn failed(error: h2::Error) -> WireError {
    if error.is_io() {
        WireError::Io
    } else if error.is_library() {
        WireError::Malformed("http2")
    } else {
        WireError::Closed
    }
}
