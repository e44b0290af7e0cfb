//! The request target as the log may show it: whatever is given to a name under which the gate takes keys is `***`.

use std::fmt;

use super::escape;
use crate::credential::{Settings, Source};

/// How often a name may be percent-encoded and still be found; a redirect within a redirect needs two.
const MAX_DECODES: usize = 3;

/// Most bytes of a target that are logged.
const MAX_TARGET_BYTES: usize = 2048;

/// The names under which the gate takes keys. Compared without case, `-` like `_`, and without brackets around them: a
/// client that misspells the name has still sent its key.
#[derive(Clone, Debug, Default)]
pub struct CredentialNames(Vec<Box<[u8]>>);

impl CredentialNames {
    /// The names of all sources: a key meant for a header or a cookie is as secret in the query.
    pub fn of(settings: &Settings) -> Self {
        let mut names: Vec<Box<[u8]>> = Vec::new();
        for source in &settings.sources {
            match source {
                Source::Header { name }
                | Source::Scheme { name, .. }
                | Source::Query { name, .. }
                | Source::Cookie { name } => names.push(trimmed(name.as_bytes()).into()),
                Source::WebSocketProtocol { .. } | Source::Basic => {}
            }
        }
        names.retain(|name| !name.is_empty());
        Self(names)
    }

    /// Whether `text`, in any decoding, gives a value to one of the names, or holds an encoded key of ours.
    fn are_in(&self, text: &[u8]) -> bool {
        if self.gives(text) {
            return true;
        }
        let mut text = std::borrow::Cow::Borrowed(text);
        for _ in 0..MAX_DECODES {
            if !text.contains(&b'%') {
                return false;
            }
            text = decoded(&text).into();
            if self.gives(&text) || escape::has_key(&text) {
                return true;
            }
        }
        false
    }

    /// Whether `name=` stands in `text` after its start or a delimiter.
    fn gives(&self, text: &[u8]) -> bool {
        memchr::memchr_iter(b'=', text).any(|end| {
            let before = text.get(..end).unwrap_or_default();
            let name = before.rsplit(|byte| b"=&;?/#, ".contains(byte)).next().unwrap_or_default();
            // `token[1]` and `auth[token]` are, to some readers, members of lists and maps.
            self.is_ours(trimmed(name))
                || name.split(|byte| b"[]".contains(byte)).any(|part| self.is_ours(trimmed(part)))
        })
    }

    fn is_ours(&self, name: &[u8]) -> bool {
        self.0.iter().any(|ours| name.len() == ours.len() && name.iter().zip(ours).all(|(a, b)| same(*a, *b)))
    }
}

/// A request target that shows no credential. There is no way to its bytes but through the redaction, which is done while
/// writing, so that nothing is copied.
#[derive(Clone, Copy)]
pub struct RedactedTarget<'a> {
    target: &'a [u8],
    names: &'a CredentialNames,
}

impl<'a> RedactedTarget<'a> {
    /// Wraps a target as sent, path and query.
    pub fn new(target: &'a [u8], names: &'a CredentialNames) -> Self {
        Self { target, names }
    }

    /// Appends it, escaped as inside a JSON string and cut at 2,048 bytes.
    pub(super) fn push(self, out: &mut Vec<u8>) {
        let mut left = MAX_TARGET_BYTES;
        let (path, query) = match memchr::memchr(b'?', self.target) {
            Some(at) => self.target.split_at(at),
            None => (self.target, &[][..]),
        };
        self.push_part(out, path, &mut left);
        let mut start = b'?';
        for pair in query.strip_prefix(b"?").into_iter().flat_map(|query| query.split(|byte| *byte == b'&')) {
            if left == 0 {
                return;
            }
            out.push(start);
            left -= 1;
            self.push_part(out, pair, &mut left);
            start = b'&';
        }
    }

    /// Appends a path or one item of the query; after its first `=` comes `***` if a credential is in it.
    fn push_part(self, out: &mut Vec<u8>, part: &[u8], left: &mut usize) {
        if self.names.are_in(part) {
            let name = memchr::memchr(b'=', part).and_then(|at| part.get(..=at)).unwrap_or_default();
            escape::push_client(out, name, *left);
            out.extend_from_slice(b"***");
        } else {
            escape::push_client(out, part, *left);
        }
        *left = left.saturating_sub(part.len());
    }
}

impl fmt::Display for RedactedTarget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Vec::new();
        self.push(&mut out);
        f.write_str(&String::from_utf8_lossy(&out))
    }
}

impl fmt::Debug for RedactedTarget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `name` without what stands around its letters and digits: `[token]`, `token[]` and `+token` are all `token`.
fn trimmed(name: &[u8]) -> &[u8] {
    let start = name.iter().position(u8::is_ascii_alphanumeric).unwrap_or(name.len());
    let end = name.iter().rposition(u8::is_ascii_alphanumeric).map_or(start, |last| last + 1);
    name.get(start..end).unwrap_or_default()
}

