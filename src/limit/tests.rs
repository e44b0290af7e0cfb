//! What the tests of the limits share, and the tests by theme.

mod admission;
mod buckets;
mod fields;
mod quotas;
mod strangers;

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::limiter::{Ask, Caller, Limiter, Refusal};
use super::permit::Permit;
use super::{Limits, Quota, QuotaWindow, Rate};
use crate::key::KeyId;
use crate::moment::Now;

/// `requests` per `per_millis`, holding `burst`.
fn rate(requests: u32, per_millis: u64, burst: u32) -> Rate {
    let [requests, burst] = [requests, burst].map(|number| NonZeroU32::new(number).expect("not zero"));
    Rate { requests, per: Duration::from_millis(per_millis), burst }
}

fn quota(requests: u64, per: QuotaWindow) -> Quota {
    Quota { requests: NonZeroU64::new(requests).expect("not zero"), per }
}

fn only_rate(rate: Rate) -> Limits {
    Limits { rate: Some(rate), ..Limits::default() }
}

/// Two clocks that move together, from noon of a day in the middle of a month.
struct Clock(Now);

impl Clock {
    fn new() -> Self {
        Self::at("2026-03-15T12:00:00Z")
    }

    fn at(wall: &str) -> Self {
        Self(Now { wall: wall.parse::<Timestamp>().expect("a time"), mono: Instant::now() })
    }

    fn after(&self, time: Duration) -> Now {
        Now { wall: self.0.wall + time, mono: self.0.mono + time }
    }

    fn millis(&self, millis: u64) -> Now {
        self.after(Duration::from_millis(millis))
    }
}

/// A limiter and one key in it.
struct OneKey {
    limiter: Limiter,
    id: KeyId,
}

impl OneKey {
    fn new() -> Self {
        Self { limiter: Limiter::new(16), id: KeyId::new("alice") }
    }

    fn ask(&self, limits: &Limits, now: Now) -> Result<Permit, Refusal> {
        self.limiter.admit(&Ask { caller: Caller::Key(&self.id, limits), route: None, websocket: false }, now)
    }

    fn ask_route(&self, limits: &Limits, name: &str, rate: Rate, now: Now) -> Result<Permit, Refusal> {
        let ask =
            Ask { caller: Caller::Key(&self.id, limits), route: Some((&Arc::from(name), rate)), websocket: false };
        self.limiter.admit(&ask, now)
    }

    fn ask_websocket(&self, limits: &Limits, now: Now) -> Result<Permit, Refusal> {
        self.limiter.admit(&Ask { caller: Caller::Key(&self.id, limits), route: None, websocket: true }, now)
    }

    /// How many of `tries` requests are admitted, each over before the next.
    fn admitted(&self, limits: &Limits, tries: u32, now: Now) -> usize {
        (0..tries).filter(|_| self.ask(limits, now).is_ok()).count()
    }
}
