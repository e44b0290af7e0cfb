//! One structured line per finished request, built from types that cannot hold a secret.

use std::path::PathBuf;

/// Where access lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Nowhere.
    Off,
    /// Appended to a file.
    File(PathBuf),
}

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Lowest level of the gate's own log that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Errors alone.
    Error,
    /// And warnings.
    Warn,
    /// And what an operator wants to know; the default.
    Info,
    /// And details.
    Debug,
    /// Everything.
    Trace,
}

/// Logging as configured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Level of the gate's own log.
    pub level: Level,
    /// Format of both logs; `None` is JSON when standard output is no terminal.
    pub format: Option<Format>,
    /// Where access lines go.
    pub access: Target,
}
