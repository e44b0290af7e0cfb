//! Who the client is when a proxy that the operator trusts stands before the gate (decision 25), and nobody else is
//! believed.

use std::net::{IpAddr, SocketAddr};

use super::TrustedProxy;
use crate::http1::head::list_items;
use crate::http1::request::Request;

/// The scheme a client used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

/// Where the client believes it is: what its own `Origin` would name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicOrigin<'a> {
    /// Scheme of the client's side.
    pub scheme: Scheme,
    /// Host and port as the client wrote them; `None` only for HTTP/1.0 without `Host`.
    pub host: Option<&'a [u8]>,
}

impl Scheme {
    /// As in a URI.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl TrustedProxy {
    fn covers(self, address: Option<IpAddr>) -> bool {
        match (self, address) {
            (Self::Net(net), Some(address)) => net.contains(&address.to_canonical()),
            (Self::Unix, None) => true,
            (Self::Net(_), None) | (Self::Unix, Some(_)) => false,
        }
    }
}

/// Whether the forwarded headers of this peer are believed. `None` is a client of a unix listener.
pub fn is_trusted(peer: Option<IpAddr>, trusted: &[TrustedProxy]) -> bool {
    trusted.iter().any(|proxy| proxy.covers(peer))
}

/// The client's address: the peer's, or behind trusted proxies the rightmost entry of `X-Forwarded-For` that is none of
/// them (decision 25). An entry that is no address ends the search at the proxy that wrote it. `None` is a client of a unix
/// listener without such an entry.
pub fn client_address(peer: Option<IpAddr>, trusted: &[TrustedProxy], request: Request<'_>) -> Option<IpAddr> {
    let mut client = peer.map(|address| address.to_canonical());
    if trusted.is_empty() || !is_trusted(client, trusted) {
        return client;
    }
    let lines = request.fields().iter().rev().filter(|field| field.is("x-forwarded-for"));
    for item in lines.flat_map(|field| field.value.rsplit(|byte| *byte == b',')) {
        let Some(address) = address(item.trim_ascii()) else { break };
        client = Some(address);
        if !is_trusted(client, trusted) {
            break;
        }
    }
    client
}

/// Scheme and host that the client used: what the connection shows, or what a trusted proxy says.
pub fn public_origin(request: Request<'_>, scheme: Scheme, peer_trusted: bool) -> PublicOrigin<'_> {
    let own = PublicOrigin { scheme, host: request.host() };
    if !peer_trusted {
        return own;
    }
    let scheme = match last_item(request, "x-forwarded-proto") {
        Some(proto) if proto.eq_ignore_ascii_case(b"https") || proto.eq_ignore_ascii_case(b"wss") => Scheme::Https,
        Some(proto) if proto.eq_ignore_ascii_case(b"http") || proto.eq_ignore_ascii_case(b"ws") => Scheme::Http,
        _ => own.scheme,
    };
    let host = last_item(request, "x-forwarded-host").filter(|host| is_host(host)).or(own.host);
    PublicOrigin { scheme, host }
}

/// The last item over all lines: the one that the nearest proxy wrote.
fn last_item<'a>(request: Request<'a>, name: &'static str) -> Option<&'a [u8]> {
    request.fields().iter().rev().find(|field| field.is(name)).and_then(|field| list_items(field.value).last())
}

/// An address with or without port, IPv6 with or without brackets.
fn address(item: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(item).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))?;
    Some(address.to_canonical())
}

