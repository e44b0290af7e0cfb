//! From changes to bytes: what is written where in the text of a key file, so that everything else stays as it is.

use std::ops::Range;

use super::index::Index;
use super::layout::{self, Layout, Pair, Style, line_end, line_start};
use super::{Change, EditError, Field, Written};
use crate::keyring::file::Parsed;

/// Bytes of the old text, and what stands there in the new one.
pub(super) type Splice = (Range<usize>, String);

/// Fields to set, or to take away where there is no value.
type Fields<'a> = &'a [(Field, Option<Written>)];

/// The changes of one edit and where they apply.
pub(super) struct Plan<'a> {
    text: &'a str,
    index: Index,
    added: Vec<&'a [(Field, Written)]>,
    /// By the entry's place in the file: the fields to set, or `None` where it goes.
    touched: Vec<(usize, Option<Fields<'a>>)>,
    newline: &'static str,
}

impl<'a> Plan<'a> {
    /// Finds the entries that `changes` name; `old` is what was read from `text`.
    pub(super) fn new(text: &'a str, old: &Parsed, changes: &'a [Change]) -> Result<Self, EditError> {
        let mut added = Vec::new();
        let mut touched = Vec::new();
        for change in changes {
            let (id, fields) = match change {
                Change::Add(fields) => {
                    added.push(fields.as_slice());
                    continue;
                }
                Change::Set(id, fields) => (id, Some(fields.as_slice())),
                Change::Remove(id) => (id, None),
            };
            let place = old.keyring.place_of(id).ok_or_else(|| EditError::Missing(id.clone()))?;
            touched.push((place as usize, fields));
        }
        touched.sort_by_key(|(place, _)| *place);
        let index = Index::new(text, &old.places).ok_or(EditError::Unsupported(1))?;
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        Ok(Self { text, index, added, touched, newline })
    }

    /// What to write where, sorted.
    pub(super) fn splices(&self) -> Result<Vec<Splice>, EditError> {
        let mut splices = Vec::new();
        let mut removed = Vec::new();
        for &(place, fields) in &self.touched {
            let layout = self.layout(place)?;
            match fields {
                Some(fields) => {
                    self.set(&layout, fields, &mut splices).ok_or_else(|| self.unsupported(place))?;
                }
                None => removed.push((place, layout)),
            }
        }
        self.remove(&removed, &mut splices)?;
        self.add(removed.len(), &mut splices)?;
        splices.sort_by_key(|(range, _)| (range.start, range.end));
        Ok(splices)
    }

    fn layout(&self, place: usize) -> Result<Layout, EditError> {
        let limit = self.index.limit(self.text, place);
        let start = self.index.start(place);
        start
            .zip(limit)
            .and_then(|(start, limit)| layout::read(self.text, start, limit, self.index.is_flow()))
            .ok_or_else(|| self.unsupported(place))
    }

    fn unsupported(&self, place: usize) -> EditError {
        let before = self.text.get(..self.index.start(place).unwrap_or_default()).unwrap_or_default();
        EditError::Unsupported(before.bytes().filter(|byte| *byte == b'\n').count() + 1)
    }

    /// Writes, changes and takes away fields of one entry.
    fn set(&self, layout: &Layout, fields: Fields<'_>, splices: &mut Vec<Splice>) -> Option<()> {
        let goes = |pair: &Pair| fields.iter().any(|(field, value)| value.is_none() && field.name() == pair.key);
        let kept: Vec<&Pair> = layout.pairs.iter().filter(|pair| !goes(pair)).collect();
        let mut fields: Vec<&(Field, Option<Written>)> = fields.iter().collect();
        fields.sort_by_key(|(field, _)| *field);
        for (field, value) in fields {
            let at = layout.pairs.iter().position(|pair| pair.key == field.name());
            match (value, at) {
                (Some(value), Some(at)) => self.replace(layout, layout.pairs.get(at)?, value, splices)?,
                (Some(value), None) => {
                    let before = |pair: &&&Pair| Field::named(&pair.key).is_some_and(|other| other < *field);
                    let anchor = kept.iter().rfind(before).or(kept.last())?;
                    self.insert(layout, anchor, *field, value, splices)?;
                }
                (None, Some(at)) => self.cut(layout, at, splices)?,
                (None, None) => {}
            }
        }
        Some(())
    }

    fn replace(&self, layout: &Layout, pair: &Pair, value: &Written, splices: &mut Vec<Splice>) -> Option<()> {
        let value = value.to_yaml();
        let between = self.text.get(pair.colon..pair.value.start)?;
        if layout.style == Style::Flow || !between.contains('\n') {
            let blank = if between.is_empty() { " " } else { "" };
            splices.push((pair.value.clone(), format!("{blank}{value}")));
            return Some(());
        }
        // A value on lines of its own: the new one stands behind the colon, where a comment may follow it.
        splices.push((pair.colon..pair.colon, format!(" {value}")));
        let first_line = self.content_end(pair.colon);
        splices.push((first_line..self.content_end(pair.value.end), String::new()));
        Some(())
    }

