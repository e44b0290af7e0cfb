//! What can come to stand where the key file was: whatever it is, the old keys stay, the log says why, and the next good file is
//! taken. And changes of which no notification tells.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::keyreload::{BAD, GOOD, ONLY_BOB, config, fd_path, gate_on, in_force, status};
use crate::support::gateway::{Gateway, is_root, write_private};
use crate::support::origin::Origin;
use crate::support::{ALICE, BOB, KEYS, eventually};

/// Does `break_it`, and waits until it is refused for the reason that `says`, counted, and changed nothing.
#[track_caller]
fn refused(gate: &Gateway, how: &str, says: &str, break_it: impl FnOnce()) {
    let (bad, good, lines) = (gate.metric(BAD), gate.metric(GOOD), gate.log().lines().count());
    break_it();
    eventually(how, || (gate.metric(BAD) > bad).then_some(()));
    let line = eventually("a log line", || {
        gate.log().lines().skip(lines).find(|line| line.contains("key file refused")).map(str::to_owned)
    });
    assert!(line.contains(says), "{how}: {line}");
    assert_eq!((gate.metric(BAD), gate.metric(GOOD)), (bad + 1.0, good), "{how}: told once");
    assert_eq!((status(gate, ALICE), status(gate, BOB)), (200, 200), "{how}");
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn remove(path: &Path) {
    let is_folder = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    if is_folder { fs::remove_dir(path).unwrap() } else { fs::remove_file(path).unwrap() }
}

#[test]
fn a_file_that_may_not_be_read_keeps_the_old_keys() {
    let origin = Origin::ok();
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("held");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("keys.yaml");
    write_private(&file, KEYS);
    let gate = Gateway::start_unprivileged(dir, &config(&origin).replace("keys.yaml", "held/keys.yaml"), KEYS);
    refused(&gate, "mode 000", "permission denied", || chmod(&file, 0));
    chmod(&file, 0o600);
    fs::write(&file, ONLY_BOB).unwrap();
    in_force(&gate, "readable again", 401);
    fs::write(&file, KEYS).unwrap();
    in_force(&gate, "all keys again", 200);
    refused(&gate, "a folder that may not be entered", "permission denied", || chmod(&folder, 0));
    let good = gate.metric(GOOD);
    chmod(&folder, 0o700);
    eventually("readable again", || (gate.metric(GOOD) > good).then_some(()));
    if is_root() {
        // Root writes it and forgets whose it is.
        let next = gate.path("next");
        refused(&gate, "another's file", "permission denied", || {
            write_private(&next, ONLY_BOB);
            fs::rename(&next, &file).unwrap();
        });
        chmod(&file, 0o644);
        in_force(&gate, "for all to read", 401);
    }
}

#[test]
fn whatever_takes_its_place_keeps_the_old_keys_and_holds_nothing_up() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    let file = gate.path("keys.yaml");
    let cases: [(&str, &str, &dyn Fn()); 10] = [
        ("a folder", "not a regular file", &|| fs::create_dir(&file).unwrap()),
        ("an empty file", "the key file was cut", &|| write_private(&file, "")),
        ("a pipe that nobody writes to", "not a regular file", &|| {
            assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
        }),
        ("an endless device", "not a regular file", &|| symlink("/dev/zero", &file).unwrap()),
        ("a socket", "the key file is refused", &|| drop(UnixListener::bind(&file).unwrap())),
        ("a link to itself", "the key file is refused", &|| symlink("keys.yaml", &file).unwrap()),
        ("a link that leads nowhere", "no such file", &|| symlink("nowhere", &file).unwrap()),
        ("writable by all", "everybody may write", &|| {
            write_private(&gate.path("next"), ONLY_BOB);
            chmod(&gate.path("next"), 0o666);
            fs::rename(gate.path("next"), &file).unwrap();
        }),
        ("1 GiB", "larger than 512 MiB", &|| {
            write_private(&gate.path("next"), "");
            fs::File::options().write(true).open(gate.path("next")).unwrap().set_len(1 << 30).unwrap();
            fs::rename(gate.path("next"), &file).unwrap();
        }),
        // Says that it is empty, and is not: it seems to grow under the reader.
        ("a file of the kernel's", "never holds still", &|| symlink("/proc/version", &file).unwrap()),
    ];
    for (how, says, put) in cases {
        refused(&gate, how, says, || {
            remove(&file);
            put();
        });
        remove(&file);
        write_private(&file, ONLY_BOB);
        in_force(&gate, how, 401);
        gate.replace_keys(KEYS);
        in_force(&gate, how, 200);
    }
}

