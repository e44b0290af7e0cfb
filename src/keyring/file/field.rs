//! The single fields of a key file entry: each reader takes what was written and gives a checked value, or notes what is
//! wrong with it and gives nothing.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use jiff::Timestamp;
use jiff::civil::Date;

use super::notes::Notes;
use crate::key::{self, KeyHash};
use crate::keyring::record::MAX_WORD_BYTES;
use crate::yaml::{Entry, Node, Value};

const MAX_ID_BYTES: usize = 64;
const MAX_TOKEN_BYTES: usize = 128;
const MAX_NOTE_BYTES: usize = 4096;
const NOT_THE_KEY: &str = "this is a key itself: the file holds only its SHA-256, under `hash`";

/// An id as written, even where it looks like a number: 1 to 64 of `A-Z a-z 0-9 _ -`.
pub(super) fn id<'e>(entry: &'e Entry, notes: &mut Notes) -> Option<&'e str> {
    let text = not_a_key(entry, notes)?;
    let good = !text.is_empty() && text.len() <= MAX_ID_BYTES && text.bytes().all(is_id_byte);
    if !good {
        notes.problem(entry.position.line, "`id` must be 1 to 64 of the characters A-Z a-z 0-9 _ -");
    }
    good.then_some(text)
}

/// A user name: it goes into a header, so visible ASCII with blanks inside only.
pub(super) fn user(entry: &Entry, notes: &mut Notes) -> Option<String> {
    let text = not_a_key(entry, notes)?;
    let safe = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let good = safe && is_word(text);
    if !good {
        let what = format!("`user` must be 1 to {MAX_WORD_BYTES} visible ASCII characters, with blanks inside only");
        notes.hinted(entry.position.line, what, "the upstream gets it in a header");
    }
    good.then(|| text.to_owned())
}

/// The operator's name for a key.
pub(super) fn name(entry: &Entry, notes: &mut Notes) -> Option<String> {
    let text = not_a_key(entry, notes)?;
    let good = is_word(text) && !text.chars().any(char::is_control);
    if !good {
        let what =
            format!("`name` must be 1 to {MAX_WORD_BYTES} bytes without control characters or blanks at its ends");
        notes.problem(entry.position.line, what);
    }
    good.then(|| text.to_owned())
}

/// Free text, of several lines if need be.
pub(super) fn note(entry: &Entry, notes: &mut Notes) -> Option<String> {
    let text = notes.scalar(entry)?;
    let good = text.len() <= MAX_NOTE_BYTES && !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t'));
    if !good {
        notes.problem(
            entry.position.line,
            format!("`note` must be at most {MAX_NOTE_BYTES} bytes without control characters"),
        );
    }
    good.then(|| text.to_owned())
}

/// SHA-256 of a key: 64 hex digits, bare or after `sha256:`.
pub(super) fn hash(entry: &Entry, notes: &mut Notes) -> Option<KeyHash> {
    let text = not_a_key(entry, notes)?;
    let hash = KeyHash::parse(text);
    if hash.is_none() {
        let what = format!("`{}` must be 64 hex digits, bare or after `sha256:`", entry.key);
        notes.hinted(entry.position.line, what, "the SHA-256 of the key, never the key");
    }
    hash
}

/// Only `true` and `false`, unquoted: whoever writes `disabled: yes` must not find the key still working.
pub(super) fn switch(entry: &Entry, notes: &mut Notes) -> Option<bool> {
    match (notes.scalar(entry)?, &entry.value.value) {
        ("true", Value::Scalar { plain: true, .. }) => Some(true),
        ("false", Value::Scalar { plain: true, .. }) => Some(false),
        _ => {
            notes.problem(entry.position.line, format!("`{}` must be true or false", entry.key));
            None
        }
    }
}

/// A moment: RFC 3339 with an offset, or a bare date for its first moment in UTC (decision 18).
pub(super) fn date(entry: &Entry, notes: &mut Notes) -> Option<Timestamp> {
    let text = notes.scalar(entry)?;
    let time = if has_shape(text, "dddd-dd-dd") { midnight(text) } else { rfc3339(text) };
    if time.is_none() {
        let what = format!("`{}` is not a date", entry.key);
        let local = text.get(..10).is_some_and(|date| has_shape(date, "dddd-dd-dd")) && !ends_with_offset(text);
        let hint = match local && text.len() > 10 {
            true => "the time needs an offset: `Z` for UTC, or one such as `+02:00`",
            false => "write `2027-11-22T10:00:00Z`, or `2027-11-22` for its first moment in UTC",
        };
        notes.hinted(entry.position.line, what, hint);
    }
    time
}

