//! `request`, `connections`, `shutdown` and `threads`: what is accepted from a client, and for how long.

use super::decode::Section;
use super::defaults;
use super::quantity::{count_up_to, duration, duration_or_zero, size, size_within};
use crate::engine::RequestSettings;
use crate::http1::head::HeadLimits;
use crate::listener::Connections;

/// `request`.
pub(super) fn decode(top: &mut Section<'_>) -> RequestSettings {
    match top.section("request") {
        Some(section) => request(section),
        None => default_request(),
    }
}

fn request(mut section: Section<'_>) -> RequestSettings {
    let default = default_request();
    let head = head(&mut section, default.head);
    let body = section.optional("max_body_bytes", size);
    let settings = RequestSettings {
        head,
        max_body_bytes: body.map_or(default.max_body_bytes, |bytes| (bytes > 0).then_some(bytes)),
        header_timeout: section.or("header_timeout", default.header_timeout, duration),
        body_idle_timeout: section.or("body_idle_timeout", default.body_idle_timeout, duration),
        body_min_rate: section.or("body_min_rate", default.body_min_rate, size),
        keepalive_timeout: section.or("keepalive_timeout", default.keepalive_timeout, duration),
        write_timeout: section.or("write_timeout", default.write_timeout, duration),
    };
    section.finish();
    settings
}

fn head(section: &mut Section<'_>, default: HeadLimits) -> HeadLimits {
    let head = HeadLimits {
        max_head_bytes: section.or("max_header_bytes", default.max_head_bytes, size_within(LEAST, MOST_HEADER_BYTES)),
        max_headers: section.or("max_headers", default.max_headers, count_up_to(MOST_HEADERS)),
        max_target_bytes: section.or("max_uri_bytes", default.max_target_bytes, size_within(LEAST, MOST_HEADER_BYTES)),
    };
    if head.max_target_bytes > head.max_head_bytes {
        let place = section.place_of(if section.has("max_uri_bytes") { "max_uri_bytes" } else { "max_header_bytes" });
        let hint = "the target is part of the head: max_uri_bytes is at most max_header_bytes";
        section.decoder.problem(&place, "leaves the target more room than the whole head has", Some(hint));
    }
    head
}

fn default_request() -> RequestSettings {
    RequestSettings {
        head: HeadLimits {
            max_head_bytes: defaults::MAX_HEADER_BYTES,
            max_headers: defaults::MAX_HEADERS,
            max_target_bytes: defaults::MAX_URI_BYTES,
        },
        max_body_bytes: Some(defaults::MAX_BODY_BYTES),
        header_timeout: defaults::HEADER_TIMEOUT,
        body_idle_timeout: defaults::BODY_IDLE_TIMEOUT,
        body_min_rate: defaults::BODY_MIN_RATE,
        keepalive_timeout: defaults::KEEPALIVE_TIMEOUT,
        write_timeout: defaults::WRITE_TIMEOUT,
    }
}

/// `connections`.
pub(super) fn connections(top: &mut Section<'_>) -> Connections {
    let default = Connections {
        max: defaults::CONNECTIONS_MAX,
        per_address: defaults::CONNECTIONS_PER_ADDRESS,
        handshake_timeout: defaults::HANDSHAKE_TIMEOUT,
    };
    let Some(mut section) = top.section("connections") else { return default };
    let connections = Connections {
        max: section.or("max", default.max, count_up_to(MOST_CONNECTIONS)),
        per_address: section.or("per_address", default.per_address, count_up_to(MOST_CONNECTIONS)),
        handshake_timeout: section.or("handshake_timeout", default.handshake_timeout, duration),
    };
    section.finish();
    connections
}

/// `shutdown`; a grace of `0s` drains nothing.
pub(super) fn shutdown_grace(top: &mut Section<'_>) -> std::time::Duration {
    let Some(mut section) = top.section("shutdown") else { return defaults::SHUTDOWN_GRACE };
    let grace = section.or("grace", defaults::SHUTDOWN_GRACE, duration_or_zero);
    section.finish();
    grace
}

/// Below this no browser gets through.
const LEAST: usize = 256;

/// With it, a connection stays within its 64 KiB (design rule 10).
const MOST_HEADER_BYTES: usize = 48 << 10;

const MOST_HEADERS: usize = 1_000;

const MOST_CONNECTIONS: usize = 1_000_000;
