//! Who may depend on whom. The layers are those that the comments of `src/lib.rs` draw; a room imports from lower layers,
//! and from its own only as said here.

use std::collections::BTreeMap;

use super::source::{Names, Source, code_of, paths};
use super::{document, nothing, shipped};

/// Parts of a room that stand higher than the room itself, because they touch what the room may not.
const RAISED: &[(&str, usize, &str)] = &[
    ("keyring::source", 3, "reads the key file"),
    ("keyring::reload", 3, "watches the key file"),
    ("keyring::write", 3, "writes the key file"),
];

/// Arrows inside a layer: from, to, why.
const SAME_LAYER: &[(&str, &str, &str)] = &[
    ("credential", "http1", "credentials are read from the fields of a head"),
    ("session", "http1", "so is the token of a browser"),
    ("session", "credential", "a browser's token comes where keys come"),
    ("keyring", "limit", "a key names its own limits"),
    ("route", "limit", "a route names its own rate"),
    ("import", "keyring", "fields of a source become fields of an entry"),
    ("admin", "metrics", "shows them"),
    ("tls", "keyring", "opens its files as the key file is, so that none can hang"),
    ("state", "metrics", "counts its writes"),
    ("state", "keyring", "opens its file as the key file is, so that none can hang"),
    ("own_log", "access_log", "shares its writer and its settings"),
    ("listener", "keepalive", "sets it where connections inherit it"),
    ("engine", "keepalive", "stretches it where a write may take longer"),
    ("upstream", "keepalive", "sets it on each connection"),
    ("listener", "tls", "a listener's settings hold its certificates"),
    ("upstream", "tls", "its TLS files are followed as certificates are"),
    ("upstream", "keyring", "opens them as the key file is, so that none can hang"),
    ("engine", "access_log", "writes the line of a request"),
    ("engine", "listener", "accepts from it"),
    ("engine", "metrics", "counts"),
    ("engine", "tls", "shakes hands"),
    ("engine", "upstream", "forwards to it"),
    ("engine", "tunnel", "hands over after a 101"),
    ("engine", "http2", "hands over after ALPN"),
    ("tunnel", "engine", "borrows its buffers, its watchdog and the ways a stream ends"),
    ("http2", "engine", "serves each stream by the one path of a request"),
    ("http2", "access_log", "names its protocol for the line of a request"),
    ("http2", "metrics", "counts how its connections and streams end"),
    ("app", "config", "wires what it says"),
];

/// What the layers that decide must not name: they are tables and tests can be, only as long as they are pure.
const IMPURE: &[&str] = &[
    "tokio",
    "pingora",
    "notify",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::io::stdin",
    "std::io::stdout",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::time::SystemTime",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
];

/// Rooms that may name Pingora, whole or in part.
const PINGORA: &[&str] = &["app", "engine::accept"];

/// The layer of every room, as `src/lib.rs` says.
fn layers() -> BTreeMap<String, usize> {
    let mut layers = BTreeMap::new();
    let mut layer = None;
    for line in document("src/lib.rs").lines() {
        if let Some(rest) = line.strip_prefix("// Layer ") {
            layer = rest.split(':').next().and_then(|number| number.parse().ok());
            assert!(layer.is_some(), "src/lib.rs: not a layer: {line}");
        } else if let Some(room) = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';')) {
            layers.insert(room.to_owned(), layer.unwrap_or_else(|| panic!("src/lib.rs: {room} stands in no layer")));
        }
    }
    assert!(layers.len() > 10, "src/lib.rs is read wrongly: {layers:?}");
    layers
}

/// The layer of a module, or of a thing in it.
fn layer_of(module: &[&str], layers: &BTreeMap<String, usize>) -> Option<usize> {
    let raised = RAISED.iter().find(|(name, ..)| starts_with(module, name));
    raised.map(|(_, layer, _)| *layer).or_else(|| layers.get(*module.first()?).copied())
}

fn starts_with(names: &[&str], prefix: &str) -> bool {
    let prefix: Vec<&str> = prefix.split("::").collect();
    names.starts_with(&prefix)
}

/// What a path in `module` names of our own crate, from the crate on. None for what belongs to others.
fn resolve<'a>(module: &[&'a str], path: &'a Names) -> Option<Vec<&'a str>> {
    let mut names = path.iter().map(String::as_str).peekable();
    let mut from: Vec<&str> = match names.next()? {
        "crate" | "keygate" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module[..module.len().saturating_sub(1)].to_vec(),
        _ => return None,
    };
    while names.next_if_eq(&"super").is_some() {
        from.pop();
    }
    from.extend(names.filter(|name| *name != "self"));
    Some(from)
}

