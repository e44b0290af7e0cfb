//! One request, top to bottom, whatever protocol it came in: admission decides, then it is refused, logged in, or forwarded.
//! Every request takes this path, whatever its method or `Upgrade` (design rule 1). What becomes of the connection is said in
//! an [`Outcome`], which each protocol carries out in its own way.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};

use futures_util::FutureExt;

use super::buffer::Buffer;
use super::client::Client;
use super::ending;
use super::forward::{Failed, Forwarded, Forwarding};
use super::policy::Policy;
use super::reply;
use super::report::Report;
use super::respond::{OwnAnswer, Style};
use super::wire::Downstream;
use crate::admission::{Admitted, Caller, ClientSide, Rules, decide};
use crate::http1::head::Framing;
use crate::http1::request::Request;
use crate::identity::forwarded::{Scheme, is_trusted, public_origin};
use crate::keyring::Keyring;
use crate::metrics::{AuthOutcome, ClosedReason};
use crate::rejection::Rejection;
use crate::upstream::connect::Connection as UpstreamConnection;

/// What becomes of the client's connection, or stream, after a request.
pub(crate) enum Outcome {
    /// Request and answer are through: it may take another.
    Keep,
    /// The answer is out, but the request cannot be read to its end: it ends, politely.
    Close(ClosedReason),
    /// It ends where it stands: an answer was cut short, or cannot be given.
    Gone(ClosedReason),
    /// The 101 is queued: it becomes a tunnel.
    Tunnel(Box<Switched>),
}

/// What a tunnel begins with.
pub(crate) struct Switched {
    /// The upstream's connection.
    pub(crate) upstream: UpstreamConnection,
    /// What the upstream said already.
    pub(crate) early: Buffer,
    /// The right to it.
    pub(crate) admitted: Admitted,
    /// The keyring that gave it.
    pub(crate) keyring: Weak<Keyring>,
}

/// Handles one request; a panic on the way is this request's 500 and no more (design rule 10).
pub(crate) async fn run<C: Client>(
    client: &mut C,
    policy: &Arc<Policy>,
    request: Request<'_>,
    report: &mut Report<'_>,
) -> Outcome {
    let story = decide_and_forward(client, policy, request, report);
    if let Ok(outcome) = AssertUnwindSafe(story).catch_unwind().await {
        return outcome;
    }
    // The panic's own text is in the log already; the client is owed an answer if none has reached it.
    let unseen = client.sides().0.take_back();
    if report.status == 0 || unseen {
        let style = Style::of(request.fields(), false);
        report.refused(Rejection::Internal);
        report.bytes_out = 0;
        let own = OwnAnswer::refusal(&Rejection::Internal, report.request_id.as_str(), &style);
        reply::send(client, policy, request, &own, false, report).await;
        return Outcome::Close(ClosedReason::Fault);
    }
    report.closed = Some(ending::FAULT);
    Outcome::Gone(ClosedReason::Fault)
}

async fn decide_and_forward<C: Client>(
    client: &mut C,
    policy: &Arc<Policy>,
    request: Request<'_>,
    report: &mut Report<'_>,
) -> Outcome {
    report.read_head();
    let gate = client.worker().gate.clone();
    let peer_trusted = is_trusted(client.peer().address, &policy.trusted_proxies);
    let scheme = if client.peer().tls.is_some() { Scheme::Https } else { Scheme::Http };
    let origin = public_origin(request, scheme, peer_trusted);
    let side =
        ClientSide { address: report.client, scheme: origin.scheme.as_str(), host: origin.host.unwrap_or_default() };
    // What was decided by is let go of here: a stream that stays open for a day must not keep a day's keyrings in memory.
    let (decided, keyring) = {
        let (keyring, throttle, session) = (gate.keyring.load(), gate.throttle.load(), gate.session.load());
        let rules = Rules {
            router: &policy.router,
            sources: &policy.sources,
            default_limits: policy.default_limits,
            keyring: &keyring,
            limiter: &gate.limiter,
            throttle: throttle.as_deref(),
            session: session.as_deref(),
        };
        (decide(rules, request, side, report.began()), Arc::downgrade(&keyring))
    };
    let admitted = match decided {
        Ok(admitted) => admitted,
        Err(refused) => return reply::refuse(client, policy, request, *refused, report).await,
    };
    note_admitted(report, &admitted);
    client.admitted(admitted.principal().is_some());
    if let Some(login) = admitted.login() {
        return reply::log_in(client, policy, request, login, report).await;
    }
    if declared_too_large(policy, request) {
        return reply::refuse_admitted(client, policy, request, &admitted, Rejection::BodyTooLarge, report).await;
    }
    let has_body = !matches!(request.framing(), Framing::None | Framing::Length(0));
    if request.expects_continue() && has_body {
        client.sides().0.queue_interim(100, std::iter::empty());
        if !reply::flush(client, policy).await {
            return Outcome::Gone(ClosedReason::WriteTimeout);
        }
    }
    let own_fields = own_fields(&admitted, report);
    let forwarding = Forwarding {
        worker: &client.worker().clone(),
        policy,
        keyring: &keyring,
        admitted: &admitted,
        request,
        scheme,
        peer_trusted,
        keep: request.keep_alive() && !client.peer().listener.is_closing(),
        own_fields: &own_fields,
    };
    let (wire, watchdog) = client.sides();
    match forwarding.run(wire, watchdog, report).await {
        Ok(Forwarded::Done { close: true, .. }) => Outcome::Close(ClosedReason::Answered),
        Ok(Forwarded::Done { close: false, request_done }) => {
            if request_done && client.body_is_over() || client.drain().await {
                Outcome::Keep
            } else {
                Outcome::Close(ClosedReason::Answered)
            }
        }
        Ok(Forwarded::Tunnel { upstream, early }) => {
            let admitted = admitted.into_websocket();
            Outcome::Tunnel(Box::new(Switched { upstream, early, admitted, keyring }))
        }
        Err(Failed::Refused(rejection)) => {
            reply::refuse_admitted(client, policy, request, &admitted, rejection, report).await
        }
        Err(Failed::Broken(error)) => {
            let (reason, word) = ending::broken(&error);
            report.closed = Some(word);
            Outcome::Gone(reason)
        }
    }
}

fn note_admitted(report: &mut Report<'_>, admitted: &Admitted) {
    report.routed(admitted.route());
    report.auth = Some(match admitted.caller() {
        Caller::Key(_) => AuthOutcome::Ok,
        Caller::Anonymous => AuthOutcome::Anonymous,
        Caller::Preflight => AuthOutcome::Preflight,
    });
    if let Some(principal) = admitted.principal() {
        report.identified(principal.clone());
    }
}

fn own_fields(admitted: &Admitted, report: &Report<'_>) -> Vec<(&'static str, Vec<u8>)> {
    let mut fields = Vec::with_capacity(3);
    fields.push(("X-Request-Id", report.request_id.as_bytes().to_vec()));
    fields.extend(reply::limit_fields(admitted.permit().fields()));
    fields
}

fn declared_too_large(policy: &Policy, request: Request<'_>) -> bool {
    matches!((request.framing(), policy.request.max_body_bytes), (Framing::Length(length), Some(max)) if length > max)
}
