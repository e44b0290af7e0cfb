//! Where the gate listens: addresses, the sockets bound to them, and the bounds on what strangers can hold open. Sockets are
//! bound before the server runs, so that a taken address is an exit status and port 0 can be told (decision 31).

pub mod bind;
pub mod bounds;
pub mod files;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::tls;

/// One listener as configured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen.
    pub address: ListenAddress,
    /// TLS, or plain HTTP/1.1 without.
    pub tls: Option<tls::Settings>,
}

/// A place to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket, mode 0660.
    Unix(PathBuf),
}

/// Bounds on connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// Most open connections; at the bound the gate stops accepting.
    pub max: usize,
    /// Most open connections of one client address; more are closed at once and counted.
    pub per_address: usize,
    /// Time for a TLS handshake.
    pub handshake_timeout: Duration,
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
