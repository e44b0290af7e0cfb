//! `routes`: which upstream a host and path belong to, and who may go there.

use std::sync::Arc;

use super::address;
use super::credentials::Credentials;
use super::decode::{Decoder, Section, Slot};
use super::headers::Named;
use super::limits;
use super::name;
use super::place::{Place, Placed};
use super::quantity::{boolean, choice};
use crate::limit::Rate;
use crate::route::{Access, HeaderSecret, HostPattern, PathPattern, Route};

/// All routes, and what later checks ask even of those that could not be read whole.
#[derive(Default)]
pub(super) struct Routes {
    pub(super) drafts: Vec<Draft>,
    /// Every upstream named.
    pub(super) upstreams: Vec<Placed<Box<str>>>,
    /// The names in every `set_headers`.
    pub(super) set_headers: Vec<Vec<Named>>,
}

/// A route and the places that later checks speak of.
pub(super) struct Draft {
    pub(super) route: Route,
    pub(super) place: Place,
    pub(super) name: Option<Place>,
}

/// `routes`.
pub(super) fn decode(top: &mut Section<'_>, credentials: &Credentials) -> Routes {
    let mut routes = Routes::default();
    let hint = "write at least one: `routes: [{ path: /, upstream: NAME }]`";
    for slot in top.required("routes", hint).map(Slot::items).unwrap_or_default() {
        if let Some(draft) = route(slot, credentials, &mut routes) {
            routes.drafts.push(draft);
        }
    }
    routes
}

fn route(slot: Slot<'_>, known: &Credentials, routes: &mut Routes) -> Option<Draft> {
    let mut section = slot.section()?;
    let decoder = section.decoder;
    let name = section.get("name").and_then(|slot| slot.placed(name::label));
    let host = section.get("host").and_then(|slot| slot.placed(address::host_pattern));
    let path = path(&mut section);
    let methods = section.get("methods").map(|slot| distinct(slot, name::method));
    let access = section.or("access", Access::Key, choice(&ACCESSES));
    let roles = section.get("roles").map(|slot| distinct(slot, name::role)).unwrap_or_default();
    let scopes = section.get("scopes").map(|slot| distinct(slot, name::scope)).unwrap_or_default();
    let cors_preflight = section.or("cors_preflight", false, boolean);
    let limits = section.section("limits").and_then(route_limits);
    let narrowed = section.get("credentials").filter(|_| known.complete);
    let credentials = narrowed.map(|slot| distinct(slot, |text| known.find(text)));
    let upstream = section.required("upstream", "name one of `upstreams`").and_then(|slot| slot.placed(name::label));
    let (set_headers, set_names) = section.section("set_headers").map(set_headers).unwrap_or_default();
    let strip = section.get("strip_prefix").and_then(|slot| slot.placed(name::strip_prefix));
    if access == Access::Public {
        no_rights_in_public(&section);
    }
    let (place, host_written) = (section.place.clone(), section.has("host"));
    section.finish();
    routes.upstreams.extend(upstream.clone());
    routes.set_headers.push(set_names);
    let (path, upstream) = (path?, upstream?);
    check_strip(decoder, &path.value, strip.as_ref());
    if host_written && host.is_none() {
        return None;
    }
    let host = host.map(|host| host.value);
    let name_or_label = match &name {
        Some(name) => Arc::from(&*name.value),
        None => Arc::from(label(host.as_ref(), &path.value)),
    };
    let route = Route {
        name: name_or_label,
        host,
        path: path.value,
        methods,
        access,
        roles,
        scopes,
        cors_preflight,
        limits,
        credentials,
        upstream: Arc::from(&*upstream.value),
        set_headers,
        strip_prefix: strip.map(|strip| strip.value).unwrap_or_default(),
    };
    Some(Draft { route, place, name: name.map(|name| name.place) })
}

