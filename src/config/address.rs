//! Values that say where: listeners, servers, networks, hosts.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::problem::Fault;
use crate::identity::TrustedProxy;
use crate::listener::ListenAddress;
use crate::route::HostPattern;
use crate::upstream::{HostPolicy, ServerAddress};

/// `ip:port`, `[v6]:port` or `unix:path`; port 0 lets the system choose.
pub(super) fn listen(directory: &Path) -> impl Fn(&str) -> Result<ListenAddress, Fault> {
    move |text| match unix(text, directory)? {
        Some(path) => Ok(ListenAddress::Unix(path)),
        None => text.parse().map(ListenAddress::Tcp).map_err(|_error| listen_fault(text)),
    }
}

fn listen_fault(text: &str) -> Fault {
    let fault = Fault::new("is not an address to listen on");
    if text.contains("://") {
        return fault.hint("write ip:port without a scheme; TLS goes below it as `tls:`");
    }
    if text.parse::<u16>().is_ok() {
        return fault.suggest(format!("write an address too: `127.0.0.1:{text}`, or `0.0.0.0:{text}` for everybody"));
    }
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => return fault.suggest(format!("the port is missing: write `{text}:8443` or the like")),
        Ok(IpAddr::V6(_)) => return fault.hint("an IPv6 address stands in brackets, and its port behind: [::1]:8443"),
        Err(_) => {}
    }
    match text.rsplit_once(':') {
        Some(("" | "*", port)) => fault.suggest(format!("write `0.0.0.0:{port}`, or `[::]:{port}` for IPv6")),
        Some(("localhost", port)) => fault.suggest(format!("write `127.0.0.1:{port}`")),
        Some((host, port)) if host.parse::<Ipv6Addr>().is_ok() => fault.suggest(format!("write `[{host}]:{port}`")),
        _ => fault.hint("write ip:port, [ip]:port for IPv6, or unix:/path; a name is not an address"),
    }
}

/// `host:port`, `[v6]:port` or `unix:path`.
pub(super) fn server(directory: &Path) -> impl Fn(&str) -> Result<ServerAddress, Fault> {
    move |text| {
        if let Some(path) = unix(text, directory)? {
            return Ok(ServerAddress::Unix(path));
        }
        let fault = || Fault::new("is not the address of a server");
        if text.contains("://") || text.contains('/') {
            return Err(fault().hint("write host:port, without scheme and path; TLS goes into the upstream's `tls:`"));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(fault().hint("the port is missing: write host:port"));
        };
        let port = match port.parse::<u16>() {
            Ok(0) => return Err(fault().hint("nothing can be reached on port 0")),
            Ok(port) if port_is_plain(text) => port,
            Ok(_) | Err(_) => return Err(fault().hint("the port is a number from 1 to 65535")),
        };
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(inner) if inner.parse::<Ipv6Addr>().is_ok() => inner,
            None if is_name_or_v4(host) => host,
            None if host.contains(':') => return Err(fault().hint("an IPv6 address stands in brackets: [::1]:8000")),
            Some(_) | None => return Err(fault().hint("write host:port, [ip]:port for IPv6, or unix:/path")),
        };
        Ok(ServerAddress::Tcp { host: host.into(), port })
    }
}

fn unix(text: &str, directory: &Path) -> Result<Option<PathBuf>, Fault> {
    match text.strip_prefix("unix:") {
        None => Ok(None),
        Some("") => Err(Fault::new("names no socket").hint("write unix:/path")),
        Some(path) if path.starts_with("//") => {
            Err(Fault::new("is not a path").suggest(format!("write `unix:/{}`", path.trim_start_matches('/'))))
        }
        Some(path) if path.contains('\0') => Err(Fault::new("is not a path")),
        Some(path) => {
            let full = directory.join(path);
            if full.as_os_str().len() > LONGEST_SOCKET_PATH {
                return Err(Fault::new("is too long for a socket").hint("the system takes at most 107 bytes"));
            }
            Ok(Some(full))
        }
    }
}

/// A network such as `10.0.0.0/8`, or one address.
pub(super) fn network(text: &str) -> Result<IpNet, Fault> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let net: IpNet = text.parse().map_err(|_error| {
        Fault::new("is not a network").hint("write an address, or one with a prefix length, such as 10.0.0.0/8")
    })?;
    if net.trunc() != net {
        return Err(Fault::new("has bits set behind its prefix length").suggest(format!(
            "write `{}` for the network, or `{}` for that address alone",
            net.trunc(),
            net.addr()
        )));
    }
    Ok(net)
}