/// Letters, digits and what else names, addresses and ports are written with.
fn is_host(host: &[u8]) -> bool {
    !host.is_empty() && host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::request::sample::Sample;

    fn trusted() -> Vec<TrustedProxy> {
        let net = |text: &str| TrustedProxy::Net(text.parse().unwrap());
        vec![net("10.0.0.0/8"), net("fd00::/8"), TrustedProxy::Unix]
    }

    #[test]
    fn the_client_is_the_rightmost_untrusted_entry() {
        let peer = Some("10.0.0.1");
        for (peer, lines, want) in [
            (Some("192.0.2.1"), vec!["X-Forwarded-For: 203.0.113.9"], Some("192.0.2.1")),
            (Some("::ffff:192.0.2.1"), vec![], Some("192.0.2.1")),
            (peer, vec![], Some("10.0.0.1")),
            (peer, vec!["X-Forwarded-For: 127.0.0.1, 203.0.113.9"], Some("203.0.113.9")),
            (peer, vec!["X-Forwarded-For: 1.1.1.1, 203.0.113.9, 10.9.9.9"], Some("203.0.113.9")),
            (peer, vec!["X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 203.0.113.9", "Via: x"], Some("203.0.113.9")),
            (peer, vec!["X-Forwarded-For: 203.0.113.9:5000"], Some("203.0.113.9")),
            (peer, vec!["X-Forwarded-For: [2001:db8::1]:5000"], Some("2001:db8::1")),
            (peer, vec!["X-Forwarded-For: [2001:db8::1]"], Some("2001:db8::1")),
            (peer, vec!["X-Forwarded-For: 2001:db8::1, fd00::2"], Some("2001:db8::1")),
            (peer, vec!["X-Forwarded-For: 1.1.1.1, unknown, 10.0.0.7"], Some("10.0.0.7")),
            (peer, vec!["X-Forwarded-For: 1.1.1.1,"], Some("10.0.0.1")),
            (peer, vec!["X-Forwarded-For: 10.0.0.5, 10.0.0.6"], Some("10.0.0.5")),
            (peer, vec!["X_Forwarded_For: 1.1.1.1"], Some("10.0.0.1")),
            (peer, vec!["X-Forwarded-For: \u{ff}"], Some("10.0.0.1")),
            (Some("::ffff:10.0.0.1"), vec!["X-Forwarded-For: ::ffff:203.0.113.9"], Some("203.0.113.9")),
            (None, vec!["X-Forwarded-For: 203.0.113.9"], Some("203.0.113.9")),
            (None, vec![], None),
        ] {
            let (sample, want) = (Sample::get("/", &lines), want.map(|want| want.parse().unwrap()));
            let peer = peer.map(|peer| peer.parse().unwrap());
            assert_eq!(client_address(peer, &trusted(), sample.request()), want, "{peer:?} {lines:?}");
        }
        let sample = Sample::get("/", &["X-Forwarded-For: 203.0.113.9"]);
        assert_eq!(client_address(None, &[], sample.request()), None);
        assert_eq!(client_address(peer.map(|it| it.parse().unwrap()), &[], sample.request()), "10.0.0.1".parse().ok());
    }

    #[test]
    fn scheme_and_host_are_believed_from_trusted_proxies_only() {
        use Scheme::{Http, Https};
        let own = "Host: gate.lan";
        for (lines, peer_trusted, scheme, host) in [
            (vec![own], true, Http, "gate.lan"),
            (vec![own, "X-Forwarded-Proto: https", "X-Forwarded-Host: a"], false, Http, "gate.lan"),
            (vec![own, "X-Forwarded-Proto: https", "X-Forwarded-Host: a:8443"], true, Https, "a:8443"),
            (vec![own, "X-Forwarded-Proto: http, wss"], true, Https, "gate.lan"),
            (vec![own, "X-Forwarded-Proto: gopher", "X-Forwarded-Host: a, for=127.0.0.1"], true, Http, "gate.lan"),
            (vec![own, "X-Forwarded-Host: a/b"], true, Http, "gate.lan"),
            (vec![own, "X-Forwarded-Host:"], true, Http, "gate.lan"),
        ] {
            let sample = Sample::get("/", &lines);
            let want = PublicOrigin { scheme, host: Some(host.as_bytes()) };
            assert_eq!(public_origin(sample.request(), Http, peer_trusted), want, "{lines:?}");
        }
    }
}