/// What is wrong with the arrow from `module` to `target`, if anything is.
fn fault(module: &[&str], target: &[&str], layers: &BTreeMap<String, usize>) -> Option<String> {
    let (Some(from), Some(to)) = (layer_of(module, layers), layer_of(target, layers)) else { return None };
    let [room, other] = [module.first()?, target.first()?];
    let named = |(a, b, _): &&(&str, &str, &str)| starts_with(module, a) && starts_with(target, b);
    let allowed = to < from || (to == from && (room == other || SAME_LAYER.iter().any(|arrow| named(&arrow))));
    (!allowed).then(|| format!("{} (layer {from}) names {} (layer {to})", module.join("::"), target.join("::")))
}

fn rooms() -> Vec<Source> {
    shipped(|source| source.module().is_some_and(|module| !module.is_empty())).collect()
}

#[test]
fn arrows_point_down() {
    let layers = layers();
    let mut found = Vec::new();
    let mut used = vec![false; SAME_LAYER.len()];
    for source in rooms() {
        let module = source.module().unwrap();
        if layer_of(&module, &layers).is_none() {
            found.push(format!("{}: not in src/lib.rs", source.path));
        }
        for (line, path) in paths(&source.shipped) {
            let Some(target) = resolve(&module, &path) else { continue };
            for (used, (a, b, _)) in used.iter_mut().zip(SAME_LAYER) {
                *used |= starts_with(&module, a) && starts_with(&target, b);
            }
            found.extend(fault(&module, &target, &layers).map(|fault| format!("{}:{line}: {fault}", source.path)));
        }
    }
    let idle = SAME_LAYER.iter().zip(used).filter(|(_, used)| !used);
    found.extend(idle.map(|((a, b, _), _)| format!("SAME_LAYER: {a} does not name {b} any more")));
    nothing("A room names lower layers only, or what SAME_LAYER says.", found);
}

#[test]
fn what_decides_is_pure() {
    let layers = layers();
    let mut found = Vec::new();
    for source in rooms() {
        let module = source.module().unwrap();
        let pure = layer_of(&module, &layers).is_some_and(|layer| layer <= 2);
        for (line, path) in paths(&source.shipped) {
            let names: Vec<&str> = path.iter().map(String::as_str).collect();
            let hit = IMPURE.iter().find(|impure| {
                let end = impure.ends_with("::now") && names.join("::").ends_with(*impure);
                end || starts_with(&names, impure) || (**impure == "pingora" && names[0].starts_with("pingora_"))
            });
            if let Some(hit) = hit.filter(|_| pure) {
                found.push(format!("{}:{line}: {hit}", source.path));
            }
        }
    }
    nothing("Layers 0 to 2 know no runtime, no files, no environment and no clock.", found);
}

#[test]
fn pingora_stays_where_it_belongs() {
    let mut found = Vec::new();
    let mut idle: Vec<&str> = PINGORA.to_vec();
    for source in rooms() {
        let module = source.module().unwrap();
        for (line, path) in paths(&source.shipped) {
            if path[0] != "pingora" && !path[0].starts_with("pingora_") {
                continue;
            }
            if PINGORA.iter().any(|room| starts_with(&module, room)) {
                idle.retain(|room| !starts_with(&module, room));
            } else {
                found.push(format!("{}:{line}: {}", source.path, path.join("::")));
            }
        }
    }
    found.extend(idle.iter().map(|room| format!("PINGORA: {room} does not name it any more")));
    nothing("Pingora's names appear only where PINGORA says.", found);
}

#[test]
fn an_arrow_up_is_seen() {
    let layers = layers();
    let faults = |module: &[&str], code: &str| -> Vec<String> {
        let paths = paths(&code_of(code));
        let targets: Vec<Vec<&str>> = paths.iter().filter_map(|(_, path)| resolve(module, path)).collect();
        targets.iter().filter_map(|target| fault(module, target, &layers)).collect()
    };
    for (module, code, count) in [
        (&["admission"][..], "use crate::key::ApiKey;", 0),
        (&["admission"], "use crate::{key::ApiKey, engine, config::{self, File}};", 3),
        (&["admission"], "fn f() -> super::engine::Gate { crate::metrics::X }", 2),
        (&["keyring"], "use crate::keyring::record; use crate::keyring::reload::Reloader;", 1),
        (&["keyring", "reload"], "use super::record; use super::super::metrics::X;", 1),
        (&["key"], "// crate::engine\nlet a = \"crate::engine\";", 0),
    ] {
        let found = faults(module, code);
        assert_eq!(found.len(), count, "{code}: {found:?}");
    }
}
