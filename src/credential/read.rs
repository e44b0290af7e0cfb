//! What stands in one source of one request: nothing, one value, several, or something that cannot be a key.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT;

use super::{Source, query};
use crate::http1::head::{Fields, list_items};
use crate::http1::request::Request;
use crate::key::{MAX_KEY_BYTES, holds_own_format};

/// Most occurrences of one source that are hashed to tell whose they are. A request of thousands gets no more work than
/// one of four, and what it holds is taken for ours: cut, or refused for being there twice.
const MAX_ASKED: usize = 4;

/// The parts of a head that can hold a key.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    fields: Fields<'a>,
    query: Option<&'a [u8]>,
    /// Bit n is set when a field name has n bytes, so that most sources are passed over without reading the fields.
    name_lengths: u64,
}

/// What a source held, over all its occurrences.
pub(super) enum Reading<'a> {
    /// Nothing, or one empty value.
    Absent,
    /// One value of a length that keys may have.
    One(Cow<'a, [u8]>),
    /// One value that is no key: undecodable, too long, or with a NUL.
    Malformed,
    /// More than one value, equal or not.
    Twice,
}

/// One occurrence of a source.
enum Value<'a> {
    /// A candidate, decoded.
    Key(Cow<'a, [u8]>),
    /// The scheme is ours, its content cannot be read.
    Undecodable,
    /// The header with a scheme that this source does not take.
    OtherScheme,
}

impl<'a> Parts<'a> {
    pub(super) fn of(request: Request<'a>) -> Self {
        let fields = request.fields();
        let name_lengths = fields.iter().fold(0, |lengths, field| lengths | length_bit(field.name.len()));
        Self { fields, query: request.query(), name_lengths }
    }

    /// `false` only when no field has this name.
    pub(super) fn may_have(self, name: &str) -> bool {
        self.name_lengths & length_bit(name.len()) != 0
    }

    fn values(self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.may_have(name).then(|| self.fields.values(name)).into_iter().flatten()
    }
}

impl Source {
    /// Reads all occurrences together.
    pub(super) fn read<'a>(&self, parts: Parts<'a>) -> Reading<'a> {
        let (mut keys, mut others, mut first) = (0, 0, None);
        self.each(parts, &mut |value| match value {
            Value::Key(key) => {
                keys += 1;
                first = first.take().or(Some(key));
            }
            Value::Undecodable => keys += 1,
            Value::OtherScheme => others += 1,
        });
        match (keys, others, first) {
            (0, _, _) => Reading::Absent,
            // The same header once in our scheme and once in another has no one reading either.
            (2.., _, _) | (_, 1.., _) => Reading::Twice,
            (_, _, None) => Reading::Malformed,
            (_, _, Some(key)) => match trim(key) {
                key if key.is_empty() => Reading::Absent,
                key if key.len() > MAX_KEY_BYTES || key.contains(&0) => Reading::Malformed,
                key => Reading::One(key),
            },
        }
    }

    /// Whether any occurrence is, or holds, one of our keys. Past [`MAX_ASKED`] occurrences the answer is yes unasked.
    pub(super) fn holds_key(&self, parts: Parts<'_>, known: &impl Fn(&[u8]) -> bool) -> bool {
        let (mut asked, mut holds) = (0, false);
        self.each(parts, &mut |value| {
            if let Value::Key(key) = value {
                asked += 1;
                holds = holds || asked > MAX_ASKED || holds_key(&trim(key), known);
            }
        });
        holds
    }

    fn each<'a>(&self, parts: Parts<'a>, see: &mut dyn FnMut(Value<'a>)) {
        match self {
            Self::Header { name } => header(parts, name).for_each(|value| see(Value::Key(Cow::Borrowed(value)))),
            Self::Scheme { name, schemes } => header(parts, name).for_each(|value| {
                let (scheme, key) = split_scheme(value);
                let ours = schemes.iter().any(|ours| scheme.eq_ignore_ascii_case(ours.as_bytes()));
                see(if ours { Value::Key(Cow::Borrowed(key)) } else { Value::OtherScheme });
            }),
            Self::Basic => parts.values("authorization").for_each(|value| {
                see(match basic(value) {
                    None => Value::OtherScheme,
                    Some(None) => Value::Undecodable,
                    Some(Some((_, password))) => Value::Key(Cow::Owned(password)),
                });
            }),
            Self::Query { name, .. } => query::arguments(parts.query.unwrap_or_default())
                .map(query::parts)
                .filter(|(encoded, _)| query::is_named(encoded, name))
                .for_each(|(_, value)| see(Value::Key(query::decode(value)))),
            Self::WebSocketProtocol { prefix } => parts
                .values("sec-websocket-protocol")
                .flat_map(list_items)
                .filter_map(|item| item.strip_prefix(prefix.as_bytes()))
                .for_each(|key| see(Value::Key(Cow::Borrowed(key)))),
            Self::Cookie { name } => parts
                .values("cookie")
                .flat_map(|line| line.split(|byte| *byte == b';'))
                .filter_map(|pair| cookie_value(pair, name))
                .for_each(|value| see(Value::Key(Cow::Borrowed(value)))),
        }
    }
}

