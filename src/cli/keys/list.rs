//! `keygate keys list`: all keys, or those asked for, as a table for people or JSON for programs.

use jiff::Timestamp;

use super::change::look;
use super::place::Place;
use super::{Failure, print};
use crate::keyring::record::Record;

/// `keygate keys list`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only keys of this user
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Lists keys.
pub(super) fn run(place: &Place, args: &Args) -> Result<(), Failure> {
    let keyring = look(place)?;
    let wanted = |record: &&std::sync::Arc<Record>| args.user.as_deref().is_none_or(|user| record.user() == user);
    let records: Vec<_> = keyring.records().filter(wanted).collect();
    if args.json {
        let entries: Vec<serde_json::Value> = records.iter().map(|record| entry(record)).collect();
        return print(&serde_json::Value::Array(entries).to_string());
    }
    for record in records {
        let expires = record.expires().map_or_else(|| "-".to_owned(), |end: Timestamp| end.to_string());
        let name = record.name().unwrap_or("-");
        print(&format!("{}  {name}  {}  {}  {expires}", record.id(), record.user(), record.roles_joined()))?;
    }
    Ok(())
}

/// A key as JSON: everything but its hash.
fn entry(record: &Record) -> serde_json::Value {
    serde_json::json!({
        "id": record.id().as_str(),
        "name": record.name(),
        "user": record.user(),
        "roles": record.roles().collect::<Vec<_>>(),
        "scopes": record.scopes().collect::<Vec<_>>(),
        "expires": record.expires().map(|end| end.to_string()),
        "disabled": record.disabled(),
        "note": record.note(),
    })
}
