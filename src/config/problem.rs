//! One thing that is wrong in a configuration: where, what, and what was probably meant.

use std::fmt;
use std::path::PathBuf;

/// A mistake or a warning, ready to be shown as `file:line: path: what; hint`.
///
/// Never holds a value that came out of `${env:…}` or `${file:…}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file as the operator named it.
    pub file: PathBuf,
    /// Line, from 1; `None` where the file as a whole is meant.
    pub line: Option<usize>,
    /// The setting, as in `routes[2].limits.per`; empty where the file as a whole is meant.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What was probably meant, or what to do.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        f.write_str(" ")?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.what)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Why one value is not what its setting takes.
///
/// `what` follows the value in a sentence (`` `10` has no unit ``) and never quotes it, so that the decoder can leave a
/// secret value out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    what: String,
    hint: Option<String>,
    hint_quotes: bool,
}

impl Fault {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None, hint_quotes: false }
    }

    /// Advice that holds for any wrong value.
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), hint_quotes: false, ..self }
    }

    /// Advice made from the value itself: left out where the value may be a secret.
    pub(super) fn suggest(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), hint_quotes: true, ..self }
    }

    /// The sentence and the advice, about a value that is called `subject`.
    pub(super) fn about(self, subject: &str, hidden: bool) -> (String, Option<String>) {
        let hint = if hidden && self.hint_quotes { None } else { self.hint };
        (format!("{subject} {}", self.what), hint)
    }
}
