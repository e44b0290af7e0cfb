//! The throttle on bad keys, per client address: it counts failures only and is asked only about failures, so a good key
//! is never refused for what others at its address did (design section 4, decision 10).

use std::sync::Arc;
use std::time::Duration;

use super::address::Address;
use super::table::Table;
use super::{FailedAuth, Rate};
use crate::moment::Now;

/// Counts bad keys per address in a table of fixed size.
#[derive(Debug)]
pub struct Throttle {
    table: Arc<Table<Address>>,
    rate: Rate,
}

impl Throttle {
    /// A throttle that has seen nobody fail.
    pub fn new(settings: FailedAuth) -> Self {
        Self { table: Arc::new(Table::new(settings.max_addresses)), rate: rate_of(settings) }
    }

    /// This throttle under new settings. What it has seen is shared with the old one, unless the table's size changed.
    pub fn renewed(&self, settings: FailedAuth) -> Self {
        if settings.max_addresses == self.table.capacity() {
            Self { table: Arc::clone(&self.table), rate: rate_of(settings) }
        } else {
            Self::new(settings)
        }
    }

    /// Counts a bad key from `address`: `Ok` is a 401; an error is a 429 and the time until one more attempt is let in.
    /// One step under one lock, so parallel guesses cannot slip past the count.
    pub fn fail(&self, address: Address, now: Now) -> Result<(), Duration> {
        self.table.with(address, self.rate, now.mono, |bucket| match bucket.wait() {
            Some(wait) => Err(wait),
            None => {
                bucket.take();
                Ok(())
            }
        })
    }

    /// The time until a bad key from `address` would be a 401 again; `None` when it is one now. Counts nothing.
    pub fn is_blocked(&self, address: Address, now: Now) -> Option<Duration> {
        self.table.wait(address, self.rate, now.mono)
    }

    /// Addresses remembered now, at most `max_addresses`.
    pub fn addresses(&self) -> usize {
        self.table.len()
    }
}

fn rate_of(settings: FailedAuth) -> Rate {
    Rate { requests: settings.attempts, per: settings.per, burst: settings.attempts }
}
