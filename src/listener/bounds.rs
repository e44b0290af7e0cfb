//! How many connections there may be: in all, and from one address (design rule 10, decision 27).

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use tokio::sync::Notify;

/// Counts open connections of all workers.
#[derive(Debug, Default)]
pub struct ConnectionCounts {
    open: AtomicUsize,
    // Bounded by the number of open connections: an address is forgotten with its last one.
    by_address: DashMap<IpAddr, usize>,
    freed: Notify,
}

/// A place among the open connections, given back when dropped.
#[derive(Debug)]
pub struct Place {
    counts: Arc<ConnectionCounts>,
    address: Option<IpAddr>,
}

impl ConnectionCounts {
    /// Waits until fewer than `max()` connections are open. Another worker may be faster: [`Self::take`] still decides.
    pub async fn free(&self, max: impl Fn() -> usize) {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.open.load(Ordering::Acquire) < max() {
                return;
            }
            freed.await;
        }
    }

    /// Takes a place if there are fewer than `max`; `None` otherwise.
    pub fn take(self: &Arc<Self>, max: usize) -> Option<Place> {
        let grown = |open: usize| (open < max).then_some(open + 1);
        self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, grown).ok()?;
        Some(Place { counts: self.clone(), address: None })
    }

    /// Open connections.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Place {
    /// Counts the connection for `address` too, IPv6 by /64; `false` if that address holds `max` already.
    pub fn count_for(&mut self, address: IpAddr, max: usize) -> bool {
        let address = group(address);
        let mut held = self.counts.by_address.entry(address).or_insert(0);
        if *held >= max {
            return false;
        }
        *held += 1;
        self.address = Some(address);
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(address) = self.address {
            self.counts.by_address.remove_if_mut(&address, |_, held| {
                *held = held.saturating_sub(1);
                *held == 0
            });
        }
        self.counts.open.fetch_sub(1, Ordering::AcqRel);
        // All who wait, not one: the one that is woken may have nobody at its door.
        self.counts.freed.notify_waiters();
    }
}

/// What counts as one client: an IPv4 address, or the /64 that one IPv6 customer usually holds.
pub fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_exact_and_come_back() {
        let counts = Arc::new(ConnectionCounts::default());
        let a = counts.take(2).expect("one");
        let _b = counts.take(2).expect("two");
        assert!(counts.take(2).is_none());
        drop(a);
        assert!(counts.take(2).is_some());
    }

    #[test]
    fn addresses_are_counted_by_group_and_forgotten() {
        let counts = Arc::new(ConnectionCounts::default());
        let rows = [
            ("2001:db8::1", "2001:db8::2:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
        ];
        for (first, second, same) in rows {
            let mut one = counts.take(9).expect("a place");
            let mut two = counts.take(9).expect("a place");
            assert!(one.count_for(first.parse().expect("an address"), 1));
            assert_eq!(!two.count_for(second.parse().expect("an address"), 1), same, "{first} {second}");
        }
        assert!(counts.by_address.is_empty());
        assert_eq!(counts.open(), 0);
    }
}
