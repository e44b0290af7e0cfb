//! What can stand at the path of the state, whole and damaged: the gate serves, and touches nothing that was never its own.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use super::*;

/// What becomes of what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is written to.
    Used,
    /// It is put aside for a new one.
    PutAside,
    /// It is left as it is.
    LeftAlone,
}

use Fate::{LeftAlone, PutAside, Used};

/// Starts a gate over what `prepare` leaves at the path; it must serve, and do with it what is said.
#[track_caller]
fn check_start(row: &str, prepare: impl Fn(&Path), fate: Fate) {
    let folder = Folder::new(Some((10, QuotaWindow::Day)));
    prepare(&folder.path());
    let before = (folder.names(), contents(&folder.path()));
    let mut world = folder.started();
    assert_eq!(folder.ask(&world, "alice", 20), 10, "{row}: serves");
    world.writer.round(folder.now);
    let put_aside = u8::from(fate == PutAside);
    assert_eq!((folder.aside(), world.writes("damaged")), (put_aside.into(), put_aside.to_string()), "{row}");
    let writes = fate != LeftAlone;
    assert_eq!((world.writes("success") != "0", world.writes("failure") == "0"), (writes, writes), "{row}");
    if writes {
        assert_eq!(folder.read("alice"), Some((10, 10)), "{row}");
        assert_eq!(folder.ask(&folder.started(), "alice", 20), 0, "{row}: kept");
        return;
    }
    assert_eq!((folder.names(), contents(&folder.path())), before, "{row}: not touched");
    // Once the way is free, nothing that was counted is lost.
    let away = folder.folder.path().join("away");
    fs::rename(folder.path(), away).expect("renames");
    world.writer.round(folder.now);
    assert_eq!(folder.read("alice"), Some((10, 10)), "{row}: written in the end");
}

/// The bytes of a regular file.
fn contents(path: &Path) -> Option<Vec<u8>> {
    path.is_file().then(|| fs::read(path).expect("reads"))
}

/// Overwrites a part of a file.
fn overwrite(path: &Path, at: usize, with: impl Fn(u8) -> u8, length: usize) {
    let mut bytes = fs::read(path).expect("reads");
    bytes[at..at + length].iter_mut().for_each(|byte| *byte = with(*byte));
    fs::write(path, bytes).expect("writes");
}

#[test]
fn whatever_lies_at_the_path_the_gate_serves() {
    check_start("nothing", |_| (), Used);
    check_start("zero bytes", |path| fs::write(path, "").expect("writes"), Used);
    check_start("ours", full, Used);
    check_start("zeros", |path| fs::write(path, [0; 9999]).expect("writes"), PutAside);
    check_start("the beginning of its head", |path| fs::write(path, "SQLite f").expect("writes"), PutAside);
    let part = |path: &Path, at, length| {
        full(path);
        overwrite(path, at, |_| 0xa5, length);
    };
    check_start("its second page overwritten", |path| part(path, 4096, 4096), PutAside);
    check_start("its magic overwritten", |path| part(path, 0, 16), PutAside);
    check_start("its mark overwritten", |path| part(path, 68, 4), PutAside);
    check_start("a format of later", |path| part(path, 18, 2), PutAside);
    let renamed = |path: &Path| {
        full(path);
        sql(path, "ALTER TABLE activity RENAME COLUMN total TO tota1");
    };
    check_start("tables that are not as they were", renamed, PutAside);
    // What is left of a first page may be anybody's.
    check_start("its first page overwritten", |path| part(path, 0, 4096), LeftAlone);
    let newer = |path: &Path| {
        full(path);
        sql(path, "PRAGMA user_version = 2");
    };
    check_start("tables of another version", newer, LeftAlone);
}

