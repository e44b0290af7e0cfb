//! Reloads of real files, replaced in every way that operators and platforms do.

use super::*;
use crate::key::KeyHash;
use crate::rejection::AuthFailure;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use tokio::sync::mpsc;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);

fn text(keys: &[&str]) -> String {
    let entries: String = keys.iter().map(|key| format!("  - {{id: {key}, user: u, hash: {}}}\n", hex(key))).collect();
    format!("version: 1\nkeys:\n{entries}...\n")
}

fn hex(key: &str) -> String {
    KeyHash::of(key.as_bytes()).as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("mode set");
}

/// A reloader that runs over a file in a folder of its own.
struct Running {
    folder: tempfile::TempDir,
    path: PathBuf,
    keyring: Arc<ArcSwap<Keyring>>,
    generation: watch::Receiver<u64>,
    outcomes: mpsc::UnboundedReceiver<ReloadOutcome>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(prepare: impl FnOnce(&Path) -> PathBuf) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = prepare(folder.path());
        let (send, outcomes) = mpsc::unbounded_channel();
        let loaded = load(&path).unwrap_or_else(|problems| panic!("{problems:?}"));
        let reloader = Reloader::new(path.clone(), loaded, move |outcome| {
            let _ = send.send(outcome);
        });
        let (keyring, generation) = (reloader.keyring(), reloader.generation());
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(reloader.run(stopped));
        Self { folder, path, keyring, generation, outcomes, stop, task }
    }

    fn with_file() -> Self {
        Self::start(|folder| {
            write(&folder.join("keys.yaml"), &text(&["first"]));
            folder.join("keys.yaml")
        })
    }

    fn knows(&self, key: &str) -> bool {
        self.keyring.load().knows(&KeyHash::of(key.as_bytes()))
    }

    /// Waits until `key` is in force and `gone` is not, and checks that no other state came between.
    async fn becomes(&mut self, key: &str, gone: &str) {
        let changed = async {
            while !self.knows(key) {
                self.generation.changed().await.expect("the reloader runs");
            }
        };
        timeout(PATIENCE, changed).await.unwrap_or_else(|_| panic!("`{key}` never came into force"));
        assert!(!self.knows(gone), "`{gone}` is still in force");
    }

    async fn outcome(&mut self) -> ReloadOutcome {
        timeout(PATIENCE, self.outcomes.recv()).await.expect("in time").expect("an outcome")
    }

    async fn rejection(&mut self) -> String {
        loop {
            if let ReloadOutcome::Rejected { problems } = self.outcome().await {
                return problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            }
        }
    }
}

#[tokio::test]
async fn written_in_place() {
    let mut gate = Running::with_file();
    write(&gate.path, &text(&["second"]));
    gate.becomes("second", "first").await;
    assert!(matches!(gate.outcome().await, ReloadOutcome::Loaded { count: 1, digest, .. } if digest.len() == 12));
}

#[tokio::test]
async fn renamed_over() {
    let mut gate = Running::with_file();
    for (key, gone) in [("second", "first"), ("third", "second")] {
        write(&gate.folder.path().join(".new"), &text(&[key]));
        fs::rename(gate.folder.path().join(".new"), &gate.path).expect("renamed");
        gate.becomes(key, gone).await;
    }
}

#[tokio::test]
async fn deleted_and_created() {
    let mut gate = Running::with_file();
    fs::remove_file(&gate.path).expect("removed");
    assert!(gate.rejection().await.contains("there is no such file"));
    assert!(gate.knows("first"), "the old set stays while the file is gone");
    write(&gate.path, &text(&["second"]));
    gate.becomes("second", "first").await;
}

#[tokio::test]
async fn a_link_that_is_swapped() {
    let mut gate = Running::start(|folder| {
        for name in ["one", "two"] {
            fs::create_dir(folder.join(name)).expect("made");
        }
        write(&folder.join("one/keys.yaml"), &text(&["first"]));
        symlink("one/keys.yaml", folder.join("keys.yaml")).expect("linked");
        folder.join("keys.yaml")
    });
    write(&gate.folder.path().join("two/keys.yaml"), &text(&["second"]));
    symlink("two/keys.yaml", gate.folder.path().join(".link")).expect("linked");
    fs::rename(gate.folder.path().join(".link"), &gate.path).expect("renamed");
    gate.becomes("second", "first").await;
    write(&gate.folder.path().join("two/keys.yaml"), &text(&["third"]));
    gate.becomes("third", "second").await;
}

