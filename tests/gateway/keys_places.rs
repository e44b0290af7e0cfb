//! Key commands where something is in the way: links, mounts, full disks, rights, and no terminal, no names and no streams.
//! The file stays as it was unless the command says that it is done, and then its mode, owner and comments stay.

use std::fs;
use std::io::pipe;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::keys::keys;
use crate::keys_safety::{folder_with, listed, names, text};
use crate::support::KEYS;
use crate::support::gateway::{is_root, run, unprivileged, write_private};

const CREATE: [&str; 5] = ["keys", "--keys", "keys.yaml", "create", "--user=carol"];

/// Runs a shell script with mounts of its own, from which `$KEYGATE` is the binary; `None` where nobody may mount.
fn with_mounts(folder: &Path, script: &str) -> Option<Output> {
    let flags = if is_root() { "-m" } else { "-rm" };
    let shell = |script: &str| {
        let mut command = Command::new("unshare");
        command.args([flags, "sh", "-ec", script]).env("KEYGATE", env!("CARGO_BIN_EXE_keygate"));
        command.current_dir(folder).stdin(Stdio::null()).output()
    };
    if shell("mount -t tmpfs none .").is_ok_and(|output| output.status.success()) {
        return Some(shell(script).unwrap());
    }
    eprintln!("SKIPPED: no right to mount here");
    None
}

#[test]
fn full_disks_and_odd_mounts_leave_the_old_file_and_no_line_in_the_log() {
    // The file has five pages of memory, the disk sixteen.
    let old = format!("{}{KEYS}", format!("# {}\n", "x".repeat(97)).repeat(190));
    let disk = "mkdir disk; mount -t tmpfs -o size=64k none disk; cp -p keys.yaml disk; cd disk;";
    for (what, before, says) in [
        ("no room at all", format!("{disk} head -c 1000000 /dev/zero > ballast || true"), "No space left on device"),
        ("room for the log only", format!("{disk} head -c 36000 /dev/zero > ballast"), "No space left on device"),
        ("a read-only mount", format!("{disk} mount -o remount,bind,ro ."), "Read-only file system"),
        (
            "a mount of the file alone",
            "cp -p keys.yaml inner; mount --bind inner keys.yaml".to_owned(),
            "the key file is a mount of its own and cannot be replaced at once; mount its folder instead",
        ),
    ] {
        let folder = folder_with(&old);
        let script = format!(
            "home=$PWD; {before}; \"$KEYGATE\" {} || echo \"status $?\"
             ls -A > \"$home/names\" 2>&1 || true; cp keys.yaml \"$home/after\"; cat keys.yaml.audit > \"$home/log\" || true
             rm -f ballast || true; \"$KEYGATE\" {} 2>&1 > /dev/full | grep -c nobody > \"$home/again\" || true",
            CREATE.join(" "),
            CREATE.join(" "),
        );
        let Some(output) = with_mounts(folder.path(), &script) else { return };
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "status 1\n", "{what}: {err}");
        assert!(err.contains(says), "{what}: {err}");
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(read("after") == old && read("log").is_empty(), "{what}");
        assert!(!read("names").contains(".tmp"), "{what}: {}", read("names"));
        let there_is_room = usize::from(what.contains("room"));
        assert_eq!(read("again").trim(), there_is_room.to_string(), "{what}: with room again it goes on");
    }
}

