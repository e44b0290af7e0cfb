//! `upstreams`: the services behind the gate.

use std::sync::Arc;
use std::time::Duration;

use super::address;
use super::certificate;
use super::decode::{Section, Slot};
use super::defaults;
use super::name;
use super::place::Placed;
use super::quantity::{boolean, choice, count, duration};
use crate::upstream::{Balance, HealthCheck, HostPolicy, ServerAddress, Settings, TlsSettings};

/// The upstreams that could be read, and the names of all.
pub(super) struct Upstreams<'a> {
    pub(super) settings: Vec<Settings>,
    pub(super) names: Vec<Placed<&'a str>>,
}

/// `upstreams`.
pub(super) fn decode<'a>(top: &mut Section<'a>) -> Upstreams<'a> {
    let mut upstreams = Upstreams { settings: Vec::new(), names: Vec::new() };
    let hint = "write at least one: `upstreams: { app: { servers: [\"127.0.0.1:8000\"] } }`";
    let Some(section) = top.required("upstreams", hint).and_then(Slot::section) else { return upstreams };
    let (decoder, place) = (section.decoder, section.place.clone());
    for (name, slot) in section.named() {
        if let Err(fault) = name::label(name.value) {
            decoder.fault(&name.place, name.value, fault);
        }
        upstreams.settings.extend(slot.section().and_then(|section| upstream(name.value, section)));
        upstreams.names.push(name);
    }
    if upstreams.names.is_empty() {
        decoder.problem(&place, "no upstream is written", Some(hint));
    }
    upstreams
}

fn upstream(name: &str, mut section: Section<'_>) -> Option<Settings> {
    let servers = section.required("servers", "write `servers: [\"host:port\"]`").map(servers);
    let times = Times::decode(&mut section);
    let settings = Settings {
        name: Arc::from(name),
        servers: servers.unwrap_or_default(),
        balance: section.or("balance", defaults::BALANCE, choice(&BALANCES)),
        host: section.or("host", HostPolicy::default(), address::host_policy),
        tls: section.section("tls").and_then(tls),
        http2: section.or("http2", defaults::UPSTREAM_HTTP2, boolean),
        connect_timeout: times.connect,
        response_timeout: times.response,
        idle_timeout: times.idle,
        write_timeout: times.write,
        websocket_idle_timeout: times.websocket_idle,
        keepalive_timeout: times.keepalive,
        health_check: section.section("health_check").and_then(health_check),
    };
    if settings.http2 && !section.has("tls") {
        let hint = "see that the server takes it without an upgrade (h2c with prior knowledge), or add `tls`";
        let place = section.place_of("http2");
        section.decoder.warning(&place, "HTTP/2 without TLS is spoken from the first byte", Some(hint));
    }
    section.finish();
    (!settings.servers.is_empty()).then_some(settings)
}

struct Times {
    connect: Duration,
    response: Duration,
    idle: Duration,
    write: Duration,
    websocket_idle: Duration,
    keepalive: Duration,
}

impl Times {
    fn decode(section: &mut Section<'_>) -> Self {
        Self {
            connect: section.or("connect_timeout", defaults::CONNECT_TIMEOUT, duration),
            response: section.or("response_timeout", defaults::RESPONSE_TIMEOUT, duration),
            idle: section.or("idle_timeout", defaults::IDLE_TIMEOUT, duration),
            write: section.or("write_timeout", defaults::UPSTREAM_WRITE_TIMEOUT, duration),
            websocket_idle: section.or("websocket_idle_timeout", defaults::WEBSOCKET_IDLE_TIMEOUT, duration),
            keepalive: section.or("keepalive_timeout", defaults::UPSTREAM_KEEPALIVE_TIMEOUT, duration),
        }
    }
}

fn servers(slot: Slot<'_>) -> Vec<ServerAddress> {
    let decoder = slot.decoder;
    let directory = decoder.resolve("");
    let mut servers: Vec<Placed<ServerAddress>> = Vec::new();
    for server in slot.items().into_iter().filter_map(|slot| slot.placed(address::server(&directory))) {
        if let Some(twin) = servers.iter().find(|other| other.value == server.value) {
            let what = format!("is the same server as in line {}", twin.place.line);
            decoder.problem(&server.place, what, Some("write each server once"));
        }
        servers.push(server);
    }
    servers.into_iter().map(|server| server.value).collect()
}

fn tls(mut section: Section<'_>) -> Option<TlsSettings> {
    let decoder = section.decoder;
    let hint = "the name in the server's certificate, such as `server_name: worker.lan`";
    let server_name = section.required("server_name", hint).and_then(|slot| slot.parse(address::server_name));
    let ca = section.get("ca").and_then(certificate::file);
    if let Some(ca) = &ca {
        certificate::check_roots(decoder, ca);
    }
    for (one, other) in [("cert", "key"), ("key", "cert")] {
        if section.has(one) && !section.has(other) {
            let what = format!("`{one}` without `{other}`");
            decoder.problem(&section.place_of(one), what, Some("a client certificate needs both"));
        }
    }
    let cert = section.get("cert").and_then(certificate::file);
    let key = section.get("key").and_then(certificate::file);
    let client = cert.zip(key);
    if let Some((cert, key)) = &client {
        certificate::check_pair(decoder, cert, key);
    }
    section.finish();
    let client = client.map(|(cert, key)| (cert.value, key.value));
    Some(TlsSettings { server_name: server_name?, ca: ca.map(|ca| ca.value), client })
}

fn health_check(mut section: Section<'_>) -> Option<HealthCheck> {
    let path = section.required("path", "the path to ask, such as /healthz").and_then(|slot| slot.parse(name::target));
    let interval = section.or("interval", defaults::HEALTH_INTERVAL, duration);
    let unhealthy_after = section.optional("unhealthy_after", count);
    let healthy_after = section.optional("healthy_after", count);
    section.finish();
    Some(HealthCheck {
        path: path?,
        interval,
        unhealthy_after: unhealthy_after.map_or(defaults::UNHEALTHY_AFTER, u32::from),
        healthy_after: healthy_after.map_or(defaults::HEALTHY_AFTER, u32::from),
    })
}

pub(super) const BALANCES: [(&str, Balance); 3] = [
    ("round_robin", Balance::RoundRobin),
    ("least_connections", Balance::LeastConnections),
    ("random", Balance::Random),
];
