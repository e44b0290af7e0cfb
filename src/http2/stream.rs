//! One stream of a client's connection: its head is read by the parser of HTTP/1, it takes the path that all requests take,
//! and ends well, with its request unread, or reset.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};

use super::head;
use super::wire::H2Wire;
use crate::access_log::Protocol;
use crate::engine::client::Client;
use crate::engine::connection::HeadBytes;
use crate::engine::exchange::{self, Outcome};
use crate::engine::peer::Peer;
use crate::engine::reply;
use crate::engine::report::Report;
use crate::engine::watchdog::Watchdog;
use crate::engine::worker::Worker;
use crate::http1::head::HeadLimits;
use crate::http1::request::RequestHead;
use crate::metrics::ClosedReason;
use crate::rejection::Rejection;

/// What the requests of a connection were let in by so far.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// One was admitted, with or without a key: requests on it may wait for a server.
    pub(super) let_in: AtomicBool,
    /// One was admitted by its key: it is no stranger's any more.
    pub(super) keyed: AtomicBool,
    /// Woken by the first that is admitted: until then the connection may have left requests lie.
    pub(super) held_up: AtomicWaker,
}

/// A stream that was just opened.
pub(super) struct Stream {
    respond: SendResponse<Bytes>,
    peer: Arc<Peer>,
    worker: Arc<Worker>,
    standing: Arc<Standing>,
}

/// A stream in the middle of its exchange.
struct Exchange {
    wire: H2Wire,
    watchdog: Watchdog,
    peer: Arc<Peer>,
    worker: Arc<Worker>,
    standing: Arc<Standing>,
}

impl Stream {
    /// A stream to be answered by `respond`; notes in `standing` what its request was let in by.
    pub(super) fn new(
        respond: SendResponse<Bytes>,
        peer: &Arc<Peer>,
        worker: &Arc<Worker>,
        standing: &Arc<Standing>,
    ) -> Self {
        Self { respond, peer: peer.clone(), worker: worker.clone(), standing: standing.clone() }
    }

    /// Serves it to its end.
    pub(super) async fn serve(self, request: http::Request<RecvStream>) {
        let Self { respond, peer, worker, standing } = self;
        let policy = worker.gate.policy.load_full();
        let (parts, body) = request.into_parts();
        let read = read_head(&parts, !body.is_end_stream(), &policy.request.head);
        drop(parts);
        let wire = H2Wire::new(body, respond);
        let mut exchange = Exchange { wire, watchdog: Watchdog::default(), peer, worker, standing };
        let head = match read {
            Ok(head) => head,
            Err(rejection) => return reply::refuse_unread(&mut exchange, Protocol::Http2, &rejection).await,
        };
        let (worker, peer) = (exchange.worker.clone(), exchange.peer.clone());
        let mut report = Report::begin(&worker, &policy, &peer, Protocol::Http2, &head);
        match exchange::run(&mut exchange, &policy, head.request(), &mut report).await {
            // Where the request was not read to its end, letting go of the stream tells the client so: RST_STREAM with
            // NO_ERROR behind the whole answer (RFC 9113 section 8.1, decision 6).
            Outcome::Keep => {}
            Outcome::Close(reason) => count_end(&worker, reason),
            Outcome::Gone(reason) => {
                exchange.wire.reset(reset_code(reason));
                count_end(&worker, reason);
            }
            // Not reached: no head of a stream is a WebSocket handshake, for none may hold `Connection`.
            Outcome::Tunnel { .. } => exchange.wire.reset(Reason::INTERNAL_ERROR),
        }
    }
}

impl Client for Exchange {
    type Wire = H2Wire;

    fn sides(&mut self) -> (&mut H2Wire, &mut Watchdog) {
        (&mut self.wire, &mut self.watchdog)
    }

    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    fn body_is_over(&self) -> bool {
        self.wire.body_is_over()
    }

    async fn drain(&mut self) -> bool {
        // The connection goes on whatever becomes of this stream's body.
        self.wire.body_is_over()
    }

    fn admitted(&mut self, keyed: bool) {
        self.standing.keyed.fetch_or(keyed, Ordering::Relaxed);
        if !self.standing.let_in.swap(true, Ordering::Relaxed) {
            self.standing.held_up.wake();
        }
    }
}

fn read_head(parts: &http::request::Parts, has_body: bool, limits: &HeadLimits) -> Result<HeadBytes, Rejection> {
    let bytes = head::write(parts, has_body)?;
    let mut spans = RequestHead::default();
    match spans.parse(&bytes, limits) {
        Ok(true) if spans.view(&bytes).len() == bytes.len() => Ok(HeadBytes::whole(bytes, spans)),
        // Not reached: what was written is one whole head.
        Ok(_) => Err(Rejection::Malformed("head")),
        Err(rejection) => Err(rejection),
    }
}

/// Counts a stream that ended with its right among the connections that did (design rule 8); others end with theirs.
fn count_end(worker: &Worker, reason: ClosedReason) {
    if matches!(reason, ClosedReason::KeyEnded | ClosedReason::RouteEnded) {
        worker.gate.metrics.connection_closed(reason);
    }
}

fn reset_code(reason: ClosedReason) -> Reason {
    match reason {
        ClosedReason::Malformed => Reason::PROTOCOL_ERROR,
        ClosedReason::Upstream | ClosedReason::Fault => Reason::INTERNAL_ERROR,
        _ => Reason::CANCEL,
    }
}