/// Regression: what SQLite could not read was taken for damage, and renamed, whatever it was.
#[test]
fn what_was_never_a_state_file_is_not_touched() {
    let write = |path: &Path, bytes: &[u8]| fs::write(path, bytes).expect("writes");
    check_start(
        "a key",
        |path| write(path, b"-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"),
        LeftAlone,
    );
    check_start("a configuration", |path| write(path, "keys: []\n# 日本\n".as_bytes()), LeftAlone);
    check_start("the text of the tables", |path| write(path, schema::TABLES.join(";\n").as_bytes()), LeftAlone);
    check_start("bytes", |path| write(path, &b"\xff\0garbage".repeat(999)), LeftAlone);
    check_start("zeros and more", |path| write(path, &[vec![0; 9999], vec![1]].concat()), LeftAlone);
    check_start("another program's database", |path| sql(path, "CREATE TABLE theirs (a)"), LeftAlone);
    let marked = |path: &Path| sql(path, "PRAGMA application_id = 7; PRAGMA journal_mode = wal; CREATE TABLE t (a)");
    check_start("another program's marked database", marked, LeftAlone);
    check_start("a database of nothing", |path| sql(path, "PRAGMA user_version = 1; VACUUM"), LeftAlone);
    check_start("a folder", |path| fs::create_dir(path).expect("makes"), LeftAlone);
    check_start("a socket", |path| drop(UnixListener::bind(path).expect("binds")), LeftAlone);
    check_start("a device", |path| symlink("/dev/null", path).expect("links"), LeftAlone);
    let pipe = |path: &Path| {
        let status = std::process::Command::new("mkfifo").arg(path).status().expect("runs");
        assert!(status.success());
    };
    check_start("a pipe", pipe, LeftAlone);
}

#[test]
fn a_link_is_followed_and_a_loop_is_told_of() {
    let link = |path: &Path| {
        full(&path.with_file_name("elsewhere"));
        symlink("elsewhere", path).expect("links");
    };
    check_start("a link", link, Used);
    check_start("a link to nothing", |path| symlink("elsewhere", path).expect("links"), Used);
    check_start("a loop", |path| symlink("state.db", path).expect("links"), LeftAlone);
}

/// Starts a gate over a file with these bytes, and over what SQLite kept beside it. It must serve and, as long as it can be
/// told for a state file, keep its counts.
#[track_caller]
fn check_bytes(row: &str, files: &[(&str, &[u8])], must_write: bool) {
    let folder = Folder::new(Some((10, QuotaWindow::Day)));
    for (name, bytes) in files {
        fs::write(folder.folder.path().join(name), bytes).expect("writes");
    }
    let mut world = folder.started();
    assert_eq!(folder.ask(&world, "alice", 20), 10, "{row}: serves");
    world.writer.round(folder.now);
    world.writer.round(folder.now);
    let writes = world.writes("success") != "0";
    assert!(writes || !must_write, "{row}: not written");
    if !writes {
        assert_eq!(contents(&folder.path()).as_deref(), Some(files[0].1), "{row}: not touched");
        return;
    }
    drop(world);
    assert_eq!(folder.ask(&folder.started(), "alice", 20), 0, "{row}: kept");
    let verdict: String = rusqlite::Connection::open(folder.path())
        .and_then(|file| file.query_row("PRAGMA integrity_check", [], |row| row.get(0)))
        .expect("told");
    assert_eq!(verdict, "ok", "{row}");
}

fn whole() -> Vec<u8> {
    let folder = Folder::new(None);
    full(&folder.path());
    fs::read(folder.path()).expect("reads")
}

#[test]
fn a_file_cut_anywhere_is_served_on_and_counts_are_kept() {
    let whole = whole();
    assert!(whole.len() > 16_000, "{} bytes", whole.len());
    for length in (0..110).step_by(7).chain((110..whole.len()).step_by(997)).chain([4095, 4096, 4097, whole.len() - 1])
    {
        check_bytes(&format!("cut at {length}"), &[("state.db", &whole[..length])], true);
    }
}

#[test]
fn a_file_changed_anywhere_is_served_on() {
    let whole = whole();
    for at in (0..110).chain((110..whole.len()).step_by(101)) {
        let mut bytes = whole.clone();
        bytes[at] ^= if at % 2 == 0 { 0xff } else { 0x01 };
        // A version that is another's, or none, may not be touched.
        check_bytes(&format!("byte {at} changed"), &[("state.db", &bytes)], !(60..64).contains(&at));
    }
}

