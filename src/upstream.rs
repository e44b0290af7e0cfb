//! Upstreams: their servers, how one is chosen, and connections to them, new or from the pool. The connector is ours
//! rather than Pingora's `TransportConnector` (decision 34): that one rebuilds the TLS client for each connect when a CA or
//! client certificate is set, leaves the CA out of what decides whether a connection may be reused, stops verifying when the
//! server name is empty, panics on host names and keeps 64 KiB of buffers per stream. Why the pool is ours: `pool`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};

pub mod balance;
pub mod client_tls;
pub mod connect;
mod era;
pub mod files;
pub mod health;
pub mod pool;
pub mod registry;
pub mod resolve;
pub mod server;
pub mod sessions;
pub mod stream;

use client_tls::ClientTls;
use connect::ConnectError;
use era::Era;
use server::{Lease, Server};

/// One upstream as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its name in routes, metrics and log.
    pub name: Arc<str>,
    /// At least one server.
    pub servers: Vec<ServerAddress>,
    /// How a server is chosen.
    pub balance: Balance,
    /// What is sent as `Host`.
    pub host: HostPolicy,
    /// TLS towards the servers.
    pub tls: Option<TlsSettings>,
    /// HTTP/2 towards the servers.
    pub http2: bool,
    /// Time to connect, TLS included.
    pub connect_timeout: Duration,
    /// From the last request byte to the first of the answer.
    pub response_timeout: Duration,
    /// Between bytes of a body.
    pub idle_timeout: Duration,
    /// For one write to make progress.
    pub write_timeout: Duration,
    /// Of a tunnel, with no byte in either direction.
    pub websocket_idle_timeout: Duration,
    /// How long an unused connection is kept for the next request.
    pub keepalive_timeout: Duration,
    /// Active health check.
    pub health_check: Option<HealthCheck>,
}

/// One server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// Host name or address, and port.
    Tcp {
        /// Name or address, IPv6 without brackets.
        host: Box<str>,
        /// Port.
        port: u16,
    },
    /// A unix socket.
    Unix(PathBuf),
}

/// How a server is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The one with the fewest requests in flight.
    LeastConnections,
    /// Any.
    Random,
}

/// What the upstream sees as `Host`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostPolicy {
    /// The client's.
    #[default]
    Keep,
    /// The server's own address as configured.
    Upstream,
    /// This.
    Literal(Box<str>),
}

/// TLS towards an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// Name verified in the certificate and sent as SNI; never empty.
    pub server_name: Box<str>,
    /// Roots to trust; the system's without.
    pub ca: Option<PathBuf>,
    /// Client certificate and key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// An active health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Path asked with GET; any 2xx is healthy.
    pub path: Box<str>,
    /// Time between checks.
    pub interval: Duration,
    /// Failures in a row before a server is left out.
    pub unhealthy_after: u32,
    /// Successes in a row before it is used again.
    pub healthy_after: u32,
}

/// One upstream as it runs, shared by all workers. A reload builds a new one; an old one lives until its last request ends.
#[derive(Debug)]
pub struct Upstream {
    settings: Settings,
    servers: Box<[Arc<Server>]>,
    /// Replaced when the TLS files are.
    era: ArcSwap<Era>,
    turn: AtomicUsize,
    /// Set when a newer configuration has taken over.
    retired: AtomicBool,
}

/// What keeps an upstream from being built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("upstream {upstream}: {message}")]
pub struct Problem {
    /// Which upstream.
    pub upstream: Arc<str>,
    /// The file at fault, where it is a file.
    pub file: Option<PathBuf>,
    /// What is wrong with it.
    pub message: String,
}

impl Upstream {
    /// Builds the upstream over `servers`, which stand in the order of the settings. The TLS client is built here, once,
    /// and its files are read now.
    fn new(settings: Settings, servers: Box<[Arc<Server>]>) -> Result<Self, Problem> {
        let tls = match &settings.tls {
            Some(tls) => Some(ClientTls::build(tls, settings.http2).map_err(|error| Problem {
                upstream: settings.name.clone(),
                file: error.file,
                message: error.message,
            })?),
            None => None,
        };
        let era = ArcSwap::from_pointee(Era::new(tls));
        Ok(Self { settings, servers, era, turn: AtomicUsize::new(0), retired: AtomicBool::new(false) })
    }

    /// Its settings: timeouts, host policy, name.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Its servers, in the order of the configuration.
    pub fn servers(&self) -> &[Arc<Server>] {
        &self.servers
    }

    /// Chooses a healthy server and counts a request on it until the lease is dropped. `random` decides where the upstream
    /// balances at random. [`ConnectError::NoServer`] when none is healthy.
    pub fn pick(&self, random: u64) -> Result<Lease, ConnectError> {
        let index = self.choose(random).ok_or(ConnectError::NoServer)?;
        self.servers.get(index).map(Lease::new).ok_or(ConnectError::NoServer)
    }

    /// Index of the server whose turn it is.
    fn choose(&self, random: u64) -> Option<usize> {
        let load = |index: usize| self.servers.get(index).filter(|server| server.is_healthy()).map(|s| s.in_flight());
        // The counter is shared by all workers: leave it alone where there is nothing to choose.
        let turn = if self.servers.len() > 1 { self.turn.fetch_add(1, Ordering::Relaxed) } else { 0 };
        balance::choose(self.settings.balance, self.servers.len(), load, turn, random)
    }

    /// Whether every server has been checked once, so that its health is known (decision 23). True without a health check.
    pub fn is_checked(&self) -> bool {
        self.settings.health_check.is_none() || self.servers.iter().all(|server| server.is_checked())
    }

    /// Whether a newer configuration has taken its place.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }

    /// The client certificate shown to its servers: label and end.
    pub fn client_certificate(&self) -> Option<(Box<str>, jiff::Timestamp)> {
        self.era.load().tls.as_ref()?.certificate().cloned()
    }

    /// What connections that are opened now belong to.
    fn era(&self) -> Guard<Arc<Era>> {
        self.era.load()
    }

    /// Opens new connections by `tls` from here on, and uses none that was opened before.
    fn renew(&self, tls: ClientTls) {
        self.era.swap(Arc::new(Era::new(Some(tls)))).end();
        // In this order: whoever retires it meanwhile ends the new era, or is seen here.
        if self.is_retired() {
            self.era.load().end();
        }
    }

    fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
        self.era.load().end();
    }
}

#[cfg(test)]
mod tests;
