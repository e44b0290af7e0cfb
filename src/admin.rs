//! The separate listener for operators: metrics, liveness and readiness; no configuration, environment or secret on display.

mod connection;
mod readiness;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};

pub use self::readiness::{NotReady, Readiness};
use crate::metrics::{self, Metrics};

/// Most connections at once; more wait to be accepted.
pub const MAX_CONNECTIONS: usize = 64;

/// Pause after a failed accept: the process is out of descriptors, and asking again at once does not help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the operators' listener shows.
pub struct AdminState {
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// What `/readyz` says.
    pub readiness: Arc<Readiness>,
}

/// The operators' listener, bound.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(UnixListener),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

/// Serves until `shutdown` turns true or its sender is gone, then closes every connection after the answer it is at.
///
/// Draining is told through [`Readiness::set_draining`]; `shutdown` is for after the drain, so that `/readyz` answers 503
/// and the last metrics can be scraped as long as there are requests (decision 27).
pub async fn serve(listener: impl Into<Listener>, state: Arc<AdminState>, shutdown: watch::Receiver<bool>) {
    let listener = listener.into();
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    tokio::select! {
        () = ended(shutdown.clone()) => {}
        () = accept(&listener, &state, &room, &shutdown) => {}
    }
    drop(listener);
    // All the room is free when the last connection has closed; each has a deadline for whatever it is doing.
    let _all = room.acquire_many(u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX)).await;
}

async fn accept(listener: &Listener, state: &Arc<AdminState>, room: &Arc<Semaphore>, shutdown: &watch::Receiver<bool>) {
    // An error says that the semaphore was closed, which nobody does.
    while let Ok(place) = Arc::clone(room).acquire_owned().await {
        let (state, shutdown) = (Arc::clone(state), shutdown.clone());
        let accepted = match listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                spawn(place, async move { connection::run(stream, &state, ended(shutdown)).await });
            }),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                spawn(place, async move { connection::run(stream, &state, ended(shutdown)).await });
            }),
        };
        if let Err(error) = accepted {
            tracing::warn!(%error, "the admin listener cannot accept");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

fn spawn(place: tokio::sync::OwnedSemaphorePermit, connection: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(async move {
        connection.await;
        drop(place);
    });
}

async fn ended(mut shutdown: watch::Receiver<bool>) {
    // An error says that the sender is gone, and with it the gate.
    let _ = shutdown.wait_for(|ended| *ended).await;
}

/// One answer of the admin listener.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    status: u16,
    content_type: &'static str,
    body: String,
}

impl Page {
    fn text(status: u16, body: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: format!("{body}\n") }
    }
}

/// The page at `target` for GET and HEAD alike.
fn page(state: &AdminState, method: &str, target: &str) -> Page {
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    if !matches!(path, "/metrics" | "/healthz" | "/readyz") {
        return Page::text(404, "not found");
    }
    if !matches!(method, "GET" | "HEAD") {
        return Page::text(405, "method not allowed");
    }
    match path {
        "/metrics" => match state.metrics.encode() {
            Ok(body) => Page { status: 200, content_type: metrics::CONTENT_TYPE, body },
            Err(error) => {
                tracing::error!(%error, "metrics cannot be shown");
                Page::text(500, "metrics cannot be shown")
            }
        },
        "/healthz" => Page::text(200, "ok"),
        _ => match state.readiness.check() {
            Ok(()) => Page::text(200, "ready"),
            Err(reason) => Page::text(503, reason.text()),
        },
    }
}
