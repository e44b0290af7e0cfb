//! Upstreams: their servers, how one is chosen, and connections to them, new or from the pool.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One upstream as configured.
#[derive(Clone, Debug)]
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
