//! The key file changes under a running gate, in every way that files are replaced; and a bad one changes nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::gateway::{Gateway, write_private};
use crate::support::origin::Origin;
use crate::support::{ALICE, BOB, KEYS, config_with, eventually};

/// Taken files, counted.
pub const GOOD: &str = r#"keygate_keyfile_reloads_total{result="success"}"#;
/// Refused files, counted.
pub const BAD: &str = r#"keygate_keyfile_reloads_total{result="failure"}"#;

/// The usual configuration, but asking again and again with a bad key is no offence.
pub fn config(origin: &Origin) -> String {
    config_with(origin, "  - { path: /, upstream: app }\n", "limits: { failed_auth: off }\n")
}

/// The usual file without alice.
pub const ONLY_BOB: &str = "version: 1
keys:
  - id: ba9af604
    user: bob
    hash: 618e09497540ecec350de43aa7cf9721121d5eb4b77de5e9132e570ba796d95c
...
";

/// The status of one request; 0 where the connection ended without one, as it does when the key ends while its request is
/// under way (design rule 8).
pub fn status(gate: &Gateway, key: &str) -> u16 {
    let mut client = Client::connect(gate.address(0));
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\n\r\n"));
    client.read_for("GET").map_or(0, |response| response.status)
}

/// What a way of replacing the file is called, and how it is done.
type Way<'a> = (&'a str, &'a dyn Fn(&str));

/// Waits until alice's key is answered with `want` and says how long that took.
pub fn in_force(gate: &Gateway, how: &str, want: u16) {
    let began = Instant::now();
    eventually(how, || (status(gate, ALICE) == want).then_some(()));
    eprintln!("{how}: in force after {:?}", began.elapsed());
    assert_eq!(status(gate, BOB), 200, "{how}");
}

/// A gate whose key file is `path` of its folder, prepared by `prepare`.
pub fn gate_on(origin: &Origin, path: &str, prepare: impl FnOnce(&Path)) -> Gateway {
    let dir = tempfile::tempdir().expect("a folder");
    prepare(dir.path());
    let config = config(origin).replace("keys.yaml", path);
    Gateway::start_in(dir, &config, KEYS, &[])
}

#[test]
fn every_way_to_replace_the_file_is_noticed() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    let file = gate.path("keys.yaml");
    let next = gate.path("next");
    let ways: [Way<'_>; 6] = [
        ("written in place", &|text| fs::write(&file, text).unwrap()),
        ("renamed over", &|text| gate.replace_keys(text)),
        ("deleted and created", &|text| {
            fs::remove_file(&file).unwrap();
            write_private(&file, text);
        }),
        ("deleted, and created after a while", &|text| {
            let refused = gate.metric(BAD);
            fs::remove_file(&file).unwrap();
            eventually("the loss is told", || (gate.metric(BAD) > refused).then_some(()));
            write_private(&file, text);
        }),
        ("in pieces", &|text| {
            fs::write(&file, "").unwrap();
            for piece in text.as_bytes().chunks(60) {
                use std::io::Write;
                fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(piece).unwrap();
                std::thread::park_timeout(Duration::from_millis(5));
            }
        }),
        ("made a link to another file", &|text| {
            let real = gate.path(&format!("real-{}", text.len()));
            write_private(&real, text);
            let _ = fs::remove_file(&next);
            symlink(&real, &next).unwrap();
            fs::rename(&next, &file).unwrap();
        }),
    ];
    for (how, write) in ways {
        write(ONLY_BOB);
        in_force(&gate, how, 401);
        write(KEYS);
        in_force(&gate, how, 200);
    }
}

