//! One HTTP/1 request, top to bottom: admission decides, then it is refused, logged in, or forwarded, and the connection is
//! kept, closed or becomes a tunnel. Every request takes this path, whatever its method or `Upgrade` (design rule 1).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite};

use super::buffer::Buffer;
use super::connection::{Connection, DRAIN_BYTES, HeadBytes};
use super::forward::{Failed, Forwarded, Forwarding};
use super::key_watch::KeyWatch;
use super::policy::Policy;
use super::relay::{EndReason, RelayError};
use super::report::Report;
use super::respond::{OwnAnswer, Style};
use super::wire::{ConnectionField, Downstream, ResponseLine, Wire};
use crate::access_log::Protocol;
use crate::admission::{Admitted, BrowserLogin, ClientSide, Refused, Rules, decide};
use crate::credential::challenge::is_navigation;
use crate::http1::head::{Framing, Version};
use crate::http1::request::{Request, RequestHead};
use crate::identity::forwarded::{Scheme, is_trusted, public_origin};
use crate::identity::request_id::RequestId;
use crate::keyring::Keyring;
use crate::limit::fields::Fields;
use crate::metrics::{AuthOutcome, ClosedReason};
use crate::rejection::{Rejection, phrase};
use crate::session;
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

enum Step {
    Keep,
    Close(ClosedReason),
    Gone(ClosedReason),
    Tunnel { upstream: UpstreamConnection, early: Buffer, admitted: Box<Admitted>, keyring: Arc<Keyring> },
}

/// Handles one request whose head was cut from the connection.
pub(crate) async fn handle<S>(mut connection: Connection<S>, mut head: HeadBytes) -> Next<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if head.request().is_websocket() {
        head.compact();
    }
    let policy = connection.worker.gate.policy.load_full();
    let next = {
        let (worker, peer) = (connection.worker.clone(), connection.peer.clone());
        let protocol = match head.request().version() {
            Version::Http10 => Protocol::Http10,
            Version::Http11 => Protocol::Http11,
        };
        let mut report = Report::begin(&worker, &policy, &peer, protocol, &head);
        let request = head.request();
        connection.wire.expect_body(request.framing());
        let story = AssertUnwindSafe(run(&mut connection, &policy, request, &mut report)).catch_unwind().await;
        match story {
            Ok(Step::Tunnel { upstream, early, admitted, keyring }) => {
                let reason = tunnel(connection, &policy, upstream, early, *admitted, &keyring, &mut report).await;
                return Next::Gone(reason);
            }
            Ok(step) => step,
            Err(_panic) => {
                // The panic's own text is in the log already; the client is owed an answer if none has begun.
                if report.status == 0 {
                    let style = Style::of(request.fields(), false);
                    report.refused(Rejection::Internal);
                    let own = OwnAnswer::refusal(&Rejection::Internal, report.request_id.as_str(), &style);
                    send(&mut connection, &policy, request, &own, false, &mut report).await;
                }
                Step::Close(ClosedReason::Fault)
            }
        }
    };
    match next {
        Step::Keep => Next::Keep(connection, head.into_spans()),
        Step::Close(reason) => Next::Close(connection, reason),
        Step::Gone(reason) => Next::Gone(reason),
        Step::Tunnel { .. } => Next::Gone(ClosedReason::Fault),
    }
}

