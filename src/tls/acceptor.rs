//! The rustls `ServerConfig` of a listener: versions, ALPN, resumption. Built once and shared by all workers.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::ServerSessionMemoryCache;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio_rustls::TlsAcceptor;

use super::store::CertificateStore;
use super::{MinVersion, Settings, TlsProblem};

/// Builds the acceptor of a listener over its certificates.
pub fn build(settings: &Settings, store: Arc<CertificateStore>) -> Result<TlsAcceptor, TlsProblem> {
    let fault = |error: rustls::Error| TlsProblem { file: None, message: error.to_string() };
    let versions: &[&SupportedProtocolVersion] = match settings.min_version {
        MinVersion::Tls12 => &[&TLS13, &TLS12],
        MinVersion::Tls13 => &[&TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .map_err(fault)?
        .with_no_client_auth()
        .with_cert_resolver(store);
    config.alpn_protocols =
        if settings.http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
    // Tickets hold the session on the client's side: nothing to store, and their keys change every six hours.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(fault)?;
    // Only TLS 1.2 clients without tickets are stored.
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    // Early data can be replayed, and a replayed request would be admitted twice.
    config.max_early_data_size = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Sessions remembered per listener, the oldest dropped first; a few hundred bytes each, so below half a mebibyte.
const SESSIONS: usize = 1024;
