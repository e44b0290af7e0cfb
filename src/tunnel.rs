//! After a 101: bytes both ways, frame boundaries followed only as far as a polite close needs. Nothing in here changes a
//! byte; an idle tunnel holds no buffer.

pub mod frames;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::engine::buffer::Buffer;
use crate::engine::relay::{EndReason, Revocation, TURN};
use crate::engine::watchdog::Watchdog;
use frames::{Boundary, close_frame};

/// How long a side may take to finish once the other has said that it will send nothing more. A client that closes its half
/// behind a close frame waits for the server's, which a busy server may take its time to send.
const HALF_CLOSED: Duration = Duration::from_secs(10);
/// How long a client may take to answer our own close frame.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long the gate waits for a frame boundary to close at, before it cuts (decision 28).
const BOUNDARY_WAIT: Duration = Duration::from_secs(1);
/// Most bytes held in one direction.
const MAX_BUFFERED: usize = crate::engine::buffer::LARGE;

/// Why a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TunnelEnd {
    /// One side closed, with or without a close frame, or the client's connection failed.
    Closed,
    /// The upstream's connection failed.
    Failed,
    /// No byte in either direction for the time allowed.
    Idle,
    /// A side did not read for the time allowed.
    Stalled,
    /// The gate ended it.
    Ended(EndReason),
}

impl TunnelEnd {
    /// A word for the log.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Failed => "failed",
            Self::Idle => "idle",
            Self::Stalled => "stalled",
            Self::Ended(reason) => reason.label(),
        }
    }

    /// The close code the gate sends and its reason (RFC 6455 section 7.4.1), where it is the gate that closes.
    fn close(self) -> Option<(u16, &'static str)> {
        match self {
            Self::Ended(EndReason::KeyRevoked) => Some((1008, "key revoked")),
            Self::Ended(EndReason::KeyExpired) => Some((1008, "key expired")),
            Self::Ended(EndReason::RouteChanged) => Some((1008, "route changed")),
            Self::Ended(EndReason::Shutdown) => Some((1001, "gate shutting down")),
            Self::Idle => Some((1001, "idle timeout")),
            Self::Closed | Self::Failed | Self::Stalled => None,
        }
    }
}

/// Bounds of one tunnel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TunnelTiming {
    /// No byte in either direction.
    pub(crate) idle: Duration,
    /// A write makes no progress.
    pub(crate) write: Duration,
}

/// One side: its stream, and what was read from it and not yet written to the other.
#[derive(Debug)]
pub(crate) struct End<S> {
    pub(crate) io: S,
    pub(crate) read: Buffer,
}

/// Both directions of a tunnel under way.
pub(crate) struct Tunnel<C, U> {
    client: End<C>,
    upstream: End<U>,
    up: Flow,
    down: Flow,
    timing: TunnelTiming,
}

#[derive(Clone, Copy, Debug)]
struct Flow {
    boundary: Boundary,
    /// The source will send nothing more.
    ended: bool,
    /// The sink was told so, or takes nothing more.
    shut: bool,
    stalled: bool,
    bytes: u64,
    moved: Instant,
}

/// Which end of a flow failed.
enum Broken {
    Source,
    Sink,
}

