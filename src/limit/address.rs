//! The unit that stands for one stranger: an IPv4 address, or the /64 that one IPv6 subscriber holds.

use std::net::IpAddr;

/// A client address as limits count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IPv4 address, also one that came as `::ffff:a.b.c.d`.
    V4(u32),
    /// The upper half of an IPv6 address.
    V6(u64),
    /// No address is known (unix sockets): all such clients are one.
    Unknown,
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.to_bits()),
            // Truncation to the upper half is what is wanted: a subscriber holds at least a whole /64.
            IpAddr::V6(v6) => Self::V6((v6.to_bits() >> 64) as u64),
        }
    }
}

impl From<Option<IpAddr>> for Address {
    fn from(address: Option<IpAddr>) -> Self {
        address.map_or(Self::Unknown, Self::from)
    }
}
