//! Walks a configuration tree and collects everything that is wrong with it. A section asks for the settings it knows;
//! whatever nobody asked for is an unknown key. Nothing here stops at the first mistake.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::environment::{self, Environment};
use super::foreign;
use super::place::{Place, Placed, clip};
use super::problem::{Fault, Problem};
use crate::yaml::{Entry, Node, Value};

/// What one walk over a file has found so far.
pub(super) struct Decoder<'a> {
    file: &'a Path,
    directory: &'a Path,
    environment: &'a dyn Environment,
    found: RefCell<Found>,
}

/// Everything a walk yields besides the settings themselves.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Mistakes: any one refuses the file.
    pub(super) problems: Vec<Problem>,
    /// What is legal and probably not meant.
    pub(super) warnings: Vec<Problem>,
    /// Values with a `${…}` in them, as written, by the path of their setting.
    pub(super) references: BTreeMap<String, String>,
    /// Every setting that was asked for, as in `routes[].limits.per`.
    pub(super) asked: BTreeSet<String>,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(file: &'a Path, directory: &'a Path, environment: &'a dyn Environment) -> Self {
        Self { file, directory, environment, found: RefCell::default() }
    }

    /// The whole file as a slot.
    pub(super) fn root(&'a self, node: &'a Node) -> Slot<'a> {
        Slot { decoder: self, node, place: Place::root(node.position.line) }
    }

    /// Records a mistake.
    pub(super) fn problem(&self, place: &Place, what: impl Into<String>, hint: Option<&str>) {
        let problem = self.at(place, what.into(), hint.map(str::to_owned));
        self.found.borrow_mut().problems.push(problem);
    }

    /// Records what is legal and probably not meant.
    pub(super) fn warning(&self, place: &Place, what: impl Into<String>, hint: Option<&str>) {
        let problem = self.at(place, what.into(), hint.map(str::to_owned));
        self.found.borrow_mut().warnings.push(problem);
    }

    /// Records a wrong value.
    pub(super) fn fault(&self, place: &Place, text: &str, fault: Fault) {
        let (what, hint) = fault.about(&place.quote(text), place.hidden);
        self.problem(place, what, hint.as_deref());
    }

    /// Whether nothing was wrong so far.
    pub(super) fn is_clean(&self) -> bool {
        self.found.borrow().problems.is_empty()
    }

    /// A path of the configuration, relative to its file.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }

    /// The world outside the file.
    pub(super) fn environment(&self) -> &dyn Environment {
        self.environment
    }

    /// What was found, in the order of the file.
    pub(super) fn finish(self) -> Found {
        let mut found = self.found.into_inner();
        found.problems.sort_by_key(|problem| problem.line);
        found.warnings.sort_by_key(|problem| problem.line);
        found
    }

    fn at(&self, place: &Place, what: String, hint: Option<String>) -> Problem {
        Problem { file: self.file.to_owned(), line: Some(place.line), path: place.path.clone(), what, hint }
    }
}

/// A node on the way to becoming a setting.
pub(super) struct Slot<'a> {
    pub(super) decoder: &'a Decoder<'a>,
    node: &'a Node,
    pub(super) place: Place,
}

impl<'a> Slot<'a> {
    /// Its settings by name; a mistake when it is no mapping.
    pub(super) fn section(self) -> Option<Section<'a>> {
        match &self.node.value {
            Value::Mapping(entries) => {
                Some(Section { decoder: self.decoder, place: self.place, entries, asked: Vec::new() })
            }
            Value::Null | Value::Scalar { .. } | Value::Sequence(_) => {
                self.mismatch("a mapping", "settings go below it as `name: value`");
                None
            }
        }
    }

    /// Its items; a mistake when it is no list or an empty one.
    pub(super) fn items(self) -> Vec<Self> {
        let items = self.items_or_none();
        if let Some([]) = items.as_deref() {
            self.decoder.problem(&self.place, "the list is empty", Some("write at least one"));
        }
        items.unwrap_or_default()
    }

    /// Its items, none being fine too.
    pub(super) fn any_items(self) -> Vec<Self> {
        self.items_or_none().unwrap_or_default()
    }

    /// Its items, or itself where one value stands for a list of one.
    pub(super) fn one_or_items(self) -> Vec<Self> {
        match &self.node.value {
            Value::Scalar { .. } => vec![self],
            Value::Null | Value::Sequence(_) | Value::Mapping(_) => self.items(),
        }
    }

    /// The word it is, when it is one, with no reference put in.
    pub(super) fn word(&self) -> Option<&'a str> {
        self.node.text()
    }

    /// Its value by `parse`, with references put in.
    pub(super) fn parse<T>(self, parse: impl FnOnce(&str) -> Result<T, Fault>) -> Option<T> {
        self.placed(parse).map(|placed| placed.value)
    }

    /// As [`Slot::parse`], for a value that is nobody's to see.
    pub(super) fn parse_secret<T>(mut self, parse: impl FnOnce(&str) -> Result<T, Fault>) -> Option<T> {
        self.place.hidden = true;
        self.parse(parse)
    }

    /// As [`Slot::parse`], with the place kept for later checks.
    pub(super) fn placed<T>(mut self, parse: impl FnOnce(&str) -> Result<T, Fault>) -> Option<Placed<T>> {
        let Some(written) = self.node.text() else {
            self.mismatch("a single value", "write one value here");
            return None;
        };
        let decoder = self.decoder;
        let expanded = match environment::expand(written, decoder.environment, decoder.directory) {
            Ok(expanded) => expanded,
            Err(faults) => {
                for fault in faults {
                    // The text as written holds no secret unless the whole setting is one.
                    decoder.fault(&self.place, written, fault);
                }
                return None;
            }
        };
        if expanded.referenced {
            self.place.hidden = true;
            decoder.found.borrow_mut().references.insert(self.place.path.clone(), written.to_owned());
        }
        match parse(&expanded.text) {
            Ok(value) => Some(Placed { value, place: self.place }),
            Err(fault) => {
                decoder.fault(&self.place, &expanded.text, fault);
                None
            }
        }
    }

    fn items_or_none(&self) -> Option<Vec<Self>> {
        let Value::Sequence(nodes) = &self.node.value else {
            self.mismatch("a list", "write `[a, b]`, or one `- …` a line");
            return None;
        };
        let item = |(index, node): (usize, &'a Node)| {
            let place = self.place.item(node.position.line, index);
            Slot { decoder: self.decoder, node, place }
        };
        Some(nodes.iter().enumerate().map(item).collect())
    }

    fn mismatch(&self, wanted: &str, hint: &str) {
        let what = format!("{} stands where {wanted} belongs", self.node.kind());
        self.decoder.problem(&self.place, what, Some(hint));
    }
}

