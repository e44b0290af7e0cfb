//! The composition root: configuration in, wired Pingora server out; the only place where the parts meet. Everything that can
//! fail fails before the server runs, so that it is an exit status and not a panic in a task (decision 31).

mod assemble;
mod listeners;
mod observe;
mod run;
mod session_secret;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use tokio::sync::watch;

use crate::access_log::AccessLog;
use crate::config::Environment;
use crate::config::{self, Config, Problem};
use crate::engine::Gate;
use crate::engine::accept::{OpenListener, WorkerService};
use crate::engine::clock::Clock;
use crate::keyring::file;
use crate::keyring::reload::{self, Reloader};
use crate::limit::limiter::Limiter;
use crate::limit::throttle::Throttle;
use crate::listener::files;
use crate::metrics::Metrics;
use crate::own_log::{self, OwnLog};
use crate::state::writer::{self, Writer};
use crate::state::{self, StateError};
use crate::upstream::registry::{Running, Upstreams};

use self::listeners::Listeners;
use self::observe::Observer;

/// What is to be run.
pub struct Options {
    /// The configuration, loaded and checked.
    pub config: Config,
    /// Its file, read again at SIGHUP; `None` where there is none (`keygate demo`).
    pub config_path: Option<PathBuf>,
    /// Where its references lead.
    pub environment: Box<dyn Environment + Send + Sync>,
    /// Called once everything listens, with the addresses in the order of the configuration and the admin's.
    pub on_ready: Box<dyn FnOnce(Vec<String>, Option<String>) + Send>,
}

/// Why the gate did not start.
#[derive(Debug)]
pub struct StartError {
    /// Lines for the operator.
    pub problems: Vec<String>,
    /// Whether files the operator wrote are wrong; otherwise the system refused something.
    pub is_configuration: bool,
}

impl StartError {
    fn configuration(problems: Vec<String>) -> Self {
        Self { problems, is_configuration: true }
    }

    fn system(error: impl std::fmt::Display) -> Self {
        Self { problems: vec![error.to_string()], is_configuration: false }
    }
}

/// What is wrong in the key file at `path`, told as every other problem is.
pub(crate) fn key_file_problem(path: &Path, problem: &file::Problem) -> Problem {
    let file::Problem { line, what, hint } = problem.clone();
    Problem { file: path.to_owned(), line, path: String::new(), what, hint }
}

/// What stands against the place of the state: somebody's file, which the gate must not start on (`Err`), or what it will
/// say of it and serve all the same.
pub(crate) fn state_file_problem(path: &Path) -> Result<Option<Problem>, Problem> {
    let problem = |error: &StateError, hint: &str| {
        let what = format!("cannot be the state file: {error}");
        Problem { file: path.to_owned(), line: None, path: String::new(), what, hint: Some(hint.to_owned()) }
    };
    match state::inspect(path) {
        Ok(()) => Ok(None),
        Err(error @ StateError::Foreign(_)) => {
            Err(problem(&error, "`state.path` names a file of its own, such as state.db"))
        }
        Err(error) => Ok(Some(problem(&error, "the gate serves, and counts in memory until it can write"))),
    }
}

/// A running gate, for the tasks that manage it.
struct App {
    gate: Arc<Gate>,
    config_path: Option<PathBuf>,
    environment: Box<dyn Environment + Send + Sync>,
    own_log: OwnLog,
    observer: Arc<Observer>,
    epoch: watch::Sender<u64>,
    draining: watch::Sender<bool>,
    open: watch::Sender<Arc<Vec<OpenListener>>>,
    workers: usize,
    live: Mutex<Live>,
}

/// What a reload replaces.
struct Live {
    config: Config,
    upstreams: Arc<Upstreams>,
    running: Option<Running>,
    listeners: Listeners,
}

/// Most addresses remembered for the limits of public routes; about 100 bytes each.
const MOST_STRANGERS: usize = 65_536;

