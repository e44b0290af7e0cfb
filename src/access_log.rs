//! One structured line per finished request, built from types that cannot hold a secret.

mod escape;
mod line;
mod redact;
#[cfg(test)]
mod tests;
pub(crate) mod writer;

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use prometheus::IntCounter;
use rustix::fs::{Mode, OFlags};

pub use self::line::{Line, Outcome, Protocol};
pub use self::redact::{CredentialNames, RedactedTarget};
use self::writer::{Appender, Sink, Writer};

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

impl Settings {
    /// The format as set, or what suits a person at a terminal or a machine.
    pub fn format_for(&self, is_terminal: bool) -> Format {
        self.format.unwrap_or(if is_terminal { Format::Text } else { Format::Json })
    }
}

/// The access log of one gate.
#[derive(Debug)]
pub struct AccessLog {
    writer: Writer,
    mode: Arc<AtomicU8>,
}

/// One worker's access log. Lines of one worker are in order; between workers they may be some 20 ms apart.
#[derive(Debug)]
pub struct Handle {
    lines: Appender,
    mode: Arc<AtomicU8>,
}

const OFF: u8 = 0;
const JSON: u8 = 1;
const TEXT: u8 = 2;

impl AccessLog {
    /// Opens the target and starts the writing thread. `dropped` counts lines lost to a target that is too slow or fails.
    ///
    /// Fails when the file cannot be opened for appending.
    pub fn start(settings: &Settings, dropped: IntCounter) -> io::Result<Self> {
        let (sink, mode) = open(settings)?;
        Ok(Self { writer: Writer::start(sink, dropped)?, mode: Arc::new(AtomicU8::new(mode)) })
    }

    /// A handle for one worker, with a buffer of its own.
    pub fn handle(&self) -> Handle {
        Handle { lines: self.writer.appender(), mode: Arc::clone(&self.mode) }
    }

    /// Goes on under these settings (SIGHUP): a file is opened anew even at the same path, as log rotation needs. On an
    /// error nothing changes. Lines written before go to the old target.
    pub fn reopen(&self, settings: &Settings) -> io::Result<()> {
        let (sink, mode) = open(settings)?;
        self.writer.replace_sink(sink);
        self.mode.store(mode, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until all lines written before are with the target, `within` at most; says whether they are. Blocks: for
    /// shutdown, after the last request.
    pub fn flush(&self, within: Duration) -> bool {
        self.writer.flush(within)
    }
}

impl Handle {
    /// Writes one line, or drops and counts it when the target is too slow. Never waits for the target.
    pub fn write(&self, line: &Line<'_>) {
        let format = match self.mode.load(Ordering::Relaxed) {
            OFF => return,
            TEXT => Format::Text,
            _ => Format::Json,
        };
        self.lines.append(|out| line.push(format, out));
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    // A pipe that nobody reads is an error at once; waiting for its reader would hold up start and reload.
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR | Mode::RGRP)?;
    // The writing thread may wait for a slow one.
    rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(file.into())
}

fn open(settings: &Settings) -> io::Result<(Sink, u8)> {
    let (sink, is_terminal): (Sink, bool) = match &settings.access {
        Target::Off => return Ok((None, OFF)),
        Target::Stdout => {
            let stdout = io::stdout();
            // A copy of the descriptor: the standard library's own buffer would cut batches at a line.
            (Some(Box::new(File::from(stdout.as_fd().try_clone_to_owned()?))), stdout.is_terminal())
        }
        Target::File(path) => {
            // Names and addresses of people: not for every user of the machine.
            let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            (Some(Box::new(open_file(path).map_err(named)?)), false)
        }
    };
    Ok((sink, if settings.format_for(is_terminal) == Format::Json { JSON } else { TEXT }))
}
