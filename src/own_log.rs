//! The gate's own log: `tracing` events and, over a bridge, the `log` records of Pingora and others, as JSON or text on
//! standard error. Other crates never log below info: some write headers and key material at debug level.

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_log::{AsLog as _, log};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::{Registry, reload};

use crate::access_log::writer::{Appender, Writer};
use crate::access_log::{Format, Level, Settings};

/// How long the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Our crate's name, under which alone debug and trace are to be had.
const OURS: &str = "keygate";

/// The installed log. Writes what is left when dropped, so it is to be kept to the end of `main`.
pub struct OwnLog {
    writer: Writer,
    switch: Switch,
    is_terminal: bool,
}

/// Why the log cannot be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Standard error is closed, or no thread can be started.
    #[error("the log cannot be written: {0}")]
    Writer(#[from] io::Error),
    /// Another subscriber or logger was installed before.
    #[error("a log is installed already")]
    AlreadyInstalled,
    /// The subscriber is gone.
    #[error("the log cannot be changed any more")]
    Gone,
}

/// Installs the log of this process, for `tracing` and `log` alike. `dropped` counts lines lost to a standard error that
/// is too slow or fails.
pub fn install(settings: &Settings, dropped: IntCounter) -> Result<OwnLog, Error> {
    let stderr = io::stderr();
    let copy = std::fs::File::from(stderr.as_fd().try_clone_to_owned()?);
    let writer = Writer::start(Some(Box::new(copy)), dropped)?;
    let is_terminal = stderr.is_terminal();
    let (subscriber, switch) = build(settings, is_terminal, writer.appender());
    tracing::subscriber::set_global_default(subscriber).map_err(|_given_back| Error::AlreadyInstalled)?;
    bridge(settings.level).map_err(|_not_set| Error::AlreadyInstalled)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(OwnLog { writer, switch, is_terminal })
}

/// Logs where a panic began. Its text is shown only where it stands in the source: one that was put together at run time may
/// hold what a client sent (design rule 4).
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(place, what = shown(panic.payload()), "a task panicked");
}

fn shown(payload: &dyn std::any::Any) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("(text withheld)")
}

impl OwnLog {
    /// Goes on with the level and format of these settings (SIGHUP).
    pub fn apply(&self, settings: &Settings) -> Result<(), Error> {
        self.switch.apply(settings, self.is_terminal)?;
        log::set_max_level(cap(settings.level).as_log());
        Ok(())
    }

    /// Waits until all lines logged before are written, `within` at most; says whether they are. Blocks.
    pub fn flush(&self, within: Duration) -> bool {
        self.writer.flush(within)
    }
}

impl Drop for OwnLog {
    fn drop(&mut self) {
        self.flush(LAST_LINES);
    }
}

type Output = Box<dyn Layer<Registry> + Send + Sync>;

/// What can be changed while the log is in use.
struct Switch {
    filter: reload::Handle<Targets, tracing_subscriber::layer::Layered<reload::Layer<Output, Registry>, Registry>>,
    output: reload::Handle<Output, Registry>,
    lines: Lines,
}

impl Switch {
    fn apply(&self, settings: &Settings, is_terminal: bool) -> Result<(), Error> {
        let output = output(settings.format_for(is_terminal), is_terminal, self.lines.clone());
        self.output.reload(output).map_err(|_gone| Error::Gone)?;
        self.filter.reload(filter(settings.level)).map_err(|_gone| Error::Gone)
    }
}

fn build(settings: &Settings, is_terminal: bool, lines: Appender) -> (impl Subscriber + Send + Sync + use<>, Switch) {
    let lines = Lines(Arc::new(lines));
    let (output, output_handle) =
        reload::Layer::new(output(settings.format_for(is_terminal), is_terminal, lines.clone()));
    let (filter, filter_handle) = reload::Layer::new(filter(settings.level));
    let subscriber = tracing_subscriber::registry().with(output).with(filter);
    (subscriber, Switch { filter: filter_handle, output: output_handle, lines })
}

/// Hands `log` records to `tracing`; their crates' level check is a global of the `log` crate.
fn bridge(level: Level) -> Result<(), log::SetLoggerError> {
    log::set_max_level(cap(level).as_log());
    log::set_boxed_logger(Box::new(Bridge))
}

/// Takes the text and the crate of a record, and leaves behind the file it was written in: that is a path of the machine
/// that built the gate, which `tracing-log`'s own bridge would write into every line.
struct Bridge;

impl log::Log for Bridge {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let (source, text) = (record.target(), record.args());
        match record.level() {
            log::Level::Error => tracing::error!(target: "library", source, "{text}"),
            log::Level::Warn => tracing::warn!(target: "library", source, "{text}"),
            // Nothing below info comes here: see `cap`.
            log::Level::Info | log::Level::Debug | log::Level::Trace => {
                tracing::info!(target: "library", source, "{text}");
            }
        }
    }

    fn flush(&self) {}
}

fn output(format: Format, is_terminal: bool, lines: Lines) -> Output {
    let layer = tracing_subscriber::fmt::layer().with_writer(lines);
    // Colours are for terminals; that NO_COLOR switches them off there too is the library's own doing.
    let layer = if is_terminal { layer } else { layer.with_ansi(false) };
    match format {
        Format::Json => layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        Format::Text => layer.boxed(),
    }
}

fn filter(level: Level) -> Targets {
    Targets::new().with_default(cap(level)).with_target(OURS, tracing_level(level))
}

/// The level of other crates: one less than ours, since what they start and stop tells an operator nothing, and so never
/// below info (`security.md` A3, row 28).
const fn cap(level: Level) -> LevelFilter {
    match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn | Level::Info => LevelFilter::WARN,
        Level::Debug | Level::Trace => LevelFilter::INFO,
    }
}

const fn tracing_level(level: Level) -> LevelFilter {
    match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}

/// The way of formatted events to the writing thread.
#[derive(Clone)]
struct Lines(Arc<Appender>);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl io::Write for &Lines {
    /// The formatter gives each event as one piece that ends with a line feed.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.append(|out| out.extend_from_slice(event));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