#[test]
fn a_kubernetes_data_swap_is_noticed() {
    let origin = Origin::ok();
    let version = |folder: &Path, name: &str, text: &str| {
        fs::create_dir(folder.join(name)).unwrap();
        write_private(&folder.join(name).join("keys.yaml"), text);
    };
    let gate = gate_on(&origin, "mounted/keys.yaml", |folder| {
        let mounted = folder.join("mounted");
        fs::create_dir(&mounted).unwrap();
        version(&mounted, "..v1", KEYS);
        symlink("..v1", mounted.join("..data")).unwrap();
        symlink("..data/keys.yaml", mounted.join("keys.yaml")).unwrap();
    });
    assert_eq!(status(&gate, ALICE), 200);
    for (number, text, want) in [(2, ONLY_BOB, 401), (3, KEYS, 200), (4, ONLY_BOB, 401)] {
        let mounted = gate.path("mounted");
        version(&mounted, &format!("..v{number}"), text);
        symlink(format!("..v{number}"), mounted.join("..data_tmp")).unwrap();
        fs::rename(mounted.join("..data_tmp"), mounted.join("..data")).unwrap();
        fs::remove_dir_all(mounted.join(format!("..v{}", number - 1))).unwrap();
        in_force(&gate, "..data swapped", want);
    }
}

/// What a container sees of a single file that is bind-mounted: its folder never changes, and so never notifies; the file is
/// changed through another name of the same inode.
#[test]
fn a_file_changed_through_another_folder_is_noticed_by_looking() {
    let origin = Origin::ok();
    let gate = gate_on(&origin, "seen/keys.yaml", |folder| {
        fs::create_dir(folder.join("host")).unwrap();
        fs::create_dir(folder.join("seen")).unwrap();
        write_private(&folder.join("host/keys.yaml"), KEYS);
        fs::hard_link(folder.join("host/keys.yaml"), folder.join("seen/keys.yaml")).unwrap();
    });
    for (text, want) in [(ONLY_BOB, 401), (KEYS, 200)] {
        fs::write(gate.path("host/keys.yaml"), text).unwrap();
        in_force(&gate, "hard link written", want);
    }
}

/// Unmounts when dropped.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn bind_mount(from: &Path, to: &Path) -> Option<Mount> {
    let mount = Command::new("mount").arg("--bind").args([from, to]).output().ok()?;
    mount.status.success().then(|| Mount(to.to_owned()))
}

#[test]
fn a_bind_mounted_file_is_followed_as_far_as_mounts_allow() {
    let origin = Origin::ok();
    let dir = tempfile::tempdir().expect("a folder");
    fs::create_dir(dir.path().join("host")).unwrap();
    fs::create_dir(dir.path().join("seen")).unwrap();
    let (host, seen) = (dir.path().join("host/keys.yaml"), dir.path().join("seen/keys.yaml"));
    write_private(&host, KEYS);
    write_private(&seen, "");
    let Some(_mount) = bind_mount(&host, &seen) else {
        println!("SKIPPED: no right to bind-mount here");
        return;
    };
    let gate = Gateway::start_in(dir, &config(&origin).replace("keys.yaml", "seen/keys.yaml"), KEYS, &[]);
    fs::write(&host, ONLY_BOB).unwrap();
    in_force(&gate, "bind mount, written in place", 401);
    fs::write(&host, KEYS).unwrap();
    in_force(&gate, "bind mount, written in place", 200);
}

#[test]
fn a_folder_without_notifications_is_looked_at() {
    // A memory file behind /proc gives no notification for its content: only looking finds a change.
    let origin = Origin::ok();
    let holder = tempfile::tempfile().expect("a file");
    fs::set_permissions(fd_path(&holder), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(fd_path(&holder), KEYS).unwrap();
    let gate = gate_on(&origin, "keys-link", |folder| symlink(fd_path(&holder), folder.join("keys-link")).unwrap());
    fs::write(fd_path(&holder), ONLY_BOB).unwrap();
    in_force(&gate, "no notification possible", 401);
}

/// A name for an open file that no folder notifies of.
pub fn fd_path(file: &fs::File) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()))
}

