//! The gate's life: what is started once it listens, SIGHUP, and a shutdown that drains before anything is cut (decisions 26,
//! 27, 33). Pingora asks a [`ShutdownSignalWatch`] when to stop and sleeps a whole grace after SIGTERM; ours answers only
//! when the draining is over.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep, timeout_at};

use super::{App, OnReady};
use crate::admin::{self, AdminState};
use crate::keyring::reload::Reloader;
use crate::listener::bind::WorkerSocket;
use crate::metrics::ReloadResult;
use crate::moment::Now;
use crate::upstream::resolve::{Resolve, SystemResolver};

/// How long the last log lines are waited for.
pub(super) const LAST_LINES: Duration = Duration::from_secs(2);
/// How long a reload waits for its files: one that hangs must not keep every later reload from being tried.
pub(super) const LOAD_WAIT: Duration = Duration::from_secs(30);
/// How long the last counts may take on their way to the state file.
pub(super) const LAST_COUNTS: Duration = Duration::from_secs(5);
/// How long a start or reload waits for names to be resolved.
pub(super) const RESOLVE_WAIT: Duration = Duration::from_secs(2);
/// How often the metrics about keys and readiness are brought up to date.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Most keys whose metrics are brought up to date every time.
const MOST_WALKED: usize = 10_000;
/// Of how many times one is taken for more keys than that.
const SELDOM: u64 = 60;
/// How far the two clocks may part between two looks before the wall clock counts as set.
const CLOCK_SLACK: Duration = Duration::from_millis(500);
/// How often a draining gate looks whether it is empty.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// How names are resolved.
pub(super) fn resolver() -> Arc<dyn Resolve> {
    Arc::new(SystemResolver)
}

/// Manages a running gate; the server asks it when to stop.
pub(super) struct Manager {
    app: Arc<App>,
    // Taken once: the trait hands out a shared reference only.
    first: Mutex<Option<(Reloader, OnReady)>>,
}

struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Manager {
    pub(super) fn new(app: Arc<App>, reloader: Reloader, on_ready: OnReady) -> Self {
        Self { app, first: Mutex::new(Some((reloader, on_ready))) }
    }

    async fn start(&self) {
        let Some((reloader, on_ready)) = self.first.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        let app = &self.app;
        let upstreams = app.live().upstreams.clone();
        upstreams.resolve(&resolver(), RESOLVE_WAIT).await;
        let mut generation = reloader.generation();
        // To the very end: a key that is revoked while the gate drains ends its connections too.
        let (_never, last) = watch::channel(false);
        keep("key reload", async move {
            let _never = _never;
            reloader.run(last).await;
        });
        let (epoch, telling) = (app.clone(), app.clone());
        keep("key metrics", async move {
            while generation.changed().await.is_ok() {
                epoch.epoch.send_modify(|epoch| *epoch += 1);
                let now = epoch.gate.clock.now();
                epoch.observer.describe_keys(&epoch.gate.keyring.load(), now.wall);
                let keyring = epoch.gate.keyring.load_full();
                epoch.gate.limiter.forget(|id| keyring.find_by_id(id).is_some(), now);
            }
        });
        keep("housekeeping", async move { telling.keep_house().await });
        let (admin, stores, open) = {
            let mut live = app.live();
            let report = app.observer.health_report(&live.upstreams);
            live.running = Some(live.upstreams.start(&resolver(), &report));
            (live.listeners.admin().cloned(), live.listeners.stores(), live.listeners.all())
        };
        app.observer.watch_certificates(stores, &upstreams);
        app.open.send_replace(Arc::new(open));
        let admin_address = admin.as_ref().map(|bound| bound.address().to_string());
        if let Some(bound) = admin {
            app.serve_admin(bound.socket(0), app.draining.subscribe());
        }
        let addresses: Vec<String> = app.open.borrow().iter().map(|open| open.bound.address().to_string()).collect();
        for address in &addresses {
            tracing::info!(%address, "listening");
        }
        if let Some(address) = &admin_address {
            tracing::info!(%address, "admin listening");
        }
        tracing::info!("ready");
        on_ready(addresses, admin_address);
    }
}

#[async_trait]
impl ShutdownSignalWatch for Manager {
    async fn recv(&self) -> ShutdownSignal {
        let mut signals = match Signals::new() {
            Ok(signals) => signals,
            Err(error) => {
                tracing::error!(%error, "cannot listen for signals");
                return ShutdownSignal::FastShutdown;
            }
        };
        self.start().await;
        loop {
            tokio::select! {
                _ = signals.hangup.recv() => {}
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
            }
            // A reload can hang on a file or a name; it is whole or not at all, so it may be left at any point it waits at.
            tokio::select! {
                () = self.app.reload_and_tell() => {}
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
            }
        }
        self.app.drain(&mut signals).await;
        ShutdownSignal::FastShutdown
    }
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }
}

