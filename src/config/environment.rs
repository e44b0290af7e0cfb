//! What a configuration may read besides its own text: variables and files. Handed in, so that tests use a map.

use std::io::{self, Read};
use std::path::Path;

use super::problem::Fault;
use crate::keyring::source;

/// The variables and files a configuration refers to.
pub trait Environment {
    /// The variable's value; `None` when it is not set.
    fn variable(&self, name: &str) -> Option<Vec<u8>>;

    /// The whole file.
    ///
    /// # Errors
    ///
    /// Whatever the operating system says.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// Why a file could not be read, in plain words.
pub(super) fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        io::ErrorKind::InvalidInput => "it is not a regular file".to_owned(),
        kind => kind.to_string(),
    }
}

/// The process's own environment and file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Environment for System {
    fn variable(&self, name: &str) -> Option<Vec<u8>> {
        std::env::var_os(name).map(std::ffi::OsString::into_encoded_bytes)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        source::open(path)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// A scalar with its references put in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expanded {
    /// The text that counts.
    pub(super) text: String,
    /// Whether any of it came from outside the file: then nobody may be shown it.
    pub(super) referenced: bool,
}

/// Puts `${env:NAME}` and `${file:path}` into `text`; `$${` stands for a plain `${`.
///
/// One newline at the end of a file is dropped, as editors add it. Every reference that cannot be put in is reported.
pub(super) fn expand(text: &str, environment: &dyn Environment, directory: &Path) -> Result<Expanded, Vec<Fault>> {
    let mut out = Expanded { text: String::with_capacity(text.len()), referenced: false };
    let mut faults = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        if let Some(kept) = before.strip_suffix('$') {
            out.text.push_str(kept);
            out.text.push_str("${");
            rest = reference.get(2..).unwrap_or_default();
            continue;
        }
        out.text.push_str(before);
        let Some((inner, after)) = reference.get(2..).unwrap_or_default().split_once('}') else {
            faults.push(
                Fault::new("has a `${` without its `}`").hint("close it, or write `$${` where a plain `${` is meant"),
            );
            return Err(faults);
        };
        out.referenced = true;
        match resolve(inner, environment, directory) {
            Ok(value) => out.text.push_str(&value),
            Err(fault) => faults.push(fault),
        }
        rest = after;
    }
    out.text.push_str(rest);
    if faults.is_empty() { Ok(out) } else { Err(faults) }
}

fn resolve(inner: &str, environment: &dyn Environment, directory: &Path) -> Result<String, Fault> {
    match inner.split_once(':') {
        Some(("env", name)) => variable(name, environment),
        Some(("file", path)) => file(path, environment, directory),
        Some(_) | None => Err(Fault::new("refers to something unknown")
            .hint("references are `${env:NAME}` and `${file:path}`; write `$${` where a plain `${` is meant")),
    }
}

fn variable(name: &str, environment: &dyn Environment) -> Result<String, Fault> {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(legal) {
        return Err(Fault::new("refers to a variable by a name that no variable has")
            .hint("write `${env:NAME}` with letters, digits and `_`; there is no form with a default"));
    }
    let value = environment.variable(name).ok_or_else(|| {
        Fault::new(format!("refers to the variable {name}, which is not set"))
            .hint("set it in the environment of the gate (systemd: Environment= or EnvironmentFile=)")
    })?;
    String::from_utf8(value).map_err(|_error| Fault::new(format!("refers to the variable {name}, which is not UTF-8")))
}

fn file(path: &str, environment: &dyn Environment, directory: &Path) -> Result<String, Fault> {
    if path.is_empty() {
        return Err(Fault::new("refers to a file without naming it").hint("write `${file:path}`"));
    }
    let full = directory.join(path);
    let bytes = environment.read(&full).map_err(|e| {
        Fault::new(format!("refers to the file {path}, which cannot be read ({})", why(&e)))
            .hint(format!("looked for {}", full.display()))
    })?;
    let mut text = String::from_utf8(bytes)
        .map_err(|_error| Fault::new(format!("refers to the file {path}, which is not UTF-8")))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