#[test]
fn a_bad_file_changes_nothing_but_log_and_metric() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    let file = gate.path("keys.yaml");
    let bad_entry = format!("{}  - {{ id: carol, user: carol, hash: short }}\n...\n", KEYS.trim_end_matches("...\n"));
    let twin = "  - { id: ba9af604, user: carol, hash: \"sha256:00000000000000000000000000000000000000000000000000000000000000ff\" }\n";
    let duplicate = format!("{}{twin}...\n", KEYS.trim_end_matches("...\n"));
    let mut rows: Vec<(String, String)> = vec![
        (String::new(), "keys.yaml".into()),
        (bad_entry, "line 12".into()),
        (duplicate, "line 12".into()),
        (KEYS.replace("user: bob", "user: [bob]"), "line 10".into()),
        ("\0".repeat(100), String::new()),
        (KEYS.replace('\n', "\n\t"), String::new()),
    ];
    // A proper beginning of the file in force is refused as cut, wherever it was cut (all offsets: the unit tests).
    for at in (1..KEYS.len() - 4).step_by(37) {
        rows.push((KEYS[..at].to_owned(), String::new()));
    }
    for (number, (text, says)) in rows.iter().enumerate() {
        let (refused, good) = (gate.metric(BAD), gate.metric(GOOD));
        let lines = gate.log().lines().count();
        let next = gate.path("next");
        write_private(&next, text);
        fs::rename(next, &file).unwrap();
        eventually("the refusal is counted", || (gate.metric(BAD) > refused).then_some(()));
        assert_eq!(gate.metric(GOOD), good, "row {number}: {text:?}");
        assert_eq!((status(&gate, ALICE), status(&gate, BOB)), (200, 200), "row {number}: {text:?}");
        let line = eventually("a log line", || {
            let log = gate.log();
            let found = log.lines().skip(lines).find(|line| line.contains("key file refused"));
            found.map(str::to_owned)
        });
        assert!(line.contains(says.as_str()) || says == "keys.yaml", "row {number} ({text:?}): {line}");
        gate.replace_keys(KEYS);
        eventually("the good file is back", || (gate.metric(GOOD) > good).then_some(()).or_else(|| unchanged(&gate)));
    }
}

/// A file that is back as it was before anything of the bad one was in force counts as no reload.
fn unchanged(gate: &Gateway) -> Option<()> {
    (status(gate, ALICE) == 200).then_some(())
}

/// Asks on one connection until `stop`, with a good and a bad key in turn, and checks every answer; counts requests and gives
/// the slowest.
fn keep_asking(gate: &Gateway, stop: &AtomicBool, count: &AtomicUsize) -> Duration {
    let mut client = Client::connect(gate.address(0));
    let mut slowest = Duration::ZERO;
    for round in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let (key, want) = if round % 2 == 0 { (BOB, 200) } else { ("never-a-key", 401) };
        let began = Instant::now();
        client.send(format!("GET /{round} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\n\r\n"));
        assert_eq!(client.read().status, want);
        slowest = slowest.max(began.elapsed());
        count.fetch_add(1, Ordering::SeqCst);
    }
    slowest
}

/// Runs `work` while four connections ask without a pause; all answers must be right. How many there were, and the slowest.
fn under_load(gate: &Gateway, work: impl FnOnce(&AtomicUsize)) -> (usize, Duration) {
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..4).map(|_| scope.spawn(|| keep_asking(gate, &stop, &count))).collect();
        let worked = catch_unwind(AssertUnwindSafe(|| work(&count)));
        stop.store(true, Ordering::SeqCst);
        let slowest = asking.into_iter().map(|asking| asking.join().expect("every answer was right")).max();
        worked.unwrap_or_else(|panic| resume_unwind(panic));
        (count.load(Ordering::SeqCst), slowest.unwrap_or_default())
    })
}

#[test]
fn a_thousand_writes_a_second_are_few_reloads_and_disturb_nobody() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    let before = gate.metric(GOOD) + gate.metric(BAD);
    let began = Instant::now();
    let mut writes = 0_u32;
    let (count, slowest) = under_load(&gate, |_| {
        while writes < 3000 {
            let text = if writes.is_multiple_of(2) { ONLY_BOB } else { KEYS };
            gate.replace_keys(&format!("# {writes}\n{text}"));
            writes += 1;
            let due = Duration::from_millis(1) * writes;
            std::thread::park_timeout(due.saturating_sub(began.elapsed()));
        }
        gate.replace_keys(ONLY_BOB);
        in_force(&gate, "the last of many", 401);
    });
    let reloads = gate.metric(GOOD) + gate.metric(BAD) - before;
    let most = began.elapsed().as_secs_f64() / 0.1 + 1.0;
    println!("{writes} writes, {reloads} reloads, {count} requests, slowest {slowest:?}");
    // One at a time, at least 100 ms apart.
    assert!((1.0..=most).contains(&reloads), "{reloads} reloads, at most {most}");
    assert_eq!(gate.metric(BAD), 0.0, "no half of a file was seen");
}

