//! Where a value stands in the file, and how a message may speak of it.

use crate::key;

/// Where a value stands, and whether it may be shown.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) path: String,
    /// The path with every index and every name of the operator's own left out.
    pub(super) pattern: String,
    /// Whether the value may be a secret.
    pub(super) hidden: bool,
}

impl Place {
    /// The file as a whole.
    pub(super) fn root(line: usize) -> Self {
        Self { line, path: String::new(), pattern: String::new(), hidden: false }
    }

    /// `text` as a message may show it: cut short, on one line, and not at all when it is hidden or a key of ours.
    pub(super) fn quote(&self, text: &str) -> String {
        if self.hidden || key::is_own_format(text.as_bytes()) {
            return "this value".to_owned();
        }
        quote(text)
    }

    /// A setting that was not written and stands at its default.
    pub(super) fn implied(path: &str) -> Self {
        Self { line: 0, path: path.to_owned(), pattern: path.to_owned(), hidden: false }
    }

    /// Whether nobody wrote it.
    pub(super) fn is_implied(&self) -> bool {
        self.line == 0
    }

    /// The setting `name` below it.
    pub(super) fn child(&self, line: usize, name: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        let join = |base: &str, name: &str| format!("{base}{dot}{name}");
        Self { line, path: join(&self.path, name), pattern: join(&self.pattern, name), hidden: false }
    }

    /// The entry `name` below it, where names are the operator's own.
    pub(super) fn free_child(&self, line: usize, name: &str) -> Self {
        let path = format!("{}.{}", self.path, clip(name));
        Self { line, path, pattern: format!("{}.*", self.pattern), hidden: false }
    }

    /// The item `index` of it.
    pub(super) fn item(&self, line: usize, index: usize) -> Self {
        let (path, pattern) = (format!("{}[{index}]", self.path), format!("{}[]", self.pattern));
        Self { line, path, pattern, hidden: false }
    }
}

/// A value and where it stood.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

impl<T> Placed<T> {
    /// Another value at the same place.
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Placed<U> {
        Placed { value: change(self.value), place: self.place }
    }
}

/// `text` between backticks, cut short and on one line.
pub(super) fn quote(text: &str) -> String {
    format!("`{}`", clip(text))
}

/// `text` cut short and on one line.
pub(super) fn clip(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_QUOTED).map(escape).collect();
    if text.chars().nth(MAX_QUOTED).is_some() {
        shown.push('…');
    }
    shown
}

fn escape(c: char) -> String {
    match c {
        '"' | '\'' | '\\' => c.to_string(),
        _ => c.escape_debug().collect(),
    }
}

/// Enough to recognise a value by.
const MAX_QUOTED: usize = 60;
