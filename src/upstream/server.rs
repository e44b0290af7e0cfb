//! One server of an upstream as all workers see it: where it is, whether it is healthy, how many requests it holds.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::ServerAddress;

/// A server and its state. Health, addresses and the count of requests outlive a reload that leaves its settings alone.
#[derive(Debug)]
pub struct Server {
    address: ServerAddress,
    label: Box<str>,
    resolved: ArcSwap<Vec<SocketAddr>>,
    nameless: AtomicBool,
    healthy: AtomicBool,
    checked: AtomicBool,
    in_flight: AtomicUsize,
    /// When it last sent what nobody had asked for.
    spoke_unasked: ArcSwapOption<Instant>,
}

/// How long no connection of a server is used twice that sent what nobody had asked for. HTTP/1 has no other mark of whose
/// answer an answer is than its place: one too many that comes a moment later is taken for the next request's.
const DISTRUST: Duration = Duration::from_secs(60);

/// A request held on a server; dropping it ends the count.
#[derive(Debug)]
pub struct Lease {
    server: Arc<Server>,
}

impl Server {
    /// A server that is taken for healthy until checks say otherwise (decision 23). One given by IP address has its socket
    /// address at once, one given by name when [`set_addresses`](Self::set_addresses) is called.
    pub fn new(address: ServerAddress) -> Self {
        let label = address.to_string().into_boxed_str();
        let resolved = match &address {
            ServerAddress::Tcp { host, port } => {
                host.parse::<IpAddr>().map(|ip| vec![SocketAddr::new(ip, *port)]).unwrap_or_default()
            }
            ServerAddress::Unix(_) => Vec::new(),
        };
        Self {
            address,
            label,
            resolved: ArcSwap::from_pointee(resolved),
            nameless: AtomicBool::new(false),
            healthy: AtomicBool::new(true),
            checked: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            spoke_unasked: ArcSwapOption::empty(),
        }
    }

    /// Where it is, as configured.
    pub fn address(&self) -> &ServerAddress {
        &self.address
    }

    /// Notes whether its name was found at the last look-up; says whether that is news.
    pub(super) fn note_name(&self, found: bool) -> bool {
        self.nameless.swap(!found, Ordering::Relaxed) == found
    }

    /// `host:port` or `unix:/path`, for metrics and log.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// What goes into `Host` when the upstream's own address is asked for: `host:port`; a unix socket is `localhost`.
    pub fn authority(&self) -> &str {
        match self.address {
            ServerAddress::Tcp { .. } => &self.label,
            ServerAddress::Unix(_) => "localhost",
        }
    }

    /// Host and port where these must be looked up: a name, not an IP address or a unix socket.
    pub fn name(&self) -> Option<(&str, u16)> {
        match &self.address {
            ServerAddress::Tcp { host, port } if host.parse::<IpAddr>().is_err() => Some((host, *port)),
            ServerAddress::Tcp { .. } | ServerAddress::Unix(_) => None,
        }
    }

    /// Socket addresses in the order to try them; empty for a name not yet resolved and for unix sockets.
    pub fn addresses(&self) -> arc_swap::Guard<Arc<Vec<SocketAddr>>> {
        self.resolved.load()
    }

    /// Takes new socket addresses. An empty answer is no answer: the last good one is kept (decision 23). Says whether the
    /// set of addresses changed; the order of equal sets is the resolver's whim and is kept as it was.
    pub fn set_addresses(&self, addresses: Vec<SocketAddr>) -> bool {
        let now = self.resolved.load();
        let same = addresses.len() == now.len() && addresses.iter().all(|address| now.contains(address));
        if addresses.is_empty() || same {
            return false;
        }
        self.resolved.store(Arc::new(addresses));
        true
    }

    /// Whether it may be chosen.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Takes the result of a health check that changed things.
    pub fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::Relaxed);
    }

    /// Whether a first health check has ended, well or badly.
    pub fn is_checked(&self) -> bool {
        self.checked.load(Ordering::Relaxed)
    }

    /// Notes that a health check has ended.
    pub fn set_checked(&self) {
        self.checked.store(true, Ordering::Relaxed);
    }

    /// Notes that bytes came behind an answer of it, or while nothing was asked.
    pub(super) fn note_unasked(&self, upstream: &str, now: Instant) {
        let was_trusted = self.is_in_step(now);
        self.spoke_unasked.store(Some(Arc::new(now)));
        if was_trusted {
            let hint = "its connections are not reused for a minute";
            tracing::warn!(upstream, server = self.label(), hint, "an upstream sent more than it was asked for");
        }
    }

    /// Whether a connection of it may be used again: nothing that nobody had asked for came from it of late.
    pub(super) fn is_in_step(&self, now: Instant) -> bool {
        self.spoke_unasked.load().as_deref().is_none_or(|at| now.saturating_duration_since(*at) >= DISTRUST)
    }

    /// Requests held on it now, over all workers.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

impl Lease {
    /// Counts one request on `server`.
    pub fn new(server: &Arc<Server>) -> Self {
        server.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { server: server.clone() }
    }

    /// The server it is held on.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.server.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> ServerAddress {
        ServerAddress::Tcp { host: host.into(), port }
    }

    #[test]
    fn what_an_address_is_called_and_whether_it_is_looked_up() {
        #[track_caller]
        fn check(address: ServerAddress, label: &str, authority: &str, resolved: usize, name: Option<(&str, u16)>) {
            let server = Server::new(address);
            assert_eq!((server.label(), server.authority()), (label, authority));
            assert_eq!(server.addresses().len(), resolved, "{label}");
            assert_eq!(server.name(), name, "{label}");
        }
        check(tcp("127.0.0.1", 80), "127.0.0.1:80", "127.0.0.1:80", 1, None);
        check(tcp("::1", 8000), "[::1]:8000", "[::1]:8000", 1, None);
        check(tcp("api.lan", 80), "api.lan:80", "api.lan:80", 0, Some(("api.lan", 80)));
        check(ServerAddress::Unix("/run/x.sock".into()), "unix:/run/x.sock", "localhost", 0, None);
    }

    #[test]
    fn the_last_good_answer_is_kept() {
        let server = Server::new(tcp("api.lan", 80));
        let (a, b): (SocketAddr, SocketAddr) = ("10.0.0.1:80".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        assert!(server.set_addresses(vec![a, b]));
        assert!(!server.set_addresses(vec![]), "no answer is not an answer");
        assert!(!server.set_addresses(vec![b, a]), "another order is no change");
        assert_eq!(**server.addresses(), [a, b]);
        assert!(server.set_addresses(vec![b]));
        assert_eq!(**server.addresses(), [b]);
    }

    #[test]
    fn a_lease_counts_while_it_lives() {
        let server = Arc::new(Server::new(tcp("127.0.0.1", 80)));
        let first = Lease::new(&server);
        let second = Lease::new(&server);
        assert_eq!(server.in_flight(), 2);
        drop(first);
        assert_eq!(second.server().in_flight(), 1);
        drop(second);
        assert_eq!(server.in_flight(), 0);
    }
}