/// What is on disk of a gate that was killed: the file, its log and the shared memory.
fn killed(keys: usize) -> [Vec<u8>; 3] {
    let folder = Folder::new(None);
    let mut store = Store::open(&folder.path(), folder.now).expect("opens").store;
    store.write(&batch(keys)).expect("writes");
    let files = ["state.db", "state.db-wal", "state.db-shm"];
    files.map(|name| fs::read(folder.folder.path().join(name)).expect("reads"))
}

#[test]
fn a_log_that_is_damaged_or_of_another_file_is_served_on() {
    let [file, log, shared] = killed(100);
    let [_, other_log, other_shared] = killed(700);
    let whole = |log: &[u8], shared: &[u8], row: &str| {
        check_bytes(row, &[("state.db", &file), ("state.db-wal", log), ("state.db-shm", shared)], true);
    };
    whole(&log, &shared, "as it was");
    whole(&other_log, &other_shared, "both another's");
    whole(&other_log, &shared, "another's log");
    whole(&log, &other_shared, "another's shared memory");
    whole(b"garbage", b"garbage", "garbage");
    for at in (0..log.len()).step_by(613) {
        let mut bytes = log.clone();
        bytes[at] ^= 0xff;
        whole(&bytes, &shared, &format!("byte {at} of the log changed"));
        whole(&log[..at], &shared, &format!("the log cut at {at}"));
    }
    for at in (0..shared.len()).step_by(1031) {
        let mut bytes = shared.clone();
        bytes[at] ^= 0xff;
        whole(&log, &bytes, &format!("byte {at} of the shared memory changed"));
    }
}

#[test]
fn a_file_that_goes_or_breaks_under_the_gate_is_begun_anew_with_its_quotas() {
    let folder = Folder::new(Some((10, QuotaWindow::Day)));
    let mut world = folder.started();
    let mut left = 10;
    let breaks: [(_, fn(&Path)); 5] = [
        ("removed", |path| fs::remove_file(path).expect("removes")),
        ("emptied", |path| fs::write(path, "").expect("writes")),
        ("zeros", |path| fs::write(path, [0; 9999]).expect("writes")),
        ("its magic overwritten", |path| overwrite(path, 0, |_| 7, 16)),
        ("replaced by another state file", |path| {
            full(&path.with_file_name("other"));
            fs::rename(path.with_file_name("other"), path).expect("renames");
        }),
    ];
    for (row, spoil) in breaks {
        folder.ask(&world, "alice", 1);
        world.writer.round(folder.now);
        spoil(&folder.path());
        folder.ask(&world, "alice", 1);
        world.writer.round(folder.now);
        world.writer.round(folder.now);
        left -= 2;
        let file = folder.folder.path().join("copy");
        sql(&folder.path(), &format!("VACUUM INTO '{}'", file.display()));
        let quotas = Store::open(&file, folder.now).expect(row).store.load(folder.now).expect(row);
        assert_eq!(quotas.iter().map(|(_, count)| count.used).collect::<Vec<_>>(), [10 - left], "{row}");
        fs::remove_file(file).expect("removes");
    }
    assert_eq!(world.writes("failure"), "0");
}

/// Regression: SQLite wrote its log into whatever had been written over the file, when that was noticed and closed.
#[test]
fn what_is_written_over_the_file_is_not_touched() {
    for in_place in [true, false] {
        let folder = Folder::new(Some((10, QuotaWindow::Day)));
        let mut world = folder.started();
        folder.ask(&world, "alice", 4);
        world.writer.round(folder.now);
        let text = b"-----BEGIN CERTIFICATE-----\n".repeat(999);
        if !in_place {
            fs::remove_file(folder.path()).expect("removes");
        }
        fs::write(folder.path(), &text).expect("writes");
        folder.ask(&world, "alice", 1);
        world.writer.round(folder.now);
        world.writer.round(folder.now);
        assert_eq!(world.writes("failure"), "2");
        assert!(fs::read(folder.path()).expect("reads") == text, "in place: {in_place}");
        assert_eq!(folder.names(), ["state.db"], "nothing of the old file is left beside it");
        fs::remove_file(folder.path()).expect("removes");
        world.writer.round(folder.now);
        assert_eq!(folder.read("alice"), Some((1, 1)), "what the old file held went with it");
        assert_eq!(folder.ask(&folder.started(), "alice", 20), 5);
    }
}
