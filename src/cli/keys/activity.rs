//! What keys did lately, as far as the gate wrote it down: when each was used last, and how often today.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use super::place::Place;
use super::tell;
use crate::key::KeyId;
use crate::keyring::record::Record;
use crate::state::{self, reader::Reader};

/// What one key did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Activity {
    /// Its last request.
    pub(super) last_used: Option<Timestamp>,
    /// Requests since midnight in UTC.
    pub(super) today: u64,
}

/// What all keys did, by id; or why it is not known.
#[derive(Debug)]
pub(super) struct Activities(Result<HashMap<KeyId, Activity>, String>);

impl Activities {
    /// Reads what the gate wrote down; it may be running. Nothing is known where nothing is kept.
    pub(super) fn read(place: &Place, now: Timestamp) -> Self {
        let Some(path) = &place.state else {
            return Self(Err("no configuration with `state.path` was read".to_owned()));
        };
        let read = Reader::open(path).and_then(|reader| reader.map(|reader| reader.activity(now)).transpose());
        let known = match read {
            Ok(known) => known.ok_or_else(|| format!("no gate has written {} yet", path.display())),
            Err(error) => {
                tell(&format!("{}: what keys did cannot be read: {error}", path.display()));
                Err("the state file cannot be read".to_owned())
            }
        };
        let activity =
            |known: state::reader::Activity| Activity { last_used: Some(known.last_used), today: known.today };
        Self(known.map(|known| known.into_iter().map(|(id, known)| (id, activity(known))).collect()))
    }

    /// Why nothing is known, where that is so.
    pub(super) fn why_unknown(&self) -> Option<&str> {
        self.0.as_ref().err().map(String::as_str)
    }

    /// What this key did; `None` where it is not known.
    pub(super) fn of(&self, record: &Record) -> Option<Activity> {
        self.0.as_ref().ok().map(|known| known.get(record.id()).copied().unwrap_or_default())
    }

    /// Whether a key was not used for `span` before `now`, nor made within it.
    pub(super) fn unused(&self, record: &Record, span: SignedDuration, now: Timestamp) -> bool {
        let Some(activity) = self.of(record) else { return false };
        let long_ago = |time: Timestamp| time.checked_add(span).is_ok_and(|end| end <= now);
        activity.last_used.or(record.created()).is_none_or(long_ago)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyHash;
    use crate::keyring::record::{Fields, Shelf};

    #[test]
    fn unused_is_neither_used_nor_made_lately() {
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().expect("a moment");
        let days = SignedDuration::from_hours(24);
        let day = |ago: i32| now - days * ago;
        let record = |created: Option<Timestamp>| {
            let fields = Fields::new(KeyId::new("a"), "alice", KeyHash::of(b"key"));
            Record::pack(Fields { created, ..fields }, &mut Shelf::default())
        };
        let used = |last_used| Activities(Ok(HashMap::from([(KeyId::new("a"), Activity { last_used, today: 0 })])));
        for (created, last_used, want) in [
            (None, None, true),
            (Some(day(5)), None, false),
            (Some(day(30)), None, true),
            (Some(day(90)), Some(day(29)), false),
            (Some(day(90)), Some(day(30)), true),
        ] {
            assert_eq!(used(last_used).unused(&record(created), days * 30, now), want, "{created:?} {last_used:?}");
        }
        assert!(Activities(Ok(HashMap::new())).unused(&record(None), days, now), "never seen");
        assert!(!Activities(Err(String::new())).unused(&record(None), days, now), "not known");
    }
}
