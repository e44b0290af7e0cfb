//! Clients known only by address: the throttle on bad keys, public routes, and tables that do not grow.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;

use super::*;
use crate::limit::FailedAuth;
use crate::limit::address::Address;
use crate::limit::throttle::Throttle;
use crate::rejection::Limited;

fn address(text: &str) -> Address {
    text.parse::<IpAddr>().expect("an address").into()
}

fn throttle(attempts: u32, per_secs: u64, max_addresses: usize) -> Throttle {
    Throttle::new(settings(attempts, per_secs, max_addresses))
}

fn settings(attempts: u32, per_secs: u64, max_addresses: usize) -> FailedAuth {
    let attempts = NonZeroU32::new(attempts).expect("not zero");
    FailedAuth { attempts, per: Duration::from_secs(per_secs), max_addresses }
}

#[test]
fn an_address_is_one_ipv4_or_one_64_of_ipv6() {
    let rows = [
        ("192.0.2.1", "192.0.2.1", true),
        ("192.0.2.1", "192.0.2.2", false),
        ("192.0.2.1", "::ffff:192.0.2.1", true),
        ("::ffff:192.0.2.2", "::ffff:192.0.2.1", false),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::9", true),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
        ("2001:db8::1", "2001:db9::1", false),
        ("0.0.0.1", "::1", false),
        ("127.0.0.1", "::127.0.0.1", false),
    ];
    for (one, other, same) in rows {
        assert_eq!(address(one) == address(other), same, "{one} {other}");
    }
    assert_eq!(Address::from(None), Address::Unknown);
    assert_eq!(Address::from("192.0.2.1".parse::<IpAddr>().ok()), address("192.0.2.1"));
}

#[test]
fn bad_keys_are_refused_with_a_wait_after_so_many_attempts() {
    let (throttle, clock) = (throttle(20, 60, 1000), Clock::new());
    let (bad, other) = (address("192.0.2.1"), address("192.0.2.2"));
    assert_eq!(throttle.is_blocked(bad, clock.0), None);
    assert_eq!((0..25).filter(|_| throttle.fail(bad, clock.0).is_ok()).count(), 20);
    assert_eq!(throttle.fail(bad, clock.0), Err(Duration::from_secs(3)));
    assert_eq!(throttle.is_blocked(bad, clock.millis(1000)), Some(Duration::from_secs(2)));
    assert_eq!((throttle.is_blocked(other, clock.0), throttle.fail(other, clock.0)), (None, Ok(())));
    // Refusals cost nothing: one attempt is back after three seconds, all after a minute.
    assert_eq!((0..25).filter(|_| throttle.fail(bad, clock.millis(3000)).is_ok()).count(), 1);
    assert_eq!((0..25).filter(|_| throttle.fail(bad, clock.millis(63_000)).is_ok()).count(), 20);
    assert_eq!(throttle.addresses(), 2);
}

#[test]
fn asking_whether_an_address_is_blocked_counts_nothing() {
    let (throttle, clock) = (throttle(1, 60, 1000), Clock::new());
    let bad = address("192.0.2.1");
    for _ in 0..5 {
        assert_eq!(throttle.is_blocked(bad, clock.0), None);
    }
    assert_eq!((throttle.addresses(), throttle.fail(bad, clock.0)), (0, Ok(())));
}

