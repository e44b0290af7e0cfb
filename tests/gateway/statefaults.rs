//! The state file in trouble: disks that fill, folders that take nothing, SIGKILL at any moment; and what goes on through a
//! key's changes.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::keys::keys;
use crate::state::{ALICE_ID, FAILED, admitted, ask, config, read, restart, written};
use crate::support::gateway::Gateway;
use crate::support::http2::TlsGate;
use crate::support::origin::Origin;
use crate::support::{ALICE, KEYS, config_with, eventually};

const SUCCESS: &str = r#"keygate_state_writes_total{result="success"}"#;
pub const CANNOT: &str = "the state cannot be written";
const AGAIN: &str = "the state is written again";

/// How often a message is in the log.
pub fn told(gate: &Gateway, message: &str) -> usize {
    gate.log().matches(message).count()
}

/// Waits until the gate has tried in vain twice more.
fn fails_twice(gate: &Gateway) {
    fails_twice_while(gate, || ());
}

fn fails_twice_while(gate: &Gateway, hinder: impl Fn()) {
    let before = gate.metric(FAILED);
    eventually("it fails twice", || {
        hinder();
        (gate.metric(FAILED) >= before + 2.0).then_some(())
    });
}

/// A disk of its own, which the tests may fill: mounting takes root.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=1m", "keygate-test"]).arg(folder.path());
        command.status().is_ok_and(|status| status.success()).then_some(Self(folder))
    }

    fn fill(&self) {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(self.0.path().join("ballast")).unwrap();
        while file.write(&[b'x'; 1024]).is_ok_and(|wrote| wrote > 0) {}
    }

    fn clear(&self) {
        fs::remove_file(self.0.path().join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_disk_that_is_full_and_fills_again_is_told_of_and_nothing_is_lost() {
    let Some(disk) = SmallDisk::mount() else {
        println!("SKIPPED: no right to mount here");
        return;
    };
    let origin = Origin::ok();
    let state = disk.0.path().join("state.db");
    let config = config(&origin, state.to_str().unwrap());
    disk.fill();
    let gate = Gateway::start(&config);
    let mut total = 0;
    for times in 1..=2 {
        assert_eq!(admitted(&gate, ALICE, 3), 3, "serves on a full disk");
        // The gate makes room by emptying its own log.
        fails_twice_while(&gate, || disk.fill());
        assert_eq!(told(&gate, CANNOT), times, "once for each change: {}", gate.log());
        disk.clear();
        total += 3;
        written(&state, total);
        eventually("told", || (told(&gate, AGAIN) == times).then_some(()));
        disk.fill();
    }
    // What was counted when there was no room is there after a restart with room.
    assert_eq!(admitted(&gate, ALICE, 2), 2);
    disk.clear();
    let gate = restart(gate, "TERM", &config);
    assert_eq!(admitted(&gate, ALICE, 9), 2);
}

#[test]
fn a_folder_that_takes_no_file_is_told_of_and_written_to_later() {
    let origin = Origin::ok();
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("in");
    fs::create_dir(&inner).unwrap();
    let gate = Gateway::start_unprivileged(folder, &config(&origin, "in/state.db"), KEYS);
    assert_eq!(admitted(&gate, ALICE, 1), 1);
    let state = inner.join("state.db");
    written(&state, 1);
    fs::set_permissions(&inner, fs::Permissions::from_mode(0o555)).unwrap();
    assert_eq!(admitted(&gate, ALICE, 1), 1);
    written(&state, 2);
    let closed = |mode| fs::set_permissions(&inner, fs::Permissions::from_mode(mode)).unwrap();
    closed(0o755);
    fs::remove_file(&state).unwrap();
    closed(0o555);
    assert_eq!(admitted(&gate, ALICE, 2), 2);
    fails_twice(&gate);
    assert_eq!(told(&gate, CANNOT), 1);
    closed(0o755);
    written(&state, 2);
    assert_eq!(admitted(&gate, ALICE, 9), 6, "the quota did not go with the file");
}

#[test]
fn a_writer_from_elsewhere_is_told_of_and_waited_for() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin, "state.db"));
    assert_eq!(admitted(&gate, ALICE, 1), 1);
    written(&gate.path("state.db"), 1);
    let other = rusqlite::Connection::open(gate.path("state.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert_eq!(admitted(&gate, ALICE, 2), 2);
    fails_twice(&gate);
    assert_eq!(admitted(&gate, ALICE, 1), 1, "serves");
    other.execute_batch("ROLLBACK").unwrap();
    written(&gate.path("state.db"), 4);
    eventually("told", || (told(&gate, AGAIN) == 1).then_some(()));
}

/// Regression: what was counted before the file could be read was lost where the file held more, so that much of a quota was
/// given twice.
#[test]
fn what_is_counted_before_the_file_can_be_read_comes_on_top_of_it() {
    let origin = Origin::ok();
    let config = config(&origin, "state.db");
    let mut gate = Gateway::start(&config);
    assert_eq!(admitted(&gate, ALICE, 6), 6);
    gate.signal("TERM");
    gate.wait();
    let folder = std::mem::replace(&mut gate.dir, tempfile::tempdir().unwrap());
    let (state, kept) = (folder.path().join("state.db"), folder.path().join("kept"));
    fs::rename(&state, &kept).unwrap();
    fs::write(&state, [0xff, 0, 1, 0xfe].repeat(2000)).unwrap();
    let gate = Gateway::start_in(folder, &config, KEYS, &[]);
    assert_eq!(told(&gate, CANNOT), 1);
    assert_eq!(admitted(&gate, ALICE, 3), 3, "serves, and counts from nothing");
    fs::rename(&kept, &state).unwrap();
    written(&state, 9);
    assert_eq!(admitted(&gate, ALICE, 9), 1);
    // Of a file that is put back while the gate counts on, nothing is counted twice.
    fs::rename(&state, &kept).unwrap();
    assert_eq!(admitted(&gate, ALICE, 1), 0);
    eventually("a new file", || state.exists().then_some(()));
    fs::rename(&kept, &state).unwrap();
    let gate = restart(gate, "TERM", &config);
    assert_eq!(admitted(&gate, ALICE, 9), 0);
}

/// Regression: a gate that stopped while its file could not be written said at most that it counted on in memory.
#[test]
fn counts_that_are_lost_at_the_end_are_told_of() {
    let origin = Origin::ok();
    let mut gate = Gateway::start(&config(&origin, "state.db"));
    assert_eq!(admitted(&gate, ALICE, 1), 1);
    written(&gate.path("state.db"), 1);
    let other = rusqlite::Connection::open(gate.path("state.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert_eq!(admitted(&gate, ALICE, 2), 2);
    gate.signal("TERM");
    gate.wait();
    eventually("told", || (told(&gate, "the last counts could not be written and are lost") == 1).then_some(()));
}

/// Regression: two gates on one file each gave the whole quota, and neither said a word.
#[test]
fn another_gate_on_the_same_state_file_is_told_of() {
    const OTHER: &str = "another process writes the state file";
    let origin = Origin::ok();
    let one = Gateway::start(&config(&origin, "state.db"));
    assert_eq!(admitted(&one, ALICE, 2), 2);
    let state = one.path("state.db");
    written(&state, 2);
    assert_eq!(admitted(&one, ALICE, 1), 1);
    written(&state, 3);
    assert_eq!(told(&one, OTHER), 0, "its own writes, and readers, are nobody else's");
    let two = Gateway::start(&config(&origin, state.to_str().unwrap()));
    assert_eq!(admitted(&two, ALICE, 4), 4);
    written(&state, 7);
    assert_eq!(admitted(&one, ALICE, 1), 1);
    eventually("told", || (told(&one, OTHER) == 1).then_some(()));
    written(&state, 8);
    assert_eq!(admitted(&two, ALICE, 1), 1);
    eventually("told", || (told(&two, OTHER) == 1).then_some(()));
    written(&state, 9);
    assert_eq!((told(&one, OTHER), told(&two, OTHER)), (1, 1), "once");
}

/// One request by alice on a connection of its own; whether it was answered well. The gate may be killed meanwhile.
fn is_answered(address: &str) -> bool {
    let mut text = String::new();
    let asked = TcpStream::connect(address).and_then(|mut stream| {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        stream.read_to_string(&mut text)
    });
    asked.is_ok() && text.starts_with("HTTP/1.1 200 ")
}

/// Kills a gate under load after so many answers more than are sure to be written; gives the gate after it.
fn kill_under_load(gate: Gateway, config: &str, more: u64) -> Gateway {
    let (answered, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let before = read(&gate.path("state.db"), ALICE_ID).map_or(0, |known| known.total);
    let (gate, sure) = thread::scope(|scope| {
        for _ in 0..2 {
            let address = gate.address(0).to_owned();
            let (answered, is_over) = (&answered, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::SeqCst) {
                    answered.fetch_add(u64::from(is_answered(&address)), Ordering::SeqCst);
                }
            });
        }
        eventually("load", || (answered.load(Ordering::SeqCst) > 50).then_some(()));
        // A write that began before this moment may lack its answers; the one after it does not.
        let (sure, writes) = (answered.load(Ordering::SeqCst), gate.metric(SUCCESS));
        eventually("two writes", || (gate.metric(SUCCESS) >= writes + 2.0).then_some(()));
        let until = answered.load(Ordering::SeqCst) + more;
        eventually("a moment", || (answered.load(Ordering::SeqCst) >= until).then_some(()));
        gate.signal("KILL");
        is_over.store(true, Ordering::SeqCst);
        (gate, sure)
    });
    let answered = answered.load(Ordering::SeqCst);
    let gate = restart(gate, "KILL", config);
    let total = read(&gate.path("state.db"), ALICE_ID).expect("written").total - before;
    assert!((sure..=answered + 2).contains(&total), "{sure} were sure of {answered} and {total} are there");
    let file = rusqlite::Connection::open(gate.path("state.db")).unwrap();
    let verdict: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    assert!(!gate.log().contains("ERROR"), "{}", gate.log());
    gate
}

#[test]
fn sigkill_at_any_moment_loses_only_what_was_not_written_and_never_the_file() {
    let origin = Origin::ok();
    let more = "limits: { default: { quota: { requests: 1000000, per: 1mo } } }\nstate: { path: state.db }\n";
    let config = config_with(&origin, "  - { path: /, upstream: app }\n", more);
    let rounds = std::env::var("KEYGATE_TEST_KILLS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    thread::scope(|scope| {
        for more in [1, 60, 200] {
            let config = &config;
            scope.spawn(move || {
                let mut gate = Gateway::start(config);
                for round in 0..rounds {
                    gate = kill_under_load(gate, config, more + round * 13);
                }
                let total = read(&gate.path("state.db"), ALICE_ID).expect("written").total;
                let left = ask(&gate, ALICE).one("ratelimit").map(str::to_owned).expect("told");
                assert!(left.starts_with(&format!("\"quota\";r={};", 1_000_000 - total - 1)), "{total}: {left}");
            });
        }
    });
}

/// A secret that was printed.
fn secret(out: &str) -> String {
    out.trim_end().to_owned()
}

#[test]
fn rotation_keeps_what_a_key_did_and_a_new_key_of_the_same_name_begins_anew() {
    let origin = Origin::ok();
    let config = config(&origin, "state.db");
    let gate = Gateway::start(&config);
    let folder = gate.dir.path().to_owned();
    let command = |arguments: &[&str]| secret(&keys(&folder, arguments).0);
    let left = |key: &str| {
        eventually("the key is good", || {
            let field = ask(&gate, key).one("ratelimit")?.to_owned();
            field.strip_prefix("\"quota\";r=")?.split(';').next()?.parse::<u64>().ok()
        })
    };
    let shown = |member: &str| {
        let json: serde_json::Value = serde_json::from_str(&command(&["show", "probe", "--json"])).unwrap();
        json[member].clone()
    };
    let first = command(&["create", "--user", "carol", "--name", "probe"]);
    assert_eq!((left(&first), left(&first)), (9, 8));
    let rotated = command(&["rotate", "probe", "--grace", "0"]);
    assert_eq!(left(&rotated), 7, "a rotation is the same key");
    eventually("the use is shown", || shown("last_used").is_string().then_some(()));
    // A quota that is changed goes on with what is used.
    command(&["update", "probe", "--quota", "20000/mo"]);
    eventually("the quota is changed", || (left(&rotated) > 1000).then_some(()));
    let used = 20_000 - left(&rotated);
    command(&["update", "probe", "--quota", "2/mo"]);
    eventually("the quota is used up", || (ask(&gate, &rotated).status == 429).then_some(()));
    assert!(used >= 5, "{used}");
    keys(&folder, &["revoke", "probe"]);
    let second = command(&["create", "--user", "carol", "--name", "probe"]);
    assert_eq!((shown("last_used"), shown("today")), (serde_json::Value::Null, serde_json::json!(0)));
    assert_eq!(left(&second), 9);
}

#[test]
fn a_quota_that_is_used_up_is_told_alike_over_http_2() {
    let origin = Origin::ok();
    let more = "limits: { default: { quota: { requests: 1, per: 1mo } } }\n";
    let gate = TlsGate::start(&config_with(&origin, "  - { path: /, upstream: app }\n", more));
    let mut client = gate.connect();
    let key = [("x-api-key", ALICE)];
    let good = client.request("GET", "/", &key, b"");
    assert_eq!((good.status, good.one("ratelimit").unwrap().starts_with("\"quota\";r=0;t=")), (200, true));
    let month_ends = {
        let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        let next = today.last_of_month().tomorrow().unwrap().to_zoned(jiff::tz::TimeZone::UTC).unwrap();
        next.timestamp().as_second()
    };
    let before = jiff::Timestamp::now().as_second();
    let refused = client.request("GET", "/", &key, b"");
    let after = jiff::Timestamp::now().as_second();
    let wait: i64 = refused.one("retry-after").unwrap().parse().unwrap();
    assert!((month_ends - after..=month_ends - before).contains(&wait), "{wait} until the month ends");
    assert_eq!(refused.one("ratelimit"), Some(format!("\"quota\";r=0;t={wait}").as_str()));
    assert!(refused.one("ratelimit-policy").unwrap().starts_with("\"quota\";q=1;w=2"), "28 to 31 days");
    let body: serde_json::Value = serde_json::from_str(&refused.text()).unwrap();
    assert_eq!(refused.status, 429);
    assert_eq!(body["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(body["violated-policies"], serde_json::json!(["quota"]));
    assert_eq!(origin.requests().len(), 1);
}