async fn run<S>(
    connection: &mut Connection<S>,
    policy: &Arc<Policy>,
    request: Request<'_>,
    report: &mut Report<'_>,
) -> Step
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let gate = connection.worker.gate.clone();
    let keyring = gate.keyring.load_full();
    let peer_trusted = is_trusted(connection.peer.address, &policy.trusted_proxies);
    let scheme = if connection.peer.tls.is_some() { Scheme::Https } else { Scheme::Http };
    let origin = public_origin(request, scheme, peer_trusted);
    let client =
        ClientSide { address: report.client, scheme: origin.scheme.as_str(), host: origin.host.unwrap_or_default() };
    let throttle = gate.throttle.load();
    let rules = Rules {
        router: &policy.router,
        sources: &policy.sources,
        default_limits: policy.default_limits,
        keyring: &keyring,
        limiter: &gate.limiter,
        throttle: throttle.as_deref(),
        session: gate.session.as_ref(),
    };
    let admitted = match decide(rules, request, client, report.began()) {
        Ok(admitted) => admitted,
        Err(refused) => return refuse(connection, policy, request, *refused, report).await,
    };
    note_admitted(report, &admitted);
    if let Some(login) = admitted.login() {
        return log_in(connection, policy, request, login, report).await;
    }
    if declared_too_large(policy, request) {
        return refuse_admitted(connection, policy, request, &admitted, Rejection::BodyTooLarge, report).await;
    }
    let has_body = !matches!(request.framing(), Framing::None | Framing::Length(0));
    if request.expects_continue() && has_body {
        connection.wire.queue_interim(100, std::iter::empty());
        if !connection.flush(policy.request.write_timeout).await {
            return Step::Gone(ClosedReason::WriteTimeout);
        }
    }
    let own_fields = own_fields(&admitted, report);
    let forwarding = Forwarding {
        worker: &connection.worker.clone(),
        policy,
        keyring: &keyring,
        admitted: &admitted,
        request,
        scheme,
        peer_trusted,
        keep: request.keep_alive() && !gate.is_draining(),
        own_fields: &own_fields,
    };
    match forwarding.run(&mut connection.wire, &mut connection.watchdog, report).await {
        Ok(Forwarded::Done { close: true, .. }) => Step::Close(ClosedReason::Answered),
        Ok(Forwarded::Done { close: false, request_done }) => {
            if request_done && connection.wire.body_is_over() || connection.drain().await {
                Step::Keep
            } else {
                Step::Close(ClosedReason::Answered)
            }
        }
        Ok(Forwarded::Tunnel { upstream, early }) => {
            Step::Tunnel { upstream, early, admitted: Box::new(admitted), keyring }
        }
        Err(Failed::Refused(rejection)) => {
            refuse_admitted(connection, policy, request, &admitted, rejection, report).await
        }
        Err(Failed::Broken(error)) => {
            let (reason, word) = broken(&error);
            report.closed = Some(word);
            Step::Gone(reason)
        }
    }
}

/// Answers a head that could not be read. There is no request to log: the connection's end tells the rest.
pub(crate) async fn refuse_unread<S>(connection: &mut Connection<S>, rejection: &Rejection)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (gate, worker) = (connection.worker.gate.clone(), connection.worker.clone());
    let policy = gate.policy.load_full();
    gate.metrics.malformed(rejection.label());
    tracing::debug!(remote = ?connection.peer.address, reason = rejection.label(), "a request head was refused");
    let id = RequestId::hex(worker.random());
    let own = OwnAnswer::refusal(rejection, id.as_str(), &Style::default());
    queue_own(&mut connection.wire, &own, &own.body, ConnectionField::Close);
    let body = own.body.clone();
    let _ = write_body(connection, &policy, &body).await;
    policy.unrouted.finish(crate::metrics::Method::Other, own.status, std::time::Duration::ZERO);
}

async fn refuse<S>(
    connection: &mut Connection<S>,
    policy: &Policy,
    request: Request<'_>,
    refused: Refused,
    report: &mut Report<'_>,
) -> Step
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Refused { rejection, route, principal, limits, allow, clear_cookie } = refused;
    if let Some(route) = route {
        report.routed(route);
    }
    report.auth = match (&rejection, &principal) {
        (Rejection::Unauthorized(failure), _) => Some((*failure).into()),
        (_, Some(_)) => Some(AuthOutcome::Ok),
        _ => None,
    };
    if let Some(principal) = principal {
        report.identified(principal);
    }
    let route = route.and_then(|id| policy.router.route(id));
    let style = Style::of(request.fields(), route.is_some_and(|route| route.cors_preflight));
    let mut own = OwnAnswer::refusal(&rejection, report.request_id.as_str(), &style);
    if matches!(rejection, Rejection::Unauthorized(_)) {
        let accepted = route.and_then(|route| route.credentials.as_deref());
        for challenge in policy.challenges.values(accepted, is_navigation(request)) {
            own.push("WWW-Authenticate", challenge);
        }
    }
    if let Some(limits) = limits {
        for (name, value) in limit_fields(&limits) {
            own.push(name, &value);
        }
    }
    if let Some(allow) = allow {
        own.push("Allow", allow.as_bytes());
    }
    if let Some(name) = clear_cookie {
        let mut value = Vec::new();
        session::write_cleared_cookie(&mut value, &name, connection.peer.tls.is_some());
        own.push("Set-Cookie", &value);
    }
    answer_own(connection, policy, request, &rejection, &own, report).await
}

