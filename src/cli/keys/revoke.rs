//! `keygate keys revoke`: the entry leaves the file, and every open connection of the key ends.

use super::audit::Deed;
use super::change::{Plan, change};
use super::place::Place;
use super::selector::{self, described};
use super::{Failure, tell};
use crate::keyring::edit::Change;

/// `keygate keys revoke`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Ids, beginnings of ids, or names; `-` reads a key from standard input
    #[arg(required = true, value_name = "KEY")]
    which: Vec<String>,
}

/// Ends the keys named, all or none.
pub(super) fn run(place: &Place, args: &Args) -> Result<(), Failure> {
    let selectors = selector::read_all(&args.which)?;
    let gone = change(place, |keyring| {
        let records = selector::find_all(&selectors, keyring)?;
        Ok(Plan {
            changes: records.iter().map(|record| Change::Remove(record.id().clone())).collect(),
            deeds: records.iter().map(|record| Deed::about("revoke", record, Vec::new())).collect(),
            outcome: records.iter().map(|record| described(record)).collect::<Vec<_>>(),
        })
    })?;
    for key in gone {
        tell(&format!("revoked {key}; its connections end within a second"));
    }
    Ok(())
}