#[test]
fn parallel_guesses_do_not_slip_past_the_count() {
    let (throttle, now) = (throttle(20, 60, 1000), Clock::new().0);
    let let_in: usize = thread::scope(|scope| {
        let guess = || (0..50).filter(|_| throttle.fail(address("2001:db8::1"), now).is_ok()).count();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(guess)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    assert_eq!(let_in, 20);
}

#[test]
fn new_settings_keep_what_was_seen() {
    let (old, clock) = (throttle(10, 60, 1000), Clock::new());
    let bad = address("192.0.2.1");
    assert_eq!((0..20).filter(|_| old.fail(bad, clock.0).is_ok()).count(), 10);
    let new = old.renewed(settings(20, 60, 1000));
    assert!(new.fail(bad, clock.0).is_err());
    assert!(old.renewed(settings(10, 60, 2000)).fail(bad, clock.0).is_ok(), "another size is another table");
}

#[test]
fn a_table_holds_as_many_as_it_was_made_for() {
    for (most, held) in [(0, 1), (1, 1), (5, 5), (16, 16), (100, 96)] {
        let (throttle, now) = (throttle(5, 60, most), Clock::new().0);
        for number in 0..5000 {
            let _ = throttle.fail(Address::V4(number), now);
        }
        assert_eq!(throttle.addresses(), held, "made for {most}");
    }
}

#[test]
fn a_flood_of_addresses_does_not_grow_the_table_nor_free_the_blocked() {
    let (throttle, clock) = (throttle(20, 60, 1600), Clock::new());
    let blocked = address("192.0.2.1");
    while throttle.fail(blocked, clock.0).is_ok() {}
    for number in 0..1_000_000u64 {
        let _ = throttle.fail(Address::V6(number), clock.after(Duration::from_nanos(number)));
    }
    assert_eq!(throttle.addresses(), 1600);
    assert!(throttle.is_blocked(blocked, clock.millis(1)).is_some());
}

#[test]
fn a_table_full_of_blocked_addresses_keeps_them_and_blocks_no_stranger() {
    let (throttle, clock) = (throttle(20, 60, 1600), Clock::new());
    let block = |number: u64| while throttle.fail(Address::V6(number), clock.0).is_ok() {};
    // Enough to fill every set of the table, so that a new address always takes the place of one that is blocked.
    (0..16_000).for_each(block);
    let blocked = |now| (0..16_000).filter(|number| throttle.is_blocked(Address::V6(*number), now).is_some()).count();
    assert_eq!((throttle.addresses(), blocked(clock.0)), (1600, 1600));
    // A newcomer is told 401 as if the table were empty, and the next newcomer takes its place and no other: each of the
    // 100 sets loses one blocked address, however many come.
    for number in 100_000..200_000 {
        assert!(throttle.fail(Address::V6(number), clock.0).is_ok(), "{number}");
    }
    assert_eq!((throttle.addresses(), blocked(clock.0)), (1600, 1500));
    // A record is lost to a newcomer only that tried as often as its owner, which gains nobody an attempt.
    assert!(throttle.fail(Address::V6(1 << 40), clock.0).is_ok());
    assert!(throttle.is_blocked(Address::V6(1 << 40), clock.0).is_none());
}

#[test]
fn strangers_share_a_public_routes_bucket_per_address_and_route() {
    let (limiter, clock) = (Limiter::new(100), Clock::new());
    let (open, other): (Arc<str>, Arc<str>) = (Arc::from("open"), Arc::from("other"));
    let two = rate(1, 1000, 2);
    let ask = |address: Address, route: Option<(&Arc<str>, Rate)>, now| {
        limiter.admit(&Ask { caller: Caller::Address(address), route, websocket: false }, now)
    };
    let [one, neighbour] =
        [Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 9, 9, 9, 9)]
            .map(|address| Address::from(IpAddr::V6(address)));
    let far = Address::from(IpAddr::V4(Ipv4Addr::LOCALHOST));
    assert!(ask(one, Some((&open, two)), clock.0).is_ok());
    assert!(ask(neighbour, Some((&open, two)), clock.0).is_ok());
    let refusal = ask(one, Some((&open, two)), clock.0).expect_err("the third of this /64");
    assert_eq!((refusal.limited, refusal.wait), (Limited::RouteRate, Duration::from_secs(1)));
    assert!(ask(far, Some((&open, two)), clock.0).is_ok());
    assert!(ask(one, Some((&other, two)), clock.0).is_ok());
    assert!(ask(one, None, clock.0).is_ok_and(|permit| permit.fields().is_empty()));
    assert_eq!(ask(one, Some((&open, two)), clock.millis(1000)).map(|permit| permit.fields().is_empty()), Ok(false));
    for _ in 0..2 {
        assert!(ask(Address::Unknown, Some((&open, two)), clock.0).is_ok());
    }
    assert!(ask(Address::Unknown, Some((&open, two)), clock.0).is_err());
}