async fn refuse_admitted<S>(
    connection: &mut Connection<S>,
    policy: &Policy,
    request: Request<'_>,
    admitted: &Admitted,
    rejection: Rejection,
    report: &mut Report<'_>,
) -> Step
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let cors = policy.router.route(admitted.route()).is_some_and(|route| route.cors_preflight);
    let style = Style::of(request.fields(), cors);
    let mut own = OwnAnswer::refusal(&rejection, report.request_id.as_str(), &style);
    for (name, value) in limit_fields(admitted.permit().fields()) {
        own.push(name, &value);
    }
    answer_own(connection, policy, request, &rejection, &own, report).await
}

/// Sends a refusal, and decides whether the connection survives it (decision 6).
async fn answer_own<S>(
    connection: &mut Connection<S>,
    policy: &Policy,
    request: Request<'_>,
    rejection: &Rejection,
    own: &OwnAnswer,
    report: &mut Report<'_>,
) -> Step
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    report.refused(rejection.clone());
    let left = match request.framing() {
        Framing::None => 0,
        Framing::Length(length) => length,
        Framing::Chunked | Framing::UntilClose => u64::MAX,
    };
    let waits = request.expects_continue() && left > 0;
    // After a body that broke a rule, or of which a part was used already, nobody knows where the next request begins.
    let keep = request.keep_alive()
        && !connection.worker.gate.is_draining()
        && !waits
        && (left <= DRAIN_BYTES || connection.wire.body_is_over())
        && !matches!(rejection, Rejection::Malformed(_) | Rejection::BodyTimeout | Rejection::BodyTooLarge);
    if !send(connection, policy, request, own, keep, report).await {
        return Step::Gone(ClosedReason::WriteTimeout);
    }
    if keep && connection.drain().await { Step::Keep } else { Step::Close(closed_by(rejection)) }
}

/// A page opened by a link with its key: a cookie and the clean link (decision 7).
async fn log_in<S>(
    connection: &mut Connection<S>,
    policy: &Policy,
    request: Request<'_>,
    login: &BrowserLogin,
    report: &mut Report<'_>,
) -> Step
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut cookie = Vec::new();
    session::write_cookie(&mut cookie, &login.cookie, &login.token, connection.peer.tls.is_some());
    let mut own = OwnAnswer::new(303);
    own.push("Location", &login.location);
    own.push("Set-Cookie", &cookie);
    own.push("Cache-Control", b"no-store");
    own.push("Referrer-Policy", b"no-referrer");
    own.push("X-Request-Id", report.request_id.as_bytes());
    let keep = request.keep_alive() && matches!(request.framing(), Framing::None);
    if !send(connection, policy, request, &own, keep, report).await {
        return Step::Gone(ClosedReason::WriteTimeout);
    }
    if keep { Step::Keep } else { Step::Close(ClosedReason::Answered) }
}

/// Writes an answer of the gate's own; says whether it went out.
async fn send<S>(
    connection: &mut Connection<S>,
    policy: &Policy,
    request: Request<'_>,
    own: &OwnAnswer,
    keep: bool,
    report: &mut Report<'_>,
) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    report.status = own.status;
    let field = match (keep, request.version()) {
        (false, _) => ConnectionField::Close,
        (true, Version::Http10) => ConnectionField::KeepAlive,
        (true, Version::Http11) => ConnectionField::Absent,
    };
    let body: &[u8] = if request.method() == b"HEAD" { &[] } else { &own.body };
    queue_own(&mut connection.wire, own, body, field);
    report.bytes_out += body.len() as u64;
    write_body(connection, policy, body).await
}

fn queue_own(wire: &mut impl Downstream, own: &OwnAnswer, body: &[u8], connection: ConnectionField) {
    let length = own.body.len() as u64;
    let line = ResponseLine {
        status: own.status,
        reason: phrase(own.status).as_bytes(),
        framing: if body.is_empty() && length > 0 { Framing::None } else { Framing::Length(length) },
        described_length: (body.is_empty() && length > 0).then_some(length),
        connection,
    };
    wire.queue_response(line, own.fields());
}

