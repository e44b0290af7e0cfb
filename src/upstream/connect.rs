//! Getting a connection: from the pool, or new, going on to the next server when one cannot be reached.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{self, timeout};

use super::era::Era;
use super::pool::{Pool, PoolKey};
use super::server::{Lease, Server};
use super::stream::UpstreamStream;
use super::{ServerAddress, Upstream};
use crate::keepalive;
use crate::rejection::Rejection;

/// A connection that one request holds.
#[derive(Debug)]
pub struct Connection {
    /// Bytes to and from the server.
    pub stream: UpstreamStream,
    lease: Lease,
    era: Arc<Era>,
    key: PoolKey,
    reused: bool,
}

/// Why no connection could be had. Where several servers were tried, it speaks of the last.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No server is healthy.
    #[error("no healthy server")]
    NoServer,
    /// The server's name has never been resolved.
    #[error("{server}: name not resolved")]
    Unresolved {
        /// Which server.
        server: Box<str>,
    },
    /// The system refused the connection.
    #[error("{server}: {source}")]
    Refused {
        /// Which server.
        server: Box<str>,
        /// What the system said.
        source: io::Error,
    },
    /// The TLS handshake failed: name, roots, client certificate or protocol.
    #[error("{server}: TLS: {source}")]
    Tls {
        /// Which server.
        server: Box<str>,
        /// What rustls said.
        source: io::Error,
    },
    /// `connect_timeout` passed.
    #[error("{server}: connect timeout")]
    Timeout {
        /// Which server.
        server: Box<str>,
    },
}

impl ConnectError {
    /// What the client is told: 503, 502 or 504 (decision 23).
    pub fn rejection(&self) -> Rejection {
        match self {
            Self::NoServer => Rejection::NoUpstream,
            Self::Unresolved { .. } => Rejection::BadGateway("upstream_unresolved"),
            Self::Refused { .. } => Rejection::BadGateway("upstream_refused"),
            Self::Tls { .. } => Rejection::BadGateway("upstream_tls"),
            Self::Timeout { .. } => Rejection::GatewayTimeout("upstream_connect"),
        }
    }
}

impl Connection {
    /// Whether it served another request before: only then may a request be retried (decision 23).
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// The server at its other end.
    pub fn server(&self) -> &Arc<Server> {
        self.lease.server()
    }

    /// Stream, group, era and lease, for a connection that is shared.
    pub(super) fn into_session(self) -> (UpstreamStream, PoolKey, Arc<Era>, Lease) {
        (self.stream, self.key, self.era, self.lease)
    }

    /// Stream and lease, for a use that never goes back to the pool: a tunnel.
    pub fn into_parts(self) -> (UpstreamStream, Lease) {
        (self.stream, self.lease)
    }

    /// Stream, group, era and server, the lease given back.
    pub(super) fn into_idle(self) -> (UpstreamStream, PoolKey, Arc<Era>, Arc<Server>) {
        (self.stream, self.key, self.era, self.lease.server().clone())
    }
}

impl Upstream {
    /// A connection to the server whose turn it is: an idle one of `pool`, or a new one. A server that cannot be reached
    /// within `connect_timeout` is passed over for the next healthy one, whatever the method: nothing was sent yet.
    pub async fn connect(&self, pool: &Pool, random: u64, now: Instant) -> Result<Connection, ConnectError> {
        let first = self.choose(random).ok_or(ConnectError::NoServer)?;
        if let Some(connection) = self.servers.get(first).and_then(|server| self.idle(pool, first, server, now)) {
            return Ok(connection);
        }
        // Boxed, so that the connection task of every client does not carry room for a TLS handshake.
        Box::pin(self.open_from(first)).await
    }

    /// A new connection whatever the pool holds, for the one retry after a reused one turned out dead.
    pub async fn connect_new(&self, random: u64) -> Result<Connection, ConnectError> {
        let first = self.choose(random).ok_or(ConnectError::NoServer)?;
        Box::pin(self.open_from(first)).await
    }

    fn idle(&self, pool: &Pool, index: usize, server: &Arc<Server>, now: Instant) -> Option<Connection> {
        let era = self.era();
        let take = |address| {
            let key = PoolKey::new(&era, index, address);
            let stream = pool.take(&key, now)?;
            Some(Connection { stream, lease: Lease::new(server), era: Arc::clone(&era), key, reused: true })
        };
        match server.address() {
            ServerAddress::Tcp { .. } => server.addresses().iter().find_map(|address| take(Some(*address))),
            ServerAddress::Unix(_) => take(None),
        }
    }

