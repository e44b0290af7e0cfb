//! `WWW-Authenticate`: one challenge for each way of authenticating that a route takes (RFC 9110 section 11.6.1).

use super::{Settings, Source};
use crate::http1::request::Request;

/// The challenges, written once at start.
#[derive(Clone, Debug)]
pub struct Challenges {
    list: Vec<Challenge>,
    plain: Box<[u8]>,
}

#[derive(Clone, Debug)]
struct Challenge {
    value: Box<[u8]>,
    /// The sources it stands for.
    sources: Vec<usize>,
    navigation_only: bool,
}

/// The scheme that stands for every source without one: a plain header, the query, a subprotocol, a cookie. No
/// registered scheme fits them; HTTP asks for at least one challenge in a 401, and clients that do not know this one pass
/// over it.
const PLAIN_SCHEME: &str = "ApiKey";

impl Challenges {
    /// Writes the challenges of all sources.
    pub fn new(settings: &Settings) -> Self {
        let mut challenges = Self { list: Vec::new(), plain: value(PLAIN_SCHEME, &settings.realm) };
        for (index, source) in settings.sources.iter().enumerate() {
            match source {
                Source::Scheme { schemes, .. } => {
                    schemes.iter().for_each(|scheme| challenges.add(value(scheme, &settings.realm), index, false));
                }
                Source::Basic => challenges.add(value("Basic", &settings.realm), index, true),
                Source::Header { .. }
                | Source::Query { .. }
                | Source::WebSocketProtocol { .. }
                | Source::Cookie { .. } => challenges.add(challenges.plain.clone(), index, false),
            }
        }
        challenges
    }

    /// The values for a 401 on a route that takes `accepted` (indices of sources; `None` is all), one field line each.
    /// `Basic` only on navigations, since browsers answer it with a box (decision 12). Never none.
    pub fn values(&self, accepted: Option<&[usize]>, navigation: bool) -> impl Iterator<Item = &[u8]> {
        let shown = move |challenge: &&Challenge| {
            (navigation || !challenge.navigation_only)
                && accepted.is_none_or(|list| challenge.sources.iter().any(|index| list.contains(index)))
        };
        let none = !self.list.iter().any(|challenge| shown(&challenge));
        let values = self.list.iter().filter(shown).map(|challenge| &*challenge.value);
        values.chain(none.then_some(&*self.plain))
    }

    fn add(&mut self, value: Box<[u8]>, source: usize, navigation_only: bool) {
        match self.list.iter_mut().find(|known| known.value.eq_ignore_ascii_case(&value)) {
            Some(known) => known.sources.push(source),
            None => self.list.push(Challenge { value, sources: vec![source], navigation_only }),
        }
    }
}

/// Whether a browser is opening a page (decision 7): GET with `Sec-Fetch-Mode: navigate`, or without that field an
/// `Accept` that contains `text/html`.
pub fn is_navigation(request: Request<'_>) -> bool {
    let fields = request.fields();
    request.method() == b"GET"
        && match fields.first("sec-fetch-mode") {
            Some(mode) => mode == b"navigate",
            None => fields.values("accept").any(|accept| {
                accept.windows(b"text/html".len()).any(|window| window.eq_ignore_ascii_case(b"text/html"))
            }),
        }
}

/// `scheme realm="…"`, the realm as a quoted-string (RFC 9110 section 5.6.4); control characters are left out, and an
/// empty realm leaves the bare scheme.
fn value(scheme: &str, realm: &str) -> Box<[u8]> {
    let mut text = scheme.to_owned();
    if !realm.is_empty() {
        text.push_str(" realm=\"");
        for character in realm.chars().filter(|character| !character.is_control()) {
            if matches!(character, '"' | '\\') {
                text.push('\\');
            }
            text.push(character);
        }
        text.push('"');
    }
    text.into_bytes().into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::request::sample::Sample;

    fn settings(realm: &str) -> Settings {
        let schemes = ["Bearer", "Apikey"].map(Box::from).to_vec();
        Settings {
            sources: vec![
                Source::Header { name: "x-api-key".into() },
                Source::Scheme { name: "authorization".into(), schemes },
                Source::Query { name: "token".into(), browser_login: false },
                Source::Basic,
            ],
            realm: realm.into(),
        }
    }

    fn shown(realm: &str, accepted: Option<&[usize]>, navigation: bool) -> Vec<String> {
        let challenges = Challenges::new(&settings(realm));
        challenges.values(accepted, navigation).map(|value| String::from_utf8(value.to_vec()).unwrap()).collect()
    }

    #[test]
    fn each_accepted_scheme_is_challenged_once() {
        let (api, bearer, basic) = ("ApiKey realm=\"g\"", "Bearer realm=\"g\"", "Basic realm=\"g\"");
        assert_eq!(shown("g", None, false), [api, bearer]);
        assert_eq!(shown("g", None, true), [api, bearer, basic]);
        assert_eq!(shown("g", Some(&[0]), true), [api]);
        assert_eq!(shown("g", Some(&[1]), false), [api, bearer], "Apikey and ApiKey are one scheme");
        assert_eq!(shown("g", Some(&[3]), true), [basic]);
        assert_eq!(shown("g", Some(&[3]), false), [api], "a 401 has at least one");
    }

    #[test]
    fn the_realm_is_quoted() {
        assert_eq!(shown("a\"b\\c\r\nX: y", Some(&[0]), false), ["ApiKey realm=\"a\\\"b\\\\cX: y\""]);
        assert_eq!(shown("", Some(&[0]), false), ["ApiKey"], "K5");
    }

    #[test]
    fn navigations_are_told_from_fetches() {
        for (line, fields, want) in [
            ("GET / HTTP/1.1", vec!["Sec-Fetch-Mode: navigate"], true),
            ("GET / HTTP/1.1", vec!["Sec-Fetch-Mode: cors", "Accept: text/html"], false),
            ("GET / HTTP/1.1", vec!["Accept: application/xhtml+xml, Text/HTML;q=0.9"], true),
            ("GET / HTTP/1.1", vec!["Accept: */*"], false),
            ("GET / HTTP/1.1", vec![], false),
            ("POST / HTTP/1.1", vec!["Sec-Fetch-Mode: navigate"], false),
        ] {
            let sample = Sample::new(line.as_bytes(), &fields);
            assert_eq!(is_navigation(sample.request()), want, "{line} {fields:?}");
        }
    }
}
