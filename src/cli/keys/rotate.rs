//! `keygate keys rotate`: a new secret for a key; id, user, limits and history stay. The old secret is good until its grace
//! is over, so that its users can change without a gap.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::audit::Deed;
use super::bitwarden::{self, Key, Options};
use super::change::{Plan, change};
use super::place::Place;
use super::selector::{Selector, described};
use super::{Failure, example, secret, tell, terms};
use crate::key::ApiKey;
use crate::keyring::Keyring;
use crate::keyring::edit::{self, Change, Field};
use crate::keyring::record::Record;

/// `keygate keys rotate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Id, beginning of an id, or name; `-` reads the old key from standard input
    #[arg(value_name = "KEY")]
    which: String,
    /// How long the old secret stays good: 600 (seconds), 30m, 24h, 7d; 0 ends it at once
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = terms::span)]
    grace: SignedDuration,
    /// Print the new key and what belongs to it as JSON
    #[arg(long)]
    json: bool,
    /// Print a Bitwarden item that holds the new key, for `bw encode | bw edit item ID`, which replaces all of the old one
    #[arg(long, conflicts_with = "json")]
    bitwarden: bool,
    #[command(flatten)]
    options: Options,
}

/// A key with its new secret.
struct Rotated {
    record: Arc<Record>,
    key: ApiKey,
    json: serde_json::Value,
    about: Vec<String>,
}

/// Replaces the secret of the key named.
pub(super) fn run(place: &Place, args: &Args) -> Result<(), Failure> {
    let now = Timestamp::now();
    let until = terms::End::After(args.grace).from(now).ok_or_else(|| Failure::usage("--grace is too long"))?;
    let until = (!args.grace.is_zero()).then_some(until);
    let selector = Selector::read(&args.which)?;
    let rotated = change(place, |keyring| rotate(keyring, &selector, until, now))?;
    show(place, args, &rotated)
}

fn rotate(
    keyring: &Keyring,
    selector: &Selector,
    until: Option<Timestamp>,
    now: Timestamp,
) -> Result<Plan<Rotated>, Failure> {
    let record = selector.find(keyring)?;
    let key = secret::draw(keyring, Some(record.id()).filter(|id| secret::can_carry(id)))?;
    let previous = until.map(|until| edit::previous(record.hash(), until));
    let fields = vec![(Field::Hash, Some(edit::hash(&key.hash()))), (Field::Previous, previous)];
    let old = until.map_or_else(|| "the old key ended".to_owned(), |until| format!("the old key ends {until}"));
    let json = serde_json::json!({
        "id": record.id().as_str(), "name": record.name(), "user": record.user(),
        "key": key.expose_secret(), "previous_until": until.map(|until| until.to_string()),
    });
    Ok(Plan {
        changes: vec![Change::Set(record.id().clone(), fields)],
        deeds: vec![Deed::about("rotate", &record, vec![old])],
        outcome: Rotated { key, json, about: about(&record, until, now), record },
    })
}

/// What the operator is told of it.
fn about(record: &Record, until: Option<Timestamp>, now: Timestamp) -> Vec<String> {
    let mut lines = vec![format!("rotated {}", described(record))];
    lines.push(match until {
        Some(until) => format!("  the old key is good until {until}"),
        None => "  the old key ends now, and its connections within a second".to_owned(),
    });
    if let Some(older) = record.previous().filter(|older| older.until > now) {
        lines.push(format!("  the one before it, which was good until {}, ends now", older.until));
    }
    if record.disabled() {
        lines.push("  the key is disabled, and stays so".to_owned());
    }
    if let Some(end) = record.expires().filter(|end| *end <= now) {
        lines.push(format!("  the key expired at {end}: `keygate keys update --expires-in` gives it more time"));
    }
    lines
}

fn show(place: &Place, args: &Args, rotated: &Rotated) -> Result<(), Failure> {
    let (record, id) = (&rotated.record, rotated.record.id());
    let then = format!("`keygate keys rotate {id}` gives it another, and ends the secret before this one at once");
    if args.bitwarden {
        let (hash, secret) = (&rotated.key.hash(), rotated.key.expose_secret());
        let item = args.options.item(place, Key { hash, ..Key::of(record, secret) });
        secret::show(&item.to_string(), id, &then)?;
        bitwarden::warn_on_terminal("keygate keys rotate --bitwarden KEY | bw encode | bw edit item ID");
    } else if args.json {
        secret::show(&rotated.json.to_string(), id, &then)?;
    } else {
        secret::show(rotated.key.expose_secret(), id, &then)?;
    }
    for line in &rotated.about {
        tell(line);
    }
    let (roles, scopes): (Vec<&str>, Vec<&str>) = (record.roles().collect(), record.scopes().collect());
    example::tell_how_to_use(place.config.as_deref(), &roles, &scopes);
    Ok(())
}