    fn insert(
        &self,
        layout: &Layout,
        anchor: &Pair,
        field: Field,
        value: &Written,
        splices: &mut Vec<Splice>,
    ) -> Option<()> {
        let value = value.to_yaml();
        let name = field.name();
        match layout.style {
            Style::Flow => splices.push((anchor.value.end..anchor.value.end, format!(", {name}: {value}"))),
            Style::Block => {
                let first = layout.pairs.first()?.start;
                let indent = self.text.get(line_start(self.text, first)..first)?.chars().count();
                let end = self.content_end(anchor.value.end);
                splices.push((end..end, format!("{}{}{name}: {value}", self.newline, " ".repeat(indent))));
            }
        }
        Some(())
    }

    /// Takes a field away.
    fn cut(&self, layout: &Layout, at: usize, splices: &mut Vec<Splice>) -> Option<()> {
        let (pair, next) = (layout.pairs.get(at)?, layout.pairs.get(at + 1));
        let before = at.checked_sub(1).and_then(|before| layout.pairs.get(before));
        let range = match (layout.style, next, before) {
            (Style::Flow, Some(next), _) => pair.start..next.start,
            (Style::Flow, None, Some(before)) => before.value.end..pair.value.end,
            (Style::Block, _, Some(_)) => {
                line_start(self.text, pair.start)..(line_end(self.text, pair.value.end) + 1).min(self.text.len())
            }
            // The first field stands behind the dash: the second takes its place.
            (Style::Block, Some(next), None) if !self.text.get(pair.value.end..next.start)?.contains('#') => {
                pair.start..next.start
            }
            (_, None, None) | (Style::Block, Some(_), None) => return None,
        };
        splices.push((range, String::new()));
        Some(())
    }

    fn remove(&self, removed: &[(usize, Layout)], splices: &mut Vec<Splice>) -> Result<(), EditError> {
        if self.index.is_flow() {
            return self.remove_in_brackets(removed, splices);
        }
        for (place, layout) in removed {
            let dash = self.index.dash(self.text, *place).ok_or_else(|| self.unsupported(*place))?;
            let start = line_start(self.text, dash);
            let alone = self.text.get(start..dash).is_some_and(|before| before.trim().is_empty());
            if !alone {
                return Err(self.unsupported(*place));
            }
            splices.push((start..(line_end(self.text, layout.end) + 1).min(self.text.len()), String::new()));
        }
        if !removed.is_empty() && removed.len() == self.index.len() && self.added.is_empty() {
            splices.push((self.index.colon()..self.index.colon(), " []".to_owned()));
        }
        Ok(())
    }

    /// Each entry goes with the comma behind it; those at the end go with the comma before them. Where a comment stands
    /// between two entries, only the entry's own lines go: the comment may be its neighbour's.
    fn remove_in_brackets(&self, removed: &[(usize, Layout)], splices: &mut Vec<Splice>) -> Result<(), EditError> {
        let mut tail = self.index.len();
        let mut gone: Vec<Range<usize>> = Vec::with_capacity(removed.len());
        for (place, layout) in removed.iter().rev() {
            let start = self.index.start(*place).unwrap_or_default();
            match self.index.start(place + 1).filter(|_| place + 1 != tail) {
                Some(next) if !self.has_comment(layout.end..next) || self.comma(layout.end).is_none() => {
                    gone.push(start..next);
                }
                Some(_) => gone.push(self.own_lines(start, layout.end)),
                None => {
                    let before = place.checked_sub(1).map(|before| self.layout(before)).transpose()?;
                    // What lies behind may have been taken already, from the end of this one on.
                    let is_taken = gone.last().is_some_and(|range| range.start == layout.end);
                    let own = self.own_lines(start, layout.end);
                    gone.push(match before {
                        Some(before) if !self.has_comment(before.end..start) => before.end..layout.end,
                        _ if is_taken => own.start..layout.end,
                        _ => own,
                    });
                    tail = *place;
                }
            }
        }
        // Two that stand side by side may share the blanks between them.
        gone.sort_by_key(|range| range.start);
        let mut behind = 0;
        for range in gone {
            splices.push((range.start.max(behind)..range.end.max(behind), String::new()));
            behind = behind.max(range.end);
        }
        let last = removed.last().filter(|_| removed.len() == self.index.len()).map(|(_, layout)| layout.end);
        if let Some((end, bracket)) = last.and_then(|end| Some((end, self.closing_bracket(end)?)))
            && self.text.get(end..bracket).is_some_and(|text| text.contains('\n'))
        {
            // The reader takes no `]` on a line of its own where nothing but comments stands before it.
            splices.push((self.index.list() + 1..self.index.list() + 1, "]".to_owned()));
            splices.push((bracket..bracket + 1, String::new()));
        }
        Ok(())
    }

