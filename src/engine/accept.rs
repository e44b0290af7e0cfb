//! Accepting connections. Each worker is one thread that accepts from sockets of its own and serves by itself (decision 32);
//! it runs as a Pingora service, and listeners come and go with the configuration while it runs.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Gate;
use super::abort::Abort;
use super::connection::{self, Connection, Held};
use super::peer::{Closing, Peer};
use super::worker::Worker;
use crate::http2;
use crate::identity::forwarded::is_trusted;
use crate::keepalive;
use crate::listener::bind::{BACKLOG, Bound, WorkerSocket};
use crate::listener::bounds::Place;
use crate::metrics::ClosedReason;
use crate::metrics::HandshakeResult;
use crate::tls::handshake::{self, HandshakeError};
use crate::upstream::pool::Pool;
use crate::upstream::sessions::Sessions;

/// A listener that is open: its sockets and its TLS.
#[derive(Clone)]
pub(crate) struct OpenListener {
    /// Changes with every opening, so that a worker knows old from new.
    pub(crate) id: u64,
    pub(crate) bound: Arc<Bound>,
    pub(crate) tls: Option<TlsAcceptor>,
    /// Whether it is to be closed; one that only gets other TLS is not.
    pub(crate) closing: Closing,
}

/// One worker as a service of the server.
pub(crate) struct WorkerService {
    name: String,
    index: usize,
    gate: Arc<Gate>,
    listeners: watch::Receiver<Arc<Vec<OpenListener>>>,
}

/// A task that accepts, which ends by itself once this is dropped: not between taking a connection and serving it.
struct Running {
    task: AbortHandle,
    _wanted: watch::Sender<()>,
}

/// Why an accepting task ended.
enum Ended {
    /// It was told to.
    Told,
    /// Its socket was no good.
    Failed,
}

/// Idle upstream connections a worker keeps, over all upstreams.
const MOST_IDLE_UPSTREAM: usize = 1024;
/// Pause after the system refused to hand out another socket (EMFILE and its like).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Pause before a listener that could not be had is tried again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

impl WorkerService {
    pub(crate) fn new(index: usize, gate: Arc<Gate>, listeners: watch::Receiver<Arc<Vec<OpenListener>>>) -> Self {
        Self { name: format!("worker {index}"), index, gate, listeners }
    }
}

