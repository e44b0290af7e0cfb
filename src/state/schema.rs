//! The tables of the state file, and how a file is known as one.

use rusqlite::Connection;

use super::StateError;
use crate::limit::QuotaWindow;

/// Marks a file as the gate's state (`PRAGMA application_id`): "kgst".
const APPLICATION: i64 = 0x6b67_7374;
/// Version of the tables below (`PRAGMA user_version`).
const VERSION: i64 = 1;

/// `day` and `today`: requests on the last day of use, in days since 1970. `start`: first second of a quota's window.
const TABLES: &str = "
    CREATE TABLE activity (
        key TEXT PRIMARY KEY, last_used INTEGER NOT NULL, day INTEGER NOT NULL, today INTEGER NOT NULL,
        total INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE quota (
        key TEXT NOT NULL, per TEXT NOT NULL, start INTEGER NOT NULL, used INTEGER NOT NULL,
        PRIMARY KEY (key, per, start)
    ) STRICT, WITHOUT ROWID;";

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
/// [`StateError::Foreign`] for another program's database and for tables of another version.
pub(super) fn look(connection: &Connection) -> Result<Contents, StateError> {
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let is_empty = number("SELECT count(*) FROM sqlite_schema")? == 0;
    match (number("PRAGMA application_id")?, number("PRAGMA user_version")?) {
        (0, 0) if is_empty => Ok(Contents::Nothing),
        (APPLICATION, VERSION) => Ok(Contents::Ours),
        _ => Err(StateError::Foreign),
    }
}

/// Makes the tables, all or none.
pub(super) fn create(connection: &mut Connection) -> Result<(), StateError> {
    let work = connection.transaction()?;
    work.execute_batch(TABLES)?;
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
