//! Limits per key: how often, how many at once, how many sockets. Exact under any concurrency; time is an argument; state
//! belongs to the key id and outlives reloads (design rule 9, decisions 13-15).

pub mod activity;
pub mod address;
mod bucket;
pub mod fields;
pub mod limiter;
pub mod permit;
pub mod quota;
mod state;
mod table;
#[cfg(test)]
mod tests;
pub mod throttle;

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

/// Requests per time: a token bucket that holds `burst` and gains `requests` every `per`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens gained in `per`.
    pub requests: NonZeroU32,
    /// The time in which they are gained; more than zero.
    pub per: Duration,
    /// Most tokens held; `requests` unless set.
    pub burst: NonZeroU32,
}

/// Requests per fixed UTC window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Requests admitted in one window.
    pub requests: NonZeroU64,
    /// The window.
    pub per: QuotaWindow,
}

/// The windows a quota can have, all in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuotaWindow {
    /// `1h`.
    Hour,
    /// `1d`.
    Day,
    /// `1mo`: the calendar month.
    Month,
}

/// The bounds on one key. A group that is `None` does not bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests per time.
    pub rate: Option<Rate>,
    /// Requests in flight.
    pub concurrent: Option<NonZeroU32>,
    /// Open WebSockets.
    pub websockets: Option<NonZeroU32>,
    /// Requests per day or the like.
    pub quota: Option<Quota>,
}

impl Limits {
    /// Each group from `self`, else from `default` (decision 13).
    pub fn or(self, default: Self) -> Self {
        Self {
            rate: self.rate.or(default.rate),
            concurrent: self.concurrent.or(default.concurrent),
            websockets: self.websockets.or(default.websockets),
            quota: self.quota.or(default.quota),
        }
    }
}

/// The throttle on bad keys, per client address (IPv6 by /64).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedAuth {
    /// Bad keys before the address is answered 429.
    pub attempts: NonZeroU32,
    /// The time in which that many attempts are regained.
    pub per: Duration,
    /// Most addresses remembered at once.
    pub max_addresses: usize,
}
