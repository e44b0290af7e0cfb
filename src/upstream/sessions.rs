//! HTTP/2 connections of one worker to servers that speak it. Each carries many requests at once, so they are not lent like
//! the connections of `pool` but shared: a request takes a place on one, and another is opened only when all are full.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use tokio::sync::OwnedMutexGuard;
use tokio::time::{sleep, timeout};

use super::connect::ConnectError;
use super::era::Era;
use super::pool::PoolKey;
use super::server::{Lease, Server};
use super::stream::UpstreamStream;
use super::{Settings, Upstream};
use crate::http1::response::MAX_RESPONSE_HEAD_BYTES;

/// Most requests on one connection, whatever the server allows.
const MAX_STREAMS: usize = 100;
/// Bytes of one answer that may be under way.
const STREAM_WINDOW: u32 = 128 * 1024;
/// Bytes of all answers of a connection: so many that clients who do not read hold up none of the others.
const WINDOW: u32 = STREAM_WINDOW * 100;
/// What small frames may cost, by the crate's count, from when they arrive until their streams take them in: 125,000 at
/// most, which is more than one turn of the connection reads. More of them end the connection for all that share it.
const SMALL_FRAMES: usize = 2 * WINDOW as usize;
/// Most bytes of a request body held per stream.
const SEND_BUFFER: usize = 64 * 1024;
/// What a connection allows before its server has said how many streams it takes; no server can say as much.
const UNTOLD: usize = usize::MAX - 1;

/// The HTTP/2 connections of one worker.
#[derive(Debug, Default)]
pub struct Sessions {
    // Uncontended, as in `pool`.
    shelves: Mutex<Shelves>,
}

#[derive(Debug, Default)]
struct Shelves {
    groups: HashMap<PoolKey, Group>,
    /// Connections opened so far: each has its number.
    opened: u64,
}

