//! One change of the key file, from the lock to the audit line: read, decide, edit, note, replace. All that commands differ
//! in is what they decide.

use super::audit::{self, Deed};
use super::place::Place;
use super::progress::Progress;
use super::{Failure, complain, tell};
use crate::keyring::Keyring;
use crate::keyring::edit::{self, Change, EditError};
use crate::keyring::file::{self, Parsed, Problem};
use crate::keyring::source;
use crate::keyring::write::{self, WriteError};

/// What a command decided on seeing the keys.
pub(super) struct Plan<T> {
    /// What to change; nothing is written when there is nothing.
    pub(super) changes: Vec<Change>,
    /// One line of the audit log for each key.
    pub(super) deeds: Vec<Deed>,
    /// What the command wants to know afterwards.
    pub(super) outcome: T,
}

/// Lets `decide` look at the keys and makes the changes it asks for: all, or none. Where there is no key file one is made.
pub(super) fn change<T>(
    place: &Place,
    decide: impl FnOnce(&Keyring) -> Result<Plan<T>, Failure>,
) -> Result<T, Failure> {
    let lock = write::lock(&place.key_file, || tell("waiting for another change of the key file to end"))
        .map_err(|e| Failure::failed(format!("{}: {e}", place.shown())))?;
    let old = lock.read().map_err(|e| unreadable(place, &e.into()))?;
    let bytes = old.as_ref().map(|source| source.bytes.as_slice());
    let text = bytes.map_or(Ok(edit::EMPTY), file::decode).map_err(|e| unreadable(place, &e))?;
    let progress = Progress::new();
    let parsed = parse(place, text, &progress)?;
    let Plan { changes, deeds, outcome } = decide(&parsed.keyring)?;
    if changes.is_empty() {
        return Ok(outcome);
    }
    progress.begin_lines("checking the change", text);
    let new = edit::apply(text, &parsed, &changes, &mut |line| progress.reached(line));
    let mut new = new.map_err(|e| refused(place, &e))?.text;
    drop(parsed);
    // The byte order mark that an editor left stays.
    let mark = bytes.is_some_and(|bytes| text.len() < bytes.len());
    new.insert_str(0, if mark { "\u{feff}" } else { "" });
    progress.begin("writing", 1);
    let noted = audit::note(lock.target(), &deeds, bytes.unwrap_or_default(), new.as_bytes())
        .map_err(|e| Failure::failed(format!("nothing was changed, since the audit log cannot be written: {e}")))?;
    let has_other_names = lock.has_other_names();
    let replaced = lock.replace(old.as_ref().map(|source| &source.stamp), new.as_bytes());
    progress.end();
    match replaced {
        Ok(()) => {}
        // The change is made: the command has a secret to show, or ends to tell of.
        Err(unsure @ WriteError::Unsure(_)) => complain(&format!("{}: {unsure}", place.shown())),
        Err(e) => {
            noted.take_back();
            return Err(Failure::failed(format!("{}: {e}", place.shown())));
        }
    }
    if has_other_names {
        complain(&format!("{}: the file has other names (hard links), which keep the old content", place.shown()));
    }
    Ok(outcome)
}

/// The keys, for commands that change nothing.
pub(super) fn look(place: &Place) -> Result<Keyring, Failure> {
    look_watched(place, &Progress::new())
}

/// As [`look`], for commands that show further progress.
pub(super) fn look_watched(place: &Place, progress: &Progress) -> Result<Keyring, Failure> {
    let source = source::read(&place.key_file).map_err(|e| unreadable(place, &e.into()))?;
    let text = file::decode(&source.bytes).map_err(|e| unreadable(place, &e))?;
    parse(place, text, progress).map(|parsed| parsed.keyring)
}

fn unreadable(place: &Place, problem: &Problem) -> Failure {
    Failure::usage(format!("{}: {problem}", place.shown()))
}

fn parse(place: &Place, text: &str, progress: &Progress) -> Result<Parsed, Failure> {
    progress.begin_lines("reading the keys", text);
    file::parse_watched(text, &mut |line| progress.reached(line)).map_err(|problems| {
        let mut failure = Failure::usage(format!("{} has problems, and is not touched:", place.shown()));
        failure.lines.extend(problems.iter().take(20).map(ToString::to_string));
        failure
    })
}

fn refused(place: &Place, error: &EditError) -> Failure {
    match error {
        EditError::Refused(problems) => {
            let mut failure = Failure::usage(format!("{}: the change is refused, nothing was written:", place.shown()));
            // Lines are those of the file that would have been: they would mislead.
            failure.lines.extend(problems.iter().map(|problem| Problem { line: None, ..problem.clone() }.to_string()));
            failure
        }
        EditError::Missing(_) | EditError::Unsupported(_) | EditError::Miscarried => {
            Failure::failed(format!("{}: {error}", place.shown()))
        }
    }
}
