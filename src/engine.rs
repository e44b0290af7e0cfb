//! The request path: accepts connections, reads requests, asks admission, forwards what was admitted, and leaves through one exit.

use std::time::Duration;

use crate::http1::head::HeadLimits;

/// What the gate accepts from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestSettings {
    /// Bounds on a head.
    pub head: HeadLimits,
    /// Most bytes of a body; `None` is no bound.
    pub max_body_bytes: Option<u64>,
    /// Time for a whole head.
    pub header_timeout: Duration,
    /// Between bytes of a body.
    pub body_idle_timeout: Duration,
    /// Bytes a second, averaged, after the first ten seconds.
    pub body_min_rate: u64,
    /// Between requests of a connection.
    pub keepalive_timeout: Duration,
    /// For one write to a client to make progress.
    pub write_timeout: Duration,
}
