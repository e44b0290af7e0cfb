//! The key file as text: read strictly, whole or not at all, with every problem at once. Nothing that could be a secret
//! is ever quoted: messages name lines, field names, ids and names of keys.

mod field;
mod limits;
mod notes;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;

use crate::key::{KeyHash, KeyId};
use crate::keyring::record::{Fields, Previous, Record, Shelf, Which};
use crate::keyring::{Keyring, Repeat};
use crate::yaml::{self, Entry, Node, Position, Value, simple};
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
    /// The entries in the order of the file, indexed; no id, name or hash repeats.
    pub keyring: Keyring,
    /// What is allowed but looks like a mistake.
    pub warnings: Vec<Problem>,
    /// Where things stand, for an edit.
    pub(super) places: Places,
}

/// Where the entries of a key file begin, and its list.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// For each entry, line and column of its first field, or brace.
    pub(super) entries: Vec<(u32, u32)>,
    /// The name `keys`.
    pub(super) name: Option<Position>,
    /// What stands behind it.
    pub(super) list: Option<Position>,
}

/// Reads the bytes of a key file as text: UTF-8, without NULs, a byte order mark at the start dropped.
pub fn decode(bytes: &[u8]) -> Result<&str, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|e| problem_at(bytes, e.valid_up_to(), "not valid UTF-8"))?;
    match memchr::memchr(0, bytes) {
        Some(at) => Err(problem_at(bytes, at, "a NUL byte stands here")),
        None => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
    }
}

/// Whether a key file says that it is whole: its last line that is neither blank nor a comment is YAML's document end,
/// `...` at the margin.
pub fn ends_with_marker(bytes: &[u8]) -> bool {
    let is_text = |line: &&[u8]| !line.trim_ascii().is_empty() && !line.trim_ascii_start().starts_with(b"#");
    let last = bytes.rsplit(|byte| matches!(byte, b'\n' | b'\r')).find(is_text);
    last.and_then(|line| line.strip_prefix(b"...")).is_some_and(|rest| {
        let rest_is_comment =
            rest.trim_ascii_start().starts_with(b"#") && rest.first().is_some_and(u8::is_ascii_whitespace);
        rest.trim_ascii().is_empty() || rest_is_comment
    })
}

/// Reads `text` as a key file. Errors: every problem found, in the order of lines, at most about a thousand.
///
/// After a syntax error nothing more of the text can be read, so problems behind it stay unseen.
pub fn parse(text: &str) -> Result<Parsed, Vec<Problem>> {
    parse_watched(text, &mut |_line| ())
}

/// As [`parse`]; `watch` is told of the line that was reached, entry by entry. It begins anew where a text that looked
/// plain turns out to be none.
pub fn parse_watched(text: &str, watch: &mut dyn FnMut(usize)) -> Result<Parsed, Vec<Problem>> {
    // Most files are plain enough for the quick reading. Only its good news counts: what is wrong, and where, is for
    // the general reading to say.
    let mut reader = Reader::default();
    let mut each = |item: Node| {
        watch(item.position.line);
        reader.entry(item);
    };
    if let Some(tree) = simple::parse_each(text, "keys", &mut each) {
        reader.top(tree);
        if let Ok(parsed) = reader.finish() {
            return Ok(parsed);
        }
    }
    parse_generally(text, watch)
}

