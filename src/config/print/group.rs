//! A YAML mapping being written: it knows its path, and puts back what was written with a reference.

use std::collections::BTreeMap;

use serde_yaml::{Mapping, Value};

use super::MASK;

/// A mapping being written, which knows its path.
pub(super) struct Group<'a> {
    path: String,
    references: &'a BTreeMap<String, String>,
    map: Mapping,
}

impl<'a> Group<'a> {
    /// The top of the file.
    pub(super) fn top(references: &'a BTreeMap<String, String>) -> Self {
        Self { path: String::new(), references, map: Mapping::new() }
    }

    /// A value that needs no escape.
    pub(super) fn put(&mut self, name: &str, value: impl Into<Value>) {
        let value = match self.references.get(&self.join(name)) {
            Some(written) => Value::from(written.as_str()),
            None => value.into(),
        };
        self.map.insert(Value::from(name), value);
    }

    /// A value in which a `${` has to be escaped.
    pub(super) fn text(&mut self, name: &str, value: impl ToString) {
        self.put(name, escape(&value.to_string()));
    }

    /// A list of such values.
    pub(super) fn texts<T: ToString>(&mut self, name: &str, values: impl IntoIterator<Item = T>) {
        let path = self.join(name);
        let item = |(index, value): (usize, T)| {
            let written = self.references.get(&format!("{path}[{index}]")).or_else(|| self.references.get(&path));
            Value::from(written.cloned().unwrap_or_else(|| escape(&value.to_string())))
        };
        let items = values.into_iter().enumerate().map(item).collect();
        self.map.insert(Value::from(name), Value::Sequence(items));
    }

    /// A mapping below it.
    pub(super) fn group(&mut self, name: &str, fill: impl FnOnce(&mut Group<'_>)) {
        let mut group = Group { path: self.join(name), references: self.references, map: Mapping::new() };
        fill(&mut group);
        self.map.insert(Value::from(name), Value::Mapping(group.map));
    }

    /// A list of mappings below it.
    pub(super) fn list<T>(&mut self, name: &str, items: impl Iterator<Item = T>, fill: impl Fn(Group<'_>, T) -> Value) {
        let path = self.join(name);
        let group =
            |index| Group { path: format!("{path}[{index}]"), references: self.references, map: Mapping::new() };
        let items = items.enumerate().map(|(index, item)| fill(group(index), item)).collect();
        self.map.insert(Value::from(name), Value::Sequence(items));
    }

    /// Whether the setting was written with a `${…}` in it.
    pub(super) fn is_reference(&self, name: &str) -> bool {
        self.references.contains_key(&self.join(name))
    }

    fn join(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// A mapping of values that nobody is to see.
    pub(super) fn masked<'n>(&mut self, name: &str, names: impl Iterator<Item = &'n str>) {
        let masked = names.map(|name| (Value::from(name), Value::from(MASK))).collect();
        self.map.insert(Value::from(name), Value::Mapping(masked));
    }

    /// The mapping as a value.
    pub(super) fn done(self) -> Value {
        Value::Mapping(self.map)
    }
}

/// Text in which no reference begins.
fn escape(text: &str) -> String {
    text.replace("${", "$${")
}
