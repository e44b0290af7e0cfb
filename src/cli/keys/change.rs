//! One change of the key file, from the lock to the audit line: read, decide, edit, note, replace. All that commands differ
//! in is what they decide.

use std::io::IsTerminal as _;

use super::audit::{self, Deed};
use super::place::Place;
use super::{Failure, complain, tell};
use crate::keyring::Keyring;
use crate::keyring::edit::{self, Change, EditError};
use crate::keyring::file::{self, Problem};
use crate::keyring::source::Stamp;
use crate::keyring::write::{self, Lock, WriteError};

/// Files from this size on take over a second to read and write, and progress is shown.
const SLOW_BYTES: usize = 16 * 1024 * 1024;

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
    let old = read(place, &lock)?;
    let progress = Progress { shown: old.text.len() > SLOW_BYTES && std::io::stderr().is_terminal() };
    progress.step("reading the key file");
    let keyring = parse(place, &old.text)?;
    let Plan { changes, deeds, outcome } = decide(&keyring)?;
    if changes.is_empty() {
        return Ok(outcome);
    }
    progress.step("making the change and checking it");
    let new = edit::apply(&old.text, &keyring, &changes).map_err(|e| refused(place, &e))?;
    drop(keyring);
    let new = format!("{}{}", old.mark, new.text);
    progress.step("writing");
    let noted = audit::note(lock.target(), &deeds, old.bytes(), new.as_bytes())
        .map_err(|e| Failure::failed(format!("nothing was changed, since the audit log cannot be written: {e}")))?;
    let has_other_names = lock.has_other_names();
    match lock.replace(old.stamp.as_ref(), new.as_bytes()) {
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
    let source = crate::keyring::source::read(&place.key_file)
        .map_err(|e| Failure::usage(format!("{}: {}", place.shown(), Problem::from(e))))?;
    let text = file::decode(&source.bytes).map_err(|e| Failure::usage(format!("{}: {e}", place.shown())))?;
    parse(place, text)
}

/// The file before the change.
struct Old {
    /// The byte order mark that an editor left, or nothing.
    mark: &'static str,
    text: String,
    stamp: Option<Stamp>,
}

impl Old {
    fn bytes(&self) -> Vec<u8> {
        match self.stamp {
            Some(_) => [self.mark.as_bytes(), self.text.as_bytes()].concat(),
            None => Vec::new(),
        }
    }
}

fn read(place: &Place, lock: &Lock) -> Result<Old, Failure> {
    let problem = |problem: Problem| Failure::usage(format!("{}: {problem}", place.shown()));
    let Some(source) = lock.read().map_err(|e| problem(e.into()))? else {
        return Ok(Old { mark: "", text: edit::EMPTY.to_owned(), stamp: None });
    };
    let text = file::decode(&source.bytes).map_err(problem)?;
    let mark = if text.len() < source.bytes.len() { "\u{feff}" } else { "" };
    Ok(Old { mark, text: text.to_owned(), stamp: Some(source.stamp) })
}

fn parse(place: &Place, text: &str) -> Result<Keyring, Failure> {
    file::parse(text).map(|parsed| parsed.keyring).map_err(|problems| {
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
            failure.lines.extend(problems.iter().map(|problem| problem.what.clone()));
            failure
        }
        EditError::Missing(_) | EditError::Unsupported(_) | EditError::Miscarried => {
            Failure::failed(format!("{}: {error}", place.shown()))
        }
    }
}

/// Tells what goes on where it takes long.
struct Progress {
    shown: bool,
}

impl Progress {
    fn step(&self, what: &str) {
        if self.shown {
            tell(&format!("{what} ..."));
        }
    }
}
