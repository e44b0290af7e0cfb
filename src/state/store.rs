//! The state file opened for writing: one at a time, by the gate.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OpenFlags, params};

use super::schema::{self, Contents};
use super::{Batch, StateError, file};
use crate::key::KeyId;
use crate::limit::quota::QuotaCount;

/// How long a write waits for another that holds the file.
const BUSY: Duration = Duration::from_secs(2);
/// How long a key that is used no more is remembered.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(400 * 24);
/// How long a quota's window is kept after its start: longer than any lasts, for a clock that steps back over its end.
const WINDOWS_KEPT: SignedDuration = SignedDuration::from_hours(100 * 24);

/// The state file, open.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
    identity: Option<(u64, u64)>,
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
        match Self::open_sound(path) {
            Ok(store) => Ok(Opened { store, put_aside: None }),
            Err(error) if error.is_damage() => {
                let aside = file::put_aside(path, now)?;
                Ok(Opened { store: Self::open_sound(path)?, put_aside: Some(aside) })
            }
            Err(error) => Err(error),
        }
    }

    fn open_sound(path: &Path) -> Result<Self, StateError> {
        file::ensure(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        // A look writes nothing: another program's file stays as it is.
        let contents = schema::look(&connection)?;
        // A reader is not kept waiting by a write; a killed process loses nothing that was written.
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "normal")?;
        if contents == Contents::Nothing {
            schema::create(&mut connection)?;
        }
        let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return Err(rusqlite::Error::SqliteFailure(corrupt, Some(verdict)).into());
        }
        Ok(Self { connection, path: path.to_owned(), identity: file::identity(path) })
    }

    /// Whether the file at its path is still the one that is open: not removed, not replaced.
    pub fn is_in_place(&self) -> bool {
        self.identity.is_some() && file::identity(&self.path) == self.identity
    }

    /// Writes a batch, all or nothing.
    pub fn write(&mut self, batch: &Batch) -> Result<(), StateError> {
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

    /// What is used of quotas whose windows are not over, of each key the window that holds `now` last.
    pub fn load(&self, now: Timestamp) -> Result<Vec<(KeyId, QuotaCount)>, StateError> {
        let mut query =
            self.connection.prepare("SELECT key, per, start, used FROM quota WHERE start > ?1 ORDER BY start DESC")?;
        let earliest = now.saturating_sub(WINDOWS_KEPT).map_or(i64::MIN, Timestamp::as_second);
        let rows = query.query_map([earliest], |row| {
            let (key, per, start, used): (String, String, i64, i64) =
                (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            Ok((key, per, start, used))
        })?;
        let mut counts = Vec::new();
        for row in rows {
            let (key, per, start, used) = row?;
            let Some(per) = schema::window_of(&per) else { continue };
            let count = QuotaCount { per, start, used: used.unsigned_abs() };
            if count.end().is_some_and(|end| end > now.as_second()) {
                counts.push((KeyId::new(&key), count));
            }
        }
        Ok(counts)
    }

    /// Removes what nobody will ask for: keys not used for more than a year, windows long over.
    pub fn prune(&mut self, now: Timestamp) -> Result<(), StateError> {
        let before = |kept| now.saturating_sub(kept).map_or(i64::MIN, Timestamp::as_second);
        let work = self.connection.transaction()?;
        work.execute("DELETE FROM activity WHERE last_used < ?1", [before(REMEMBERED)])?;
        work.execute("DELETE FROM quota WHERE start < ?1", [before(WINDOWS_KEPT)])?;
        work.commit()?;
        Ok(())
    }
}

/// SQLite's integers are signed.
fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