#[async_trait]
impl Service for WorkerService {
    async fn start_service(&mut self, _fds: Option<ListenFds>, _shutdown: ShutdownWatch, _per_fd: usize) {
        let access_log = self.gate.access_log.handle();
        let worker = Arc::new(Worker {
            gate: self.gate.clone(),
            pool: Pool::new(MOST_IDLE_UPSTREAM),
            sessions: Sessions::default(),
            access_log,
            random: Mutex::default(),
        });
        let sweeper = worker.clone();
        tokio::spawn(async move { sweeper.sweep().await });
        let mut accepting = JoinSet::new();
        let mut running: HashMap<u64, Running> = HashMap::new();
        loop {
            let open = self.listeners.borrow_and_update().clone();
            running.retain(|id, accepting| {
                open.iter().any(|listener| listener.id == *id) && !accepting.task.is_finished()
            });
            for listener in open.iter().filter(|listener| !running.contains_key(&listener.id)).collect::<Vec<_>>() {
                match listener.bound.socket(self.index) {
                    Ok(socket) => {
                        let (wanted, stop) = Closing::new();
                        let task = accepting.spawn(accept(socket, listener.clone(), stop, worker.clone()));
                        running.insert(listener.id, Running { task, _wanted: wanted });
                    }
                    Err(error) => tracing::error!(address = %listener.bound.address(), %error, "cannot listen"),
                }
            }
            // A listener without its task would look open and answer nobody: whatever ended it, it begins again.
            let all_run = running.len() == open.len();
            tokio::select! {
                changed = self.listeners.changed() => if changed.is_err() { return },
                Some(ended) = accepting.join_next() => if !matches!(ended, Ok(Ended::Told)) {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                },
                () = tokio::time::sleep(LISTEN_AGAIN), if !all_run => {}
            }
        }
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

async fn accept(socket: WorkerSocket, listener: OpenListener, stop: Closing, worker: Arc<Worker>) -> Ended {
    let outcome = match socket {
        WorkerSocket::Tcp(socket) => match TcpListener::from_std(socket) {
            Ok(socket) => accept_tcp(socket, listener, stop, worker).await,
            Err(error) => Err(error),
        },
        WorkerSocket::Unix(socket) => match UnixListener::from_std(socket) {
            Ok(socket) => accept_unix(socket, listener, stop, worker).await,
            Err(error) => Err(error),
        },
    };
    match outcome {
        Ok(()) => Ended::Told,
        Err(error) => {
            tracing::error!(%error, "a listener failed");
            Ended::Failed
        }
    }
}

async fn accept_tcp(socket: TcpListener, listener: OpenListener, stop: Closing, worker: Arc<Worker>) -> io::Result<()> {
    let mut until = Until::new(stop, &listener);
    while let Some((stream, remote)) = until.next(|| worker.free_place(), || socket.accept()).await {
        let Some(mut place) = worker.take_place().await else { continue };
        let address = remote.ip().to_canonical();
        let policy = worker.gate.policy.load_full();
        if !is_trusted(Some(address), &policy.trusted_proxies)
            && !place.count_for(address, policy.connections.per_address)
        {
            worker.gate.metrics.connection_closed(ClosedReason::PerAddress);
            continue;
        }
        let _ = stream.set_nodelay(true);
        let _ = keepalive::allow(&SockRef::from(&stream), policy.request.write_timeout);
        let peer = Peer { address: Some(address), tls: None, listener: listener.closing.clone() };
        start(stream, peer, listener.tls.clone(), place, worker.clone());
    }
    Ok(())
}

async fn accept_unix(
    socket: UnixListener,
    listener: OpenListener,
    stop: Closing,
    worker: Arc<Worker>,
) -> io::Result<()> {
    let mut until = Until::new(stop, &listener);
    while let Some((stream, _)) = until.next(|| worker.free_place(), || socket.accept()).await {
        let Some(place) = worker.take_place().await else { continue };
        let peer = Peer { address: None, tls: None, listener: listener.closing.clone() };
        start(stream, peer, listener.tls.clone(), place, worker.clone());
    }
    Ok(())
}

/// When accepting is over.
struct Until {
    /// The task was told to stop.
    stop: Closing,
    /// The listener itself closes.
    listener: Closing,
    /// How many connections are taken once it closes.
    last: u32,
}

impl Until {
    fn new(stop: Closing, listener: &OpenListener) -> Self {
        Self { stop, listener: listener.closing.clone(), last: BACKLOG.unsigned_abs() }
    }

    /// The next connection, or `None` when accepting is over. A listener that closes first hands out what the system has already
    /// accepted for it, which would be reset with its socket, and no more than that: those who keep coming could hold it open
    /// for ever. One that stays leaves that to its next task.
    async fn next<T, F: Future<Output = ()>, A: Future<Output = io::Result<T>>>(
        &mut self,
        free: impl Fn() -> F,
        mut accept: impl FnMut() -> A,
    ) -> Option<T> {
        loop {
            if self.stop.is_closing() {
                if !self.listener.is_closing() || self.last == 0 {
                    return None;
                }
                self.last -= 1;
            }
            tokio::select! {
                biased;
                () = free() => {}
                () = self.stop.clone().closed() => return None,
            }
            let accepted = tokio::select! {
                biased;
                accepted = accept() => accepted,
                () = self.stop.clone().closed() => return None,
            };
            match accepted {
                Ok(connection) => return Some(connection),
                Err(error) => pause_after(&error).await,
            }
        }
    }
}

/// Serves one connection from its first byte to its last, in the place it was given, as a task of its own.
fn start<S>(stream: S, peer: Peer, tls: Option<TlsAcceptor>, place: Place, worker: Arc<Worker>)
where
    S: Abort + AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let held = Held { _place: place, _open: worker.gate.metrics.connection() };
    // What each kind needs stands in its task alone: an idle plain connection has no room for a handshake.
    match tls {
        None => drop(tokio::spawn(serve_http1(Connection::new(stream, peer, worker, held)))),
        Some(tls) => drop(tokio::spawn(serve_tls(stream, peer, tls, worker, held))),
    }
}

async fn serve_tls<S>(stream: S, peer: Peer, tls: TlsAcceptor, worker: Arc<Worker>, held: Held)
where
    S: Abort + AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Boxed: a handshake needs more room than the connection that follows it.
    match Box::pin(shake_hands(stream, peer, tls, worker, held)).await {
        Some(Secured::Http1(connection)) => serve_http1(connection).await,
        Some(Secured::Http2(serving)) => serving.await,
        None => {}
    }
}

