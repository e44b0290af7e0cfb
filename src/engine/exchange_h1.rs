//! One request on an HTTP/1 connection: it takes the path that all requests take, and then the connection is kept, closed or
//! becomes a tunnel.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use super::abort::Abort;
use super::client::Client;
use super::connection::{Connection, HeadBytes, Held};
use super::ending;
use super::exchange::{self, Outcome, Switched};
use super::key_watch::KeyWatch;
use super::peer::Peer;
use super::policy::Policy;
use super::reply;
use super::report::Report;
use super::watchdog::Watchdog;
use super::wire_h1::H1Wire;
use super::worker::Worker;
use crate::access_log::Protocol;
use crate::http1::head::Version;
use crate::http1::request::{Request, RequestHead};
use crate::limit::permit::Permit;
use crate::metrics::{ClosedReason, Held as Counted};
use crate::tunnel::{End, Tunnel, TunnelEnd, TunnelTiming};
use crate::upstream::server::Lease;
use crate::upstream::stream::UpstreamStream;

/// What becomes of the connection after a request.
pub(crate) enum Next<S> {
    /// It takes another; the ranges of the head come back for it.
    Keep(Box<Connection<S>>, RequestHead),
    /// It ends, politely.
    Close(Box<Connection<S>>, ClosedReason),
    /// It has ended.
    Gone(ClosedReason),
}

impl<S> Client for Connection<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    type Wire = H1Wire<S>;

    fn sides(&mut self) -> (&mut H1Wire<S>, &mut Watchdog) {
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
        self.drain_body().await
    }
}

/// Handles one request whose head was cut from the connection.
pub(crate) async fn handle<S>(mut connection: Box<Connection<S>>, head: HeadBytes) -> Next<S>
where
    S: Abort + AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let policy = connection.worker.gate.policy.load_full();
    let outcome = {
        let mut report = begin(&mut connection, &policy, &head);
        exchange::run(&mut *connection, &policy, head.request(), &mut report).await
    };
    carry_out(outcome, connection, head)
}

/// As [`handle`], for a WebSocket's handshake and the tunnel behind it. A tunnel may stay open for days: what only the
/// handshake needs is in a box of its own, and freed before the tunnel begins.
pub(crate) async fn upgrade<S>(mut connection: Box<Connection<S>>, head: Box<HeadBytes>) -> Next<S>
where
    S: Abort + AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let policy = connection.worker.gate.policy.load_full();
    let mut report = begin(&mut connection, &policy, &head);
    let outcome = Box::pin(exchange::run(&mut *connection, &policy, head.request(), &mut report)).await;
    let switched = match outcome {
        Outcome::Tunnel(switched) => switched,
        outcome => {
            drop(report);
            return carry_out(outcome, connection, *head);
        }
    };
    if !reply::flush(&mut *connection, &policy).await {
        return Next::Gone(ClosedReason::WriteTimeout);
    }
    let Some(mut open) = Open::new(*connection, &policy, head.request(), *switched, &mut report) else {
        return Next::Gone(ClosedReason::Fault);
    };
    let end = open.tunnel.run(&mut open.watch, &mut open.watchdog, open.mask).await;
    let (up, down) = open.tunnel.bytes();
    report.bytes_in += up;
    report.bytes_out += down;
    report.closed = Some(end.label());
    Next::Gone(closed(end))
}

/// The report of the request with this head, whose body is to be read next.
pub(crate) fn begin<'h, S>(connection: &mut Connection<S>, policy: &Arc<Policy>, head: &'h HeadBytes) -> Report<'h> {
    let request = head.request();
    let protocol = match request.version() {
        Version::Http10 => Protocol::Http10,
        Version::Http11 => Protocol::Http11,
    };
    connection.wire.expect_body(request.framing());
    Report::begin(&connection.worker, policy, &connection.peer, protocol, head)
}

fn carry_out<S: Abort>(outcome: Outcome, connection: Box<Connection<S>>, head: HeadBytes) -> Next<S> {
    match outcome {
        Outcome::Keep => Next::Keep(connection, head.into_spans()),
        Outcome::Close(reason) => Next::Close(connection, reason),
        Outcome::Gone(reason) => {
            if connection.wire.ends_with_its_close() {
                connection.wire.io.abort();
            }
            Next::Gone(reason)
        }
        // Only what asks for a tunnel may get one, and that does not come here.
        Outcome::Tunnel(_) => Next::Gone(ClosedReason::Fault),
    }
}

/// An open tunnel, what watches over it, and what it holds.
struct Open<'h, S> {
    tunnel: Tunnel<S, UpstreamStream>,
    watch: KeyWatch<'h>,
    watchdog: Watchdog,
    mask: [u8; 4],
    _active: Counted,
    _permit: Permit,
    _lease: Lease,
    _held: Held,
}

impl<'h, S: AsyncRead + AsyncWrite + Unpin> Open<'h, S> {
    /// The tunnel that `request` asked for and that begins with `switched`; `None` if its route is not in the policy, which
    /// admitted it.
    fn new(
        connection: Connection<S>,
        policy: &Policy,
        request: Request<'h>,
        switched: Switched,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let Connection { wire, watchdog, worker, held, .. } = connection;
        let Switched { upstream, early, admitted, keyring } = switched;
        let (route, plan) = policy.plan(admitted.route())?;
        report.switched(super::connection::now());
        let settings = plan.upstream.settings();
        let timing = TunnelTiming { idle: settings.websocket_idle_timeout, write: policy.request.write_timeout };
        let watch = KeyWatch::new(&worker.gate, &keyring, request, &admitted, report.client, route);
        let (stream, lease) = upstream.into_parts();
        let client = End { io: wire.io, read: wire.input };
        let [a, b, c, d, ..] = worker.random();
        Some(Self {
            tunnel: Tunnel::new(client, End { io: stream, read: early }, timing),
            watch: watch.ending_with_shutdown(),
            watchdog,
            mask: [a, b, c, d],
            _active: plan.metrics.websocket(),
            _permit: admitted.into_permit(),
            _lease: lease,
            _held: held,
        })
    }
}

/// Why the connection ended when its tunnel did.
fn closed(end: TunnelEnd) -> ClosedReason {
    match end {
        TunnelEnd::Closed => ClosedReason::Client,
        TunnelEnd::Failed => ClosedReason::Upstream,
        TunnelEnd::Idle => ClosedReason::TunnelTimeout,
        TunnelEnd::Stalled => ClosedReason::WriteTimeout,
        TunnelEnd::Ended(reason) => ending::ended(reason),
    }
}
