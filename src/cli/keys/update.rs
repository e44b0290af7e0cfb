//! `keygate keys update`: changes what a key may do, until when and from where. What is not named stays as it is.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;

use super::audit::Deed;
use super::change::{Plan, change};
use super::place::Place;
use super::selector::{Selector, described};
use super::terms::Terms;
use super::{Failure, IN_FORCE, tell, words};
use crate::keyring::Keyring;
use crate::keyring::edit::{self, Change, Field, Written};
use crate::keyring::record::Record;
use crate::limit::Limits;

/// `keygate keys update`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Id, beginning of an id, or name; `-` reads a key from standard input
    #[arg(value_name = "KEY")]
    which: String,
    /// Whom the service behind is told
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Your name for the key
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    terms: Terms,
    /// One more role, where --role names all of them; may be given several times
    #[arg(long = "add-role", value_name = "ROLE", conflicts_with = "roles")]
    add_roles: Vec<String>,
    /// One role less; may be given several times
    #[arg(long = "remove-role", value_name = "ROLE", conflicts_with = "roles")]
    remove_roles: Vec<String>,
    /// One more scope, where --scope names all of them; may be given several times
    #[arg(long = "add-scope", value_name = "SCOPE", conflicts_with = "scopes")]
    add_scopes: Vec<String>,
    /// One scope less; may be given several times
    #[arg(long = "remove-scope", value_name = "SCOPE", conflicts_with = "scopes")]
    remove_scopes: Vec<String>,
    /// Let it never expire
    #[arg(long, conflicts_with = "expires")]
    no_expiry: bool,
    /// Take its note away
    #[arg(long, conflicts_with = "note")]
    no_note: bool,
    /// Take its own limits away, those of the configuration hold; limits named beside it are then its only ones
    #[arg(long)]
    no_limits: bool,
    /// Take its own quota away
    #[arg(long, conflicts_with = "quota")]
    no_quota: bool,
    /// Let it be used from every address
    #[arg(long, conflicts_with = "allow_from")]
    allow_from_anywhere: bool,
}

/// A field and what it becomes; `None` takes it away.
type Asked = (Field, Option<Written>);

/// Changes the key named.
pub(super) fn run(place: &Place, args: &Args) -> Result<(), Failure> {
    let now = Timestamp::now();
    let selector = Selector::read(&args.which)?;
    let told = change(place, |keyring| plan(keyring, selector.find(keyring)?.as_ref(), args, now))?;
    for line in told {
        tell(&line);
    }
    Ok(())
}

fn plan(keyring: &Keyring, record: &Record, args: &Args, now: Timestamp) -> Result<Plan<Vec<String>>, Failure> {
    let old = edit::fields_of(record);
    let mut asked = args.asked(record, now).map_err(Failure::usage)?;
    asked.retain(|(field, value)| !is_so(&old, *field, value.as_ref()));
    if asked.iter().any(|(field, _)| *field == Field::Name) {
        args.name.as_ref().map_or(Ok(()), |name| words::chosen(keyring, name).map(drop))?;
    }
    if asked.is_empty() {
        let told = vec![format!("there is nothing to change: {} is so already", described(record))];
        return Ok(Plan { changes: Vec::new(), deeds: Vec::new(), outcome: told });
    }
    let shown = |value: Option<&Written>| value.map_or_else(|| "none".to_owned(), Written::to_yaml);
    let changes: Vec<String> = asked
        .iter()
        .map(|(field, new)| format!("{}: {} -> {}", field.name(), shown(value_of(&old, *field)), shown(new.as_ref())))
        .collect();
    let mut told = vec![format!("updated {}", described(record))];
    told.extend(changes.iter().map(|change| format!("  {change}")));
    told.push(IN_FORCE.to_owned());
    Ok(Plan {
        changes: vec![Change::Set(record.id().clone(), asked)],
        deeds: vec![Deed::about("update", record, changes)],
        outcome: told,
    })
}

impl Args {
    /// What the options ask for, whether it is so already or not; no field twice.
    fn asked(&self, record: &Record, now: Timestamp) -> Result<Vec<Asked>, String> {
        let base = self.base_limits(*record.limits());
        let mut asked: Vec<Asked> =
            self.terms.fields(base, now)?.into_iter().map(|(f, value)| (f, Some(value))).collect();
        asked.retain(|(field, _)| *field != Field::Limits);
        asked.push((Field::Limits, edit::limits(&self.terms.limits(base))));
        for (field, text) in [(Field::Name, &self.name), (Field::User, &self.user)] {
            asked.extend(text.iter().map(|text| (field, Some(Written::Text(text.clone())))));
        }
        let roles = altered(record.roles(), &self.add_roles, &self.remove_roles);
        let scopes = altered(record.scopes(), &self.add_scopes, &self.remove_scopes);
        asked.extend(roles.map(|roles| (Field::Roles, roles)));
        asked.extend(scopes.map(|scopes| (Field::Scopes, scopes)));
        let gone = [
            (self.no_expiry, Field::Expires),
            (self.no_note, Field::Note),
            (self.allow_from_anywhere, Field::AllowFrom),
        ];
        asked.extend(gone.into_iter().filter(|(gone, _)| *gone).map(|(_, field)| (field, None)));
        Ok(asked)
    }

    fn base_limits(&self, old: Limits) -> Limits {
        match (self.no_limits, self.no_quota) {
            (true, _) => Limits::default(),
            (false, true) => Limits { quota: None, ..old },
            (false, false) => old,
        }
    }
}

/// A list with some items more and some less; `None` where neither was asked for.
fn altered<'a>(old: impl Iterator<Item = &'a str>, more: &'a [String], less: &[String]) -> Option<Option<Written>> {
    if more.is_empty() && less.is_empty() {
        return None;
    }
    let mut items: Vec<String> = Vec::new();
    for item in old.chain(more.iter().map(String::as_str)) {
        if !items.iter().chain(less).any(|other| other == item) {
            items.push(item.to_owned());
        }
    }
    Some((!items.is_empty()).then_some(Written::List(items)))
}

fn value_of(fields: &[(Field, Written)], field: Field) -> Option<&Written> {
    fields.iter().find(|(other, _)| *other == field).map(|(_, value)| value)
}

/// Whether the entry has this value already; `10.0.0.5` and `10.0.0.5/32` are the same network.
fn is_so(old: &[(Field, Written)], field: Field, new: Option<&Written>) -> bool {
    match (field, value_of(old, field), new) {
        (Field::AllowFrom, Some(Written::List(old)), Some(Written::List(new))) => {
            old.len() == new.len() && old.iter().zip(new).all(|(old, new)| net(old) == net(new))
        }
        (_, old, new) => old == new,
    }
}

fn net(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}
