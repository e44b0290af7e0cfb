//! A token bucket in whole numbers: nothing is rounded, so it never gives more than burst + ⌊rate × elapsed⌋ (decision 14).

use std::time::{Duration, Instant};

use super::Rate;
use super::fields::Standing;

/// Longest `per` that is counted, in nanoseconds: 146 years. It keeps every product below in 128 bits.
const MAX_PER_NANOS: u128 = 1 << 62;

/// Tokens that come back over time.
///
/// The level is counted in shares of a token: one token is `per` shares (in nanoseconds), and a nanosecond brings
/// `requests` of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    rate: Rate,
    level: u128,
    at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn full(rate: Rate, now: Instant) -> Self {
        Self { rate, level: capacity(rate), at: now }
    }

    /// Brings the bucket up to `now` and to `rate`.
    ///
    /// A rate that changed keeps the part of the bucket that is full (decision 14). When it changed is not known: the
    /// time since the last use counts at whichever of the two rates gives less.
    pub(super) fn settle(&mut self, rate: Rate, now: Instant) {
        if self.rate == rate {
            self.level = self.level_at(now);
        } else {
            let at_old_rate = scale(self.level_at(now), self.rate, rate);
            let scaled = Self { rate, level: scale(self.level, self.rate, rate), at: self.at };
            self.level = at_old_rate.min(scaled.level_at(now));
            self.rate = rate;
        }
        self.at = self.at.max(now);
    }

    /// The time until a token is there, from the last settling; `None` when one is.
    pub(super) fn wait(&self) -> Option<Duration> {
        let missing = per_nanos(self.rate).saturating_sub(self.level);
        (missing > 0).then(|| self.time_for(missing))
    }

    /// Takes a token. Only after [`Bucket::wait`] said that there is one.
    pub(super) fn take(&mut self) {
        self.level = self.level.saturating_sub(per_nanos(self.rate));
    }

    /// How it is told to the caller: q is the burst, w the time in which it fills (decision 14), t the time to one more
    /// token.
    pub(super) fn standing(&self) -> Standing {
        let per = per_nanos(self.rate);
        let tokens = u64::try_from(self.level / per).unwrap_or(u64::MAX);
        let more_in = (self.level < capacity(self.rate)).then(|| self.time_for(per - self.level % per));
        let window = self.time_for(capacity(self.rate));
        let window_seconds = window.as_secs() + u64::from(window.subsec_nanos() > 0);
        Standing::new(self.rate.burst.get().into(), tokens, window_seconds, more_in)
    }

    /// The time that is still missing at `now` until the bucket is full: nothing is lost when a full one is forgotten.
    pub(super) fn time_to_full(&self, now: Instant) -> Duration {
        self.time_for(capacity(self.rate).saturating_sub(self.level_at(now)))
    }

    fn level_at(&self, now: Instant) -> u128 {
        // A reading of the clock from before the last use brings nothing, and takes nothing.
        let elapsed = now.saturating_duration_since(self.at).as_nanos().min(u128::from(u64::MAX));
        let gained = elapsed * u128::from(self.rate.requests.get());
        self.level.saturating_add(gained).min(capacity(self.rate))
    }

    fn time_for(&self, shares: u128) -> Duration {
        let nanos = shares.div_ceil(u128::from(self.rate.requests.get()));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

fn per_nanos(rate: Rate) -> u128 {
    rate.per.as_nanos().clamp(1, MAX_PER_NANOS)
}

fn capacity(rate: Rate) -> u128 {
    u128::from(rate.burst.get()) * per_nanos(rate)
}

/// `level` of a bucket of rate `from` in one of rate `to`: the same part of it, rounded down.
fn scale(level: u128, from: Rate, to: Rate) -> u128 {
    let (old, new) = (capacity(from), capacity(to));
    let common = greatest_common_divisor(old, new);
    match level.checked_mul(new / common) {
        Some(product) => product / (old / common),
        // Beyond 128 bits only for bursts and times that have nothing in common: 31 bits of the part are kept.
        None => ((level << 31) / old) * (new >> 31),
    }
}

fn greatest_common_divisor(a: u128, b: u128) -> u128 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
