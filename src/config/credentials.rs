//! `credentials` and `realm`: where a key may come from.

use super::decode::{Section, Slot};
use super::defaults;
use super::headers::Named;
use super::name;
use super::place::{Place, Placed};
use super::problem::Fault;
use super::quantity::boolean;
use crate::credential::{Settings, Source};

/// The sources, and the names of the headers among them.
pub(super) struct Credentials {
    pub(super) settings: Settings,
    /// Whether every source could be read, so that names can be looked up among them.
    pub(super) complete: bool,
    /// The sources' names, as a message may show them.
    shown: Vec<String>,
    pub(super) headers: Vec<Named>,
}

/// `credentials` and `realm`.
pub(super) fn decode(top: &mut Section<'_>) -> Credentials {
    let realm = top.or("realm", defaults::REALM.into(), name::realm);
    let Some(slot) = top.get("credentials") else {
        let sources: Vec<Placed<Source>> = defaults::credentials().into_iter().map(implied).collect();
        return assemble(sources, realm, true);
    };
    let place = slot.place.clone();
    let slots = slot.items();
    let count = slots.len();
    let placed: Vec<Placed<Source>> = slots.into_iter().filter_map(source).collect();
    check_twins(top, &placed);
    let login = |source: &Source| matches!(source, Source::Query { browser_login: true, .. });
    let cookie = |source: &Source| matches!(source, Source::Cookie { .. });
    if placed.iter().any(|p| login(&p.value)) && !placed.iter().any(|p| cookie(&p.value)) {
        let hint = "add a source such as `- cookie: keygate_session`, which the login sets";
        top.decoder.problem(&place, "`browser_login` needs a cookie among the sources", Some(hint));
    } else if let Some(login) = placed.iter().find(|p| login(&p.value)).filter(|_| !top.has("state")) {
        let hint = "write `state: { path: state.db }`; the secret that signs them is kept beside it";
        top.decoder.warning(&login.place, "without `state`, browser logins end with each restart", Some(hint));
    }
    let complete = placed.len() == count && count > 0;
    assemble(placed, realm, complete)
}

fn assemble(placed: Vec<Placed<Source>>, realm: Box<str>, complete: bool) -> Credentials {
    let headers = placed.iter().filter_map(named).collect();
    let shown = placed.iter().map(|source| source.place.quote(kind_and_name(&source.value).1)).collect();
    let sources = placed.into_iter().map(|placed| placed.value).collect();
    Credentials { settings: Settings { sources, realm }, complete, shown, headers }
}

fn implied(value: Source) -> Placed<Source> {
    Placed { value, place: Place::implied("credentials") }
}

fn source(slot: Slot<'_>) -> Option<Placed<Source>> {
    let mut section = slot.section()?;
    let kinds = ["header", "query", "websocket_protocol", "basic", "cookie"];
    let written: Vec<&str> = kinds.into_iter().filter(|kind| section.has(kind)).collect();
    if written.len() > 1 {
        let what = format!("{} stand in one source", written.join(" and "));
        section.decoder.problem(&section.place, what, Some("begin each source with its own `- `"));
    }
    let header = section.get("header").and_then(|slot| slot.placed(name::credential_header));
    let schemes = section.get("schemes").map(schemes);
    let query = section.get("query").and_then(|slot| slot.placed(name::query));
    let browser_login = section.optional("browser_login", boolean);
    let protocol = section.get("websocket_protocol").and_then(|slot| slot.placed(name::protocol_prefix));
    let basic = section.get("basic").and_then(|slot| slot.placed(basic));
    let cookie = section.get("cookie").and_then(|slot| slot.placed(name::cookie));
    misplaced(&section, "schemes", "header");
    misplaced(&section, "browser_login", "query");
    let source = None
        .or_else(|| header.map(|header| header_source(&section, header, schemes)))
        .or_else(|| {
            query.map(|query| {
                let browser_login = browser_login.unwrap_or_default();
                query.map(|name| Source::Query { name, browser_login })
            })
        })
        .or_else(|| protocol.map(|protocol| protocol.map(|prefix| Source::WebSocketProtocol { prefix })))
        .or_else(|| basic.map(|basic| basic.map(|()| Source::Basic)))
        .or_else(|| cookie.map(|cookie| cookie.map(|name| Source::Cookie { name })));
    if written.is_empty() {
        let what = "does not say where the key comes from";
        section.decoder.problem(
            &section.place,
            what,
            Some("write one of `header`, `query`, `websocket_protocol`, `basic`, `cookie`"),
        );
    }
    section.finish();
    source
}

