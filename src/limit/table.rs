//! Buckets for strangers: a table whose size is fixed when it is made, because anybody can have many addresses.
//!
//! Keys are hashed to sets of a few places, each behind its own small lock. A new key in a full set takes the place of
//! the bucket that is nearest to full: the one whose loss gives its owner the least.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Rate;
use super::bucket::Bucket;

/// Places in a set.
const WAYS: usize = 16;

type Set<K> = Vec<(K, Bucket)>;

/// At most as many buckets as it was made for.
#[derive(Debug)]
pub(super) struct Table<K> {
    sets: Box<[Mutex<Set<K>>]>,
    ways: usize,
    capacity: usize,
    /// Keyed anew at each start, so that nobody can aim at a set.
    hasher: RandomState,
}

impl<K: Copy + Eq + Hash> Table<K> {
    /// An empty table for at most `capacity` keys, and at least one.
    pub(super) fn new(capacity: usize) -> Self {
        let sets = (capacity / WAYS).max(1);
        Self {
            sets: std::iter::repeat_with(Mutex::default).take(sets).collect(),
            ways: capacity.clamp(1, WAYS),
            capacity,
            hasher: RandomState::new(),
        }
    }

    /// What it was made for.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Runs `act` on the bucket of `key`, full if it is new, settled to `rate` and `now`.
    pub(super) fn with<R>(&self, key: K, rate: Rate, now: Instant, act: impl FnOnce(&mut Bucket) -> R) -> R {
        let fresh = || (key, Bucket::full(rate, now));
        let Some(mut set) = self.set(&key) else { return act(&mut fresh().1) };
        let place = match set.iter().position(|(own, _)| *own == key) {
            Some(place) => place,
            None if set.len() < self.ways => {
                set.push(fresh());
                set.len() - 1
            }
            None => {
                let nearest = set.iter().enumerate().min_by_key(|(_, (_, bucket))| bucket.time_to_full(now));
                let place = nearest.map_or(0, |(place, _)| place);
                if let Some(slot) = set.get_mut(place) {
                    *slot = fresh();
                }
                place
            }
        };
        match set.get_mut(place) {
            Some((_, bucket)) => {
                bucket.settle(rate, now);
                act(bucket)
            }
            None => act(&mut fresh().1),
        }
    }

    /// The time until the bucket of `key` has a token; `None` when it has, or when the key is not known.
    pub(super) fn wait(&self, key: K, rate: Rate, now: Instant) -> Option<Duration> {
        let (_, mut bucket) = self.set(&key)?.iter().find(|(own, _)| *own == key).copied()?;
        bucket.settle(rate, now);
        bucket.wait()
    }

    /// How many keys it holds now. Looks at every set: for metrics, not for requests.
    pub(super) fn len(&self) -> usize {
        self.sets.iter().map(|set| unpoisoned(set).len()).sum()
    }

    /// A number for `name` that stays the same while the table lives.
    pub(super) fn token(&self, name: &str) -> u64 {
        self.hasher.hash_one(name)
    }

    fn set(&self, key: &K) -> Option<MutexGuard<'_, Set<K>>> {
        let index = usize::try_from(self.hasher.hash_one(key) % self.sets.len() as u64).ok()?;
        self.sets.get(index).map(unpoisoned)
    }
}

/// A panic while a lock was held leaves counters that are at worst a little off; service goes on.
pub(super) fn unpoisoned<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
