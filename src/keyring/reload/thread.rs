//! The one thread on which key files are read and keyrings are made and freed. One, so that no two are made at a time; lasting,
//! because the allocator keeps what a thread freed for that thread, and with many of them memory grows by each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Sender};
use std::{io, thread};

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that does one job after another, in the order given, and ends with this handle.
pub(super) struct KeyThread {
    jobs: Sender<Job>,
}

/// A job that panicked. The thread goes on.
#[derive(Debug)]
pub(super) struct Panicked;

impl KeyThread {
    /// Fails when the system has no thread to give.
    pub(super) fn new() -> io::Result<Self> {
        let (jobs, waiting) = mpsc::channel::<Job>();
        thread::Builder::new().name("keys".to_owned()).spawn(move || {
            for job in waiting {
                // The hook has told of a panic, and whoever waits for the job sees that nothing came of it.
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
        })?;
        Ok(Self { jobs })
    }

    /// Does `work` when all jobs before it are done.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Panicked> {
        let (done, result) = oneshot::channel();
        self.begin(move || {
            let _ = done.send(work());
        });
        result.await.map_err(|_dropped| Panicked)
    }

    /// As [`KeyThread::run`], for a caller that may block.
    pub(super) fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Panicked> {
        let (done, result) = mpsc::sync_channel(1);
        self.begin(move || {
            let _ = done.send(work());
        });
        result.recv().map_err(|_dropped| Panicked)
    }

    /// Frees `value` when all jobs before are done; nobody waits for it.
    pub(super) fn free<T: Send + 'static>(&self, value: T) {
        self.begin(move || drop(value));
    }

    fn begin(&self, job: impl FnOnce() + Send + 'static) {
        // Only a thread that is gone takes no job; whoever waits then hears that its other end was dropped.
        let _ = self.jobs.send(Box::new(job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn jobs_never_overlap_and_keep_their_order() {
        let keys = KeyThread::new().expect("a thread");
        let (inside, begun) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let jobs = (0..200).map(|number| {
            let (inside, begun) = (inside.clone(), begun.clone());
            keys.run(move || {
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "another job is under way");
                assert_eq!(begun.fetch_add(1, Ordering::SeqCst), number);
                thread::yield_now();
                inside.fetch_sub(1, Ordering::SeqCst);
                thread::current().id()
            })
        });
        let threads = futures_util::future::join_all(jobs).await;
        let threads: Vec<_> = threads.into_iter().map(|thread| thread.expect("no overlap")).collect();
        assert!(threads.iter().all(|thread| *thread == threads[0] && *thread != thread::current().id()));
    }

    #[tokio::test]
    async fn a_panic_costs_one_job() {
        let keys = KeyThread::new().expect("a thread");
        let before = keys.run(|| thread::current().id()).await.expect("done");
        assert!(keys.run(|| panic!("on purpose")).await.is_err());
        assert_eq!(keys.run(|| thread::current().id()).await.expect("done"), before);
    }
}
