//! Which key an operator means: by id, the beginning of an id, name, or the whole key on standard input, never on the
//! command line, where every user of the machine could read it.

use std::io::{self, IsTerminal as _, Read as _};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::Failure;
use crate::cli::looks_like_a_key;
use crate::key::{self, KeyHash, MAX_KEY_BYTES};
use crate::keyring::Keyring;
use crate::keyring::record::Record;

/// A key named on the command line.
#[derive(Clone)]
pub(super) enum Selector {
    /// An id, the beginning of one, or a name.
    Word(String),
    /// The key that stood on standard input.
    Hash(KeyHash),
}

impl Selector {
    /// Reads an argument; `-` is the key on standard input.
    pub(super) fn read(argument: &str) -> Result<Self, Failure> {
        if argument == "-" {
            return secret_from_stdin().map(|secret| Self::Hash(KeyHash::of(secret.as_bytes())));
        }
        if key::holds_own_format(argument.as_bytes()) {
            return Err(Failure::usage(KEY_ITSELF));
        }
        Ok(Self::Word(argument.to_owned()))
    }

    /// The one key that is meant.
    pub(super) fn find(&self, keyring: &Keyring) -> Result<Arc<Record>, Failure> {
        let word = match self {
            Self::Word(word) => word.as_str(),
            Self::Hash(hash) => {
                let found = keyring.records().find(|record| {
                    record.hash() == hash || record.previous().is_some_and(|previous| previous.hash == *hash)
                });
                return found.map(Arc::clone).ok_or_else(|| Failure::failed("this key is not in the key file"));
            }
        };
        let exact = |record: &&Arc<Record>| record.id().as_str() == word || record.name() == Some(word);
        let exact: Vec<_> = keyring.records().filter(exact).collect();
        let begins = |record: &&Arc<Record>| !word.is_empty() && record.id().as_str().starts_with(word);
        let candidates = if exact.is_empty() { keyring.records().filter(begins).collect() } else { exact };
        match candidates.as_slice() {
            [one] => Ok(Arc::clone(one)),
            [] => Err(unfound(word, keyring)),
            several => {
                let mut failure = Failure::failed(format!("`{word}` could mean {} keys:", several.len()));
                failure.lines.extend(several.iter().take(20).map(|record| described(record)));
                Err(failure)
            }
        }
    }
}

/// What is said of a key on a command line; the key is not repeated.
const KEY_ITSELF: &str = "this is a key itself, and now stands in the shell's history: replace it, and \
    name keys by id or name (or `-` and the key on standard input)";

/// Why no key is meant by `word`: most often it is a user, who may have several.
fn unfound(word: &str, keyring: &Keyring) -> Failure {
    let hash = KeyHash::of(word.as_bytes());
    if keyring.records().any(|record| *record.hash() == hash) {
        return Failure::usage(KEY_ITSELF);
    }
    let theirs: Vec<_> = keyring.records().filter(|record| record.user() == word).collect();
    if !theirs.is_empty() {
        let mut failure = Failure::failed(format!("`{word}` is a user; name the key:"));
        failure.lines.extend(theirs.iter().take(20).map(|record| described(record)));
        return failure;
    }
    if looks_like_a_key(word) {
        return Failure::failed(
            "no key has the id or name that is given, which looks like a key itself: keys are named by id or name, and \
             one that stood on a command line is best replaced",
        );
    }
    Failure::failed(format!("no key has the id or name `{word}`, nor an id that begins so"))
}

/// Reads several arguments.
pub(super) fn read_all(arguments: &[String]) -> Result<Vec<Selector>, Failure> {
    arguments.iter().map(|argument| Selector::read(argument)).collect()
}

/// The keys that are meant, each once.
pub(super) fn find_all(selectors: &[Selector], keyring: &Keyring) -> Result<Vec<Arc<Record>>, Failure> {
    let mut found: Vec<Arc<Record>> = Vec::with_capacity(selectors.len());
    for selector in selectors {
        let record = selector.find(keyring)?;
        if !found.iter().any(|other| Arc::ptr_eq(other, &record)) {
            found.push(record);
        }
    }
    Ok(found)
}

/// A key in one line of a message.
pub(super) fn described(record: &Record) -> String {
    let name = record.name().map_or(String::new(), |name| format!(" ({name})"));
    format!("{}{name} of {}", record.id(), record.user())
}

/// The first line of standard input, without blanks around it; typed unseen where that is a terminal.
pub(super) fn secret_from_stdin() -> Result<Zeroizing<String>, Failure> {
    if io::stdin().is_terminal() {
        let typed = rpassword::prompt_password("Key (not shown): ").map(Zeroizing::new);
        let typed = typed.map_err(|e| Failure::failed(format!("the terminal cannot be read: {e}")))?;
        return one_key(&typed);
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_KEY_BYTES + 2));
    let most = u64::try_from(MAX_KEY_BYTES).unwrap_or(u64::MAX) + 2;
    io::stdin()
        .lock()
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(|e| Failure::failed(format!("standard input cannot be read: {e}")))?;
    let text =
        std::str::from_utf8(&bytes).map_err(|_not_text| Failure::usage("the key on standard input is not text"))?;
    one_key(text)
}

fn one_key(text: &str) -> Result<Zeroizing<String>, Failure> {
    // What the gate trims (decision 9), and no other blanks: they would be part of the key there.
    let line = text.lines().next().unwrap_or_default().trim_matches([' ', '\t', '\r']);
    match line.len() {
        0 => Err(Failure::usage("there is no key on standard input")),
        length if length > MAX_KEY_BYTES => {
            Err(Failure::usage(format!("the key is longer than {MAX_KEY_BYTES} bytes")))
        }
        _ => Ok(Zeroizing::new(line.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_the_gate_reads_it() {
        for (text, want) in [("k\r\n", "k"), (" \tk \nx", "k"), ("\u{a0}k", "\u{a0}k"), ("k\0", "k\0")] {
            assert_eq!(one_key(text).ok().as_ref().map(|key| key.as_str()), Some(want), "{text:?}");
        }
        assert!(one_key("\nk").is_err() && one_key(&"k".repeat(MAX_KEY_BYTES + 1)).is_err());
    }
}
