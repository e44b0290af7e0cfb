//! The counters of one key, behind one small lock that is held for a few additions and never while anything waits.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::activity::Activity;
use super::bucket::Bucket;
use super::fields::{Fields, Standing};
use super::limiter::Refusal;
use super::permit::{Hold, Permit};
use super::quota::{QuotaCount, QuotaCounts, Usage};
use super::table::unpoisoned;
use super::{Limits, Rate};
use crate::moment::Now;
use crate::rejection::Limited;

/// What is said to wait when only the end of another request makes room.
const AT_ONCE_WAIT: Duration = Duration::from_secs(1);

/// Everything counted for one key.
#[derive(Debug, Default)]
pub(super) struct KeyState {
    counters: Mutex<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    rate: Option<Bucket>,
    /// By route name; as many as there are routes with limits.
    routes: Vec<(Arc<str>, Bucket)>,
    quota: Usage,
    /// What is yet to be taken.
    activity: Activity,
    concurrent: u32,
    websockets: u32,
}

impl KeyState {
    /// Decides on one request; see [`super::limiter::Limiter::admit`].
    pub(super) fn admit(
        self: &Arc<Self>,
        limits: &Limits,
        route: Option<(&Arc<str>, Rate)>,
        websocket: bool,
        now: Now,
    ) -> Result<Permit, Refusal> {
        let mut counters = unpoisoned(&self.counters);
        counters.settle(limits, route, now.mono);
        if let Some((limited, wait)) = counters.refuses(limits, route, websocket, now) {
            let fields = Fields { at_once: at_once(limits, limited), ..counters.fields(limits, route, now) };
            return Err(Refusal { limited, wait, fields });
        }
        counters.spend(limits, route, websocket, now);
        let hold = if websocket { Hold::Handshake } else { Hold::Request };
        Ok(Permit::new(Arc::clone(self), hold, counters.fields(limits, route, now)))
    }

    /// A request is over, or has become a WebSocket.
    pub(super) fn end_request(&self) {
        let mut counters = unpoisoned(&self.counters);
        counters.concurrent = counters.concurrent.saturating_sub(1);
    }

    /// A WebSocket opened that no handshake had announced.
    pub(super) fn begin_websocket(&self) {
        let mut counters = unpoisoned(&self.counters);
        counters.websockets = counters.websockets.saturating_add(1);
    }

    /// A WebSocket is over, or its handshake failed.
    pub(super) fn end_websocket(&self) {
        let mut counters = unpoisoned(&self.counters);
        counters.websockets = counters.websockets.saturating_sub(1);
    }

    pub(super) fn quota_counts(&self) -> QuotaCounts {
        unpoisoned(&self.counters).quota.counts()
    }

    /// What was done since the last call, and the quota counts with it; `None` if nothing was.
    pub(super) fn take_activity(&self) -> Option<(Activity, QuotaCounts)> {
        let mut counters = unpoisoned(&self.counters);
        let activity = counters.activity.take()?;
        Some((activity, counters.quota.counts()))
    }

    pub(super) fn has_activity(&self) -> bool {
        unpoisoned(&self.counters).activity.requests > 0
    }

    pub(super) fn resume_quota(&self, count: QuotaCount) {
        unpoisoned(&self.counters).quota.resume(count);
    }

    pub(super) fn restore_quota(&self, count: QuotaCount) {
        unpoisoned(&self.counters).quota.restore(count);
    }

    #[cfg(test)]
    pub(super) fn poison(self: &Arc<Self>) -> bool {
        let state = Arc::clone(self);
        let panicked = std::thread::spawn(move || {
            let _held = state.counters.lock();
            panic!("on purpose");
        });
        panicked.join().is_err() && self.counters.is_poisoned()
    }

    /// Whether a new state would say the same, once nothing is in flight.
    pub(super) fn is_at_rest(&self, now: Now) -> bool {
        let counters = unpoisoned(&self.counters);
        let buckets = counters.rate.iter().chain(counters.routes.iter().map(|(_, bucket)| bucket));
        counters.quota.is_over(now.wall) && buckets.into_iter().all(|bucket| bucket.time_to_full(now.mono).is_zero())
    }
}

