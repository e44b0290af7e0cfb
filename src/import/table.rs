//! Sources with named fields: CSV with a header row (RFC 4180), and JSON as a list of objects.

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Found, Owner, words};
use crate::keyring::edit::{Field, Written};
use crate::yaml::nameable;

/// What a column or field may be called, and what it becomes: the key, its hash, or a field of the entry.
const COLUMNS: [(&str, Column); 13] = [
    ("key", Column::Key),
    ("hash", Column::Hash),
    ("user", Column::User),
    ("name", Column::Field(Field::Name)),
    ("roles", Column::Field(Field::Roles)),
    ("role", Column::Field(Field::Roles)),
    ("scopes", Column::Field(Field::Scopes)),
    ("scope", Column::Field(Field::Scopes)),
    ("expires", Column::Field(Field::Expires)),
    ("created", Column::Field(Field::Created)),
    ("note", Column::Field(Field::Note)),
    ("disabled", Column::Field(Field::Disabled)),
    ("allow_from", Column::Field(Field::AllowFrom)),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Key,
    Hash,
    User,
    Field(Field),
}

/// What a cell holds.
enum Cell {
    Text(String),
    List(Vec<String>),
}

impl Column {
    /// Errors: what is wrong with the name at `place`, from 1; a name that could be a secret is not shown.
    fn named(name: &str, place: usize) -> Result<Self, String> {
        let wanted = name.trim().to_ascii_lowercase();
        if let Some((_, column)) = COLUMNS.iter().find(|(known, _)| *known == wanted) {
            return Ok(*column);
        }
        let shown = if nameable(name.trim()) && !name.trim().is_empty() {
            format!(" `{}`", name.trim())
        } else {
            String::new()
        };
        // Bounded: the distance takes time with the product of both lengths.
        let distance = |known: &str| strsim::damerau_levenshtein(&wanted, known);
        let near = COLUMNS.iter().map(|(known, _)| *known).min_by_key(|known| distance(known));
        let near = near.filter(|known| wanted.len() <= 32 && distance(known) <= 1 + known.len() / 4);
        let known: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
        Err(match near {
            Some(near) => format!("field {place}{shown} is unknown; did you mean `{near}`?"),
            None => format!("field {place}{shown} is unknown; known are {}", known.join(", ")),
        })
    }
}

/// Takes one key with its fields.
fn take(found: &mut Found, line: usize, row: Vec<(Column, Cell)>) {
    let (mut key, mut hash, mut user) = (None, None, None);
    let mut fields: Vec<(Field, Written)> = Vec::new();
    for (column, cell) in row {
        let text = match (column, cell) {
            (Column::Field(field @ (Field::Roles | Field::Scopes | Field::AllowFrom)), cell) => {
                let list = match cell {
                    Cell::Text(text) => words(&text),
                    Cell::List(items) => Written::List(items),
                };
                fields.push((field, list));
                continue;
            }
            (_, Cell::Text(text)) => text,
            (_, Cell::List(_)) => return found.problem(line, "only roles, scopes and allow_from are lists"),
        };
        match column {
            Column::Key => key = Some(text),
            Column::Hash => hash = Some(text),
            Column::User => user = Some(text),
            Column::Field(Field::Disabled) => match text.trim().to_ascii_lowercase().as_str() {
                "false" => {}
                "true" => fields.push((Field::Disabled, Written::Plain("true".to_owned()))),
                _ => return found.problem(line, "`disabled` must be true or false"),
            },
            Column::Field(field @ (Field::Expires | Field::Created)) => fields.push((field, date(text.trim()))),
            Column::Field(field) => fields.push((field, Written::Text(text.trim().to_owned()))),
        }
    }
    fields.retain(|(_, value)| *value != Written::List(Vec::new()));
    let owner = user.map_or(Owner::Unnamed, |user| Owner::Named(user.trim().to_owned()));
    let entry = match (key, hash) {
        (Some(key), None) => found.secret(line, &key, owner),
        (None, Some(hash)) => found.hash(line, &hash, owner),
        (Some(_), Some(_)) => return found.problem(line, "both `key` and `hash` are here: one of them is enough"),
        (None, None) => return found.problem(line, "neither `key` nor `hash` is here"),
    };
    if let Some(entry) = entry {
        entry.fields = fields;
    }
}

/// A date as the key file holds it; what is none is for the key file's reader to refuse.
fn date(text: &str) -> Written {
    let plain = text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || b"-:+.TtZz".contains(&byte));
    if plain { Written::Plain(text.to_owned()) } else { Written::Text(text.to_owned()) }
}