    /// A new connection to the first of the healthy servers, from the one at `first` on, that can be reached.
    async fn open_from(&self, first: usize) -> Result<Connection, ConnectError> {
        let mut failed = ConnectError::NoServer;
        for (index, server) in self.in_turn(first) {
            match self.open_at(index, server).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// The healthy servers in turn, beginning with the one at `first`. That was healthy when it was chosen; the others are
    /// looked at when their turn comes.
    pub(super) fn in_turn(&self, first: usize) -> impl Iterator<Item = (usize, &Arc<Server>)> {
        let (before, from) = self.servers.split_at_checked(first).unwrap_or((&[], &self.servers));
        let all = from.iter().enumerate().map(move |(step, server)| (first + step, server));
        all.chain(before.iter().enumerate()).filter(move |(index, server)| *index == first || server.is_healthy())
    }

    /// A new connection to this server, which is the one at `index`.
    pub(super) async fn open_at(&self, index: usize, server: &Arc<Server>) -> Result<Connection, ConnectError> {
        let (era, lease) = (Arc::clone(&self.era()), Lease::new(server));
        let opened = self.open(&era, server).await;
        let (stream, address) = opened.inspect_err(|error| {
            tracing::debug!(upstream = %self.settings.name, %error, "connect failed");
        })?;
        let key = PoolKey::new(&era, index, address);
        Ok(Connection { stream, lease, era, key, reused: false })
    }

    /// One new connection to one server, TLS included, within `connect_timeout`. Also gives the address it was made to.
    pub(super) async fn open(
        &self,
        era: &Era,
        server: &Server,
    ) -> Result<(UpstreamStream, Option<SocketAddr>), ConnectError> {
        let deadline = time::Instant::now() + self.settings.connect_timeout;
        let timed_out = |_elapsed| ConnectError::Timeout { server: server.label().into() };
        let opening = open_by(era, server, deadline, self.settings.write_timeout);
        time::timeout_at(deadline, opening).await.map_err(timed_out)?
    }
}

async fn open_by(
    era: &Era,
    server: &Server,
    deadline: time::Instant,
    write_timeout: Duration,
) -> Result<(UpstreamStream, Option<SocketAddr>), ConnectError> {
    let tls_error = |source| ConnectError::Tls { server: server.label().into(), source };
    match server.address() {
        ServerAddress::Tcp { .. } => {
            let (tcp, address) = dial(server, deadline, write_timeout).await?;
            let stream = match &era.tls {
                Some(tls) => UpstreamStream::Tls(Box::new(tls.handshake(tcp).await.map_err(tls_error)?)),
                None => UpstreamStream::Tcp(tcp),
            };
            Ok((stream, Some(address)))
        }
        ServerAddress::Unix(path) => {
            let refused = |source| ConnectError::Refused { server: server.label().into(), source };
            let unix = UnixStream::connect(path).await.map_err(refused)?;
            let stream = match &era.tls {
                Some(tls) => UpstreamStream::TlsUnix(Box::new(tls.handshake(unix).await.map_err(tls_error)?)),
                None => UpstreamStream::Unix(unix),
            };
            Ok((stream, None))
        }
    }
}

/// A TCP connection to the first address that takes one. Each address gets an even share of the time left, so that one
/// that swallows packets does not use up the time of the next.
async fn dial(
    server: &Server,
    deadline: time::Instant,
    write_timeout: Duration,
) -> Result<(TcpStream, SocketAddr), ConnectError> {
    let addresses = server.addresses().clone();
    let mut failed = ConnectError::Unresolved { server: server.label().into() };
    let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses.iter() {
        let share = deadline.saturating_duration_since(time::Instant::now()) / left.max(1);
        left = left.saturating_sub(1);
        failed = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Without it small requests may wait for an acknowledgement; a socket that refuses an option still works.
                stream.set_nodelay(true).ok();
                let socket = SockRef::from(&stream);
                keepalive::set(&socket).and_then(|()| keepalive::allow(&socket, write_timeout)).ok();
                return Ok((stream, *address));
            }
            Ok(Err(source)) => ConnectError::Refused { server: server.label().into(), source },
            Err(_elapsed) => ConnectError::Timeout { server: server.label().into() },
        };
    }
    Err(failed)
}
