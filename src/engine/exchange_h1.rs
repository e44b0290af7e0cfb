//! One request on an HTTP/1 connection: it takes the path that all requests take, and then the connection is kept, closed or
//! becomes a tunnel.

use std::sync::{Arc, Weak};

use tokio::io::{AsyncRead, AsyncWrite};

use super::abort::Abort;
use super::buffer::Buffer;
use super::client::Client;
use super::connection::{Connection, HeadBytes};
use super::ending;
use super::exchange::{self, Outcome};
use super::key_watch::KeyWatch;
use super::peer::Peer;
use super::policy::Policy;
use super::reply;
use super::report::Report;
use super::watchdog::Watchdog;
use super::wire_h1::H1Wire;
use super::worker::Worker;
use crate::access_log::Protocol;
use crate::admission::Admitted;
use crate::http1::head::Version;
use crate::http1::request::RequestHead;
use crate::keyring::Keyring;
use crate::metrics::ClosedReason;
use crate::tunnel::{End, Tunnel, TunnelEnd, TunnelTiming};
use crate::upstream::connect::Connection as UpstreamConnection;

/// What becomes of the connection after a request.
pub(crate) enum Next<S> {
    /// It takes another; the ranges of the head come back for it.
    Keep(Connection<S>, RequestHead),
    /// It ends, politely.
    Close(Connection<S>, ClosedReason),
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
pub(crate) async fn handle<S>(mut connection: Connection<S>, mut head: HeadBytes) -> Next<S>
where
    S: Abort + AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if head.request().is_websocket() {
        head.compact();
    }
    let policy = connection.worker.gate.policy.load_full();
    let outcome = {
        let (worker, peer) = (connection.worker.clone(), connection.peer.clone());
        let protocol = match head.request().version() {
            Version::Http10 => Protocol::Http10,
            Version::Http11 => Protocol::Http11,
        };
        let mut report = Report::begin(&worker, &policy, &peer, protocol, &head);
        let request = head.request();
        connection.wire.expect_body(request.framing());
        match exchange::run(&mut connection, &policy, request, &mut report).await {
            Outcome::Tunnel { upstream, early, admitted, keyring } => {
                let reason = tunnel(connection, &policy, upstream, early, *admitted, &keyring, &mut report).await;
                return Next::Gone(reason);
            }
            outcome => outcome,
        }
    };
    match outcome {
        Outcome::Keep => Next::Keep(connection, head.into_spans()),
        Outcome::Close(reason) => Next::Close(connection, reason),
        Outcome::Gone(reason) => {
            if connection.wire.ends_with_its_close() {
                connection.wire.io.abort();
            }
            Next::Gone(reason)
        }
        Outcome::Tunnel { .. } => Next::Gone(ClosedReason::Fault),
    }
}

/// The tunnel behind a 101, to its end.
async fn tunnel<S>(
    mut connection: Connection<S>,
    policy: &Policy,
    upstream: UpstreamConnection,
    early: Buffer,
    admitted: Admitted,
    keyring: &Weak<Keyring>,
    report: &mut Report<'_>,
) -> ClosedReason
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Some((route, plan)) = policy.plan(admitted.route()) else { return ClosedReason::Fault };
    if !reply::flush(&mut connection, policy).await {
        return ClosedReason::WriteTimeout;
    }
    report.switched(super::connection::now());
    let _active = plan.metrics.websocket();
    let settings = plan.upstream.settings();
    let timing = TunnelTiming { idle: settings.websocket_idle_timeout, write: policy.request.write_timeout };
    let principal = admitted.principal().cloned();
    let _permit = admitted.into_permit().into_websocket();
    let worker = connection.worker.clone();
    let mut watch = KeyWatch::new(&worker.gate, keyring, principal, report.client, route).ending_with_shutdown();
    let (stream, _lease) = upstream.into_parts();
    let client = End { io: connection.wire.io, read: connection.wire.input };
    let mut tunnel = Tunnel::new(client, End { io: stream, read: early }, timing);
    let [a, b, c, d, ..] = worker.random();
    let end = tunnel.run(&mut watch, &mut connection.watchdog, [a, b, c, d]).await;
    let (up, down) = tunnel.bytes();
    report.bytes_in += up;
    report.bytes_out += down;
    report.closed = Some(end.label());
    match end {
        TunnelEnd::Closed => ClosedReason::Client,
        TunnelEnd::Failed => ClosedReason::Upstream,
        TunnelEnd::Idle => ClosedReason::TunnelTimeout,
        TunnelEnd::Stalled => ClosedReason::WriteTimeout,
        TunnelEnd::Ended(reason) => ending::ended(reason),
    }
}
