//! One direction of a relay under sources and sinks that wait, fail and dribble.

use super::*;
use crate::engine::wire::Trailers;

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

/// A side that always has data and takes all there is, and fails the test when it has given for too long.
struct Endless(u32);

impl Wire for Endless {
    fn poll_fill(&mut self, _: &mut Context<'_>) -> Poll<Result<Fill, WireError>> {
        self.0 += 1;
        assert!(self.0 < 1_000, "nobody else has a turn");
        Poll::Ready(Ok(Fill::Data))
    }

    fn data(&self) -> &[u8] {
        if self.0.is_multiple_of(2) { b"" } else { b"data" }
    }

    fn consume(&mut self, _: usize) {
        self.0 += 1;
    }

    fn trailers(&self) -> &Trailers {
        &[]
    }

    fn poll_send(&mut self, data: &[u8], _: &mut Context<'_>) -> Poll<Result<usize, WireError>> {
        Poll::Ready(Ok(data.len()))
    }

    fn poll_finish(&mut self, _: &Trailers, _: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        Poll::Ready(Ok(()))
    }
}

/// An upload that never paused kept the answer from being read.
#[test]
fn a_body_that_never_pauses_leaves_the_other_direction_its_turn() {
    let began = now();
    let mut direction =
        Direction { done: false, bytes: 0, moved: began, held: Duration::ZERO, blocked: Blocked::Source };
    let woken = std::sync::Arc::new(Woken::default());
    let waker = std::task::Waker::from(woken.clone());
    for turn in 1..=3 {
        let moved =
            pump(&mut Endless(0), &mut Endless(0), &mut direction, None, &|_| true, &mut Context::from_waker(&waker));
        assert!(matches!(moved, Ok(Poll::Pending)));
        assert_eq!(direction.bytes, turn * 4 * TURN as u64);
        assert_eq!((direction.blocked, direction.held), (Blocked::Source, Duration::ZERO), "it waits for nobody");
        assert_eq!(woken.0.load(std::sync::atomic::Ordering::Relaxed), turn, "and goes on by itself");
    }
}

#[derive(Default)]
struct Woken(std::sync::atomic::AtomicU64);

impl std::task::Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}
