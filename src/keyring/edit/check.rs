//! Whether an edit did what was meant and nothing else: the keys that came out are compared, one by one, with those that
//! went in and the changes.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::{Change, EditError, Field, Written, file};
use crate::key::{KeyHash, KeyId};
use crate::keyring::Keyring;
use crate::keyring::record::Record;
use crate::limit::{Limits, QuotaWindow};

/// Compares the keys after the edit with those before it and `changes`.
pub(super) fn came_out(old: &Keyring, new: &Keyring, changes: &[Change]) -> Result<(), EditError> {
    let mut touched: HashMap<&KeyId, &Change> = HashMap::new();
    let mut added = Vec::new();
    for change in changes {
        match change {
            Change::Add(fields) => added.push(fields),
            Change::Set(id, _) | Change::Remove(id) => {
                touched.insert(id, change);
            }
        }
    }
    let mut came = new.records();
    for record in old.records() {
        let same = match touched.get(record.id()) {
            None => came.next() == Some(record),
            Some(Change::Set(_, fields)) => {
                came.next().is_some_and(|new| Some(&**new) == wanted(changed(record, fields)).as_deref())
            }
            Some(Change::Remove(_) | Change::Add(_)) => true,
        };
        if !same {
            return Err(EditError::Miscarried);
        }
    }
    for fields in added {
        if !came.next().is_some_and(|new| Some(&**new) == wanted(fields.clone()).as_deref()) {
            return Err(EditError::Miscarried);
        }
    }
    if came.next().is_some() { Err(EditError::Miscarried) } else { Ok(()) }
}

/// The record that these fields make, read in the plainest spelling.
fn wanted(fields: Vec<(Field, Written)>) -> Option<Arc<Record>> {
    let mut text = String::from("version: 1\nkeys:\n");
    for (at, (field, value)) in fields.into_iter().enumerate() {
        let lead = if at == 0 { "- " } else { "  " };
        let _infallible = writeln!(text, "{lead}{}: {}", field.name(), value.to_yaml());
    }
    file::parse(&text).ok()?.keyring.records().next().map(Arc::clone)
}

/// What a key file's reader says against entries with these fields, each with the place of its entry in `entries`. What
/// repeats is found among them alone. Nothing is quoted but ids and names.
pub fn faults(entries: &[Vec<(Field, Written)>]) -> Vec<(usize, file::Problem)> {
    let mut text = String::from("version: 1\nkeys:\n");
    let mut begins = Vec::with_capacity(entries.len());
    let mut line = 3;
    for fields in entries {
        begins.push(line);
        for (at, (field, value)) in fields.iter().enumerate() {
            let lead = if at == 0 { "- " } else { "  " };
            let _infallible = writeln!(text, "{lead}{}: {}", field.name(), value.to_yaml());
        }
        line += fields.len();
    }
    let Err(problems) = file::parse(&text) else { return Vec::new() };
    let of =
        |line: Option<usize>| begins.partition_point(|begin| line.is_some_and(|line| *begin <= line)).saturating_sub(1);
    if entries.is_empty() {
        Vec::new()
    } else {
        problems.into_iter().map(|problem| (of(problem.line), problem)).collect()
    }
}

fn changed(record: &Record, fields: &[(Field, Option<Written>)]) -> Vec<(Field, Written)> {
    let mut all = fields_of(record);
    all.retain(|(field, _)| fields.iter().all(|(changed, _)| changed != field));
    all.extend(fields.iter().filter_map(|(field, value)| Some((*field, value.clone()?))));
    all
}

/// Every field that `record` has, as it would be written anew, in order.
pub fn fields_of(record: &Record) -> Vec<(Field, Written)> {
    let text = |text: &str| Written::Text(text.to_owned());
    let date = |time: jiff::Timestamp| Written::Plain(time.to_string());
    let list = |items: Vec<String>| (!items.is_empty()).then_some(Written::List(items));
    let replaced = record.previous().map(|replaced| previous(&replaced.hash, replaced.until));
    [
        (Field::Id, Some(text(record.id().as_str()))),
        (Field::Name, record.name().map(text)),
        (Field::User, Some(text(record.user()))),
        (Field::Hash, Some(hash(record.hash()))),
        (Field::Previous, replaced),
        (Field::Roles, list(record.roles().map(str::to_owned).collect())),
        (Field::Scopes, list(record.scopes().map(str::to_owned).collect())),
        (Field::Note, record.note().map(text)),
        (Field::Created, record.created().map(date)),
        (Field::Expires, record.expires().map(date)),
        (Field::Disabled, record.disabled().then(|| Written::Plain("true".to_owned()))),
        (Field::AllowFrom, list(record.allow_from().iter().map(ToString::to_string).collect())),
        (Field::Limits, limits(record.limits())),
    ]
    .into_iter()
    .filter_map(|(field, value)| Some((field, value?)))
    .collect()
}

/// A hash as the key file holds it: `sha256:` and 64 digits.
pub fn hash(hash: &KeyHash) -> Written {
    let mut text = String::with_capacity(71);
    text.push_str("sha256:");
    for byte in hash.as_bytes() {
        let _infallible = write!(text, "{byte:02x}");
    }
    Written::Text(text)
}

/// A replaced key as the key file holds it.
pub fn previous(replaced: &KeyHash, until: jiff::Timestamp) -> Written {
    Written::Map(vec![("hash", hash(replaced)), ("until", Written::Plain(until.to_string()))])
}

/// Limits as the key file holds them; `None` where there are none.
pub fn limits(limits: &Limits) -> Option<Written> {
    let number = |number: u64| Written::Plain(number.to_string());
    let mut fields = Vec::new();
    if let Some(rate) = limits.rate {
        fields.push(("requests", number(u64::from(rate.requests.get()))));
        fields.push(("per", Written::Plain(span(rate.per))));
        if rate.burst != rate.requests {
            fields.push(("burst", number(u64::from(rate.burst.get()))));
        }
    }
    fields.extend(limits.concurrent.map(|most| ("concurrent", number(u64::from(most.get())))));
    fields.extend(limits.websockets.map(|most| ("websockets", number(u64::from(most.get())))));
    fields.extend(limits.quota.map(|quota| {
        let fields =
            vec![("requests", number(quota.requests.get())), ("per", Written::Plain(window(quota.per).to_owned()))];
        ("quota", Written::Map(fields))
    }));
    (!fields.is_empty()).then_some(Written::Map(fields))
}

/// A quota's window as it is written.
pub fn window(per: QuotaWindow) -> &'static str {
    match per {
        QuotaWindow::Hour => "1h",
        QuotaWindow::Day => "1d",
        QuotaWindow::Month => "1mo",
    }
}

/// A duration in the largest unit that is exact.
pub fn span(span: Duration) -> String {
    let millis = span.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let unit = units.into_iter().find(|(unit, _)| millis.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{millis}ms"), |(unit, name)| format!("{}{name}", millis / unit))
}
