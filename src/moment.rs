//! The time, handed in. Deciding rooms never read a clock: whoever calls them says what time it is.

use std::time::Instant;

use jiff::Timestamp;

/// One reading of both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The wall clock: expiry dates, windows of quotas, logs. May be set back.
    pub wall: Timestamp,
    /// The monotonic clock: rates, deadlines, durations.
    pub mono: Instant,
}