/// Whether `Authorization`, in any reading an upstream may have of it, holds one of our keys: as a whole, after a scheme,
/// or as a part of HTTP Basic.
pub(super) fn authorization_holds_key(parts: Parts<'_>, known: &impl Fn(&[u8]) -> bool) -> bool {
    parts.values("authorization").enumerate().any(|(asked, value)| {
        let (_, content) = split_scheme(value);
        let pair = basic(value).flatten();
        asked >= MAX_ASKED
            || holds_key(value, known)
            || holds_key(content, known)
            || pair.is_some_and(|(user, password)| holds_key(&user, known) || holds_key(&password, known))
    })
}

/// The value of a cookie pair if it is named `name`; cookie names tell case apart (RFC 6265 section 5.4).
pub(super) fn cookie_value<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (found, value) = pair.split_at_checked(memchr::memchr(b'=', pair)?)?;
    (found.trim_ascii() == name.as_bytes()).then(|| value.get(1..).unwrap_or_default())
}

fn header<'a>(parts: Parts<'a>, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let fields = parts.may_have(name).then(|| parts.fields.iter()).into_iter().flatten();
    fields.filter(move |field| field.is(name)).map(|field| field.value)
}

/// Scheme and the rest; the rest is empty when there is no blank.
fn split_scheme(value: &[u8]) -> (&[u8], &[u8]) {
    let at = value.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(value.len());
    value.split_at_checked(at).map_or((value, &[]), |(scheme, rest)| (scheme, rest.trim_ascii()))
}

/// User name and password of HTTP Basic (RFC 7617): `None` for another scheme, `Some(None)` when it cannot be decoded.
#[expect(clippy::option_option, reason = "another scheme and a broken one have different consequences")]
fn basic(value: &[u8]) -> Option<Option<(Vec<u8>, Vec<u8>)>> {
    let (scheme, encoded) = split_scheme(value);
    scheme.eq_ignore_ascii_case(b"basic").then(|| {
        let mut user = STANDARD_PAD_INDIFFERENT.decode(encoded).ok()?;
        let colon = memchr::memchr(b':', &user)?;
        let password = user.get(colon + 1..)?.to_vec();
        user.truncate(colon);
        Some((user, password))
    })
}

/// Whether `value` is one of our keys, or holds one of our own format anywhere. What has a NUL is not given the benefit
/// of the doubt: some readers stop there and see a key.
fn holds_key(value: &[u8], known: &impl Fn(&[u8]) -> bool) -> bool {
    let may_be_key = !value.is_empty() && value.len() <= MAX_KEY_BYTES;
    value.contains(&0) || holds_own_format(value) || (may_be_key && known(value))
}

fn trim(key: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match key {
        Cow::Borrowed(bytes) => Cow::Borrowed(trim_blanks(bytes)),
        Cow::Owned(bytes) if trim_blanks(&bytes).len() == bytes.len() => Cow::Owned(bytes),
        Cow::Owned(bytes) => Cow::Owned(trim_blanks(&bytes).to_vec()),
    }
}

/// Without the spaces and tabs around it; other white space is part of a key.
fn trim_blanks(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

fn length_bit(length: usize) -> u64 {
    1 << length.min(63)
}
