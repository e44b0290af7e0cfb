//! The state file: what is written comes back, and what can stand in its place.

mod damage;
mod trouble;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

use super::reader::{self, Reader};
use super::store::Store;
use super::writer::Writer;
use super::*;
use crate::limit::limiter::{Ask, Caller, Limiter};
use crate::limit::{Limits, Quota, QuotaWindow};
use crate::metrics::Metrics;
use crate::moment::Now;

struct Folder {
    folder: tempfile::TempDir,
    limits: Limits,
    now: Timestamp,
    mono: Instant,
}

/// A gate's counting and its writer.
struct World {
    limiter: Arc<Limiter>,
    metrics: Arc<Metrics>,
    writer: Writer,
}

impl Folder {
    fn new(quota: Option<(u64, QuotaWindow)>) -> Self {
        let quota = quota.map(|(requests, per)| Quota { requests: requests.try_into().expect("some"), per });
        Self {
            // Memory, where there is some: these tests are not about how long a disk takes.
            folder: tempfile::tempdir_in("/dev/shm").or_else(|_none| tempfile::tempdir()).expect("a folder"),
            limits: Limits { quota, ..Limits::default() },
            now: "2026-03-15T12:00:00Z".parse().expect("a time"),
            mono: Instant::now(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("state.db")
    }

    fn world(&self) -> World {
        let limiter = Arc::new(Limiter::new(16).recorded());
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let writer = Writer::new(self.path(), limiter.clone(), metrics.clone());
        World { limiter, metrics, writer }
    }

    /// A gate that has started with what the file holds.
    fn started(&self) -> World {
        let mut world = self.world();
        world.writer.round(self.now);
        world
    }

    /// How many of `tries` requests by the key are admitted.
    fn ask(&self, world: &World, id: &str, tries: usize) -> usize {
        let id = KeyId::new(id);
        let ask = Ask { caller: Caller::Key(&id, &self.limits), route: None, websocket: false };
        let now = Now { wall: self.now, mono: self.mono };
        (0..tries).filter(|_| world.limiter.admit(&ask, now).is_ok()).count()
    }

    /// What the reader says of a key: today and in total.
    fn read(&self, id: &str) -> Option<(u64, u64)> {
        self.activity(id).map(|activity| (activity.today, activity.total))
    }

    fn activity(&self, id: &str) -> Option<reader::Activity> {
        let reader = Reader::open(&self.path()).expect("readable")?;
        reader.activity(self.now).expect("readable").remove(&KeyId::new(id))
    }

    /// What is in the folder, by name.
    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder.path()).expect("a folder").map(|entry| entry.expect("one").file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().expect("text")).collect();
        names.sort();
        names
    }

    /// Files put aside, those of SQLite beside them not counted.
    fn aside(&self) -> usize {
        self.names().iter().filter(|name| name.contains(".damaged-") && name.ends_with('Z')).count()
    }
}

