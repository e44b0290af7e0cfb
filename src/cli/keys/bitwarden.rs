//! Keys as items of a Bitwarden vault: a login whose password is the key, with its hash in a hidden field. What
//! `bw get template item` shows is all there; one item goes through `bw encode | bw create item`, several by `bw import`.

use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;

use clap::builder::NonEmptyStringValueParser;
use serde::Serialize;

use super::place::Place;
use super::tell;
use crate::key::{KeyHash, KeyId};
use crate::keyring::record::Record;

/// The options beside `--bitwarden`.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Options {
    /// What the key is for: the item is named `<SERVICE> API – <user>` [default: the configuration's realm]
    #[arg(long, value_name = "SERVICE", requires = "bitwarden", value_parser = NonEmptyStringValueParser::new())]
    service: Option<String>,
    /// Bitwarden organization to share the item with, by id
    #[arg(long, value_name = "ID", requires_all = ["bitwarden", "collections"])]
    pub(super) organization: Option<String>,
    /// The organization's collection to put the item into, by id; may be given several times
    #[arg(long = "collection", value_name = "ID", requires_all = ["bitwarden", "organization"])]
    collections: Vec<String>,
}

/// The key of an item.
#[derive(Clone, Copy)]
pub(super) struct Key<'a> {
    pub(super) id: &'a KeyId,
    pub(super) name: Option<&'a str>,
    pub(super) user: &'a str,
    pub(super) hash: &'a KeyHash,
    pub(super) expires: Option<jiff::Timestamp>,
    /// The key itself; empty where it is not known.
    pub(super) secret: &'a str,
}

impl<'a> Key<'a> {
    /// A key that is in the file.
    pub(super) fn of(record: &'a Record, secret: &'a str) -> Self {
        let (id, name, user, hash) = (record.id(), record.name(), record.user(), record.hash());
        Self { id, name, user, hash, expires: record.expires(), secret }
    }
}

/// An item. The members are those of the client's template, and its types: it fails on a field's value that is no text.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    organization_id: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    collection_ids: &'a [String],
    r#type: u8,
    name: String,
    notes: String,
    favorite: bool,
    reprompt: u8,
    fields: [Field; 1],
    login: Login<'a>,
    password_history: [(); 0],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Login<'a> {
    uris: [(); 0],
    username: &'a str,
    password: &'a str,
    totp: &'static str,
    fido2_credentials: [(); 0],
}

#[derive(Serialize)]
struct Field {
    name: &'static str,
    value: String,
    r#type: u8,
}

/// The item type of logins.
const LOGIN: u8 = 1;

/// The field type of values that are shown only on demand.
const HIDDEN: u8 = 1;

impl Options {
    /// The item of one key.
    pub(super) fn item<'a>(&'a self, place: &Place, key: Key<'a>) -> Item<'a> {
        let realm = place.config.as_deref().map_or("keygate", |config| &config.credentials.realm);
        Item {
            organization_id: self.organization.as_deref(),
            collection_ids: &self.collections,
            r#type: LOGIN,
            name: format!("{} API – {}", self.service.as_deref().unwrap_or(realm), key.user),
            notes: notes(&key),
            favorite: false,
            reprompt: 0,
            fields: [Field { name: "api_key_hash", value: hex(key.hash), r#type: HIDDEN }],
            login: Login { uris: [], username: key.user, password: key.secret, totp: "", fido2_credentials: [] },
            password_history: [],
        }
    }
}

impl fmt::Display for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        serde_json::json!(self).fmt(f)
    }
}

/// What tells the keys of one user apart, and how long this one is good.
fn notes(key: &Key<'_>) -> String {
    let name = key.name.map_or(String::new(), |name| format!(" ({name})"));
    let end = key.expires.map_or(String::new(), |end| format!(", expires {end}"));
    format!("key {}{name}{end}", key.id)
}

fn hex(hash: &KeyHash) -> String {
    hash.as_bytes().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// Tells the operator who sees items on a terminal where they belong.
pub(super) fn warn_on_terminal(command: &str) {
    if std::io::stdout().is_terminal() {
        tell(&format!("What is shown above is secret. Better let nobody see it: {command}"));
    }
}
