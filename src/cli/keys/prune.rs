//! `keygate keys prune`: entries that have expired leave the file, and so do replaced keys whose grace is over.

use jiff::{SignedDuration, Timestamp};

use super::audit::Deed;
use super::change::{Plan, change, look};
use super::place::Place;
use super::selector::described;
use super::{Failure, say, tell, terms};
use crate::keyring::Keyring;
use crate::keyring::edit::{Change, Field};

/// `keygate keys prune`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Keep entries that expired less than this ago, such as 30d
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = terms::span)]
    older_than: SignedDuration,
    /// Only print what would go
    #[arg(long)]
    dry_run: bool,
}

/// Clears away what is over.
pub(super) fn run(place: &Place, args: &Args) -> Result<(), Failure> {
    let now = Timestamp::now();
    if args.dry_run {
        let over = over(&look(place)?, args.older_than, now).outcome;
        over.iter().try_for_each(|line| say(&format!("would remove {line}")))?;
        return told_if_none(&over);
    }
    let over = change(place, |keyring| Ok(over(keyring, args.older_than, now)))?;
    for line in &over {
        tell(&format!("removed {line}"));
    }
    told_if_none(&over)
}

fn told_if_none(over: &[String]) -> Result<(), Failure> {
    if over.is_empty() {
        tell("there is nothing to remove");
    }
    Ok(())
}

fn over(keyring: &Keyring, older_than: SignedDuration, now: Timestamp) -> Plan<Vec<String>> {
    let mut plan = Plan { changes: Vec::new(), deeds: Vec::new(), outcome: Vec::new() };
    for record in keyring.records() {
        let long_over = |end: &Timestamp| end.checked_add(older_than).is_ok_and(|end| end <= now);
        let (change, what) = if let Some(end) = record.expires().filter(long_over) {
            (Change::Remove(record.id().clone()), format!("expired {end}"))
        } else if let Some(old) = record.previous().filter(|old| old.until <= now) {
            let fields = vec![(Field::Previous, None)];
            (Change::Set(record.id().clone(), fields), format!("the replaced key ended {}", old.until))
        } else {
            continue;
        };
        let line = match &change {
            Change::Set(..) => format!("the replaced key of {}: it ended", described(record)),
            Change::Remove(_) | Change::Add(_) => format!("{}: {what}", described(record)),
        };
        plan.outcome.push(line);
        plan.changes.push(change);
        plan.deeds.push(Deed::about("prune", record, vec![what]));
    }
    plan
}
