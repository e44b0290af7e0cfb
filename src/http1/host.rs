//! `Host`: whether a value is `uri-host [":" port]` (RFC 9110 section 7.2) in the form that every reader takes alike.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Whether `value` names a host: a DNS-like name, an IPv4 address or a bracketed IPv6 address, and a port of one to five
/// digits if there is a colon.
///
/// Narrower than RFC 3986 on purpose: no user information, percent-encoding, sub-delimiters, zone or empty port, and a
/// name whose last label is a number must be an IPv4 address in full.
pub(crate) fn is_valid(value: &[u8]) -> bool {
    let Ok(value) = std::str::from_utf8(value) else { return false };
    match value.strip_prefix('[') {
        Some(rest) => rest.split_once(']').is_some_and(|(address, port)| {
            address.parse::<Ipv6Addr>().is_ok() && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
        }),
        None => match value.split_once(':') {
            Some((name, port)) => is_name(name) && is_port(port),
            None => is_name(value),
        },
    }
}

fn is_port(port: &str) -> bool {
    (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

fn is_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if name.len() > 253 || !name.split('.').all(is_label) {
        return false;
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    !last.bytes().all(|byte| byte.is_ascii_digit()) || name.parse::<Ipv4Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::is_valid;

    #[test]
    fn hosts_that_every_reader_takes_alike() {
        for host in [
            "a",
            "example.org",
            "EXAMPLE.org",
            "example.org.",
            "example.org:80",
            "example.org.:443",
            "a_b.c-d",
            "1a",
            "127.0.0.1",
            "127.0.0.1:65535",
            "[::1]",
            "[::1]:8080",
            "[2001:db8::192.0.2.1]",
            "xn--bcher-kva.example",
            "a:0",
            "3com.example",
        ] {
            assert!(is_valid(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn hosts_that_are_refused() {
        let long_label = format!("{}.example", "a".repeat(64));
        let long_name = "abc.".repeat(64) + "example";
        for host in [
            "",
            ".",
            "..",
            ".a",
            "a..b",
            "a..",
            ":",
            ":80",
            "a:",
            "a:b",
            "a:80b",
            "a:65536",
            "a:123456",
            "a:+1",
            "a:80:80",
            "a b",
            "a,b",
            "a, b",
            "a/b",
            "a?b",
            "a#b",
            "a@b",
            "u:p@b",
            "a\\b",
            "<a>",
            "\"a\"",
            "a%41",
            "a%00",
            "*",
            "a;b",
            "a=b",
            "(a)",
            "a\tb",
            "é.example",
            "256.0.0.1",
            "1.2.3",
            "1.2.3.4.5",
            "0127.0.0.1",
            "0x7f.1",
            "1",
            "[",
            "[]",
            "[::1",
            "::1",
            "[::1]a",
            "[::1]:",
            "[::1]:x",
            "[::1%25eth0]",
            "[::1%eth0]",
            "[v1.a]",
            "[127.0.0.1]",
            "[:::1]",
            "http://a",
            &long_label,
            &long_name,
        ] {
            assert!(!is_valid(host.as_bytes()), "{host}");
        }
        assert!(!is_valid(b"a\xff"));
        assert!(!is_valid(b"a\0"));
    }
}