/// Runs `create` in the folder `held` of this one, as a user who is not root; it must fail with `status` and change nothing.
#[track_caller]
fn refused_to_others(what: &str, status: i32, says: &str, prepare: impl FnOnce(&Path)) {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("held");
    fs::create_dir(&folder).unwrap();
    write_private(&folder.join("keys.yaml"), KEYS);
    let mut command = unprivileged(outer.path());
    prepare(&folder);
    let log = fs::read_to_string(folder.join("keys.yaml.audit")).unwrap_or_default();
    let modes = fs::metadata(&folder).unwrap().permissions();
    let output = command.args(CREATE).current_dir(&folder).stdin(Stdio::null()).output().unwrap();
    // Readable again for those who are not root.
    chmod(&folder, 0o700);
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(status), 0), "{what}: {err}");
    assert!(err.contains(says), "{what}: {err}");
    let left = names(&folder);
    assert!(left.iter().all(|name| matches!(name.as_str(), "keys.yaml" | "keys.yaml.audit")), "{what}: {left:?}");
    let log_now = fs::read_to_string(folder.join("keys.yaml.audit")).unwrap_or_default();
    assert_eq!(log_now, log, "{what} ({modes:?})");
    chmod(&folder.join("keys.yaml"), 0o600);
    assert_eq!(text(&folder), KEYS, "{what}");
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn where_rights_are_missing_nothing_is_changed_and_the_reason_is_told() {
    let log = |folder: &Path| {
        write_private(&folder.join("keys.yaml.audit"), "{}\n");
        chmod(&folder.join("keys.yaml.audit"), 0o666);
    };
    let no_log = "nothing was changed, since the audit log cannot be written: Permission denied";
    refused_to_others("a folder that may not be written", 1, no_log, |folder| chmod(folder, 0o500));
    refused_to_others("the same, with a log", 1, "which is as it was: Permission denied", |folder| {
        log(folder);
        chmod(folder, 0o500);
    });
    refused_to_others("a log that may not be written", 1, no_log, |folder| {
        log(folder);
        chmod(&folder.join("keys.yaml.audit"), 0o444);
    });
    refused_to_others("a folder that may not be read", 1, "the folder of the key file cannot be used", |folder| {
        chmod(folder, 0o300);
    });
    refused_to_others("a file that may not be read", 2, "permission denied", |folder| {
        chmod(&folder.join("keys.yaml"), 0);
    });
    if is_root() {
        refused_to_others("another's file in one's own folder", 1, "belongs to another user or group", |folder| {
            log(folder);
            chown(folder.join("keys.yaml"), Some(0), Some(0)).unwrap();
            chmod(&folder.join("keys.yaml"), 0o644);
        });
        refused_to_others("another's file in a folder for all", 1, "nothing was changed", |folder| {
            chown(folder.join("keys.yaml"), Some(0), Some(0)).unwrap();
            chmod(&folder.join("keys.yaml"), 0o644);
            chown(folder, Some(0), Some(0)).unwrap();
            chmod(folder, 0o755);
        });
    }
}

#[test]
fn mode_owner_comments_and_order_stay_and_links_are_followed() {
    let old = KEYS.replace("  - id: ba9af604", "  # bob is on leave\n  - id: ba9af604 # until May");
    let folder = tempfile::tempdir().unwrap();
    let (store, link) = (folder.path().join("store"), folder.path().join("keys.yaml"));
    fs::create_dir(&store).unwrap();
    let (real, log) = (store.join("real.yaml"), store.join("real.yaml.audit"));
    write_private(&real, &old);
    chmod(&real, 0o640);
    if is_root() {
        chown(&real, Some(12_345), Some(54_321)).unwrap();
    }
    let owner = |path: &Path| fs::metadata(path).map(|file| (file.uid(), file.gid())).unwrap();
    let (before, mode) = (owner(&real), |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777);
    symlink("store/real.yaml", &link).unwrap();
    assert_eq!(run(folder.path(), &CREATE).0, 0);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!((owner(&real), mode(&real)), (before, 0o640));
    assert!(text(folder.path()).starts_with(old.trim_end_matches("...\n")), "{}", text(folder.path()));
    let users: Vec<Value> = listed(folder.path()).iter().map(|key| key["user"].clone()).collect();
    assert_eq!(users, ["alice", "bob", "carol"]);
    // Whoever may write the keys may write of it, too, whoever began the log.
    assert_eq!((owner(&log), mode(&log)), (before, 0o600));
    assert_eq!((names(folder.path()), names(&store).len()), (vec!["keys.yaml".to_owned(), "store".to_owned()], 2));
}

#[test]
fn a_link_that_leads_nowhere_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    symlink("gone/real.yaml", folder.path().join("keys.yaml")).unwrap();
    let (status, out, err) = run(folder.path(), &CREATE);
    assert_eq!((status, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("keys.yaml: the key file is a link that leads nowhere"), "{err}");
    assert_eq!(names(folder.path()), ["keys.yaml"]);
}

#[test]
fn other_names_of_the_file_are_told_of() {
    let folder = folder_with(KEYS);
    fs::hard_link(folder.path().join("keys.yaml"), folder.path().join("twin.yaml")).unwrap();
    let (status, _, err) = run(folder.path(), &CREATE);
    assert!(
        status == 0 && err.contains("keys.yaml: the file has other names (hard links), which keep the old content")
    );
    assert_eq!(fs::read_to_string(folder.path().join("twin.yaml")).unwrap(), KEYS);
    assert!(!run(folder.path(), &CREATE).2.contains("other names"), "it has none any more");
}

