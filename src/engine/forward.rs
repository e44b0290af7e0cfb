//! Forwarding: an admitted request goes to a server of its route's upstream, and the answer comes back. Takes an `Admitted`,
//! so that nothing else can be forwarded (design rule 1).

mod connecting;
mod fault;
mod http2;

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::answer_h1::H1Answer;
use super::buffer::Buffer;
use super::connection::now;
use super::key_watch::KeyWatch;
use super::policy::{Policy, RoutePlan};
use super::relay::{Answering, EndReason, Relay, RelayError, Revocation, Timing, TrailerFilters};
use super::report::Report;
use super::respond::is_grpc;
use super::watchdog::Watchdog;
use super::wire::{ConnectionField, Downstream, ResponseLine};
use super::wire_h1::H1Wire;
use super::worker::Worker;
use crate::admission::{Admitted, Caller};
use crate::http1::body::Sender;
use crate::http1::head::{Field, Framing, Version};
use crate::http1::request::Request;
use crate::http1::response::{Asked, Response, ResponseHead};
use crate::identity::forwarded::Scheme;
use crate::identity::response::{Nominations, keeps_response_field, keeps_trailer};
use crate::identity::{self, Forward, Protocol, Who};
use crate::keyring::Keyring;
use crate::rejection::{AuthFailure, Rejection};
use crate::route::Route;
use crate::upstream::HostPolicy;
use crate::upstream::connect::Connection as UpstreamConnection;
use crate::upstream::server::Server;

/// Most interim responses passed on before a final one must come.
const MOST_INTERIM: usize = 16;

/// How forwarding ended, when it ended well.
pub(crate) enum Forwarded {
    /// The answer went out whole; whether the request was read whole, and whether the client was told to go.
    Done { request_done: bool, close: bool },
    /// The upstream switched to a tunnel: its connection, and what it said already. The 101 is queued to the client.
    Tunnel { upstream: UpstreamConnection, early: Buffer },
}

/// How it ended otherwise.
pub(crate) enum Failed {
    /// Nothing of an answer went out: the client is refused.
    Refused(Rejection),
    /// An answer had begun, or the client is gone: the connection can only end.
    Broken(RelayError),
}

/// Why one attempt brought no answer.
enum Attempt {
    Retry,
    Failed(Failed),
}

/// Where an exchange broke off.
enum Unanswered {
    /// Before the final answer's head.
    Before(RelayError),
    /// After it.
    Within(RelayError),
}

/// An exchange that is through.
struct Relayed {
    /// The request was read and handed on whole.
    request_done: bool,
    /// The client was told that its connection ends.
    close: bool,
    /// The upstream said that its connection ends.
    closes: bool,
    /// The upstream switched protocols.
    switched: bool,
}

/// One admitted request and what forwarding it needs.
#[derive(Clone, Copy)]
pub(crate) struct Forwarding<'a> {
    pub(crate) worker: &'a Arc<Worker>,
    pub(crate) policy: &'a Policy,
    /// The keyring that admitted it; not kept alive.
    pub(crate) keyring: &'a Weak<Keyring>,
    pub(crate) admitted: &'a Admitted,
    pub(crate) request: Request<'a>,
    pub(crate) scheme: Scheme,
    pub(crate) peer_trusted: bool,
    /// Whether the client's connection may be kept after this request.
    pub(crate) keep: bool,
    /// Fields of the gate's own on the answer.
    pub(crate) own_fields: &'a [(&'static str, Vec<u8>)],
}

