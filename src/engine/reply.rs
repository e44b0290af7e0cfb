//! Sends the gate's own answers: refusals and logins. `respond` says what they are; here they go out, and it is decided
//! whether the client's connection survives them (decision 6).

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::client::Client;
use super::connection::{DRAIN_BYTES, now};
use super::ending;
use super::exchange::Outcome;
use super::peer::Peer;
use super::policy::Policy;
use super::relay::EndReason;
use super::report::Report;
use super::respond::{OwnAnswer, Style};
use super::wire::{ConnectionField, Downstream, ResponseLine, Wire};
use crate::access_log::{Line, Protocol};
use crate::admission::{Admitted, BrowserLogin, Refused};
use crate::credential::challenge::is_navigation;
use crate::http1::head::{Framing, Version};
use crate::http1::request::Request;
use crate::identity::forwarded::{Scheme, is_trusted, public_origin};
use crate::identity::request_id::RequestId;
use crate::limit::fields::Fields;
use crate::metrics::{AuthOutcome, ClosedReason, Direction, Method};
use crate::rejection::{AuthFailure, Rejection, phrase};
use crate::route::Route;
use crate::session;

/// Answers a head that could not be read, with metrics and an access line of its own: nothing of what was not read is in
/// them, nor how long it took to come.
pub(crate) async fn refuse_unread<C: Client>(client: &mut C, protocol: Protocol, rejection: &Rejection) {
    let worker = client.worker().clone();
    let (policy, metrics) = (worker.gate.policy.load_full(), &worker.gate.metrics);
    // What came too slowly may have been well-formed: it is counted by its status and its connection's end.
    if *rejection != Rejection::HeadTimeout {
        metrics.malformed(rejection.label());
    }
    let time = worker.gate.clock.now().wall;
    let id = RequestId::hex(worker.random());
    let own = OwnAnswer::refusal(rejection, id.as_str(), &Style::default());
    let bytes_out = queue_own(client.sides().0, &own, &own.body, ConnectionField::Close) + own.body.len() as u64;
    let _ = write_body(client, &policy, &own.body).await;
    policy.unrouted.finish(Method::Other, own.status, Duration::ZERO);
    metrics.bytes(Direction::Out, bytes_out);
    let Peer { address: remote, tls, .. } = *client.peer();
    worker.access_log.write(&Line {
        remote,
        tls,
        status: own.status,
        rejection: Some(rejection),
        bytes_out,
        ..Line::unread(time, id.as_str(), protocol)
    });
}

/// Refuses what admission refused.
pub(crate) async fn refuse<C: Client>(
    client: &mut C,
    policy: &Policy,
    request: Request<'_>,
    refused: Refused,
    report: &mut Report<'_>,
) -> Outcome {
    let Refused { rejection, failure, route, principal, limits, allow, clear_cookie: cookie } = refused;
    if let Some(route) = route {
        report.routed(route);
    }
    report.auth = failure.map(AuthOutcome::from).or(principal.as_ref().map(|_| AuthOutcome::Ok));
    if let Some(principal) = principal {
        report.identified(principal);
    }
    let route = route.and_then(|id| policy.router.route(id));
    let style = Style::of(request.fields(), route.is_some_and(|route| route.cors_preflight));
    let mut own = OwnAnswer::refusal(&rejection, report.request_id.as_str(), &style);
    push_challenges(&mut own, &rejection, policy, route, request);
    if let Some(limits) = limits {
        for (name, value) in limit_fields(&limits) {
            own.push(name, &value);
        }
    }
    if let Some(allow) = allow {
        own.push("Allow", allow.as_bytes());
    }
    if let Some(name) = &cookie {
        clear_cookie(client, policy, request, name, &mut own);
    }
    answer_own(client, policy, request, &rejection, &own, report).await
}

/// Whether the client speaks TLS: with the gate, or with a trusted proxy before it. Then its cookies are `Secure`.
fn speaks_tls<C: Client>(client: &C, policy: &Policy, request: Request<'_>) -> bool {
    let peer = client.peer();
    let ours = if peer.tls.is_some() { Scheme::Https } else { Scheme::Http };
    public_origin(request, ours, is_trusted(peer.address, &policy.trusted_proxies)).scheme == Scheme::Https
}

