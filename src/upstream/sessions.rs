//! HTTP/2 connections of one worker to servers that speak it. Each carries many requests at once, so they are not lent like
//! the connections of `pool` but shared: a request takes a place on one, and another is opened only when all are full.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use tokio::time::timeout;

use super::Upstream;
use super::connect::ConnectError;
use super::pool::PoolKey;
use super::server::{Lease, Server};
use crate::http1::response::MAX_RESPONSE_HEAD_BYTES;

/// Most requests on one connection, whatever the server allows.
const MAX_STREAMS: usize = 100;
/// Bytes of one answer that may be under way.
const STREAM_WINDOW: u32 = 128 * 1024;
/// Bytes of all answers of a connection: so many that clients who do not read hold up none of the others.
const WINDOW: u32 = STREAM_WINDOW * 100;
/// Most bytes of a request body held per stream.
const SEND_BUFFER: usize = 64 * 1024;

/// The HTTP/2 connections of one worker.
#[derive(Debug, Default)]
pub struct Sessions {
    // Uncontended, as in `pool`.
    groups: Mutex<HashMap<PoolKey, Group>>,
}

/// Connections to one server of one upstream of one configuration.
#[derive(Debug)]
struct Group {
    retired: Arc<AtomicBool>,
    keepalive: Duration,
    /// Held while a connection is opened, so that many requests at once open one and not many.
    opening: Arc<tokio::sync::Mutex<()>>,
    sessions: Vec<Session>,
}

#[derive(Debug)]
struct Session {
    send: SendRequest<Bytes>,
    address: Option<SocketAddr>,
    /// One more reference for each request on it.
    places: Arc<()>,
    used: Instant,
}

/// A request's place on a connection.
#[derive(Debug)]
pub struct Place {
    /// Opens the one stream it is for.
    pub send: SendRequest<Bytes>,
    lease: Lease,
    key: PoolKey,
    places: Arc<()>,
    reused: bool,
}

impl Place {
    /// Whether the connection had been used before.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// The server at its other end.
    pub fn server(&self) -> &Arc<Server> {
        self.lease.server()
    }
}

impl Upstream {
    /// A place on a connection to the server whose turn it is, which is opened if none has room. A server that cannot be
    /// reached is passed over as by [`Upstream::connect`].
    pub async fn place(&self, sessions: &Sessions, random: u64, now: Instant) -> Result<Place, ConnectError> {
        let first = self.choose(random).ok_or(ConnectError::NoServer)?;
        if let Some(place) = sessions.take(self, first, now) {
            return Ok(place);
        }
        Box::pin(self.open_place(sessions, first, now)).await
    }

    /// A place on a new connection, for the one retry.
    pub async fn place_on_new(&self, sessions: &Sessions, random: u64, now: Instant) -> Result<Place, ConnectError> {
        let first = self.choose(random).ok_or(ConnectError::NoServer)?;
        Box::pin(self.open_session(sessions, first, now)).await
    }

    async fn open_place(&self, sessions: &Sessions, first: usize, now: Instant) -> Result<Place, ConnectError> {
        let opening = sessions.opening(self, first);
        let label = || self.servers.get(first).map(|server| server.label().into()).unwrap_or_default();
        let turn = timeout(self.settings.connect_timeout, opening.lock()).await;
        let _turn = turn.map_err(|_elapsed| ConnectError::Timeout { server: label() })?;
        match sessions.take(self, first, now) {
            Some(place) => Ok(place),
            None => self.open_session(sessions, first, now).await,
        }
    }

