//! What outlives a restart: quotas and last use, through SIGTERM, SIGKILL, and whatever can happen to the file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use jiff::Timestamp;
use keygate::key::KeyId;
use keygate::state::reader::{Activity, Reader};

use crate::support::client::{Response, get};
use crate::support::gateway::{Gateway, is_root};
use crate::support::origin::Origin;
use crate::support::{ALICE, BOB, KEYS, SECRETS, config_with, eventually};

const ALICE_ID: &str = "48e8f859";
const FAILED: &str = r#"keygate_state_writes_total{result="failure"}"#;
const DAMAGED: &str = r#"keygate_state_writes_total{result="damaged"}"#;

/// A gate with a quota a month, which no test outlasts but in the second in which a month ends.
fn config(origin: &Origin, path: &str) -> String {
    let more = format!("limits: {{ default: {{ quota: {{ requests: 10, per: 1mo }} }} }}\nstate: {{ path: {path} }}\n");
    config_with(origin, "  - { path: /, upstream: app }\n", &more)
}

fn ask(gate: &Gateway, key: &str) -> Response {
    get(gate.address(0), "/", &[("X-Api-Key", key)])
}

/// How many of `tries` requests are let through.
fn admitted(gate: &Gateway, key: &str, tries: usize) -> usize {
    (0..tries).filter(|_| ask(gate, key).status == 200).count()
}

/// Ends a gate and starts another in its folder.
fn restart(mut gate: Gateway, signal: &str, config: &str) -> Gateway {
    gate.signal(signal);
    gate.wait();
    let folder = std::mem::replace(&mut gate.dir, tempfile::tempdir().unwrap());
    Gateway::start_in(folder, config, KEYS, &[])
}

fn read(path: &Path, id: &str) -> Option<Activity> {
    Reader::open(path).expect("readable")?.activity(Timestamp::now()).expect("readable").remove(&KeyId::new(id))
}

/// Waits until the file tells of so many requests by alice.
fn written(path: &Path, total: u64) -> Activity {
    eventually("a write", || read(path, ALICE_ID).filter(|activity| activity.total == total))
}