impl World {
    fn writes(&self, result: &str) -> String {
        let page = self.metrics.encode().expect("text");
        let name = format!("keygate_state_writes_total{{result=\"{result}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&name)).expect("the metric").to_owned()
    }
}

/// A file of 500 keys.
fn full(path: &Path) {
    let mut store = Store::open(path, Timestamp::UNIX_EPOCH).expect("opens").store;
    store.write(&batch(500)).expect("writes");
}

/// One request of each of so many keys.
fn batch(keys: usize) -> Batch {
    let mut batch = Batch::default();
    let did = Activity { requests: 1, on_day: 1, day: 0, last_used: 0 };
    (0..keys).for_each(|number| batch.add(&KeyId::new(&format!("key-{number}")), did, []));
    batch
}

fn sql(path: &Path, statement: &str) {
    rusqlite::Connection::open(path).expect("opens").execute_batch(statement).expect("runs");
}

#[test]
fn quotas_and_counts_outlive_a_restart_exactly() {
    for per in [QuotaWindow::Hour, QuotaWindow::Day, QuotaWindow::Month] {
        let mut folder = Folder::new(Some((10, per)));
        let mut first = folder.started();
        assert_eq!(folder.ask(&first, "alice", 3), 3);
        first.writer.round(folder.now);
        assert_eq!(folder.ask(&first, "alice", 1), 1);
        first.writer.round(folder.now);
        // Nothing is counted twice when there is nothing new.
        first.writer.round(folder.now);
        drop(first);
        let second = folder.started();
        assert_eq!(folder.ask(&second, "alice", 20), 6, "{per:?}");
        assert_eq!(folder.ask(&second, "bob", 20), 10, "{per:?}");
        assert_eq!(folder.read("alice"), Some((4, 4)), "{per:?}");
        // In the next window it is as it was at first.
        folder.now += SignedDuration::from_hours(31 * 24);
        assert_eq!(folder.ask(&folder.started(), "alice", 20), 10, "{per:?}");
    }
}

#[test]
fn a_clock_set_back_over_a_restart_finds_both_windows() {
    let mut folder = Folder::new(Some((10, QuotaWindow::Day)));
    let noon = folder.now;
    let mut first = folder.started();
    assert_eq!(folder.ask(&first, "alice", 3), 3);
    folder.now = noon + SignedDuration::from_hours(24);
    assert_eq!(folder.ask(&first, "alice", 5), 5);
    first.writer.round(folder.now);
    drop(first);
    folder.now = noon;
    let second = folder.started();
    assert_eq!(folder.ask(&second, "alice", 20), 7);
    folder.now = noon + SignedDuration::from_hours(24);
    assert_eq!(folder.ask(&second, "alice", 20), 5);
}

#[test]
fn today_ends_at_midnight_and_the_total_does_not() {
    let mut folder = Folder::new(None);
    folder.now = "2026-03-15T23:59:58Z".parse().expect("a time");
    let mut world = folder.started();
    folder.ask(&world, "alice", 5);
    world.writer.round(folder.now);
    assert_eq!(folder.read("alice"), Some((5, 5)));
    folder.now += SignedDuration::from_secs(3);
    assert_eq!(folder.read("alice"), Some((0, 5)));
    folder.ask(&world, "alice", 2);
    // One that read the clock before midnight and got the lock after it.
    folder.now -= SignedDuration::from_secs(2);
    folder.ask(&world, "alice", 1);
    folder.now += SignedDuration::from_secs(2);
    world.writer.round(folder.now);
    let read = folder.activity("alice").expect("known");
    assert_eq!((read.today, read.total, read.last_used), (3, 8, folder.now));
    // A clock that was a year ahead is believed no longer than it says so.
    folder.now -= SignedDuration::from_hours(365 * 24);
    folder.ask(&world, "alice", 1);
    world.writer.round(folder.now);
    let read = folder.activity("alice").expect("known");
    assert_eq!((read.today, read.total, read.last_used), (1, 9, folder.now));
}

#[test]
fn the_file_is_its_owners_alone() {
    let folder = Folder::new(None);
    let mut world = folder.started();
    folder.ask(&world, "alice", 1);
    world.writer.round(folder.now);
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        let mode = fs::metadata(folder.folder.path().join(name)).expect(name).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_thousand_keys_are_one_batch_and_forgotten_ones_are_in_it() {
    let folder = Folder::new(None);
    let mut world = folder.started();
    for number in 0..1000 {
        folder.ask(&world, &format!("key-{number}"), number % 3 + 1);
    }
    let now = Now { wall: folder.now, mono: folder.mono };
    world.limiter.forget(|_| false, now);
    assert_eq!(world.limiter.keys(), 1000, "what is not written is not forgotten");
    world.writer.round(folder.now);
    assert_eq!(world.writes("success"), "1");
    world.limiter.forget(|_| false, now);
    assert_eq!(world.limiter.keys(), 0);
    for number in [0, 1, 2, 998, 999] {
        let want = number % 3 + 1;
        assert_eq!(folder.read(&format!("key-{number}")), Some((want, want)), "{number}");
    }
    let unrecorded = Limiter::new(16);
    let (id, limits) = (KeyId::new("a"), Limits::default());
    let ask = Ask { caller: Caller::Key(&id, &limits), route: None, websocket: false };
    drop(unrecorded.admit(&ask, now).expect("admitted"));
    unrecorded.forget(|_| false, now);
    assert_eq!(unrecorded.keys(), 0, "where nobody writes, nothing is kept for writing");
}

#[test]
fn a_reader_sees_nothing_where_nothing_is_and_keys_are_forgotten_in_time() {
    let mut folder = Folder::new(Some((5, QuotaWindow::Month)));
    assert!(Reader::open(&folder.path()).expect("no fault").is_none());
    assert!(!folder.path().exists(), "reading makes no file");
    let mut world = folder.started();
    folder.ask(&world, "alice", 3);
    world.writer.round(folder.now);
    drop(world);
    assert_eq!(folder.read("bob"), None);
    let quotas = |folder: &Folder| {
        let store = Store::open(&folder.path(), folder.now).expect("opens").store;
        store.load("2026-03-01T00:00:00Z".parse().expect("a time")).expect("read").len()
    };
    for (days, known) in [(399, true), (2, false)] {
        folder.now += SignedDuration::from_hours(days * 24);
        // By the clock alone nothing is old: it may be ahead.
        let mut world = folder.started();
        assert!(folder.read("alice").is_some(), "{days}");
        folder.ask(&world, "bob", 1);
        world.writer.round(folder.now);
        drop(world);
        drop(folder.started());
        assert_eq!(folder.read("alice").is_some(), known, "{days}");
        assert_eq!(quotas(&folder), 1, "{days}: alice's is long over");
    }
}

/// Regression: where the clock began in the past, as without a battery, the oldest windows were put back and today's was not.
#[test]
fn a_clock_that_starts_in_the_past_forgets_no_quota() {
    let mut folder = Folder::new(Some((10, QuotaWindow::Day)));
    let mut world = folder.started();
    for _ in 0..9 {
        assert_eq!(folder.ask(&world, "alice", 10), 10);
        world.writer.round(folder.now);
        folder.now += SignedDuration::from_hours(24);
    }
    drop(world);
    let real = folder.now - SignedDuration::from_hours(24);
    folder.now = "1970-01-01T00:00:10Z".parse().expect("a time");
    let mut world = folder.started();
    assert_eq!(folder.ask(&world, "alice", 20), 0, "nor is there one in the past");
    world.writer.round(folder.now);
    folder.now = real;
    assert_eq!(folder.ask(&world, "alice", 20), 0);
    folder.now = real + SignedDuration::from_hours(24);
    assert_eq!(folder.ask(&world, "alice", 20), 10);
}

/// Regression: a clock that was ahead when the gate started emptied the file.
#[test]
fn a_clock_that_starts_in_the_future_forgets_nothing() {
    let mut folder = Folder::new(Some((10, QuotaWindow::Day)));
    let mut world = folder.started();
    folder.ask(&world, "alice", 4);
    world.writer.round(folder.now);
    drop(world);
    folder.now += SignedDuration::from_hours(9999 * 24);
    drop(folder.started());
    folder.now -= SignedDuration::from_hours(9999 * 24);
    assert_eq!(folder.read("alice"), Some((4, 4)));
    assert_eq!(folder.ask(&folder.started(), "alice", 20), 6);
}

#[test]
fn what_waits_for_a_disk_stays_small() {
    let mut batch = Batch::default();
    let id = KeyId::new("alice");
    for start in 0..100 {
        batch.add(&id, Activity::default(), [QuotaCount { per: QuotaWindow::Hour, start: start * 3600, used: 1 }]);
    }
    let mut starts: Vec<i64> = batch.0[&id].quotas.iter().map(|count| count.start / 3600).collect();
    starts.sort_unstable();
    assert_eq!(starts, [96, 97, 98, 99]);
}
