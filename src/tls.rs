//! TLS towards clients: our own rustls `ServerConfig`, certificates chosen by SNI and swapped in memory.

use std::path::PathBuf;

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
