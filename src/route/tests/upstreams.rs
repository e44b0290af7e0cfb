//! What no path may do: be accepted for one route and be another route's in the eyes of an upstream. The upstreams here
//! are written apart from the code they judge, on strings and iterators, each after one family of servers.

use proptest::prelude::*;

use super::{outcome, router};

/// One pass of decoding that leaves broken escapes alone.
fn unescape(path: &str) -> String {
    let hex = |text: Option<&str>| text.and_then(|digits| u8::from_str_radix(digits, 16).ok());
    let mut out = String::new();
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        match (first, hex(rest.get(1..3))) {
            ('%', Some(byte)) if byte.is_ascii() => {
                out.push(char::from(byte));
                rest = &rest[3..];
            }
            _ => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    out
}

/// Dot segments resolved over a stack of names; `merge` drops empty ones first.
fn resolve(path: &str, merge: bool) -> String {
    let mut names: Vec<&str> = Vec::new();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    for part in &parts {
        match *part {
            "." => {}
            ".." => drop(names.pop()),
            "" if merge => {}
            name => names.push(name),
        }
    }
    let ends_open = merge && matches!(parts.last(), Some(&("" | "." | "..")));
    format!("/{}{}", names.join("/"), if ends_open && !names.is_empty() { "/" } else { "" })
}

fn nginx(path: &str) -> String {
    resolve(&unescape(path), true)
}

/// Keeps encoded slashes, decodes the rest, then cleans.
fn slash_keeper(path: &str) -> String {
    let parts: Vec<String> = path.split("%2f").map(unescape).collect();
    resolve(&parts.join("%2f").replace('\\', "/"), true)
}

fn tomcat(path: &str) -> String {
    let bare: Vec<&str> = path.split('/').map(|segment| segment.split(';').next().unwrap_or("")).collect();
    resolve(&unescape(&bare.join("/")), true)
}

/// Decodes before it looks for parameters, as some do behind a rewriting proxy.
fn late_params(path: &str) -> String {
    let decoded = unescape(path);
    let bare: Vec<&str> = decoded.split('/').map(|segment| segment.split(';').next().unwrap_or("")).collect();
    resolve(&bare.join("/"), false)
}

fn iis(path: &str) -> String {
    resolve(&unescape(path).replace('\\', "/"), true).to_lowercase()
}

fn double_decoder(path: &str) -> String {
    resolve(&unescape(&unescape(path)), true)
}

/// A proxy that cleans the path and hands it to a server that decodes it again, without regard for case.
fn proxy_then_iis(path: &str) -> String {
    iis(&nginx(path))
}

/// `new URL(target, base).pathname`.
fn whatwg(path: &str) -> String {
    let forward = path.replace('\\', "/");
    let rest = match forward.strip_prefix("//") {
        Some(reference) => reference
            .trim_start_matches('/')
            .find('/')
            .map_or("/".to_owned(), |slash| reference.trim_start_matches('/')[slash..].to_owned()),
        None => forward,
    };
    let dots = rest.split('/').map(|part| match part.to_lowercase().as_str() {
        "%2e" => ".",
        "%2e%2e" | ".%2e" | "%2e." => "..",
        _ => part,
    });
    resolve(&dots.collect::<Vec<_>>().join("/"), false)
}

/// A rewriter that takes a decoded question mark for the start of the query.
fn rewriter(path: &str) -> String {
    resolve(unescape(path).split('?').next().unwrap_or(""), true)
}

fn verbatim(path: &str) -> String {
    path.to_owned()
}

/// The owner of a path as the upstream understands it: the longest of `prefixes`, or exactly `=path`, ignoring case
/// where the upstream does.
fn owner<'p>(prefixes: &[&'p str], path: &str, fold: bool) -> Option<&'p str> {
    let norm = |text: &str| if fold { text.to_lowercase() } else { text.to_owned() };
    let path = norm(path);
    if let Some(exact) = prefixes.iter().find(|own| own.strip_prefix('=').is_some_and(|exact| norm(exact) == path)) {
        return Some(exact);
    }
    let below = prefixes.iter().filter(|own| {
        let prefix = norm(own.trim_end_matches('/'));
        !own.starts_with('=') && (path == prefix || path.starts_with(&format!("{prefix}/")))
    });
    below.max_by_key(|own| own.trim_end_matches('/').len()).copied()
}

