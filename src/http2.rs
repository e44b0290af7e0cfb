//! HTTP/2 towards clients: one connection and its streams. Each stream's head is written into the same canonical bytes as an
//! HTTP/1 request's and read by the same parser (`head`), and takes the same path (`stream`). Framing, HPACK and flow control
//! are the `h2` crate's, with bounds of ours (`security.md` A5, decisions 28 and 35).

pub(crate) mod answer;
mod fields;
mod head;
mod sips;
mod stream;
mod wire;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::{Builder, Connection};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use crate::engine::RequestSettings;
use crate::engine::connection::now;
use crate::engine::peer::Peer;
use crate::engine::watchdog::Watchdog;
use crate::engine::worker::Worker;
use crate::metrics::ClosedReason;
use sips::Sips;
use stream::{Standing, Stream};

/// Streams a client may have open at once.
const MAX_STREAMS: u32 = 100;
/// Requests of a connection under way at once, those among them that the client gave up and that are still being put away.
/// Beyond it no stream is looked at, and the crate counts those that are reset.
const MOST_TASKS: usize = 2 * MAX_STREAMS as usize;
/// The same before anything was let in: then nothing more is even read until they are refused, which waits for nobody, or one
/// is let in.
const MOST_STRANGE_TASKS: usize = 8;
/// Window of a connection, and of each of its streams, before its first admission of a key (decision 35): all that a stranger can
/// make the gate hold of bodies.
const STRANGER_WINDOW: u32 = 65_535;
/// Window of a connection after its first admission of a key.
const WINDOW: u32 = 1024 * 1024;
/// Window of each stream after its connection's first admission of a key.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Most bytes of an answer held per stream.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams reset by the client before they were looked at, before it is told to go (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 20;
/// Streams that break a rule, before the client is told to go (CVE-2025-8671).
const MAX_BROKEN_STREAMS: usize = 100;
/// Streams reset by us of which late frames are still known.
const MAX_REMEMBERED_RESETS: usize = 32;
/// How long a client may take to note that the connection is over.
const GOODBYE: Duration = Duration::from_secs(1);

/// Serves one HTTP/2 connection until it ends; says why it did.
pub(crate) async fn serve<S>(io: S, peer: Arc<Peer>, worker: Arc<Worker>) -> ClosedReason
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let settings = worker.gate.policy.load().request;
    let first_head_by = now() + settings.header_timeout;
    let mut closed = pin!(peer.listener.clone().closed());
    let deadline = tokio::time::Instant::from_std(first_head_by);
    let standing = Arc::<Standing>::default();
    let io = Sips::new(io, standing.clone());
    // A client that has just come may have its first request on the way already.
    let leaving = async {
        peer.listener.clone().closed().await;
        tokio::time::sleep(GOODBYE).await;
    };
    let shaken = tokio::select! {
        shaken = tokio::time::timeout_at(deadline, builder(&settings).handshake::<_, Bytes>(io)) => shaken,
        () = leaving => return ClosedReason::Shutdown,
    };
    let connection = match shaken {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return ended_by(&error),
        Err(_elapsed) => return ClosedReason::HeadTimeout,
    };
    let mut serving = Serving {
        connection,
        peer,
        worker,
        streams: JoinSet::new(),
        standing,
        widened: false,
        closing: None,
        idle_until: first_head_by,
        idle_reason: ClosedReason::HeadTimeout,
        keepalive: settings.keepalive_timeout,
        watchdog: Watchdog::default(),
    };
    let reason = poll_fn(|cx| {
        if serving.closing.is_none() && closed.as_mut().poll(cx).is_ready() {
            serving.close(ClosedReason::Shutdown);
        }
        serving.poll(cx)
    })
    .await;
    // Streams under way learn by themselves that the connection is gone, and tell it in their reports.
    serving.streams.detach_all();
    reason
}