#[test]
fn a_secret_that_nobody_saw_is_told_of() {
    let folder = folder_with(KEYS);
    let shell = |command: &str, redirected: &str| {
        let line = format!("exec '{}' keys --keys keys.yaml {command} {redirected}", env!("CARGO_BIN_EXE_keygate"));
        Command::new("sh").args(["-c", &line]).current_dir(folder.path()).output().unwrap()
    };
    let id = |err: &str| err.split("key ").nth(1).unwrap()[..8].to_owned();
    // Rust opens /dev/null where a stream is closed: the two look the same.
    for (redirected, status) in [(">&-", 0), (">/dev/null", 0), (">/dev/full", 1), ("<&- >/dev/full", 1)] {
        for json in ["", " --json"] {
            let made = shell(&format!("create --user carol{json}"), redirected);
            let err = String::from_utf8(made.stderr).unwrap();
            assert_eq!(made.status.code(), Some(status), "{redirected}: {err}");
            let id = id(&err);
            assert!(
                err.contains("is in force with a secret that nobody has seen: ")
                    && err.contains(&format!("`keygate keys revoke {id}`")),
                "{err}"
            );
            let rotated = shell(&format!("rotate {id}{json}"), redirected);
            let err = String::from_utf8(rotated.stderr).unwrap();
            assert_eq!(rotated.status.code(), Some(status), "{redirected}: {err}");
            assert!(
                err.contains(&format!("`keygate keys rotate {id}` gives it another, and ends the secret before")),
                "{err}"
            );
            // The advice is right.
            keys(folder.path(), &["--keys", "keys.yaml", "revoke", &id]);
        }
    }
    // A pipe that nobody reads any more.
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_keygate"));
    let output = command.args(CREATE).current_dir(folder.path()).stdout(writer).stderr(Stdio::piped());
    let output = output.spawn().unwrap().wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && err.contains("Broken pipe"), "{err}");
    keys(folder.path(), &["--keys", "keys.yaml", "revoke", &id(&err)]);
    assert_eq!(listed(folder.path()).len(), 2);
}

#[test]
fn without_terminal_streams_or_environment_all_commands_work() {
    let folder = folder_with(KEYS);
    let shell = |command: &str, redirected: &str| {
        let line = format!("exec '{}' keys --keys keys.yaml {command} {redirected}", env!("CARGO_BIN_EXE_keygate"));
        let output =
            Command::new("/bin/sh").args(["-c", &line]).current_dir(folder.path()).env_clear().output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{command} {redirected}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for redirected in ["</dev/null", "<&-", "2>&-", "<&- 2>&-"] {
        assert!(shell("create --user carol --name crane", redirected).starts_with("kg_"), "{redirected}");
        assert!(shell("rotate crane", redirected).starts_with("kg_"), "{redirected}");
        assert_eq!(shell("list --json", redirected).matches("crane").count(), 1, "{redirected}");
        assert!(shell("show crane", redirected).contains("carol"), "{redirected}");
        for command in ["update crane --note x", "disable crane", "enable crane", "prune", "revoke crane"] {
            assert_eq!(shell(command, redirected), "", "{command} {redirected}");
        }
    }
    // With all three closed, the files of the command could take their numbers: nothing of it may end up in the key file.
    shell("create --user carol", "<&- >&- 2>&-");
    assert!(text(folder.path()).starts_with(KEYS.trim_end_matches("...\n")) && !text(folder.path()).contains("kg_"));
    assert_eq!(listed(folder.path()).len(), 3);
}

#[test]
fn the_log_says_who_even_where_the_system_has_no_name() {
    let outer = tempfile::tempdir().unwrap();
    let mut command = unprivileged(outer.path());
    let folder = outer.path().join("held");
    fs::create_dir(&folder).unwrap();
    write_private(&folder.join("keys.yaml"), KEYS);
    let by = if is_root() {
        // In no list of users, as in many containers.
        for path in [outer.path(), &folder, &folder.join("keys.yaml")] {
            chown(path, Some(424_242), Some(424_242)).unwrap();
        }
        command.uid(424_242).gid(424_242);
        Some("424242")
    } else {
        None
    };
    command.args(CREATE).current_dir(&folder).stdin(Stdio::null()).env_clear().env("SUDO_USER", "dora");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let line: Value = serde_json::from_str(&fs::read_to_string(folder.join("keys.yaml.audit")).unwrap()).unwrap();
    assert!(by.is_none_or(|by| line["by"] == by) && line["by"].is_string(), "{line}");
    // The system's own word for who logged in goes first, where it has one.
    if fs::read_to_string("/proc/self/loginuid").is_ok_and(|id| id.trim() == u32::MAX.to_string()) {
        assert_eq!(line["login"], "dora");
    }
}
