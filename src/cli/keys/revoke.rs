//! `keygate keys revoke`: the entry leaves the file, and every open connection of the key ends.

use super::audit::Deed;
use super::change::{Plan, change};
use super::place::Place;
use super::selector::{Selector, described};
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
    let selectors: Vec<Selector> = args.which.iter().map(|word| Selector::read(word)).collect::<Result<_, _>>()?;
    let gone = change(place, |keyring| {
        let mut plan = Plan { changes: Vec::new(), deeds: Vec::new(), outcome: Vec::new() };
        for selector in &selectors {
            let record = selector.find(keyring)?;
            let change = Change::Remove(record.id().clone());
            if plan.changes.contains(&change) {
                continue;
            }
            plan.changes.push(change);
            plan.deeds.push(Deed::about("revoke", &record, Vec::new()));
            plan.outcome.push(described(&record));
        }
        Ok(plan)
    })?;
    for key in gone {
        tell(&format!("revoked {key}; its connections end within a second"));
    }
    Ok(())
}
