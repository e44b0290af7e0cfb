//! One direction of a relay under sources and sinks that wait, fail and dribble.

use super::*;

const TIMING: Timing = Timing {
    body_idle: Duration::from_secs(60),
    body_min_rate: Some(256),
    client_write: Duration::ZERO,
    upstream_write: Duration::ZERO,
    response: Duration::ZERO,
    upstream_idle: Duration::ZERO,
    max_body: None,
};

/// The second, counted from the body's beginning, by which more of it must have come.
fn due(bytes: u64, moved: u64, held: u64, timing: &Timing) -> u64 {
    let began = now();
    let moved = began + Duration::from_secs(moved);
    let direction = Direction { done: false, bytes, moved, held: Duration::from_secs(held), blocked: Blocked::Source };
    direction.due(began, timing).duration_since(began).as_secs()
}

#[test]
fn a_body_is_due_by_the_idle_bound_or_by_its_average_rate() {
    let no_floor = Timing { body_min_rate: None, ..TIMING };
    let zero = Timing { body_min_rate: Some(0), ..TIMING };
    for (bytes, moved, held, timing, expected, what) in [
        (0, 0, 0, &TIMING, 10, "ten seconds of grace"),
        (1, 9, 0, &TIMING, 10, "a drip does not move it"),
        (2559, 9, 0, &TIMING, 10, "just under what ten seconds ask"),
        (256 * 30, 9, 0, &TIMING, 30, "what was paid in advance counts"),
        (256 * 300, 9, 0, &TIMING, 69, "but never beyond the idle bound"),
        (1, 9, 0, &no_floor, 69, "no floor, only the idle bound"),
        (1, 9, 0, &zero, 69, "a floor of zero is none"),
    ] {
        assert_eq!(due(bytes, moved, held, timing), expected, "{what}");
    }
}

#[test]
fn an_upstream_that_does_not_read_is_not_held_against_the_client() {
    assert_eq!(due(0, 30, 0, &TIMING), 10);
    assert_eq!(due(0, 30, 25, &TIMING), 35);
}
