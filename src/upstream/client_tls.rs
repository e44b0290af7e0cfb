//! The TLS client of one upstream: roots, client certificate and server name, built once and shared by all connects.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zeroize::Zeroizing;

use super::TlsSettings;
use crate::keyring::source;
use crate::tls::certificate::describe;

/// A client that verifies one name against one set of roots. Verification cannot be turned off.
pub struct ClientTls {
    connector: TlsConnector,
    name: ServerName<'static>,
    http2: bool,
    digest: FilesDigest,
    certificate: Option<(Box<str>, jiff::Timestamp)>,
}

/// The bytes of the files that a client is built from, not yet understood.
pub(super) struct ClientFiles {
    ca: Option<Vec<u8>>,
    client: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
}

/// What files that are the same to the byte have in common. Covers a private key, so it stays inside.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct FilesDigest([u8; 32]);

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why it cannot be built; never holds file content.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ClientTlsError {
    /// The file at fault, where it is a file.
    pub file: Option<PathBuf>,
    /// What is wrong.
    pub message: String,
}

impl ClientTls {
    /// Reads the files and builds the client; ALPN offers `h2` alone where the upstream speaks HTTP/2, else `http/1.1`.
    pub fn build(settings: &TlsSettings, http2: bool) -> Result<Self, ClientTlsError> {
        Self::parse(settings, http2, &ClientFiles::read(settings)?)
    }

    /// Builds the client from what was read.
    pub(super) fn parse(settings: &TlsSettings, http2: bool, files: &ClientFiles) -> Result<Self, ClientTlsError> {
        // An empty name would leave nothing to verify; it is refused here whatever the settings' reader allowed.
        let name = ServerName::try_from(settings.server_name.to_string())
            .map_err(|_invalid| problem(None, format!("server_name {:?} is not a host name", settings.server_name)))?;
        let roots = match (&settings.ca, &files.ca) {
            (Some(file), Some(pem)) => private_roots(file, pem)?,
            _ => system_roots()?,
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| problem(None, error.to_string()))?
            .with_root_certificates(roots);
        let mut certificate = None;
        let mut config = match (&settings.client, &files.client) {
            (Some((cert, key)), Some((chain, secret))) => {
                let chain = certificates(cert, chain)?;
                certificate = chain.first().and_then(|leaf| describe(leaf, cert));
                builder
                    .with_client_auth_cert(chain, private_key(key, secret)?)
                    .map_err(|error| problem(Some(cert), format!("does not go with {}: {error}", key.display())))?
            }
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let digest = files.digest();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name, http2, digest, certificate })
    }

    /// Of the files it was built from.
    pub(super) fn digest(&self) -> FilesDigest {
        self.digest
    }

    /// The client certificate: its first DNS name, or its file where it has none, and when it expires.
    pub(super) fn certificate(&self) -> Option<&(Box<str>, jiff::Timestamp)> {
        self.certificate.as_ref()
    }

    /// Shakes hands over `stream`. A server that does not agree on HTTP/2 where the upstream is set to it is an error.
    pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        let stream = self.connector.connect(self.name.clone(), stream).await?;
        if self.http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the server does not offer HTTP/2"));
        }
        Ok(stream)
    }
}

impl ClientFiles {
    /// Reads those that are set.
    pub(super) fn read(settings: &TlsSettings) -> Result<Self, ClientTlsError> {
        let read = |file: &Path, otherwise: &str| {
            let failed = |error: io::Error| problem(Some(file), format!("{otherwise}: {error}"));
            let mut bytes = Vec::new();
            source::open(file).map_err(failed)?.read_to_end(&mut bytes).map_err(failed)?;
            Ok(bytes)
        };
        let ca = settings.ca.as_deref().map(|file| read(file, UNREADABLE)).transpose()?;
        let client = match &settings.client {
            Some((cert, key)) => Some((read(cert, UNREADABLE)?, Zeroizing::new(read(key, NO_KEY)?))),
            None => None,
        };
        Ok(Self { ca, client })
    }

    pub(super) fn digest(&self) -> FilesDigest {
        let mut hasher = Sha256::new();
        let (cert, key) = self.client.as_ref().map(|(cert, key)| (cert.as_slice(), key.as_slice())).unwrap_or_default();
        for part in [self.ca.as_deref().unwrap_or_default(), cert, key] {
            hasher.update(part.len().to_le_bytes());
            hasher.update(part);
        }
        FilesDigest(hasher.finalize().into())
    }
}

const UNREADABLE: &str = "cannot be read";
const NO_KEY: &str = "holds no readable private key";

fn private_roots(file: &Path, pem: &[u8]) -> Result<RootCertStore, ClientTlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file, pem)? {
        roots.add(certificate).map_err(|error| problem(Some(file), format!("is no usable CA certificate: {error}")))?;
    }
    Ok(roots)
}

/// The system's roots; those that cannot be read are passed over, as every client does, but none at all is an error.
fn system_roots() -> Result<RootCertStore, ClientTlsError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(problem(None, "the system has no CA certificates; set `ca`".to_owned()));
    }
    Ok(roots)
}

fn certificates(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ClientTlsError> {
    let read = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, pem::Error>>();
    match read {
        Ok(certificates) if certificates.is_empty() => Err(problem(Some(file), "holds no certificate".to_owned())),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(problem(Some(file), format!("{UNREADABLE}: {}", reason(&error)))),
    }
}

fn private_key(file: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, ClientTlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| problem(Some(file), format!("{NO_KEY}: {}", reason(&error))))
}

/// The reason alone: the reader's own text may quote the lines of a broken file, which can be a key's.
fn reason(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "nothing of the kind in it".to_owned(),
        _ => "not well-formed PEM".to_owned(),
    }
}

fn problem(file: Option<&Path>, message: String) -> ClientTlsError {
    let message = match file {
        Some(file) => format!("{} {message}", file.display()),
        None => message,
    };
    ClientTlsError { file: file.map(Path::to_path_buf), message }
}
