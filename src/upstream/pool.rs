//! Idle connections of one worker, newest first. Not `pingora_pool::ConnectionPool`: that one watches each idle connection
//! from a task of its own, which must be spawned with a timer for every request that ends and woken and waited for by every
//! request that takes the connection back; it hands out the oldest of sixteen first, so that connections stay open which a
//! quiet hour does not need; and its locks and queues serve workers that share a pool, which ours do not. Here a take is one
//! look-up and one look at the socket, and one sweep a second drops what the servers closed or nobody needed.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::Upstream;
use super::connect::Connection;
use super::era::Era;
use super::server::Server;
use super::stream::{Seen, UpstreamStream};

/// What makes connections equal: the era of an upstream, the server, and the address it had when connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PoolKey {
    /// Where the era lies. A group and every connection hold it, so no other can get the same place while there are
    /// connections to find under it.
    era: usize,
    server: usize,
    address: Option<SocketAddr>,
}

impl PoolKey {
    pub(super) fn new(era: &Arc<Era>, server: usize, address: Option<SocketAddr>) -> Self {
        Self { era: Arc::as_ptr(era).addr(), server, address }
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The same server, whatever its address.
    pub(super) fn without_address(self) -> Self {
        Self { address: None, ..self }
    }
}

/// The idle connections of one worker. Sharing it between workers is safe but would move sockets between reactors.
#[derive(Debug)]
pub struct Pool {
    // Uncontended: one thread uses it. It is a lock only because tasks of any runtime must be `Send`.
    shelves: Mutex<Shelves>,
    most_idle: usize,
}

#[derive(Debug, Default)]
struct Shelves {
    groups: HashMap<PoolKey, Group>,
    count: usize,
}

#[derive(Debug)]
struct Group {
    era: Arc<Era>,
    upstream: Arc<str>,
    server: Arc<Server>,
    /// Oldest first.
    idle: VecDeque<Idle>,
}

#[derive(Debug)]
struct Idle {
    stream: UpstreamStream,
    expires: Instant,
}

impl Idle {
    /// Whether another request may go out on it; one whose server speaks unasked tells on the others.
    fn is_usable(&mut self, upstream: &str, server: &Server, now: Instant) -> bool {
        let seen = self.stream.look();
        if seen == Seen::Spoke {
            server.note_unasked(upstream, now);
        }
        seen == Seen::Quiet && now < self.expires && server.is_in_step(now)
    }
}

impl Pool {
    /// An empty pool that holds at most `most_idle` connections over all upstreams.
    pub fn new(most_idle: usize) -> Self {
        Self { shelves: Mutex::default(), most_idle }
    }

    /// Gives back a connection after a whole exchange. One that is not `in_step`, with bytes behind the answer that nobody asked
    /// for, is let go of, and tells on its server's others.
    pub fn give_back(&self, upstream: &Upstream, connection: Connection, in_step: bool, now: Instant) {
        if in_step {
            self.put(upstream, connection, now);
        } else {
            connection.server().note_unasked(&upstream.settings.name, now);
        }
    }

    /// Keeps a connection after a clean exchange, for at most the upstream's `keepalive_timeout`. A full pool lets go of
    /// the oldest of the same group, or of this one.
    pub fn put(&self, upstream: &Upstream, connection: Connection, now: Instant) {
        let keep = upstream.settings.keepalive_timeout;
        let (stream, key, era, server) = connection.into_idle();
        if keep.is_zero() || era.is_over() || !server.is_in_step(now) {
            return;
        }
        let mut shelves = self.shelves();
        let full = shelves.count >= self.most_idle;
        let group = || Group { era, upstream: upstream.settings.name.clone(), server, idle: VecDeque::new() };
        let group = shelves.groups.entry(key).or_insert_with(group);
        if full && group.idle.pop_front().is_none() {
            return;
        }
        group.idle.push_back(Idle { stream, expires: now + keep });
        if !full {
            shelves.count += 1;
        }
    }

    /// The newest connection of the group that still lives, as far as can be told without asking the server.
    pub(super) fn take(&self, key: &PoolKey, now: Instant) -> Option<UpstreamStream> {
        let mut shelves = self.shelves();
        let Shelves { groups, count } = &mut *shelves;
        let group = groups.get_mut(key)?;
        while let Some(mut idle) = group.idle.pop_back() {
            *count -= 1;
            if idle.is_usable(&group.upstream, &group.server, now) {
                return Some(idle.stream);
            }
        }
        None
    }

    /// Drops connections that are past their time, closed by the server, not to be trusted or left over from an older era.
    pub fn sweep(&self, now: Instant) {
        let mut shelves = self.shelves();
        shelves.groups.retain(|_, group| {
            if group.era.is_over() {
                return false;
            }
            let Group { upstream, server, idle, .. } = group;
            idle.retain_mut(|idle| idle.is_usable(upstream, server, now));
            !idle.is_empty()
        });
        shelves.count = shelves.groups.values().map(|group| group.idle.len()).sum();
    }

    /// Idle connections held now.
    pub fn len(&self) -> usize {
        self.shelves().count
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A panic while the lock was held leaves at worst a wrong count, which the next sweep mends.
    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