fn path(section: &mut Section<'_>) -> Option<Placed<PathPattern>> {
    let below = section.get("path").and_then(|slot| slot.placed(name::path));
    let exact = section.get("exact").and_then(|slot| slot.placed(name::path));
    let hint = "write `path: /v1/` (it and all below) or `exact: /healthz` (it alone)";
    match (section.has("path"), section.has("exact")) {
        (true, true) => section.decoder.problem(&section.place, "both `path` and `exact` are written", Some(hint)),
        (false, false) => section.decoder.problem(&section.place, "`path` is missing", Some(hint)),
        (true, false) | (false, true) => {}
    }
    let below = below.map(|below| below.map(PathPattern::Below));
    below.or_else(|| exact.map(|exact| exact.map(PathPattern::Exact)))
}

/// The items of a list in which nothing may stand twice.
fn distinct<T: PartialEq>(slot: Slot<'_>, parse: impl Fn(&str) -> Result<T, super::problem::Fault>) -> Vec<T> {
    let decoder = slot.decoder;
    let mut values: Vec<Placed<T>> = Vec::new();
    for item in slot.items().into_iter().filter_map(|slot| slot.placed(&parse)) {
        if let Some(twin) = values.iter().find(|other| other.value == item.value) {
            decoder.problem(&item.place, format!("says the same as {}", twin.place.path), Some("write it once"));
        }
        values.push(item);
    }
    values.into_iter().map(|item| item.value).collect()
}

fn route_limits(mut section: Section<'_>) -> Option<Rate> {
    let rate = limits::rate(&mut section);
    if !section.has("requests") {
        let hint = "write `requests: 10` and `per: 1s`";
        section.decoder.problem(&section.place, "`requests` is missing", Some(hint));
    }
    section.finish();
    rate
}

fn set_headers(section: Section<'_>) -> (Vec<(Box<str>, HeaderSecret)>, Vec<Named>) {
    let decoder = section.decoder;
    let (mut headers, mut names) = (Vec::new(), Vec::new());
    for (name, slot) in section.named() {
        match name::header(name.value) {
            Ok(header) => {
                names.push(Named::new(&header, &name.place));
                if slot.word() == Some(super::print::MASK) {
                    let hint = "put the value back, or refer to it as `${env:NAME}` or `${file:path}`";
                    decoder.warning(&slot.place, "is the mask of `check --print`, not a value", Some(hint));
                }
                headers.extend(slot.parse_secret(name::header_value).map(|value| (header, value)));
            }
            Err(fault) => decoder.fault(&name.place, name.value, fault),
        }
    }
    (headers, names)
}

fn no_rights_in_public(section: &Section<'_>) {
    for right in ["roles", "scopes"] {
        if section.has(right) {
            let what = format!("`{right}` on a public route, where nobody needs a key to hold them");
            let hint = "take them out, or take out `access: public`";
            section.decoder.problem(&section.place_of(right), what, Some(hint));
        }
    }
}

fn check_strip(decoder: &Decoder<'_>, path: &PathPattern, strip: Option<&Placed<Box<str>>>) {
    let Some(strip) = strip else { return };
    let rest = path_text(path).strip_prefix(&*strip.value);
    if !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || strip.value.is_empty()) {
        let fault = super::problem::Fault::new("is not how every path of this route begins");
        decoder.fault(&strip.place, &strip.value, fault.hint("cut what `path` begins with, up to a slash"));
    }
}

/// What a route is called when nobody names it: host and path as written.
pub(super) fn label(host: Option<&HostPattern>, path: &PathPattern) -> String {
    format!("{}{}", host.map(show_host).unwrap_or_default(), path_text(path))
}

/// A path as written.
pub(super) fn path_text(path: &PathPattern) -> &str {
    match path {
        PathPattern::Exact(path) | PathPattern::Below(path) => path,
    }
}

/// A host as written.
pub(super) fn show_host(host: &HostPattern) -> String {
    match host {
        HostPattern::Exact(name) => name.to_string(),
        HostPattern::Below(name) => format!("*{name}"),
    }
}

pub(super) const ACCESSES: [(&str, Access); 2] = [("key", Access::Key), ("public", Access::Public)];