type Upstream = (&'static str, fn(&str) -> String, bool);

const UPSTREAMS: &[Upstream] = &[
    ("verbatim", verbatim, false),
    ("nginx", nginx, false),
    ("slash keeper", slash_keeper, false),
    ("tomcat", tomcat, false),
    ("late params", late_params, false),
    ("iis", iis, true),
    ("double decoder", double_decoder, false),
    ("proxy then iis", proxy_then_iis, true),
    ("whatwg", whatwg, false),
    ("rewriter", rewriter, false),
];

const SEPARATORS: &[&str] =
    &["/", "/", "/", "/", "//", "///", "\\", "%2f", "%5C", "%252f", ";/", ";x=1/", "%3b/", "%3f/", ""];

const NAMES: &[&str] = &[
    "",
    ".",
    "..",
    "%2e",
    "%2E%2e",
    ".%2e",
    "%252e%252e",
    "..;x",
    "%2e%2e;",
    "%2e%2e%3bx",
    "public",
    "private",
    "PRIVATE",
    "%70rivate",
    "%2570rivate",
    "public%2fprivate",
    "admin",
    "v1",
    "a",
    "A",
    "B",
    "%61",
    "%41",
    "%20",
    "%c3%a9",
    "x%3fy",
    "x;y",
    "%23",
    "%25",
];

const TREES: &[&[&str]] = &[
    &["/public/", "/private/", "/"],
    &["/public/", "/private/"],
    &["/private/", "/"],
    &["=/public", "/public/admin/", "/public/", "/"],
    &["/v1/admin/", "=/v1/", "/v1/"],
    &["/Private/", "/a/B/", "/"],
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_upstream_reads_an_accepted_path_as_that_of_another_route(
        pieces in prop::collection::vec((prop::sample::select(SEPARATORS), prop::sample::select(NAMES)), 0..6),
        tree in prop::sample::select(TREES),
    ) {
        let path: String = pieces.iter().flat_map(|(separator, name)| [*separator, *name]).collect();
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        let accepted = match outcome(&router(tree), None, &path, "GET") {
            none if none == "-" => None,
            name if tree.contains(&name.as_str()) => Some(name),
            _refused => return Ok(()),
        };
        for (name, read, fold) in UPSTREAMS {
            let seen = read(&path);
            prop_assert_eq!(owner(tree, &seen, *fold), accepted.as_deref(), "{} reads {} as {}", name, path, seen);
        }
    }

    #[test]
    fn any_bytes_get_an_answer(path in prop::collection::vec(any::<u8>(), 0..64), tree in prop::sample::select(TREES)) {
        outcome(&router(tree), None, [b"/", path.as_slice()].concat(), "GET");
    }
}

#[test]
fn the_upstreams_can_tell_a_trick() {
    let rows: &[(&str, &str, &str)] = &[
        ("nginx", "/public/%2e%2e//private", "/private"),
        ("tomcat", "/public/..;x/private", "/private"),
        ("iis", "/public\\..%5CPRIVATE", "/private"),
        ("double decoder", "/public/%252e%252e%252fprivate", "/private"),
        ("whatwg", "//host/%2e/private", "/private"),
        ("rewriter", "/private%3fx", "/private"),
    ];
    for (name, path, want) in rows {
        let (_, read, _) = UPSTREAMS.iter().find(|(own, ..)| own == name).expect("an upstream of the list");
        assert_eq!(read(path), *want, "{name} {path}");
    }
}
