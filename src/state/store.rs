//! The state file opened for writing: one at a time, by the gate.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, MAIN_DB, OpenFlags, params};

use super::file::{self, Found};
use super::schema::{self, Contents};
use super::{Batch, StateError};
use crate::key::KeyId;
use crate::keyring::source;
use crate::limit::quota::QuotaCount;

/// How long a write waits for another that holds the file.
const BUSY: Duration = Duration::from_secs(2);
/// How long a key that is used no more is remembered.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(400 * 24);
/// How long a quota's window is kept after its start: longer than any lasts, for a clock that steps back over its end.
const WINDOWS_KEPT: SignedDuration = SignedDuration::from_hours(100 * 24);

/// The log beside the file is cleared away by SQLite as it goes, but not while somebody reads what it was before. Past this
/// size nothing is written until it can be.
const LOG_MOST: u64 = 16 << 20;
/// What is left of the log's file once it is cleared away.
const LOG_KEPT: i64 = 4 << 20;

/// The state file, open.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
    /// Where `path` led when it was opened, past links: SQLite keeps its own files beside this.
    real: PathBuf,
    identity: Option<(u64, u64)>,
    /// What SQLite keeps beside it, as it was after the last write.
    beside: [Option<(u64, u64)>; 2],
    /// Changes when others write (`PRAGMA data_version`), as it was last.
    version: i64,
    /// The same file, to look at its first page. Dropped after the connection: closing it gives up the locks of SQLite.
    file: File,
}

/// A store and how it was come by.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// Where the damaged file is that was in its place.
    pub put_aside: Option<PathBuf>,
}

impl Store {
    /// Opens the file at `path`, or makes it. A damaged file is put aside under another name and a new one begun.
    ///
    /// # Errors
    ///
    /// What stands against opening; the file is as it was then.
    pub fn open(path: &Path, now: Timestamp) -> Result<Opened, StateError> {
        let store = match file::look(path)? {
            Found::Foreign(what) => return Err(StateError::Foreign(what)),
            Found::Unrecognised => return Err(StateError::Unrecognised),
            Found::Damaged => None,
            Found::Nothing | Found::Ours => match Self::open_sound(path) {
                Err(error) if error.is_damage() => None,
                opened => Some(opened?),
            },
        };
        if let Some(store) = store {
            return Ok(Opened { store, put_aside: None });
        }
        let aside = file::put_aside(path, now)?;
        Ok(Opened { store: Self::open_sound(path)?, put_aside: Some(aside) })
    }

    fn open_sound(path: &Path) -> Result<Self, StateError> {
        file::ensure(path)?;
        let file = source::open(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        // A look writes nothing: another program's file stays as it is.
        let contents = schema::look(&connection)?;
        if connection.is_readonly(MAIN_DB)? {
            return Err(StateError::ReadOnly);
        }
        if contents == Contents::Nothing {
            // Before there is a log, so that the file itself says what it is.
            schema::create(&mut connection)?;
        }
        // A reader is not kept waiting by a write; a killed process loses nothing that was written.
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.pragma_update(None, "journal_size_limit", LOG_KEPT)?;
        let verdict: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(schema::damage(&verdict));
        }
        let identity = file::identity(path);
        let version = data_version(&connection)?;
        let (path, real) = (path.to_owned(), std::fs::canonicalize(path)?);
        let beside = beside(&real);
        Ok(Self { connection, path, real, identity, beside, version, file })
    }

    /// Goes on with the file that is open as long as it is the one at its path and still a state file; otherwise lets go of
    /// it without another write.
    pub fn if_in_place(self) -> Option<Self> {
        let is_there = self.identity.is_some() && file::identity(&self.path) == self.identity;
        let found = if is_there { file::look_at(&self.file).ok() } else { None };
        if found == Some(Found::Ours) {
            return Some(self);
        }
        // Closed as usual, SQLite would write its log into whatever the file is now.
        let closed_quietly = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        let Self { connection, real, beside, file, .. } = self;
        drop((connection, file));
        // Nor may the log be taken for that of another file. Beside what is left of this one it stays.
        if closed_quietly.is_ok() && found != Some(Found::Damaged) {
            for (path, known) in file::beside(&real).iter().zip(beside) {
                if known.is_some() && file::identity(path) == known {
                    let _gone_is_well = std::fs::remove_file(path);
                }
            }
        }
        None
    }

    /// Whether another connection has written since this was last asked: a gate counts as if it were alone.
    pub fn others_wrote(&mut self) -> Result<bool, StateError> {
        let before = std::mem::replace(&mut self.version, data_version(&self.connection)?);
        Ok(self.version != before)
    }

