//! Asks in, permits out: finds the state of a key, or of an address on a public route, and lets it decide. One limiter lives
//! as long as the process; configurations come and go, state stays with the key id.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;

use super::activity::Activity;
use super::address::Address;
use super::fields::Fields;
use super::permit::Permit;
use super::quota::{QuotaCount, QuotaCounts};
use super::state::KeyState;
use super::table::Table;
use super::{Limits, Rate};
use crate::key::KeyId;
use crate::moment::Now;
use crate::rejection::{Limited, Rejection};

/// One request that wants to be admitted.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Whose limits count.
    pub caller: Caller<'a>,
    /// The route's name and its own `limits`, if it has any: one more bucket per caller and name.
    pub route: Option<(&'a Arc<str>, Rate)>,
    /// Whether it is a WebSocket handshake.
    pub websocket: bool,
}

/// Who asks. Only what was verified or cannot be chosen freely: a good key's id, or the client's address.
#[derive(Clone, Copy, Debug)]
pub enum Caller<'a> {
    /// A good key and the limits in force for it (decision 13: its own, else the default).
    Key(&'a KeyId, &'a Limits),
    /// A client without a key on a public route.
    Address(Address),
}

/// Why a request was not admitted; it spent nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The bound that was met; of several, the one that takes longest.
    pub limited: Limited,
    /// The time until one more request would be admitted; for what is counted at once, a second.
    pub wait: Duration,
    /// How the limits stand, for the answer's header.
    pub fields: Fields,
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self::TooManyRequests(refusal.limited, refusal.wait)
    }
}

/// All counters of all keys, and of strangers on public routes.
#[derive(Debug)]
pub struct Limiter {
    keys: DashMap<KeyId, Arc<KeyState>>,
    strangers: Table<(Address, u64)>,
    /// Whether somebody takes what keys did. If nobody does, it may be forgotten.
    is_recorded: bool,
}

impl Limiter {
    /// A limiter that has counted nothing, and will remember at most `max_addresses` pairs of address and public route.
    pub fn new(max_addresses: usize) -> Self {
        Self { keys: DashMap::new(), strangers: Table::new(max_addresses), is_recorded: false }
    }

    /// The same, for one whose [`Limiter::take_activity`] is called again and again: a key is not forgotten before what it
    /// did was taken.
    pub fn recorded(self) -> Self {
        Self { is_recorded: true, ..self }
    }

    /// Admits a request or says what stands against it. All limits must admit; a refusal spends none (decision 13).
    ///
    /// The permit must live as long as the request: dropping it gives `concurrent` back.
    pub fn admit(&self, ask: &Ask<'_>, now: Now) -> Result<Permit, Refusal> {
        match ask.caller {
            Caller::Key(id, limits) => self.state(id).admit(limits, ask.route, ask.websocket, now),
            Caller::Address(address) => self.admit_stranger(address, ask.route, now),
        }
    }

    /// Calls `write` with what each key used of its quota, to be kept over a restart: the window it was counted in last,
    /// and those before.
    pub fn quota_counts(&self, mut write: impl FnMut(&KeyId, QuotaCount)) {
        for entry in &self.keys {
            entry.value().quota_counts().into_iter().flatten().for_each(|count| write(entry.key(), count));
        }
    }

    /// Hands `take` what each key did since it was last asked, if it did anything, and its quota counts now. What is handed
    /// out is not kept here: whoever takes it keeps it until it is written.
    pub fn take_activity(&self, mut take: impl FnMut(&KeyId, Activity, QuotaCounts)) {
        for entry in &self.keys {
            if let Some((activity, quotas)) = entry.value().take_activity() {
                take(entry.key(), activity, quotas);
            }
        }
    }

    /// Puts back what [`Limiter::quota_counts`] gave before the restart, below what was counted since. Once for each count.
    pub fn resume_quota(&self, id: &KeyId, count: QuotaCount) {
        self.state(id).resume_quota(count);
    }

    /// Puts back what [`Limiter::quota_counts`] gave in this run. Only raises counts.
    pub fn restore_quota(&self, id: &KeyId, count: QuotaCount) {
        self.state(id).restore_quota(count);
    }

    /// Forgets keys that are no longer in the key file, once forgetting gives nothing back: nothing in flight, buckets
    /// full, the quota's window over; nor loses anything that is yet to be written. For reloads and housekeeping, not for requests.
    pub fn forget(&self, is_known: impl Fn(&KeyId) -> bool, now: Now) {
        // A permit holds the state, and so does a request being admitted: a count of one means that nothing is in flight.
        self.keys.retain(|id, state| {
            is_known(id)
                || Arc::strong_count(state) > 1
                || !state.is_at_rest(now)
                || (self.is_recorded && state.has_activity())
        });
    }

    /// Keys that are counted now.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Poisons the lock of a key, as a panic in the middle of counting would; tells whether it worked.
    #[cfg(test)]
    pub(super) fn poison(&self, id: &KeyId) -> bool {
        self.state(id).poison()
    }

    fn state(&self, id: &KeyId) -> Arc<KeyState> {
        if let Some(state) = self.keys.get(id) {
            return Arc::clone(&state);
        }
        Arc::clone(&self.keys.entry(id.clone()).or_default())
    }

    fn admit_stranger(&self, address: Address, route: Option<(&Arc<str>, Rate)>, now: Now) -> Result<Permit, Refusal> {
        let Some((name, rate)) = route else { return Ok(Permit::unbound(Fields::default())) };
        let key = (address, self.strangers.token(name));
        self.strangers.with(key, rate, now.mono, |bucket| {
            let wait = bucket.wait();
            if wait.is_none() {
                bucket.take();
            }
            let fields = Fields { route: Some(bucket.standing()), ..Fields::default() };
            match wait {
                Some(wait) => Err(Refusal { limited: Limited::RouteRate, wait, fields }),
                None => Ok(Permit::unbound(fields)),
            }
        })
    }
}
