//! Notices a changed key file and swaps in a new keyring, or keeps the old one and complains. Notifications make it
//! quick, looking five times a second makes it sure, and one thread reads, parses and frees, so one file is in work at a time.

mod hints;
mod thread;
mod watcher;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::keyring::Keyring;
use crate::keyring::file::{self, Problem};
use crate::keyring::source::{self, ReadError, Source, SourceFacts, Stamp};
use hints::Hints;
use thread::{KeyThread, Panicked};
use watcher::{Content, Glance, Look, Verdict, Watcher};

/// Notifications closer together than this are one.
const SPACING: Duration = Duration::from_millis(20);

/// What became of a look at the key file, for the log and the metrics.
#[derive(Debug)]
pub enum ReloadOutcome {
    /// A new set of keys is in force.
    Loaded {
        /// How many keys it has.
        count: usize,
        /// [`Keyring::digest`] of it.
        digest: String,
        /// Time to read, check and index it; the time to notice the change is not in it.
        duration: Duration,
        /// What is odd about it.
        warnings: Vec<Problem>,
    },
    /// It was written again with the content it had.
    Unchanged,
    /// It is bad and the old set stays. Told once for one content.
    Rejected {
        /// Everything that is wrong.
        problems: Vec<Problem>,
    },
}

/// A key file that was read, checked and indexed.
pub struct Loaded {
    /// The keys.
    pub keyring: Keyring,
    /// What is odd about the file.
    pub warnings: Vec<Problem>,
    facts: SourceFacts,
    content: Content,
    /// Where it was read, and where the files after it will be.
    thread: KeyThread,
}

/// What a file amounts to.
struct Built {
    keyring: Keyring,
    warnings: Vec<Problem>,
    facts: SourceFacts,
    content: Content,
}

/// Reads, checks and indexes the key file at `path`, as the start of the gate and `check` do.
///
/// Errors: every problem found, in the order of lines.
pub fn load(path: &Path) -> Result<Loaded, Vec<Problem>> {
    let no_thread = |error| vec![Problem::of_file(format!("no thread can be had to read the key file: {error}"), None)];
    let thread = KeyThread::new().map_err(no_thread)?;
    let path = path.to_owned();
    let Built { keyring, warnings, facts, content } =
        thread.run_blocking(move || load_here(&path)).unwrap_or_else(|Panicked| Err(failed_inside()))?;
    Ok(Loaded { keyring, warnings, facts, content, thread })
}

fn load_here(path: &Path) -> Result<Built, Vec<Problem>> {
    let mut read = source::read(path);
    // At a start there is no old set to fall back on: give a writer a moment.
    for _ in 0..10 {
        if !matches!(read, Err(ReadError::Changing)) {
            break;
        }
        std::thread::sleep(SPACING);
        read = source::read(path);
    }
    let content = Content::of(&read);
    build(read, content, None)
}

/// Owns the watch over one key file and the keyring that everybody reads.
pub struct Reloader {
    path: PathBuf,
    keyring: Arc<ArcSwap<Keyring>>,
    generation: watch::Sender<u64>,
    facts: Arc<SourceFacts>,
    thread: KeyThread,
    watcher: Watcher,
    /// Keyrings no longer in force that a request may still hold: dropped here, so that no request pays for it.
    retired: Vec<Arc<Keyring>>,
    /// Whether a file that never holds still was complained of.
    told: bool,
    report: Report,
}

type Report = Box<dyn FnMut(ReloadOutcome) + Send>;

impl Reloader {
    /// Begins with what [`load`] read from `path`; `report` is told of every later change. Nothing is watched until
    /// [`Reloader::run`].
    pub fn new(path: PathBuf, loaded: Loaded, report: impl FnMut(ReloadOutcome) + Send + 'static) -> Self {
        Self {
            path,
            keyring: Arc::new(ArcSwap::from_pointee(loaded.keyring)),
            generation: watch::Sender::new(0),
            facts: Arc::new(loaded.facts),
            thread: loaded.thread,
            watcher: Watcher::new(loaded.content, Instant::now()),
            retired: Vec::new(),
            told: false,
            report: Box::new(report),
        }
    }

    /// The keyring in force, swapped whole at each reload.
    pub fn keyring(&self) -> Arc<ArcSwap<Keyring>> {
        Arc::clone(&self.keyring)
    }

