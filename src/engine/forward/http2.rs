//! Forwarding over HTTP/2, to upstreams that are set to it.

use std::sync::Arc;

use super::{Attempt, Forwarded, Forwarding, Unanswered, before_answer};
use crate::engine::connection::now;
use crate::engine::policy::RoutePlan;
use crate::engine::relay::{Answering, RelayError};
use crate::engine::report::Report;
use crate::engine::watchdog::Watchdog;
use crate::engine::wire::Downstream;
use crate::http2::answer::{H2Answer, OpenError};
use crate::identity::Protocol;
use crate::rejection::Rejection;
use crate::route::Route;
use crate::upstream::sessions::Place;

use super::Failed;

impl Forwarding<'_> {
    /// Sends the request over HTTP/2, and brings back the answer. Tried anew once, on a new connection, where the server
    /// said that it did nothing with the request, or where a used connection turned out dead (decision 23).
    pub(super) async fn run_http2<D: Downstream>(
        &self,
        route: &Arc<Route>,
        plan: &RoutePlan,
        down: &mut D,
        watchdog: &mut Watchdog,
        report: &mut Report<'_>,
    ) -> Result<Forwarded, Failed> {
        let (random, sessions) = (self.worker.random_word(), &self.worker.sessions);
        let placing = plan.upstream.place(sessions, random, now());
        let place = self.unless_over(route, down, report, placing).await?;
        match self.attempt_http2(route, plan, place, down, watchdog, report).await {
            Err(Attempt::Retry) => {}
            Ok(forwarded) => return Ok(forwarded),
            Err(Attempt::Failed(failed)) => return Err(failed),
        }
        let opened = sessions.opened();
        let placing = plan.upstream.place_on_new(sessions, random, opened, now());
        let place = self.unless_over(route, down, report, placing).await?;
        match self.attempt_http2(route, plan, place, down, watchdog, report).await {
            Err(Attempt::Retry) => Err(Failed::Refused(Rejection::BadGateway("upstream_refused_stream"))),
            Ok(forwarded) => Ok(forwarded),
            Err(Attempt::Failed(failed)) => Err(failed),
        }
    }

    async fn attempt_http2<D: Downstream>(
        &self,
        route: &Arc<Route>,
        plan: &RoutePlan,
        mut place: Place,
        down: &mut D,
        watchdog: &mut Watchdog,
        report: &mut Report<'_>,
    ) -> Result<Forwarded, Attempt> {
        let server = place.server().clone();
        let host = self.host(plan, &server);
        report.upstream_begins(server.clone(), now());
        let mut head = Vec::with_capacity(1024);
        let forward = self.upstream_head(route, host, Protocol::Http2, report);
        self.policy.identity.write_request_head(&mut head, self.request, &forward);
        let secure = plan.upstream.settings().tls.is_some();
        let mut up = H2Answer::open(&mut place.send, &head, secure).map_err(|error| match error {
            OpenError::Refused => Attempt::Retry,
            OpenError::Unspeakable => Attempt::Failed(Failed::Refused(Rejection::Malformed("not_to_be_said_in_http2"))),
        })?;
        match self.exchange(route, plan, &mut up, down, watchdog, report).await {
            Ok(relayed) => Ok(Forwarded::Done { request_done: relayed.request_done, close: relayed.close }),
            Err(Unanswered::Within(error)) => Err(Attempt::Failed(Failed::Broken(error))),
            Err(Unanswered::Before(error)) => {
                // Whether the connection is dead or only this answer slow cannot be told: the next request opens another.
                if matches!(error, RelayError::UpstreamSlow | RelayError::UpstreamStalled | RelayError::UpstreamGone) {
                    self.worker.sessions.discard(&place);
                }
                let dead = matches!(error, RelayError::UpstreamGone) && place.is_reused() && !up.has_answered();
                let untouched = up.was_refused() && self.is_bodiless();
                Err(if untouched || (dead && self.is_replayable()) {
                    Attempt::Retry
                } else {
                    Attempt::Failed(before_answer(error))
                })
            }
        }
    }
}