#[tokio::test]
async fn kubernetes_swaps_the_data_folder() {
    let mut gate = Running::start(|folder| {
        fs::create_dir(folder.join("..v1")).expect("made");
        write(&folder.join("..v1/keys.yaml"), &text(&["first"]));
        symlink("..v1", folder.join("..data")).expect("linked");
        symlink("..data/keys.yaml", folder.join("keys.yaml")).expect("linked");
        folder.join("keys.yaml")
    });
    for (version, key, gone) in [("..v2", "second", "first"), ("..v3", "third", "second")] {
        let folder = gate.folder.path();
        fs::create_dir(folder.join(version)).expect("made");
        write(&folder.join(version).join("keys.yaml"), &text(&[key]));
        symlink(version, folder.join("..data_tmp")).expect("linked");
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("renamed");
        gate.becomes(key, gone).await;
    }
}

#[tokio::test]
async fn a_file_that_arrives_in_pieces_is_taken_whole_or_not_at_all() {
    let mut gate = Running::with_file();
    let whole = text(&["second", "third", "fourth"]);
    let mut file = fs::File::create(&gate.path).expect("truncated");
    for piece in whole.as_bytes().chunks(40) {
        file.write_all(piece).expect("written");
        // Each piece waits for the reloader to have looked at what is there so far.
        if let Ok(Some(outcome)) = timeout(Duration::from_millis(150), gate.outcomes.recv()).await {
            assert!(matches!(outcome, ReloadOutcome::Rejected { .. }) || gate.knows("fourth"), "{outcome:?}");
        }
    }
    gate.becomes("fourth", "first").await;
    assert!(gate.knows("second") && gate.knows("third"));
}

#[tokio::test]
async fn a_file_behind_one_inode_as_a_single_file_mount_shows_it() {
    // A bind-mounted file and a hard link look alike: the other name is written, no event names ours.
    let other = tempfile::tempdir().expect("a folder");
    write(&other.path().join("elsewhere"), &text(&["first"]));
    let mut gate = Running::start(|folder| {
        fs::hard_link(other.path().join("elsewhere"), folder.join("keys.yaml")).expect("linked");
        folder.join("keys.yaml")
    });
    write(&other.path().join("elsewhere"), &text(&["second"]));
    gate.becomes("second", "first").await;
}

/// Replaces a file without a pause until dropped.
struct Writer {
    stop: Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<u32>>,
}