/// Runs a gate until it is told to stop. Blocks.
///
/// # Errors
///
/// Everything that stands against starting: the key file, certificates, addresses that are taken.
pub fn run(options: Options) -> Result<(), StartError> {
    let metrics = Arc::new(Metrics::new().map_err(StartError::system)?);
    let own_log = own_log::install(&options.config.log, metrics.access_log_dropped()).map_err(StartError::system)?;
    let app = build(options, metrics, own_log)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting");
    match files::raise_limit() {
        Ok(limit) => tracing::info!(limit, "open files"),
        Err(error) => tracing::warn!(%error, "the limit on open files stays as it is"),
    }
    let conf = ServerConf { threads: 1, work_stealing: false, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    for index in 0..app.0.workers {
        server.add_service(WorkerService::new(index, app.0.gate.clone(), app.0.open.subscribe()));
    }
    let stopping = app.0.clone();
    let state = stopping.keep_state().map_err(StartError::system)?;
    server.run(RunArgs { shutdown_signal: Box::new(run::Manager::new(app.0, app.1, app.2)) });
    if let Some(state) = state {
        state.finish(run::LAST_COUNTS);
    }
    stopping.gate.access_log.flush(run::LAST_LINES);
    stopping.own_log.flush(run::LAST_LINES);
    Ok(())
}

type OnReady = Box<dyn FnOnce(Vec<String>, Option<String>) + Send>;

fn build(
    options: Options,
    metrics: Arc<Metrics>,
    own_log: OwnLog,
) -> Result<(Arc<App>, Reloader, OnReady), StartError> {
    let Options { config, config_path, environment, on_ready } = options;
    let began = Clock.now();
    let loaded = reload::load(&config.key_file).map_err(|problems| {
        let line = |problem| key_file_problem(&config.key_file, problem).to_string();
        StartError::configuration(problems.iter().map(line).collect())
    })?;
    let state = config.state_path.as_deref().map_or(Ok(None), state_file_problem);
    // What the gate can serve with is logged when it meets it.
    state.map_err(|problem| StartError::configuration(vec![problem.to_string()]))?;
    let observer = Arc::new(Observer::new(metrics.clone()));
    observer.keys_loaded(&loaded, began.wall, Clock.mono().saturating_duration_since(began.mono));
    let told = observer.clone();
    let reloader = Reloader::new(config.key_file.clone(), loaded, move |outcome| told.keys_reloaded(&outcome));
    let upstreams = Upstreams::build(config.upstreams.clone())
        .map(Arc::new)
        .map_err(|problems| StartError::configuration(problems.iter().map(ToString::to_string).collect()))?;
    let policy = assemble::policy(&config, &upstreams, &metrics).map_err(StartError::configuration)?;
    let workers = config.threads.map_or_else(cores, std::num::NonZeroUsize::get);
    let mut listeners = Listeners::default();
    let refused = |problems: Vec<String>| StartError { problems, is_configuration: false };
    let prepared = listeners.prepare(&config.listeners, workers).map_err(refused)?;
    listeners.replace(prepared);
    listeners.open_admin(config.admin.as_ref()).map_err(refused)?;
    let access_log = AccessLog::start(&config.log, metrics.access_log_dropped())
        .map_err(|error| StartError::system(format!("log.access: {error}")))?;
    let (epoch, epoch_seen) = watch::channel(0);
    let (draining, draining_seen) = watch::channel(false);
    let limiter = Limiter::new(MOST_STRANGERS);
    let limiter = if config.state_path.is_some() { limiter.recorded() } else { limiter };
    let gate = Arc::new(Gate {
        policy: ArcSwap::from_pointee(policy),
        keyring: reloader.keyring(),
        epoch: epoch_seen,
        draining: draining_seen,
        limiter: Arc::new(limiter),
        throttle: ArcSwapOption::from_pointee(config.failed_auth.map(Throttle::new)),
        session: ArcSwapOption::from_pointee(session_secret::load(&config).map_err(StartError::system)?),
        connections: Arc::default(),
        metrics,
        access_log,
        clock: Clock,
    });
    // Nothing is accepted before the names of upstreams are resolved: the workers hear of the listeners in `Manager`.
    let (open, _) = watch::channel(Arc::default());
    let live = Mutex::new(Live { config, upstreams, running: None, listeners });
    let app = App { gate, config_path, environment, own_log, observer, epoch, draining, open, workers, live };
    Ok((Arc::new(app), reloader, on_ready))
}

impl App {
    /// A panic while the lock was held leaves the last whole configuration in force.
    fn live(&self) -> std::sync::MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Restores what the state file holds, before anything is served, and keeps it from now on.
    fn keep_state(&self) -> std::io::Result<Option<writer::Running>> {
        let Some(path) = self.live().config.state_path.clone() else { return Ok(None) };
        let mut writer = Writer::new(path, self.gate.limiter.clone(), self.gate.metrics.clone());
        writer.round(self.gate.clock.now().wall);
        let clock = self.gate.clock;
        writer.start(move || clock.now().wall).map(Some)
    }

    /// Reads the configuration again and puts it in force, all or nothing; says what stands against it otherwise.
    async fn reload(self: &Arc<Self>) -> Result<(), Vec<String>> {
        let path = self.config_path.clone().ok_or_else(|| vec!["there is no configuration file".to_owned()])?;
        let app = self.clone();
        // Files can hang, and this thread has signals, health and probes to look after.
        let loading = tokio::task::spawn_blocking(move || config::load(&path, &*app.environment));
        let in_time = tokio::time::timeout(run::LOAD_WAIT, loading).await;
        let loaded = in_time.map_err(|_late| vec!["reading the configuration takes too long".to_owned()])?;
        let loaded = loaded.map_err(|error| vec![format!("reading the configuration failed: {error}")])?;
        let loaded = loaded.map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let new = loaded.config;
        let (upstreams, policy) = {
            let live = self.live();
            let mut fixed = live.config.needs_restart(&new);
            fixed.extend((live.config.key_file != new.key_file).then_some("keys.file"));
            if !fixed.is_empty() {
                return Err(fixed.iter().map(|name| format!("{name} changed: that takes a restart")).collect());
            }
            let upstreams = live.upstreams.rebuild(new.upstreams.clone());
            let upstreams =
                upstreams.map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
            let upstreams = Arc::new(upstreams);
            let policy = assemble::policy(&new, &upstreams, &self.gate.metrics)?;
            (upstreams, policy)
        };
        upstreams.resolve(&run::resolver(), run::RESOLVE_WAIT).await;
        let mut live = self.live();
        let prepared = live.listeners.prepare(&new.listeners, self.workers)?;
        let session = match self.gate.session.load_full() {
            Some(kept) => Some(kept),
            None => session_secret::load(&new).map_err(|error| vec![format!("state.path: {error}")])?.map(Arc::new),
        };
        self.gate.access_log.reopen(&new.log).map_err(|error| vec![format!("log.access: {error}")])?;
        // Nothing below this line can fail.
        if let Err(error) = self.own_log.apply(&new.log) {
            tracing::warn!(%error, "the log keeps its level");
        }
        for warning in &loaded.warnings {
            tracing::warn!(%warning, "configuration");
        }
        self.gate.session.store(session);
        let opened = live.listeners.replace(prepared);
        self.gate.policy.store(Arc::new(policy));
        let throttle = match (self.gate.throttle.load().as_deref(), new.failed_auth) {
            (Some(old), Some(settings)) => Some(old.renewed(settings)),
            (None, settings) => settings.map(Throttle::new),
            (Some(_), None) => None,
        };
        self.gate.throttle.store(throttle.map(Arc::new));
        self.observer.forget_servers(&live.upstreams, &upstreams);
        // The old tasks end before the new begin, so that no late result of theirs is told.
        live.running = None;
        live.running = Some(upstreams.start(&run::resolver(), &self.observer.health_report(&upstreams)));
        self.observer.watch_certificates(live.listeners.stores(), &upstreams);
        live.upstreams = upstreams;
        live.config = new;
        self.open.send_replace(Arc::new(opened));
        self.epoch.send_modify(|epoch| *epoch += 1);
        Ok(())
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

#[cfg(test)]
mod tests;