    /// Writes a batch, all or nothing.
    pub fn write(&mut self, batch: &Batch) -> Result<(), StateError> {
        self.bound_log()?;
        let written = self.write_rows(batch);
        if written.as_ref().is_err_and(StateError::is_full) {
            // What the log holds may be in the file's own room.
            let _still_full = self.clear_log();
        }
        self.beside = beside(&self.real);
        written
    }

    fn bound_log(&self) -> Result<(), StateError> {
        let [log, _] = file::beside(&self.real);
        let size = std::fs::metadata(log).map_or(0, |log| log.len());
        if size > LOG_MOST && !self.clear_log()? {
            return Err(StateError::HeldOpen(size));
        }
        Ok(())
    }

    /// Writes the log into the file and empties it; whether that could be done.
    fn clear_log(&self) -> Result<bool, StateError> {
        let busy: i64 = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        Ok(busy == 0)
    }

    fn write_rows(&mut self, batch: &Batch) -> Result<(), StateError> {
        let work = self.connection.transaction()?;
        {
            let mut activity = work.prepare(
                "INSERT INTO activity (key, last_used, day, today, total) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (key) DO UPDATE SET last_used = ?2, day = ?3, total = total + ?5,
                 today = CASE WHEN day = ?3 THEN today + ?4 ELSE ?4 END",
            )?;
            let mut quota = work.prepare(
                "INSERT INTO quota (key, per, start, used) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (key, per, start) DO UPDATE SET used = max(used, ?4)",
            )?;
            for (id, change) in &batch.0 {
                let did = change.activity;
                if did.requests > 0 {
                    activity.execute(params![
                        id.as_str(),
                        did.last_used,
                        did.day,
                        stored(did.on_day),
                        stored(did.requests)
                    ])?;
                }
                for count in &change.quotas {
                    quota.execute(params![
                        id.as_str(),
                        schema::window_name(count.per),
                        count.start,
                        stored(count.used)
                    ])?;
                }
            }
        }
        work.commit()?;
        Ok(())
    }

    /// What is used of quotas whose windows are not over: of each key those that hold `now`, and the two that begin last, in
    /// case `now` is behind, as it is where a machine without a clock of its own starts. Those that hold `now` come last.
    pub fn load(&self, now: Timestamp) -> Result<Vec<(KeyId, QuotaCount)>, StateError> {
        let query = "SELECT key, per, start, used FROM quota WHERE start > ?1 ORDER BY key, start DESC";
        let mut query = self.connection.prepare(query)?;
        let earliest = now.saturating_sub(WINDOWS_KEPT).map_or(i64::MIN, Timestamp::as_second);
        let mut rows = query.query([earliest])?;
        let (mut counts, mut rank) = (Vec::<(KeyId, QuotaCount)>::new(), 0);
        let mut last = String::new();
        while let Some(row) = rows.next()? {
            let (key, per, start, used): (String, String, i64, i64) =
                (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            let Some(per) = schema::window_of(&per) else { continue };
            let count = QuotaCount { per, start, used: used.unsigned_abs() };
            rank = if key == last { rank + 1 } else { 0 };
            let is_over = count.end().is_none_or(|end| end <= now.as_second());
            if !is_over && (rank < 2 || start <= now.as_second()) {
                counts.push((KeyId::new(&key), count));
            }
            last = key;
        }
        Ok(counts)
    }

    /// Removes what nobody will ask for: keys not used for more than a year, windows long over. What is long ago is told by
    /// the last use of any key, so that a clock that is far ahead for a moment does not empty the file.
    pub fn prune(&mut self, now: Timestamp) -> Result<(), StateError> {
        let work = self.connection.transaction()?;
        let newest: Option<i64> = work.query_row("SELECT max(last_used) FROM activity", [], |row| row.get(0))?;
        let now = newest.and_then(|newest| Timestamp::from_second(newest).ok()).map_or(now, |newest| newest.min(now));
        let before = |kept| now.saturating_sub(kept).map_or(i64::MIN, Timestamp::as_second);
        work.execute("DELETE FROM activity WHERE last_used < ?1", [before(REMEMBERED)])?;
        work.execute("DELETE FROM quota WHERE start < ?1", [before(WINDOWS_KEPT)])?;
        work.commit()?;
        Ok(())
    }
}

fn data_version(connection: &Connection) -> Result<i64, StateError> {
    Ok(connection.query_row("PRAGMA data_version", [], |row| row.get(0))?)
}

fn beside(path: &Path) -> [Option<(u64, u64)>; 2] {
    file::beside(path).map(|path| file::identity(&path))
}

/// SQLite's integers are signed.
fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