fn builder(settings: &RequestSettings) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(settings.head.max_head_bytes).unwrap_or(u32::MAX))
        .initial_connection_window_size(STRANGER_WINDOW)
        .initial_window_size(STRANGER_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(Some(MAX_BROKEN_STREAMS))
        .max_concurrent_reset_streams(MAX_REMEMBERED_RESETS);
    builder
}

/// A connection and what is under way on it.
struct Serving<S> {
    connection: Connection<Sips<S>, Bytes>,
    peer: Arc<Peer>,
    worker: Arc<Worker>,
    streams: JoinSet<()>,
    /// Noted by its streams: what needs no key leaves the client a stranger.
    standing: Arc<Standing>,
    /// Whether the windows were opened for it.
    widened: bool,
    /// Why it is being closed, once it is.
    closing: Option<ClosedReason>,
    /// When it is over unless a stream is open.
    idle_until: Instant,
    /// Why it is over then.
    idle_reason: ClosedReason,
    keepalive: Duration,
    watchdog: Watchdog,
}

impl<S> Serving<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ClosedReason> {
        loop {
            self.widen();
            let full = self.reached();
            let accepted = match full {
                None => self.connection.poll_accept(cx),
                Some(MOST_STRANGE_TASKS) => {
                    self.standing.held_up.register(cx.waker());
                    Poll::Pending
                }
                Some(_) => self.connection.poll_closed(cx).map(|closed| closed.err().map(Err)),
            };
            match accepted {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    let stream = Stream::new(respond, &self.peer, &self.worker, &self.standing);
                    self.streams.spawn(stream.serve(request));
                    continue;
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(self.closing.unwrap_or(ended_by(&error))),
                Poll::Ready(None) => return Poll::Ready(self.closing.unwrap_or(ClosedReason::Client)),
                Poll::Pending => {}
            }
            while let Poll::Ready(Some(_ended)) = self.streams.poll_join_next(cx) {
                self.idle_until = now() + if self.closing.is_some() { GOODBYE } else { self.keepalive };
                self.idle_reason = ClosedReason::KeepaliveTimeout;
            }
            if full.is_some() && self.reached() != full {
                continue;
            }
            if !self.streams.is_empty() || !self.is_idle_time_over(cx) {
                return Poll::Pending;
            }
            match self.closing {
                Some(reason) => return Poll::Ready(reason),
                None => self.close(self.idle_reason),
            }
        }
    }

    /// The bound on requests under way, where it is reached.
    fn reached(&self) -> Option<usize> {
        let most = if self.standing.let_in.load(Ordering::Relaxed) { MOST_TASKS } else { MOST_STRANGE_TASKS };
        (self.streams.len() >= most).then_some(most)
    }

    /// The clock is read here, too: a client that never stops sending keeps the timer from being asked.
    fn is_idle_time_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.watchdog.poll_expired(self.idle_until, cx).is_ready() || now() >= self.idle_until
    }

    /// Tells the client to open no more streams; those that are open go on.
    fn close(&mut self, reason: ClosedReason) {
        self.closing = Some(reason);
        self.idle_until = now() + GOODBYE;
        self.connection.graceful_shutdown();
    }

    /// Opens the windows once a key was admitted. An admitted stream wakes its connection by what it reads or answers.
    fn widen(&mut self) {
        if self.widened || !self.standing.keyed.load(Ordering::Relaxed) {
            return;
        }
        self.connection.set_target_window_size(WINDOW);
        // Refused while an earlier change is not yet acknowledged: tried again then.
        self.widened = self.connection.set_initial_window_size(STREAM_WINDOW).is_ok();
    }
}

/// Why a connection with this error ended.
fn ended_by(error: &h2::Error) -> ClosedReason {
    if error.is_library() || (error.is_go_away() && !error.is_remote()) {
        tracing::debug!(%error, "an HTTP/2 connection broke a rule");
        ClosedReason::Malformed
    } else {
        ClosedReason::Client
    }
}
