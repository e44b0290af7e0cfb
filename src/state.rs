//! What outlives a restart, in one SQLite file: last use and counts of each key, and what is used of its quota. Written in
//! batches by a thread of its own ([`writer`]), read by the command line while the gate runs ([`reader`]). A file that is
//! damaged, full or out of reach is told of and never stops the gate.

mod file;
pub mod reader;
mod schema;
pub mod store;
#[cfg(test)]
mod tests;
pub mod writer;

use std::collections::HashMap;
use std::path::Path;

use rusqlite::ErrorCode;

use crate::key::KeyId;
use crate::limit::activity::Activity;
use crate::limit::quota::QuotaCount;

/// What is to be written of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// What it did since the last write.
    pub activity: Activity,
    /// How its quotas stand, in whole.
    pub quotas: Vec<QuotaCount>,
}

/// Most windows of a key's quota that wait to be written: where nothing can be written for days, the last ones.
const WINDOWS_HELD: usize = 4;

/// What is to be written, by key. What could not be written stays in it, and more is added: nothing is lost or counted
/// twice, and it never holds more than one entry a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch(HashMap<KeyId, Change>);

impl Batch {
    /// Adds what a key did.
    pub fn add(&mut self, id: &KeyId, activity: Activity, quotas: impl IntoIterator<Item = QuotaCount>) {
        let change = self.0.entry(id.clone()).or_default();
        if activity.requests > 0 {
            change.activity.add(activity);
        }
        for count in quotas {
            match change.quotas.iter_mut().find(|own| own.per == count.per && own.start == count.start) {
                Some(own) => own.used = own.used.max(count.used),
                None => change.quotas.push(count),
            }
            if change.quotas.len() > WINDOWS_HELD {
                let first = change.quotas.iter().enumerate().min_by_key(|(_, own)| own.start).map(|(at, _)| at);
                first.map(|at| change.quotas.swap_remove(at));
            }
        }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// What stands against `path` as the place of the state, before it is opened: [`StateError::Foreign`] where the gate must
/// not start, since the file is somebody's; anything else is to be told of, and the gate goes on.
pub fn inspect(path: &Path) -> Result<(), StateError> {
    file::inspect(path)
}

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file is another's; it is left alone. What it is.
    #[error("{0}")]
    Foreign(&'static str),
    /// Nothing tells what the file is; it is left alone.
    #[error("it cannot be told for a state file and is left alone")]
    Unrecognised,
    /// The file was ours.
    #[error("it is damaged, and is put aside for a new one")]
    Damaged,
    /// The file is another version's; it is left alone.
    #[error("it is of version {0}, which this program does not know, and is left alone")]
    Version(i64),
    /// The file or its file system does not take writes.
    #[error("it can be read only")]
    ReadOnly,
    /// Somebody reads the file and does not end: what is written meanwhile cannot be cleared away. Bytes of it.
    #[error("a reader keeps it open, and its log has grown to {0} bytes")]
    HeldOpen(u64),
    /// The system refused something.
    #[error("{0}")]
    System(#[from] std::io::Error),
    /// SQLite refused something.
    #[error("{0}")]
    Database(#[from] rusqlite::Error),
}

impl StateError {
    /// Whether the file's bytes are wrong, rather than the file out of reach.
    fn is_damage(&self) -> bool {
        matches!(self.code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
    }

    /// Whether the same file may well be written later: the disk is full, or another process holds it.
    fn is_passing(&self) -> bool {
        let passing = [ErrorCode::DiskFull, ErrorCode::DatabaseBusy, ErrorCode::DatabaseLocked];
        matches!(self, Self::HeldOpen(_)) || self.code().is_some_and(|code| passing.contains(&code))
    }

    fn is_full(&self) -> bool {
        self.code() == Some(ErrorCode::DiskFull)
    }

    fn code(&self) -> Option<ErrorCode> {
        let Self::Database(error) = self else { return None };
        error.sqlite_error_code()
    }
}