fn same(one: u8, other: u8) -> bool {
    one.eq_ignore_ascii_case(&other) || !(one.is_ascii_alphanumeric() || other.is_ascii_alphanumeric())
}

/// `text` percent-decoded once; what is no escape stays.
fn decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let escape = match (first, tail) {
            (b'%', [high, low, after @ ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| (high << 4 | low, after)),
            _ => None,
        };
        let (byte, after) = escape.unwrap_or((*first, tail));
        out.push(byte);
        rest = after;
    }
    out
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> CredentialNames {
        CredentialNames::of(&Settings {
            sources: vec![
                Source::Query { name: "api_key".into(), browser_login: true },
                Source::Query { name: "token".into(), browser_login: false },
                Source::Header { name: "x-api-key".into() },
                Source::Basic,
                Source::WebSocketProtocol { prefix: "keygate.key.".into() },
            ],
            realm: "keygate".into(),
        })
    }

    fn check(target: &str, want: &str) {
        assert_eq!(RedactedTarget::new(target.as_bytes(), &names()).to_string(), want, "{target}");
        assert!(!want.contains("SECRET"));
    }

    #[test]
    fn values_of_credential_names_are_cut() {
        check("/a?api_key=SECRET", "/a?api_key=***");
        check("/a?x=1&api_key=SECRET&y=2", "/a?x=1&api_key=***&y=2");
        check("/a?api_key=SECRET&api_key=SECRET2", "/a?api_key=***&api_key=***");
        check("/a?token=SECRET&api_key=SECRET", "/a?token=***&api_key=***");
        check("/a?api_key=", "/a?api_key=***");
        check("/a?api_key=&x", "/a?api_key=***&x");
        check("/a?api_key=SE=CRET=", "/a?api_key=***");
        check("/a?api_key=SECRET;more", "/a?api_key=***");
        check("/a?x=1;api_key=SECRET", "/a?x=***");
        check("/a?x-api-key=SECRET", "/a?x-api-key=***");
    }

    #[test]
    fn encoded_and_misspelt_names_count_too() {
        check("/a?api%5Fkey=SECRET", "/a?api%5Fkey=***");
        check("/a?api%5fkey=SECRET", "/a?api%5fkey=***");
        check("/a?%61%70%69_key=SECRET", "/a?%61%70%69_key=***");
        check("/a?api%255Fkey=SECRET", "/a?api%255Fkey=***");
        check("/a?api%25255Fkey=SECRET", "/a?api%25255Fkey=***");
        check("/a?api_key%3DSECRET", "/a?***");
        check("/a?API_KEY=SECRET", "/a?API_KEY=***");
        check("/a?Api-Key=SECRET", "/a?Api-Key=***");
        check("/a?api_key[]=SECRET", "/a?api_key[]=***");
        check("/a?api_key[1]=SECRET", "/a?api_key[1]=***");
        check("/a?api_key%5b1%5d=SECRET", "/a?api_key%5b1%5d=***");
        check("/a?auth[token]=SECRET", "/a?auth[token]=***");
        check("/a?+token=SECRET", "/a?+token=***");
        check("/a?%20token=SECRET", "/a?%20token=***");
        check("/a?x?token=SECRET", "/a?x?token=***");
        check("/a?next=/b%3Ftoken%3DSECRET", "/a?next=***");
        check("/a?next=%2Fb%253Ftoken%253DSECRET", "/a?next=***");
        check("/a%3Ftoken=SECRET", "/a%3Ftoken=***");
        check("/a;token=SECRET/b?x=1", "/a;token=***?x=1");
    }

    #[test]
    fn what_is_no_credential_stays() {
        for target in [
            "/",
            "/a?",
            "/a??",
            "/a?&&",
            "/a?api_key",
            "/a?api_keys=1&my_token=2&tokens=3&key=4",
            "/a?x=token&y=%zz&z=%",
            "/a/api_key/token",
            "/a?kg_48e8f859",
            "*",
            "",
        ] {
            check(target, target);
        }
    }

    #[test]
    fn own_keys_are_masked_wherever_they_stand() {
        let key = "kg_48e8f859SECRETSECRETSECRET";
        check(&format!("/a/{key}/b?x={key}"), "/a/kg_***/b?x=kg_***");
        check(&format!("/a?x=%6b{}", &key[1..]), "/a?x=***");
    }

    #[test]
    fn without_names_nothing_but_keys_is_cut() {
        let names = CredentialNames::default();
        assert_eq!(RedactedTarget::new(b"/a?api_key=x", &names).to_string(), "/a?api_key=x");
        assert_eq!(format!("{:?}", RedactedTarget::new(b"/a\n?\xff", &names)), r"/a\u000a?\u00ff");
    }

    #[test]
    fn long_targets_are_cut_after_redaction() {
        let long = format!("/{}?token=SECRET&y=1", "x".repeat(2040));
        check(&long, &format!("/{}?token=***", "x".repeat(2040)));
        let longer = format!("/{}?token=SECRET", "x".repeat(5000));
        check(&longer, &format!("/{}...", "x".repeat(2047)));
    }
}
