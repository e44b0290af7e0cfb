//! What `keys list` makes of the state file: whatever it is and whoever asks, the list is printed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::keys::keys;
use crate::state::{ALICE_ID, admitted, config, written};
use crate::statefaults::{CANNOT, told};
use crate::support::gateway::{Gateway, is_root, run, write_private};
use crate::support::origin::Origin;
use crate::support::{ALICE, KEYS};

/// Lists keys where `prepare` leaves what there is of a state; the list is printed, with this in her columns, and this note.
#[track_caller]
fn check_list(
    row: &str,
    state: &str,
    prepare: impl FnOnce(&Path) -> Option<rusqlite::Connection>,
    today: &str,
    note: &str,
) {
    let folder = tempfile::tempdir().unwrap();
    write_private(&folder.path().join("keys.yaml"), KEYS);
    let origin = Origin::ok();
    fs::write(
        folder.path().join("keygate.yaml"),
        config(&origin, "state.db").replace("state: { path: state.db }", state),
    )
    .unwrap();
    let _held = prepare(&folder.path().join("state.db"));
    let (status, out, err) = run(folder.path(), &["keys", "list"]);
    let alice: Vec<&str> = out.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!((status, alice.first(), alice.last()), (0, Some(&ALICE_ID), Some(&today)), "{row}: {out}{err}");
    assert!(if note.is_empty() { err.is_empty() } else { err.contains(note) }, "{row}: {err}");
}

/// A state file in which alice made three requests, the last at `last_used`.
fn used(path: &Path, last_used: jiff::Timestamp) {
    use keygate::limit::activity::{Activity, day_of};
    let now = last_used.as_second();
    let mut batch = keygate::state::Batch::default();
    batch.add(
        &keygate::key::KeyId::new(ALICE_ID),
        Activity { requests: 3, on_day: 3, day: day_of(now), last_used: now },
        [],
    );
    keygate::state::store::Store::open(path, last_used).unwrap().store.write(&batch).unwrap();
}

#[test]
fn the_list_is_printed_whatever_the_state_is() {
    let kept = "state: { path: state.db }";
    let now = jiff::Timestamp::now();
    let none = |prepare: fn(&Path)| {
        move |path: &Path| {
            prepare(path);
            None
        }
    };
    check_list("none is kept", "", |_| None, "-", "");
    check_list("not there yet", kept, |_| None, "-", "");
    check_list("empty", kept, none(|path| fs::write(path, "").unwrap()), "-", "");
    check_list(
        "yesterday's",
        kept,
        |path| {
            used(path, now - jiff::SignedDuration::from_hours(24));
            None
        },
        "0",
        "",
    );
    check_list(
        "text",
        kept,
        none(|path| fs::write(path, "text ".repeat(999)).unwrap()),
        "-",
        "what keys did cannot be read: ",
    );
    check_list("a folder", kept, none(|path| fs::create_dir(path).unwrap()), "-", "it is not a regular file");
    let pipe = |path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    check_list(
        "a pipe",
        kept,
        |path| {
            pipe(path);
            None
        },
        "-",
        "it is not a regular file",
    );
    let cut = |path: &Path| {
        used(path, jiff::Timestamp::now());
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len(5000).unwrap();
        None
    };
    check_list("cut", kept, cut, "-", "malformed");
    let locked = |path: &Path| {
        used(path, jiff::Timestamp::now());
        let holder = rusqlite::Connection::open(path).unwrap();
        holder.execute_batch("PRAGMA locking_mode = exclusive; BEGIN EXCLUSIVE").unwrap();
        Some(holder)
    };
    check_list("held by another", kept, locked, "-", "locked");
}

#[test]
fn who_may_not_read_the_state_is_told_and_still_gets_the_list() {
    if !is_root() {
        println!("SKIPPED: only root can ask as another user");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    write_private(&path("keys.yaml"), KEYS);
    chown(path("keys.yaml"), Some(65534), Some(65534)).unwrap();
    used(&path("state.db"), jiff::Timestamp::now());
    fs::copy(env!("CARGO_BIN_EXE_keygate"), path("keygate")).unwrap();
    fs::write(path("keygate.yaml"), config(&Origin::ok(), "state.db")).unwrap();
    let mut command = Command::new(path("keygate"));
    let output = command.args(["keys", "list"]).current_dir(folder.path()).uid(65534).gid(65534).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("amber-falcon"), "{out}{err}");
    assert!(err.contains("/state.db: what keys did cannot be read: Permission denied"), "{err}");
    chown(path("keys.yaml"), Some(0), Some(0)).unwrap();
    let output = command.output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && err.contains("as that user or as root"), "{err}");
}

/// Root lists the keys of a gate that runs as another user, and leaves nothing behind that the gate could not write.
#[test]
fn a_list_by_root_takes_nothing_from_the_gate() {
    let origin = Origin::ok();
    let config = config(&origin, "state.db");
    let mut gate = Gateway::start_unprivileged(tempfile::tempdir().unwrap(), &config, KEYS);
    assert_eq!(admitted(&gate, ALICE, 1), 1);
    written(&gate.path("state.db"), 1);
    gate.signal("TERM");
    gate.wait();
    keys(gate.dir.path(), &["list"]);
    let folder = std::mem::replace(&mut gate.dir, tempfile::tempdir().unwrap());
    fs::remove_file(folder.path().join("keygate")).ok();
    let gate = Gateway::start_unprivileged(folder, &config, KEYS);
    keys(gate.dir.path(), &["list"]);
    assert_eq!(admitted(&gate, ALICE, 1), 1);
    written(&gate.path("state.db"), 2);
    assert_eq!(told(&gate, CANNOT), 0, "{}", gate.log());
}
