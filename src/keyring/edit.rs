//! Edits of a key file as text: entries are added, changed and taken away, and every other byte stays as the operator wrote
//! it, comments and order included. What comes out is read again and compared with what was meant before anyone gets it.

mod check;
mod index;
mod layout;
mod plan;
mod written;

use crate::key::KeyId;
use crate::keyring::Keyring;
use crate::keyring::file::{self, Parsed, Problem, ends_with_marker};
pub use check::{faults, fields_of, hash, limits, previous, span, window};
use plan::{Plan, Splice};
pub use written::Written;

/// The text of a key file without keys.
pub const EMPTY: &str =
    "# The keys of keygate. `keygate keys` writes here and keeps comments; edits by hand are fine too.
version: 1
keys: []
...
";

/// A field of an entry, in the order in which new entries have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// `id`
    Id,
    /// `name`
    Name,
    /// `user`
    User,
    /// `hash`
    Hash,
    /// `previous`
    Previous,
    /// `roles`
    Roles,
    /// `scopes`
    Scopes,
    /// `note`
    Note,
    /// `created`
    Created,
    /// `expires`
    Expires,
    /// `disabled`
    Disabled,
    /// `allow_from`
    AllowFrom,
    /// `limits`
    Limits,
}

impl Field {
    /// All of them, in order.
    pub const ALL: [Self; 13] = [
        Self::Id,
        Self::Name,
        Self::User,
        Self::Hash,
        Self::Previous,
        Self::Roles,
        Self::Scopes,
        Self::Note,
        Self::Created,
        Self::Expires,
        Self::Disabled,
        Self::AllowFrom,
        Self::Limits,
    ];

    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Name => "name",
            Self::User => "user",
            Self::Hash => "hash",
            Self::Previous => "previous",
            Self::Roles => "roles",
            Self::Scopes => "scopes",
            Self::Note => "note",
            Self::Created => "created",
            Self::Expires => "expires",
            Self::Disabled => "disabled",
            Self::AllowFrom => "allow_from",
            Self::Limits => "limits",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }
}

/// One change of a key file. An id may stand in one change only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new entry behind the last one, with these fields.
    Add(Vec<(Field, Written)>),
    /// These fields of an entry get these values; `None` takes the field away.
    Set(KeyId, Vec<(Field, Option<Written>)>),
    /// The entry goes, with the comments on its own lines.
    Remove(KeyId),
}

/// Why a key file could not be edited. Nothing was changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// No entry has this id.
    #[error("there is no key `{0}`")]
    Missing(KeyId),
    /// What would come out would be refused: a repeated name or id, or a value that may not be.
    #[error("the change is refused")]
    Refused(Vec<Problem>),
    /// The entry on this line is written in a way that this edit cannot follow.
    #[error("the entry on line {0} is written in a way that cannot be edited here; edit the file by hand")]
    Unsupported(usize),
    /// What came out is not what was meant.
    #[error("the file is written in a way that cannot be edited here; edit it by hand")]
    Miscarried,
}

/// A key file after an edit.
#[derive(Debug)]
pub struct Edited {
    /// Its text, ended with `...`.
    pub text: String,
    /// Its keys.
    pub keyring: Keyring,
}

/// Makes all of `changes` in `text`, or none; `old` is what [`file::parse`] read from it. `watch` is told of the line reached
/// while what came out is read again.
///
/// # Errors
///
/// See [`EditError`].
pub fn apply(text: &str, old: &Parsed, changes: &[Change], watch: &mut dyn FnMut(usize)) -> Result<Edited, EditError> {
    let splices = Plan::new(text, old, changes)?.splices()?;
    let mut new = splice(text, splices).ok_or(EditError::Unsupported(1))?;
    if !ends_with_marker(new.as_bytes()) {
        new.push_str(if new.ends_with('\n') { "...\n" } else { "\n...\n" });
    }
    let keyring = file::parse_watched(&new, watch).map_err(EditError::Refused)?.keyring;
    check::came_out(&old.keyring, &keyring, changes)?;
    Ok(Edited { text: new, keyring })
}

/// The lines on which entries with these ids begin, in the order of the file; none for what is no key file.
pub fn lines_of(text: &str, wanted: impl Fn(&str) -> bool) -> Vec<(usize, KeyId)> {
    let Ok(parsed) = file::parse(text) else { return Vec::new() };
    let entries = parsed.keyring.records().zip(&parsed.places.entries);
    let wanted = entries.filter(|(record, _)| wanted(record.id().as_str()));
    wanted.map(|(record, (line, _))| (*line as usize, record.id().clone())).collect()
}

/// The text with `splices`, which are sorted; `None` where two overlap.
fn splice(text: &str, splices: Vec<Splice>) -> Option<String> {
    let grown: usize = splices.iter().map(|(_, new)| new.len()).sum();
    let mut out = String::with_capacity(text.len() + grown + 8);
    let mut at = 0;
    for (range, new) in splices {
        out.push_str(text.get(at..range.start)?);
        out.push_str(&new);
        at = range.end;
    }
    out.push_str(text.get(at..)?);
    Some(out)
}

#[cfg(test)]
mod tests;
