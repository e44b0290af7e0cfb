//! Quotas: admitted requests counted in fixed UTC windows of the wall clock (decision 14). The last two windows are kept
//! beside the current one, and what is used goes along when the clock steps back further, so no step back refills a quota.

use std::num::NonZeroU64;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Quota, QuotaWindow};

/// What a key used of one window: what is written to the state file and read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaCount {
    /// The kind of window.
    pub per: QuotaWindow,
    /// Its first second, since 1970 in UTC.
    pub start: i64,
    /// Requests admitted in it.
    pub used: u64,
}

/// How a key's quota stands in each window that is kept of it.
pub type QuotaCounts = [Option<QuotaCount>; 3];

/// The windows a key was last counted in.
#[derive(Debug, Default)]
pub(super) struct Usage {
    current: Option<Window>,
    /// Those before it, the last one first.
    earlier: [Option<Window>; 2],
}

/// One window and what was used of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    per: QuotaWindow,
    start: i64,
    end: i64,
    /// Requests admitted in it.
    pub(super) used: u64,
    /// The quota it was last used under; `None` as long as it is only known from before a restart.
    most: Option<NonZeroU64>,
}

impl QuotaCount {
    /// The first second after its window; `None` where no such window can be.
    pub fn end(&self) -> Option<i64> {
        Some(Window::around(self.per, Timestamp::from_second(self.start).ok()?).end)
    }
}

impl Usage {
    /// The window of `quota` that holds `now`.
    ///
    /// When the kind of window changed on a reload, the same part of the new one is used up: a changed limit never
    /// refills (decision 14). So it is when the clock steps back to a window that is not known; that one ends in time, and
    /// the next is counted from nothing, so a clock that once was wrong locks nobody out.
    pub(super) fn window(&mut self, quota: Quota, now: Timestamp) -> &mut Window {
        let second = floor_second(now);
        let fits = |window: &Window| window.per == quota.per && window.holds(second);
        if !self.current.as_ref().is_some_and(fits) {
            let known = self.earlier.iter().flatten().find(|window| fits(window)).copied();
            self.enter(known.unwrap_or_else(|| {
                let other = self.current.filter(|window| window.end > second);
                let used = other.map_or(0, |window| window.used_in_terms_of(quota));
                Window { used, ..Window::around(quota.per, now) }
            }));
        }
        let window = self.current.get_or_insert_with(|| Window::around(quota.per, now));
        window.most = Some(quota.requests);
        window
    }

    /// Makes a window the current one; of those before it the oldest is forgotten.
    fn enter(&mut self, next: Window) {
        let left = self.current.replace(next);
        let [last, older] = self.earlier;
        self.earlier = [left, if last.is_some_and(|last| last.is_same(&next)) { older } else { last }];
    }

    /// What was used of the current window and those before, to be kept over a restart.
    pub(super) fn counts(&self) -> QuotaCounts {
        let [last, older] = self.earlier;
        [self.current, last, older]
            .map(|window| window.map(|Window { per, start, used, .. }| QuotaCount { per, start, used }))
    }

    /// Puts back what was kept over a restart: what was counted since then comes on top of it. Only once for each window.
    pub(super) fn resume(&mut self, count: QuotaCount) {
        let counted = self.counts().into_iter().flatten();
        let counted = counted.filter(|own| own.per == count.per && own.start == count.start).map(|own| own.used).sum();
        self.restore(QuotaCount { used: count.used.saturating_add(counted), ..count });
    }

    /// Puts back what was kept; what was counted stays where it is more.
    pub(super) fn restore(&mut self, count: QuotaCount) {
        let Ok(start) = Timestamp::from_second(count.start) else { return };
        let kept = Window { used: count.used, ..Window::around(count.per, start) };
        match self.current.iter_mut().chain(self.earlier.iter_mut().flatten()).find(|own| own.is_same(&kept)) {
            Some(own) => own.used = own.used.max(kept.used),
            None => self.enter(kept),
        }
    }

    /// Whether forgetting it would give nothing back.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.current
            .iter()
            .chain(self.earlier.iter().flatten())
            .all(|window| window.used == 0 || window.end <= floor_second(now))
    }
}

impl Window {
    /// The unused window of kind `per` that holds `now`.
    fn around(per: QuotaWindow, now: Timestamp) -> Self {
        let aligned = |length: i64| {
            let start = floor_second(now).div_euclid(length) * length;
            (start, start + length)
        };
        let (start, end) = match per {
            QuotaWindow::Hour => aligned(3600),
            QuotaWindow::Day => aligned(86_400),
            // The calendar ends in the year 9999; any window will do there.
            QuotaWindow::Month => month_around(now).unwrap_or_else(|| aligned(31 * 86_400)),
        };
        Self { per, start, end, used: 0, most: None }
    }

    fn is_same(&self, other: &Self) -> bool {
        self.per == other.per && self.start == other.start
    }

    fn holds(&self, second: i64) -> bool {
        (self.start..self.end).contains(&second)
    }

    /// The part of this window that is used, as requests of `quota`, rounded up.
    fn used_in_terms_of(&self, quota: Quota) -> u64 {
        let Some(most) = self.most else { return self.used };
        let scaled = (u128::from(self.used) * u128::from(quota.requests.get())).div_ceil(u128::from(most.get()));
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }

    /// Its length in seconds.
    pub(super) fn seconds(&self) -> u64 {
        (self.end - self.start).unsigned_abs()
    }

    /// The time from `now` to its end.
    pub(super) fn time_left(&self, now: Timestamp) -> Duration {
        let nanos = i128::from(self.end) * 1_000_000_000 - now.as_nanosecond();
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }
}

/// The second that holds `now`; before 1970 too, where a clock that was never set may be.
fn floor_second(now: Timestamp) -> i64 {
    now.as_second() - i64::from(now.subsec_nanosecond() < 0)
}

fn month_around(now: Timestamp) -> Option<(i64, i64)> {
    let first = now.to_zoned(TimeZone::UTC).date().first_of_month();
    let next = first.last_of_month().tomorrow().ok()?;
    let second = |date: jiff::civil::Date| Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second());
    Some((second(first)?, second(next)?))
}
