//! Certificates that are replaced on disk come into force within a second; a bad pair changes nothing but a report.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use tokio::time::{self, MissedTickBehavior};

use super::certificate::{Certificate, Pair, PairDigest};
use super::store::CertificateStore;
use super::watch::{LOOK_EVERY, Look, Stamp, Watch};
use super::{CertificateFiles, TlsProblem};

/// What came of a change on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reload {
    /// A new certificate is in force.
    Swapped {
        /// Its file.
        cert: PathBuf,
        /// When it expires.
        not_after: Timestamp,
    },
    /// The pair cannot be used; the old one stays.
    Refused(TlsProblem),
}

/// Who is told: metrics.
pub type ReloadReport = dyn Fn(&Reload) + Send + Sync;

/// Watches the files of one store.
pub struct Reloader {
    store: Arc<CertificateStore>,
    pairs: Vec<WatchedPair>,
}

#[derive(Default)]
struct WatchedPair {
    watch: Watch<2>,
    /// What was refused last: the same fault is not reported twice.
    refused: Option<Refused>,
}

#[derive(PartialEq, Eq)]
enum Refused {
    Unusable(PairDigest),
    Unreadable(TlsProblem),
}

/// Follows the files of `store` for ever.
pub async fn keep_current(store: Arc<CertificateStore>, report: Arc<ReloadReport>) {
    keep_looking(move || Reloader::new(store.clone()), Reloader::look, |reload| report(&reload)).await;
}

/// Looks at files by `look` every [`LOOK_EVERY`], for ever, and tells what it gives. `begin` makes what knows the files, at
/// the start and after a panic.
pub(crate) async fn keep_looking<W, T>(begin: impl Fn() -> W, look: fn(&mut W, Instant) -> Vec<T>, told: impl Fn(T))
where
    W: Send + 'static,
    T: Send + 'static,
{
    let mut watcher = begin();
    let mut tick = time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        // Files can hang (a network mount): never on a thread that serves.
        let looking = tokio::task::spawn_blocking(move || {
            let news = look(&mut watcher, Instant::now());
            (watcher, news)
        });
        let (back, news) = match looking.await {
            Ok(looked) => looked,
            Err(error) if error.is_panic() => {
                tracing::error!("a look at the certificate files failed inside the gate");
                (begin(), Vec::new())
            }
            Err(_cancelled) => return,
        };
        watcher = back;
        news.into_iter().for_each(&told);
    }
}

impl Reloader {
    /// Begins to watch. The first looks read the files once more, so that nothing between the store's load and now is missed.
    pub fn new(store: Arc<CertificateStore>) -> Self {
        let pairs = store.files().iter().map(|_| WatchedPair::default()).collect();
        Self { store, pairs }
    }

    /// One look at all files; swaps in what changed and is good. Blocks on the file system.
    pub fn look(&mut self, now: Instant) -> Vec<Reload> {
        let mut reloads = Vec::new();
        let current = self.store.certificates();
        for (index, (files, in_force)) in self.store.files().iter().zip(current).enumerate() {
            let Some(pair) = self.pairs.get_mut(index) else { continue };
            match pair.look(files, in_force.digest, now) {
                Some(Ok(certificate)) => {
                    let not_after = certificate.not_after();
                    tracing::info!(cert = %files.cert.display(), %not_after, "certificate replaced");
                    self.store.replace(index, certificate);
                    reloads.push(Reload::Swapped { cert: files.cert.clone(), not_after });
                }
                Some(Err(problem)) => {
                    tracing::error!(error = %problem, "certificate not replaced; the old one stays in force");
                    reloads.push(Reload::Refused(problem));
                }
                None => {}
            }
        }
        reloads
    }
}

#[cfg(test)]
impl Reloader {
    /// Takes the files as they are now for read, as on a file system whose stat does not tell of a change.
    pub(super) fn forget_change(&mut self) {
        for (files, pair) in self.store.files().iter().zip(&mut self.pairs) {
            pair.watch.assume_read(stamps(files));
        }
    }
}

impl WatchedPair {
    /// A certificate to put in force, a fault to report, or nothing new.
    fn look(
        &mut self,
        files: &CertificateFiles,
        in_force: PairDigest,
        now: Instant,
    ) -> Option<Result<Certificate, TlsProblem>> {
        let seen = stamps(files);
        if !self.watch.look(seen, now) {
            return None;
        }
        let read = Pair::read(files);
        if stamps(files) != seen {
            // Written while it was read. The next look sees other stamps and waits for them to hold still.
            return None;
        }
        let (refusal, problem) = match read {
            Ok(pair) if pair.digest() == in_force => {
                self.refused = None;
                return None;
            }
            Ok(pair) => match Certificate::parse(files, &pair) {
                Ok(certificate) => {
                    self.refused = None;
                    return Some(Ok(certificate));
                }
                Err(problem) => (Refused::Unusable(pair.digest()), problem),
            },
            Err(problem) => (Refused::Unreadable(problem.clone()), problem),
        };
        let known = self.refused.as_ref() == Some(&refusal);
        self.refused = Some(refusal);
        (!known).then_some(Err(problem))
    }
}

fn stamps(files: &CertificateFiles) -> Look<2> {
    [stamp(&files.cert), stamp(&files.key)]
}

/// Follows symbolic links: what counts is the file that would be read, however the link to it changed.
pub(crate) fn stamp(path: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(path).ok()?;
    Some(Stamp {
        file: (meta.dev(), meta.ino()),
        len: meta.len(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    })
}
