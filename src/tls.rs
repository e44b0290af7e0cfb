//! TLS towards clients: our own rustls `ServerConfig`, certificates chosen by SNI and swapped in memory.

use std::path::PathBuf;

pub mod acceptor;
pub mod certificate;
pub mod handshake;
pub mod reload;
pub mod self_signed;
pub mod store;
pub mod watch;

/// TLS of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Certificates; the first is the default.
    pub certificates: Vec<CertificateFiles>,
    /// Lowest protocol version.
    pub min_version: MinVersion,
    /// Whether HTTP/2 is offered by ALPN.
    pub http2: bool,
}

/// A certificate chain and its key, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Chain, leaf first.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// Lowest TLS version offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// What is wrong with a listener's TLS; never holds file content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TlsProblem {
    /// The file at fault, where it is a file; `message` names it too.
    pub file: Option<PathBuf>,
    /// What is wrong.
    pub message: String,
}

#[cfg(test)]
mod tests;
