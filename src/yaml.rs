//! YAML as written: a tree of nodes that know their line and keep every scalar as text. `serde_yaml` tells neither
//! where a value stood nor whether `48e85912` was meant as a number, so whatever an operator edits is read here first.

pub mod simple;

use std::borrow::Cow;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// Where a node begins in its file; both count from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// One value of a document and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where the value begins.
    pub position: Position,
    /// What it is.
    pub value: Value,
}

/// The three things YAML can hold, plus "nothing was written here".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `key:` with nothing behind it, `~` or a plain `null`.
    Null,
    /// Text exactly as written, escapes resolved; numbers, booleans and dates are text too.
    Scalar {
        /// The text.
        text: String,
        /// Whether it stood without quotes, so that `true` or `10` may be read as more than text.
        plain: bool,
    },
    /// A list.
    Sequence(Vec<Node>),
    /// Keys in the order of the file.
    Mapping(Vec<Entry>),
}

/// One `key: value` of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key's text.
    pub key: String,
    /// Where the key begins.
    pub position: Position,
    /// What it maps to.
    pub value: Node,
}

/// Why a text is not one plain YAML document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {}: {message}", position.line)]
pub struct YamlError {
    /// Where reading stopped.
    pub position: Position,
    /// What is wrong there; never quotes the text, which may hold a secret.
    pub message: String,
}

/// Nesting beyond this is refused: nothing we read is deeper than six.
const MAX_DEPTH: usize = 32;

/// A mapping with more keys is refused: looking for repeats would take quadratic time, and nothing we read has so many.
const MAX_MAPPING: usize = 10_000;

/// Most errors kept of one text.
const MAX_ERRORS: usize = 1_000;

/// Reads `text` as exactly one YAML document.
///
/// Anchors, aliases, tags, a second document, a key that is not a scalar and the same key twice in one mapping are
/// errors: none of our files needs them, and each has surprised somebody.
pub fn parse(text: &str) -> Result<Node, YamlError> {
    let mut reader = Reader::new(text, None);
    match (reader.document(), reader.errors.into_iter().next()) {
        (Ok(node), None) => Ok(node),
        (_, Some(first)) | (Err(first), None) => Err(first),
    }
}

/// Reads `text` as [`parse`] does, but hands every item of the list under the top-level key `list` to `each` as soon as
/// it is read, and leaves that list empty in the tree: a file of a million items never stands in memory as a tree.
///
/// Goes on past errors that do not stop the reading (a repeated key, a tag, an anchor) and returns all of them, at most
/// 1,000; the tree is `None` when the text could not be read to its end. Items may have been handed out either way.
pub fn parse_each<'a>(text: &'a str, list: &'a str, each: &'a mut dyn FnMut(Node)) -> (Option<Node>, Vec<YamlError>) {
    let mut reader = Reader::new(text, Some((list, each)));
    let node = reader.document();
    let mut errors = reader.errors;
    match node {
        Ok(node) => (Some(node), errors),
        Err(last) => {
            errors.push(last);
            (None, errors)
        }
    }
}

