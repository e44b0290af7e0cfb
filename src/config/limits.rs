//! `limits`: what every key may do that names no bounds of its own, and what an address with bad keys may do.

use super::decode::{Section, Slot};
use super::defaults;
use super::quantity::{count, count_up_to, duration, large_count, quota_window};
use crate::limit::{FailedAuth, Limits, Quota, Rate};

/// `limits` as a whole.
pub(super) fn decode(top: &mut Section<'_>) -> (Limits, Option<FailedAuth>) {
    let Some(mut section) = top.section("limits") else {
        return (Limits::default(), Some(default_failed_auth()));
    };
    let limits = section.section("default").map(limits).unwrap_or_default();
    let throttle = match section.get("failed_auth") {
        None => Some(default_failed_auth()),
        Some(slot) => failed_auth(slot),
    };
    section.finish();
    (limits, throttle)
}

fn limits(mut section: Section<'_>) -> Limits {
    let limits = Limits {
        rate: rate(&mut section),
        concurrent: section.optional("concurrent", count),
        websockets: section.optional("websockets", count),
        quota: section.section("quota").and_then(quota),
    };
    section.finish();
    limits
}

/// `requests`, `per` and `burst` of a section; its other settings are left alone.
pub(super) fn rate(section: &mut Section<'_>) -> Option<Rate> {
    let written = section.has("requests");
    for part in ["per", "burst"] {
        if !written && section.has(part) {
            let place = section.place_of(part);
            section.decoder.problem(&place, format!("`{part}` without `requests` bounds nothing"), Some("write both"));
        }
    }
    let requests = section.optional("requests", count);
    let per = if written {
        section.required("per", "say in what time: `per: 1s`").and_then(|slot| slot.parse(duration))
    } else {
        section.optional("per", duration)
    };
    let burst = section.optional("burst", count);
    let requests = requests?;
    Some(Rate { requests, per: per?, burst: burst.unwrap_or(requests) })
}

fn quota(mut section: Section<'_>) -> Option<Quota> {
    let requests = section.required("requests", "say how many").and_then(|slot| slot.parse(large_count));
    let per = section.required("per", "say in what time: 1h, 1d or 1mo").and_then(|slot| slot.parse(quota_window));
    section.finish();
    Some(Quota { requests: requests?, per: per? })
}

fn failed_auth(slot: Slot<'_>) -> Option<FailedAuth> {
    if slot.word() == Some("off") {
        return None;
    }
    let mut section = slot.section()?;
    let default = default_failed_auth();
    let throttle = FailedAuth {
        attempts: section.or("attempts", default.attempts, count),
        per: section.or("per", default.per, duration),
        max_addresses: section.or("max_addresses", default.max_addresses, count_up_to(MOST_ADDRESSES)),
    };
    section.finish();
    Some(throttle)
}

fn default_failed_auth() -> FailedAuth {
    FailedAuth {
        attempts: defaults::FAILED_ATTEMPTS,
        per: defaults::FAILED_PER,
        max_addresses: defaults::FAILED_MAX_ADDRESSES,
    }
}

/// About a GiB of table.
const MOST_ADDRESSES: usize = 10_000_000;