fn parse_generally(text: &str, watch: &mut dyn FnMut(usize)) -> Result<Parsed, Vec<Problem>> {
    let mut reader = Reader::default();
    let mut each = |item: Node| {
        watch(item.position.line);
        reader.entry(item);
    };
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

/// Reads entry by entry and remembers the lines of what may not repeat.
#[derive(Default)]
struct Reader {
    notes: Notes,
    /// One for each entry. That of an incomplete entry holds nothing true where the entry was at fault; it counts only
    /// in looking for repeats, since its file is refused.
    records: Vec<Arc<Record>>,
    lines: Vec<Lines>,
    places: Places,
    shelf: Shelf,
}

/// Where an entry has what may not repeat; 0 for what it has not.
#[derive(Clone, Copy, Default)]
struct Lines {
    id: u32,
    name: u32,
    hash: u32,
    previous: u32,
}

impl Lines {
    fn of(self, which: Which) -> u32 {
        match which {
            Which::Current => self.hash,
            Which::Previous => self.previous,
        }
    }
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
        (self.places.name, self.places.list) = (Some(field.position), Some(field.value.position));
        let line = field.position.line;
        match &field.value.value {
            Value::Sequence(_) if self.lines.is_empty() => {
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
        let line = node.position.line;
        let (fields, lines) = match node.value {
            Value::Mapping(entries) => self.fields(&entries, line),
            Value::Null | Value::Scalar { .. } | Value::Sequence(_) => {
                self.notes.hinted(line, "an entry of `keys` must be a mapping", "it needs `id`, `user` and `hash`");
                (nothing(), Lines::default())
            }
        };
        if fields.created.zip(fields.expires).is_some_and(|(created, expires)| expires <= created) {
            self.notes.warning(line, "this key expires before it was created");
        }
        self.places.entries.push((short(line), short(node.position.column)));
        self.records.push(Arc::new(Record::pack(fields, &mut self.shelf)));
        self.lines.push(lines);
    }

    fn fields(&mut self, entries: &[Entry], line: usize) -> (Fields, Lines) {
        self.notes.missing(entries, &["id", "user", "hash"], line, "this entry");
        let (mut fields, mut lines) = (nothing(), Lines::default());
        let notes = &mut self.notes;
        for entry in entries {
            let line = short(entry.position.line);
            match entry.key.as_str() {
                "id" => set(&mut fields.id, &mut lines.id, line, field::id(entry, notes).map(KeyId::new)),
                "name" => set(&mut fields.name, &mut lines.name, line, field::name(entry, notes).map(Some)),
                "user" => fields.user = field::user(entry, notes).unwrap_or_default(),
                "hash" => set(&mut fields.hash, &mut lines.hash, line, field::hash(entry, notes)),
                "previous" => {
                    if let Some((previous, line)) = previous(entry, notes) {
                        set(&mut fields.previous, &mut lines.previous, line, Some(Some(previous)));
                    }
                }
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
        (fields, lines)
    }

    fn finish(mut self) -> Result<Parsed, Vec<Problem>> {
        self.repeated_names();
        self.records.shrink_to_fit();
        let (keyring, repeats) = Keyring::index(std::mem::take(&mut self.records));
        for repeat in repeats {
            self.repeated(&repeat, &keyring);
        }
        match std::mem::take(&mut self.notes).settle() {
            (problems, warnings) if problems.is_empty() => Ok(Parsed { keyring, warnings, places: self.places }),
            (problems, _) => Err(problems),
        }
    }

    fn repeated(&mut self, repeat: &Repeat, keyring: &Keyring) {
        let line = |index: usize, what: fn(Lines) -> u32| self.lines.get(index).map_or(0, |lines| what(*lines));
        let (first, again, what) = match repeat {
            Repeat::Id { first, again } => {
                let id = keyring.record(*again).map_or("", |record| record.id().as_str());
                let (first, again) = (*first as usize, *again as usize);
                (line(first, |lines| lines.id), line(again, |lines| lines.id), format!("id `{id}`"))
            }
            Repeat::Hash { first, again } => {
                let line = |slot: &super::Slot| match slot.which() {
                    Which::Current => line(slot.index(), |lines| lines.of(Which::Current)),
                    Which::Previous => line(slot.index(), |lines| lines.of(Which::Previous)),
                };
                (line(first), line(again), "this hash".to_owned())
            }
        };
        if first != 0 && again != 0 {
            self.notes
                .problem(again as usize, format!("{what} stands on line {first} already: each may be there once"));
        }
    }

    fn repeated_names(&mut self) {
        let hasher = RandomState::new();
        let mut seen: HashTable<u32> = HashTable::with_capacity(self.records.len());
        let name = |index: &u32| self.records.get(*index as usize).and_then(|record| record.name());
        let line = |index: u32| self.lines.get(index as usize).map_or(0, |lines| lines.name);
        for again in 0..u32::try_from(self.records.len()).unwrap_or(u32::MAX) {
            let Some(wanted) = name(&again) else { continue };
            let same = |other: &u32| name(other) == Some(wanted);
            match seen.entry(hasher.hash_one(wanted), same, |other| hasher.hash_one(name(other).unwrap_or_default())) {
                Slot::Vacant(place) => {
                    place.insert(again);
                }
                Slot::Occupied(first) => {
                    let what = format!(
                        "name `{wanted}` stands on line {} already: each may be there once",
                        line(*first.get())
                    );
                    self.notes.problem(line(again) as usize, what);
                }
            }
        }
    }
}

/// The previous key and the line of its hash.
fn previous(entry: &Entry, notes: &mut Notes) -> Option<(Previous, u32)> {
    let fields = notes.mapping(entry)?;
    notes.missing(fields, PREVIOUS, entry.position.line, "`previous`");
    let (mut hash, mut until) = (None, None);
    for field in fields {
        let line = short(field.position.line);
        match field.key.as_str() {
            "hash" => hash = field::hash(field, notes).map(|hash| (hash, line)),
            "until" => until = field::date(field, notes),
            other => notes.unknown(other, field.position.line, PREVIOUS),
        }
    }
    // Without an end its hash still counts in looking for repeats; the file is refused anyway.
    let (hash, line) = hash?;
    Some((Previous { hash, until: until.unwrap_or_default() }, line))
}

/// A line or column; the bound on the file's size keeps both far below.
fn short(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// What an entry is before any of its fields was read.
fn nothing() -> Fields {
    Fields::new(KeyId::new(""), "", KeyHash::from_digest([0; 32]))
}

fn set<T>(field: &mut T, its_line: &mut u32, line: u32, value: Option<T>) {
    if let Some(value) = value {
        (*field, *its_line) = (value, line);
    }
}

fn problem_at(bytes: &[u8], at: usize, what: &str) -> Problem {
    let before = bytes.get(..at).unwrap_or_default();
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    Problem { line: Some(line), what: what.to_owned(), hint: Some("a key file is UTF-8 text".to_owned()) }
}

#[cfg(test)]
mod tests;
