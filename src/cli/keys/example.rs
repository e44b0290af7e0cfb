//! A command to paste that uses a key, fitting the configuration: where the gate listens and where it looks for keys.

use super::{IN_FORCE, tell};
use crate::config::Config;
use crate::credential::Source;
use crate::listener::{ListenAddress, Settings};
use crate::route::{Access, PathPattern, Route};

/// Tells what to do with a new secret that was just printed, of a key with these roles and scopes.
pub(super) fn tell_how_to_use(config: Option<&Config>, roles: &[&str], scopes: &[&str]) {
    tell("The key above is shown this once; the file holds only its hash.");
    tell(&format!("{IN_FORCE} With the key in $KEY:"));
    tell(&format!("  {}", curl(config, roles, scopes)));
}

/// A `curl` line with the key in `$KEY`, so that it does not have to be typed, to a route that the key may use.
fn curl(config: Option<&Config>, roles: &[&str], scopes: &[&str]) -> String {
    let Some(config) = config else { return "curl -H \"X-Api-Key: $KEY\" https://your-gate/".to_owned() };
    let credential = config.credentials.sources.iter().find_map(credential).unwrap_or_default();
    let may_use = |route: &Route| {
        let role = route.roles.is_empty() || route.roles.iter().any(|role| roles.contains(&&**role));
        role && route.scopes.iter().all(|scope| scopes.contains(&&**scope))
    };
    let open = |route: &&Route| route.access == Access::Key && route.host.is_none() && may_use(route);
    let keyed = config.routes.iter().find(open);
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
        let config = config::load_str(&text, Path::new("/nowhere/keygate.yaml"), &System).expect("loads").config;
        curl(Some(&config), &["client"], &["read"])
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
        let listen = "listen: [{ address: \"127.0.0.1:80\" }]";
        for (rights, path) in [
            ("roles: [admin]", "/b/"),
            ("roles: [client]", "/a/"),
            ("scopes: [read, write]", "/b/"),
            ("scopes: [read]", "/a/"),
        ] {
            let routes = format!("routes: [{{ path: /a/, {rights}, upstream: app }}, {{ path: /b/, upstream: app }}]");
            let line = shown(&format!("{listen}\n{routes}"));
            assert_eq!(line, format!("curl -H \"X-Api-Key: $KEY\" http://127.0.0.1:80{path}"), "{rights}");
        }
        assert_eq!(curl(None, &[], &[]), "curl -H \"X-Api-Key: $KEY\" https://your-gate/");
    }
}
