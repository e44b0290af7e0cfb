//! The effective configuration as YAML that loads again: every setting with its value, no secret.

use std::collections::BTreeMap;

use serde_yaml::Value;

use group::Group;

use super::Config;
use super::address::{show_listen, show_server};
use super::credentials::kind_and_name;
use super::log::{FORMATS, LEVELS};
use super::quantity::{show_duration, show_size};
use super::routes::{ACCESSES, label, path_text, show_host};
use super::upstreams::BALANCES;
use crate::access_log::Target;
use crate::credential::Source;
use crate::identity::TrustedProxy;
use crate::limit::{Limits, QuotaWindow, Rate};
use crate::route::{PathPattern, Route};
use crate::tls::MinVersion;
use crate::upstream::{HostPolicy, Settings as Upstream};

mod group;

/// What stands for a secret.
pub(super) const MASK: &str = "***";

/// `config` as YAML; `references` are the settings whose value came from `${…}`, as they were written.
pub(super) fn print(config: &Config, references: &BTreeMap<String, String>) -> String {
    let mut top = Group::top(references);
    let listeners = config.listeners.iter();
    top.list("listen", listeners, |mut group, listener| {
        group.text("address", show_listen(&listener.address));
        if let Some(tls) = &listener.tls {
            group.group("tls", |group| {
                group.list("certificates", tls.certificates.iter(), |mut group, files| {
                    group.text("cert", files.cert.display());
                    group.text("key", files.key.display());
                    group.done()
                });
                group.text("min_version", if tls.min_version == MinVersion::Tls13 { "1.3" } else { "1.2" });
                group.put("http2", tls.http2);
            });
        }
        group.done()
    });
    if let Some(admin) = &config.admin {
        top.group("admin", |group| group.text("address", show_listen(admin)));
    }
    top.group("keys", |group| group.text("file", config.key_file.display()));
    if let Some(path) = &config.state_path {
        top.group("state", |group| group.text("path", path.display()));
    }
    top.text("realm", &config.credentials.realm);
    top.list("credentials", config.credentials.sources.iter(), source);
    identity(&mut top, config);
    limits(&mut top, config);
    bounds(&mut top, config);
    top.group("upstreams", |group| {
        for settings in &config.upstreams {
            group.group(&settings.name, |group| upstream(group, settings));
        }
    });
    top.list("routes", config.routes.iter(), |group, settings| route(group, settings, config));
    top.group("log", |group| {
        group.text("level", word(&LEVELS, config.log.level));
        group.text("format", word(&FORMATS, config.log.format));
        match &config.log.access {
            Target::Stdout => group.text("access", "stdout"),
            Target::Off => group.text("access", "off"),
            Target::File(path) => group.text("access", path.display()),
        }
    });
    serde_yaml::to_string(&top.done()).unwrap_or_default()
}

fn source(mut group: Group<'_>, source: &Source) -> Value {
    let (kind, name) = kind_and_name(source);
    group.text(kind, if matches!(source, Source::Basic) { "password" } else { name });
    match source {
        Source::Scheme { schemes, .. } => group.texts("schemes", schemes),
        Source::Query { browser_login, .. } => group.put("browser_login", *browser_login),
        Source::Header { .. } | Source::WebSocketProtocol { .. } | Source::Basic | Source::Cookie { .. } => {}
    }
    group.done()
}

fn identity(top: &mut Group<'_>, config: &Config) {
    top.group("identity", |group| {
        group.group("headers", |group| {
            let identity = &config.identity;
            for (setting, names) in [
                ("user", &identity.user),
                ("key_id", &identity.key_id),
                ("roles", &identity.roles),
                ("scopes", &identity.scopes),
            ] {
                if !names.is_empty() {
                    group.texts(setting, names);
                }
            }
        });
        let proxies = config.identity.trusted_proxies.iter().map(|proxy| match proxy {
            TrustedProxy::Net(net) => net.to_string(),
            TrustedProxy::Unix => "unix".to_owned(),
        });
        group.texts("trusted_proxies", proxies);
    });
}

fn limits(top: &mut Group<'_>, config: &Config) {
    top.group("limits", |group| {
        let Limits { rate, concurrent, websockets, quota } = config.default_limits;
        group.group("default", |group| {
            if let Some(bound) = rate {
                put_rate(group, bound);
            }
            for (setting, bound) in [("concurrent", concurrent), ("websockets", websockets)] {
                if let Some(bound) = bound {
                    group.put(setting, bound.get());
                }
            }
            if let Some(quota) = quota {
                group.group("quota", |group| {
                    group.put("requests", quota.requests.get());
                    group.text(
                        "per",
                        match quota.per {
                            QuotaWindow::Hour => "1h",
                            QuotaWindow::Day => "1d",
                            QuotaWindow::Month => "1mo",
                        },
                    );
                });
            }
        });
        match config.failed_auth {
            None => group.text("failed_auth", "off"),
            Some(throttle) => group.group("failed_auth", |group| {
                group.put("attempts", throttle.attempts.get());
                group.text("per", show_duration(throttle.per));
                group.put("max_addresses", throttle.max_addresses);
            }),
        }
    });
}

