//! One client connection speaking HTTP/1: heads are read under a total deadline, each request is handed to the exchange, and
//! the connection is kept or closed so that no answer is reset away (design rule 10, decision 6).

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};

use super::RequestSettings;
use super::abort::Abort;
use super::buffer::Buffer;
use super::ending;
use super::exchange_h1::{self, Next};
use super::peer::Peer;
use super::reply;
use super::watchdog::Watchdog;
use super::wire::{Fill, Wire};
use super::wire_h1::H1Wire;
use super::worker::Worker;
use crate::access_log::Protocol;
use crate::http1::body::Sender;
use crate::http1::head::HeadLimits;
use crate::http1::request::{Request, RequestHead};
use crate::listener::bounds::Place;
use crate::metrics::{self, ClosedReason};
use crate::rejection::Rejection;

/// Most unread body bytes that are dropped so that a connection survives a refusal (decision 6).
pub(crate) const DRAIN_BYTES: u64 = 64 * 1024;
/// Longest time for that, and for a client to take note of a close.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// A client's connection. It lives in a box: moved in line it would take room in every state of its task.
pub(crate) struct Connection<S> {
    pub(crate) wire: H1Wire<S>,
    pub(crate) watchdog: Watchdog,
    pub(crate) peer: Arc<Peer>,
    pub(crate) worker: Arc<Worker>,
    pub(crate) held: Held,
    spans: RequestHead,
}

/// A connection's place among all of them, given back when dropped.
pub(crate) struct Held {
    pub(crate) _place: Place,
    pub(crate) _open: metrics::Held,
}

/// A request head cut from the connection, with the bytes it stands in.
#[derive(Debug, Default)]
pub(crate) struct HeadBytes {
    buffer: Buffer,
    compact: Box<[u8]>,
    spans: RequestHead,
}

impl HeadBytes {
    /// A head of which `spans` are the ranges in `buffer`.
    pub(crate) fn new(buffer: Buffer, spans: RequestHead) -> Self {
        Self { buffer, compact: Box::default(), spans }
    }

    /// A head that fills all of `bytes`.
    pub(crate) fn whole(bytes: Vec<u8>, spans: RequestHead) -> Self {
        Self { buffer: Buffer::default(), compact: bytes.into_boxed_slice(), spans }
    }

    /// The head.
    pub(crate) fn request(&self) -> Request<'_> {
        let bytes = if self.compact.is_empty() { self.buffer.bytes() } else { &self.compact };
        self.spans.view(bytes)
    }

    /// The head in memory of just its size: for what stays open long.
    pub(crate) fn compact(self) -> Self {
        Self::whole(self.buffer.bytes().to_vec(), self.spans)
    }

    /// Gives back the ranges, whose allocation serves the next head.
    pub(crate) fn into_spans(self) -> RequestHead {
        self.spans
    }
}

enum Read {
    Head,
    Refused(Rejection),
    Gone(ClosedReason),
}

/// Serves a connection until it ends; says why it did.
pub(crate) async fn serve<S>(mut connection: Box<Connection<S>>) -> ClosedReason
where
    S: Abort + AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut first = true;
    loop {
        match connection.read_head(first).await {
            Read::Head => {}
            Read::Gone(reason) => return reason,
            Read::Refused(rejection) => {
                Box::pin(reply::refuse_unread(&mut *connection, Protocol::Http11, &rejection)).await;
                connection.linger().await;
                return ending::closed_by(&rejection);
            }
        }
        first = false;
        match connection.handle().await {
            Next::Keep(kept, spans) => {
                connection = kept;
                connection.spans = spans;
            }
            Next::Close(mut closing, reason) => {
                closing.linger().await;
                return reason;
            }
            Next::Gone(reason) => return reason,
        }
        connection.wire.rest();
    }
}

impl<S> Connection<S>
where
    S: Abort + AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// Hands the request on whose head was read. Boxed so that an idle connection's task does not hold room for a request's.
    fn handle(mut self: Box<Self>) -> Pin<Box<dyn Future<Output = Next<S>> + Send>> {
        let head = self.take_head();
        if head.request().is_websocket() {
            Box::pin(exchange_h1::upgrade(self, Box::new(head.compact())))
        } else {
            Box::pin(exchange_h1::handle(self, head))
        }
    }
}

impl<S: Abort> Connection<S> {
    /// A connection on which nothing was read.
    pub(crate) fn new(io: S, peer: Peer, worker: Arc<Worker>, held: Held) -> Box<Self> {
        let wire = H1Wire::new(io, Buffer::default(), Sender::Client).telling_loss(Abort::lost);
        let (watchdog, peer, spans) = (Watchdog::default(), Arc::new(peer), RequestHead::default());
        Box::new(Self { wire, watchdog, peer, worker, held, spans })
    }

