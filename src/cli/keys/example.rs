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
        Source::Header { name } => Some(format!("-H \"{}: $KEY\"", as_written(name))),
        Source::Scheme { name, schemes } => Some(format!("-H \"{}: {} $KEY\"", as_written(name), schemes.first()?)),
        Source::Query { name, .. } => Some(format!("?{name}=$KEY")),
        Source::Basic => Some("-u \"any:$KEY\"".to_owned()),
        Source::Cookie { name } => Some(format!("-b \"{name}=$KEY\"")),
        Source::WebSocketProtocol { .. } => None,
    }
}

/// A header's name in the case that documents write it in: `X-Api-Key`.
fn as_written(name: &str) -> String {
    let capital =
        |word: &str| word.get(..1).unwrap_or_default().to_ascii_uppercase() + word.get(1..).unwrap_or_default();
    name.split('-').map(capital).collect::<Vec<_>>().join("-")
}

fn place(listener: &Settings) -> String {
    let scheme = if listener.tls.is_some() { "https" } else { "http" };
    match &listener.address {
        ListenAddress::Tcp(address) if address.port() == 0 => format!("{scheme}://your-gate"),
        ListenAddress::Tcp(address) if address.ip().is_unspecified() => {
            format!("{scheme}://localhost:{}", address.port())
        }
        ListenAddress::Tcp(address) => format!("{scheme}://{address}"),
        ListenAddress::Unix(path) => format!("--unix-socket {} {scheme}://localhost", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;
    use crate::config::System;

    fn shown(settings: &str) -> String {
        let text = format!(
            "{settings}\nkeys: {{ file: keys.yaml }}\nupstreams: {{ app: {{ servers: [\"127.0.0.1:1\"] }} }}\n"
        );
        curl(Some(&config::load_str(&text, Path::new("/nowhere/keygate.yaml"), &System).expect("loads").config))
    }

    #[test]
    fn the_line_fits_the_configuration() {
        const ROUTES: &str = "routes: [{ path: /open/, access: public, upstream: app }, { path: /v1/, upstream: app }]";
        for (settings, line) in [
            ("listen: [{ address: \"0.0.0.0:8443\" }]", "curl -H \"X-Api-Key: $KEY\" http://localhost:8443/v1/"),
            ("listen: [{ address: \"[::1]:80\" }]", "curl -H \"X-Api-Key: $KEY\" http://[::1]:80/v1/"),
            ("listen: [{ address: \"127.0.0.1:0\" }]", "curl -H \"X-Api-Key: $KEY\" http://your-gate/v1/"),
            (
                "listen: [{ address: \"unix:/run/g\" }]",
                "curl -H \"X-Api-Key: $KEY\" --unix-socket /run/g http://localhost/v1/",
            ),
            (
                "listen: [{ address: \"127.0.0.1:80\" }]\ncredentials: [{ header: authorization, schemes: [Bearer] }]",
                "curl -H \"Authorization: Bearer $KEY\" http://127.0.0.1:80/v1/",
            ),
            (
                "listen: [{ address: \"127.0.0.1:80\" }]\ncredentials: [{ query: api_key }]",
                "curl \"http://127.0.0.1:80/v1/?api_key=$KEY\"",
            ),
        ] {
            assert_eq!(shown(&format!("{settings}\n{ROUTES}")), line);
        }
        assert_eq!(curl(None), "curl -H \"X-Api-Key: $KEY\" https://your-gate/");
    }
}
