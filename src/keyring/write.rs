//! Writes a key file the way a careful hand would: one writer at a time, whole or not at all, with mode and owner kept, and
//! not over a change that somebody else made in between.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, Gid, Uid, fchown, flock};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::keyring::source::{self, ReadError, Source, Stamp};

/// How often a file is read again that changes while it is read.
const TRIES: usize = 20;

/// The end of the names of our temporary files.
const TEMPORARY: &str = ".tmp";

/// How long a writer waits for the one before it: longer than any change takes, but not for ever, as nobody may be looking.
const PATIENCE: Duration = Duration::from_secs(300);

/// Why a key file could not be written. The old one is whole then, except where [`WriteError::Unsure`] says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The folder is missing or may not be read.
    #[error("the folder of the key file cannot be used: {0}")]
    Folder(io::Error),
    /// The key file is a link to a file that is not there.
    #[error("the key file is a link that leads nowhere")]
    Dangling,
    /// Another process held the lock all the time that this one was ready to wait.
    #[error("another change of the key file has not ended in five minutes; nothing was written")]
    Busy,
    /// The system refused to make or fill the new file.
    #[error("the new key file could not be written beside the old one, which is as it was: {0}")]
    New(io::Error),
    /// The new file cannot be given to the user and group of the old one.
    #[error("the key file belongs to another user or group, which an edit must keep; run this as that user or as root")]
    Owner,
    /// The key file is mounted by itself, so it cannot be replaced.
    #[error("the key file is a mount of its own and cannot be replaced at once; mount its folder instead")]
    Mounted,
    /// Another hand changed the file since it was read.
    #[error("the key file was changed by someone else at the same time; nothing was written, try again")]
    Overtaken,
    /// The new file is in place, but the disk did not confirm that it will be there after a crash.
    #[error("the new key file is in place, but its folder could not be synced: {0}")]
    Unsure(io::Error),
}

/// The right to write one key file. Others who ask for it wait; dropping it gives it back.
pub struct Lock {
    /// Holds the lock: it is on the folder, since the file itself is replaced at every write.
    folder: File,
    /// The file behind all links.
    target: PathBuf,
}

/// Waits for the right to write the key file at `path`, which need not exist; through a link its target is meant.
/// Calls `waiting` once if another process has it.
///
/// # Errors
///
/// [`WriteError::Folder`], [`WriteError::Dangling`], [`WriteError::Busy`].
pub fn lock(path: &Path, waiting: impl FnOnce()) -> Result<Lock, WriteError> {
    lock_within(path, PATIENCE, waiting)
}

fn lock_within(path: &Path, patience: Duration, waiting: impl FnOnce()) -> Result<Lock, WriteError> {
    let target = target(path)?;
    let folder = File::open(target.parent().unwrap_or(Path::new("/"))).map_err(WriteError::Folder)?;
    match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => {
            waiting();
            wait(&folder, patience)?;
        }
        tried => tried.map_err(|e| WriteError::Folder(e.into()))?,
    }
    Ok(Lock { folder, target })
}

/// Waits in the queue of the system, which is fair; on a thread, since that wait has no end of its own.
fn wait(folder: &File, patience: Duration) -> Result<(), WriteError> {
    let same = folder.try_clone().map_err(WriteError::Folder)?;
    let (done, outcome) = sync_channel(1);
    thread::spawn(move || {
        // A lock that comes too late ends with `same`.
        let _nobody_waits = done.send(flock(&same, FlockOperation::LockExclusive));
    });
    let locked = outcome.recv_timeout(patience).map_err(|_too_long| WriteError::Busy)?;
    locked.map_err(|e| WriteError::Folder(e.into()))
}

/// The path behind all links; for a file that is not there, its place in the folder that is.
fn target(path: &Path) -> Result<PathBuf, WriteError> {
    match fs::canonicalize(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if fs::symlink_metadata(path).is_ok() {
                return Err(WriteError::Dangling);
            }
            let name = path.file_name().ok_or(WriteError::Folder(e))?;
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Ok(fs::canonicalize(folder).map_err(WriteError::Folder)?.join(name))
        }
        found => found.map_err(WriteError::Folder),
    }
}