    /// Cuts off the head that was read, with its bytes.
    fn take_head(&mut self) -> HeadBytes {
        let length = self.spans.view(self.wire.input.bytes()).len();
        let rest = self.wire.input.split_rest(length);
        let buffer = std::mem::replace(&mut self.wire.input, rest);
        HeadBytes::new(buffer, std::mem::take(&mut self.spans))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    /// Waits for a whole request head in the input buffer.
    async fn read_head(&mut self, first: bool) -> Read {
        let RequestSettings { head, header_timeout, keepalive_timeout, .. } = self.worker.gate.policy.load().request;
        // The first head's time runs from the connection's beginning, a later one's from its own first byte.
        let began = now();
        if self.wire.input.bytes().is_empty() {
            let (deadline, late) = if first {
                (began + header_timeout, ClosedReason::HeadTimeout)
            } else {
                (began + keepalive_timeout, ClosedReason::KeepaliveTimeout)
            };
            if let Err(reason) = self.await_bytes(head.max_head_bytes, deadline, late).await {
                return Read::Gone(reason);
            }
        }
        let began = if first { began } else { now() };
        self.complete_head(head, began + header_timeout).await
    }

    /// Waits for the first bytes of a head, while its listener stays and until `deadline`. What the system holds already when
    /// the listener goes is a request like any other, and the reactor may not have looked: it is given one more turn.
    async fn await_bytes(&mut self, limit: usize, deadline: Instant, late: ClosedReason) -> Result<(), ClosedReason> {
        let (closed, turn) = (self.peer.listener.clone().closed(), tokio::task::yield_now());
        tokio::pin!(closed, turn);
        let mut closing = false;
        poll_fn(|cx| {
            if let Poll::Ready(read) = self.poll_read(limit, cx) {
                return Poll::Ready(read);
            }
            closing = closing || closed.as_mut().poll(cx).is_ready();
            if closing && turn.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(ClosedReason::Shutdown));
            }
            self.watchdog.poll_expired(deadline, cx).map(|()| Err(late))
        })
        .await
    }

    async fn complete_head(&mut self, limits: HeadLimits, deadline: Instant) -> Read {
        // One byte over the bound is enough for the parser to see that the bound is broken.
        let most = limits.max_head_bytes.saturating_add(1).max(super::buffer::SMALL);
        loop {
            match self.spans.parse(self.wire.input.bytes(), &limits) {
                Ok(true) => return Read::Head,
                Ok(false) => {}
                Err(rejection) => return Read::Refused(rejection),
            }
            let read = poll_fn(|cx| {
                if let Poll::Ready(read) = self.poll_read(most, cx) {
                    return Poll::Ready(Some(read));
                }
                self.watchdog.poll_expired(deadline, cx).map(|()| None)
            });
            match read.await {
                Some(Ok(())) => {}
                Some(Err(reason)) => return Read::Gone(reason),
                None => return Read::Refused(Rejection::HeadTimeout),
            }
        }
    }

    fn poll_read(&mut self, limit: usize, cx: &mut Context<'_>) -> Poll<Result<(), ClosedReason>> {
        self.wire.input.poll_read_more(&mut self.wire.io, limit, cx).map(|read| match read {
            Ok(0) => Err(ClosedReason::Client),
            Ok(_) => Ok(()),
            Err(_) => Err(ClosedReason::Client),
        })
    }

    /// Reads and drops the rest of the request's body, within bounds; says whether all of it is gone.
    pub(crate) async fn drain_body(&mut self) -> bool {
        let deadline = now() + DRAIN_TIME;
        let mut left = DRAIN_BYTES;
        let Self { wire, watchdog, .. } = self;
        poll_fn(|cx| {
            loop {
                match wire.poll_fill(cx) {
                    Poll::Ready(Ok(Fill::End)) => return Poll::Ready(true),
                    Poll::Ready(Ok(Fill::Data)) => {
                        let count = wire.data().len();
                        wire.consume(count);
                        match left.checked_sub(count as u64) {
                            Some(rest) => left = rest,
                            None => return Poll::Ready(false),
                        }
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(false),
                    Poll::Pending => return watchdog.poll_expired(deadline, cx).map(|()| false),
                }
            }
        })
        .await
    }

    /// Closes so that what was sent arrives: says that nothing more will come, then reads and drops what the client still
    /// sends, since closing a socket with unread bytes resets the connection.
    pub(crate) async fn linger(&mut self) {
        let deadline = now() + DRAIN_TIME;
        let Self { wire, watchdog, .. } = self;
        poll_fn(|cx| {
            if Pin::new(&mut wire.io).poll_shutdown(cx).is_pending() {
                return watchdog.poll_expired(deadline, cx);
            }
            loop {
                let held = wire.input.bytes().len();
                wire.input.consume(held);
                match wire.input.poll_read_more(&mut wire.io, super::buffer::SMALL, cx) {
                    // The clock is read here, too: a client that never stops sending keeps the timer from being asked.
                    Poll::Ready(Ok(count)) if count > 0 && now() < deadline => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return watchdog.poll_expired(deadline, cx),
                }
            }
        })
        .await;
    }
}

pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
