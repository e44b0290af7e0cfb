//! What the tasks of one worker share: the gate, and what belongs to this thread alone (decision 32).

use std::sync::Arc;
use std::time::Duration;

use super::Gate;
use crate::access_log;
use crate::upstream::pool::Pool;
use crate::upstream::sessions::Sessions;

/// How often [`Worker::sweep`] looks.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What a worker's tasks share.
pub(crate) struct Worker {
    pub(crate) gate: Arc<Gate>,
    pub(crate) pool: Pool,
    pub(crate) sessions: Sessions,
    pub(crate) access_log: access_log::Handle,
}

impl Worker {
    /// Lets go of upstream connections that are of no more use, once a second, for ever.
    pub(crate) async fn sweep(&self) {
        let mut tick = tokio::time::interval(SWEEP_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let now = self.gate.clock.mono();
            self.pool.sweep(now);
            self.sessions.sweep(now);
        }
    }

    /// Sixteen random bytes; zeros if the system has none, which no caller uses as a secret.
    pub(crate) fn random(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        if let Err(error) = getrandom::fill(&mut bytes) {
            tracing::warn!(%error, "no random bytes");
        }
        bytes
    }

    /// A random word, for choosing among servers.
    pub(crate) fn random_word(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.random();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}
