//! The state file for the command line: read only, also while the gate writes.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags};

use super::StateError;
use super::schema::{self, Contents};
use crate::key::KeyId;
use crate::keyring::source;
use crate::limit::activity::day_of;

/// How long a read waits for the file.
const BUSY: Duration = Duration::from_secs(2);

/// What one key did, as last written: a running gate writes every two seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// When its last request was admitted, to the second.
    pub last_used: Timestamp,
    /// Requests admitted today, in UTC.
    pub today: u64,
    /// Requests admitted since the state file was begun.
    pub total: u64,
}

/// The state file, open for reading.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
}

impl Reader {
    /// Opens the file at `path` (`state.path`); `None` where there is none or nothing in it yet.
    pub fn open(path: &Path) -> Result<Option<Self>, StateError> {
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
            // A pipe would hold SQLite for ever.
            Ok(found) if !found.is_file() => return Err(StateError::Foreign("it is not a regular file")),
            Ok(_) => {}
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(|error| match source::open(path) {
            // SQLite only says that it could not open it.
            Err(why) => StateError::from(why),
            Ok(_) => error.into(),
        })?;
        connection.busy_timeout(BUSY)?;
        let contents = schema::look(&connection)?;
        Ok((contents == Contents::Ours).then_some(Self { connection }))
    }

    /// What each key did, by key id; `now` says which day is today. Keys that were never used are not in it.
    pub fn activity(&self, now: Timestamp) -> Result<HashMap<KeyId, Activity>, StateError> {
        let mut query = self.connection.prepare("SELECT key, last_used, day, today, total FROM activity")?;
        let today = day_of(now.as_second());
        let rows = query.query_map([], |row| {
            let (key, last_used, day): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let (on_day, total): (i64, i64) = (row.get(3)?, row.get(4)?);
            let on_day = if day == today { on_day.unsigned_abs() } else { 0 };
            let last_used = Timestamp::from_second(last_used).unwrap_or(Timestamp::UNIX_EPOCH);
            Ok((KeyId::new(&key), Activity { last_used, today: on_day, total: total.unsigned_abs() }))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
