//! Quotas: windows, their edges, clocks that step, and counts that outlive a restart.

use super::*;
use crate::limit::quota::QuotaCount;
use crate::rejection::Limited;

fn only_quota(requests: u64, per: QuotaWindow) -> Limits {
    Limits { quota: Some(quota(requests, per)), ..Limits::default() }
}

#[test]
fn windows_are_fixed_in_utc() {
    use QuotaWindow::{Day, Hour, Month};
    #[rustfmt::skip]
    let rows = [
        (Hour, "2026-03-15T12:59:59Z", 1),
        (Hour, "2026-03-15T12:00:00Z", 3600),
        (Hour, "2026-03-15T12:30:00+05:30", 3600),
        (Day, "2026-03-15T23:59:59Z", 1),
        (Day, "2026-03-15T00:00:00Z", 86_400),
        (Day, "2026-03-29T02:30:00Z", 77_400),
        (Day, "1969-12-31T23:59:59Z", 1),
        (Month, "2026-02-28T23:59:59Z", 1),
        (Month, "2026-02-01T00:00:00Z", 28 * 86_400),
        (Month, "2028-02-01T00:00:00Z", 29 * 86_400),
        (Month, "2026-12-31T00:00:00Z", 86_400),
        (Month, "9999-12-01T00:00:00Z", 0),
    ];
    for (per, wall, left) in rows {
        let (key, clock, limits) = (OneKey::new(), Clock::at(wall), only_quota(2, per));
        assert_eq!(key.admitted(&limits, 5, clock.0), 2, "{wall}");
        let refusal = key.ask(&limits, clock.0).expect_err("used up");
        assert_eq!(refusal.limited, Limited::Quota, "{wall}");
        // The last month of the calendar has no end to name.
        if left > 0 {
            assert_eq!(refusal.wait, Duration::from_secs(left), "{wall}");
            assert_eq!(key.admitted(&limits, 5, clock.millis(left * 1000 - 1)), 0, "{wall}");
            assert_eq!(key.admitted(&limits, 5, clock.millis(left * 1000)), 2, "{wall}");
        }
    }
}

#[test]
fn of_two_windows_the_tighter_decides_and_both_are_shown() {
    let limits = Limits { quota: Some(quota(3, QuotaWindow::Day)), ..only_rate(rate(1, 1000, 2)) };
    let (key, clock) = (OneKey::new(), Clock::new());
    assert_eq!(key.admitted(&limits, 5, clock.0), 2);
    assert_eq!(key.ask(&limits, clock.0).expect_err("rate").limited, Limited::KeyRate);
    assert_eq!(key.admitted(&limits, 5, clock.millis(60_000)), 1);
    let refusal = key.ask(&limits, clock.millis(60_000)).expect_err("quota");
    assert_eq!(refusal.limited, Limited::Quota);
    assert!(refusal.fields.key.is_some() && refusal.fields.quota.is_some());
}

#[test]
fn a_clock_that_steps_over_an_edge_and_back_gives_no_second_quota() {
    let (key, clock, limits) = (OneKey::new(), Clock::at("2026-03-15T23:59:59.999Z"), only_quota(3, QuotaWindow::Day));
    let next_day = clock.millis(1);
    assert_eq!(key.admitted(&limits, 2, clock.0), 2);
    assert_eq!(key.admitted(&limits, 2, next_day), 2);
    assert_eq!(key.admitted(&limits, 5, clock.0), 1);
    assert_eq!(key.admitted(&limits, 5, next_day), 1);
    assert_eq!(key.admitted(&limits, 5, clock.0), 0);
}

/// Regression: a clock set back further than to the window before found a full quota there.
#[test]
fn a_clock_set_back_never_refills() {
    use QuotaWindow::{Day, Hour, Month};
    // Each step: the time, and how many of five requests are admitted of a quota of three.
    type Steps = &'static [(&'static str, usize)];
    #[rustfmt::skip]
    let rows: &[(QuotaWindow, Steps)] = &[
        (Day, &[("2026-03-15T12:00:00Z", 3), ("2026-03-12T12:00:00Z", 0), ("2026-03-15T12:00:00Z", 0)]),
        (Hour, &[("2026-03-15T12:00:00Z", 3), ("2026-03-15T02:00:00Z", 0), ("2026-03-15T02:59:59Z", 0)]),
        (Month, &[("2026-03-31T23:59:59Z", 3), ("2026-01-31T12:00:00Z", 0), ("2026-03-01T00:00:00Z", 0)]),
        (Day, &[("2026-03-15T12:00:00Z", 3), ("1970-01-01T00:00:00Z", 0), ("2026-03-15T12:00:00Z", 0)]),
        // Over two edges and back: all three windows are known.
        (Day, &[("2026-03-13T12:00:00Z", 3), ("2026-03-14T12:00:00Z", 3), ("2026-03-15T12:00:00Z", 3),
                ("2026-03-13T12:00:00Z", 0), ("2026-03-14T12:00:00Z", 0), ("2026-03-15T12:00:00Z", 0)]),
        // A clock that was far ahead takes nothing from the days that follow, and gives nothing to the day it left.
        (Day, &[("2026-03-15T12:00:00Z", 3), ("2030-01-01T00:00:00Z", 3), ("2026-03-15T13:00:00Z", 0),
                ("2026-03-16T00:00:00Z", 3), ("2026-03-15T23:59:59Z", 0), ("2026-03-17T00:00:00Z", 3)]),
    ];
    for (per, steps) in rows {
        let (key, limits) = (OneKey::new(), only_quota(3, *per));
        for (at, (wall, admitted)) in steps.iter().enumerate() {
            assert_eq!(key.admitted(&limits, 5, Clock::at(wall).0), *admitted, "{per:?}: step {at}, {wall}");
        }
    }
}

