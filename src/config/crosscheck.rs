//! What only the routes together can get wrong: two that own the same requests, an upstream that does not exist, one
//! that nobody uses.

use super::decode::Decoder;
use super::foreign::nearest;
use super::place::Placed;
use super::problem::Fault;
use super::routes::{Draft, path_text};
use crate::route::{PathPattern, Route};

/// Reports routes that name no upstream, and upstreams that no route names.
pub(super) fn upstreams(decoder: &Decoder<'_>, wanted: &[Placed<Box<str>>], names: &[Placed<&str>]) {
    let known = |wanted: &str| names.is_empty() || names.iter().any(|name| name.value == wanted);
    for wanted in wanted.iter().filter(|wanted| !known(&wanted.value)) {
        let fault = Fault::new("is not one of `upstreams`");
        let fault = match nearest(&wanted.value, names.iter().map(|name| name.value)) {
            Some(near) => fault.suggest(format!("did you mean `{near}`?")),
            None => {
                let names: Vec<_> = names.iter().map(|name| name.place.quote(name.value)).collect();
                fault.hint(format!("there are: {}", names.join(", ")))
            }
        };
        decoder.fault(&wanted.place, &wanted.value, fault);
    }
    for name in names.iter().filter(|name| !wanted.iter().any(|wanted| &*wanted.value == name.value)) {
        decoder.warning(&name.place, "no route leads to this upstream", None);
    }
}

/// Reports routes that own the same requests, or share a label.
pub(super) fn routes(decoder: &Decoder<'_>, routes: &[Draft]) {
    for (index, draft) in routes.iter().enumerate() {
        let mut earlier = routes.iter().take(index);
        if let Some(twin) = earlier.clone().find(|other| same_requests(&draft.route, &other.route)) {
            let what = format!("owns the same requests as {} in line {}", twin.place.path, twin.place.line);
            let hint = "host, path (case and a slash at its end do not count) and a method of both are the same";
            decoder.problem(&draft.place, what, Some(hint));
        } else if let Some(twin) = earlier.find(|other| other.route.name == draft.route.name) {
            same_label(decoder, draft, twin);
        }
    }
}

fn same_label(decoder: &Decoder<'_>, draft: &Draft, twin: &Draft) {
    let what = format!("has the same label as {} in line {}", twin.place.path, twin.place.line);
    match (&draft.name, &twin.name) {
        (Some(place), Some(_)) => decoder.problem(place, what, Some("names of routes are unique")),
        _ => decoder.warning(&draft.place, what, Some("give one a `name`, to tell them apart in metrics and log")),
    }
}

fn same_requests(a: &Route, b: &Route) -> bool {
    let same_path = match (&a.path, &b.path) {
        (PathPattern::Exact(a), PathPattern::Exact(b)) => a.eq_ignore_ascii_case(b),
        (PathPattern::Below(_), PathPattern::Below(_)) => {
            let trimmed = |route: &Route| path_text(&route.path).trim_end_matches('/').to_ascii_lowercase();
            trimmed(a) == trimmed(b)
        }
        (PathPattern::Exact(_), PathPattern::Below(_)) | (PathPattern::Below(_), PathPattern::Exact(_)) => false,
    };
    let same_method = match (&a.methods, &b.methods) {
        (Some(a), Some(b)) => a.iter().any(|method| b.contains(method)),
        (None, _) | (_, None) => true,
    };
    a.host == b.host && same_path && same_method
}