    async fn open_session(&self, sessions: &Sessions, first: usize, now: Instant) -> Result<Place, ConnectError> {
        let connection = self.open_from(first).await?;
        let server = connection.server().clone();
        let (stream, key, lease) = connection.into_session();
        let handshake = Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(MAX_RESPONSE_HEAD_BYTES as u32)
            .max_send_buffer_size(SEND_BUFFER)
            .enable_push(false)
            .handshake(stream);
        let shaken = timeout(self.settings.connect_timeout, handshake).await;
        let shaken = shaken.map_err(|_elapsed| ConnectError::Timeout { server: server.label().into() })?;
        let (send, connection) = shaken.map_err(|error| ConnectError::Refused {
            server: server.label().into(),
            source: std::io::Error::other(error),
        })?;
        let label = server.label().to_owned();
        // Ends when the server closes, or when nobody can open a stream on it any more and all have ended.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(server = label, %error, "an HTTP/2 connection to an upstream ended");
            }
        });
        Ok(sessions.put(self, key, send, lease, now))
    }
}

impl Sessions {
    /// Opens no more streams on the connection that `place` is on: it gave no answer in time, or broke.
    pub fn discard(&self, place: &Place) {
        if let Some(group) = self.groups().get_mut(&place.key) {
            group.sessions.retain(|session| !Arc::ptr_eq(&session.places, &place.places));
        }
    }

    /// Lets go of connections that ended, that nobody used for the upstream's `keepalive_timeout`, or that are left over from
    /// an older configuration; requests on them go on.
    pub fn sweep(&self, now: Instant) {
        self.groups().retain(|_, group| {
            for session in group.sessions.iter_mut().filter(|session| session.streams() > 0) {
                session.used = now;
            }
            let retired = group.retired.load(Ordering::Relaxed);
            group.sessions.retain_mut(|session| !retired && session.is_open() && now < session.used + group.keepalive);
            !retired
        });
    }

    /// A place on the first connection that has one, as far as can be told without asking the server.
    fn take(&self, upstream: &Upstream, index: usize, now: Instant) -> Option<Place> {
        let server = upstream.servers.get(index)?;
        let key = PoolKey::new(upstream, index, None);
        let mut groups = self.groups();
        let group = groups.get_mut(&key)?;
        group.sessions.retain_mut(Session::is_open);
        let addresses = server.addresses();
        let current = |address: &Option<SocketAddr>| address.is_none_or(|address| addresses.contains(&address));
        let session = group.sessions.iter_mut().find(|session| session.has_room() && current(&session.address))?;
        session.used = now;
        let (send, places) = (session.send.clone(), session.places.clone());
        Some(Place { send, lease: Lease::new(server), key, places, reused: true })
    }

    fn put(&self, upstream: &Upstream, key: PoolKey, send: SendRequest<Bytes>, lease: Lease, now: Instant) -> Place {
        let places = Arc::new(());
        let session = Session { send: send.clone(), address: key.address(), places: places.clone(), used: now };
        let key = key.without_address();
        if !upstream.is_retired() {
            let mut groups = self.groups();
            groups.entry(key).or_insert_with(|| Group::new(upstream)).sessions.push(session);
        }
        Place { send, lease, key, places, reused: false }
    }

    fn opening(&self, upstream: &Upstream, index: usize) -> Arc<tokio::sync::Mutex<()>> {
        let mut groups = self.groups();
        let key = PoolKey::new(upstream, index, None);
        groups.entry(key).or_insert_with(|| Group::new(upstream)).opening.clone()
    }

    /// A panic while the lock was held leaves nothing half done that the next sweep does not mend.
    fn groups(&self) -> MutexGuard<'_, HashMap<PoolKey, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Group {
    fn new(upstream: &Upstream) -> Self {
        let keepalive = upstream.settings.keepalive_timeout;
        Self { retired: upstream.retired.clone(), keepalive, opening: Arc::default(), sessions: Vec::new() }
    }
}

impl Session {
    /// Requests on it.
    fn streams(&self) -> usize {
        Arc::strong_count(&self.places).saturating_sub(1)
    }

    fn has_room(&self) -> bool {
        self.streams() < self.send.current_max_send_streams().min(MAX_STREAMS)
    }

    /// Whether it may open streams: not closed, and not told to go.
    fn is_open(&mut self) -> bool {
        !matches!(self.send.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)))
    }
}