#[test]
fn months_follow_one_another_whatever_their_length() {
    let limits = only_quota(2, QuotaWindow::Month);
    let key = OneKey::new();
    #[rustfmt::skip]
    let rows = [
        ("2027-12-31T23:59:59.999Z", 2, 1), ("2028-01-01T00:00:00Z", 2, 31 * 86_400), ("2028-01-31T00:00:00Z", 0, 86_400),
        ("2028-02-01T00:00:00Z", 2, 29 * 86_400), ("2028-02-29T23:59:59Z", 0, 1), ("2028-03-01T00:00:00Z", 2, 31 * 86_400),
        ("2028-03-31T23:00:00-01:00", 2, 30 * 86_400), ("2100-02-28T23:59:00Z", 2, 60), ("2100-03-01T00:00:00Z", 2, 31 * 86_400),
    ];
    for (wall, admitted, left) in rows {
        let now = Clock::at(wall).0;
        assert_eq!(key.admitted(&limits, 5, now), admitted, "{wall}");
        let refusal = key.ask(&limits, now).expect_err("used up");
        assert_eq!(refusal.wait.as_secs_f64().ceil(), f64::from(left), "{wall}");
    }
}

#[test]
fn a_changed_quota_keeps_its_count_and_a_changed_window_the_part_that_is_used() {
    use QuotaWindow::{Day, Hour, Month};
    let rows = [
        ((10, Day), (20, Day), 14),
        ((10, Day), (6, Day), 0),
        ((10, Day), (100, Month), 40),
        ((10, Day), (3, Hour), 1),
    ];
    for ((before, kind), (after, new_kind), left) in rows {
        let (key, now) = (OneKey::new(), Clock::new().0);
        assert_eq!(key.admitted(&only_quota(before, kind), 6, now), 6);
        assert_eq!(
            key.admitted(&only_quota(after, new_kind), 200, now),
            left,
            "{before} {kind:?} to {after} {new_kind:?}"
        );
    }
}

#[test]
fn counts_outlive_a_restart() {
    let (key, clock, limits) = (OneKey::new(), Clock::new(), only_quota(10, QuotaWindow::Day));
    assert_eq!(key.admitted(&limits, 4, clock.0), 4);
    let mut kept = Vec::new();
    key.limiter.quota_counts(|id, count| kept.push((id.clone(), count)));
    let start = "2026-03-15T00:00:00Z".parse::<Timestamp>().expect("a time").as_second();
    assert_eq!(kept, [(key.id, QuotaCount { per: QuotaWindow::Day, start, used: 4 })]);

    let again = OneKey::new();
    for (id, count) in kept {
        again.limiter.restore_quota(&id, count);
        again.limiter.restore_quota(&id, QuotaCount { used: 1, ..count });
    }
    assert_eq!(again.admitted(&limits, 20, clock.0), 6);
    assert_eq!(again.admitted(&limits, 20, clock.millis(86_400_000)), 10);
}

#[test]
fn a_count_of_a_window_that_is_over_changes_nothing() {
    let (key, clock, limits) = (OneKey::new(), Clock::new(), only_quota(10, QuotaWindow::Day));
    let long_ago = QuotaCount { per: QuotaWindow::Day, start: 0, used: 9 };
    key.limiter.restore_quota(&key.id, long_ago);
    assert_eq!(key.admitted(&limits, 20, clock.0), 10);
    key.limiter.restore_quota(&key.id, QuotaCount { start: i64::MAX, ..long_ago });
    key.limiter.restore_quota(&key.id, long_ago);
    assert_eq!(key.admitted(&limits, 20, clock.0), 0);
}