impl Counters {
    /// Brings the buckets that apply up to date. Those that do not apply now are kept: were their limit taken away and
    /// given back, they would go on where they were.
    fn settle(&mut self, limits: &Limits, route: Option<(&Arc<str>, Rate)>, now: Instant) {
        if let Some(rate) = limits.rate {
            self.rate.get_or_insert_with(|| Bucket::full(rate, now)).settle(rate, now);
        }
        if let Some((name, rate)) = route {
            match self.routes.iter_mut().find(|(own, _)| own == name) {
                Some((_, bucket)) => bucket.settle(rate, now),
                None => self.routes.push((Arc::clone(name), Bucket::full(rate, now))),
            }
        }
    }

    /// The bound that refuses the request, if one does; of several, the one that takes longest.
    fn refuses(
        &mut self,
        limits: &Limits,
        route: Option<(&Arc<str>, Rate)>,
        websocket: bool,
        now: Now,
    ) -> Option<(Limited, Duration)> {
        let concurrent = limits.concurrent.filter(|most| self.concurrent >= most.get()).map(|_| AT_ONCE_WAIT);
        let websockets = limits.websockets.filter(|most| websocket && self.websockets >= most.get());
        let quota = limits.quota.and_then(|quota| {
            let window = self.quota.window(quota, now.wall);
            (window.used >= quota.requests.get()).then(|| window.time_left(now.wall))
        });
        [
            (Limited::Quota, quota),
            (Limited::KeyRate, self.key_bucket(limits).and_then(|bucket| bucket.wait())),
            (Limited::RouteRate, self.route_bucket(route).and_then(|bucket| bucket.wait())),
            (Limited::Concurrent, concurrent),
            (Limited::WebSockets, websockets.map(|_| AT_ONCE_WAIT)),
        ]
        .into_iter()
        .filter_map(|(limited, wait)| Some((limited, wait?)))
        .max_by_key(|(_, wait)| *wait)
    }

    fn spend(&mut self, limits: &Limits, route: Option<(&Arc<str>, Rate)>, websocket: bool, now: Now) {
        if let Some(bucket) = self.key_bucket(limits) {
            bucket.take();
        }
        if let Some(bucket) = self.route_bucket(route) {
            bucket.take();
        }
        if let Some(quota) = limits.quota {
            let window = self.quota.window(quota, now.wall);
            window.used = window.used.saturating_add(1);
        }
        self.activity.count(now.wall);
        // Counted whether bounded or not: a bound that comes with a reload counts what is open then.
        self.concurrent = self.concurrent.saturating_add(1);
        self.websockets = self.websockets.saturating_add(u32::from(websocket));
    }

    fn fields(&mut self, limits: &Limits, route: Option<(&Arc<str>, Rate)>, now: Now) -> Fields {
        let quota = limits.quota.map(|quota| {
            let most = quota.requests.get();
            let window = self.quota.window(quota, now.wall);
            let more_in = (window.used > 0).then(|| window.time_left(now.wall));
            Standing::new(most, most.saturating_sub(window.used), window.seconds(), more_in)
        });
        Fields {
            key: self.key_bucket(limits).map(|bucket| bucket.standing()),
            route: self.route_bucket(route).map(|bucket| bucket.standing()),
            quota,
            at_once: None,
        }
    }

    fn key_bucket(&mut self, limits: &Limits) -> Option<&mut Bucket> {
        self.rate.as_mut().filter(|_| limits.rate.is_some())
    }

    fn route_bucket(&mut self, route: Option<(&Arc<str>, Rate)>) -> Option<&mut Bucket> {
        let (name, _) = route?;
        self.routes.iter_mut().find(|(own, _)| own == name).map(|(_, bucket)| bucket)
    }
}

/// The bound behind a refusal, where it is on what is open at once.
fn at_once(limits: &Limits, limited: Limited) -> Option<(Limited, NonZeroU32)> {
    let most = match limited {
        Limited::Concurrent => limits.concurrent,
        Limited::WebSockets => limits.websockets,
        Limited::KeyRate | Limited::RouteRate | Limited::Quota | Limited::FailedAuth => None,
    };
    Some((limited, most?))
}