impl Writer {
    fn start(gate: &Running, text: impl Fn(u32) -> String + Send + 'static) -> Self {
        let (path, new) = (gate.path.clone(), gate.folder.path().join(".new"));
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut round = 0;
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                write(&new, &text(round));
                fs::rename(&new, &path).expect("renamed");
                round += 1;
            }
            round
        });
        Self { stop, thread: Some(thread) }
    }

    fn stop(&mut self) -> u32 {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        self.thread.take().map_or(0, |thread| thread.join().expect("the writer ends"))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

#[tokio::test]
async fn a_file_that_never_holds_still_is_taken_all_the_same() {
    let mut gate = Running::with_file();
    let mut writer = Writer::start(&gate, |round| format!("# {round}\n{}", text(&["second"])));
    gate.becomes("second", "first").await;
    assert!(writer.stop() > 100, "it was written often enough to never hold still");
}

#[tokio::test]
async fn a_bad_file_that_never_holds_still_is_told_once() {
    let mut gate = Running::with_file();
    let mut writer = Writer::start(&gate, |round| format!("# {round}\nversion: 2\nkeys: []\n...\n"));
    assert!(gate.rejection().await.contains("line 2: `version`"));
    writer.stop();
    write(&gate.path, &text(&["second"]));
    gate.becomes("second", "first").await;
    let told_again = std::iter::from_fn(|| gate.outcomes.try_recv().ok());
    assert!(told_again.filter(|outcome| matches!(outcome, ReloadOutcome::Rejected { .. })).count() <= 1);
}

#[tokio::test]
async fn bad_files_keep_the_old_set_and_are_told_once() {
    let mut gate = Running::with_file();
    let good = text(&["second"]);
    let rows = [
        ("", "the key file was cut"),
        ("...\n", "line 1: the key file is empty"),
        ("version: 1\nkeys:\n  - {id: a, user: u}\n...\n", "line 3: this entry has no `hash`"),
        (&good.replace("...\n", ""), "the key file was cut"),
        ("version: 1\nkeys: [\n...\n", "line 3"),
    ];
    for (bad, want) in rows {
        write(&gate.path, bad);
        let told = gate.rejection().await;
        assert!(told.contains(want), "{bad:?}: {told}");
        assert!(gate.knows("first") && !gate.knows("second"));
    }
    fs::remove_file(&gate.path).expect("removed");
    fs::create_dir(&gate.path).expect("made");
    assert!(gate.rejection().await.contains("not a regular file"));
    fs::remove_dir(&gate.path).expect("removed");
    write(&gate.path, &good);
    fs::set_permissions(&gate.path, fs::Permissions::from_mode(0o602)).expect("mode set");
    assert!(gate.rejection().await.contains("everybody may write"));
    assert!(gate.knows("first"));
    fs::set_permissions(&gate.path, fs::Permissions::from_mode(0o600)).expect("mode set");
    gate.becomes("second", "first").await;
}

#[tokio::test]
async fn a_rejection_is_not_repeated_at_every_look() {
    let mut gate = Running::with_file();
    write(&gate.path, "version: 2\nkeys: []\n...\n");
    gate.rejection().await;
    write(&gate.path, &text(&["second"]));
    assert!(matches!(gate.outcome().await, ReloadOutcome::Loaded { .. }), "nothing was told in between");
}

#[tokio::test]
async fn rotation_is_one_step() {
    let mut gate = Running::with_file();
    let now = jiff::Timestamp::UNIX_EPOCH;
    let first = KeyHash::of(b"first");
    let principal = gate.keyring.load().identify(&first, None, now).expect("good");
    write(&gate.path, &text(&["first", "second"]));
    gate.becomes("second", "nobody").await;
    assert!(gate.keyring.load().still_holds(&principal, None, now).is_ok());
    write(&gate.path, &text(&["second"]));
    timeout(PATIENCE, gate.generation.wait_for(|generation| *generation == 2)).await.expect("in time").expect("runs");
    assert_eq!(gate.keyring.load().still_holds(&principal, None, now).err(), Some(AuthFailure::Unknown));
}

#[tokio::test]
async fn it_ends_when_told_to() {
    let gate = Running::with_file();
    gate.stop.send(true).expect("it listens");
    timeout(PATIENCE, gate.task).await.expect("in time").expect("it ends well");
}

#[tokio::test]
async fn a_retired_keyring_is_freed_when_nobody_holds_it() {
    let mut gate = Running::with_file();
    let old = Arc::downgrade(&gate.keyring.load_full());
    write(&gate.path, &text(&["second"]));
    gate.becomes("second", "first").await;
    let freed = async {
        while old.strong_count() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, freed).await.expect("freed in time");
}

#[test]
fn a_start_needs_a_good_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let problems =
        |path: &Path| load(path).err().map(|problems| problems.iter().map(ToString::to_string).collect::<String>());
    assert!(problems(&folder.path().join("none")).expect("refused").contains("there is no such file"));
    assert!(problems(folder.path()).expect("refused").contains("not a regular file"));
    let pipe = folder.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).expect("made");
    assert!(problems(&pipe).expect("refused").contains("not a regular file"), "and nobody waits for a writer");
    let huge = folder.path().join("huge");
    write(&huge, "");
    let file = fs::File::options().append(true).open(&huge).expect("opened");
    file.set_len(source::MAX_FILE_BYTES + 1).expect("sparse");
    assert!(problems(&huge).expect("refused").contains("larger than 512 MiB"));
    let path = folder.path().join("keys.yaml");
    write(&path, &text(&["first"]));
    assert!(load(&path).expect("good").warnings.is_empty());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).expect("mode set");
    assert_eq!(load(&path).expect("good").warnings.len(), 2, "its group may write, everybody may read");
}

/// What `build` makes of `bytes` where `before` is in force: how many keys, or that it is refused.
fn built(bytes: &[u8], before: &str) -> Option<usize> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.yaml");
    fs::write(&path, bytes).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode set");
    let read = source::read(&path);
    let content = Content::of(&read);
    let in_force = SourceFacts::of(before.as_bytes().to_vec());
    build(read, content, Some(&in_force)).ok().map(|built| built.keyring.len())
}

#[test]
fn a_file_cut_at_any_byte_is_never_taken_for_a_shorter_set() {
    let marked = text(&["first", "second", "third"]);
    let unmarked = marked.replace("...\n", "");
    for whole in [&marked, &unmarked] {
        for at in 0..whole.len() {
            let taken = built(&whole.as_bytes()[..at], whole);
            // Only the newline after the marker may be missing: the marker says that nothing else is.
            let is_whole = *whole == marked && at == whole.len() - 1;
            assert_eq!(taken, is_whole.then_some(3), "cut at {at} of {}", whole.len());
        }
        assert_eq!(built(whole.as_bytes(), whole), Some(3));
    }
    // A new file that arrives cut, where it is no beginning of the one in force, needs the marker to be known as whole.
    let other = text(&["fourth", "fifth"]);
    for at in 0..other.len() - 1 {
        assert_eq!(built(&other.as_bytes()[..at], &marked), None, "cut at {at}");
    }
}