/// Refuses a request that was admitted.
pub(crate) async fn refuse_admitted<C: Client>(
    client: &mut C,
    policy: &Policy,
    request: Request<'_>,
    admitted: &Admitted,
    rejection: Rejection,
    report: &mut Report<'_>,
) -> Outcome {
    let route = policy.router.route(admitted.route());
    let style = Style::of(request.fields(), route.is_some_and(|route| route.cors_preflight));
    let mut own = OwnAnswer::refusal(&rejection, report.request_id.as_str(), &style);
    push_challenges(&mut own, &rejection, policy, route, request);
    for (name, value) in limit_fields(admitted.permit().fields()) {
        own.push(name, &value);
    }
    if let Rejection::Unauthorized(failure) = rejection {
        return end_with_key(client, policy, request, admitted, failure, own, report).await;
    }
    answer_own(client, policy, request, &rejection, &own, report).await
}

/// Ends a request whose key ended before its answer began: the 401 of a bad key, and the connection goes (design rule 8).
async fn end_with_key<C: Client>(
    client: &mut C,
    policy: &Policy,
    request: Request<'_>,
    admitted: &Admitted,
    failure: AuthFailure,
    mut own: OwnAnswer,
    report: &mut Report<'_>,
) -> Outcome {
    let ended = if failure == AuthFailure::Expired { EndReason::KeyExpired } else { EndReason::KeyRevoked };
    report.refused(Rejection::Unauthorized(failure));
    report.closed = Some(ended.label());
    if let Some(name) = admitted.cookie() {
        clear_cookie(client, policy, request, name, &mut own);
    }
    if send(client, policy, request, &own, false, report).await {
        Outcome::Close(ending::ended(ended))
    } else {
        Outcome::Gone(ending::ended(ended))
    }
}

fn clear_cookie<C: Client>(client: &C, policy: &Policy, request: Request<'_>, name: &str, own: &mut OwnAnswer) {
    let mut value = Vec::new();
    session::write_cleared_cookie(&mut value, name, speaks_tls(client, policy, request));
    own.push("Set-Cookie", &value);
}

/// What a 401 must name (RFC 9110 section 15.5.2): the ways in which the route takes a key.
fn push_challenges(
    own: &mut OwnAnswer,
    rejection: &Rejection,
    policy: &Policy,
    route: Option<&Arc<Route>>,
    request: Request<'_>,
) {
    if matches!(rejection, Rejection::Unauthorized(_)) {
        let accepted = route.and_then(|route| route.credentials.as_deref());
        for challenge in policy.challenges.values(accepted, is_navigation(request)) {
            own.push("WWW-Authenticate", challenge);
        }
    }
}

/// Sends a refusal, and decides whether the connection survives it (decision 6).
async fn answer_own<C: Client>(
    client: &mut C,
    policy: &Policy,
    request: Request<'_>,
    rejection: &Rejection,
    own: &OwnAnswer,
    report: &mut Report<'_>,
) -> Outcome {
    report.refused(rejection.clone());
    // A client that waits for a 100 may send its body or not; after one that broke a rule nobody knows where the next
    // request begins.
    let may_keep = request.keep_alive()
        && !client.peer().listener.is_closing()
        && (!request.expects_continue() || client.body_is_over())
        && !matches!(rejection, Rejection::Malformed(_) | Rejection::BodyTimeout);
    let keep = may_keep
        && match request.framing() {
            Framing::None => true,
            Framing::Length(length) => length <= DRAIN_BYTES || client.body_is_over(),
            // How much there is shows in reading it, and the answer must say what becomes of the connection.
            Framing::Chunked => client.drain().await,
            Framing::UntilClose => false,
        };
    if !send(client, policy, request, own, keep, report).await {
        return Outcome::Gone(ClosedReason::WriteTimeout);
    }
    if keep && client.drain().await { Outcome::Keep } else { Outcome::Close(ending::closed_by(rejection)) }
}