/// Roles or scopes: they are joined by commas and blanks in headers, so none may hold either.
pub(super) fn tokens(entry: &Entry, notes: &mut Notes) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    for item in notes.list(entry).unwrap_or_default() {
        let line = item.position.line;
        match item.text().filter(|text| is_token(text)) {
            Some(text) if key::holds_own_format(text.as_bytes()) => {
                notes.hinted(line, format!("an item of `{}` holds a secret", entry.key), NOT_THE_KEY);
            }
            Some(text) if tokens.iter().any(|token| token == text) => {
                notes.warning(line, format!("`{}` holds one item twice", entry.key));
            }
            Some(text) => tokens.push(text.to_owned()),
            None => {
                let key = &entry.key;
                let what = format!("an item of `{key}` must be 1 to {MAX_TOKEN_BYTES} visible ASCII characters");
                notes.hinted(line, what, "no blanks and no commas: headers join items with these");
            }
        }
    }
    tokens
}

/// Addresses and networks; an empty list is refused, since it could be meant as nobody or as everybody.
pub(super) fn nets(entry: &Entry, notes: &mut Notes) -> Vec<IpNet> {
    let Some(items) = notes.list(entry) else { return Vec::new() };
    if items.is_empty() {
        notes.hinted(entry.position.line, "`allow_from` is empty", "leave it out to allow every address");
    }
    items.iter().filter_map(|item| net(item, notes)).collect()
}

fn net(item: &Node, notes: &mut Notes) -> Option<IpNet> {
    let line = item.position.line;
    let text = item.text().unwrap_or_default();
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let Some(net) = net else {
        let hint = "such as 10.0.0.0/8, 192.168.1.7 or fd00::/8; names are not looked up";
        notes.hinted(line, "an item of `allow_from` is neither an address nor a network", hint);
        return None;
    };
    if net != net.trunc() {
        notes.warning(
            line,
            format!("this network begins at {}: the bits behind the prefix do not count", net.network()),
        );
    }
    Some(unmapped(net.trunc()))
}

/// IPv4 written inside IPv6 as IPv4: callers are compared that way.
fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let v4 = v6.network().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    v4.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok()).map_or(net, IpNet::V4)
}

fn not_a_key<'e>(entry: &'e Entry, notes: &mut Notes) -> Option<&'e str> {
    let text = notes.scalar(entry)?;
    if key::is_own_format(text.as_bytes()) {
        notes.hinted(entry.position.line, format!("`{}` holds a secret", entry.key), NOT_THE_KEY);
        return None;
    }
    Some(text)
}

fn is_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_WORD_BYTES && text.trim() == text
}

fn is_token(text: &str) -> bool {
    let length = 1..=MAX_TOKEN_BYTES;
    length.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

fn midnight(text: &str) -> Option<Timestamp> {
    let date: Date = text.parse().ok()?;
    date.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

/// RFC 3339 section 5.6, `date-time`. The library's own reader takes more forms, so the shape is checked first.
fn rfc3339(text: &str) -> Option<Timestamp> {
    let (head, rest) = text.split_at_checked(19)?;
    let fraction = rest.strip_prefix('.').map_or(0, |digits| 1 + digits.bytes().take_while(u8::is_ascii_digit).count());
    let offset = rest.get(fraction..)?;
    let shaped = has_shape(head, "dddd-dd-ddTdd:dd:dd") || has_shape(head, "dddd-dd-ddtdd:dd:dd");
    let offset_shaped = matches!(offset, "Z" | "z") || has_shape(offset, "+dd:dd") || has_shape(offset, "-dd:dd");
    let in_day = offset.get(1..3).is_none_or(|hours| hours < "24");
    let good = shaped && offset_shaped && in_day && fraction != 1;
    if good { text.parse().ok() } else { None }
}

/// Whether `text` looks like `shape`, in which `d` is a digit and all else itself.
fn has_shape(text: &str, shape: &str) -> bool {
    let fits = |(byte, wanted): (u8, u8)| if wanted == b'd' { byte.is_ascii_digit() } else { byte == wanted };
    text.len() == shape.len() && text.bytes().zip(shape.bytes()).all(fits)
}

fn ends_with_offset(text: &str) -> bool {
    let numeric = text.len().checked_sub(6).and_then(|at| text.get(at..));
    text.ends_with(['Z', 'z']) || numeric.is_some_and(|tail| has_shape(tail, "+dd:dd") || has_shape(tail, "-dd:dd"))
}