/// What follows a handshake.
enum Secured<S> {
    Http1(Box<Connection<Box<TlsStream<S>>>>),
    Http2(Pin<Box<dyn Future<Output = ()> + Send>>),
}

async fn shake_hands<S>(
    stream: S,
    mut peer: Peer,
    tls: TlsAcceptor,
    worker: Arc<Worker>,
    held: Held,
) -> Option<Secured<S>>
where
    S: Abort + AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let timeout = worker.gate.policy.load().connections.handshake_timeout;
    let (stream, negotiated) = match handshake::accept(&tls, stream, timeout).await {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::debug!(remote = ?peer.address, %error, "no TLS connection");
            let (result, reason) = match error {
                HandshakeError::Timeout => (HandshakeResult::Timeout, ClosedReason::HandshakeTimeout),
                HandshakeError::Closed | HandshakeError::Failed(_) => {
                    (HandshakeResult::Failed, ClosedReason::HandshakeFailed)
                }
            };
            worker.gate.metrics.handshake(result);
            worker.gate.metrics.connection_closed(reason);
            return None;
        }
    };
    worker.gate.metrics.handshake(if negotiated.resumed { HandshakeResult::Resumed } else { HandshakeResult::Full });
    peer.tls = Some(if negotiated.tls13 { "1.3" } else { "1.2" });
    if !negotiated.http2 {
        return Some(Secured::Http1(Connection::new(stream, peer, worker, held)));
    }
    Some(Secured::Http2(Box::pin(async move {
        let _held = held;
        let gate = worker.gate.clone();
        let reason = or_fault(http2::serve(stream, Arc::new(peer), worker)).await;
        gate.metrics.connection_closed(reason);
    })))
}

async fn serve_http1<S>(connection: Box<Connection<S>>)
where
    S: Abort + AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let gate = connection.worker.gate.clone();
    let reason = or_fault(connection::serve(connection)).await;
    gate.metrics.connection_closed(reason);
}

/// A panic where no request can be answered any more, in a tunnel for one, ends its connection and is counted as that.
async fn or_fault(serving: impl Future<Output = ClosedReason>) -> ClosedReason {
    AssertUnwindSafe(serving).catch_unwind().await.unwrap_or(ClosedReason::Fault)
}

/// Errors of one connection that failed before it was accepted pass; what the system lacks comes back with time.
async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    if !matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
        tracing::warn!(%error, "cannot accept a connection");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

impl Worker {
    async fn free_place(&self) {
        self.gate.connections.free(|| self.gate.policy.load().connections.max).await;
    }

    /// A place for a connection just accepted; waits where another worker was faster.
    async fn take_place(&self) -> Option<Place> {
        loop {
            let max = self.gate.policy.load().connections.max;
            if let Some(place) = self.gate.connections.take(max) {
                return Some(place);
            }
            self.free_place().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    /// How many connections are taken of those who never stop coming, until accepting is over or `most` are in.
    async fn taken(stop: Closing, listener: Closing, most: usize) -> usize {
        let mut until = Until { stop, listener, last: 3 };
        let mut taken = 0;
        while taken < most && until.next(|| ready(()), || ready(Ok(()))).await.is_some() {
            taken += 1;
        }
        taken
    }

    fn closed() -> Closing {
        Closing::new().1
    }

    #[tokio::test]
    async fn who_keeps_coming_does_not_hold_a_closing_listener_open() {
        let (_open, open) = Closing::new();
        assert_eq!(taken(open.clone(), open.clone(), 100).await, 100, "it serves");
        assert_eq!(taken(closed(), closed(), 100).await, 3, "no more than what may have waited");
        assert_eq!(taken(closed(), open, 100).await, 0, "the rest is its next task's");
    }

    #[tokio::test]
    async fn nobody_waits_for_a_closing_listener_to_be_asked() {
        let mut until = Until { stop: closed(), listener: closed(), last: 3 };
        assert_eq!(until.next(|| ready(()), pending::<io::Result<()>>).await, None);
        let full = until.next(pending, || ready(Ok(()))).await;
        assert_eq!(full, None, "a full gate waits for no place");
    }
}