async fn write_body<S>(connection: &mut Connection<S>, policy: &Policy, mut body: &[u8]) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let deadline = super::connection::now() + policy.request.write_timeout;
    let Connection { wire, watchdog, .. } = connection;
    std::future::poll_fn(|cx| {
        while !body.is_empty() {
            match wire.poll_send(body, cx) {
                std::task::Poll::Ready(Ok(sent)) => body = body.get(sent..).unwrap_or_default(),
                std::task::Poll::Ready(Err(_)) => return std::task::Poll::Ready(false),
                std::task::Poll::Pending => return watchdog.poll_expired(deadline, cx).map(|()| false),
            }
        }
        match wire.poll_finish(&[], cx) {
            std::task::Poll::Ready(finished) => std::task::Poll::Ready(finished.is_ok()),
            std::task::Poll::Pending => watchdog.poll_expired(deadline, cx).map(|()| false),
        }
    })
    .await
}

/// The tunnel behind a 101, to its end.
async fn tunnel<S>(
    mut connection: Connection<S>,
    policy: &Policy,
    upstream: UpstreamConnection,
    early: Buffer,
    admitted: Admitted,
    keyring: &Arc<Keyring>,
    report: &mut Report<'_>,
) -> ClosedReason
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Some((route, plan)) = policy.plan(admitted.route()) else { return ClosedReason::Fault };
    if !connection.flush(policy.request.write_timeout).await {
        return ClosedReason::WriteTimeout;
    }
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
        TunnelEnd::Ended(reason) => ended(reason),
    }
}

fn note_admitted(report: &mut Report<'_>, admitted: &Admitted) {
    report.routed(admitted.route());
    report.auth = Some(match admitted.caller() {
        crate::admission::Caller::Key(_) => AuthOutcome::Ok,
        crate::admission::Caller::Anonymous => AuthOutcome::Anonymous,
        crate::admission::Caller::Preflight => AuthOutcome::Preflight,
    });
    if let Some(principal) = admitted.principal() {
        report.identified(principal.clone());
    }
}

fn own_fields(admitted: &Admitted, report: &Report<'_>) -> Vec<(&'static str, Vec<u8>)> {
    let mut fields = vec![("X-Request-Id", report.request_id.as_bytes().to_vec())];
    fields.extend(limit_fields(admitted.permit().fields()));
    fields
}

/// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers), where there is a limit to tell of.
fn limit_fields(limits: &Fields) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let (mut policy, mut state) = (Vec::new(), Vec::new());
    limits.write_policy(&mut policy);
    limits.write_state(&mut state);
    [("RateLimit-Policy", policy), ("RateLimit", state)].into_iter().filter(|(_, value)| !value.is_empty())
}

fn declared_too_large(policy: &Policy, request: Request<'_>) -> bool {
    matches!((request.framing(), policy.request.max_body_bytes), (Framing::Length(length), Some(max)) if length > max)
}

/// Why a connection ends with this refusal.
pub(crate) fn closed_by(rejection: &Rejection) -> ClosedReason {
    match rejection {
        Rejection::Malformed(_) | Rejection::AmbiguousPath => ClosedReason::Malformed,
        Rejection::HeadTimeout => ClosedReason::HeadTimeout,
        Rejection::BodyTimeout => ClosedReason::BodyTimeout,
        Rejection::Internal => ClosedReason::Fault,
        _ => ClosedReason::Answered,
    }
}

fn ended(reason: EndReason) -> ClosedReason {
    match reason {
        EndReason::KeyRevoked | EndReason::KeyExpired => ClosedReason::KeyEnded,
        EndReason::RouteChanged => ClosedReason::RouteEnded,
        EndReason::Shutdown => ClosedReason::Shutdown,
    }
}

/// Why a connection ends in the middle of an answer, for metric and log.
fn broken(error: &RelayError) -> (ClosedReason, &'static str) {
    match error {
        RelayError::ClientGone => (ClosedReason::Client, "client_gone"),
        RelayError::ClientMalformed(rule) => (ClosedReason::Malformed, rule),
        RelayError::ClientSlow => (ClosedReason::BodyTimeout, "client_slow"),
        RelayError::ClientStalled => (ClosedReason::WriteTimeout, "client_stalled"),
        RelayError::BodyTooLarge => (ClosedReason::Answered, "body_too_large"),
        RelayError::UpstreamGone => (ClosedReason::Upstream, "upstream_gone"),
        RelayError::UpstreamMalformed(rule) => (ClosedReason::Upstream, rule),
        RelayError::UpstreamSlow => (ClosedReason::Upstream, "upstream_slow"),
        RelayError::UpstreamStalled => (ClosedReason::Upstream, "upstream_stalled"),
        RelayError::Ended(reason) => (ended(*reason), reason.label()),
    }
}
