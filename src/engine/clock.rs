//! The two clocks, read in one place. Everything that decides takes the time as an argument.

use std::time::Instant;

use jiff::Timestamp;

use crate::moment::Now;

/// Reads the system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock;

impl Clock {
    /// Both clocks, now.
    pub(crate) fn now(self) -> Now {
        Now { wall: Timestamp::now(), mono: self.mono() }
    }

    /// The monotonic clock, now; Tokio's, so that tests can pause it.
    pub(crate) fn mono(self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}