/// A burst that nobody wrote is a copy of `requests`, and so nobody's to see where that came from outside.
fn put_rate(group: &mut Group<'_>, rate: Rate) {
    group.put("requests", rate.requests.get());
    group.text("per", show_duration(rate.per));
    let copied = rate.burst == rate.requests && group.is_reference("requests");
    if !copied || group.is_reference("burst") {
        group.put("burst", rate.burst.get());
    }
}

fn bounds(top: &mut Group<'_>, config: &Config) {
    top.group("connections", |group| {
        group.put("max", config.connections.max);
        group.put("per_address", config.connections.per_address);
        group.text("handshake_timeout", show_duration(config.connections.handshake_timeout));
    });
    top.group("shutdown", |group| group.text("grace", show_duration(config.shutdown_grace)));
    match config.threads {
        None => top.text("threads", "auto"),
        Some(threads) => top.put("threads", threads.get()),
    }
    let request = config.request;
    top.group("request", |group| {
        group.text("max_header_bytes", show_size(request.head.max_head_bytes as u64));
        group.put("max_headers", request.head.max_headers);
        group.text("max_uri_bytes", show_size(request.head.max_target_bytes as u64));
        group.text("max_body_bytes", show_size(request.max_body_bytes.unwrap_or(0)));
        group.text("header_timeout", show_duration(request.header_timeout));
        group.text("body_idle_timeout", show_duration(request.body_idle_timeout));
        group.text("body_min_rate", show_size(request.body_min_rate));
        group.text("keepalive_timeout", show_duration(request.keepalive_timeout));
        group.text("write_timeout", show_duration(request.write_timeout));
    });
}

fn upstream(group: &mut Group<'_>, settings: &Upstream) {
    group.texts("servers", settings.servers.iter().map(show_server));
    group.text("balance", word(&BALANCES, settings.balance));
    match &settings.host {
        HostPolicy::Keep => group.text("host", "keep"),
        HostPolicy::Upstream => group.text("host", "upstream"),
        HostPolicy::Literal(name) => group.text("host", name),
    }
    if let Some(tls) = &settings.tls {
        group.group("tls", |group| {
            group.text("server_name", &tls.server_name);
            if let Some(ca) = &tls.ca {
                group.text("ca", ca.display());
            }
            if let Some((cert, key)) = &tls.client {
                group.text("cert", cert.display());
                group.text("key", key.display());
            }
        });
    }
    group.put("http2", settings.http2);
    for (setting, time) in [
        ("connect_timeout", settings.connect_timeout),
        ("response_timeout", settings.response_timeout),
        ("idle_timeout", settings.idle_timeout),
        ("write_timeout", settings.write_timeout),
        ("websocket_idle_timeout", settings.websocket_idle_timeout),
        ("keepalive_timeout", settings.keepalive_timeout),
    ] {
        group.text(setting, show_duration(time));
    }
    if let Some(check) = &settings.health_check {
        group.group("health_check", |group| {
            group.text("path", &check.path);
            group.text("interval", show_duration(check.interval));
            group.put("unhealthy_after", check.unhealthy_after);
            group.put("healthy_after", check.healthy_after);
        });
    }
}

fn route(mut group: Group<'_>, route: &Route, config: &Config) -> Value {
    let (kind, path) = match &route.path {
        PathPattern::Exact(_) => ("exact", path_text(&route.path)),
        PathPattern::Below(_) => ("path", path_text(&route.path)),
    };
    // A name that nobody wrote is made of host and path.
    let made = *route.name == *label(route.host.as_ref(), &route.path);
    if !(made && (group.is_reference("host") || group.is_reference(kind))) || group.is_reference("name") {
        group.text("name", &route.name);
    }
    if let Some(host) = &route.host {
        group.text("host", show_host(host));
    }
    group.text(kind, path);
    if let Some(methods) = &route.methods {
        group.texts("methods", methods);
    }
    group.text("access", word(&ACCESSES, route.access));
    for (setting, rights) in [("roles", &route.roles), ("scopes", &route.scopes)] {
        if !rights.is_empty() {
            group.texts(setting, rights);
        }
    }
    group.put("cors_preflight", route.cors_preflight);
    if let Some(rate) = route.limits {
        group.group("limits", |group| put_rate(group, rate));
    }
    if let Some(indices) = &route.credentials {
        let sources = indices.iter().filter_map(|index| config.credentials.sources.get(*index));
        group.texts("credentials", sources.map(kind_and_name).map(|(kind, name)| format!("{kind}:{name}")));
    }
    group.text("upstream", &route.upstream);
    if !route.set_headers.is_empty() {
        group.masked("set_headers", route.set_headers.iter().map(|(name, _)| &**name));
    }
    group.text("strip_prefix", &route.strip_prefix);
    group.done()
}

fn word<T: PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, known)| *known == value).map(|(word, _)| *word).unwrap_or_default()
}