#[test]
fn reloads_of_a_hundred_thousand_keys_lose_no_request() {
    use std::fmt::Write as _;
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    let mut many = ONLY_BOB.trim_end_matches("...\n").to_owned();
    for number in 0..100_000 {
        let _ = writeln!(many, "  - {{ id: k{number}, user: u{number}, hash: \"sha256:{number:064x}\" }}");
    }
    many.push_str("...\n");
    let (quiet, slowest_quiet) = under_load(&gate, |count| {
        eventually("requests", || (count.load(Ordering::SeqCst) > 2000).then_some(()));
    });
    let rounds = [(many.as_str(), 100_001.0), (KEYS, 2.0), (&many, 100_001.0)];
    let mut in_force_count = 0.0;
    let (loaded, slowest_loaded) = under_load(&gate, |count| {
        for (text, keys) in rounds {
            let before = count.load(Ordering::SeqCst);
            gate.replace_keys(text);
            // More than the usual patience: unoptimised, and the machine is busy with the requests.
            let began = Instant::now();
            while gate.metric(r#"keygate_keys{state="active"}"#) != keys && began.elapsed() < Duration::from_secs(60) {
                std::thread::park_timeout(Duration::from_millis(20));
            }
            in_force_count = gate.metric(r#"keygate_keys{state="active"}"#);
            assert!(count.load(Ordering::SeqCst) > before, "no request was answered meanwhile");
        }
    });
    println!(
        "without reloads {quiet} requests, slowest {slowest_quiet:?}; with three {loaded}, slowest {slowest_loaded:?}"
    );
    let parse = gate.metric("keygate_keyfile_parse_duration_seconds");
    println!("the last was parsed in {parse} s");
    assert_eq!(in_force_count, 100_001.0);
    origin.faultless();
}

/// A reload refills nobody's allowance, and takes none away.
#[test]
fn a_limit_half_used_is_half_used_after_a_reload() {
    let origin = Origin::ok();
    let limits = "limits: { default: { requests: 4, per: 1h } }\n";
    let gate = Gateway::start(&config_with(&origin, "  - { path: /, upstream: app }\n", limits));
    assert_eq!([0; 2].map(|_| status(&gate, ALICE)), [200; 2]);
    let before = gate.metric(GOOD);
    gate.replace_keys(&KEYS.replace("user: bob", "user: robert"));
    eventually("the reload", || (gate.metric(GOOD) > before).then_some(()));
    assert_eq!([0; 3].map(|_| status(&gate, ALICE)), [200, 200, 429]);
}

/// A gate that drains may do so for long: a key revoked meanwhile ends its requests then too.
#[test]
fn a_key_revoked_while_the_gate_drains_ends_its_requests() {
    use std::io::Write;
    // Half an answer, which then never goes on.
    let origin = Origin::start_raw(|_, mut stream, _| {
        use std::io::Read;
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        let _ = stream.read(&mut [0; 4096]);
    });
    let more = "limits: { failed_auth: off }\nshutdown: { grace: 1m }\n";
    let mut gate = Gateway::start(&config_with(&origin, "  - { path: /, upstream: app }\n", more));
    let mut client = Client::connect(gate.address(0));
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\n\r\n"));
    eventually("the request is under way", || (origin.connections() == 1).then_some(()));
    gate.signal("TERM");
    eventually("draining", || gate.log().contains("\"draining\"").then_some(()));
    gate.replace_keys(ONLY_BOB);
    assert_eq!(gate.wait().code(), Some(0), "the last request ended long before the grace");
    let _ = client.read_to_close();
}
