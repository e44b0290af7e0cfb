//! `keygate keys enable` and `disable`: the entry stays, the key is refused while it is off.

use super::audit::Deed;
use super::change::{Plan, change};
use super::place::Place;
use super::selector::{self, described};
use super::{Failure, tell};
use crate::keyring::edit::{Change, Field, Written};

/// `keygate keys enable`, `keygate keys disable`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Ids, beginnings of ids, or names; `-` reads a key from standard input
    #[arg(required = true, value_name = "KEY")]
    which: Vec<String>,
}

/// What the keys become.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Switch {
    /// Let in.
    On,
    /// Refused.
    Off,
}

/// Switches the keys named, all or none, in one write.
pub(super) fn run(place: &Place, args: &Args, to: Switch) -> Result<(), Failure> {
    let (action, is, then) = match to {
        Switch::On => ("enable", "enabled", "; a running gate lets it in within a second"),
        Switch::Off => ("disable", "disabled", "; its connections end within a second"),
    };
    let value = (to == Switch::Off).then(|| Written::Plain("true".to_owned()));
    let selectors = selector::read_all(&args.which)?;
    let told = change(place, |keyring| {
        let mut plan = Plan { changes: Vec::new(), deeds: Vec::new(), outcome: Vec::new() };
        for record in selector::find_all(&selectors, keyring)? {
            if record.disabled() == (to == Switch::Off) {
                plan.outcome.push(format!("{} is {is} already", described(&record)));
                continue;
            }
            plan.changes.push(Change::Set(record.id().clone(), vec![(Field::Disabled, value.clone())]));
            plan.deeds.push(Deed::about(action, &record, Vec::new()));
            plan.outcome.push(format!("{is} {}{then}", described(&record)));
        }
        Ok(plan)
    })?;
    for line in told {
        tell(&line);
    }
    Ok(())
}
