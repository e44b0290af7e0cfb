//! One entry for each key of the sources: one that stands in the lists of several roles gets them all, and one that belongs
//! to two users to none.

use std::collections::HashMap;

use super::Sourced;
use crate::import::{Owner, Remark};
use crate::key::KeyHash;
use crate::keyring::edit::{Field, Written};

/// The keys in their order, each once.
pub(super) fn once(found: Vec<Sourced>, problems: &mut Vec<(usize, Remark)>) -> Vec<(KeyHash, Sourced)> {
    let mut places: HashMap<KeyHash, usize> = HashMap::with_capacity(found.len());
    let mut keys: Vec<(KeyHash, Sourced)> = Vec::with_capacity(found.len());
    for again in found {
        let hash = again.entry.credential.hash();
        let place = *places.entry(hash.clone()).or_insert(keys.len());
        let Some((_, first)) = keys.get_mut(place) else {
            keys.push((hash, again));
            continue;
        };
        if !unite(first, &again) {
            let before = if first.source == again.source {
                format!("on line {}", first.entry.line)
            } else {
                format!("on line {} of another file", first.entry.line)
            };
            let what = format!("this key stands {before} with other words: what is it to be?");
            problems.push((again.source, Remark { line: again.entry.line, what }));
        }
    }
    keys
}

/// Whether `again` says nothing else of the key than `first`, but for further roles of a list.
fn unite(first: &mut Sourced, again: &Sourced) -> bool {
    match (&first.entry.owner, &again.entry.owner) {
        (Owner::Listed(_), Owner::Listed(_)) => {
            for (field, value) in &again.entry.fields {
                add(&mut first.entry.fields, *field, value);
            }
            true
        }
        (one, other) => one == other && first.entry.fields == again.entry.fields,
    }
}

/// Adds what a list lacks; other fields are added where they are not there.
pub(super) fn add(fields: &mut Vec<(Field, Written)>, field: Field, value: &Written) {
    match (fields.iter_mut().find(|(other, _)| *other == field), value) {
        (Some((_, Written::List(items))), Written::List(more)) => {
            let more: Vec<String> = more.iter().filter(|item| !items.contains(item)).cloned().collect();
            items.extend(more);
        }
        (Some(_), _) => {}
        (None, value) => fields.push((field, value.clone())),
    }
}