#[test]
fn a_quota_outlives_sigterm_and_sigkill() {
    let origin = Origin::ok();
    let config = config(&origin, "state.db");
    let gate = Gateway::start(&config);
    assert_eq!(admitted(&gate, ALICE, 4), 4);
    let gate = restart(gate, "TERM", &config);
    let fifth = ask(&gate, ALICE);
    let left = fifth.one("ratelimit").unwrap_or_default();
    assert!(left.starts_with("\"quota\";r=5;"), "exact, and at once: {left}");
    assert_eq!(admitted(&gate, ALICE, 2), 2);
    written(&gate.path("state.db"), 7);
    let gate = restart(gate, "KILL", &config);
    assert_eq!(admitted(&gate, ALICE, 20), 3, "what was written is there after SIGKILL");
    let refused = ask(&gate, ALICE);
    let body = refused.json();
    assert_eq!(refused.status, 429);
    assert_eq!(body["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(body["violated-policies"], serde_json::json!(["quota"]));
    assert_eq!(admitted(&gate, BOB, 20), 10, "each key has its own");
    let gate = restart(gate, "TERM", &config);
    assert_eq!((admitted(&gate, ALICE, 1), admitted(&gate, BOB, 1)), (0, 0));
}

#[test]
fn a_key_taken_out_and_put_back_has_no_fresh_quota() {
    let origin = Origin::ok();
    let config = config(&origin, "state.db");
    let gate = Gateway::start(&config);
    assert_eq!(admitted(&gate, ALICE, 20), 10);
    gate.replace_keys("version: 1\nkeys: []\n...\n");
    eventually("the key is gone", || (ask(&gate, ALICE).status == 401).then_some(()));
    let gate = restart(gate, "TERM", &config);
    assert_eq!(admitted(&gate, ALICE, 1), 0);
}

#[test]
fn last_use_is_read_while_the_gate_runs_and_after() {
    let origin = Origin::ok();
    let config = config(&origin, "state.db");
    let began = Timestamp::now();
    let mut gate = Gateway::start(&config);
    assert_eq!(admitted(&gate, ALICE, 3), 3);
    let path = gate.path("state.db");
    let seen = written(&path, 3);
    // At midnight, UTC, today is another day than a moment ago.
    assert!(seen.today == 3 || began.as_second() / 86_400 != Timestamp::now().as_second() / 86_400, "{seen:?}");
    assert!((began.as_second()..=Timestamp::now().as_second()).contains(&seen.last_used.as_second()), "{seen:?}");
    assert_eq!(read(&path, "ba9af604"), None, "never used");
    assert!(gate.metric("keygate_state_last_success_timestamp_seconds") >= began.as_second() as f64);
    admitted(&gate, ALICE, 2);
    gate.signal("TERM");
    gate.wait();
    assert_eq!(read(&path, ALICE_ID).map(|activity| activity.total), Some(5));
}

#[test]
fn no_key_and_no_hash_is_in_the_state() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin, "state.db"));
    admitted(&gate, ALICE, 2);
    admitted(&gate, "no-such-key-of-anybody", 1);
    written(&gate.path("state.db"), 2);
    let mut files = 0;
    for name in ["state.db", "state.db-wal"] {
        let bytes = fs::read(gate.path(name)).unwrap();
        let shown = String::from_utf8_lossy(&bytes);
        assert!(SECRETS.iter().all(|secret| !shown.contains(secret)) && !shown.contains("no-such-key"), "{name}");
        assert_eq!(fs::metadata(gate.path(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        files += usize::from(shown.contains(ALICE_ID));
    }
    assert!(files > 0, "the files read are those that are written");
}

/// Starts a gate over what `prepare` leaves at the path of its state; it must serve, and say what it found.
#[track_caller]
fn check_found(row: &str, prepare: impl Fn(&Path), damaged: bool, says: Option<&str>) {
    let origin = Origin::ok();
    let folder = tempfile::tempdir().unwrap();
    prepare(&folder.path().join("state.db"));
    let gate = Gateway::start_in(folder, &config(&origin, "state.db"), KEYS, &[]);
    assert_eq!(admitted(&gate, ALICE, 1), 1, "{row}");
    assert_eq!(gate.metric(DAMAGED), f64::from(u8::from(damaged)), "{row}");
    let said = |what: &str| gate.events().iter().any(|event| event["level"] == "ERROR" && event["message"] == what);
    match says {
        Some("the state cannot be written; the gate counts on in memory") => {
            assert!(said("the state cannot be written; the gate counts on in memory"), "{row}: {}", gate.log());
            assert!(gate.metric(FAILED) >= 1.0, "{row}");
            fs::rename(gate.path("state.db"), gate.path("away")).unwrap();
        }
        Some(what) => assert!(said(what), "{row}: {}", gate.log()),
        None => assert!(!gate.log().contains("ERROR"), "{row}: {}", gate.log()),
    }
    written(&gate.path("state.db"), 1);
}

#[test]
fn a_state_file_that_is_none_is_told_of_and_the_gate_serves() {
    let anew = Some("the state file was damaged: it was put aside and a new one begun");
    let refused = Some("the state cannot be written; the gate counts on in memory");
    check_found("nothing", |_| (), false, None);
    check_found("zero bytes", |path| fs::write(path, "").unwrap(), false, None);
    check_found("garbage", |path| fs::write(path, b"\xff\0garbage".repeat(999)).unwrap(), true, anew);
    check_found("a head and no more", |path| fs::write(path, b"SQLite format 3\0").unwrap(), true, anew);
    check_found("a folder", |path| fs::create_dir(path).unwrap(), false, refused);
}

/// A disk of its own that is full: mounting takes root.
#[test]
fn a_full_disk_is_told_of_and_nothing_is_lost_once_there_is_room() {
    if !is_root() {
        return;
    }
    let disk = tempfile::tempdir().unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "keygate-test"]).arg(disk.path()).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this root may not mount");
        return;
    }
    let _unmount = Unmount(disk.path());
    let origin = Origin::ok();
    let state = disk.path().join("state.db");
    let config = config(&origin, state.to_str().unwrap());
    let ballast = disk.path().join("ballast");
    let fill = || {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&ballast).unwrap();
        while std::io::Write::write(&mut file, &[b'x'; 1024]).is_ok_and(|wrote| wrote > 0) {}
    };
    fill();
    let gate = Gateway::start(&config);
    assert_eq!(admitted(&gate, ALICE, 3), 3, "serves on a disk that was full before");
    eventually("told", || (gate.metric(FAILED) >= 2.0).then_some(()));
    let told = gate.log().matches("the state cannot be written").count();
    assert_eq!(told, 1, "once for each change: {}", gate.log());
    fs::remove_file(&ballast).unwrap();
    written(&state, 3);
    eventually("told", || gate.log().contains("the state is written again").then_some(()));
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}