/// CSV whose first row names the columns; commas, semicolons or tabs divide them.
pub(super) fn csv(text: &str) -> Found {
    let mut found = Found::default();
    let header = text.lines().next().unwrap_or_default();
    let divider = [b',', b';', b'\t'].into_iter().find(|divider| header.as_bytes().contains(divider)).unwrap_or(b',');
    let mut reader =
        csv::ReaderBuilder::new().delimiter(divider).has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut columns: Option<Vec<Column>> = None;
    for record in reader.records() {
        // All is text by now, and rows of any length are taken: nothing is left that the reader refuses.
        let Ok(record) = record else { continue };
        let line = begin(text, &record);
        let Some(columns) = &columns else {
            columns = header_row(&mut found, line, &record);
            if columns.is_none() {
                return found;
            }
            continue;
        };
        if record.iter().all(|cell| cell.trim().is_empty()) {
            continue;
        }
        // No reader of CSV skips such a row, and people write them: a key that was taken out must not come in as `#key`.
        if rest_from(text, &record).trim_start().starts_with('#') {
            found.problem(line, "CSV has no comments: take this row out, or put its first field in quotes");
            continue;
        }
        if record.len() != columns.len() {
            let what = format!("this row has {} fields, and the first has {}", record.len(), columns.len());
            found.problem(line, what);
            continue;
        }
        let filled = columns.iter().zip(record.iter()).filter(|(_, cell)| !cell.trim().is_empty());
        take(&mut found, line, filled.map(|(column, cell)| (*column, Cell::Text(cell.to_owned()))).collect());
    }
    found
}

/// The line on which a row begins: the reader counts blank lines before a row as the row's own.
fn begin(text: &str, record: &csv::StringRecord) -> usize {
    let Some(position) = record.position() else { return 1 };
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let blank = rest_from(text, record)
        .bytes()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .filter(|byte| *byte == b'\n')
        .count();
    number(position.line()) + blank
}

/// The text from a row on, blank lines before it included.
fn rest_from<'t>(text: &'t str, record: &csv::StringRecord) -> &'t str {
    let byte = record.position().and_then(|position| usize::try_from(position.byte()).ok());
    byte.and_then(|byte| text.get(byte..)).unwrap_or_default()
}

/// The columns that the first row names; `None` where it names others.
fn header_row(found: &mut Found, line: usize, record: &csv::StringRecord) -> Option<Vec<Column>> {
    let mut columns = Vec::new();
    for (at, name) in record.iter().enumerate() {
        match Column::named(name, at + 1) {
            Ok(column) if columns.contains(&column) => {
                found.problem(line, format!("field {} is there already", at + 1))
            }
            Ok(column) => columns.push(column),
            Err(what) => found.problem(line, format!("the first row names the columns: {what}")),
        }
    }
    if found.problems.is_empty() && !columns.contains(&Column::Key) && !columns.contains(&Column::Hash) {
        found.problem(line, "the first row names the columns: one of them must be `key` or `hash`");
    }
    found.problems.is_empty().then_some(columns)
}

/// A list of objects; `roles`, `scopes` and `allow_from` may be lists.
pub(super) fn json(text: &str) -> Found {
    let mut found = Found::default();
    let items: Vec<&RawValue> = match serde_json::from_str(text) {
        Ok(items) => items,
        Err(error) => {
            // Its own words could quote a value.
            let what = if error.is_data() { "a JSON source is a list of objects" } else { "this is not valid JSON" };
            found.problem(error.line().max(1), what);
            return found;
        }
    };
    let (mut line, mut counted) = (1, 0);
    for item in items {
        let begin = item.get().as_ptr().addr().saturating_sub(text.as_ptr().addr());
        line += text.get(counted..begin).unwrap_or_default().bytes().filter(|byte| *byte == b'\n').count();
        counted = begin;
        match serde_json::from_str::<Object>(item.get()) {
            Ok(Object(pairs)) => object(&mut found, line, pairs),
            Err(_quotes) => found.problem(line, "this is not an object of texts and lists of texts"),
        }
    }
    found
}

fn object(found: &mut Found, line: usize, pairs: Vec<(String, Value)>) {
    let mut row: Vec<(Column, Cell)> = Vec::with_capacity(pairs.len());
    for (at, (name, value)) in pairs.into_iter().enumerate() {
        let column = match Column::named(&name, at + 1) {
            Ok(column) => column,
            Err(what) => return found.problem(line, what),
        };
        if row.iter().any(|(other, _)| *other == column) {
            return found.problem(line, format!("field {} is there already", at + 1));
        }
        let cell = match value {
            Value::Nothing(()) => continue,
            Value::Text(text) if text.trim().is_empty() => continue,
            Value::Text(text) => Cell::Text(text),
            Value::Switch(on) if column == Column::Field(Field::Disabled) => Cell::Text(on.to_string()),
            Value::Switch(_) => return found.problem(line, format!("field {} must be a text", at + 1)),
            Value::List(items) => Cell::List(items),
        };
        row.push((column, cell));
    }
    take(found, line, row);
}

/// What a field of an object may be.
#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Nothing(()),
    Text(String),
    Switch(bool),
    List(Vec<String>),
}

/// The fields of an object in their order, repeated ones too.
struct Object(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Object;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Object(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}
