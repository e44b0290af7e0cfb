//! What a key did since it was last written down: requests, the day they fell on, the last use. Counted under the lock that
//! admits, taken and kept by whoever writes.

use jiff::Timestamp;

/// Seconds in a day of UTC.
const DAY: i64 = 86_400;
/// How far a request may be behind the one before and still count as at the same time: requests read the clock before they
/// wait for the lock.
const STRAGGLE: i64 = 10;

/// Admitted requests of one key over some time. The clock may step; then the last word counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Requests admitted.
    pub requests: u64,
    /// Those of them that fell on `day`.
    pub on_day: u64,
    /// The day of the last one, in days since 1970 in UTC.
    pub day: i64,
    /// The second of the last one, since 1970.
    pub last_used: i64,
}

impl Activity {
    /// Counts a request admitted `now`.
    pub(super) fn count(&mut self, now: Timestamp) {
        let second = now.as_second();
        let is_straggler = (1..=STRAGGLE).contains(&self.last_used.saturating_sub(second));
        let second = if is_straggler { self.last_used } else { second };
        self.add(Self { requests: 1, on_day: 1, day: day_of(second), last_used: second });
    }

    /// Adds what was done later.
    pub fn add(&mut self, later: Self) {
        self.requests = self.requests.saturating_add(later.requests);
        let before = if self.day == later.day { self.on_day } else { 0 };
        self.on_day = before.saturating_add(later.on_day);
        (self.day, self.last_used) = (later.day, later.last_used);
    }

    /// Hands out what was counted and begins anew; `None` if nothing was.
    pub(super) fn take(&mut self) -> Option<Self> {
        let taken = *self;
        (self.requests, self.on_day) = (0, 0);
        (taken.requests > 0).then_some(taken)
    }
}

/// The day that holds a second, both since 1970 in UTC.
pub fn day_of(second: i64) -> i64 {
    second.div_euclid(DAY)
}