    /// The bracket that ends the list, behind its last entry's `end`.
    fn closing_bracket(&self, end: usize) -> Option<usize> {
        let mut at = end;
        loop {
            at += self.text.get(at..)?.find(|c: char| !c.is_whitespace() && c != ',')?;
            match self.text.as_bytes().get(at)? {
                b'#' => at = line_end(self.text, at),
                sign => return (*sign == b']').then_some(at),
            }
        }
    }

    fn has_comment(&self, between: Range<usize>) -> bool {
        self.text.get(between).is_some_and(|text| text.contains('#'))
    }

    /// The comma behind an entry that ends at `end`, where nothing but blanks stands between.
    fn comma(&self, end: usize) -> Option<usize> {
        let at = end + self.text.get(end..)?.find(|c: char| !c.is_whitespace())?;
        (self.text.as_bytes().get(at) == Some(&b',')).then_some(at)
    }

    /// An entry in brackets with the comma behind it and, where it begins a line, with the rest of its last line, if that
    /// holds nothing but a comment.
    fn own_lines(&self, start: usize, end: usize) -> Range<usize> {
        let end = self.comma(end).map_or(end, |at| at + 1);
        let line = line_start(self.text, start);
        if self.text.get(line..start).is_none_or(|before| !before.trim().is_empty()) {
            return start..end;
        }
        let rest = self.text.get(end..).unwrap_or_default().lines().next().unwrap_or_default().trim_start();
        match rest.is_empty() || rest.starts_with('#') {
            true => line..(line_end(self.text, end) + 1).min(self.text.len()),
            false => start..end,
        }
    }

    fn add(&self, removed: usize, splices: &mut Vec<Splice>) -> Result<(), EditError> {
        if self.added.is_empty() {
            return Ok(());
        }
        let Some(last) = self.index.len().checked_sub(1) else {
            // `keys: []` becomes a list with one entry a line.
            let brackets = self.index.list()
                ..self
                    .text
                    .get(self.index.list()..)
                    .and_then(|rest| rest.find(']'))
                    .map_or(self.index.list(), |end| self.index.list() + end + 1);
            let end = self.content_end(brackets.end);
            let blanks =
                self.text.get(..brackets.start).map_or(0, |text| text.len() - text.trim_end_matches(' ').len());
            splices.push((brackets.start - blanks..brackets.end, String::new()));
            splices.push((end..end, self.items("  ", true)));
            return Ok(());
        };
        let layout = self.layout(last)?;
        if self.index.is_flow() {
            if removed == self.index.len() {
                return Err(self.unsupported(0));
            }
            let items: Vec<String> = self.added.iter().map(|fields| format!(", {}", in_braces(fields))).collect();
            splices.push((layout.end..layout.end, items.concat()));
            return Ok(());
        }
        let dash = self.index.dash(self.text, last).ok_or_else(|| self.unsupported(last))?;
        let indent = self.text.get(line_start(self.text, dash)..dash).unwrap_or_default();
        if !indent.trim().is_empty() {
            return Err(self.unsupported(last));
        }
        let end = line_end(self.text, layout.end);
        match end < self.text.len() {
            true => splices.push((end + 1..end + 1, self.items(indent, false))),
            false => splices.push((end..end, self.items(indent, true))),
        }
        Ok(())
    }

    /// New entries, one field a line; each with its line break before it or behind it.
    fn items(&self, indent: &str, break_before: bool) -> String {
        let mut out = String::new();
        for fields in &self.added {
            for (at, (field, value)) in fields.iter().enumerate() {
                let lead = if at == 0 { "- " } else { "  " };
                let line = format!("{indent}{lead}{}: {}", field.name(), value.to_yaml());
                match break_before {
                    true => out.extend([self.newline, &line]),
                    false => out.extend([&line, self.newline]),
                }
            }
        }
        out
    }

    /// The end of the line of byte `at`, before its line break.
    fn content_end(&self, at: usize) -> usize {
        let end = line_end(self.text, at);
        let cr = end > at && self.text.as_bytes().get(end - 1) == Some(&b'\r');
        end - usize::from(cr)
    }
}

/// An entry on one line.
fn in_braces(fields: &[(Field, Written)]) -> String {
    Written::Map(fields.iter().map(|(field, value)| (field.name(), value.clone())).collect()).to_yaml()
}
