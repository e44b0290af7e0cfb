//! Properties of the limiter over random schedules.

use proptest::prelude::*;

use super::*;

fn any_rate() -> impl Strategy<Value = Rate> {
    (1u32..50, 1u64..5000, 1u32..20).prop_map(|(requests, per, burst)| rate(requests, per, burst))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_stretch_of_time_admits_at_most_burst_and_what_came_back(
        rate in any_rate(),
        gaps in prop::collection::vec(0u64..3_000_000_000, 1..80),
    ) {
        let (key, clock, limits) = (OneKey::new(), Clock::new(), only_rate(rate));
        let mut at = 0;
        let mut admitted: Vec<u64> = Vec::new();
        for gap in gaps {
            at += gap / 7;
            if key.ask(&limits, clock.after(Duration::from_nanos(at))).is_ok() {
                admitted.push(at);
            }
        }
        for (first, start) in admitted.iter().enumerate() {
            for (count, end) in (1u128..).zip(&admitted[first..]) {
                prop_assert!(count <= allowance(rate, end - start), "{} from {} to {}", count, start, end);
            }
        }
    }

    #[test]
    fn nothing_is_held_back_either(rate in any_rate(), gaps in prop::collection::vec(0u64..3_000_000_000, 1..80)) {
        // A second way of counting: the exact number of tokens as a fraction, in whole numbers.
        let (key, clock, limits) = (OneKey::new(), Clock::new(), only_rate(rate));
        let per = rate.per.as_nanos();
        let (mut at, mut shares) = (0, u128::from(rate.burst.get()) * per);
        for gap in gaps {
            at += gap / 7;
            shares = (shares + u128::from(gap / 7) * u128::from(rate.requests.get())).min(u128::from(rate.burst.get()) * per);
            let expected = shares >= per;
            prop_assert_eq!(key.ask(&limits, clock.after(Duration::from_nanos(at))).is_ok(), expected);
            if expected {
                shares -= per;
            }
        }
    }

    #[test]
    fn changed_limits_never_give_more_than_the_most_generous_of_them(
        rates in prop::collection::vec(any_rate(), 1..5),
        steps in prop::collection::vec((0u64..1_000_000_000, 0usize..5), 1..120),
    ) {
        let (key, clock) = (OneKey::new(), Clock::new());
        let (mut at, mut admitted) = (0, 0u128);
        for (gap, which) in steps {
            at += gap / 11;
            let limits = only_rate(rates[which % rates.len()]);
            admitted += u128::from(key.ask(&limits, clock.after(Duration::from_nanos(at))).is_ok());
        }
        // Fullness is what a change keeps: the bucket that fills fastest, measured in the largest burst.
        let burst = rates.iter().map(|rate| u128::from(rate.burst.get())).max().unwrap_or(0);
        let per_full = rates.iter().map(|rate| nanos_to_fill(*rate)).min().unwrap_or(1);
        prop_assert!(admitted <= burst + (burst * u128::from(at)).div_ceil(per_full));
    }

    #[test]
    fn a_change_alone_never_adds_a_token(rates in prop::collection::vec(any_rate(), 2..12), spent in 0u32..20) {
        // At one instant, whatever the limits change to and back, the part that is used stays used.
        let (key, clock) = (OneKey::new(), Clock::new());
        let first = only_rate(rates[0]);
        let burst = rates[0].burst.get();
        key.admitted(&first, spent.min(burst), clock.0);
        for rate in &rates[1..] {
            let quiet = Limits { concurrent: NonZeroU32::new(1), ..only_rate(*rate) };
            // Refused for another reason, so that only the change acts.
            let held = key.ask(&Limits::default(), clock.0);
            prop_assert!(key.ask(&quiet, clock.0).is_err());
            drop(held);
        }
        prop_assert!(key.admitted(&first, 50, clock.0) <= (burst - spent.min(burst)) as usize);
    }
}

fn allowance(rate: Rate, nanos: u64) -> u128 {
    u128::from(rate.burst.get()) + u128::from(nanos) * u128::from(rate.requests.get()) / rate.per.as_nanos()
}

fn nanos_to_fill(rate: Rate) -> u128 {
    (u128::from(rate.burst.get()) * rate.per.as_nanos() / u128::from(rate.requests.get())).max(1)
}

#[test]
fn the_largest_and_smallest_settings_do_not_overflow() {
    let clock = Clock::new();
    let most = NonZeroU32::MAX;
    let extremes = [
        Rate { requests: most, per: Duration::MAX, burst: most },
        Rate { requests: most, per: Duration::from_nanos(1), burst: most },
        Rate { requests: NonZeroU32::MIN, per: Duration::MAX, burst: most },
        Rate { requests: NonZeroU32::MIN, per: Duration::from_nanos(1), burst: NonZeroU32::MIN },
        Rate { requests: NonZeroU32::MIN, per: Duration::MAX - Duration::from_nanos(7), burst: NonZeroU32::MIN },
        Rate {
            requests: most,
            per: Duration::from_nanos(999_983),
            burst: NonZeroU32::new(u32::MAX - 4).expect("not 0"),
        },
    ];
    for from in extremes {
        for to in extremes {
            let key = OneKey::new();
            assert_eq!(key.admitted(&only_rate(from), 1, clock.0), 1);
            // Either way it is an answer that can be given: a token, or a time to wait.
            let result = key.ask(&only_rate(to), clock.millis(1_000_000_000));
            let wait = result.as_ref().map_or_else(|refusal| refusal.wait, |_| Duration::ZERO);
            assert_eq!(result.is_ok(), wait.is_zero(), "{from:?} {to:?}");
            assert!(result.is_ok() || from.burst == NonZeroU32::MIN || to.burst == NonZeroU32::MIN, "{from:?} {to:?}");
        }
    }
}
