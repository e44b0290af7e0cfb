//! Key commands that meet each other, a kill at any moment or an editor: nothing is lost, the file is the old one or the new
//! one, and the audit log says which.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::{FlockOperation, flock};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::keys::keys;
use crate::support::gateway::{run, write_private};
use crate::support::{KEYS, entry, eventually, keys_with};

/// A folder with this key file, which the service's group may read.
pub fn folder_with(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_private(&folder.path().join("keys.yaml"), text);
    fs::set_permissions(folder.path().join("keys.yaml"), fs::Permissions::from_mode(0o640)).unwrap();
    folder
}

/// Starts `keygate keys … --keys keys.yaml`; its output waits in pipes.
pub fn start(folder: &Path, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_keygate"))
        .args(["keys", "--keys", "keys.yaml"])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The key file.
pub fn text(folder: &Path) -> String {
    fs::read_to_string(folder.join("keys.yaml")).unwrap()
}

/// What the file holds by `list --json`, so that it must be whole.
pub fn listed(folder: &Path) -> Vec<Value> {
    serde_json::from_str(&keys(folder, &["--keys", "keys.yaml", "list", "--json"]).0).unwrap()
}

/// The names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

fn digest(text: &str) -> String {
    Sha256::digest(text).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// The changes that came about since the file was `first`, by the audit log alone: a line is one of them if the next line, or
/// at last the file, goes on from its `after`; else it must go on from its `before`, as a command was stopped in between.
fn history(folder: &Path, first: &str) -> Vec<Value> {
    let log = fs::read_to_string(folder.join("keys.yaml.audit")).unwrap_or_default();
    assert!(!log.contains("kg_") && !log.contains("sha256"), "{log}");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut now = Value::from(digest(first));
    let mut happened = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        assert_eq!(line["before"], now, "line {at} of {log}");
        let next = lines.get(at + 1).map_or_else(|| digest(&text(folder)).into(), |next| next["before"].clone());
        if next == line["after"] {
            happened.push(line.clone());
            now = next;
        }
    }
    assert_eq!(now, digest(&text(folder)), "the log ends where the file is: {log}");
    happened
}

#[test]
fn two_hundred_at_once_lose_no_key_beside_those_who_change_others() {
    let old: Vec<String> = (0..32).map(|at| entry(&format!("old{at:05}"), "old", &format!("key {at}"), "")).collect();
    let first = format!("# Ours.\n{}", keys_with(&old));
    let folder = folder_with(&first);
    let mut children = Vec::new();
    for at in 0..200 {
        children.push(start(folder.path(), &["create", "--user", &format!("new{at}"), "--expires", "1d"]));
        if at < 32 {
            let id = format!("old{at:05}");
            let other: &[&str] = match at % 4 {
                0 => &["revoke", &id],
                1 => &["rotate", &id],
                2 => &["update", &id, "--note", "seen"],
                _ => &["disable", &id],
            };
            children.push(start(folder.path(), other));
        }
    }
    let outputs = children.into_iter().map(|child| child.wait_with_output().unwrap());
    let secrets: HashSet<String> = outputs
        .inspect(|output| assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)))
        .map(|output| String::from_utf8(output.stdout).unwrap())
        .filter(|out| !out.is_empty())
        .collect();
    assert_eq!(secrets.len(), 208, "one for each key made or rotated");
    let keys = listed(folder.path());
    let unique = |field: &str| keys.iter().map(|key| key[field].as_str().unwrap_or_default()).collect::<HashSet<_>>();
    let mut new = (0..200).map(|at| format!("new{at}"));
    assert!(new.all(|user| unique("user").contains(&*user)) && keys.len() == 2 + 24 + 200, "{keys:?}");
    assert_eq!((unique("id").len(), unique("name").len()), (keys.len(), 202), "of old ones only alice's has a name");
    let after = text(folder.path());
    assert!(after.starts_with("# Ours.\nversion: 1\n") && after.ends_with("\n...\n"), "{after}");
    assert_eq!((after.matches("note: seen").count(), after.matches("disabled: true").count()), (8, 8));
    assert_eq!(after.matches("previous:").count(), 8);
    let mut done: Vec<String> =
        history(folder.path(), &first).iter().map(|line| line["action"].as_str().unwrap().to_owned()).collect();
    done.sort();
    let count = |action: &str| done.iter().filter(|done| *done == action).count();
    assert_eq!(["create", "revoke", "rotate", "update", "disable"].map(count), [200, 8, 8, 8, 8]);
    assert_eq!(names(folder.path()), ["keys.yaml", "keys.yaml.audit"]);
}