/// Runs a task that should go on as long as the gate; one that dies of a panic must not do so in silence.
fn keep(task: &'static str, work: impl Future<Output = ()> + Send + 'static) {
    let running = tokio::spawn(work);
    tokio::spawn(async move {
        if running.await.is_err_and(|error| error.is_panic()) {
            tracing::error!(task, "a task of the gate died; restart the gate");
        }
    });
}

impl App {
    fn serve_admin(&self, socket: std::io::Result<WorkerSocket>, draining: watch::Receiver<bool>) {
        // The page stays up while the gate drains: `/readyz` must be able to say so.
        drop(draining);
        let (_never, shutdown) = watch::channel(false);
        let state =
            Arc::new(AdminState { metrics: self.gate.metrics.clone(), readiness: self.observer.readiness().clone() });
        let listener = socket.and_then(|socket| match socket {
            WorkerSocket::Tcp(socket) => TcpListener::from_std(socket).map(admin::Listener::from),
            WorkerSocket::Unix(socket) => UnixListener::from_std(socket).map(admin::Listener::from),
        });
        match listener {
            Ok(listener) => {
                keep("admin", async move {
                    let _never = _never;
                    admin::serve(listener, state, shutdown).await;
                });
            }
            Err(error) => tracing::error!(%error, "the admin listener failed"),
        }
    }

    /// Keeps what is not counted as it happens up to date: keys that expire, first health rounds, a clock that was set.
    async fn keep_house(&self) {
        let mut tick = interval(HOUSEKEEPING);
        let mut last = self.gate.clock.now();
        for round in 0u64.. {
            tick.tick().await;
            let now = self.gate.clock.now();
            let keyring = self.gate.keyring.load_full();
            // Walking a million keys takes its time; their metrics may be a minute old.
            if keyring.len() <= MOST_WALKED || round.is_multiple_of(SELDOM) {
                self.observer.describe_keys(&keyring, now.wall);
            }
            if was_set(last, now) {
                // Timers run by the other clock: what expired by this one must be asked for again.
                self.epoch.send_modify(|epoch| *epoch += 1);
            }
            last = now;
            if self.live().upstreams.is_ready() {
                self.observer.readiness().set_health_known();
            }
        }
    }

    async fn reload_and_tell(self: &Arc<Self>) {
        match self.reload().await {
            Ok(()) => {
                tracing::info!("configuration reloaded");
                self.gate.metrics.config_reload(ReloadResult::Success);
            }
            Err(problems) => {
                for problem in problems {
                    tracing::error!(%problem, "configuration refused, the old one stays");
                }
                self.gate.metrics.config_reload(ReloadResult::Failure);
            }
        }
    }

    /// Stops accepting, says goodbye, and waits until nothing is open, the grace is over, or a second signal comes.
    async fn drain(&self, signals: &mut Signals) {
        let grace = self.live().config.shutdown_grace;
        let deadline = Instant::now() + grace;
        tracing::info!(?grace, open = self.gate.connections.open(), "draining");
        self.observer.readiness().set_draining();
        // Closed before the workers hear of it, so that they serve what the system has accepted for them already.
        self.live().listeners.close();
        self.open.send_replace(Arc::default());
        self.draining.send_replace(true);
        let empty = async {
            while self.gate.connections.open() > 0 {
                sleep(DRAIN_LOOK).await;
            }
        };
        tokio::select! {
            drained = timeout_at(deadline, empty) => {
                let cut = self.gate.connections.open();
                tracing::info!(cut, "{}", if drained.is_ok() { "drained" } else { "grace is over" });
            }
            _ = signals.terminate.recv() => tracing::warn!("second signal, stopping at once"),
            _ = signals.interrupt.recv() => tracing::warn!("second signal, stopping at once"),
        }
    }
}

/// Whether the wall clock was set forward between two readings: keys may have expired that no timer tells of.
fn was_set(before: Now, after: Now) -> bool {
    let wall = Duration::try_from(after.wall.duration_since(before.wall)).unwrap_or_default();
    wall > after.mono.saturating_duration_since(before.mono) + CLOCK_SLACK
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    #[test]
    fn a_wall_clock_set_forward_is_noticed() {
        let before = Now { wall: jiff::Timestamp::UNIX_EPOCH, mono: std::time::Instant::now() };
        for (wall, mono, want) in [(1000, 1000, false), (1400, 1000, false), (1600, 1000, true), (-5000, 1000, false)] {
            let after = Now {
                wall: before.wall + SignedDuration::from_millis(wall),
                mono: before.mono + Duration::from_millis(mono),
            };
            assert_eq!(was_set(before, after), want, "{wall} ms by the wall, {mono} ms by the other");
        }
    }
}
