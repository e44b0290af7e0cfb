//! Where each entry of a key file begins in its bytes, from the lines and columns that its reading found.

use crate::keyring::edit::layout::line_start;
use crate::keyring::file::Places;
use crate::yaml::Position;

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
    /// Finds the bytes of `places` in the text that they were read from. `None` where they are none of it.
    pub(super) fn new(text: &str, places: &Places) -> Option<Self> {
        let (name, list) = (places.name?, places.list?);
        let colon = byte(text, name);
        let colon = colon + text.get(colon..)?.find(':')? + 1;
        let list = byte(text, list);
        let flow = text.get(list..)?.starts_with('[');
        let mut lines = Lines { text, line: 1, start: 0 };
        let position = |(line, column): (u32, u32)| Position { line: line as usize, column: column as usize };
        let starts = places.entries.iter().map(|place| lines.byte(position(*place))).collect();
        Some(Self { starts, list, colon, flow })
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

fn byte(text: &str, position: Position) -> usize {
    Lines { text, line: 1, start: 0 }.byte(position)
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
