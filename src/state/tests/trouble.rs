//! Trouble while the gate runs: readers that stay, writers that hold the file, files that may not be written.

use super::*;

#[test]
fn a_reader_that_stays_does_not_grow_the_log_for_ever() {
    check_log_is_bounded("state.db");
}

/// Regression: where `state.path` is a link, SQLite's log was looked for beside the link, and grew without bound.
#[test]
fn the_log_of_a_linked_file_is_bounded_too() {
    check_log_is_bounded("link.db");
}

fn check_log_is_bounded(name: &str) {
    let folder = Folder::new(None);
    std::os::unix::fs::symlink("state.db", folder.folder.path().join("link.db")).expect("links");
    let mut store = Store::open(&folder.folder.path().join(name), folder.now).expect("opens").store;
    store.write(&batch(1)).expect("writes");
    let reader = rusqlite::Connection::open(folder.path()).expect("opens");
    reader.execute_batch("BEGIN; SELECT * FROM activity").expect("reads");
    let log = || fs::metadata(folder.folder.path().join("state.db-wal")).expect("there").len();
    let mut written: u64 = 1;
    let refused = loop {
        match store.write(&batch(20_000)) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(log() < 32 << 20, "{} bytes after {written} writes", log());
    };
    assert!(matches!(refused, StateError::HeldOpen(size) if size > 16 << 20) && refused.is_passing(), "{refused}");
    let held = log();
    assert!(store.write(&batch(20_000)).is_err());
    assert_eq!(log(), held);
    drop(reader);
    store.write(&batch(1)).expect("writes again");
    assert!(log() < 5 << 20, "{}", log());
    assert_eq!(folder.activity("key-0").expect("known").total, written + 1);
}

#[test]
fn a_writer_that_holds_the_file_is_waited_out_and_nothing_is_lost() {
    let folder = Folder::new(Some((10, QuotaWindow::Day)));
    let mut world = folder.started();
    folder.ask(&world, "alice", 2);
    let other = rusqlite::Connection::open(folder.path()).expect("opens");
    other.execute_batch("BEGIN EXCLUSIVE").expect("locks");
    world.writer.round(folder.now);
    assert_eq!((world.writes("failure"), world.writes("success")), ("1".to_owned(), "0".to_owned()));
    assert_eq!(folder.ask(&world, "alice", 2), 2, "serves");
    other.execute_batch("ROLLBACK").expect("unlocks");
    world.writer.round(folder.now);
    assert_eq!(folder.read("alice"), Some((4, 4)));
    assert_eq!((folder.aside(), world.writes("failure")), (0, "1".to_owned()));
}

/// Regression: looking at the file by another descriptor gave up SQLite's locks, and another's end took the log away.
#[test]
fn another_connection_that_ends_takes_nothing_from_under_the_gate() {
    let folder = Folder::new(Some((10, QuotaWindow::Day)));
    let mut world = folder.started();
    let path = folder.path();
    for round in 1..=3 {
        folder.ask(&world, "alice", 1);
        world.writer.round(folder.now);
        // In a process of its own, as locks are a process's.
        let shell = std::process::Command::new("sqlite3").arg(&path).arg("SELECT total FROM activity").output();
        let Ok(shell) = shell else {
            println!("SKIPPED: no sqlite3 here");
            return;
        };
        assert_eq!(String::from_utf8_lossy(&shell.stdout).trim(), round.to_string());
        assert!(folder.names().contains(&"state.db-wal".to_owned()), "the gate's log");
    }
}

#[test]
fn a_file_that_may_not_be_written_is_told_of() {
    let folder = Folder::new(None);
    full(&folder.path());
    let read_only = |path: &Path| rusqlite::Connection::open(path).and_then(|file| file.is_readonly(rusqlite::MAIN_DB));
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o400)).expect("changes");
    if !read_only(&folder.path()).expect("opens") {
        println!("SKIPPED: root writes whatever the mode");
        return;
    }
    let error = Store::open(&folder.path(), folder.now).expect_err("refused");
    assert!(matches!(error, StateError::ReadOnly), "{error}");
}