/// A file that grows for ever, as one does into which a log is led, is never taken, nor passed over in silence.
#[test]
fn a_file_that_never_stops_growing_is_complained_of() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    let file = gate.path("keys.yaml");
    fs::write(&file, ONLY_BOB.trim_end_matches("...\n")).unwrap();
    let mut growing = fs::File::options().append(true).open(&file).unwrap();
    let (told, mut still_old) = (AtomicBool::new(false), true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !told.load(Ordering::SeqCst) {
                growing.write_all(b"# and more\n").unwrap();
                std::thread::park_timeout(Duration::from_millis(1));
            }
            growing.write_all(b"...\n").unwrap();
        });
        let since = Instant::now();
        while gate.metric(BAD) == 0.0 && since.elapsed() < Duration::from_secs(15) {
            // Not `eventually`: a panic here would leave the writer writing.
            still_old &= status(&gate, ALICE) == 200;
            std::thread::park_timeout(Duration::from_millis(100));
        }
        told.store(true, Ordering::SeqCst);
    });
    eventually("the log says so", || gate.log().contains("never holds still").then_some(()));
    assert!(still_old, "{}", gate.log());
    in_force(&gate, "whole at last", 401);
}

/// Holds a file in a memory map that it has written to already: what it writes then changes no time and notifies nobody.
struct Mapped(std::process::Child);

impl Mapped {
    /// `None` where there is no python3.
    fn open(path: &Path) -> Option<Self> {
        let script = "import mmap, os, sys
place = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 0)
place[:] = place[:]
print('mapped', flush=True)
for line in sys.stdin:
    old, new = line.split()
    at = place.find(old.encode())
    place[at:at + len(new)] = new.encode()";
        let mut command = Command::new("python3");
        command.args(["-c", script]).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().ok()?;
        let mut said = [0; 6];
        child.stdout.as_mut()?.read_exact(&mut said).ok()?;
        Some(Self(child))
    }

    fn replace(&mut self, old: &str, new: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{old} {new}").unwrap();
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The worst case: the same size and times, and no notification. Only the hash of the content tells.
#[test]
fn a_change_that_nothing_tells_of_is_found_by_its_content() {
    let origin = Origin::ok();
    let Ok(memory) = tempfile::tempdir_in("/dev/shm") else {
        println!("SKIPPED: no memory file system here");
        return;
    };
    let real = memory.path().join("keys.yaml");
    write_private(&real, KEYS);
    let Some(mut mapped) = Mapped::open(&real) else {
        println!("SKIPPED: no python3 here");
        return;
    };
    let gate = gate_on(&origin, "keys-link", |folder| symlink(&real, folder.join("keys-link")).unwrap());
    let before = fs::metadata(&real).unwrap();
    for (old, new, want) in [("6e87f34a", "00000000", 401), ("00000000", "6e87f34a", 200)] {
        mapped.replace(old, new);
        in_force(&gate, "written through a map", want);
    }
    let after = fs::metadata(&real).unwrap();
    let times = |of: &fs::Metadata| (of.len(), of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec());
    assert_eq!(times(&before), times(&after), "nothing else told of it");
}

#[test]
fn the_same_size_with_the_old_time_put_back_is_noticed() {
    let origin = Origin::ok();
    // No notification for what is behind /proc.
    let holder = tempfile::tempfile().unwrap();
    fs::set_permissions(fd_path(&holder), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(fd_path(&holder), KEYS).unwrap();
    let gate = gate_on(&origin, "keys-link", |folder| symlink(fd_path(&holder), folder.join("keys-link")).unwrap());
    for (text, want) in [(KEYS.replacen("6e87f34a", "00000000", 1), 401), (KEYS.to_owned(), 200)] {
        let time = holder.metadata().unwrap().modified().unwrap();
        fs::write(fd_path(&holder), text).unwrap();
        holder.set_modified(time).unwrap();
        in_force(&gate, "the old time put back", want);
    }
}

/// Far from the path that is watched a folder is swapped, in which the link's target lies some levels deeper.
#[test]
fn a_folder_swapped_far_behind_the_link_is_noticed() {
    let origin = Origin::ok();
    let version = |root: &Path, name: &str, text: &str| {
        fs::create_dir_all(root.join(name).join("a/b")).unwrap();
        write_private(&root.join(name).join("a/b/keys.yaml"), text);
    };
    let gate = gate_on(&origin, "keys-link", |folder| {
        version(folder, "far", KEYS);
        symlink("far/a/b/keys.yaml", folder.join("keys-link")).unwrap();
    });
    for (round, (text, want)) in [(ONLY_BOB, 401), (KEYS, 200)].into_iter().enumerate() {
        version(gate.dir.path(), "next", text);
        fs::rename(gate.path("far"), gate.path(&format!("old-{round}"))).unwrap();
        fs::rename(gate.path("next"), gate.path("far")).unwrap();
        in_force(&gate, "a folder far away swapped", want);
    }
}