/// A command that is killed as soon as `reached` says so, or when it has ended: what must hold whenever that is.
fn killed(folder: &Path, first: &str, number: usize, mut reached: impl FnMut(&mut Child) -> bool) -> bool {
    let old = text(folder);
    let user = format!("user{number}");
    let arguments: &[&str] = match number % 3 {
        0 => &["create", "--user", &user],
        1 => &["update", "ba9af604", "--note", &user],
        _ => &["rotate", "48e8f859", "--grace", "0"],
    };
    let mut child = start(folder, arguments);
    while !reached(&mut child) && child.try_wait().unwrap().is_none() {}
    let _may_have_ended = child.kill();
    child.wait().unwrap();
    let mut shown = String::new();
    child.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
    let new = text(folder);
    if new != old {
        // Whole, and what was asked for: no other text has the digest that the log names.
        let log = fs::read_to_string(folder.join("keys.yaml.audit")).unwrap();
        let last: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        assert_eq!(last["after"], digest(&new), "{new}");
    }
    assert!(shown.is_empty() || new != old, "a secret was shown of a key that is not in the file");
    assert!(new.starts_with("# Ours.\n") && new.ends_with("\n...\n"));
    assert_eq!(fs::metadata(folder.join("keys.yaml")).unwrap().mode() & 0o7777, 0o640);
    history(folder, first);
    new != old
}

#[test]
fn a_kill_at_any_moment_leaves_the_old_file_or_the_new() {
    let first = format!("# Ours.\n{KEYS}");
    let folder = folder_with(&first);
    // Each may be asked a little oftener than the one before whether it has ended, until many come to their end.
    let (mut patience, mut number, mut made) = (100, 0, 0);
    while made < 20 {
        let mut left = patience;
        made += usize::from(killed(folder.path(), &first, number, |_| {
            left -= 1;
            left == 0
        }));
        patience += patience / 12;
        number += 1;
    }
    after_kills(folder.path(), &first);
}

#[test]
fn a_kill_at_each_step_leaves_the_old_file_or_the_new() {
    let many: Vec<String> = (0..300).map(|at| entry(&format!("id{at:06}"), "old", &format!("key {at}"), "")).collect();
    let first = format!("# Ours.\n{}", keys_with(&many));
    let folder = folder_with(&first);
    let path = folder.path();
    let log_size = || fs::metadata(path.join("keys.yaml.audit")).map_or(0, |log| log.len());
    for number in 0..3 {
        // No change may be one that was made already: that would write nothing.
        killed(path, &first, number, |_| names(path).iter().any(|name| name.ends_with(".tmp")));
        let size = log_size();
        killed(path, &first, number + 3, |_| log_size() > size);
        let inode = || fs::metadata(path.join("keys.yaml")).unwrap().ino();
        let before = inode();
        assert!(killed(path, &first, number + 6, |_| inode() != before), "it was killed behind its rename");
        killed(path, &first, number + 9, |child| {
            // Waits for the first byte of the secret, or the end of a command that has none to show.
            number != 1 && matches!(child.stdout.as_mut().unwrap().read(&mut [0]), Ok(1))
        });
    }
    after_kills(path, &first);
}

