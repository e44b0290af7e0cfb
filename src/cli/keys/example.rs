//! A command to paste that uses a key, fitting the configuration: where the gate listens and where it looks for keys.

use crate::config::Config;
use crate::credential::Source;
use crate::listener::{ListenAddress, Settings};
use crate::route::{Access, PathPattern};

/// A `curl` line with the key in `$KEY`, so that it does not have to be typed.
pub(super) fn curl(config: Option<&Config>) -> String {
    let Some(config) = config else { return "curl -H \"X-Api-Key: $KEY\" https://your-gate/".to_owned() };
    let credential = config.credentials.sources.iter().find_map(credential).unwrap_or_default();
    let keyed = config.routes.iter().find(|route| route.access == Access::Key && route.host.is_none());
    let path = keyed.map_or("/", |route| match &route.path {
        PathPattern::Exact(path) | PathPattern::Below(path) => path,
    });
    let place = config.listeners.first().map_or_else(|| "https://your-gate".to_owned(), place);
    match credential.strip_prefix('?') {
        Some(query) => format!("curl \"{place}{path}?{query}\""),
        None => format!("curl {credential} {place}{path}"),
    }
}

/// How curl sends a key to this source; a query begins with `?`. `None` where curl is not the one to ask.
fn credential(source: &Source) -> Option<String> {
    match source {
        Source::Header { name } => Some(format!("-H \"{name}: $KEY\"")),
        Source::Scheme { name, schemes } => Some(format!("-H \"{name}: {} $KEY\"", schemes.first()?)),
        Source::Query { name, .. } => Some(format!("?{name}=$KEY")),
        Source::Basic => Some("-u \"any:$KEY\"".to_owned()),
        Source::Cookie { name } => Some(format!("-b \"{name}=$KEY\"")),
        Source::WebSocketProtocol { .. } => None,
    }
}

fn place(listener: &Settings) -> String {
    let scheme = if listener.tls.is_some() { "https" } else { "http" };
    match &listener.address {
        ListenAddress::Tcp(address) if address.ip().is_unspecified() => {
            format!("{scheme}://localhost:{}", address.port())
        }
        ListenAddress::Tcp(address) => format!("{scheme}://{address}"),
        ListenAddress::Unix(path) => format!("--unix-socket {} {scheme}://localhost", path.display()),
    }
}
