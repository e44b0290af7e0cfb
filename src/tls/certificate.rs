//! One certificate chain with its key, read from two PEM files and checked to belong together.

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

use super::{CertificateFiles, TlsProblem};
use crate::keyring::source;

/// A certificate ready to be served.
pub struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) digest: PairDigest,
    names: Vec<Box<str>>,
    label: Box<str>,
    not_after: Timestamp,
}

/// The bytes of both files, not yet understood.
pub(super) struct Pair {
    chain: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

/// What two pairs have in common when they are the same to the byte. Covers a private key, so it stays inside.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct PairDigest([u8; 32]);

impl Certificate {
    /// Reads and checks both files.
    pub fn load(files: &CertificateFiles) -> Result<Self, TlsProblem> {
        Self::parse(files, &Pair::read(files)?)
    }

    /// Understands what was read: a chain with the leaf first and a key that signs for it.
    pub(super) fn parse(files: &CertificateFiles, pair: &Pair) -> Result<Self, TlsProblem> {
        let chain = CertificateDer::pem_slice_iter(&pair.chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| problem(&files.cert, reason(&error)))?;
        let Some(leaf) = chain.first() else {
            return Err(problem(&files.cert, "holds no certificate"));
        };
        let (names, not_after) = read_leaf(leaf).map_err(|message| problem(&files.cert, message))?;
        let key = PrivateKeyDer::from_pem_slice(&pair.key).map_err(|error| match error {
            pem::Error::NoItemsFound => problem(&files.key, "holds no private key"),
            error => problem(&files.key, reason(&error)),
        })?;
        let provider = aws_lc_rs::default_provider();
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                problem(&files.key, &format!("does not belong to the certificate in {}", files.cert.display()))
            }
            // rustls' own text tells of the form of the key, never of its bits.
            error => problem(&files.key, &format!("holds a key that cannot be used: {error}")),
        })?;
        let label = label(&names, &files.cert);
        Ok(Self { key: Arc::new(key), digest: pair.digest(), names, label, not_after })
    }

    /// DNS names of the leaf in lower case, wildcards as `*.example.org`.
    pub fn names(&self) -> &[Box<str>] {
        &self.names
    }

    /// Its first DNS name, or its file where it has none: the label of `keygate_tls_certificate_expiry_timestamp_seconds`.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// When the leaf expires.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("names", &self.names)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Pair {
    /// Reads both files, each up to a bound.
    pub(super) fn read(files: &CertificateFiles) -> Result<Self, TlsProblem> {
        Ok(Self { chain: read(&files.cert)?, key: Zeroizing::new(read(&files.key)?) })
    }

    pub(super) fn digest(&self) -> PairDigest {
        let mut hasher = Sha256::new();
        hasher.update(self.chain.len().to_le_bytes());
        hasher.update(&self.chain);
        hasher.update(&*self.key);
        PairDigest(hasher.finalize().into())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsProblem> {
    let unreadable = |error: std::io::Error| problem(path, &format!("cannot be read: {error}"));
    let mut bytes = Vec::new();
    source::open(path).map_err(unreadable)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(problem(path, "is too large for a certificate or key"));
    }
    Ok(bytes)
}

/// DNS names and end of validity. Only subject alternative names count, as for every client of today (RFC 9525 section 2).
fn read_leaf(leaf: &CertificateDer<'_>) -> Result<(Vec<Box<str>>, Timestamp), &'static str> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_invalid| "holds no readable certificate")?;
    let names = match certificate.subject_alternative_name() {
        Ok(Some(names)) => names.value.general_names.iter().filter_map(dns_name).collect(),
        Ok(None) => Vec::new(),
        Err(_invalid) => return Err("holds a certificate whose alternative names cannot be read"),
    };
    let not_after = Timestamp::from_second(certificate.validity().not_after.timestamp())
        .map_err(|_out_of_range| "holds a certificate whose end of validity cannot be read")?;
    Ok((names, not_after))
}

/// Label and end of a certificate, by the rules of [`Certificate::label`]; `None` where it cannot be read.
pub(crate) fn describe(leaf: &CertificateDer<'_>, file: &Path) -> Option<(Box<str>, Timestamp)> {
    let (names, not_after) = read_leaf(leaf).ok()?;
    Some((label(&names, file), not_after))
}

fn label(names: &[Box<str>], file: &Path) -> Box<str> {
    names.first().cloned().unwrap_or_else(|| file.display().to_string().into())
}

fn dns_name(name: &GeneralName<'_>) -> Option<Box<str>> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase().into()),
        _ => None,
    }
}

/// The kind of fault alone: the reader's own text quotes lines of the file, which can be a key's.
fn reason(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "ends in the middle of a PEM section",
        pem::Error::NoItemsFound => "holds nothing of the kind",
        _ => "is not well-formed PEM",
    }
}

fn problem(file: &Path, message: &str) -> TlsProblem {
    TlsProblem { file: Some(file.to_path_buf()), message: format!("{} {message}", file.display()) }
}

/// Far above any chain; keeps a mistaken path from being read into memory whole.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
