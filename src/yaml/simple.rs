//! A quick reading of the plainest YAML: a few `key: value` lines, then one list of mappings, one line per key. A general
//! parser takes some fifteen seconds for the million entries that this reads in two. It accepts only what has one
//! meaning and gives up on all else, so the general parser stays the judge; a property test holds both together.

use super::{Entry, Node, Position, Value};

/// Reads `text` as [`super::parse_each`] does, where every line is one of:
///
/// - blank, or a comment;
/// - `name: value` at the margin, before the list;
/// - `list:` alone, the last key at the margin;
/// - an item's first line `- name: value`, or a further one two columns deeper;
/// - `...`, with nothing but blanks and comments behind it.
///
/// A value is a plain scalar, a quoted one without escapes, or `[...]` or `{...}` of these on its line. `None` for any
/// other text, good or bad; items may have been handed out all the same.
pub fn parse_each(text: &str, list: &str, each: &mut dyn FnMut(Node)) -> Option<Node> {
    let mut lines = Lines { rest: text, number: 0 };
    let mut top = Vec::new();
    let position = loop {
        let line = lines.next_full()?;
        let (key, after) = line.key(0)?;
        top.push(match after {
            After::Value(at) => line.entry(key, 0, at)?,
            After::Nothing if key == list => break line.position(0),
            After::Nothing => return None,
        });
    };
    let first_line = top.first().map_or(position, |entry: &Entry| entry.position);
    let at = lines.items(each)?;
    let items = Node { position: at, value: Value::Sequence(Vec::new()) };
    top.push(Entry { key: list.to_owned(), position, value: items });
    let names_repeat = repeats(&top);
    (!names_repeat).then_some(Node { position: first_line, value: Value::Mapping(top) })
}

/// The lines not yet read.
struct Lines<'a> {
    rest: &'a str,
    number: usize,
}

impl<'a> Lines<'a> {
    /// The next line that is neither blank nor a comment. `None` at the end and at bytes that are not plain text.
    fn next_full(&mut self) -> Option<Line<'a>> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            let (text, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
            self.rest = rest;
            self.number += 1;
            if !text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) && !is_plain_text(text) {
                // Not a line, and nothing behind it is read: the caller gives up on a rest that is not empty.
                self.rest = "\0";
                return None;
            }
            if !is_blank(text) {
                return Some(Line { text, number: self.number });
            }
        }
    }

    /// Hands out every item. Returns where the list begins.
    fn items(&mut self, each: &mut dyn FnMut(Node)) -> Option<Position> {
        let first = self.next_full().filter(|line| !line.ends_document())?;
        let margin = first.text.len() - first.text.trim_start_matches(' ').len();
        let begin = Position { line: first.number, column: margin + 1 };
        let mut next = Some(first);
        while let Some(line) = next {
            if line.ends_document() {
                next = self.next_full();
                return (next.is_none() && self.rest.is_empty()).then_some(begin);
            }
            let dash = line.text.get(margin..).filter(|_| line.indent() == margin)?;
            let item = dash.strip_prefix("- ").filter(|item| !item.starts_with(' '))?;
            let position = Position { line: line.number, column: margin + 3 };
            let mut entries = vec![line.pair(line.text.len() - item.len())?];
            next = self.next_full();
            while let Some(line) = next.as_ref().filter(|line| line.indent() == margin + 2) {
                entries.push(line.pair(margin + 2)?);
                next = self.next_full();
            }
            if repeats(&entries) {
                return None;
            }
            each(Node { position, value: Value::Mapping(entries) });
        }
        self.rest.is_empty().then_some(begin)
    }
}

struct Line<'a> {
    text: &'a str,
    number: usize,
}

enum After {
    /// The value begins at this byte.
    Value(usize),
    /// Nothing, or a comment.
    Nothing,
}

impl<'a> Line<'a> {
    fn indent(&self) -> usize {
        self.text.bytes().take_while(|byte| *byte == b' ').count()
    }

    fn ends_document(&self) -> bool {
        self.text.strip_prefix("...").is_some_and(|rest| rest.is_empty() || (rest.starts_with(' ') && is_blank(rest)))
    }

    fn position(&self, at: usize) -> Position {
        Position { line: self.number, column: self.text.get(..at).map_or(0, |before| before.chars().count()) + 1 }
    }

    /// The key that begins at byte `at`, and what follows its colon.
    fn key(&self, at: usize) -> Option<(&'a str, After)> {
        let rest = self.text.get(at..)?;
        let length = rest.bytes().take_while(|byte| byte.is_ascii_lowercase() || *byte == b'_').count();
        let (key, rest) = rest.split_at_checked(length).filter(|(key, _)| !key.is_empty())?;
        let value = rest.strip_prefix(':')?;
        if is_blank(value) && !value.starts_with('#') {
            return Some((key, After::Nothing));
        }
        let blanks = value.bytes().take_while(|byte| *byte == b' ').count();
        (blanks > 0).then_some((key, After::Value(at + length + 1 + blanks)))
    }

