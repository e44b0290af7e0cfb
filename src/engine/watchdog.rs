//! One timer for a whole connection. Deadlines move with every byte; arming a timer each time would cost more than the
//! byte, so the timer is left armed at an earlier moment and set anew only when it fires too soon.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::{Sleep, sleep_until};

/// A deadline that is cheap to move.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Watchdog {
    /// `Ready` when `deadline` has passed. Must be polled again after every change of the deadline.
    pub(crate) fn poll_expired(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = tokio::time::Instant::from_std(deadline);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline || sleep.is_elapsed() {
            sleep.as_mut().reset(deadline);
        }
        loop {
            match sleep.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) if sleep.deadline() >= deadline => return Poll::Ready(()),
                Poll::Ready(()) => sleep.as_mut().reset(deadline),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_may_move_both_ways() {
        let mut watchdog = Watchdog::default();
        let start = tokio::time::Instant::now();
        let at = |millis| (start + Duration::from_millis(millis)).into_std();
        let mut polls = [at(500), at(100)].into_iter();
        let mut deadline = at(1000);
        poll_fn(|cx| {
            if let Some(earlier) = polls.next() {
                deadline = earlier;
                cx.waker().wake_by_ref();
            }
            watchdog.poll_expired(deadline, cx)
        })
        .await;
        assert_eq!(start.elapsed(), Duration::from_millis(100));
        poll_fn(|cx| watchdog.poll_expired(at(700), cx)).await;
        assert_eq!(start.elapsed(), Duration::from_millis(700));
    }
}
