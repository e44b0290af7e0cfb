//! Where each entry of a key file begins, found in one reading of a file of any size.

use crate::keyring::edit::layout::line_start;
use crate::yaml::{self, Node, Position, Value, simple};

/// The places of a key file's entries, as bytes from its start.
pub(super) struct Index {
    /// Where each entry's first field, or brace, begins.
    starts: Vec<usize>,
    /// Where the list begins.
    list: usize,
    /// Behind the colon of `keys:`.
    colon: usize,
    flow: bool,
}

impl Index {
    /// Reads the places and tells `each` the place and id of every entry. `None` for what is no key file.
    pub(super) fn read(text: &str, mut each: impl FnMut(usize, &str)) -> Option<Self> {
        // Each reading hands out entries from the first on; the ids of one that was given up are told again.
        let mut found: Vec<(usize, String)> = Vec::new();
        let mut lines = Lines { text, line: 1, start: 0 };
        let tree = simple::parse_each(text, "keys", &mut |item| found.push(place(&mut lines, &item)));
        let tree = match tree {
            Some(tree) => tree,
            None => {
                found.clear();
                let mut lines = Lines { text, line: 1, start: 0 };
                yaml::parse_each(text, "keys", &mut |item| found.push(place(&mut lines, &item))).0?
            }
        };
        let Value::Mapping(fields) = tree.value else { return None };
        let keys = fields.iter().find(|field| field.key == "keys")?;
        let mut lines = Lines { text, line: 1, start: 0 };
        let name = lines.byte(keys.position);
        let colon = name + text.get(name..)?.find(':')? + 1;
        let list = Lines { text, line: 1, start: 0 }.byte(keys.value.position);
        let flow = text.get(list..)?.starts_with('[');
        for (place, (_, id)) in found.iter().enumerate() {
            each(place, id);
        }
        Some(Self { starts: found.into_iter().map(|(start, _)| start).collect(), list, colon, flow })
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether the list is written in brackets.
    pub(super) fn is_flow(&self) -> bool {
        self.flow
    }

    pub(super) fn list(&self) -> usize {
        self.list
    }

    pub(super) fn colon(&self) -> usize {
        self.colon
    }

    pub(super) fn start(&self, place: usize) -> Option<usize> {
        self.starts.get(place).copied()
    }

    /// A byte before which the entry ends and behind which the next begins.
    pub(super) fn limit(&self, text: &str, place: usize) -> Option<usize> {
        match self.start(place + 1) {
            Some(next) if self.flow => Some(next),
            Some(_) => self.dash(text, place + 1).map(|dash| line_start(text, dash)),
            None => Some(text.len()),
        }
    }

    /// The dash before an entry of a block list, on its line or on one above with only comments between.
    pub(super) fn dash(&self, text: &str, place: usize) -> Option<usize> {
        let mut end = self.start(place)?;
        loop {
            let line = line_start(text, end);
            let code = text.get(line..end)?;
            let code = match code.find('#') {
                Some(0) => "",
                Some(at) if code.get(..at)?.ends_with([' ', '\t']) => code.get(..at)?,
                _ => code,
            };
            match code.trim_end() {
                "" => end = line.checked_sub(1)?,
                code => return code.ends_with('-').then(|| line + code.len() - 1),
            }
        }
    }
}

fn place(lines: &mut Lines<'_>, item: &Node) -> (usize, String) {
    let id = match &item.value {
        Value::Mapping(fields) => fields.iter().find(|field| field.key == "id").and_then(|field| field.value.text()),
        Value::Null | Value::Scalar { .. } | Value::Sequence(_) => None,
    };
    (lines.byte(item.position), id.unwrap_or_default().to_owned())
}

/// Finds bytes by line and column, in rising order.
struct Lines<'a> {
    text: &'a str,
    line: usize,
    start: usize,
}

impl Lines<'_> {
    fn byte(&mut self, position: Position) -> usize {
        while self.line < position.line {
            let rest = self.text.as_bytes().get(self.start..).unwrap_or_default();
            let Some(newline) = memchr::memchr(b'\n', rest) else { break };
            self.start += newline + 1;
            self.line += 1;
        }
        let line = self.text.get(self.start..).unwrap_or_default();
        self.start + line.char_indices().nth(position.column - 1).map_or(line.len(), |(at, _)| at)
    }
}
