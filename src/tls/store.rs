//! The certificates of one listener: chosen by server name, swapped in memory while connections go on.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::Certificate;
use super::{CertificateFiles, Settings, TlsProblem};

/// What a listener serves now, and the files it came from.
#[derive(Debug)]
pub struct CertificateStore {
    files: Box<[CertificateFiles]>,
    current: ArcSwap<Certificates>,
}

/// A set of certificates, indexed by name. Never empty.
#[derive(Debug)]
struct Certificates {
    all: Vec<Arc<Certificate>>,
    exact: HashMap<Box<str>, Vec<usize>>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Vec<usize>>,
}

impl CertificateStore {
    /// Loads every pair, or says everything that is wrong with them.
    pub fn load(settings: &Settings) -> Result<Self, Vec<TlsProblem>> {
        let mut loaded = Vec::with_capacity(settings.certificates.len());
        let mut problems = Vec::new();
        for files in &settings.certificates {
            match Certificate::load(files) {
                Ok(certificate) => loaded.push(Arc::new(certificate)),
                Err(problem) => problems.push(problem),
            }
        }
        if settings.certificates.is_empty() {
            problems.push(TlsProblem { file: None, message: "a TLS listener needs a certificate".to_owned() });
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let files = settings.certificates.clone().into_boxed_slice();
        Ok(Self { files, current: ArcSwap::from_pointee(Certificates::index(loaded)) })
    }

    /// The files of each pair, in the order of the settings.
    pub fn files(&self) -> &[CertificateFiles] {
        &self.files
    }

    /// The certificates in force, in the order of the settings: names and expiry for the metric.
    pub fn certificates(&self) -> Vec<Arc<Certificate>> {
        self.current.load().all.clone()
    }

    /// The certificate for a client's hello; see [`Certificates::choose`].
    pub(super) fn choose(&self, server_name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<Certificate>> {
        self.current.load().choose(server_name, schemes).cloned()
    }

    /// Puts a new certificate in the place of the pair at `index`. Handshakes from now on see it; no connection is touched.
    pub(super) fn replace(&self, index: usize, certificate: Certificate) {
        let mut all = self.certificates();
        if let Some(place) = all.get_mut(index) {
            *place = Arc::new(certificate);
            self.current.store(Arc::new(Certificates::index(all)));
        }
    }
}

impl ResolvesServerCert for CertificateStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes()).map(|chosen| chosen.key.clone())
    }
}

impl Certificates {
    fn index(all: Vec<Arc<Certificate>>) -> Self {
        let (mut exact, mut wildcard) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        for (index, certificate) in all.iter().enumerate() {
            for name in certificate.names() {
                match name.strip_prefix("*.") {
                    Some(parent) => wildcard.entry(parent.into()).or_default().push(index),
                    None => exact.entry(name.clone()).or_default().push(index),
                }
            }
        }
        Self { all, exact, wildcard }
    }

    /// The certificate for a server name in lower case: its exact name, then a wildcard for its first label (RFC 9525
    /// section 6.3), then the first of all. Among several for the same name, the first whose key the client can verify, so
    /// that an RSA and an ECDSA certificate can stand side by side.
    fn choose(&self, server_name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Arc<Certificate>> {
        let named = |name: &str| {
            let parent = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
            self.exact.get(name).or_else(parent)
        };
        let candidates = server_name.and_then(named).map_or(FIRST, Vec::as_slice);
        let certificate = |index: &usize| self.all.get(*index);
        let suits = |certificate: &&Arc<Certificate>| certificate.key.key.choose_scheme(schemes).is_some();
        candidates.iter().filter_map(certificate).find(suits).or_else(|| candidates.first().and_then(certificate))
    }
}

/// The default, by index.
const FIRST: &[usize] = &[0];
