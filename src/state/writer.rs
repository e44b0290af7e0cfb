//! The thread that writes the state: every two seconds and at the end, so that a slow or full disk delays no request.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;

use super::store::Store;
use super::{Batch, StateError};
use crate::limit::activity::{Activity, day_of};
use crate::limit::limiter::Limiter;
use crate::metrics::{Metrics, StateWrite};

/// How often it writes. A process that is killed loses what came after the last write.
const EVERY: Duration = Duration::from_secs(2);

/// What is yet to be written, and where to.
pub struct Writer {
    path: PathBuf,
    limiter: Arc<Limiter>,
    metrics: Arc<Metrics>,
    store: Option<Store>,
    pending: Batch,
    is_failing: bool,
    pruned_on: i64,
    /// What the runs before this one counted is known.
    has_resumed: bool,
    /// That others write the file was told.
    told_of_others: bool,
}

/// The running thread.
pub struct Running {
    stop: mpsc::Sender<()>,
    done: mpsc::Receiver<()>,
}

impl Writer {
    /// A writer of what `limiter` counts ([`Limiter::recorded`]) to the file at `path`. The first [`Writer::round`] opens it.
    pub fn new(path: PathBuf, limiter: Arc<Limiter>, metrics: Arc<Metrics>) -> Self {
        let (store, pending) = (None, Batch::default());
        Self {
            path,
            limiter,
            metrics,
            store,
            pending,
            is_failing: false,
            pruned_on: 0,
            has_resumed: false,
            told_of_others: false,
        }
    }

    /// Takes what was counted and writes it; what cannot be written waits for the next round. Opens the file where it is not
    /// open, and then gives the limiter what it holds of quotas.
    pub fn round(&mut self, now: Timestamp) {
        let pending = &mut self.pending;
        self.limiter.take_activity(|id, activity, quotas| pending.add(id, activity, quotas.into_iter().flatten()));
        match self.write(now) {
            Ok(wrote) => {
                if wrote {
                    self.metrics.state_write(StateWrite::Success);
                }
                self.metrics.set_state_last_success(now);
                if self.is_failing {
                    tracing::info!(file = %self.path.display(), "the state is written again");
                }
                self.is_failing = false;
            }
            Err(error) => {
                self.metrics.state_write(StateWrite::Failure);
                if !error.is_passing() {
                    self.store = None;
                }
                if !self.is_failing {
                    let file = self.path.display();
                    tracing::error!(%file, %error, "the state cannot be written; the gate counts on in memory");
                }
                self.is_failing = true;
            }
        }
    }

    /// Whether there was something to write.
    fn write(&mut self, now: Timestamp) -> Result<bool, StateError> {
        let mut store = match self.store.take().and_then(Store::if_in_place) {
            Some(store) => store,
            None => self.open(now)?,
        };
        let written = self.write_to(&mut store, now);
        self.store = Some(store);
        written
    }

    fn write_to(&mut self, store: &mut Store, now: Timestamp) -> Result<bool, StateError> {
        if store.others_wrote()? && !self.told_of_others {
            let (file, hint) = (self.path.display(), "each gate counts quotas alone, and needs a file of its own");
            tracing::error!(%file, hint, "another process writes the state file, too");
            self.told_of_others = true;
        }
        if day_of(now.as_second()) != self.pruned_on {
            store.prune(now)?;
            self.pruned_on = day_of(now.as_second());
        }
        if self.pending.is_empty() {
            return Ok(false);
        }
        store.write(&self.pending)?;
        self.pending.clear();
        Ok(true)
    }

    /// Opens the file and exchanges quotas with it: after a damage it knows none, after a restart the limiter knows none.
    fn open(&mut self, now: Timestamp) -> Result<Store, StateError> {
        let opened = Store::open(&self.path, now)?;
        if let Some(aside) = &opened.put_aside {
            self.metrics.state_write(StateWrite::Damaged);
            let (file, aside) = (self.path.display(), aside.display());
            tracing::error!(%file, %aside, "the state file was damaged: it was put aside and a new one begun");
        }
        for (id, count) in opened.store.load(now)? {
            // A file that is opened again holds what was counted here, or is another.
            if self.has_resumed {
                self.limiter.restore_quota(&id, count);
            } else {
                self.limiter.resume_quota(&id, count);
            }
        }
        self.has_resumed = true;
        let pending = &mut self.pending;
        self.limiter.quota_counts(|id, count| pending.add(id, Activity::default(), [count]));
        Ok(opened.store)
    }

    /// Goes on in a thread of its own.
    pub fn start(mut self, clock: impl Fn() -> Timestamp + Send + 'static) -> io::Result<Running> {
        let (stop, stopped) = mpsc::channel();
        let (finished, done) = mpsc::channel();
        thread::Builder::new().name("state".to_owned()).spawn(move || {
            while stopped.recv_timeout(EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                self.round(clock());
            }
            self.round(clock());
            if !self.pending.is_empty() {
                let file = self.path.display();
                tracing::error!(%file, "the last counts could not be written and are lost");
            }
            drop(self);
            // Nobody may wait for it any more.
            let _ = finished.send(());
        })?;
        Ok(Running { stop, done })
    }
}

impl Running {
    /// Writes what is left, and waits so long for it.
    pub fn finish(self, wait: Duration) {
        let asked = self.stop.send(()).is_ok();
        if !asked || self.done.recv_timeout(wait).is_err() {
            tracing::error!("the last counts were not written in time");
        }
    }
}
