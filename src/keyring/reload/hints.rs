//! Notifications that the key file may have changed. They are only hints: they may come late, twice, for a neighbour or
//! never, and whoever waits for one looks at the file in any case.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{sleep_until, timeout_at};

/// Links followed at most, as the kernel does.
const MAX_LINKS: usize = 40;

/// A watch over the folders through which a path leads.
pub(super) struct Hints {
    changed: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    watched: HashSet<PathBuf>,
    expired: bool,
}

impl Hints {
    /// A watch over nothing yet. Where the system has no notifications to give, none will come.
    pub(super) fn new() -> Self {
        let changed = Arc::new(Notify::new());
        let bell = Arc::clone(&changed);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Our own reading makes access events.
            if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
                bell.notify_one();
            }
        });
        Self { changed, watcher: watcher.ok(), watched: HashSet::new(), expired: true }
    }

    /// Says that the path may lead through other folders now.
    pub(super) fn expire(&mut self) {
        self.expired = true;
    }

    /// Watches the folders through which `path` leads now, if that may have changed. Folders, not the file: an editor's
    /// rename leaves a watch on the file with the old one. Runs on a thread that may block.
    pub(super) async fn renewed(mut self, path: &Path) -> Self {
        if !self.expired {
            return self;
        }
        let path = path.to_owned();
        let renewed = spawn_blocking(move || {
            self.watch(folders(&path));
            self
        });
        renewed.await.unwrap_or_else(|_| Self::new())
    }

    fn watch(&mut self, folders: HashSet<PathBuf>) {
        self.expired = false;
        let Some(watcher) = &mut self.watcher else { return };
        for old in self.watched.difference(&folders) {
            // It may be gone already, and its watch with it.
            let _ = watcher.unwatch(old);
        }
        // Watching again what is watched renews a watch whose folder was replaced under the same name.
        let watched = |folder: &PathBuf| watcher.watch(folder, RecursiveMode::NonRecursive).is_ok();
        self.watched = folders.into_iter().filter(watched).collect();
    }

    /// Waits for a hint, at the latest until `latest`, and at least for `spacing`, so that a busy folder costs little.
    pub(super) async fn wait_until(&self, latest: Instant, spacing: Duration) {
        let earliest = Instant::now() + spacing;
        let _ = timeout_at(latest.into(), self.changed.notified()).await;
        sleep_until(earliest.min(latest).into()).await;
    }
}

/// The folder of `path` and, while that is a link, the folder of what it leads to.
fn folders(path: &Path) -> HashSet<PathBuf> {
    let mut folders = HashSet::new();
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let folder = match path.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        // Both names: the resolved one keeps its watch when a folder on the way is swapped.
        folders.extend(folder.canonicalize());
        let Ok(target) = std::fs::read_link(&path) else { break };
        path = folder.join(target);
        folders.insert(folder);
    }
    folders
}
