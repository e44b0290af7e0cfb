//! The state file as a file: made for its owner alone, known by its inode and its first bytes, and put aside when it is
//! damaged. What was never ours is not touched.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::StateError;
use super::schema::{self, APPLICATION};
use crate::keyring::source;

/// How every SQLite file begins ("The Database Header", section 1.3 of SQLite's file format).
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Where its `application_id` is, and where the first page ends as we make it.
const MARK: std::ops::Range<usize> = 68..72;
const PAGE: usize = 4096;
/// A file of zeros is read to its end up to this size, to know that there is nothing in it.
const MOST_ZEROS: u64 = 64 << 20;

/// What lies at the path of the state, as far as its first page tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// No file, or an empty one.
    Nothing,
    /// A state file, whole as far as this tells.
    Ours,
    /// What was a state file and cannot be read as one, or a file of nothing but zeros, as a power cut leaves them.
    Damaged,
    /// Something of another use, and what it is.
    Foreign(&'static str),
    /// Bytes that tell nothing: what is left of a state file whose first page is gone, or any other file.
    Unrecognised,
}

/// Looks at what lies at `path`. Not for a file that this process has open by SQLite: closing it here would give up the
/// locks there (section 2.2 of "How To Corrupt An SQLite Database File").
pub(super) fn look(path: &Path) -> io::Result<Found> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error),
        Ok(found) if found.is_dir() => return Ok(Found::Foreign("it is a folder")),
        Ok(found) if !found.is_file() => return Ok(Found::Foreign("it is not a regular file")),
        Ok(_) => {}
    }
    look_at(&source::open(path)?)
}

/// As [`look`], at an open file.
pub(super) fn look_at(file: &File) -> io::Result<Found> {
    let mut page = vec![0; PAGE];
    let mut length = 0;
    while let Some(rest) = page.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, length as u64)? {
            0 => break,
            read => length += read,
        }
    }
    page.truncate(length);
    if length > 0 && page.iter().all(|byte| *byte == 0) {
        return Ok(if is_zero(file)? { Found::Damaged } else { Found::Unrecognised });
    }
    Ok(classify(&page))
}

/// What a file is whose first page, or all of it where it is shorter, is this.
fn classify(page: &[u8]) -> Found {
    let is_sqlite = page.starts_with(MAGIC);
    if page.is_empty() {
        return Found::Nothing;
    }
    if (is_sqlite && page.len() < MARK.end) || MAGIC.starts_with(page) {
        // Cut so short that nothing of anybody is left in it.
        return Found::Damaged;
    }
    let is_marked = page.get(MARK) == Some(&APPLICATION.to_be_bytes());
    let holds = |text: &str| page.windows(text.len()).any(|part| part == text.as_bytes());
    let is_binary = page.contains(&0);
    if is_binary && (is_marked || schema::TABLES.iter().all(|table| holds(table))) {
        // SQLite tells of a file of a later format by other errors than of a damaged one, and never again writes it.
        let is_known_format = matches!(page.get(18..20), Some([1 | 2, 1 | 2]));
        let is_known_schema = matches!(page.get(44..48), Some([0, 0, 0, 1..=4]));
        return if is_sqlite && is_known_format && is_known_schema { Found::Ours } else { Found::Damaged };
    }
    match (is_sqlite, std::str::from_utf8(page)) {
        (true, _) => Found::Foreign("it is another program's database"),
        (false, Err(error)) if error.error_len().is_some() => Found::Unrecognised,
        (false, _) if is_binary => Found::Unrecognised,
        (false, _) => Found::Foreign("it is a text file"),
    }
}

fn is_zero(mut file: &File) -> io::Result<bool> {
    if file.metadata()?.len() > MOST_ZEROS {
        return Ok(false);
    }
    for byte in BufReader::with_capacity(1 << 16, file.by_ref()).bytes() {
        if byte? != 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What stands against `path` as the place of the state, told before the gate starts.
pub(super) fn inspect(path: &Path) -> Result<(), StateError> {
    match look(path)? {
        Found::Ours => Ok(()),
        Found::Nothing if path.parent().is_none_or(|folder| folder.as_os_str().is_empty() || folder.is_dir()) => Ok(()),
        Found::Nothing => Err(io::Error::new(io::ErrorKind::NotFound, "its folder is not there").into()),
        Found::Damaged => Err(StateError::Damaged),
        Found::Foreign(what) => Err(StateError::Foreign(what)),
        Found::Unrecognised => Err(StateError::Unrecognised),
    }
}

/// Makes an empty file that only its owner can read, if none is there. SQLite gives the files beside it the same mode.
pub(super) fn ensure(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}

/// Which file lies at `path`; `None` if there is none that can be looked at.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// The write-ahead log and the shared memory that SQLite keeps beside the file.
pub(super) fn beside(path: &Path) -> [PathBuf; 2] {
    ["-wal", "-shm"].map(|suffix| with_suffix(path, suffix))
}

/// Renames the file and what SQLite keeps beside it to `….damaged-<time>`; gives the new name.
pub(super) fn put_aside(path: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let time = now.strftime("%Y%m%dT%H%M%S%3fZ");
    let aside = with_suffix(path, &format!(".damaged-{time}"));
    fs::rename(path, &aside)?;
    for (from, to) in beside(path).iter().zip(beside(&aside)) {
        match fs::rename(from, to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(aside)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}
