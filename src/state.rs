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

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file is none of ours, or another version's: it is left alone.
    #[error("it is not a state file of this program")]
    Foreign,
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
        let Self::Database(error) = self else { return false };
        matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
    }

    /// Whether the same file may well be written later: the disk is full, or another process holds it.
    fn is_passing(&self) -> bool {
        let Self::Database(error) = self else { return false };
        let passing = [ErrorCode::DiskFull, ErrorCode::DatabaseBusy, ErrorCode::DatabaseLocked];
        error.sqlite_error_code().is_some_and(|code| passing.contains(&code))
    }
}