/// A mapping whose settings are being asked for.
pub(super) struct Section<'a> {
    pub(super) decoder: &'a Decoder<'a>,
    pub(super) place: Place,
    entries: &'a [Entry],
    asked: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The setting, if it was written; written with nothing behind it is a mistake.
    pub(super) fn get(&mut self, name: &'static str) -> Option<Slot<'a>> {
        self.ask(name);
        let entry = self.entries.iter().find(|entry| entry.key == name)?;
        let place = self.place.child(entry.value.position.line, name);
        if entry.value.value == Value::Null {
            let place = Place { line: entry.position.line, ..place };
            self.decoder.problem(&place, "nothing is written behind it", Some("write a value or take the line out"));
            return None;
        }
        Some(Slot { decoder: self.decoder, node: &entry.value, place })
    }

    /// The setting, and a mistake when it is not there.
    pub(super) fn required(&mut self, name: &'static str, hint: &str) -> Option<Slot<'a>> {
        if !self.has(name) {
            self.ask(name);
            let what = format!("`{name}` is missing");
            self.decoder.problem(&self.place, what, Some(hint));
            return None;
        }
        self.get(name)
    }

    /// The setting by `parse`, or `default`.
    pub(super) fn or<T>(&mut self, name: &'static str, default: T, parse: impl FnOnce(&str) -> Result<T, Fault>) -> T {
        self.optional(name, parse).unwrap_or(default)
    }

    /// The setting by `parse`, if it was written.
    pub(super) fn optional<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        self.get(name)?.parse(parse)
    }

    /// A group of settings, if it was written.
    pub(super) fn section(&mut self, name: &'static str) -> Option<Self> {
        self.get(name)?.section()
    }

    /// Whether the setting was written.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == name)
    }

    /// Where a setting stands, or the section when it was not written.
    pub(super) fn place_of(&self, name: &str) -> Place {
        match self.entries.iter().find(|entry| entry.key == name) {
            Some(entry) => self.place.child(entry.position.line, name),
            None => self.place.clone(),
        }
    }

    /// All entries of a mapping whose keys are the operator's own names.
    pub(super) fn named(self) -> Vec<(Placed<&'a str>, Slot<'a>)> {
        let entry = |entry: &'a Entry| {
            let key = self.place.free_child(entry.position.line, &entry.key);
            let value = self.place.free_child(entry.value.position.line, &entry.key);
            let slot = Slot { decoder: self.decoder, node: &entry.value, place: value };
            (Placed { value: entry.key.as_str(), place: key }, slot)
        };
        self.entries.iter().map(entry).collect()
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        for entry in self.entries.iter().filter(|entry| !self.asked.contains(&entry.key.as_str())) {
            let place = self.place.child(entry.position.line, &clip(&entry.key));
            let hint = foreign::hint(&self.place.pattern, &entry.key, &self.asked);
            self.decoder.problem(&place, format!("unknown setting {}", place.quote(&entry.key)), Some(&hint));
        }
    }

    fn ask(&mut self, name: &'static str) {
        self.asked.push(name);
        let setting = self.place.child(0, name).pattern;
        self.decoder.found.borrow_mut().asked.insert(setting);
    }
}
