//! Opening and closing listeners: at the start, and when a reload changes them.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::engine::accept::OpenListener;
use crate::engine::peer::Closing;
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

/// Listeners of a configuration that is not in force yet.
pub(super) struct Prepared(Vec<Opened>);

struct Opened {
    asked: ListenAddress,
    listener: OpenListener,
    /// Dropped with the last configuration that has this listener, which closes its connections.
    open: Arc<watch::Sender<()>>,
    store: Option<Arc<CertificateStore>>,
}

/// What stays of a listener whatever else of it changes.
struct Known {
    asked: ListenAddress,
    bound: Arc<Bound>,
    open: Arc<watch::Sender<()>>,
    closing: Closing,
}

impl Listeners {
    /// Opens what is not open yet and reads all certificates; a listener that stays keeps its socket and gets its TLS anew.
    /// Nothing of it is in force before [`Self::replace`]: dropping what is returned closes what was opened for it. Errors
    /// are lines for the operator.
    pub(super) fn prepare(&mut self, settings: &[Settings], workers: usize) -> Result<Prepared, Vec<String>> {
        // Each open socket is for one listener: with port 0 several are asked for in the same words.
        let mut known: Vec<_> = self.open.iter().map(Opened::known).collect();
        let mut take = |is: &dyn Fn(&Known) -> bool| known.iter().position(is).map(|at| known.swap_remove(at));
        let mut kept: Vec<_> = settings.iter().map(|settings| take(&|known| known.asked == settings.address)).collect();
        for (kept, settings) in kept.iter_mut().zip(settings).filter(|(kept, _)| kept.is_none()) {
            // A port that the system chose, now asked for by its number.
            *kept = take(&|known| *known.bound.address() == settings.address);
        }
        let leaving: Vec<_> = known.iter().map(|known| known.bound.address().clone()).collect();
        let (mut opened, mut problems) = (Vec::new(), Vec::new());
        for (settings, kept) in settings.iter().zip(kept) {
            match self.open_one(settings, kept, &leaving, workers) {
                Ok(listener) => opened.push(listener),
                Err(problem) => problems.extend(problem),
            }
        }
        if problems.is_empty() { Ok(Prepared(opened)) } else { Err(problems) }
    }

    /// Puts what was prepared in force: what is not among it is closed once no worker accepts from it any more.
    pub(super) fn replace(&mut self, prepared: Prepared) -> Vec<OpenListener> {
        self.open = prepared.0;
        self.all()
    }

    /// All open listeners, in the order of the configuration.
    pub(super) fn all(&self) -> Vec<OpenListener> {
        self.open.iter().map(|opened| opened.listener.clone()).collect()
    }

    /// Closes all, so that clients are told at once and not left waiting in the system's queue.
    pub(super) fn close(&mut self) {
        self.open.clear();
    }

    /// Opens the operators' listener.
    pub(super) fn open_admin(&mut self, address: Option<&ListenAddress>) -> Result<(), Vec<String>> {
        let Some(address) = address else { return Ok(()) };
        let bound = Bound::bind(address, 1).map_err(|error| vec![unbound("admin.address", address, &error)])?;
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

    fn open_one(
        &mut self,
        settings: &Settings,
        kept: Option<Known>,
        leaving: &[ListenAddress],
        workers: usize,
    ) -> Result<Opened, Vec<String>> {
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
        let known = match kept {
            Some(kept) => kept,
            None => {
                let bound = Bound::bind_in_place_of(leaving, asked, workers)
                    .map_err(|error| vec![unbound("listen", asked, &error)])?;
                let (open, closing) = Closing::new();
                Known { asked: asked.clone(), bound: Arc::new(bound), open: Arc::new(open), closing }
            }
        };
        self.next_id += 1;
        let listener = OpenListener { id: self.next_id, bound: known.bound, tls, closing: known.closing };
        Ok(Opened { asked: asked.clone(), listener, open: known.open, store })
    }
}

impl Opened {
    fn known(&self) -> Known {
        Known {
            asked: self.asked.clone(),
            bound: self.listener.bound.clone(),
            open: self.open.clone(),
            closing: self.listener.closing.clone(),
        }
    }
}

/// Why an address cannot be listened on, and what helps.
fn unbound(setting: &str, address: &ListenAddress, error: &io::Error) -> String {
    let is_unix = matches!(address, ListenAddress::Unix(_));
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse if is_unix => "; it is served already, or is no socket",
        io::ErrorKind::AddrInUse => "; something listens there already, `ss -ltnp` as root shows what",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        io::ErrorKind::PermissionDenied if is_unix => "; the gate's user must be able to write to its folder",
        io::ErrorKind::PermissionDenied => "; ports below 1024 take root or CAP_NET_BIND_SERVICE",
        io::ErrorKind::NotFound if is_unix => "; its folder must be there",
        _ => "",
    };
    format!("{setting} {address}: {error}{hint}")
}
