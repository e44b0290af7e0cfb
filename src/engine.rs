//! The request path: accepts connections, reads requests, asks admission, forwards what was admitted, and leaves through one
//! exit. Read `accept` (a connection comes in), `connection` (a head is read), `exchange` (one request, top to bottom) and
//! `forward` in this order.

pub(crate) mod abort;
pub(crate) mod accept;
pub(crate) mod answer_h1;
pub(crate) mod buffer;
pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod connection;
pub(crate) mod ending;
pub(crate) mod exchange;
pub(crate) mod exchange_h1;
pub(crate) mod forward;
pub(crate) mod key_watch;
pub(crate) mod peer;
pub(crate) mod policy;
pub(crate) mod relay;
pub(crate) mod reply;
pub(crate) mod report;
pub(crate) mod respond;
pub(crate) mod watchdog;
pub(crate) mod wire;
pub(crate) mod wire_h1;
pub(crate) mod worker;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch;

use crate::access_log::AccessLog;
use crate::http1::head::HeadLimits;
use crate::keyring::Keyring;
use crate::limit::limiter::Limiter;
use crate::limit::throttle::Throttle;
use crate::listener::bounds::ConnectionCounts;
use crate::metrics::Metrics;
use crate::session::SessionSecret;

/// What all workers share.
pub(crate) struct Gate {
    /// The configuration in force.
    pub(crate) policy: ArcSwap<policy::Policy>,
    /// The keys in force.
    pub(crate) keyring: Arc<ArcSwap<Keyring>>,
    /// Bumped after every swap of either: open exchanges ask again whether they may go on.
    pub(crate) epoch: watch::Receiver<u64>,
    /// Whether the gate is going away; tunnels end by it, the rest by the closing of its listener.
    pub(crate) draining: watch::Receiver<bool>,
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) throttle: ArcSwapOption<Throttle>,
    /// Signs browser logins; `None` where no cookie is a credential.
    pub(crate) session: ArcSwapOption<SessionSecret>,
    pub(crate) connections: Arc<ConnectionCounts>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) access_log: AccessLog,
    pub(crate) clock: clock::Clock,
}

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