/// A page opened by a link with its key: a cookie and the clean link (decision 7).
pub(crate) async fn log_in<C: Client>(
    client: &mut C,
    policy: &Policy,
    request: Request<'_>,
    login: &BrowserLogin,
    report: &mut Report<'_>,
) -> Outcome {
    let mut cookie = Vec::new();
    session::write_cookie(&mut cookie, &login.cookie, &login.token, speaks_tls(client, policy, request));
    let mut own = OwnAnswer::new(303);
    own.push("Location", &login.location);
    own.push("Set-Cookie", &cookie);
    own.push("Cache-Control", b"no-store");
    own.push("Referrer-Policy", b"no-referrer");
    own.push("X-Request-Id", report.request_id.as_bytes());
    let keep = request.keep_alive() && matches!(request.framing(), Framing::None);
    if !send(client, policy, request, &own, keep, report).await {
        return Outcome::Gone(ClosedReason::WriteTimeout);
    }
    if keep { Outcome::Keep } else { Outcome::Close(ClosedReason::Answered) }
}

/// Writes an answer of the gate's own; says whether it went out.
pub(crate) async fn send<C: Client>(
    client: &mut C,
    policy: &Policy,
    request: Request<'_>,
    own: &OwnAnswer,
    keep: bool,
    report: &mut Report<'_>,
) -> bool {
    let field = match (keep, request.version()) {
        (false, _) => ConnectionField::Close,
        (true, Version::Http10) => ConnectionField::KeepAlive,
        (true, Version::Http11) => ConnectionField::Absent,
    };
    let body: &[u8] = if request.method() == b"HEAD" { &[] } else { &own.body };
    report.bytes_out += queue_own(client.sides().0, own, body, field) + body.len() as u64;
    report.status = own.status;
    write_body(client, policy, body).await
}

/// Queues the head of an answer of the gate's own and gives its length; `body` is what of its body goes out: all, or nothing
/// to HEAD.
pub(crate) fn queue_own(wire: &mut impl Downstream, own: &OwnAnswer, body: &[u8], connection: ConnectionField) -> u64 {
    let length = own.body.len() as u64;
    let line = ResponseLine {
        status: own.status,
        reason: phrase(own.status).as_bytes(),
        framing: if body.is_empty() && length > 0 { Framing::None } else { Framing::Length(length) },
        described_length: (body.is_empty() && length > 0).then_some(length),
        connection,
    };
    wire.queue_response(line, own.fields())
}

/// Writes a body and ends the answer, within the write timeout; says whether it went out.
pub(crate) async fn write_body<C: Client>(client: &mut C, policy: &Policy, mut body: &[u8]) -> bool {
    let deadline = now() + policy.request.write_timeout;
    let (wire, watchdog) = client.sides();
    if wire.send_own(body) {
        return true;
    }
    poll_fn(|cx| {
        while !body.is_empty() {
            match wire.poll_send(body, cx) {
                Poll::Ready(Ok(sent)) => body = body.get(sent..).unwrap_or_default(),
                Poll::Ready(Err(_)) => return Poll::Ready(false),
                Poll::Pending => return watchdog.poll_expired(deadline, cx).map(|()| false),
            }
        }
        match wire.poll_finish(&[], cx) {
            Poll::Ready(finished) => Poll::Ready(finished.is_ok()),
            Poll::Pending => watchdog.poll_expired(deadline, cx).map(|()| false),
        }
    })
    .await
}

/// Sends what is queued, within the write timeout; says whether it went out.
pub(crate) async fn flush<C: Client>(client: &mut C, policy: &Policy) -> bool {
    let deadline = now() + policy.request.write_timeout;
    let (wire, watchdog) = client.sides();
    poll_fn(|cx| match wire.poll_flush(cx) {
        Poll::Ready(flushed) => Poll::Ready(flushed.is_ok()),
        Poll::Pending => watchdog.poll_expired(deadline, cx).map(|()| false),
    })
    .await
}

/// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers), where there is a limit to tell of.
pub(crate) fn limit_fields(limits: &Fields) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    // Room for one limit; without any, none is taken.
    let room = if limits.is_empty() { 0 } else { 64 };
    let (mut policy, mut state) = (Vec::with_capacity(room), Vec::with_capacity(room));
    limits.write_policy(&mut policy);
    limits.write_state(&mut state);
    [("RateLimit-Policy", policy), ("RateLimit", state)].into_iter().filter(|(_, value)| !value.is_empty())
}