impl Forwarding<'_> {
    /// Sends the request, and brings back the answer.
    pub(crate) async fn run<D: Downstream>(
        &self,
        down: &mut D,
        watchdog: &mut Watchdog,
        report: &mut Report<'_>,
    ) -> Result<Forwarded, Failed> {
        let (route, plan) = self.policy.plan(self.admitted.route()).ok_or(Failed::Refused(Rejection::Internal))?;
        route.forward_path(self.request.path()).map_err(Failed::Refused)?;
        if plan.upstream.settings().http2 {
            return Box::pin(self.run_http2(route, plan, down, watchdog, report)).await;
        }
        let random = self.worker.random_word();
        let connecting = plan.upstream.connect(&self.worker.pool, random, now());
        let mut connection = self.unless_over(route, down, report, connecting).await?;
        loop {
            match self.attempt(route, plan, connection, down, watchdog, report).await {
                Ok(forwarded) => return Ok(forwarded),
                Err(Attempt::Failed(failed)) => return Err(failed),
                Err(Attempt::Retry) => {
                    let connecting = plan.upstream.connect_new(random);
                    connection = self.unless_over(route, down, report, connecting).await?;
                }
            }
        }
    }

    async fn attempt<D: Downstream>(
        &self,
        route: &Arc<Route>,
        plan: &RoutePlan,
        mut connection: UpstreamConnection,
        down: &mut D,
        watchdog: &mut Watchdog,
        report: &mut Report<'_>,
    ) -> Result<Forwarded, Attempt> {
        let reused = connection.is_reused();
        let server = connection.server().clone();
        let host = self.host(plan, &server);
        report.upstream_begins(server.clone(), now());
        let mut up = H1Answer::new(H1Wire::new(&mut connection.stream, Buffer::default(), Sender::Upstream));
        let protocol = if self.request.is_websocket() { Protocol::WebSocket } else { Protocol::Http1 };
        let head = self.upstream_head(route, host, protocol, report);
        self.policy.identity.write_request_head(up.wire.begin_message(head.framing), self.request, &head);
        let relayed = match self.exchange(route, plan, &mut up, down, watchdog, report).await {
            Ok(relayed) => relayed,
            Err(Unanswered::Within(error)) => return Err(Attempt::Failed(Failed::Broken(error))),
            Err(Unanswered::Before(error)) => {
                let silent = matches!(error, RelayError::UpstreamGone) && !up.has_answered();
                return Err(match silent.then(|| fault::tls(plan, &mut connection)).flatten() {
                    _ if silent && reused && self.is_replayable() => Attempt::Retry,
                    Some(rejection) => Attempt::Failed(Failed::Refused(rejection)),
                    None => Attempt::Failed(before_answer(error)),
                });
            }
        };
        if relayed.switched {
            let early = std::mem::take(&mut up.wire.input);
            return Ok(Forwarded::Tunnel { upstream: connection, early });
        }
        let Relayed { request_done, close, closes, .. } = relayed;
        if request_done && !closes && up.wire.body_is_over() {
            let in_step = up.wire.input.bytes().is_empty();
            self.worker.pool.give_back(&plan.upstream, connection, in_step, now());
        }
        Ok(Forwarded::Done { request_done, close })
    }

    /// Relays one request, of which the head is queued to `up`, and its answer.
    async fn exchange<D: Downstream, U: Answering>(
        &self,
        route: &Arc<Route>,
        plan: &RoutePlan,
        up: &mut U,
        down: &mut D,
        watchdog: &mut Watchdog,
        report: &mut Report<'_>,
    ) -> Result<Relayed, Unanswered> {
        let gate = &self.worker.gate;
        let watch = KeyWatch::new(gate, self.keyring, self.request, self.admitted, report.client, route);
        let keeps = |name: &[u8]| self.policy.identity.keeps_trailer(name, &route.set_headers);
        let trailers = TrailerFilters { request: &keeps, response: &keeps_trailer };
        let mut relay = Relay::new(down, up, watch, self.timing(plan), trailers, watchdog, now());
        if matches!(self.admitted.caller(), Caller::Preflight) {
            relay = relay.without_body();
        }
        let mut answer = ResponseHead::default();
        let awaited = self.await_answer(&mut relay, &mut answer, plan.upstream.settings().http2).await;
        if let Err(error) = awaited {
            report.bytes_in += relay.request().bytes;
            return Err(Unanswered::Before(error));
        }
        let view = answer.view(relay.up.head_bytes());
        let line = self.response_line(view);
        let head_bytes = self.queue_answer(relay.down, line, view);
        report.status = view.status();
        report.bytes_out += head_bytes;
        let (switched, closes, events) = (view.status() == 101, view.closes(), is_event_stream(view));
        let close = line.connection == ConnectionField::Close;
        relay.up.take_head(&answer);
        if events {
            relay.set_upstream_idle(plan.upstream.settings().websocket_idle_timeout);
        }
        if switched {
            return Ok(Relayed { request_done: true, close, closes, switched });
        }
        let finished = relay.finish().await;
        report.upstream_ends(now());
        let request_done = relay.request().done;
        report.bytes_in += relay.request().bytes;
        report.bytes_out += relay.response().bytes;
        if let Err(error) = finished {
            // An answer that broke before the client saw any of it never began.
            if !relay.down.take_back() {
                return Err(Unanswered::Within(error));
            }
            report.status = 0;
            report.bytes_out -= head_bytes + relay.response().bytes;
            return Err(Unanswered::Before(error));
        }
        Ok(Relayed { request_done, close, closes, switched })
    }

    /// Waits for the final answer's head and passes interim ones on.
    async fn await_answer<D: Downstream, U: Answering, R: Revocation>(
        &self,
        relay: &mut Relay<'_, D, U, R>,
        answer: &mut ResponseHead,
        http2: bool,
    ) -> Result<(), RelayError> {
        let websocket = self.request.is_websocket() && !http2;
        let asked = Asked { head: self.request.method() == b"HEAD", websocket };
        for _ in 0..MOST_INTERIM {
            relay.next_head(asked, answer).await?;
            let view = answer.view(relay.up.head_bytes());
            // A tunnel behind an unfinished request would lose the rest of it, or pass it on as frames.
            if view.status() == 101 && !relay.request().done {
                return Err(RelayError::UpstreamMalformed("early_101"));
            }
            if view.status() == 101 || view.status() >= 200 {
                return Ok(());
            }
            // The gate answers `Expect` itself, and HTTP/1.0 knows no interim responses (RFC 9110 section 15.2).
            if view.status() != 100 && self.request.version() == Version::Http11 {
                let nominations = Nominations::of(view.fields());
                let kept = view.fields().iter().filter(|field| keeps_response_field(field.name, &nominations));
                relay.down.queue_interim(view.status(), kept);
                relay.flush_interim().await?;
            }
            relay.up.take_head(answer);
        }
        Err(RelayError::UpstreamMalformed("too_many_interim"))
    }

    fn upstream_head<'h>(
        &'h self,
        route: &'h Route,
        host: &'h [u8],
        protocol: Protocol,
        report: &'h Report<'_>,
    ) -> Forward<'h> {
        let preflight = matches!(self.admitted.caller(), Caller::Preflight);
        let who = match self.admitted.caller() {
            Caller::Preflight => Who::Preflight,
            Caller::Anonymous => Who::Anonymous,
            Caller::Key(principal) => Who::Caller(identity::Caller {
                user: principal.user(),
                key_id: principal.id().as_str(),
                roles: principal.roles_joined(),
                scopes: principal.scopes_joined(),
            }),
        };
        Forward {
            who,
            untouched: self.admitted.untouched(),
            client_address: report.client,
            peer_trusted: self.peer_trusted,
            scheme: self.scheme,
            host,
            request_id: &report.request_id,
            framing: if preflight { Framing::None } else { self.request.framing() },
            protocol,
            strip_prefix: &route.strip_prefix,
            methods_listed: route.methods.is_some(),
            set_headers: &route.set_headers,
        }
    }

    fn host<'h>(&'h self, plan: &'h RoutePlan, server: &'h Server) -> &'h [u8] {
        let server = server.authority().as_bytes();
        match &plan.upstream.settings().host {
            HostPolicy::Keep => self.request.host().unwrap_or(server),
            HostPolicy::Upstream => server,
            HostPolicy::Literal(host) => host.as_bytes(),
        }
    }

    fn timing(&self, plan: &RoutePlan) -> Timing {
        let (client, upstream) = (&self.policy.request, plan.upstream.settings());
        let grpc = self.request.fields().first("content-type").is_some_and(is_grpc);
        let stream_of_a_key =
            !matches!(self.request.framing(), Framing::Length(_)) && self.admitted.principal().is_some();
        let long = |usual: Duration| if grpc { upstream.websocket_idle_timeout } else { usual };
        Timing {
            body_idle: long(client.body_idle_timeout),
            body_min_rate: (!grpc && !stream_of_a_key).then_some(client.body_min_rate),
            client_write: client.write_timeout,
            upstream_write: upstream.write_timeout,
            response: upstream.response_timeout,
            upstream_idle: long(upstream.idle_timeout),
            max_body: client.max_body_bytes,
        }
    }

    /// How the answer is framed for the client (RFC 9112 section 6.3).
    fn response_line<'r>(&self, response: Response<'r>) -> ResponseLine<'r> {
        let old = self.request.version() == Version::Http10;
        let framing = match response.framing() {
            Framing::Chunked | Framing::UntilClose if old => Framing::UntilClose,
            Framing::Chunked | Framing::UntilClose => Framing::Chunked,
            plain => plain,
        };
        let bodiless = framing == Framing::None && (self.request.method() == b"HEAD" || response.status() == 304);
        let described = response.fields().first("content-length").filter(|_| bodiless);
        let described_length = described.and_then(|length| std::str::from_utf8(length).ok()?.parse().ok());
        let connection = if response.status() == 101 {
            ConnectionField::Upgrade
        } else if !self.keep || framing == Framing::UntilClose {
            ConnectionField::Close
        } else if old {
            ConnectionField::KeepAlive
        } else {
            ConnectionField::Absent
        };
        ResponseLine { status: response.status(), reason: response.reason(), framing, described_length, connection }
    }

    fn queue_answer<D: Downstream>(&self, down: &mut D, line: ResponseLine<'_>, response: Response<'_>) -> u64 {
        let nominations = Nominations::of(response.fields());
        let own = |name: &[u8]| self.own_fields.iter().any(|(own, _)| name.eq_ignore_ascii_case(own.as_bytes()));
        let kept = response.fields().iter();
        let kept = kept.filter(|field| keeps_response_field(field.name, &nominations) && !own(field.name));
        let own_fields = self.own_fields.iter().map(|(name, value)| Field { name: name.as_bytes(), value });
        down.queue_response(line, kept.chain(own_fields))
    }

    /// Whether sending the request again can do no harm and is possible (RFC 9110 section 9.2.2, decision 23).
    fn is_replayable(&self) -> bool {
        let idempotent = matches!(self.request.method(), b"GET" | b"HEAD" | b"OPTIONS" | b"PUT" | b"DELETE");
        idempotent && self.is_bodiless()
    }

    /// Whether sending it again is possible: there is no body that is used up by then.
    fn is_bodiless(&self) -> bool {
        matches!(self.request.framing(), Framing::None | Framing::Length(0))
    }
}

