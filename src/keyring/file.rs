//! The key file as text: read strictly, whole or not at all, with every problem at once. Nothing that could be a secret
//! is ever quoted: messages name lines, field names, ids and names of keys.

mod field;
mod limits;
mod notes;

use std::collections::HashMap;

use crate::key::{KeyHash, KeyId};
use crate::keyring::record::{Fields, Previous, Record, Shelf};
use crate::yaml::{self, Entry, Node, Value};
use notes::Notes;

/// What the key file of this version says.
pub const VERSION: &str = "1";

/// Where and why a key file is refused, or what is odd about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line from 1; `None` when it is about the file as a whole.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
    /// What was meant or would help.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem of the file as a whole.
    pub fn of_file(what: impl Into<String>, hint: Option<&str>) -> Self {
        Self { line: None, what: what.into(), hint: hint.map(str::to_owned) }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.what)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

/// A key file without problems.
#[derive(Debug)]
pub struct Parsed {
    /// The entries in the order of the file; no id, name or hash repeats.
    pub records: Vec<Record>,
    /// What is allowed but looks like a mistake.
    pub warnings: Vec<Problem>,
}

/// Reads the bytes of a key file as text: UTF-8, without NULs, a byte order mark at the start dropped.
pub fn decode(bytes: &[u8]) -> Result<&str, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|e| problem_at(bytes, e.valid_up_to(), "not valid UTF-8"))?;
    match memchr::memchr(0, bytes) {
        Some(at) => Err(problem_at(bytes, at, "a NUL byte stands here")),
        None => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
    }
}

/// Reads `text` as a key file. Errors: every problem found, in the order of lines, at most about a thousand.
///
/// After a syntax error nothing more of the text can be read, so problems behind it stay unseen.
pub fn parse(text: &str) -> Result<Parsed, Vec<Problem>> {
    let mut reader = Reader::default();
    let mut each = |item| reader.entry(item);
    let (tree, errors) = yaml::parse_each(text, "keys", &mut each);
    for error in errors {
        reader.notes.problem(error.position.line, error.message);
    }
    if let Some(tree) = tree {
        reader.top(tree);
    }
    reader.finish()
}

const TOP: &[&str] = &["version", "keys"];
const ENTRY: &[&str] = &[
    "id",
    "name",
    "user",
    "hash",
    "previous",
    "roles",
    "scopes",
    "note",
    "created",
    "expires",
    "disabled",
    "allow_from",
    "limits",
];
const PREVIOUS: &[&str] = &["hash", "until"];

/// Reads entry by entry and remembers what may not repeat, with its line.
#[derive(Default)]
struct Reader {
    notes: Notes,
    entries: usize,
    records: Vec<Record>,
    shelf: Shelf,
    ids: HashMap<Box<str>, u32>,
    names: HashMap<Box<str>, u32>,
    hashes: HashMap<[u8; 32], u32>,
}

impl Reader {
    fn top(&mut self, tree: Node) {
        let line = tree.position.line;
        let fields = match tree.value {
            Value::Mapping(fields) => fields,
            Value::Null => {
                return self.notes.hinted(1, "the key file is empty", "a key file without keys says `keys: []`");
            }
            Value::Scalar { .. } | Value::Sequence(_) => {
                return self.notes.hinted(line, "not a key file", "it begins with `version: 1` and `keys:`");
            }
        };
        for field in &fields {
            match field.key.as_str() {
                "version" => self.version(field),
                "keys" => self.keys(field),
                other => self.notes.unknown(other, field.position.line, TOP),
            }
        }
        self.notes.missing(&fields, TOP, line, "the key file");
    }

    fn version(&mut self, field: &Entry) {
        if self.notes.scalar(field).is_some_and(|version| version != VERSION) {
            self.notes.hinted(
                field.position.line,
                "`version` is not one that this gate reads",
                "it reads `version: 1`",
            );
        }
    }

    fn keys(&mut self, field: &Entry) {
        let line = field.position.line;
        match &field.value.value {
            Value::Sequence(_) if self.entries == 0 => {
                self.notes.warning(line, "there are no keys: every key is refused")
            }
            Value::Sequence(_) => {}
            Value::Null => self.notes.hinted(line, "`keys` has no value", "a key file without keys says `keys: []`"),
            Value::Scalar { .. } | Value::Mapping(_) => {
                self.notes.hinted(line, "`keys` must be a list", "each entry begins with `- id:`");
            }
        }
    }