/// A network, one address, or `unix` for the peers of unix listeners.
pub(super) fn trusted_proxy(text: &str) -> Result<TrustedProxy, Fault> {
    if text == "unix" { Ok(TrustedProxy::Unix) } else { network(text).map(TrustedProxy::Net) }
}

/// The host of a route: a name, an address, or `*.` and a name; case does not count.
pub(super) fn host_pattern(text: &str) -> Result<HostPattern, Fault> {
    let lower = text.to_ascii_lowercase();
    let fault = || Fault::new("is not a host");
    if let Some(below) = lower.strip_prefix("*.") {
        if is_name_or_v4(below) && below.parse::<IpAddr>().is_err() {
            return Ok(HostPattern::Below(format!(".{below}").into()));
        }
        return Err(fault().hint("write `*.` and a name, such as \"*.example.org\""));
    }
    if lower == "*" {
        return Err(fault().hint("a route without `host` is for every host"));
    }
    if lower.contains("://") || lower.contains('/') {
        return Err(fault().hint("a name alone; the path goes into `path`"));
    }
    if !lower.is_ascii() {
        return Err(fault().hint("write the name as it goes over the wire, in punycode (xn--…)"));
    }
    if let Some(inner) = lower.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let address = inner.parse::<Ipv6Addr>().map_err(|_error| fault())?;
        return Ok(HostPattern::Exact(format!("[{address}]").into()));
    }
    if let Ok(address) = lower.parse::<Ipv6Addr>() {
        return Err(fault().suggest(format!("an IPv6 address stands in brackets: `[{address}]`")));
    }
    if let Some((name, port)) = lower.rsplit_once(':')
        && port.bytes().all(|b| b.is_ascii_digit())
    {
        return Err(fault().suggest(format!("routes look at the name, never at the port: write `{name}`")));
    }
    if let Some(name) = lower.strip_suffix('.') {
        return Err(fault().suggest(format!("write `{name}`, without the dot at the end")));
    }
    if !is_name_or_v4(&lower) {
        return Err(fault().hint("write a name, an address, or `*.` and a name"));
    }
    Ok(HostPattern::Exact(lower.into()))
}

/// What an upstream sees as `Host`: `keep`, `upstream`, or a literal `name` or `name:port`.
pub(super) fn host_policy(text: &str) -> Result<HostPolicy, Fault> {
    match text {
        "keep" => return Ok(HostPolicy::Keep),
        "upstream" => return Ok(HostPolicy::Upstream),
        _ => {}
    }
    let name = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => {
            if !port.parse::<u16>().is_ok_and(|port| port > 0) || !port_is_plain(text) {
                return Err(Fault::new("is not a Host").hint(HOST_HINT));
            }
            name
        }
        _ => text,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    if address.map_or_else(|| is_name_or_v4(name), |inner| inner.parse::<Ipv6Addr>().is_ok()) {
        return Ok(HostPolicy::Literal(text.into()));
    }
    Err(Fault::new("is not a Host").hint(HOST_HINT))
}

/// The name to verify in a server's certificate: a DNS name or an address.
pub(super) fn server_name(text: &str) -> Result<Box<str>, Fault> {
    if text.is_empty() {
        return Err(Fault::new("is empty").hint("an empty name would turn verification off; write the certificate's"));
    }
    if rustls_pki_types::ServerName::try_from(text).is_err() {
        return Err(Fault::new("is not a name of a certificate").hint("write a name such as worker.lan, or an address"));
    }
    Ok(text.into())
}