/// Connections to one server of one era of an upstream.
#[derive(Debug)]
struct Group {
    era: Arc<Era>,
    keepalive: Duration,
    /// Held while a connection is opened and until its server has said how many streams it takes, so that many requests at
    /// once open as many connections as they need and no more.
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
    number: u64,
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
        if let Some(place) = sessions.take(self, first, 0, now) {
            return Ok(place);
        }
        Box::pin(self.open_place(sessions, first, 0, now)).await
    }

    /// A place on a new connection, for the one retry: one that was opened after the first `opened` ones. Requests that
    /// failed together go to the same.
    pub async fn place_on_new(
        &self,
        sessions: &Sessions,
        random: u64,
        opened: u64,
        now: Instant,
    ) -> Result<Place, ConnectError> {
        let first = self.choose(random).ok_or(ConnectError::NoServer)?;
        Box::pin(self.open_place(sessions, first, opened, now)).await
    }

    /// A place at the first of the healthy servers, from the one at `first` on, that has one or can be reached.
    async fn open_place(
        &self,
        sessions: &Sessions,
        first: usize,
        opened: u64,
        now: Instant,
    ) -> Result<Place, ConnectError> {
        let mut failed = ConnectError::NoServer;
        for (index, server) in self.in_turn(first) {
            match self.open_place_at(sessions, index, server, opened, now).await {
                Ok(place) => return Ok(place),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn open_place_at(
        &self,
        sessions: &Sessions,
        index: usize,
        server: &Arc<Server>,
        opened: u64,
        now: Instant,
    ) -> Result<Place, ConnectError> {
        if let Some(place) = sessions.take(self, index, opened, now) {
            return Ok(place);
        }
        let opening = sessions.opening(self, index);
        let turn = timeout(self.settings.connect_timeout, opening.lock_owned()).await;
        let turn = turn.map_err(|_elapsed| ConnectError::Timeout { server: server.label().into() })?;
        match sessions.take(self, index, opened, now) {
            Some(place) => Ok(place),
            None => self.open_session(sessions, index, server, turn, now).await,
        }
    }

    async fn open_session(
        &self,
        sessions: &Sessions,
        index: usize,
        server: &Arc<Server>,
        turn: OwnedMutexGuard<()>,
        now: Instant,
    ) -> Result<Place, ConnectError> {
        let (stream, key, era, lease) = self.open_at(index, server).await?.into_session();
        let handshake = Builder::new()
            .initial_max_send_streams(UNTOLD)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(WINDOW)
            .data_frame_budget(SMALL_FRAMES)
            .max_header_list_size(MAX_RESPONSE_HEAD_BYTES as u32)
            .max_send_buffer_size(SEND_BUFFER)
            .enable_push(false)
            .handshake(stream);
        let shaken = timeout(self.settings.connect_timeout, handshake).await;
        let shaken = shaken.map_err(|_elapsed| ConnectError::Timeout { server: server.label().into() })?;
        let (send, connection) = shaken.map_err(|error| ConnectError::Refused {
            server: server.label().into(),
            source: io::Error::other(error),
        })?;
        let Settings { name, connect_timeout, keepalive_timeout: keepalive, .. } = &self.settings;
        tokio::spawn(drive(connection, turn, *connect_timeout, name.clone(), server.clone()));
        Ok(sessions.put(era, *keepalive, key, send, lease, now))
    }
}

/// Drives a connection until the server closes it, or nobody can open a stream on it any more and all have ended. Keeps the
/// `turn` to open connections until the server has said how many streams it takes, or was given the time to.
async fn drive(
    connection: Connection<UpstreamStream, Bytes>,
    turn: OwnedMutexGuard<()>,
    patience: Duration,
    upstream: Arc<str>,
    server: Arc<Server>,
) {
    let (mut turn, mut connection) = (Some(turn), pin!(connection));
    let mut late = pin!(sleep(patience));
    let ended = poll_fn(|cx| {
        let ended = connection.as_mut().poll(cx);
        if turn.is_some() && (connection.max_concurrent_send_streams() != UNTOLD || late.as_mut().poll(cx).is_ready()) {
            turn = None;
        }
        ended
    });
    let ended = ended.await;
    let told = connection.max_concurrent_send_streams() != UNTOLD;
    let (upstream, server) = (&*upstream, server.label());
    match ended {
        // An alert that refuses our certificate may be lost with the reset that follows it.
        ended if !told => {
            let error = ended.err().map(|error| error.to_string());
            let hint = "it may not speak HTTP/2, or not like our certificate";
            tracing::warn!(upstream, server, error, hint, "an upstream ended a connection before it spoke HTTP/2");
        }
        Err(error) if error.get_io().is_none_or(|error| error.kind() == io::ErrorKind::InvalidData) => {
            tracing::warn!(upstream, server, %error, "an HTTP/2 connection to an upstream broke");
        }
        // Many servers close what was idle without a word.
        Err(error) => tracing::debug!(upstream, server, %error, "an HTTP/2 connection to an upstream ended"),
        Ok(()) => {}
    }
}

impl Sessions {
    /// Opens no more streams on the connection that `place` is on: it gave no answer in time, or broke.
    pub fn discard(&self, place: &Place) {
        if let Some(group) = self.shelves().groups.get_mut(&place.key) {
            group.sessions.retain(|session| !Arc::ptr_eq(&session.places, &place.places));
        }
    }

    /// Lets go of connections that ended, that nobody used for the upstream's `keepalive_timeout`, or that are left over from
    /// an older configuration; requests on them go on.
    pub fn sweep(&self, now: Instant) {
        self.shelves().groups.retain(|_, group| {
            for session in group.sessions.iter_mut().filter(|session| session.streams() > 0) {
                session.used = now;
            }
            let over = group.era.is_over();
            group.sessions.retain_mut(|session| !over && session.is_open() && now < session.used + group.keepalive);
            !over
        });
    }

    /// Connections opened so far.
    pub fn opened(&self) -> u64 {
        self.shelves().opened
    }

    /// A place on the first connection that has one, of those that were opened after the first `opened`, as far as can be
    /// told without asking the server.
    fn take(&self, upstream: &Upstream, index: usize, opened: u64, now: Instant) -> Option<Place> {
        let server = upstream.servers.get(index)?;
        let key = PoolKey::new(&upstream.era(), index, None);
        let mut shelves = self.shelves();
        let group = shelves.groups.get_mut(&key)?;
        group.sessions.retain_mut(Session::is_open);
        let addresses = server.addresses();
        let current = |address: &Option<SocketAddr>| address.is_none_or(|address| addresses.contains(&address));
        let fits = |session: &&mut Session| session.number > opened && session.has_room() && current(&session.address);
        let session = group.sessions.iter_mut().find(fits)?;
        session.used = now;
        let (send, places) = (session.send.clone(), session.places.clone());
        Some(Place { send, lease: Lease::new(server), key, places, reused: true })
    }

    fn put(
        &self,
        era: Arc<Era>,
        keepalive: Duration,
        key: PoolKey,
        send: SendRequest<Bytes>,
        lease: Lease,
        now: Instant,
    ) -> Place {
        let mut shelves = self.shelves();
        shelves.opened += 1;
        let (places, number) = (Arc::new(()), shelves.opened);
        let session = Session { send: send.clone(), address: key.address(), places: places.clone(), used: now, number };
        let key = key.without_address();
        if !era.is_over() {
            shelves.groups.entry(key).or_insert_with(|| Group::new(era, keepalive)).sessions.push(session);
        }
        Place { send, lease, key, places, reused: false }
    }

    fn opening(&self, upstream: &Upstream, index: usize) -> Arc<tokio::sync::Mutex<()>> {
        let era = Arc::clone(&upstream.era());
        let key = PoolKey::new(&era, index, None);
        let group = || Group::new(era, upstream.settings.keepalive_timeout);
        self.shelves().groups.entry(key).or_insert_with(group).opening.clone()
    }

    /// A panic while the lock was held leaves nothing half done that the next sweep does not mend.
    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Group {
    fn new(era: Arc<Era>, keepalive: Duration) -> Self {
        Self { era, keepalive, opening: Arc::default(), sessions: Vec::new() }
    }
}

impl Session {
    /// Requests on it.
    fn streams(&self) -> usize {
        Arc::strong_count(&self.places).saturating_sub(1)
    }

    fn has_room(&self) -> bool {
        let allowed = self.send.current_max_send_streams();
        allowed != UNTOLD && self.streams() < allowed.min(MAX_STREAMS)
    }

    /// Whether it may open streams: not closed, and not told to go.
    fn is_open(&mut self) -> bool {
        !matches!(self.send.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)))
    }
}