    fn entry(&mut self, node: Node) {
        self.entries += 1;
        let line = node.position.line;
        let Value::Mapping(entries) = node.value else {
            return self.notes.hinted(line, "an entry of `keys` must be a mapping", "it needs `id`, `user` and `hash`");
        };
        self.notes.missing(&entries, &["id", "user", "hash"], line, "this entry");
        let (mut id, mut user, mut hash) = (None, None, None);
        let mut fields = Fields::new(KeyId::new(""), "", KeyHash::from_digest([0; 32]));
        for entry in &entries {
            let notes = &mut self.notes;
            match entry.key.as_str() {
                "id" => id = self.id(entry),
                "name" => fields.name = self.name(entry),
                "user" => user = field::user(entry, notes),
                "hash" => hash = self.hash(entry),
                "previous" => fields.previous = self.previous(entry),
                "roles" => fields.roles = field::tokens(entry, notes),
                "scopes" => fields.scopes = field::tokens(entry, notes),
                "note" => fields.note = field::note(entry, notes),
                "created" => fields.created = field::date(entry, notes),
                "expires" => fields.expires = field::date(entry, notes),
                "disabled" => fields.disabled = field::switch(entry, notes).unwrap_or_default(),
                "allow_from" => fields.allow_from = field::nets(entry, notes),
                "limits" => fields.limits = limits::limits(entry, notes),
                other => notes.unknown(other, entry.position.line, ENTRY),
            }
        }
        if fields.created.zip(fields.expires).is_some_and(|(created, expires)| expires <= created) {
            self.notes.warning(line, "this key expires before it was created");
        }
        // An incomplete entry is never packed; its file is refused anyway, since each gap is a problem.
        if let (Some(id), Some(user), Some(hash)) = (id, user, hash) {
            self.records.push(Record::pack(Fields { id, user, hash, ..fields }, &mut self.shelf));
        }
    }

    fn id(&mut self, entry: &Entry) -> Option<KeyId> {
        let text = field::id(entry, &mut self.notes)?;
        self.notes.once(&mut self.ids, text.into(), entry.position.line, |first| {
            format!("id `{text}` is already taken by the entry on line {first}")
        });
        Some(KeyId::new(text))
    }

    fn name(&mut self, entry: &Entry) -> Option<String> {
        let text = field::name(entry, &mut self.notes)?;
        self.notes.once(&mut self.names, text.into(), entry.position.line, |first| {
            format!("name `{text}` is already taken by the entry on line {first}")
        });
        Some(text.to_owned())
    }

    fn hash(&mut self, entry: &Entry) -> Option<KeyHash> {
        let hash = field::hash(entry, &mut self.notes)?;
        self.notes.once(&mut self.hashes, *hash.as_bytes(), entry.position.line, |first| {
            format!("`hash` is the same as on line {first}: one key cannot belong to two entries or stand in one twice")
        });
        Some(hash)
    }

    fn previous(&mut self, entry: &Entry) -> Option<Previous> {
        let line = entry.position.line;
        let fields = self.notes.mapping(entry)?;
        self.notes.missing(fields, PREVIOUS, line, "`previous`");
        let (mut hash, mut until) = (None, None);
        for field in fields {
            match field.key.as_str() {
                "hash" => hash = self.hash(field),
                "until" => until = field::date(field, &mut self.notes),
                other => self.notes.unknown(other, field.position.line, PREVIOUS),
            }
        }
        Some(Previous { hash: hash?, until: until? })
    }

    fn finish(self) -> Result<Parsed, Vec<Problem>> {
        match self.notes.settle() {
            (problems, warnings) if problems.is_empty() => Ok(Parsed { records: self.records, warnings }),
            (problems, _) => Err(problems),
        }
    }
}

fn problem_at(bytes: &[u8], at: usize, what: &str) -> Problem {
    let before = bytes.get(..at).unwrap_or_default();
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    Problem { line: Some(line), what: what.to_owned(), hint: Some("a key file is UTF-8 text".to_owned()) }
}

#[cfg(test)]
mod tests;
