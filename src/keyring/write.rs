//! Writes a key file the way a careful hand would: one writer at a time, whole or not at all, with mode and owner kept, and
//! not over a change that somebody else made in between.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Gid, Uid, fchown, flock};

use crate::keyring::source::{self, ReadError, Source, Stamp};

/// How often a file is read again that changes while it is read.
const TRIES: usize = 20;

/// The end of the names of our temporary files.
const TEMPORARY: &str = ".tmp";

/// Why a key file could not be written. The old one is whole then, except where [`WriteError::Unsure`] says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The folder is missing or may not be read, or a link leads nowhere.
    #[error("the folder of the key file cannot be used: {0}")]
    Folder(io::Error),
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
/// [`WriteError::Folder`].
pub fn lock(path: &Path, waiting: impl FnOnce()) -> Result<Lock, WriteError> {
    let target = target(path).map_err(WriteError::Folder)?;
    let folder = File::open(target.parent().unwrap_or(Path::new("/"))).map_err(WriteError::Folder)?;
    if flock(&folder, FlockOperation::NonBlockingLockExclusive).is_err() {
        waiting();
        flock(&folder, FlockOperation::LockExclusive).map_err(|e| WriteError::Folder(e.into()))?;
    }
    Ok(Lock { folder, target })
}

/// The path behind all links; for a file that is not there, its place in the folder that is.
fn target(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(path).is_err() => {
            let name = path.file_name().ok_or(e)?;
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Ok(fs::canonicalize(folder)?.join(name))
        }
        found => found,
    }
}

impl Lock {
    /// The file that is read and written.
    pub fn target(&self) -> &Path {
        &self.target
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
        assert!(matches!(replace(&dangling, "x"), Err(WriteError::Folder(_))));
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
    fn one_writer_at_a_time() {
        let folder = folder();
        let path = folder.path().join("keys.yaml");
        fs::write(&path, "0").expect("written");
        std::thread::scope(|scope| {
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
