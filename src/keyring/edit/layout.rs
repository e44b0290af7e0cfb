//! Where things stand in one entry of a key file: the bytes of its fields, and of the entry as a whole, so that an edit
//! touches nothing else.

use std::ops::Range;

use saphyr_parser::{Event, Parser, Span};

/// One entry as it is written.
pub(super) struct Layout {
    /// Its fields in the order of the text.
    pub(super) pairs: Vec<Pair>,
    /// In braces, or one field a line.
    pub(super) style: Style,
    /// The first byte behind its last value or brace.
    pub(super) end: usize,
}

/// How an entry is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// One field a line.
    Block,
    /// `{ … }`.
    Flow,
}

/// One field: bytes counted from the start of the file.
pub(super) struct Pair {
    pub(super) key: String,
    /// Where its name begins.
    pub(super) start: usize,
    /// Behind its colon.
    pub(super) colon: usize,
    pub(super) value: Range<usize>,
}

/// Reads the entry whose first field, or brace, stands at byte `start` and that ends before `limit`; `in_brackets` tells
/// whether the list is. `None` when it is written in a way that cannot be followed.
pub(super) fn read(text: &str, start: usize, limit: usize, in_brackets: bool) -> Option<Layout> {
    let line = line_start(text, start);
    // What stands before the entry on its line becomes blanks, so that columns stay what they are.
    let before = text.get(line..start)?;
    let mut alone = " ".repeat(before.chars().count());
    // The reader looks beyond a brace, where inside brackets a comma may stand.
    alone.push_str(if in_brackets { "[" } else { "" });
    let shift = alone.len();
    alone.push_str(text.get(start..limit)?);
    let mut walk = Walk { parser: Parser::new_from_str(&alone), places: Places { text: &alone, char: 0, byte: 0 } };
    let place = |at: usize| at.checked_sub(shift).map(|at| at + start);

    let style = if text.get(start..)?.starts_with('{') { Style::Flow } else { Style::Block };
    loop {
        match walk.next()? {
            (Event::StreamStart | Event::DocumentStart(_) | Event::Nothing, _) => {}
            (Event::SequenceStart(..), _) if in_brackets => {}
            (Event::MappingStart(..), _) => break,
            _ => return None,
        }
    }
    let mut pairs: Vec<Pair> = Vec::new();
    loop {
        let (event, span) = walk.next()?;
        let key = match event {
            Event::Scalar(key, ..) => key.into_owned(),
            Event::MappingEnd => {
                let last = pairs.last().map_or(start, |pair| pair.value.end);
                let end = if style == Style::Flow { place(span.end)? } else { last };
                return Some(Layout { pairs, style, end });
            }
            _ => return None,
        };
        let key_end = place(span.end)?;
        let colon = key_end + text.get(key_end..limit)?.find(':')? + 1;
        let value = walk.value()?;
        let value = place(value.start)?.max(colon)..place(value.end)?.max(colon);
        // A text in lines begins, for the reader, behind its sign.
        let between = text.get(colon..value.start)?;
        let sign = between.find(|c: char| !c.is_whitespace()).filter(|at| between.get(*at..).is_some_and(is_sign));
        let value = sign.map_or(value.start, |at| colon + at)..value.end;
        // Its span of a text without quotes may reach over the blanks behind.
        let length = text.get(value.clone())?.trim_end().len();
        pairs.push(Pair { key, start: place(span.start)?, colon, value: value.start..value.start + length });
    }
}

fn is_sign(text: &str) -> bool {
    text.starts_with(['|', '>'])
}

struct Walk<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    places: Places<'a>,
}

impl<'a> Walk<'a> {
    /// The next event and its bytes.
    fn next(&mut self) -> Option<(Event<'a>, Range<usize>)> {
        let (event, span): (Event<'a>, Span) = self.parser.next_event()?.ok()?;
        let start = self.places.byte(span.start.index());
        // The reader lets a closing bracket reach over the blanks behind it.
        let closes = matches!(self.places.text.as_bytes().get(start), Some(b']' | b'}'));
        let end = match event {
            Event::SequenceEnd | Event::MappingEnd if closes && !span.is_empty() => start + 1,
            _ => self.places.byte(span.end.index()),
        };
        Some((event, start..end))
    }

    /// The bytes of a whole value.
    fn value(&mut self) -> Option<Range<usize>> {
        let (event, first) = self.next()?;
        let mut depth = match event {
            Event::Scalar(..) => return Some(first),
            Event::SequenceStart(..) | Event::MappingStart(..) => 1usize,
            _ => return None,
        };
        let mut end = first.end;
        while depth > 0 {
            let (event, span) = self.next()?;
            match event {
                Event::SequenceStart(..) | Event::MappingStart(..) => depth += 1,
                Event::SequenceEnd | Event::MappingEnd => {
                    depth -= 1;
                    // The end of a block has no bytes of its own and is seen only where the next thing begins.
                    end = if span.is_empty() { end } else { span.end };
                }
                Event::Scalar(..) => end = span.end,
                _ => return None,
            }
        }
        Some(first.start..end)
    }
}

/// From characters to bytes; asked mostly in rising order.
struct Places<'a> {
    text: &'a str,
    char: usize,
    byte: usize,
}

impl Places<'_> {
    fn byte(&mut self, char: usize) -> usize {
        if char < self.char {
            (self.char, self.byte) = (0, 0);
        }
        let ahead = self.text.get(self.byte..).unwrap_or_default();
        let step = ahead.char_indices().nth(char - self.char).map_or(ahead.len(), |(at, _)| at);
        (self.char, self.byte) = (char, self.byte + step);
        self.byte
    }
}

/// The first byte of the line that holds byte `at`.
pub(super) fn line_start(text: &str, at: usize) -> usize {
    memchr::memrchr(b'\n', text.as_bytes().get(..at).unwrap_or_default()).map_or(0, |newline| newline + 1)
}

/// The line feed that ends the line of byte `at`, or the end of the text.
pub(super) fn line_end(text: &str, at: usize) -> usize {
    let rest = text.as_bytes().get(at..).unwrap_or_default();
    memchr::memchr(b'\n', rest).map_or(text.len(), |newline| at + newline)
}
