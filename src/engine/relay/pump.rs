//! One direction of a relay: bytes move from a source to a sink until one of them must wait, and it is known which, since
//! when and whose fault a delay is.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::{TURN, Timing, now};
use crate::engine::wire::{Fill, Wire, WireError};

/// Before this much of a body's time, no minimum rate is asked (decision 16).
const MIN_RATE_GRACE: Duration = Duration::from_secs(10);

/// How far one direction is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Direction {
    /// All of the body was handed on and flushed.
    pub(crate) done: bool,
    /// Body bytes handed on.
    pub(crate) bytes: u64,
    /// When it last made progress.
    pub(super) moved: Instant,
    /// How long the sink kept it waiting in all: no fault of the source.
    pub(super) held: Duration,
    /// What it waits for.
    pub(super) blocked: Blocked,
}

impl Direction {
    /// When more of a body that `began` at a moment must have come: the idle bound, or the moment its average falls below
    /// the floor (decision 16).
    pub(super) fn due(&self, began: Instant, timing: &Timing) -> Instant {
        let idle = self.moved + timing.body_idle;
        let Some(rate) = timing.body_min_rate.filter(|rate| *rate > 0) else { return idle };
        let paid = Duration::from_secs(self.bytes / rate);
        idle.min(began + self.held + paid.max(MIN_RATE_GRACE))
    }
}

/// What a direction waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blocked {
    Source,
    Sink,
}

/// Which side failed, or that the body is too large.
pub(super) enum PumpError {
    Source(WireError),
    Sink,
    TooLarge,
}

/// Moves bytes until one side must wait, or the turn is over.
pub(super) fn pump<A: Wire, B: Wire>(
    from: &mut A,
    to: &mut B,
    direction: &mut Direction,
    max: Option<u64>,
    keeps: &(dyn Fn(&[u8]) -> bool + Sync),
    cx: &mut Context<'_>,
) -> Result<Poll<()>, PumpError> {
    let mut held_since = (direction.blocked == Blocked::Sink).then_some(direction.moved);
    for _ in 0..TURN {
        if from.data().is_empty() {
            match from.poll_fill(cx) {
                Poll::Ready(Ok(Fill::Data)) => direction.moved = now(),
                Poll::Ready(Ok(Fill::End)) => {
                    direction.blocked = Blocked::Sink;
                    let kept = from.trailers().iter().filter(|(name, _)| keeps(name)).cloned().collect::<Vec<_>>();
                    let Poll::Ready(sent) = to.poll_finish(&kept, cx) else { return Ok(Poll::Pending) };
                    sent.map_err(|_broken| PumpError::Sink)?;
                    direction.done = true;
                    return Ok(Poll::Ready(()));
                }
                Poll::Ready(Err(e)) => return Err(PumpError::Source(e)),
                Poll::Pending => {
                    let flushed = to.poll_flush(cx);
                    direction.blocked = if flushed.is_pending() { Blocked::Sink } else { Blocked::Source };
                    if let Poll::Ready(Err(_)) = flushed {
                        return Err(PumpError::Sink);
                    }
                    return Ok(Poll::Pending);
                }
            }
        }
        let data = from.data();
        if max.is_some_and(|max| direction.bytes + data.len() as u64 > max) {
            return Err(PumpError::TooLarge);
        }
        direction.blocked = Blocked::Sink;
        let Poll::Ready(sent) = to.poll_send(data, cx) else {
            from.gather(cx);
            return Ok(Poll::Pending);
        };
        let sent = sent.map_err(|_broken| PumpError::Sink)?;
        from.consume(sent);
        direction.bytes += sent as u64;
        direction.moved = now();
        if let Some(since) = held_since.take() {
            direction.held += direction.moved.saturating_duration_since(since);
        }
    }
    direction.blocked = Blocked::Source;
    cx.waker().wake_by_ref();
    Ok(Poll::Pending)
}

#[cfg(test)]
mod tests;
