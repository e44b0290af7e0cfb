//! Keys as other programs' files hold them: each format is read into entries with the line they stand on, or into problems
//! that name the line and never quote what could be a secret. Nothing is decided here about what becomes of them.

mod env;
mod guess;
mod haproxy;
mod hashes;
mod nginx;
mod table;

use zeroize::Zeroizing;

use crate::key::{KeyHash, MAX_KEY_BYTES};
use crate::keyring::edit::{Field, Written};
pub use guess::guess;

/// How a source is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines of a SHA-256 of 64 hex digits, with a user before or behind it or not.
    Hash,
    /// Variables such as `CLIENT_API_KEYS=["k1","k2"]`.
    Env,
    /// `map $http_x_api_key $user { "key" "user"; }`
    Nginx,
    /// Lines of `key user`.
    Haproxy,
    /// A header row that names the columns.
    Csv,
    /// A list of objects.
    Json,
}

/// What a source holds of a key.
pub enum Credential {
    /// The key itself.
    Secret(Zeroizing<String>),
    /// Its SHA-256.
    Hash(KeyHash),
}

impl Credential {
    /// What the key file would hold.
    pub fn hash(&self) -> KeyHash {
        match self {
            Self::Secret(secret) => KeyHash::of(secret.as_bytes()),
            Self::Hash(hash) => hash.clone(),
        }
    }
}

/// Whose a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The source names the user.
    Named(String),
    /// The source has only a list of keys by this name: its users can be counted, as in `client-1`.
    Listed(String),
    /// The source says nothing.
    Unnamed,
}

/// One key of a source.
pub struct Entry {
    /// The line it stands on, from 1.
    pub line: usize,
    /// The key or its hash.
    pub credential: Credential,
    /// Whose it is.
    pub owner: Owner,
    /// Other fields of its entry, as the source gives them: none of them was looked at.
    pub fields: Vec<(Field, Written)>,
}

/// Something to be said about a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The line, from 1.
    pub line: usize,
    /// What is to be said, without anything that could be a secret.
    pub what: String,
}

/// What a source was read into.
#[derive(Default)]
pub struct Found {
    /// Its keys.
    pub entries: Vec<Entry>,
    /// What cannot be read.
    pub problems: Vec<Remark>,
    /// What was left out on purpose, and what is worth knowing.
    pub remarks: Vec<Remark>,
}

/// Reads bytes as text: UTF-8 without NULs, a byte order mark at the start dropped.
///
/// # Errors
///
/// Where the first byte stands that is none of it.
pub fn decode(bytes: &[u8]) -> Result<&str, Remark> {
    let at = |at: usize, what: &str| {
        let before = bytes.get(..at).unwrap_or_default();
        Remark { line: before.iter().filter(|byte| **byte == b'\n').count() + 1, what: what.to_owned() }
    };
    let text = std::str::from_utf8(bytes).map_err(|e| at(e.valid_up_to(), "this is not UTF-8 text"))?;
    match memchr::memchr(0, bytes) {
        Some(place) => Err(at(place, "a NUL byte stands here: this is no text")),
        None => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
    }
}

/// Reads `text` as `format`.
pub fn read(format: Format, text: &str) -> Found {
    let mut found = match format {
        Format::Hash => hashes::read(text),
        Format::Env => env::read(text),
        Format::Nginx => nginx::read(text),
        Format::Haproxy => haproxy::read(text),
        Format::Csv => table::csv(text),
        Format::Json => table::json(text),
    };
    found.problems.sort_by_key(|problem| problem.line);
    found.remarks.sort_by_key(|remark| remark.line);
    found
}

impl Found {
    fn problem(&mut self, line: usize, what: impl Into<String>) {
        self.problems.push(Remark { line, what: what.into() });
    }

    fn remark(&mut self, line: usize, what: impl Into<String>) {
        self.remarks.push(Remark { line, what: what.into() });
    }

    /// Takes a key as its owner sends it.
    fn secret(&mut self, line: usize, secret: &str, owner: Owner) -> Option<&mut Entry> {
        // The gate trims what it is sent (decision 9), so blanks around a key can be no part of it.
        let secret = secret.trim_matches([' ', '\t']);
        if secret.is_empty() || secret.len() > MAX_KEY_BYTES {
            self.problem(line, format!("a key has 1 to {MAX_KEY_BYTES} bytes"));
            return None;
        }
        if secret.contains(char::is_control) {
            self.problem(line, "this key holds a control character, which no request can send");
            return None;
        }
        self.take(line, Credential::Secret(Zeroizing::new(secret.to_owned())), owner)
    }

    /// Takes the hash of a key.
    fn hash(&mut self, line: usize, hash: &str, owner: Owner) -> Option<&mut Entry> {
        let Some(hash) = KeyHash::parse(hash.trim()) else {
            self.problem(line, "a hash has 64 hex digits, bare or after `sha256:`");
            return None;
        };
        self.take(line, Credential::Hash(hash), owner)
    }

    fn take(&mut self, line: usize, credential: Credential, owner: Owner) -> Option<&mut Entry> {
        self.entries.push(Entry { line, credential, owner, fields: Vec::new() });
        self.entries.last_mut()
    }
}

/// The lines that say something, without blanks around them, with their numbers from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim_matches([' ', '\t', '\r'])));
    numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Roles or scopes in one text: neither holds a blank or comma, and between them `;` is usual, too.
fn words(text: &str) -> Written {
    let words = text.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';'));
    Written::List(words.filter(|word| !word.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests;