/// An address as [`listen`] reads it.
pub(super) fn show_listen(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// A server as [`server`] reads it.
pub(super) fn show_server(server: &ServerAddress) -> String {
    match server {
        ServerAddress::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
        ServerAddress::Tcp { host, port } => format!("{host}:{port}"),
        ServerAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// Whether two listeners would want the same socket. Port 0 never does.
pub(super) fn overlap(a: &ListenAddress, b: &ListenAddress) -> bool {
    match (a, b) {
        (ListenAddress::Tcp(a), ListenAddress::Tcp(b)) => {
            let any = |address: &SocketAddr| address.ip().is_unspecified();
            a.port() == b.port()
                && a.port() != 0
                && (a.ip() == b.ip() || (a.is_ipv4() == b.is_ipv4() && (any(a) || any(b))))
        }
        (ListenAddress::Unix(a), ListenAddress::Unix(b)) => a == b,
        (ListenAddress::Tcp(_), ListenAddress::Unix(_)) | (ListenAddress::Unix(_), ListenAddress::Tcp(_)) => false,
    }
}

/// Labels of letters, digits, `-` and `_` (which container networks use), as RFC 1123 bounds them.
fn is_name_or_v4(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// `u16` also parses `+80`.
fn port_is_plain(text: &str) -> bool {
    text.rsplit(':').next().is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()))
}

const HOST_HINT: &str = "write keep, upstream, or the name to send, such as app.lan or app.lan:8080";

/// `sockaddr_un` holds 108 bytes with the closing NUL.
const LONGEST_SOCKET_PATH: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    fn all_refused<T: std::fmt::Debug>(parse: impl Fn(&str) -> Result<T, Fault>, texts: &[&str]) {
        for text in texts {
            assert!(parse(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn listeners() {
        let parse = listen(Path::new("/etc/keygate"));
        for text in ["127.0.0.1:0", "0.0.0.0:8443", "[::1]:80", "unix:/run/keygate.sock"] {
            assert_eq!(parse(text).map(|address| show_listen(&address)), Ok(text.to_owned()));
        }
        assert_eq!(parse("unix:k.sock"), Ok(ListenAddress::Unix("/etc/keygate/k.sock".into())));
        all_refused(parse, &["", "8443", ":8443", "*:80", "::1:80", "127.0.0.1", "localhost:80", "http://1.2.3.4:80"]);
        all_refused(listen(Path::new("/")), &["unix:", "unix:///run/x", "1.2.3.4:65536", "1.2.3.4:http"]);
    }

    #[test]
    fn servers() {
        let parse = server(Path::new("/etc"));
        for text in ["127.0.0.1:8000", "worker.lan:1", "my_app:80", "[::1]:65535", "unix:/run/worker.sock"] {
            assert_eq!(parse(text).map(|server| show_server(&server)), Ok(text.to_owned()));
        }
        all_refused(parse, &["", "a", "a:0", "a:65536", "a:+80", ":80", "http://a:80", "a:80/x", "::1:80", "a b:80"]);
    }

    #[test]
    fn networks() {
        for (text, want) in [("10.0.0.0/8", "10.0.0.0/8"), ("127.0.0.1", "127.0.0.1/32"), ("::1", "::1/128")] {
            assert_eq!(network(text).map(|net| net.to_string()), Ok(want.to_owned()));
        }
        all_refused(network, &["", "10.0.0.1/8", "10.0.0.0/33", "10.0.0", "any", "fd00::1/8"]);
        assert_eq!(trusted_proxy("unix"), Ok(TrustedProxy::Unix));
    }

    #[test]
    fn hosts() {
        assert_eq!(host_pattern("Worker.LAN"), Ok(HostPattern::Exact("worker.lan".into())));
        assert_eq!(host_pattern("*.x.org"), Ok(HostPattern::Below(".x.org".into())));
        assert_eq!(host_pattern("[0:0::1]"), Ok(HostPattern::Exact("[::1]".into())));
        all_refused(
            host_pattern,
            &["", "*", "*.", "a.*", "a:80", "a.", "::1", "http://a", "a/b", "bücher.de", "-a", "a..b"],
        );
        assert_eq!(host_policy("app.lan:8080"), Ok(HostPolicy::Literal("app.lan:8080".into())));
        assert_eq!(host_policy("[::1]"), Ok(HostPolicy::Literal("[::1]".into())));
        all_refused(host_policy, &["", "a b", "a:0", "a:+1", "a:", "http://a", "[::x]"]);
        all_refused(server_name, &["", "a b", "a..b"]);
    }

    #[test]
    fn overlaps() {
        let parse = listen(Path::new("/"));
        for (a, b, want) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "[::]:80", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("unix:/a", "unix:/a", true),
            ("unix:/a", "127.0.0.1:80", false),
        ] {
            assert_eq!(overlap(&parse(a).expect(a), &parse(b).expect(b)), want, "{a} {b}");
        }
    }
}