/// The next command works, and nothing is left of those that were killed.
fn after_kills(folder: &Path, first: &str) {
    fs::write(folder.join(".keys.yaml.aB3xYz.tmp"), "half a fi").unwrap();
    keys(folder, &["--keys", "keys.yaml", "create", "--user", "last"]);
    let happened = history(folder, first);
    assert_eq!(happened.last().unwrap()["user"], "last");
    let ids: HashSet<String> = listed(folder).iter().map(|key| key["id"].as_str().unwrap().to_owned()).collect();
    let made = happened.iter().filter(|line| line["action"] == "create");
    assert!(made.clone().all(|line| ids.contains(line["key"].as_str().unwrap())), "what was made is there");
    assert_eq!(made.count() + listed_at_first(first), ids.len(), "and nothing that nobody knows of");
    assert_eq!(names(folder), ["keys.yaml", "keys.yaml.audit"]);
}

fn listed_at_first(first: &str) -> usize {
    first.matches("- id:").count()
}

#[test]
fn one_who_must_wait_says_so_and_then_goes_on() {
    let folder = folder_with(KEYS);
    let lock = File::open(folder.path()).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let mut child = start(folder.path(), &["revoke", "amber-falcon"]);
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "waiting for another change of the key file to end\n");
    assert_eq!(text(folder.path()), KEYS);
    // Who only reads does not wait.
    assert_eq!(listed(folder.path()).len(), 2);
    flock(&lock, FlockOperation::Unlock).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(listed(folder.path()).len(), 1);
}

#[test]
fn an_edit_by_hand_in_the_middle_of_a_command_is_not_overwritten() {
    // So long a file that nearly all of a command's time lies between its reading and its writing.
    let many: Vec<String> = (0..3000).map(|at| entry(&format!("id{at:06}"), "old", &format!("key {at}"), "")).collect();
    let folder = folder_with(&keys_with(&many));
    let overtaken = (0..50).any(|round| {
        let log = fs::read(folder.path().join("keys.yaml.audit")).unwrap_or_default();
        let child = start(folder.path(), &["create", "--user", "carol"]);
        let lock = File::open(folder.path()).unwrap();
        eventually("the command has the lock", || {
            let free = flock(&lock, FlockOperation::NonBlockingLockShared).is_ok();
            flock(&lock, FlockOperation::Unlock).unwrap();
            (!free).then_some(())
        });
        let edited = format!("# By hand, {round}.\n{}", text(folder.path()));
        write_private(&folder.path().join("mine"), &edited);
        fs::rename(folder.path().join("mine"), folder.path().join("keys.yaml")).unwrap();
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        if output.status.success() {
            assert!(text(folder.path()).starts_with(&format!("# By hand, {round}.\n")), "it read what was edited");
            return false;
        }
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{err}");
        assert!(err.contains("changed by someone else at the same time; nothing was written, try again"), "{err}");
        assert_eq!(text(folder.path()), edited);
        assert_eq!(fs::read(folder.path().join("keys.yaml.audit")).unwrap(), log, "the log has no line of it");
        true
    });
    assert!(overtaken, "no edit came between");
    assert_eq!(names(folder.path()), ["keys.yaml", "keys.yaml.audit"]);
}

#[test]
fn a_limit_on_the_size_of_files_is_told_and_nothing_is_changed() {
    let comments = format!("# {}\n", "x".repeat(97)).repeat(1000);
    for (keys, log, says) in [
        (format!("{comments}{KEYS}"), String::new(), "the new key file could not be written beside the old one"),
        (KEYS.to_owned(), format!("{}\n", "{}".repeat(50_000)), "nothing was changed, since the audit log"),
    ] {
        let folder = folder_with(&keys);
        fs::write(folder.path().join("keys.yaml.audit"), &log).unwrap();
        let command =
            format!("ulimit -f 16; exec '{}' keys --keys keys.yaml create --user x", env!("CARGO_BIN_EXE_keygate"));
        let output = Command::new("sh").args(["-c", &command]).current_dir(folder.path()).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{err}");
        assert!(err.contains(says) && err.contains("ulimit -f"), "{err}");
        assert_eq!(text(folder.path()), keys);
        assert_eq!(fs::read_to_string(folder.path().join("keys.yaml.audit")).unwrap(), log);
        assert_eq!(names(folder.path()), ["keys.yaml", "keys.yaml.audit"]);
        assert_eq!(run(folder.path(), &["keys", "--keys", "keys.yaml", "create", "--user", "x"]).0, 0);
    }
}
