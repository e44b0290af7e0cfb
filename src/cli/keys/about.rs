//! What is said of a key, by `list` and `show`: everything but its hashes.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::activity::Activity;
use crate::keyring::edit::{self, Field, Written};
use crate::keyring::record::Record;

/// What a key is at `now`, in one word; `disabled` and `expired` as the metric `keygate_keys` counts them.
pub(super) fn state(record: &Record, now: Timestamp) -> &'static str {
    if record.disabled() {
        "disabled"
    } else if record.expires().is_some_and(|end| end <= now) {
        "expired"
    } else if record.previous().is_some_and(|previous| previous.until > now) {
        "rotating"
    } else {
        "active"
    }
}

/// A key as JSON. Every member is always there; `null` is none.
pub(super) fn json(record: &Record, activity: Option<Activity>, now: Timestamp) -> Value {
    let mut fields = edit::fields_of(record);
    let mut all = serde_json::Map::new();
    for field in Field::ALL.into_iter().filter(|field| !matches!(field, Field::Hash | Field::Previous)) {
        let value = fields.iter().position(|(other, _)| *other == field).map(|at| fields.swap_remove(at).1);
        let none = match field {
            Field::Roles | Field::Scopes | Field::AllowFrom => json!([]),
            Field::Disabled => json!(false),
            _ => Value::Null,
        };
        all.insert(field.name().to_owned(), value.as_ref().map_or(none, written));
    }
    all.insert("previous_until".to_owned(), json!(record.previous().map(|previous| previous.until.to_string())));
    all.insert("state".to_owned(), json!(state(record, now)));
    let last_used = activity.and_then(|activity| activity.last_used).map(|time| time.to_string());
    all.insert("last_used".to_owned(), json!(last_used));
    all.insert("today".to_owned(), json!(activity.map(|activity| activity.today)));
    Value::Object(all)
}

/// A value of the key file as JSON.
pub(super) fn written(value: &Written) -> Value {
    match value {
        Written::Text(text) => json!(text),
        Written::Plain(text) if text == "true" => json!(true),
        Written::Plain(text) => text.parse::<u64>().map_or_else(|_text| json!(text), |number| json!(number)),
        Written::List(items) => json!(items),
        Written::Map(fields) => {
            Value::Object(fields.iter().map(|(name, value)| ((*name).to_owned(), written(value))).collect())
        }
    }
}

/// A moment for people: to the minute, in UTC.
pub(super) fn minute(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M").to_string()
}