/// Whether this process may write a file of `size` bytes. One that may not is killed when it tries, and could tell nobody.
///
/// # Errors
///
/// [`io::ErrorKind::FileTooLarge`].
pub fn allowed(size: usize) -> io::Result<()> {
    let most = getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX);
    if u64::try_from(size).is_ok_and(|size| size <= most) {
        return Ok(());
    }
    let what = format!("this process may write files of at most {most} bytes (see `ulimit -f`)");
    Err(io::Error::new(io::ErrorKind::FileTooLarge, what))
}

impl Lock {
    /// The file that is read and written.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Whether the file has other names (hard links). They keep the old content when it is replaced.
    pub fn has_other_names(&self) -> bool {
        fs::metadata(&self.target).is_ok_and(|file| file.nlink() > 1)
    }

    /// Reads the file; `None` where there is none.
    ///
    /// # Errors
    ///
    /// As [`source::read`].
    pub fn read(&self) -> Result<Option<Source>, ReadError> {
        let mut tries = TRIES;
        loop {
            tries -= 1;
            match source::read(&self.target) {
                Err(ReadError::Missing) => return Ok(None),
                Err(ReadError::Changing) if tries > 0 => {}
                other => return other.map(Some),
            }
        }
    }

    /// Puts a file with this content in the place of the one that was `before`, or of none.
    ///
    /// A new file has mode 0600; an old one's mode, owner and group are kept (decision 19).
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn replace(&self, before: Option<&Stamp>, content: &[u8]) -> Result<(), WriteError> {
        self.sweep();
        allowed(content.len()).map_err(WriteError::New)?;
        let parent = self.target.parent().unwrap_or(Path::new("/"));
        let name = self.target.file_name().unwrap_or_default().to_string_lossy();
        let prefix = format!(".{name}.");
        let mut file = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(TEMPORARY)
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(parent)
            .map_err(WriteError::New)?;
        if before.is_some() {
            self.keep_rights(file.as_file())?;
        }
        file.write_all(content).and_then(|()| file.as_file().sync_all()).map_err(WriteError::New)?;
        if Stamp::of(&self.target).ok().as_ref() != before {
            return Err(WriteError::Overtaken);
        }
        file.persist(&self.target).map_err(|e| match e.error.kind() {
            io::ErrorKind::ResourceBusy => WriteError::Mounted,
            _ => WriteError::New(e.error),
        })?;
        self.folder.sync_all().map_err(WriteError::Unsure)
    }

    /// Gives the new file the owner, group and mode of the old one, in this order: it is never open to more.
    fn keep_rights(&self, new: &File) -> Result<(), WriteError> {
        let old = fs::metadata(&self.target).map_err(WriteError::New)?;
        let own = new.metadata().map_err(WriteError::New)?;
        let owner = (old.uid() != own.uid()).then(|| Uid::from_raw(old.uid()));
        let group = (old.gid() != own.gid()).then(|| Gid::from_raw(old.gid()));
        if owner.is_some() || group.is_some() {
            fchown(new.as_fd(), owner, group).map_err(|_refused| WriteError::Owner)?;
        }
        new.set_permissions(Permissions::from_mode(old.mode() & 0o7777)).map_err(WriteError::New)
    }