    /// The whole pair that begins at byte `at` and ends with the line.
    fn pair(&self, at: usize) -> Option<Entry> {
        match self.key(at)? {
            (key, After::Value(value)) => self.entry(key, at, value),
            (_, After::Nothing) => None,
        }
    }

    fn entry(&self, key: &str, at: usize, value: usize) -> Option<Entry> {
        let mut cursor = Cursor { line: self, at: value };
        let value = match cursor.peek()? {
            b'"' | b'\'' | b'[' | b'{' => cursor.value(0)?,
            _ => cursor.block_plain()?,
        };
        let end = self.text.get(cursor.at..)?;
        let ends = end.is_empty() || (end.starts_with(' ') && is_blank(end));
        ends.then(|| Entry { key: key.to_owned(), position: self.position(at), value })
    }
}

/// A place in a line from which values are read.
struct Cursor<'l, 'a> {
    line: &'l Line<'a>,
    at: usize,
}

impl<'a> Cursor<'_, 'a> {
    fn rest(&self) -> &'a str {
        self.line.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.rest().bytes().next()
    }

    fn skip_blanks(&mut self) {
        self.at += self.rest().bytes().take_while(|byte| *byte == b' ').count();
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn value(&mut self, depth: usize) -> Option<Node> {
        let position = self.line.position(self.at);
        let value = match self.peek()? {
            b'"' => self.quoted('"')?,
            b'\'' => self.quoted('\'')?,
            b'[' if depth < 4 => self.sequence(depth)?,
            b'{' if depth < 4 => self.mapping(depth)?,
            _ => self.flow_plain()?,
        };
        Some(Node { position, value })
    }

    fn quoted(&mut self, quote: char) -> Option<Value> {
        let (text, _) = self.rest().get(1..)?.split_once(quote)?;
        let escapes = quote == '"' && text.contains('\\');
        self.at += text.len() + 2;
        // A second single quote right behind would have been an escaped one.
        let good = !escapes && !self.rest().starts_with(quote);
        good.then(|| Value::Scalar { text: text.to_owned(), plain: false })
    }

    /// Up to the end of the line or a comment.
    fn block_plain(&mut self) -> Option<Node> {
        let position = self.line.position(self.at);
        let rest = self.rest();
        let text = rest.split_once(" #").map_or(rest, |(text, _)| text).trim_end_matches(' ');
        self.at += text.len();
        let good = !text.contains(": ") && !text.ends_with(':');
        plain(text).filter(|_| good).map(|value| Node { position, value })
    }

    /// Up to whatever could end it inside brackets.
    fn flow_plain(&mut self) -> Option<Value> {
        let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/');
        let length = self.rest().bytes().take_while(is_inner).count();
        let text = self.rest().get(..length)?;
        self.at += length;
        plain(text)
    }

    fn sequence(&mut self, depth: usize) -> Option<Value> {
        let mut items = Vec::new();
        self.list(b'[', b']', |cursor| {
            items.push(cursor.value(depth + 1)?);
            Some(())
        })?;
        Some(Value::Sequence(items))
    }

    fn mapping(&mut self, depth: usize) -> Option<Value> {
        let mut entries = Vec::new();
        self.list(b'{', b'}', |cursor| {
            let (key, After::Value(value)) = cursor.line.key(cursor.at)? else { return None };
            let position = cursor.line.position(cursor.at);
            cursor.at = value;
            entries.push(Entry { key: key.to_owned(), position, value: cursor.value(depth + 1)? });
            Some(())
        })?;
        (!repeats(&entries)).then_some(Value::Mapping(entries))
    }

    /// `open`, members with a comma between each two, `close`.
    fn list(&mut self, open: u8, close: u8, mut member: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.take(open)?;
        self.skip_blanks();
        if self.take(close).is_some() {
            return Some(());
        }
        loop {
            member(self)?;
            self.skip_blanks();
            if self.take(close).is_some() {
                return Some(());
            }
            self.take(b',')?;
            self.skip_blanks();
        }
    }
}

/// A plain scalar that begins like a word or a number and is not one of the words for nothing.
fn plain(text: &str) -> Option<Value> {
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let nothing = matches!(text, "null" | "Null" | "NULL");
    (begins && !nothing).then(|| Value::Scalar { text: text.to_owned(), plain: true })
}

/// Blanks only, or a comment behind any number of them.
fn is_blank(text: &str) -> bool {
    let text = text.trim_start_matches(' ');
    text.is_empty() || text.starts_with('#')
}

/// Letters and signs of any script, without controls and without what some readers take for a line end or a blank.
fn is_plain_text(text: &str) -> bool {
    let odd = |c: char| {
        c.is_control() || (c.is_whitespace() && c != ' ') || matches!(c, '\u{feff}' | '\u{fffe}' | '\u{ffff}')
    };
    !text.contains(odd)
}

fn repeats(entries: &[Entry]) -> bool {
    entries.iter().enumerate().any(|(at, entry)| entries.iter().take(at).any(|other| other.key == entry.key))
}

#[cfg(test)]
mod tests;