    /// Counts the reloads: a change means that a new keyring is in force and open connections must ask it again
    /// (design rule 8).
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Watches until `shutdown` becomes true or its sender is gone. A file being read at that moment is left.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => {}
            () = self.watch() => {}
        }
    }

    async fn watch(&mut self) {
        let mut hints = Hints::new();
        let mut look_by = Instant::now();
        loop {
            hints = hints.renewed(&self.path).await;
            hints.wait_until(look_by, SPACING).await;
            self.drop_retired();
            let path = self.path.clone();
            // Even `stat` may hang on a network file system, so it is not for a thread that serves.
            let seen = self.thread.run(move || Stamp::of(&path).map_err(ReadError::from)).await;
            let Ok(seen) = seen else {
                look_by = Instant::now() + watcher::POLL;
                continue;
            };
            look_by = self.step(&seen, &mut hints).await;
        }
    }

    /// Does what one look calls for. Returns when to look again.
    async fn step(&mut self, seen: &Look, hints: &mut Hints) -> Instant {
        if let Glance::Rest(until) = self.watcher.look(seen, Instant::now()) {
            return until;
        }
        let path = self.path.clone();
        let began = Instant::now();
        let read = self.thread.run(move || {
            let read = source::read(&path);
            (Content::of(&read), read)
        });
        let Ok((content, read)) = read.await else { return Instant::now() + watcher::POLL };
        let verdict = self.watcher.read(content.clone(), Instant::now());
        match verdict {
            Verdict::Wait(until) => return until,
            Verdict::Same => {}
            Verdict::Unchanged => {
                hints.expire();
                (self.report)(ReloadOutcome::Unchanged);
            }
            Verdict::Take => {
                hints.expire();
                if let Err(problems) = self.take(read, content).await {
                    (self.report)(ReloadOutcome::Rejected { problems });
                }
            }
            Verdict::Restless => {
                self.complain(vec![Problem::of_file(
                    "the key file never holds still and was not taken",
                    Some("write a new file beside it and rename that over it; end it with a line `...`"),
                )]);
                return self.watcher.not_yet(Instant::now(), began.elapsed());
            }
            Verdict::Force => {
                let started = Instant::now();
                match self.take(read, content).await {
                    Ok(()) => {
                        hints.expire();
                        self.watcher.taken();
                    }
                    Err(problems) => {
                        self.complain(problems);
                        return self.watcher.not_yet(Instant::now(), started.elapsed());
                    }
                }
            }
        }
        self.told = false;
        Instant::now() + watcher::POLL
    }

    /// Tells once of a file that does not hold still.
    fn complain(&mut self, problems: Vec<Problem>) {
        if !std::mem::replace(&mut self.told, true) {
            (self.report)(ReloadOutcome::Rejected { problems });
        }
    }

    /// Builds a keyring of what was read and puts it in force.
    async fn take(&mut self, read: Result<Source, ReadError>, content: Content) -> Result<(), Vec<Problem>> {
        let started = Instant::now();
        let facts = Arc::clone(&self.facts);
        let building = self.thread.run(move || build(read, content, Some(&facts)));
        let built = building.await.unwrap_or_else(|Panicked| Err(failed_inside()))?;
        let (count, digest) = (built.keyring.len(), built.keyring.digest());
        self.thread.free(std::mem::replace(&mut self.facts, Arc::new(built.facts)));
        self.retired.push(self.keyring.swap(Arc::new(built.keyring)));
        self.generation.send_modify(|generation| *generation += 1);
        let duration = started.elapsed();
        (self.report)(ReloadOutcome::Loaded { count, digest, duration, warnings: built.warnings });
        Ok(())
    }

    /// Frees retired keyrings that nobody holds any more, where they were made and off the threads that serve requests.
    fn drop_retired(&mut self) {
        let (held, free): (Vec<_>, Vec<_>) = self.retired.drain(..).partition(|keyring| Arc::strong_count(keyring) > 1);
        self.retired = held;
        if !free.is_empty() {
            self.thread.free(free);
        }
    }
}

/// Judges what was read, with the file in force in mind, and indexes it.
fn build(
    read: Result<Source, ReadError>,
    content: Content,
    in_force: Option<&SourceFacts>,
) -> Result<Built, Vec<Problem>> {
    let source = read.map_err(|error| vec![Problem::from(error)])?;
    if let Some(cut) = in_force.and_then(|facts| facts.cut(&source.bytes)) {
        return Err(vec![cut]);
    }
    let text = file::decode(&source.bytes).map_err(|problem| vec![problem])?;
    let parsed = file::parse(text)?;
    let mut warnings = source.warnings(rustix::process::geteuid().as_raw());
    warnings.extend(parsed.warnings);
    let keyring = parsed.keyring.with_digest(content.digest().unwrap_or_default());
    Ok(Built { keyring, warnings, facts: SourceFacts::of(source.bytes), content })
}

fn failed_inside() -> Vec<Problem> {
    vec![Problem::of_file("reading the key file failed inside the gate", None)]
}

#[cfg(test)]
mod tests;
