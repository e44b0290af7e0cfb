//! What the tasks of one worker share: the gate, and what belongs to this thread alone (decision 32).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Gate;
use crate::access_log;
use crate::upstream::pool::Pool;
use crate::upstream::sessions::Sessions;

/// How often [`Worker::sweep`] looks.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Random bytes asked of the system at once: a system call for each request would cost more than all that is made of them.
const RANDOM_BYTES: usize = 512;

/// What a worker's tasks share.
pub(crate) struct Worker {
    pub(crate) gate: Arc<Gate>,
    pub(crate) pool: Pool,
    pub(crate) sessions: Sessions,
    pub(crate) access_log: access_log::Handle,
    /// Never contended: one thread.
    pub(crate) random: Mutex<Random>,
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
        self.random.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A random word, for choosing among servers.
    pub(crate) fn random_word(&self) -> u64 {
        u64::from_le_bytes(self.random.lock().unwrap_or_else(PoisonError::into_inner).take())
    }
}

/// Random bytes of the system, each given out once.
pub(crate) struct Random {
    bytes: [u8; RANDOM_BYTES],
    used: usize,
    fill: fn(&mut [u8]) -> bool,
}

impl Default for Random {
    fn default() -> Self {
        Self::of(|bytes| getrandom::fill(bytes).inspect_err(|error| tracing::warn!(%error, "no random bytes")).is_ok())
    }
}

impl Random {
    /// Bytes of another source, which says whether it had any.
    fn of(fill: fn(&mut [u8]) -> bool) -> Self {
        Self { bytes: [0; RANDOM_BYTES], used: RANDOM_BYTES, fill }
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        if self.used + N > RANDOM_BYTES {
            if !(self.fill)(&mut self.bytes) {
                return [0; N];
            }
            self.used = 0;
        }
        let taken = self.bytes.get(self.used..).and_then(<[u8]>::first_chunk).copied();
        self.used += N;
        taken.unwrap_or([0; N])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_are_given_out_once() {
        let mut random = Random::default();
        let mut seen: Vec<[u8; 16]> = (0..RANDOM_BYTES).map(|_| random.take()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), RANDOM_BYTES, "sixteen bytes came twice");
    }

    #[test]
    fn bytes_of_two_sizes_never_overlap() {
        let mut random = Random::of(|bytes| {
            bytes.iter_mut().zip(0u16..).for_each(|(byte, at)| *byte = (at / 8) as u8);
            true
        });
        // Eights numbered from 0 to 63, then from 0 again.
        let words: Vec<u8> = (0..100).map(|_| random.take::<8>()[0]).collect();
        assert_eq!(words[..3], [0, 1, 2]);
        assert_eq!(words[62..66], [62, 63, 0, 1]);
        assert_eq!((random.take::<16>()[8], random.take::<8>()[0]), (37, 38));
    }

    #[test]
    fn without_random_bytes_there_are_zeros_and_another_try() {
        let mut random = Random::of(|_| false);
        assert_eq!((random.take::<16>(), random.take::<8>()), ([0; 16], [0; 8]));
        random.fill = |bytes| {
            bytes.fill(7);
            true
        };
        assert_eq!(random.take::<8>(), [7; 8]);
    }
}