impl Node {
    /// The text of a scalar, quoted or not.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            Value::Null | Value::Sequence(_) | Value::Mapping(_) => None,
        }
    }

    /// What the value is, for an error message.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    end: Position,
    /// The top-level list whose items are handed out instead of kept, and who gets them.
    each: Option<(&'a str, &'a mut dyn FnMut(Node))>,
    /// What was wrong but did not stop the reading, in the order of the text.
    errors: Vec<YamlError>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, each: Option<(&'a str, &'a mut dyn FnMut(Node))>) -> Self {
        Self { parser: Parser::new_from_str(text), end: end_of(text), each, errors: Vec::new() }
    }

    fn document(&mut self) -> Result<Node, YamlError> {
        loop {
            match self.next()? {
                (Event::StreamStart | Event::Nothing, _) => {}
                (Event::DocumentStart(_), _) => break,
                (_, position) => return Ok(Node { position, value: Value::Null }),
            }
        }
        let (event, position) = self.next()?;
        let node = self.node(event, position, 0)?;
        loop {
            match self.next()? {
                (Event::DocumentEnd | Event::Nothing, _) => {}
                (Event::StreamEnd, _) => return Ok(node),
                (_, position) => {
                    return Err(error(position, "a second document begins here; one file holds one document"));
                }
            }
        }
    }

    /// Notes an error that does not stop the reading.
    fn complain(&mut self, position: Position, message: &str) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(error(position, message));
        }
    }

    fn plain_only(&mut self, anchor: usize, tagged: bool, position: Position) {
        if tagged {
            self.complain(position, "tags (!name) are not accepted here");
        }
        if anchor != 0 {
            self.complain(position, "anchors (&name) are not accepted here");
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Position), YamlError> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, position(span))),
            Some(Err(e)) => {
                let at = Position { line: e.marker().line().max(1), column: e.marker().col() + 1 };
                Err(error(at, e.info()))
            }
            None => Ok((Event::StreamEnd, self.end)),
        }
    }

    fn node(&mut self, event: Event<'a>, position: Position, depth: usize) -> Result<Node, YamlError> {
        if depth > MAX_DEPTH {
            return Err(error(position, "nested too deeply"));
        }
        let value = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.plain_only(anchor, tag.is_some(), position);
                scalar(text, style)
            }
            Event::SequenceStart(anchor, tag) => {
                self.plain_only(anchor, tag.is_some(), position);
                self.sequence(depth)?
            }
            Event::MappingStart(anchor, tag) => {
                self.plain_only(anchor, tag.is_some(), position);
                self.mapping(depth)?
            }
            Event::Alias(_) => return Err(error(position, "aliases (*name) are not accepted here")),
            _ => return Err(error(position, "a value was expected here")),
        };
        Ok(Node { position, value })
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, YamlError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::Sequence(items)),
                (event, position) => items.push(self.node(event, position, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, YamlError> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, position) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(Value::Mapping(entries));
            }
            let key = self.node(event, position, depth + 1)?;
            let key = match key.value {
                Value::Scalar { text, .. } => text,
                Value::Null | Value::Sequence(_) | Value::Mapping(_) => {
                    return Err(error(position, "a key must be a single value"));
                }
            };
            if entries.len() >= MAX_MAPPING {
                return Err(error(position, "too many keys in one mapping"));
            }
            if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                let message = match self.each.is_none() || nameable(&key) {
                    true => format!("`{key}` is written twice, first on line {}", first.position.line),
                    false => format!("a key is written twice, first on line {}", first.position.line),
                };
                self.complain(position, &message);
            }
            let value = self.member(&key, depth)?;
            entries.push(Entry { key, position, value });
        }
    }

    /// What `key` maps to. The items of the list that somebody waits for are handed over on the way.
    fn member(&mut self, key: &str, depth: usize) -> Result<Node, YamlError> {
        let (event, position) = self.next()?;
        match (event, self.each.as_ref()) {
            (Event::SequenceStart(anchor, tag), Some((list, _))) if depth == 0 && *list == key => {
                self.plain_only(anchor, tag.is_some(), position);
                self.hand_out(depth + 1)?;
                Ok(Node { position, value: Value::Sequence(Vec::new()) })
            }
            (event, _) => self.node(event, position, depth + 1),
        }
    }

    fn hand_out(&mut self, depth: usize) -> Result<(), YamlError> {
        loop {
            let (event, position) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(());
            }
            let item = self.node(event, position, depth + 1)?;
            if let Some((_, each)) = &mut self.each {
                each(item);
            }
        }
    }
}

/// Whether a mapping's key may be quoted in a message: short and made of letters, `_` and `-`, so that a secret
/// written in the wrong place is not shown.
pub fn nameable(key: &str) -> bool {
    key.len() <= 24 && key.bytes().all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'-'))
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle) -> Value {
    let plain = matches!(style, ScalarStyle::Plain);
    if plain && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL") {
        return Value::Null;
    }
    Value::Scalar { text: text.into_owned(), plain }
}

fn position(span: Span) -> Position {
    Position { line: span.start.line().max(1), column: span.start.col() + 1 }
}

fn end_of(text: &str) -> Position {
    Position { line: text.lines().count().max(1), column: 1 }
}

fn error(position: Position, message: &str) -> YamlError {
    YamlError { position, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar_of(text: &str) -> Value {
        let Value::Mapping(mut entries) = parse(text).expect("parses").value else { unreachable!("a mapping") };
        entries.remove(0).value.value
    }

    #[test]
    fn scalars_stay_text() {
        for (text, want) in [("id: 48e85912", "48e85912"), ("id: no", "no"), ("id: 012", "012"), ("id: '1e3'", "1e3")] {
            let Value::Scalar { text, .. } = scalar_of(text) else { unreachable!("a scalar") };
            assert_eq!(text, want);
        }
        assert_eq!(scalar_of("id:"), Value::Null);
        assert_eq!(scalar_of("id: ''"), Value::Scalar { text: String::new(), plain: false });
    }

    #[test]
    fn positions_count_from_one() {
        let node = parse("a: 1\nb:\n  - c: 2\n").expect("parses");
        let Value::Mapping(entries) = node.value else { unreachable!("a mapping") };
        assert_eq!(entries[1].position, Position { line: 2, column: 1 });
        let Value::Sequence(items) = &entries[1].value.value else { unreachable!("a list") };
        assert_eq!(items[0].position.line, 3);
    }

    #[test]
    fn what_we_do_not_read_is_an_error() {
        for (text, want) in [
            ("a: &x 1", "anchors"),
            ("a: 1\nb: *x", ""),
            ("a: !!int 1", "tags"),
            ("a: 1\n---\nb: 2", "second document"),
            ("a: 1\na: 2", "written twice"),
            ("[1]: 2", "single value"),
            ("a: [1", ""),
        ] {
            let e = parse(text).expect_err(text);
            assert!(e.message.contains(want), "{text}: {e}");
        }
        assert!(parse(&"[".repeat(100)).is_err());
    }

    #[test]
    fn an_empty_file_is_null() {
        for text in ["", "# nothing\n", "---\n...\n"] {
            assert_eq!(parse(text).expect("parses").value, Value::Null, "{text:?}");
        }
    }
}
