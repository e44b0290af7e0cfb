//! Hosts to groups of routes: exact names before wildcards, longer wildcards before shorter ones, and last the routes that
//! name no host.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use super::HostPattern;
use crate::rejection::Rejection;

/// Stands for the routes that share a host pattern.
pub(super) type GroupId = usize;

/// The group of the routes without a host.
pub(super) const ANY_HOST: GroupId = 0;

/// Longest host name that is looked up (RFC 1035 section 2.3.4 stops at 255 bytes).
const MAX_HOST_BYTES: usize = 255;

/// Which group a host belongs to first.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    exact: HashMap<Box<[u8]>, GroupId>,
    addresses: HashMap<Ipv6Addr, GroupId>,
    /// Keys begin with the dot: `.example.org`.
    below: HashMap<Box<[u8]>, GroupId>,
    count: usize,
}

impl Hosts {
    /// The group of `pattern`, new if it is new.
    pub(super) fn group(&mut self, pattern: Option<&HostPattern>) -> GroupId {
        let next = self.count + 1;
        let group = match pattern {
            None => return ANY_HOST,
            Some(HostPattern::Exact(name)) => match address(name.as_bytes()) {
                Some(address) => *self.addresses.entry(address).or_insert(next),
                None => *self.exact.entry(name.to_ascii_lowercase().into_bytes().into()).or_insert(next),
            },
            Some(HostPattern::Below(suffix)) => {
                *self.below.entry(suffix.to_ascii_lowercase().into_bytes().into()).or_insert(next)
            }
        };
        self.count = self.count.max(group);
        group
    }

    /// The group to try after that of `pattern`: the longest wildcard above it, else the routes without a host.
    pub(super) fn wider(&self, pattern: &HostPattern) -> GroupId {
        match pattern {
            HostPattern::Exact(name) => self.wildcard(name.to_ascii_lowercase().as_bytes()),
            HostPattern::Below(suffix) => self.wildcard(suffix.to_ascii_lowercase().as_bytes()),
        }
    }

    /// The most specific group for a `Host` as sent: letters folded, the port and one trailing dot dropped.
    ///
    /// Without a host (HTTP/1.0) only the routes without a host are met. Errors with [`Rejection::Malformed`] when the
    /// value is no host, or is one that could be read in another way (percent escapes, user names, two colons).
    pub(super) fn find(&self, host: Option<&[u8]>) -> Result<GroupId, Rejection> {
        let Some(host) = host else { return Ok(ANY_HOST) };
        let name = without_port(host).ok_or(Rejection::Malformed("host"))?;
        if name.first() == Some(&b'[') {
            let address = address(name).ok_or(Rejection::Malformed("host"))?;
            return Ok(self.addresses.get(&address).copied().unwrap_or(ANY_HOST));
        }
        let name = name.strip_suffix(b".").unwrap_or(name);
        let mut buffer = [0; MAX_HOST_BYTES];
        let folded = buffer.get_mut(..name.len()).ok_or(Rejection::Malformed("host"))?;
        for (to, from) in folded.iter_mut().zip(name) {
            if !is_name_byte(*from) {
                return Err(Rejection::Malformed("host"));
            }
            *to = from.to_ascii_lowercase();
        }
        Ok(self.exact.get(&*folded).copied().unwrap_or_else(|| self.wildcard(folded)))
    }

    /// The longest wildcard that holds `name`, which is not the part it names itself.
    fn wildcard(&self, name: &[u8]) -> GroupId {
        let dots = name.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'.');
        dots.filter_map(|(dot, _)| self.below.get(name.get(dot..)?)).next().copied().unwrap_or(ANY_HOST)
    }
}

/// The name or bracketed address before an optional port; `None` when the rest is not a port.
fn without_port(host: &[u8]) -> Option<&[u8]> {
    let end = match host.first() {
        Some(b'[') => host.iter().position(|byte| *byte == b']')? + 1,
        _ => host.iter().position(|byte| *byte == b':').unwrap_or(host.len()),
    };
    let (name, port) = host.split_at_checked(end)?;
    match port.split_first() {
        None => Some(name),
        Some((b':', digits)) if digits.iter().all(u8::is_ascii_digit) => Some(name),
        Some(_) => None,
    }
}

/// An IPv6 address, with or without its brackets; every spelling of it is one value.
fn address(name: &[u8]) -> Option<Ipv6Addr> {
    let bare = name.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")).unwrap_or(name);
    std::str::from_utf8(bare).ok()?.parse().ok()
}

/// The bytes of a name (RFC 3986 section 3.2.2) without percent escapes, which are a second spelling.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}