    /// Removes what writers left that were killed: with the lock held nobody is writing.
    fn sweep(&self) {
        let parent = self.target.parent().unwrap_or(Path::new("/"));
        let prefix = format!(".{}.", self.target.file_name().unwrap_or_default().to_string_lossy());
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let ours = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(TEMPORARY));
            if ours.is_some_and(|random| random.len() == 6 && random.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
                let _gone = fs::remove_file(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    fn replace(path: &Path, content: &str) -> Result<(), WriteError> {
        let lock = lock(path, || ())?;
        let before = lock.read().expect("readable").map(|source| source.stamp);
        lock.replace(before.as_ref(), content.as_bytes())
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").mode() & 0o7777
    }

    #[test]
    fn a_new_file_is_private_and_an_old_one_keeps_its_mode() {
        let folder = folder();
        let path = folder.path().join("keys.yaml");
        replace(&path, "one").expect("written");
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("changed");
        replace(&path, "two").expect("written");
        assert_eq!((mode(&path), fs::read_to_string(&path).expect("text")), (0o640, "two".to_owned()));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing is left behind");
    }

    #[test]
    fn owner_and_group_are_kept() {
        let folder = folder();
        let path = folder.path().join("keys.yaml");
        fs::write(&path, "one").expect("written");
        if std::os::unix::fs::chown(&path, Some(12_345), Some(54_321)).is_err() {
            return; // Only root can give files away.
        }
        replace(&path, "two").expect("written");
        let metadata = fs::metadata(&path).expect("there");
        assert_eq!((metadata.uid(), metadata.gid()), (12_345, 54_321));
    }

    #[test]
    fn through_a_link_the_target_is_replaced() {
        let folder = folder();
        let (real, link) = (folder.path().join("real.yaml"), folder.path().join("keys.yaml"));
        fs::write(&real, "one").expect("written");
        symlink("real.yaml", &link).expect("linked");
        replace(&link, "two").expect("written");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(fs::read_to_string(&real).expect("text"), "two");
    }

    #[test]
    fn what_cannot_be_written_is_told() {
        let folder = folder();
        let dangling = folder.path().join("keys.yaml");
        symlink("nowhere.yaml", &dangling).expect("linked");
        assert!(matches!(replace(&dangling, "x"), Err(WriteError::Dangling)));
        assert!(matches!(replace(Path::new("/nonexistent/keys.yaml"), "x"), Err(WriteError::Folder(_))));
    }

    #[test]
    fn a_change_in_between_is_not_overwritten() {
        let folder = folder();
        let path = folder.path().join("keys.yaml");
        fs::write(&path, "one").expect("written");
        let lock = lock(&path, || ()).expect("locked");
        let before = lock.read().expect("readable").map(|source| source.stamp);
        fs::write(&path, "by hand").expect("written");
        assert!(matches!(lock.replace(before.as_ref(), b"two"), Err(WriteError::Overtaken)));
        assert!(matches!(lock.replace(None, b"two"), Err(WriteError::Overtaken)));
        assert_eq!(fs::read_to_string(&path).expect("text"), "by hand");
    }

    #[test]
    fn leftovers_of_killed_writers_go_and_others_stay() {
        let folder = folder();
        let path = folder.path().join("keys.yaml");
        for name in [".keys.yaml.aB3xYz.tmp", ".keys.yaml.swp", ".keys.yaml.my-own.tmp", "keys.yaml.tmp"] {
            fs::write(folder.path().join(name), "x").expect("written");
        }
        replace(&path, "one").expect("written");
        assert!(!folder.path().join(".keys.yaml.aB3xYz.tmp").exists());
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 4);
    }

    #[test]
    fn a_writer_that_never_ends_is_not_waited_for_for_ever() {
        let folder = folder();
        let path = folder.path().join("keys.yaml");
        let held = lock(&path, || ()).expect("locked");
        let mut told = 0;
        let second = lock_within(&path, Duration::from_millis(1), || told += 1);
        assert!(matches!(second, Err(WriteError::Busy)) && told == 1);
        drop(held);
        lock(&path, || ()).expect("the writer that gave up does not hold it");
    }

    #[test]
    fn one_writer_at_a_time() {
        let folder = folder();
        let path = folder.path().join("keys.yaml");
        fs::write(&path, "0").expect("written");
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let lock = lock(&path, || ()).expect("locked");
                        let source = lock.read().expect("readable").expect("there");
                        let number: u32 = std::str::from_utf8(&source.bytes).expect("text").parse().expect("a number");
                        lock.replace(Some(&source.stamp), (number + 1).to_string().as_bytes()).expect("written");
                    }
                });
            }
        });
        assert_eq!(fs::read_to_string(&path).expect("text"), "80");
    }
}