impl<C, U> Tunnel<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// A tunnel between two streams of which some bytes may have been read already.
    pub(crate) fn new(client: End<C>, upstream: End<U>, timing: TunnelTiming) -> Self {
        let flow =
            Flow { boundary: Boundary::default(), ended: false, shut: false, stalled: false, bytes: 0, moved: now() };
        Self { client, upstream, up: flow, down: flow, timing }
    }

    /// Relays until an end, then closes as politely as that end allows. `mask` is four random bytes for a close frame
    /// towards the upstream.
    pub(crate) async fn run(
        &mut self,
        revocation: &mut impl Revocation,
        watchdog: &mut Watchdog,
        mask: [u8; 4],
    ) -> TunnelEnd {
        let end = poll_fn(|cx| self.poll_relay(revocation, watchdog, cx)).await;
        if let Some((code, reason)) = end.close() {
            // Boxed so that a tunnel holds no room for its end while it is open.
            Box::pin(self.close(code, reason, mask, watchdog)).await;
        }
        end
    }

    /// Bytes from the client and from the upstream that were handed on.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.up.bytes, self.down.bytes)
    }

    fn poll_relay(
        &mut self,
        revocation: &mut impl Revocation,
        watchdog: &mut Watchdog,
        cx: &mut Context<'_>,
    ) -> Poll<TunnelEnd> {
        // Asked first: behind two directions that are always busy, the runtime lets no timer or signal tell.
        if let Poll::Ready(reason) = revocation.poll_ended(cx) {
            return Poll::Ready(TunnelEnd::Ended(reason));
        }
        let up = flow(&mut self.client, &mut self.upstream.io, &mut self.up, cx);
        if matches!(up, Err(Broken::Sink)) {
            // It reads no more, but its last words may still be on their way.
            self.up.ended = true;
            self.up.shut = true;
        }
        let down = flow(&mut self.upstream, &mut self.client.io, &mut self.down, cx);
        if matches!(up, Err(Broken::Source)) || matches!(down, Err(Broken::Sink)) {
            return Poll::Ready(TunnelEnd::Closed);
        }
        if matches!(down, Err(Broken::Source)) {
            return Poll::Ready(TunnelEnd::Failed);
        }
        if self.up.shut && self.down.shut {
            return Poll::Ready(TunnelEnd::Closed);
        }
        let (deadline, end) = self.deadline();
        if self.up.moved.max(self.down.moved) < deadline {
            ready!(watchdog.poll_expired(deadline, cx));
        }
        Poll::Ready(end)
    }

    fn deadline(&self) -> (Instant, TunnelEnd) {
        let last = self.up.moved.max(self.down.moved);
        if self.up.ended || self.down.ended {
            return (last + HALF_CLOSED, TunnelEnd::Closed);
        }
        let stalled = [self.up, self.down].into_iter().filter(|flow| flow.stalled).map(|flow| flow.moved).min();
        match stalled {
            Some(moved) if moved + self.timing.write < last + self.timing.idle => {
                (moved + self.timing.write, TunnelEnd::Stalled)
            }
            _ => (last + self.timing.idle, TunnelEnd::Idle),
        }
    }

    /// Sends the frame under way to its end, then a close frame; waits a moment for the client's own; tells the upstream.
    async fn close(&mut self, code: u16, reason: &str, mask: [u8; 4], watchdog: &mut Watchdog) {
        let deadline = now() + BOUNDARY_WAIT;
        if self.down.boundary.is_closed() || !self.reach_boundary(watchdog, deadline).await {
            return;
        }
        if self.up.boundary.is_between_frames() && !self.up.boundary.is_closed() {
            let frame = close_frame(1001, "", Some(mask));
            let _ = poll_fn(|cx| poll_or(write_once(&mut self.upstream.io, &frame, cx), watchdog, deadline, cx)).await;
        }
        let frame = close_frame(code, reason, None);
        let mut sent = 0;
        while let Some(rest) = frame.get(sent..).filter(|rest| !rest.is_empty()) {
            match poll_fn(|cx| poll_or(write_once(&mut self.client.io, rest, cx), watchdog, deadline, cx)).await {
                Some(Ok(count)) if count > 0 => sent += count,
                _ => return,
            }
        }
        self.await_goodbye(watchdog, now() + GOODBYE).await;
    }

    /// Reads and drops what the client still sends, until it closes or `deadline`: closing a socket with unread bytes
    /// would reset the connection and take our close frame with it.
    async fn await_goodbye(&mut self, watchdog: &mut Watchdog, deadline: Instant) {
        let client = &mut self.client;
        let _ = poll_fn(|cx| poll_or(Pin::new(&mut client.io).poll_shutdown(cx), watchdog, deadline, cx)).await;
        loop {
            let held = client.read.bytes().len();
            client.read.consume(held);
            let read = poll_fn(|cx| {
                poll_or(client.read.poll_read_more(&mut client.io, MAX_BUFFERED, cx), watchdog, deadline, cx)
            });
            // The clock is read here, too: a client that never stops sending keeps the timer from being asked.
            if !matches!(read.await, Some(Ok(count)) if count > 0) || now() >= deadline {
                return;
            }
        }
    }

    async fn reach_boundary(&mut self, watchdog: &mut Watchdog, deadline: Instant) -> bool {
        let Self { client, upstream, down, .. } = self;
        poll_fn(|cx| poll_or(poll_to_boundary(upstream, &mut client.io, down, cx), watchdog, deadline, cx))
            .await
            .is_some_and(|reached| reached.is_ok())
    }
}

