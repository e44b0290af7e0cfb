//! The key file on disk: opened once, checked on the open descriptor, read whole, and compared with the file in force so
//! that a cut one is not taken for a shorter one.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use sha2::{Digest, Sha256};

use crate::keyring::file::{Problem, ends_with_marker};

/// A key file larger than this is refused unread.
pub const MAX_FILE_BYTES: u64 = 512 * 1024 * 1024;

/// What `stat` says about a file: if it is equal, the content almost surely is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    dev: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Follows `path` through its links. Errors as `stat`.
    pub fn of(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|metadata| Self::from(&metadata))
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether `later` is the same file grown, as one that arrives in pieces does.
    pub fn grew_into(&self, later: &Self) -> bool {
        (self.dev, self.inode) == (later.dev, later.inode) && later.size > self.size
    }
}

impl From<&Metadata> for Stamp {
    fn from(of: &Metadata) -> Self {
        Self {
            dev: of.dev(),
            inode: of.ino(),
            size: of.size(),
            modified: (of.mtime(), of.mtime_nsec()),
            changed: (of.ctime(), of.ctime_nsec()),
        }
    }
}

/// A key file as it was read. No `Debug`: it holds every hash.
pub struct Source {
    /// The content.
    pub bytes: Vec<u8>,
    /// The file it came from; the same before and after reading.
    pub stamp: Stamp,
    mode: u32,
    owner: u32,
}

/// Why a key file could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Nothing is there, or a link leads nowhere.
    #[error("there is no such file")]
    Missing,
    /// The system refused.
    #[error("it cannot be read: {0}")]
    Io(io::ErrorKind),
    /// A directory, pipe, socket or device.
    #[error("it is not a regular file")]
    NotAFile,
    /// Its mode lets everybody write.
    #[error("everybody may write to it")]
    OthersMayWrite,
    /// Over [`MAX_FILE_BYTES`].
    #[error("it is larger than 512 MiB")]
    TooLarge,
    /// It was written to in the meantime; try again.
    #[error("it changes while it is read")]
    Changing,
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        let hint = match error {
            ReadError::OthersMayWrite => Some("chmod o-w; new key files have mode 0600"),
            ReadError::NotAFile => Some("`keys.file` names the key file itself, not its folder"),
            ReadError::Missing => {
                Some("`keygate keys create --user NAME` makes it with a first key; `keys.file` names another")
            }
            ReadError::Io(io::ErrorKind::PermissionDenied) => {
                Some("it must belong to the user who runs the gate; run the other commands as that user or as root")
            }
            ReadError::Io(_) | ReadError::TooLarge | ReadError::Changing => None,
        };
        Self::of_file(format!("the key file is refused: {error}"), hint)
    }
}

/// Opens a regular file for reading, and nothing that could hold its reader for ever, as a pipe without a writer does.
///
/// Errors: as `open`; [`io::ErrorKind::IsADirectory`] for a folder, [`io::ErrorKind::InvalidInput`] for what else is no
/// regular file.
pub fn open(path: &Path) -> io::Result<File> {
    let file = open_at_once(path)?;
    match file.metadata()? {
        found if found.is_file() => Ok(file),
        found if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
    }
}

fn open_at_once(path: &Path) -> io::Result<File> {
    // Without NONBLOCK a pipe at this path would hold the reader for ever.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// Reads the file at `path` through one descriptor, so that what was checked is what is read.
///
/// Errors: [`ReadError`]; `Changing` when size, times or content moved between the first look and the last byte.
pub fn read(path: &Path) -> Result<Source, ReadError> {
    let mut file = open_at_once(path)?;
    let before = file.metadata()?;
    if !before.is_file() {
        return Err(ReadError::NotAFile);
    }
    if before.mode() & 0o002 != 0 {
        return Err(ReadError::OthersMayWrite);
    }
    if before.size() > MAX_FILE_BYTES {
        return Err(ReadError::TooLarge);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(before.size()).unwrap_or_default());
    Read::by_ref(&mut file).take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    let stamp = Stamp::from(&before);
    if Stamp::from(&file.metadata()?) != stamp || bytes.len() as u64 != stamp.size {
        return Err(ReadError::Changing);
    }
    Ok(Source { bytes, stamp, mode: before.mode(), owner: before.uid() })
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            kind => Self::Io(kind),
        }
    }
}

impl Source {
    /// SHA-256 of the content.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.bytes).into()
    }

    /// Mode and owner, on which reading it depends as much as on the content.
    pub fn rights(&self) -> (u32, u32) {
        (self.mode, self.owner)
    }

    /// What its rights let others do (decision 19). `service` is the user this process runs as.
    pub fn warnings(&self, service: u32) -> Vec<Problem> {
        let found = [
            (self.mode & 0o020 != 0, "its group may write to the key file"),
            (self.mode & 0o004 != 0, "everybody may read the key file"),
            (
                self.owner != service && self.owner != 0,
                "the key file belongs to a user who is neither root nor this service",
            ),
        ];
        let hint = Some("it should have mode 0600 and belong to the user who runs the gate");
        found.into_iter().filter(|(is, _)| *is).map(|(_, what)| Problem::of_file(what, hint)).collect()
    }
}

/// What must be remembered of the file in force to see that the next one is a cut copy of it (decision 20).
pub struct SourceFacts {
    /// The content of a file that does not end with `...`; one that does needs no comparison.
    unmarked: Option<Vec<u8>>,
}

impl SourceFacts {
    /// The facts of a file that is now in force.
    pub fn of(bytes: Vec<u8>) -> Self {
        Self { unmarked: (!ends_with_marker(&bytes)).then_some(bytes) }
    }

    /// Why `new` is a cut file rather than a new one: the file in force ended with `...` and it does not, or the file in
    /// force goes on where it stops.
    pub fn cut(&self, new: &[u8]) -> Option<Problem> {
        let hint = Some("end the key file with a line `...` to say that it is whole");
        match &self.unmarked {
            None if !ends_with_marker(new) => Some(Problem::of_file(
                "the key file was cut: the one in force ends with `...`, this one does not",
                hint,
            )),
            Some(old) if new.len() < old.len() && old.starts_with(new) => {
                Some(Problem::of_file("the key file was cut: it is the beginning of the one in force", hint))
            }
            None | Some(_) => None,
        }
    }
}
