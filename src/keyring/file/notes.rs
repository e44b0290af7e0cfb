//! What is found while a key file is read, and the words for what every reader of a field may find: a missing or
//! unknown one, or a value of the wrong kind.

use super::Problem;
use crate::yaml::{self, Entry, Node, Value};

/// Problems and warnings kept; the rest are counted.
const MOST: usize = 1_000;

/// Names under which people write the key itself.
const KEY_WORDS: &[&str] = &["key", "api_key", "apikey", "secret", "token", "password"];

/// The problems and warnings of one file.
#[derive(Default)]
pub(super) struct Notes {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    unkept: usize,
}

impl Notes {
    pub(super) fn problem(&mut self, line: usize, what: impl Into<String>) {
        self.push(Problem { line: Some(line), what: what.into(), hint: None });
    }

    pub(super) fn hinted(&mut self, line: usize, what: impl Into<String>, hint: impl Into<String>) {
        self.push(Problem { line: Some(line), what: what.into(), hint: Some(hint.into()) });
    }

    pub(super) fn warning(&mut self, line: usize, what: impl Into<String>) {
        if self.warnings.len() < MOST {
            self.warnings.push(Problem { line: Some(line), what: what.into(), hint: None });
        }
    }

    /// Names each of `wanted` that `fields` of `whole` lacks.
    pub(super) fn missing(&mut self, fields: &[Entry], wanted: &[&str], line: usize, whole: &str) {
        for name in wanted.iter().filter(|name| fields.iter().all(|field| field.key != **name)) {
            self.problem(line, format!("{whole} has no `{name}`"));
        }
    }

    /// Complains of a key that is none of `known`, and says which was probably meant. A name that could be a secret in
    /// the wrong place is not shown.
    pub(super) fn unknown(&mut self, key: &str, line: usize, known: &[&str]) {
        let near = |name: &&&str| strsim::damerau_levenshtein(key, name) <= 1 + name.len() / 4;
        // Bounded: the distance takes time with the product of both lengths.
        let meant =
            if key.len() <= 32 { known.iter().filter(near).min_by_key(|name| distance(key, name)) } else { None };
        let what = match yaml::nameable(key) {
            true => format!("unknown key `{key}`"),
            false => "unknown key, not shown because it may be a secret".to_owned(),
        };
        match meant {
            _ if KEY_WORDS.contains(&key.to_ascii_lowercase().as_str()) => {
                self.hinted(line, what, "the file holds a key's SHA-256 under `hash`, never the key");
            }
            Some(meant) => self.hinted(line, what, format!("did you mean `{meant}`?")),
            None => self.hinted(line, what, format!("known here: {}", known.join(", "))),
        }
    }

    /// The text of a field that must be a single value.
    pub(super) fn scalar<'e>(&mut self, entry: &'e Entry) -> Option<&'e str> {
        match &entry.value.value {
            Value::Scalar { text, .. } => Some(text),
            _ => self.wrong_kind(entry, "a single value"),
        }
    }

    /// The items of a field that must be a list.
    pub(super) fn list<'e>(&mut self, entry: &'e Entry) -> Option<&'e [Node]> {
        match &entry.value.value {
            Value::Sequence(items) => Some(items),
            _ => self.wrong_kind(entry, "a list"),
        }
    }

    /// The fields of a field that must be a mapping.
    pub(super) fn mapping<'e>(&mut self, entry: &'e Entry) -> Option<&'e [Entry]> {
        match &entry.value.value {
            Value::Mapping(fields) => Some(fields),
            _ => self.wrong_kind(entry, "a mapping"),
        }
    }

    /// Problems and warnings in the order of lines.
    pub(super) fn settle(mut self) -> (Vec<Problem>, Vec<Problem>) {
        self.problems.sort_by_key(|problem| problem.line);
        self.warnings.sort_by_key(|warning| warning.line);
        if self.unkept > 0 {
            self.problems.push(Problem::of_file(format!("and {} more problems", self.unkept), None));
        }
        (self.problems, self.warnings)
    }

    fn push(&mut self, problem: Problem) {
        if self.problems.len() < MOST {
            self.problems.push(problem);
        } else {
            self.unkept += 1;
        }
    }

    fn wrong_kind<T>(&mut self, entry: &Entry, wanted: &str) -> Option<T> {
        let (line, key) = (entry.position.line, &entry.key);
        match entry.value.value {
            Value::Null => self.hinted(line, format!("`{key}` has no value"), "give it one or leave the line out"),
            _ => self.problem(line, format!("`{key}` must be {wanted}, not {}", entry.value.kind())),
        }
        None
    }
}

fn distance(one: &str, other: &str) -> usize {
    strsim::damerau_levenshtein(one, other)
}