/// Moves one direction until it must wait, is over, or the other has its turn (see [`TURN`]).
fn flow<A, B>(from: &mut End<A>, to: &mut B, flow: &mut Flow, cx: &mut Context<'_>) -> Result<(), Broken>
where
    A: AsyncRead + Unpin,
    B: AsyncWrite + Unpin,
{
    // Each time it reads or writes.
    for _ in 0..2 * TURN {
        if flow.shut {
            return Ok(());
        }
        flow.stalled = false;
        if !from.read.bytes().is_empty() {
            flow.stalled = true;
            let Poll::Ready(count) = write_once(to, from.read.bytes(), cx) else { return Ok(()) };
            hand_on(from, flow, count.map_err(|_broken| Broken::Sink)?);
        } else if flow.ended {
            let Poll::Ready(shut) = Pin::new(&mut *to).poll_shutdown(cx) else { return Ok(()) };
            shut.map_err(|_broken| Broken::Sink)?;
            flow.shut = true;
        } else {
            match from.read.poll_read_more(&mut from.io, MAX_BUFFERED, cx) {
                Poll::Ready(Ok(count)) => flow.ended = count == 0,
                // TLS without its own goodbye: the close frame, if there was one, has said what there is to say.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => flow.ended = true,
                Poll::Ready(Err(_)) => return Err(Broken::Source),
                Poll::Pending => {
                    // TLS takes what the socket does not: a sink that reads nothing shows only here.
                    let flushed = Pin::new(&mut *to).poll_flush(cx);
                    flow.stalled = flushed.is_pending();
                    let Poll::Ready(flushed) = flushed else { return Ok(()) };
                    return flushed.map_err(|_broken| Broken::Sink);
                }
            }
            flow.moved = now();
        }
    }
    flow.stalled = false;
    cx.waker().wake_by_ref();
    Ok(())
}

fn poll_to_boundary<A, B>(from: &mut End<A>, to: &mut B, flow: &mut Flow, cx: &mut Context<'_>) -> Poll<io::Result<()>>
where
    A: AsyncRead + Unpin,
    B: AsyncWrite + Unpin,
{
    loop {
        let bytes = from.read.bytes();
        let rest = flow.boundary.rest_of_frame(bytes).unwrap_or(bytes.len());
        if flow.boundary.is_between_frames() {
            return Pin::new(&mut *to).poll_flush(cx);
        }
        if rest == 0 {
            if ready!(from.read.poll_read_more(&mut from.io, MAX_BUFFERED, cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            continue;
        }
        let count = ready!(write_once(to, bytes.get(..rest).unwrap_or_default(), cx))?;
        hand_on(from, flow, count);
    }
}

fn hand_on<A>(from: &mut End<A>, flow: &mut Flow, count: usize) {
    flow.boundary.advance(from.read.bytes().get(..count).unwrap_or_default());
    from.read.consume(count);
    flow.bytes += count as u64;
    flow.moved = now();
}

fn write_once<B: AsyncWrite + Unpin>(to: &mut B, bytes: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(to).poll_write(cx, bytes))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        count => Poll::Ready(Ok(count)),
    }
}

/// `Some` of a result, or `None` when `deadline` comes first.
fn poll_or<T>(result: Poll<T>, watchdog: &mut Watchdog, deadline: Instant, cx: &mut Context<'_>) -> Poll<Option<T>> {
    match result {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => watchdog.poll_expired(deadline, cx).map(|()| None),
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
