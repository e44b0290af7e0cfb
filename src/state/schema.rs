//! The tables of the state file, and how a file is known as one.

use rusqlite::Connection;

use super::StateError;
use crate::limit::QuotaWindow;

/// Marks a file as the gate's state (`PRAGMA application_id`): "kgst".
pub(super) const APPLICATION: i32 = 0x6b67_7374;
/// Version of the tables below (`PRAGMA user_version`).
const VERSION: i64 = 1;

/// `day` and `today`: requests on the last day of use, in days since 1970. `start`: first second of a quota's window.
pub(super) const TABLES: [&str; 2] = [
    "CREATE TABLE activity (
        key TEXT PRIMARY KEY, last_used INTEGER NOT NULL, day INTEGER NOT NULL, today INTEGER NOT NULL,
        total INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID",
    "CREATE TABLE quota (
        key TEXT NOT NULL, per TEXT NOT NULL, start INTEGER NOT NULL, used INTEGER NOT NULL,
        PRIMARY KEY (key, per, start)
    ) STRICT, WITHOUT ROWID",
];

/// What a file that opened holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    /// Nothing yet.
    Nothing,
    /// Our tables.
    Ours,
}

/// Looks at what the file is.
///
/// # Errors
///
/// [`StateError::Foreign`] for another program's database, [`StateError::Version`] for tables of another version of this
/// one, and damage where it says that they are ours and they are not, or the other way round.
pub(super) fn look(connection: &Connection) -> Result<Contents, StateError> {
    let number = |query: &str| connection.query_row(query, [], |row| row.get::<_, i64>(0));
    let is_empty = number("SELECT count(*) FROM sqlite_schema")? == 0;
    let mut made = connection.prepare("SELECT count(*) FROM sqlite_schema WHERE sql = ?1")?;
    let mut are_ours = true;
    for table in TABLES {
        are_ours &= made.query_row([table], |row| row.get::<_, i64>(0))? == 1;
    }
    let application = number("PRAGMA application_id")?;
    match (application == i64::from(APPLICATION), number("PRAGMA user_version")?) {
        (true, VERSION) if are_ours => Ok(Contents::Ours),
        (true, VERSION) => Err(damage("the tables are not as they were made")),
        (true, version) => Err(StateError::Version(version)),
        (false, 0) if is_empty && application == 0 => Ok(Contents::Nothing),
        (false, _) if are_ours => Err(damage("the mark of the file is not as it was made")),
        (false, _) => Err(StateError::Foreign("it is another program's database")),
    }
}

/// Damage that SQLite does not see.
pub(super) fn damage(what: &str) -> StateError {
    let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(corrupt, Some(what.to_owned())).into()
}

/// Makes the tables, all or none.
pub(super) fn create(connection: &mut Connection) -> Result<(), StateError> {
    let work = connection.transaction()?;
    for table in TABLES {
        work.execute(table, [])?;
    }
    work.pragma_update(None, "application_id", APPLICATION)?;
    work.pragma_update(None, "user_version", VERSION)?;
    work.commit()?;
    Ok(())
}

/// A window as it is written.
pub(super) const fn window_name(window: QuotaWindow) -> &'static str {
    match window {
        QuotaWindow::Hour => "1h",
        QuotaWindow::Day => "1d",
        QuotaWindow::Month => "1mo",
    }
}

/// A window as it was written.
pub(super) fn window_of(name: &str) -> Option<QuotaWindow> {
    [QuotaWindow::Hour, QuotaWindow::Day, QuotaWindow::Month].into_iter().find(|window| window_name(*window) == name)
}
