//! What a key may do: alone, in parallel, over reloads, and with several limits at once.

use std::thread;

use super::*;
use crate::rejection::{Limited, Rejection};

fn refusal(result: Result<Permit, Refusal>) -> (Limited, Duration) {
    let refusal = result.expect_err("a refusal");
    (refusal.limited, refusal.wait)
}

#[test]
fn a_thousand_parallel_requests_against_a_burst_of_ten_admit_ten() {
    let (key, now, limits) = (OneKey::new(), Clock::new().0, only_rate(rate(1, 1000, 10)));
    let admitted: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..10).map(|_| scope.spawn(|| key.admitted(&limits, 100, now))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    assert_eq!(admitted, 10);
}

#[test]
fn parallel_requests_in_flight_are_never_more_than_concurrent() {
    let limits = Limits { concurrent: NonZeroU32::new(10), ..Limits::default() };
    let (key, now) = (OneKey::new(), Clock::new().0);
    let permits: Vec<_> = thread::scope(|scope| {
        let hold_all = || (0..100).filter_map(|_| key.ask(&limits, now).ok()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..10).map(|_| scope.spawn(hold_all)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    assert_eq!(permits.len(), 10);
    assert_eq!(refusal(key.ask(&limits, now)), (Limited::Concurrent, Duration::from_secs(1)));
    drop(permits);
    assert_eq!((0..11).map(|_| key.ask(&limits, now)).filter(Result::is_ok).count(), 11);
}

#[test]
fn the_limit_and_one_more_and_the_time_until_it_passes() {
    let (key, clock, limits) = (OneKey::new(), Clock::new(), only_rate(rate(2, 1000, 3)));
    assert_eq!(key.admitted(&limits, 10, clock.0), 3);
    assert_eq!(refusal(key.ask(&limits, clock.0)), (Limited::KeyRate, Duration::from_millis(500)));
    assert_eq!(refusal(key.ask(&limits, clock.millis(100))), (Limited::KeyRate, Duration::from_millis(400)));
    let almost = clock.after(Duration::from_nanos(499_999_999));
    assert_eq!(refusal(key.ask(&limits, almost)), (Limited::KeyRate, Duration::from_nanos(1)));
    assert_eq!(key.admitted(&limits, 10, clock.millis(500)), 1);
    assert_eq!(key.admitted(&limits, 10, clock.millis(60_000)), 3);
    let rejection = Rejection::from(key.ask(&limits, clock.millis(60_000)).expect_err("spent"));
    assert_eq!((rejection.answer().status, rejection.retry_after()), (429, Some(1)));
}

#[test]
fn the_wait_is_exactly_the_time_until_one_more_is_admitted() {
    let clock = Clock::new();
    for rate in [rate(3, 1000, 5), rate(7, 60_000, 1), rate(1, 86_400_000, 2), rate(1000, 1, 3), rate(999_983, 1000, 9)]
    {
        let (key, limits) = (OneKey::new(), only_rate(rate));
        let mut at = Duration::ZERO;
        for _ in 0..20 {
            while key.ask(&limits, clock.after(at)).is_ok() {}
            let (_, wait) = refusal(key.ask(&limits, clock.after(at)));
            let just_before = clock.after(at + wait - Duration::from_nanos(1));
            assert!(key.ask(&limits, just_before).is_err(), "{rate:?}: earlier than {wait:?}");
            at += wait;
            assert_eq!(key.admitted(&limits, 1, clock.after(at)), 1, "{rate:?}: {wait:?} is not enough");
        }
    }
}

#[test]
fn keys_do_not_share() {
    let (key, now, limits) = (OneKey::new(), Clock::new().0, only_rate(rate(1, 1000, 2)));
    assert_eq!(key.admitted(&limits, 5, now), 2);
    let other = Ask { caller: Caller::Key(&KeyId::new("bob"), &limits), route: None, websocket: false };
    assert!(key.limiter.admit(&other, now).is_ok());
}

#[test]
fn a_route_has_a_bucket_of_its_own_and_both_must_admit() {
    let (key, clock, limits) = (OneKey::new(), Clock::new(), only_rate(rate(1, 1000, 5)));
    let tight = rate(1, 10_000, 2);
    for _ in 0..2 {
        assert!(key.ask_route(&limits, "tight", tight, clock.0).is_ok());
    }
    let refused = key.ask_route(&limits, "tight", tight, clock.0);
    assert_eq!(refusal(refused), (Limited::RouteRate, Duration::from_secs(10)));
    // Three of the key's five are left: the refusal took none.
    assert!(key.ask_route(&limits, "other", tight, clock.0).is_ok());
    assert_eq!(key.admitted(&limits, 10, clock.0), 2);
    // Both refuse: the one that takes longest decides.
    assert_eq!(refusal(key.ask_route(&limits, "tight", tight, clock.0)).0, Limited::RouteRate);
    assert_eq!(refusal(key.ask_route(&limits, "other", tight, clock.0)), (Limited::KeyRate, Duration::from_secs(1)));
}

#[test]
fn a_refusal_spends_nothing() {
    let limits = Limits {
        rate: Some(rate(1, 1000, 4)),
        concurrent: NonZeroU32::new(2),
        websockets: NonZeroU32::new(1),
        quota: Some(quota(5, QuotaWindow::Day)),
    };
    let (key, clock, route) = (OneKey::new(), Clock::new(), rate(1, 60_000, 3));
    let ask = |websocket, now| {
        let ask = Ask { caller: Caller::Key(&key.id, &limits), route: Some((&Arc::from("r"), route)), websocket };
        key.limiter.admit(&ask, now)
    };
    let socket = ask(true, clock.0).expect("first").into_websocket();
    let before = ask(false, clock.0).expect("second");
    let other = ask(false, clock.0).expect("third");
    let full = *other.fields();
    for now in [clock.0, clock.millis(10)] {
        for websocket in [true, false] {
            let refused = ask(websocket, now).expect_err("everything is used up");
            assert_eq!((refused.fields.key.is_some(), refused.fields.quota), (true, full.quota));
        }
    }
    drop(before);
    // The route's bucket is empty, a place is free: still only the route refuses, and for as long as it said.
    assert_eq!(refusal(ask(false, clock.millis(10))), (Limited::RouteRate, Duration::from_millis(59_990)));
    drop((other, socket));
    let last = ask(true, clock.millis(60_000)).expect("the route has one again");
    let mut state = Vec::new();
    last.fields().write_state(&mut state);
    assert_eq!(String::from_utf8(state).as_deref(), Ok(r#""key";r=3;t=1, "route";r=0;t=60, "quota";r=1;t=43140"#));
}

#[test]
fn a_websocket_holds_concurrent_until_its_101_and_its_own_bound_from_admission() {
    let limits = Limits { concurrent: NonZeroU32::new(2), websockets: NonZeroU32::new(2), ..Limits::default() };
    let (key, now) = (OneKey::new(), Clock::new().0);
    let first = key.ask_websocket(&limits, now).expect("first");
    let second = key.ask_websocket(&limits, now).expect("second");
    assert_eq!(refusal(key.ask(&limits, now)).0, Limited::Concurrent);
    let first = first.into_websocket();
    let request = key.ask(&limits, now).expect("the handshake is over");
    let second = second.into_websocket();
    assert_eq!(refusal(key.ask_websocket(&limits, now)), (Limited::WebSockets, Duration::from_secs(1)));
    drop(first);
    let failed = key.ask_websocket(&limits, now).expect("a place is free");
    assert_eq!(refusal(key.ask_websocket(&limits, now)).0, Limited::WebSockets);
    drop(failed);
    let third = key.ask_websocket(&limits, now).expect("a failed handshake gives its place back").into_websocket();
    drop((second, third, request));
    assert_eq!((0..3).filter_map(|_| key.ask(&limits, now).ok()).collect::<Vec<_>>().len(), 2);
}

#[test]
fn turning_into_a_websocket_is_counted_once_whatever_was_asked() {
    let limits = Limits { concurrent: NonZeroU32::new(1), websockets: NonZeroU32::new(1), ..Limits::default() };
    let (key, now) = (OneKey::new(), Clock::new().0);
    let socket = key.ask(&limits, now).expect("a plain request").into_websocket().into_websocket();
    assert_eq!(refusal(key.ask_websocket(&limits, now)).0, Limited::WebSockets);
    let request = key.ask(&limits, now).expect("it holds no concurrent");
    drop(socket);
    drop(request);
    assert!(key.ask_websocket(&limits, now).is_ok());
}

#[test]
fn what_was_open_before_a_bound_counts_after_it() {
    let (key, now) = (OneKey::new(), Clock::new().0);
    let open: Vec<_> = (0..3).map(|_| key.ask(&Limits::default(), now).expect("no bound")).collect();
    let bound = Limits { concurrent: NonZeroU32::new(2), ..Limits::default() };
    assert_eq!(refusal(key.ask(&bound, now)).0, Limited::Concurrent);
    drop(open);
    assert!(key.ask(&bound, now).is_ok());
}

#[test]
fn a_reload_keeps_what_is_left_and_scales_what_changed() {
    let clock = Clock::new();
    // (before, spent of it, after, left of that)
    let rows = [
        (rate(1, 1000, 10), 3, rate(1, 1000, 10), 7),
        (rate(1, 1000, 10), 3, rate(1, 1000, 20), 14),
        (rate(1, 1000, 20), 6, rate(1, 1000, 10), 7),
        (rate(1, 1000, 10), 10, rate(1, 1000, 1000), 0),
        (rate(1, 1000, 10), 9, rate(1, 1000, 5), 0),
        (rate(1, 1000, 10), 5, rate(100, 60_000, 10), 5),
        (rate(1, 1000, 3), 1, rate(7, 3_600_000, 3_000_000), 2_000_000),
        (rate(1, 1000, 10), 0, rate(1, 1000, 7), 7),
    ];
    for (before, spent, after, left) in rows {
        let (key, old, new) = (OneKey::new(), only_rate(before), only_rate(after));
        assert_eq!(key.admitted(&old, spent, clock.0), spent as usize);
        let result = key.ask(&new, clock.0);
        let got = match &result {
            Ok(permit) => permit.fields().key.map(|_| written(permit.fields())),
            Err(refusal) => Some(written(&refusal.fields)),
        };
        let left_after = if result.is_ok() { left - 1 } else { 0 };
        assert!(
            got.as_deref().is_some_and(|text| text.starts_with(&format!("\"key\";r={left_after};"))),
            "{got:?} {left}"
        );
        assert_eq!(result.is_ok(), left > 0, "{before:?} to {after:?}");
    }
}

fn written(fields: &crate::limit::fields::Fields) -> String {
    let mut out = Vec::new();
    fields.write_state(&mut out);
    String::from_utf8(out).expect("ASCII")
}

#[test]
fn a_limit_taken_away_and_given_back_does_not_refill() {
    let (key, clock, limits) = (OneKey::new(), Clock::new(), only_rate(rate(1, 3_600_000, 5)));
    assert_eq!(key.admitted(&limits, 5, clock.0), 5);
    assert_eq!(key.admitted(&Limits::default(), 5, clock.millis(1)), 5);
    assert_eq!(key.admitted(&limits, 5, clock.millis(2)), 0);
}

#[test]
fn time_before_a_reload_does_not_count_at_the_new_rate_nor_idle_time_at_the_old() {
    let clock = Clock::new();
    let (slow, fast) = (only_rate(rate(1, 3_600_000, 1000)), only_rate(rate(1000, 1000, 1000)));
    for (old, new) in [(&slow, &fast), (&fast, &slow)] {
        let key = OneKey::new();
        assert_eq!(key.admitted(old, 1000, clock.0), 1000);
        assert_eq!(key.admitted(new, 1000, clock.millis(10_000)), 0);
    }
}

#[test]
fn a_clock_read_before_the_last_use_neither_gives_nor_takes() {
    let (key, clock, limits) = (OneKey::new(), Clock::new(), only_rate(rate(1, 1000, 2)));
    assert_eq!(key.admitted(&limits, 5, clock.millis(5000)), 2);
    assert_eq!(key.admitted(&limits, 5, clock.0), 0);
    assert_eq!(key.admitted(&limits, 5, clock.millis(5999)), 0);
    assert_eq!(key.admitted(&limits, 5, clock.millis(6000)), 1);
}

#[test]
fn a_poisoned_lock_stops_nobody() {
    let (key, now, limits) = (OneKey::new(), Clock::new().0, only_rate(rate(1, 1000, 2)));
    let state = key.limiter.poison(&key.id);
    assert!(state, "the lock is poisoned");
    assert_eq!(key.admitted(&limits, 5, now), 2);
}

#[test]
fn a_key_is_forgotten_only_when_that_gives_nothing_back() {
    let limits = Limits { quota: Some(quota(10, QuotaWindow::Hour)), ..only_rate(rate(1, 1000, 5)) };
    let (key, clock) = (OneKey::new(), Clock::new());
    let held = key.ask(&limits, clock.0).expect("first");
    let keys_after = |known: bool, now| {
        key.limiter.forget(|_| known, now);
        key.limiter.keys()
    };
    let next_hour = clock.millis(3_600_000);
    assert_eq!(keys_after(false, next_hour), 1, "a request is in flight");
    drop(held);
    assert_eq!(keys_after(false, clock.0), 1, "the bucket is not full");
    assert_eq!(keys_after(false, clock.millis(5000)), 1, "the quota's window is not over");
    assert_eq!(keys_after(true, next_hour), 1, "the key is in the file");
    assert_eq!(keys_after(false, next_hour), 0);
}
