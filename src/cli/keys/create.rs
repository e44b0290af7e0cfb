//! `keygate keys create`: makes a key, writes its hash, and shows the secret once.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::audit::Deed;
use super::bitwarden::{self, Key, Options};
use super::change::{Plan, change};
use super::place::Place;
use super::terms::Terms;
use super::{Failure, example, secret, tell, words};
use crate::key::{ApiKey, KeyHash, KeyId};
use crate::keyring::Keyring;
use crate::keyring::edit::{self, Change, Field, Written};
use crate::limit::Limits;

/// `keygate keys create`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Whom the service behind is told
    #[arg(long, value_name = "USER")]
    user: String,
    /// Your name for the key [default: two random words]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    terms: Terms,
    /// Print the key and what belongs to it as JSON
    #[arg(long)]
    json: bool,
    /// Print a Bitwarden item that holds the key, for `bw encode | bw create item`
    #[arg(long, conflicts_with = "json")]
    bitwarden: bool,
    #[command(flatten)]
    options: Options,
}

/// A key just made and its entry.
struct Made {
    key: ApiKey,
    id: KeyId,
    name: String,
    fields: Vec<(Field, Written)>,
}

impl Made {
    fn item_key<'a>(&'a self, args: &'a Args, hash: &'a KeyHash) -> Key<'a> {
        let expires = self.fields.iter().find_map(|(field, value)| match (field, value) {
            (Field::Expires, Written::Plain(end)) => end.parse().ok(),
            _ => None,
        });
        let (id, name, user) = (&self.id, Some(self.name.as_str()), args.user.as_str());
        Key { id, name, user, hash, expires, secret: self.key.expose_secret() }
    }
}

/// Makes a key.
pub(super) fn run(place: &Place, args: &Args) -> Result<(), Failure> {
    let now = Timestamp::now();
    let terms = args.terms.fields(Limits::default(), now).map_err(Failure::usage)?;
    let made = change(place, |keyring| {
        let made = make(keyring, args, terms, now)?;
        let deed = Deed {
            action: "create",
            key: made.id.as_str().to_owned(),
            user: args.user.clone(),
            name: Some(made.name.clone()),
            changes: shown(&made.fields),
        };
        Ok(Plan { changes: vec![Change::Add(made.fields.clone())], deeds: vec![deed], outcome: made })
    })?;
    show(place, args, &made)
}

fn make(keyring: &Keyring, args: &Args, terms: Vec<(Field, Written)>, now: Timestamp) -> Result<Made, Failure> {
    let name = match &args.name {
        Some(name) => words::chosen(keyring, name)?,
        None => words::fresh(|name| words::is_taken(keyring, name)),
    };
    let key = secret::draw(keyring, None)?;
    let id = key.id();
    let created = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let mut fields = vec![
        (Field::Id, Written::Text(id.as_str().to_owned())),
        (Field::Name, Written::Text(name.clone())),
        (Field::User, Written::Text(args.user.clone())),
        (Field::Hash, edit::hash(&key.hash())),
        (Field::Created, Written::Plain(created.to_string())),
    ];
    fields.extend(terms);
    fields.sort_by_key(|(field, _)| *field);
    Ok(Made { key, id, name, fields })
}

/// The fields that say what a key may do, for people and for the audit log.
pub(super) fn shown(fields: &[(Field, Written)]) -> Vec<String> {
    let told = |field: &Field| !matches!(field, Field::Id | Field::Name | Field::User | Field::Hash | Field::Created);
    fields
        .iter()
        .filter(|(field, _)| told(field))
        .map(|(field, value)| format!("{}: {}", field.name(), value.to_yaml()))
        .collect()
}

fn show(place: &Place, args: &Args, made: &Made) -> Result<(), Failure> {
    let secret = made.key.expose_secret();
    let then =
        format!("`keygate keys revoke {0}` ends it, `keygate keys rotate --grace 0 {0}` gives it another", made.id);
    if args.bitwarden {
        let item = args.options.item(place, made.item_key(args, &made.key.hash())).to_string();
        secret::show(&item, &made.id, &then)?;
        bitwarden::warn_on_terminal("keygate keys create --bitwarden ... | bw encode | bw create item");
    } else if args.json {
        let json = serde_json::json!({
            "id": made.id.as_str(), "name": made.name, "user": args.user, "key": secret,
        });
        secret::show(&json.to_string(), &made.id, &then)?;
    } else {
        secret::show(secret, &made.id, &then)?;
    }
    let mut about = format!("created {} ({}) for {}", made.id, made.name, args.user);
    for term in shown(&made.fields) {
        let _infallible = write!(about, "\n  {term}");
    }
    tell(&about);
    if args.bitwarden {
        tell(&format!("Should Bitwarden not have taken it: `keygate keys rotate --grace 0 --bitwarden {}`", made.id));
    }
    let words = |wanted| match made.fields.iter().find(|(field, _)| *field == wanted) {
        Some((_, Written::List(words))) => words.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    example::tell_how_to_use(place.config.as_deref(), &words(Field::Roles), &words(Field::Scopes));
    Ok(())
}
