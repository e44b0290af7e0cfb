//! `identity`: what the upstream is told about the caller, and whose forwarded headers are believed.

use super::address;
use super::decode::{Section, Slot};
use super::defaults;
use super::headers::Named;
use super::name;
use super::place::Place;
use crate::identity::{Settings, TrustedProxy};

/// `identity`, and the names it takes.
pub(super) fn decode(top: &mut Section<'_>) -> (Settings, Vec<Named>) {
    let Some(mut section) = top.section("identity") else { return default_headers() };
    let (headers, names) = match section.get("headers") {
        None => default_headers(),
        Some(slot) => slot.section().map(headers).unwrap_or_default(),
    };
    let proxies = section.get("trusted_proxies").map(Slot::any_items).unwrap_or_default();
    let trusted_proxies = proxies.into_iter().filter_map(trusted_proxy).collect();
    section.finish();
    (Settings { trusted_proxies, ..headers }, names)
}

fn headers(mut section: Section<'_>) -> (Settings, Vec<Named>) {
    let mut names = Vec::new();
    let mut list = |setting| {
        let items = section.get(setting).map(Slot::one_or_items).unwrap_or_default();
        let placed: Vec<_> = items.into_iter().filter_map(|slot| slot.placed(name::identity_header)).collect();
        names.extend(placed.iter().map(|placed| Named::new(&placed.value, &placed.place)));
        placed.into_iter().map(|placed| placed.value).collect()
    };
    let settings = Settings {
        user: list("user"),
        key_id: list("key_id"),
        roles: list("roles"),
        scopes: list("scopes"),
        trusted_proxies: Vec::new(),
    };
    section.finish();
    (settings, names)
}

fn default_headers() -> (Settings, Vec<Named>) {
    let settings = Settings {
        user: vec![defaults::IDENTITY_USER.into()],
        key_id: vec![defaults::IDENTITY_KEY_ID.into()],
        roles: vec![defaults::IDENTITY_ROLES.into()],
        scopes: vec![defaults::IDENTITY_SCOPES.into()],
        trusted_proxies: Vec::new(),
    };
    let all = [&settings.user, &settings.key_id, &settings.roles, &settings.scopes];
    let place = Place::implied("identity.headers");
    let names = all.into_iter().flatten().map(|name| Named::new(name, &place)).collect();
    (settings, names)
}

fn trusted_proxy(slot: Slot<'_>) -> Option<TrustedProxy> {
    let decoder = slot.decoder;
    let placed = slot.placed(address::trusted_proxy)?;
    if matches!(placed.value, TrustedProxy::Net(net) if net.prefix_len() == 0) {
        let hint = "name the proxies that stand in front of the gate";
        decoder.warning(&placed.place, "believes what any client says about its own address", Some(hint));
    }
    Some(placed.value)
}