fn is_event_stream(response: Response<'_>) -> bool {
    let event_stream = b"text/event-stream";
    let is =
        |value: &[u8]| value.get(..event_stream.len()).is_some_and(|start| start.eq_ignore_ascii_case(event_stream));
    response.fields().first("content-type").is_some_and(is)
}

/// What the client is told when no answer has begun.
fn before_answer(error: RelayError) -> Failed {
    match error {
        // A key that ended while the upstream was at work is a bad key now, and a client that reads so does not retry.
        RelayError::Ended(EndReason::KeyRevoked) => Failed::Refused(Rejection::Unauthorized(AuthFailure::Disabled)),
        RelayError::Ended(EndReason::KeyExpired) => Failed::Refused(Rejection::Unauthorized(AuthFailure::Expired)),
        RelayError::ClientGone | RelayError::ClientStalled | RelayError::Ended(_) => Failed::Broken(error),
        RelayError::ClientMalformed(rule) => Failed::Refused(Rejection::Malformed(rule)),
        RelayError::ClientSlow => Failed::Refused(Rejection::BodyTimeout),
        RelayError::BodyTooLarge => Failed::Refused(Rejection::BodyTooLarge),
        RelayError::UpstreamGone => Failed::Refused(Rejection::BadGateway("upstream_closed")),
        RelayError::UpstreamMalformed(rule) => Failed::Refused(Rejection::BadGateway(rule)),
        RelayError::UpstreamSlow => Failed::Refused(Rejection::GatewayTimeout("upstream_response")),
        RelayError::UpstreamStalled => Failed::Refused(Rejection::GatewayTimeout("upstream_write")),
    }
}