fn header_source(section: &Section<'_>, header: Placed<Box<str>>, schemes: Option<Vec<Box<str>>>) -> Placed<Source> {
    if schemes.is_none() && header.value.eq_ignore_ascii_case("authorization") {
        let what = "a bare Authorization would count its scheme as part of the key";
        section.decoder.problem(&header.place, what, Some("add `schemes: [Bearer]`"));
    }
    header.map(|name| {
        let name = name.to_ascii_lowercase().into();
        match schemes {
            Some(schemes) => Source::Scheme { name, schemes },
            None => Source::Header { name },
        }
    })
}

fn schemes(slot: Slot<'_>) -> Vec<Box<str>> {
    let decoder = slot.decoder;
    let mut schemes: Vec<Box<str>> = Vec::new();
    for scheme in slot.items().into_iter().filter_map(|slot| slot.placed(name::scheme)) {
        if schemes.iter().any(|known| known.eq_ignore_ascii_case(&scheme.value)) {
            let what = format!("{} is written twice", scheme.place.quote(&scheme.value));
            decoder.problem(&scheme.place, what, Some("schemes match in any case"));
        }
        schemes.push(scheme.value);
    }
    schemes
}

fn basic(text: &str) -> Result<(), Fault> {
    match text {
        "password" => Ok(()),
        _ => {
            Err(Fault::new("is not a part of Basic that holds a key")
                .hint("write `basic: password`; any user name does"))
        }
    }
}

fn misplaced(section: &Section<'_>, setting: &str, owner: &str) {
    if section.has(setting) && !section.has(owner) {
        let what = format!("`{setting}` belongs to a `{owner}` source");
        section.decoder.problem(&section.place_of(setting), what, None);
    }
}

/// Reports sources that would read one value twice.
fn check_twins(top: &Section<'_>, placed: &[Placed<Source>]) {
    for (index, source) in placed.iter().enumerate() {
        for other in placed.iter().take(index) {
            if let Some(hint) = clash(&source.value, &other.value) {
                let what = format!("reads the same place as {} in line {}", other.place.path, other.place.line);
                top.decoder.problem(&source.place, what, Some(hint));
            }
        }
    }
}

fn clash(a: &Source, b: &Source) -> Option<&'static str> {
    use Source::{Basic, Cookie, Header, Query, Scheme, WebSocketProtocol};
    let twice = "write each source once";
    match (a, b) {
        (Scheme { name: a, .. }, Scheme { name: b, .. }) if a == b => Some("write all schemes of a header in one list"),
        (Header { name: a } | Scheme { name: a, .. }, Header { name: b } | Scheme { name: b, .. }) if a == b => {
            Some(twice)
        }
        (Header { name }, Basic) | (Basic, Header { name }) if &**name == "authorization" => Some(twice),
        (Query { name: a, .. }, Query { name: b, .. }) | (Cookie { name: a }, Cookie { name: b }) if a == b => {
            Some(twice)
        }
        (Basic, Basic) => Some(twice),
        (WebSocketProtocol { prefix: a }, WebSocketProtocol { prefix: b }) => {
            (a.starts_with(&**b) || b.starts_with(&**a)).then_some("no prefix may begin with another")
        }
        _ => None,
    }
}

fn named(source: &Placed<Source>) -> Option<Named> {
    match &source.value {
        Source::Header { name } | Source::Scheme { name, .. } => Some(Named::new(name, &source.place)),
        Source::Query { .. } | Source::WebSocketProtocol { .. } | Source::Basic | Source::Cookie { .. } => None,
    }
}

/// The source's kind and its name, as in `query:token`.
pub(super) fn kind_and_name(source: &Source) -> (&'static str, &str) {
    match source {
        Source::Header { name } | Source::Scheme { name, .. } => ("header", name),
        Source::Query { name, .. } => ("query", name),
        Source::WebSocketProtocol { prefix } => ("websocket_protocol", prefix),
        Source::Basic => ("basic", "basic"),
        Source::Cookie { name } => ("cookie", name),
    }
}

impl Credentials {
    /// The source that a route means by `text`: its name, or kind and name where a name alone would mean several.
    pub(super) fn find(&self, text: &str) -> Result<usize, Fault> {
        let matches = |source: &Source| {
            let (kind, name) = kind_and_name(source);
            let same = |text: &str| if kind == "header" { name.eq_ignore_ascii_case(text) } else { name == text };
            same(text) || text.split_once(':').is_some_and(|(prefix, rest)| prefix == kind && same(rest))
        };
        let sources = self.settings.sources.iter().enumerate();
        let mut found = sources.filter(|(_, source)| matches(source)).map(|(index, _)| index);
        let Some(index) = found.next() else {
            let fault = Fault::new("is not the name of a credential source");
            return Err(fault.hint(format!("`credentials` has {}", self.shown.join(", "))));
        };
        if found.next().is_some() {
            let fault = Fault::new("is the name of more than one credential source");
            return Err(fault.suggest(format!("say which kind, as in `header:{text}` or `query:{text}`")));
        }
        Ok(index)
    }
}
