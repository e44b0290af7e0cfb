//! The one exit: what became of a request is gathered here while it happens, and leaves as metrics and one access line when
//! the report is dropped, whatever way the request took, a panic included.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::HeadBytes;
use super::ending;
use super::peer::Peer;
use super::policy::Policy;
use super::worker::Worker;
use crate::access_log::{Line, Protocol, RedactedTarget};
use crate::identity::forwarded::client_address;
use crate::identity::request_id::RequestId;
use crate::keyring::Principal;
use crate::metrics::{AuthOutcome, Direction, Held, KeyOutcome, Method};
use crate::moment::Now;
use crate::rejection::Rejection;
use crate::route::router::RouteId;
use crate::upstream::server::Server;

/// What became of one request.
pub(crate) struct Report<'h> {
    worker: Arc<Worker>,
    policy: Arc<Policy>,
    peer: Arc<Peer>,
    protocol: Protocol,
    began: Now,
    head: &'h HeadBytes,
    pub(crate) request_id: RequestId,
    pub(crate) client: Option<IpAddr>,
    pub(crate) status: u16,
    pub(crate) rejection: Option<Rejection>,
    pub(crate) auth: Option<AuthOutcome>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) closed: Option<&'static str>,
    pub(crate) server: Option<Arc<Server>>,
    principal: Option<Principal>,
    route: Option<RouteId>,
    in_flight: Option<Held>,
    upstream_since: Option<Instant>,
    upstream_took: Option<Duration>,
    /// How long the handshake took, once a tunnel follows; its metrics are written then.
    handshake_took: Option<Duration>,
}

impl<'h> Report<'h> {
    /// A report of the request with this head.
    pub(crate) fn begin(
        worker: &Arc<Worker>,
        policy: &Arc<Policy>,
        peer: &Arc<Peer>,
        protocol: Protocol,
        head: &'h HeadBytes,
    ) -> Self {
        let began = worker.gate.clock.now();
        let bytes_in = head.request().len() as u64;
        Self {
            worker: worker.clone(),
            policy: policy.clone(),
            peer: peer.clone(),
            protocol,
            began,
            head,
            request_id: RequestId::hex(worker.random()),
            client: peer.address,
            status: 0,
            rejection: None,
            auth: None,
            bytes_in,
            bytes_out: 0,
            closed: None,
            server: None,
            principal: None,
            route: None,
            in_flight: None,
            upstream_since: None,
            upstream_took: None,
            handshake_took: None,
        }
    }

    /// Takes from the head what names the request and its client.
    pub(crate) fn read_head(&mut self) {
        let request = self.head.request();
        if let Some(sent) = RequestId::sent(request) {
            self.request_id = sent;
        }
        self.client = client_address(self.peer.address, &self.policy.trusted_proxies, request);
    }

    /// When the request came.
    pub(crate) fn began(&self) -> Now {
        self.began
    }

    /// Notes the route, and that a request of it is in flight.
    pub(crate) fn routed(&mut self, route: RouteId) {
        self.route = Some(route);
        self.in_flight = Some(self.policy.route_metrics(Some(route)).in_flight());
    }

    /// Notes whose key it was.
    pub(crate) fn identified(&mut self, principal: Principal) {
        self.principal = Some(principal);
    }

    /// Notes that the upstream has the word.
    pub(crate) fn upstream_begins(&mut self, server: Arc<Server>, now: Instant) {
        self.server = Some(server);
        self.upstream_since.get_or_insert(now);
    }

    /// Notes that the upstream is done: its last byte has passed, or it failed.
    pub(crate) fn upstream_ends(&mut self, now: Instant) {
        if let (Some(since), None) = (self.upstream_since, self.upstream_took) {
            self.upstream_took = Some(now.saturating_duration_since(since));
        }
    }

    /// Notes that a tunnel follows: the request is over for the metrics, the access line waits for the tunnel's end.
    pub(crate) fn switched(&mut self, now: Instant) {
        self.upstream_ends(now);
        let took = now.saturating_duration_since(self.began.mono);
        self.handshake_took = Some(took);
        self.in_flight = None;
        self.write_metrics(took);
    }

    /// Notes a refusal.
    pub(crate) fn refused(&mut self, rejection: Rejection) {
        self.rejection = Some(rejection);
    }

    fn write_metrics(&self, took: Duration) {
        let metrics = &self.worker.gate.metrics;
        let method = Method::of(self.head.request().method());
        self.policy.route_metrics(self.route).finish(method, self.status, took);
        if let Some(auth) = self.auth {
            metrics.auth(auth);
        }
        match &self.rejection {
            Some(Rejection::TooManyRequests(limited, _)) => metrics.rate_limited(*limited),
            Some(Rejection::Malformed(reason)) => metrics.malformed(reason),
            Some(Rejection::AmbiguousPath) => metrics.malformed("ambiguous_path"),
            _ => {}
        }
        if let Some(principal) = &self.principal {
            let refused_by_us = self.rejection.as_ref().filter(|rejection| rejection.answer().status < 500);
            let outcome = refused_by_us.map_or(KeyOutcome::Admitted, KeyOutcome::of);
            metrics.key(principal.id(), principal.user()).count(outcome);
        }
        if let (Some(took), Some(route)) = (self.upstream_took, self.route)
            && let Some((_, plan)) = self.policy.plan(route)
        {
            plan.upstream_metrics.finish(took);
        }
    }

    fn write_line(&self, took: Duration) {
        let request = self.head.request();
        let upstream = self.upstream_took;
        self.worker.access_log.write(&Line {
            time: self.began.wall,
            request_id: self.request_id.as_str(),
            remote: self.client,
            method: request.method(),
            host: request.host(),
            target: Some(RedactedTarget::new(request.target(), &self.policy.credential_names)),
            protocol: self.protocol,
            tls: self.peer.tls,
            key_id: self.principal.as_ref().map(Principal::id),
            user: self.principal.as_ref().map(Principal::user),
            route: self.route.and_then(|id| self.policy.router.route(id)).map(|route| &*route.name),
            status: self.status,
            rejection: self.rejection.as_ref(),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            duration: took,
            upstream,
            gate: self.handshake_took.unwrap_or(took).saturating_sub(upstream.unwrap_or_default()),
            server: self.server.as_ref().map(|server| server.label()),
            closed: self.closed,
            user_agent: request.fields().first("user-agent"),
        });
    }
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        let now = self.worker.gate.clock.mono();
        let took = now.saturating_duration_since(self.began.mono);
        self.upstream_ends(now);
        if std::thread::panicking() {
            self.closed = Some(ending::FAULT);
        }
        if self.handshake_took.is_none() {
            self.write_metrics(took);
        }
        self.worker.gate.metrics.bytes(Direction::In, self.bytes_in);
        self.worker.gate.metrics.bytes(Direction::Out, self.bytes_out);
        self.write_line(took);
    }
}
