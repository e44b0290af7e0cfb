//! The gate's own log: levels, formats, foreign crates, and the last lines at the end.

use std::io::Write;
use std::sync::{Mutex, mpsc};

use serde_json::Value;
use tracing_log::log;

use super::*;
use crate::access_log::Target;

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Log {
    kept: Kept,
    writer: Writer,
    switch: Switch,
    _installed: tracing::subscriber::DefaultGuard,
}

fn settings(level: Level, format: Option<Format>) -> Settings {
    Settings { level, format, access: Target::Off }
}

impl Log {
    /// A log of this thread alone.
    fn start(level: Level, format: Format) -> Self {
        let kept = Kept::default();
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let writer = Writer::start(Some(Box::new(kept.clone())), dropped).unwrap();
        let (subscriber, switch) = build(&settings(level, Some(format)), false, writer.appender());
        let _installed = tracing::subscriber::set_default(subscriber);
        Self { kept, writer, switch, _installed }
    }

    /// What was logged since the last call.
    fn take(&self) -> String {
        assert!(self.writer.flush(Duration::from_secs(10)));
        String::from_utf8(std::mem::take(&mut *self.kept.0.lock().unwrap())).unwrap()
    }

    fn check(&self, level: &str, want: bool) {
        let text = self.take();
        assert_eq!(text.contains("the event"), want, "{level}: {text:?}");
    }
}

#[test]
fn events_are_json_lines_with_their_fields() {
    let log = Log::start(Level::Info, Format::Json);
    tracing::warn!(route = "api", error = "a \"quoted\"\nline", "key file refused");
    let text = log.take();
    assert_eq!(text.lines().count(), 1);
    let event: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(event["message"], "key file refused");
    assert_eq!(event["level"], "WARN");
    assert_eq!(event["route"], "api");
    assert_eq!(event["error"], "a \"quoted\"\nline");
    assert!(event["timestamp"].as_str().unwrap().ends_with('Z'));
    assert!(event["target"].as_str().unwrap().starts_with("keygate::own_log"));
}

#[test]
fn text_has_no_colours_when_nobody_looks() {
    let log = Log::start(Level::Info, Format::Text);
    tracing::info!("the \x1b[31mevent");
    let text = log.take();
    assert!(text.contains("INFO") && text.ends_with('\n') && !text.contains('\x1b'), "{text:?}");
}

#[test]
fn other_crates_never_log_below_info() {
    let log = Log::start(Level::Trace, Format::Json);
    macro_rules! each {
        ($($target:literal),*) => { $(
            tracing::info!(target: $target, "the event");
            log.check($target, true);
            tracing::debug!(target: $target, "the event");
            tracing::trace!(target: $target, "the event");
            log.check($target, false);
        )* };
    }
    each!("pingora", "pingora_core::services::listening", "h2::codec", "rustls::client", "tokio_tungstenite", "x");
    tracing::trace!("the event");
    log.check("ours", true);
}

#[test]
fn the_level_holds_for_all() {
    let log = Log::start(Level::Warn, Format::Json);
    tracing::info!("the event");
    tracing::info!(target: "pingora", "the event");
    log.check("info under warn", false);
    tracing::warn!(target: "pingora", "the event");
    log.check("warn under warn", true);
}

#[test]
fn level_and_format_change_while_in_use() {
    let log = Log::start(Level::Error, Format::Json);
    tracing::debug!("the event");
    log.check("before", false);
    log.switch.apply(&settings(Level::Debug, Some(Format::Text)), false).unwrap();
    tracing::debug!("the event");
    let text = log.take();
    assert!(text.contains("DEBUG") && text.contains("the event") && !text.starts_with('{'), "{text}");
    log.switch.apply(&settings(Level::Warn, None), false).unwrap();
    tracing::info!("the event");
    log.check("after", false);
    tracing::warn!("the event");
    assert!(log.take().starts_with('{'));
}

/// The only test that uses the `log` crate's global logger, whose events go to this thread's subscriber.
#[test]
fn records_of_the_log_crate_come_over_the_bridge() {
    bridge(Level::Trace).unwrap();
    let log = Log::start(Level::Trace, Format::Json);
    log::info!(target: "pingora_core::server", "the event");
    let event: Value = serde_json::from_str(&log.take()).unwrap();
    assert_eq!(event["message"], "the event");
    assert_eq!((&event["target"], &event["source"]), (&"library".into(), &"pingora_core::server".into()));
    assert!(
        !event.as_object().unwrap().keys().any(|key| key.starts_with("log.")),
        "a path of the build machine: {event}"
    );
    log::debug!(target: "pingora_core::server", "the event");
    log.check("debug over the bridge", false);
}

/// Run by the next test in a process of its own, since a log is installed for a whole process.
#[test]
#[ignore = "needs a process of its own"]
fn installed() {
    let dropped = IntCounter::new("dropped", "dropped").unwrap();
    let log = install(&settings(Level::Info, None), dropped.clone()).unwrap();
    tracing::info!("from tracing");
    log::warn!(target: "pingora_core", "from log");
    log::info!(target: "pingora_core", "not wanted, for that takes our debug");
    log::debug!(target: "pingora_core", "not wanted");
    assert!(matches!(install(&settings(Level::Info, None), dropped), Err(Error::AlreadyInstalled)));
    log.apply(&settings(Level::Error, Some(Format::Text))).unwrap();
    tracing::warn!("not wanted");
    log::warn!("not wanted");
    log::error!("the last line");
}

#[test]
fn an_installed_log_writes_to_standard_error_and_loses_nothing_at_the_end() {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["own_log::tests::installed", "--exact", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8(child.stderr).unwrap();
    assert!(child.status.success(), "{text}");
    let lines: Vec<_> = text.lines().collect();
    let [first, second, last] = lines[..] else { panic!("{lines:?}") };
    assert_eq!(serde_json::from_str::<Value>(first).unwrap()["message"], "from tracing");
    assert_eq!(serde_json::from_str::<Value>(second).unwrap()["message"], "from log");
    assert!(last.contains("ERROR") && last.contains("the last line"), "{last}");
}

#[test]
fn the_end_waits_for_the_last_lines() {
    /// Says that a write has begun, and ends it when told to.
    struct Slow(mpsc::Sender<()>, mpsc::Receiver<()>);
    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(()).unwrap();
            self.1.recv().unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let ((begin, begun), (go, gone)) = (mpsc::channel(), mpsc::channel());
    let dropped = IntCounter::new("dropped", "dropped").unwrap();
    let writer = Writer::start(Some(Box::new(Slow(begin, gone))), dropped).unwrap();
    let lines = writer.appender();
    let (_subscriber, switch) = build(&settings(Level::Info, None), false, writer.appender());
    let log = OwnLog { writer, switch, is_terminal: false };
    lines.append(|out| out.extend_from_slice(b"the last line\n"));
    let (end, ended) = mpsc::channel();
    let ending = std::thread::spawn(move || {
        drop(log);
        end.send(()).unwrap();
    });
    begun.recv().unwrap();
    ended.recv_timeout(LAST_LINES / 10).expect_err("the end did not wait");
    go.send(()).unwrap();
    ended.recv_timeout(Duration::from_secs(10)).unwrap();
    ending.join().unwrap();
}

#[test]
fn a_panic_shows_only_text_of_the_source() {
    assert_eq!(shown(&"a fixed text"), "a fixed text");
    assert_eq!(shown(&format!("key {}", "kg_secret")), "(text withheld)");
}
