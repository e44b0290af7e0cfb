//! What outlives a restart: quotas and last use, through SIGTERM, SIGKILL, and whatever can happen to the file.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use jiff::Timestamp;
use keygate::key::KeyId;
use keygate::state::reader::{Activity, Reader};

use crate::support::client::{Response, get};
use crate::support::gateway::{Gateway, run, write_private};
use crate::support::origin::Origin;
use crate::support::{ALICE, BOB, KEYS, SECRETS, config_with, eventually};

pub const ALICE_ID: &str = "48e8f859";
pub const FAILED: &str = r#"keygate_state_writes_total{result="failure"}"#;
const DAMAGED: &str = r#"keygate_state_writes_total{result="damaged"}"#;

/// A gate with a quota a month, which no test outlasts but in the second in which a month ends.
pub fn config(origin: &Origin, path: &str) -> String {
    let more = format!("limits: {{ default: {{ quota: {{ requests: 10, per: 1mo }} }} }}\nstate: {{ path: {path} }}\n");
    config_with(origin, "  - { path: /, upstream: app }\n", &more)
}

pub fn ask(gate: &Gateway, key: &str) -> Response {
    get(gate.address(0), "/", &[("X-Api-Key", key)])
}

/// How many of `tries` requests are let through.
pub fn admitted(gate: &Gateway, key: &str, tries: usize) -> usize {
    (0..tries).filter(|_| ask(gate, key).status == 200).count()
}

/// Ends a gate and starts another in its folder.
pub fn restart(mut gate: Gateway, signal: &str, config: &str) -> Gateway {
    gate.signal(signal);
    gate.wait();
    let folder = std::mem::replace(&mut gate.dir, tempfile::tempdir().unwrap());
    Gateway::start_in(folder, config, KEYS, &[])
}

pub fn read(path: &Path, id: &str) -> Option<Activity> {
    Reader::open(path).expect("readable")?.activity(Timestamp::now()).expect("readable").remove(&KeyId::new(id))
}

/// Waits until the file tells of so many requests by alice.
pub fn written(path: &Path, total: u64) -> Activity {
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

const ANEW: &str = "the state file was damaged: it was put aside and a new one begun";
const REFUSED: &str = "the state cannot be written; the gate counts on in memory";

/// Starts a gate over what `prepare` leaves at the path of its state; it must serve, and say what it found.
#[track_caller]
fn check_found(row: &str, prepare: impl Fn(&Path), says: Option<&str>) {
    let origin = Origin::ok();
    let folder = tempfile::tempdir().unwrap();
    prepare(&folder.path().join("state.db"));
    let gate = Gateway::start_in(folder, &config(&origin, "state.db"), KEYS, &[]);
    assert_eq!(admitted(&gate, ALICE, 1), 1, "{row}");
    assert_eq!(gate.metric(DAMAGED), f64::from(u8::from(says == Some(ANEW))), "{row}");
    let said = |what: &str| gate.events().iter().any(|event| event["level"] == "ERROR" && event["message"] == what);
    match says {
        Some(what) => assert!(said(what), "{row}: {}", gate.log()),
        None => assert!(!gate.log().contains("ERROR"), "{row}: {}", gate.log()),
    }
    if says == Some(REFUSED) {
        assert!(gate.metric(FAILED) >= 1.0, "{row}");
        fs::rename(gate.path("state.db"), gate.path("away")).unwrap();
    }
    written(&gate.path("state.db"), 1);
}

#[test]
fn a_state_file_that_is_none_is_told_of_and_the_gate_serves() {
    check_found("nothing", |_| (), None);
    check_found("zero bytes", |path| fs::write(path, "").unwrap(), None);
    check_found("a head and no more", |path| fs::write(path, b"SQLite format 3\0").unwrap(), Some(ANEW));
    check_found("bytes that tell nothing", |path| fs::write(path, [0xff, 0].repeat(999)).unwrap(), Some(REFUSED));
}

/// Regression: what was no SQLite file was renamed as damaged, whosever it was.
#[test]
fn a_file_of_another_use_is_refused_at_the_start_and_never_touched() {
    let origin = Origin::ok();
    let refused = |row: &str, prepare: &dyn Fn(&Path), says: &str| {
        let folder = tempfile::tempdir().unwrap();
        write_private(&folder.path().join("keys.yaml"), KEYS);
        fs::write(folder.path().join("keygate.yaml"), config(&origin, "state.db")).unwrap();
        let path = folder.path().join("state.db");
        prepare(&path);
        let before = fs::read(&path).ok();
        for command in ["check", "serve"] {
            let (status, out, err) = run(folder.path(), &[command, "-c", "keygate.yaml"]);
            let want = format!("/state.db: cannot be the state file: {says}; `state.path` names a file of its own");
            assert!(status == 2 && out.is_empty() && err.contains(&want), "{row}: {status} {out}{err}");
        }
        assert_eq!(fs::read(&path).ok(), before, "{row}");
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let besides: Vec<_> = names.filter(|name| name.to_str().unwrap().starts_with("state.db")).collect();
        assert!(besides.iter().all(|name| name == "state.db" || name == "state.db.session"), "{row}: {besides:?}");
    };
    let text = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    refused("a certificate", &|path| fs::write(path, text).unwrap(), "it is a text file");
    refused("a folder", &|path| fs::create_dir(path).unwrap(), "it is a folder");
    refused("a device", &|path| symlink("/dev/null", path).unwrap(), "it is not a regular file");
    // The head of a database that no program has marked.
    let theirs = [b"SQLite format 3\0".as_slice(), &[0; 4080]].concat();
    refused("another's database", &|path| fs::write(path, &theirs).unwrap(), "it is another program's database");
}

#[test]
fn what_the_gate_will_say_of_its_state_file_is_a_warning_of_check() {
    let origin = Origin::ok();
    let warned = |prepare: &dyn Fn(&Path), says: &str| {
        let folder = tempfile::tempdir().unwrap();
        write_private(&folder.path().join("keys.yaml"), KEYS);
        fs::write(folder.path().join("keygate.yaml"), config(&origin, "in/state.db")).unwrap();
        prepare(&folder.path().join("in"));
        let (status, out, err) = run(folder.path(), &["check", "-c", "keygate.yaml"]);
        assert!(status == 0 && out.starts_with("ok: "), "{out}{err}");
        // The keys of the tests are warned of, too.
        let line = err.lines().find(|line| line.contains("/in/state.db: ")).unwrap_or_default();
        let want = format!(
            "/in/state.db: cannot be the state file: {says}; the gate serves, and counts in memory until it can write"
        );
        assert!(line.starts_with("warning: ") && line.ends_with(&want), "{err}");
    };
    let with = |bytes: Vec<u8>| {
        move |folder: &Path| {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("state.db"), &bytes).unwrap();
        }
    };
    warned(&|_| (), "its folder is not there");
    warned(&with([0xff, 0].repeat(99)), "it cannot be told for a state file and is left alone");
    warned(&with(vec![0; 99]), "it is damaged, and is put aside for a new one");
}
