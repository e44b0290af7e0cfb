//! Opening and closing listeners: at the start, and when a reload changes them.

use std::sync::Arc;

use tokio_rustls::TlsAcceptor;

use crate::engine::worker::OpenListener;
use crate::listener::bind::Bound;
use crate::listener::{ListenAddress, Settings};
use crate::tls::acceptor;
use crate::tls::store::CertificateStore;

/// The open listeners and what was asked for when they were opened.
#[derive(Default)]
pub(super) struct Listeners {
    open: Vec<Opened>,
    admin: Option<Arc<Bound>>,
    next_id: u64,
}

struct Opened {
    asked: ListenAddress,
    listener: OpenListener,
    store: Option<Arc<CertificateStore>>,
}

impl Listeners {
    /// Opens what is not open yet; a listener that stays keeps its socket and gets its TLS anew. Errors are lines for the
    /// operator; then nothing changed that anybody could see.
    pub(super) fn open(&mut self, settings: &[Settings], workers: usize) -> Result<Vec<OpenListener>, Vec<String>> {
        let mut opened = Vec::new();
        let mut problems = Vec::new();
        for settings in settings {
            match self.open_one(settings, workers) {
                Ok(listener) => opened.push(listener),
                Err(problem) => problems.extend(problem),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let listeners = opened.iter().map(|opened| opened.listener.clone()).collect();
        self.open.extend(opened);
        Ok(listeners)
    }

    /// Closes all but these.
    pub(super) fn keep_only(&mut self, keep: &[OpenListener]) {
        self.open.retain(|opened| keep.iter().any(|listener| listener.id == opened.listener.id));
    }

    /// Opens the operators' listener.
    pub(super) fn open_admin(&mut self, address: Option<&ListenAddress>) -> Result<(), Vec<String>> {
        let Some(address) = address else { return Ok(()) };
        let bound = Bound::bind(address, 1).map_err(|error| vec![format!("admin.address {address}: {error}")])?;
        self.admin = Some(Arc::new(bound));
        Ok(())
    }

    /// The operators' listener.
    pub(super) fn admin(&self) -> Option<&Arc<Bound>> {
        self.admin.as_ref()
    }

    /// The certificates of all open listeners.
    pub(super) fn stores(&self) -> Vec<Arc<CertificateStore>> {
        self.open.iter().filter_map(|opened| opened.store.clone()).collect()
    }

    fn open_one(&mut self, settings: &Settings, workers: usize) -> Result<Opened, Vec<String>> {
        let asked = &settings.address;
        let (tls, store) = match &settings.tls {
            None => (None, None),
            Some(tls) => {
                let lines = |problems: Vec<crate::tls::TlsProblem>| {
                    problems.iter().map(|problem| format!("listen {asked}: {problem}")).collect::<Vec<_>>()
                };
                let store = Arc::new(CertificateStore::load(tls).map_err(lines)?);
                let acceptor: TlsAcceptor =
                    acceptor::build(tls, store.clone()).map_err(|problem| lines(vec![problem]))?;
                (Some(acceptor), Some(store))
            }
        };
        let known = self.open.iter().find(|opened| opened.asked == *asked).map(|opened| opened.listener.bound.clone());
        let bound = match known {
            Some(bound) => bound,
            None => {
                let bound = Bound::bind(asked, workers).map_err(|error| vec![format!("listen {asked}: {error}")])?;
                Arc::new(bound)
            }
        };
        self.next_id += 1;
        Ok(Opened { asked: asked.clone(), listener: OpenListener { id: self.next_id, bound, tls }, store })
    }
}
