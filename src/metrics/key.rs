//! What is counted per key. Only keys of the key file get here, and of those only [`MAX_KEYS`]: the rest are counted
//! together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use prometheus::core::{Collector, Desc};
use prometheus::proto;

use super::collect::{family, sample};
use super::label::KeyOutcome;
use super::table;
use crate::key::KeyId;

/// Most keys with metrics of their own.
pub const MAX_KEYS: usize = 10_000;

/// Label of all keys past [`MAX_KEYS`]. No key id can hold a parenthesis, so it is nobody's.
pub const OTHER_KEYS: &str = "(other)";

/// The counters of one key.
#[derive(Debug)]
pub struct KeyMetrics {
    user: Arc<str>,
    counts: [AtomicU64; KeyOutcome::ALL.len()],
}

impl KeyMetrics {
    fn new(user: Arc<str>) -> Self {
        Self { user, counts: [const { AtomicU64::new(0) }; KeyOutcome::ALL.len()] }
    }

    /// Counts one request.
    pub fn count(&self, outcome: KeyOutcome) {
        if let Some(count) = self.counts.get(outcome as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn samples(&self, key: &str, samples: &mut Vec<proto::Metric>) {
        for (outcome, count) in KeyOutcome::ALL.iter().zip(&self.counts) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                samples.push(sample(&table::KEY_REQUESTS, [key, &self.user, outcome.label()], count as f64));
            }
        }
    }
}

/// The counters of all keys.
#[derive(Clone)]
pub(super) struct KeyCounts {
    desc: Desc,
    max: usize,
    taken: Arc<AtomicUsize>,
    keys: Arc<DashMap<KeyId, Arc<KeyMetrics>>>,
    others: Arc<KeyMetrics>,
}

impl KeyCounts {
    pub(super) fn new(max: usize) -> Result<Self, prometheus::Error> {
        Ok(Self {
            desc: table::KEY_REQUESTS.desc()?,
            max,
            taken: Arc::default(),
            keys: Arc::default(),
            others: Arc::new(KeyMetrics::new(Arc::from(""))),
        })
    }

    pub(super) fn key(&self, id: &KeyId, user: &str) -> Arc<KeyMetrics> {
        if let Some(known) = self.keys.get(id).filter(|known| *known.user == *user) {
            return Arc::clone(&known);
        }
        match self.keys.entry(id.clone()) {
            Entry::Occupied(mut known) => {
                // Renamed by a reload: the old name's series ends and a new one begins.
                if *known.get().user != *user {
                    known.insert(Arc::new(KeyMetrics::new(Arc::from(user))));
                }
                Arc::clone(known.get())
            }
            Entry::Vacant(free) => {
                let max = self.max;
                let room = |taken: usize| (taken < max).then_some(taken + 1);
                if self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_err() {
                    return Arc::clone(&self.others);
                }
                Arc::clone(&free.insert(Arc::new(KeyMetrics::new(Arc::from(user)))))
            }
        }
    }

    pub(super) fn retain(&self, in_force: impl Fn(&KeyId) -> bool) {
        self.keys.retain(|id, _| {
            let keep = in_force(id);
            if !keep {
                self.taken.fetch_sub(1, Ordering::Relaxed);
            }
            keep
        });
    }
}

impl Collector for KeyCounts {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut samples = Vec::new();
        for entry in self.keys.iter() {
            entry.value().samples(entry.key().as_str(), &mut samples);
        }
        self.others.samples(OTHER_KEYS, &mut samples);
        family(&table::KEY_REQUESTS, samples)
    }
}
