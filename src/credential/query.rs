//! Query strings by their raw bytes: arguments are told apart and named without a copy, so that one can be cut out while
//! the bytes of the others stay as they came (design rule 4).

use std::borrow::Cow;

/// The arguments of a query, as sent; an empty one between two `&` counts.
pub(super) fn arguments(query: &[u8]) -> impl Iterator<Item = &[u8]> {
    query.split(|byte| *byte == b'&')
}

/// Name and value of an argument, both still encoded. Without a `=` the value is empty.
pub(super) fn parts(argument: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'=', argument).and_then(|at| argument.split_at_checked(at)) {
        Some((name, value)) => (name, value.get(1..).unwrap_or_default()),
        None => (argument, &[]),
    }
}

/// Whether an encoded name is `name`: decoded once, `+` a plus, case told apart.
pub(super) fn is_named(encoded: &[u8], name: &str) -> bool {
    // An encoded name is never shorter than what it encodes.
    encoded.len() >= name.len() && decoded(encoded).eq(name.bytes())
}

/// The value with `%XX` decoded; a `%` without two hex digits stands for itself.
pub(super) fn decode(value: &[u8]) -> Cow<'_, [u8]> {
    match memchr::memchr(b'%', value) {
        None => Cow::Borrowed(value),
        Some(_) => Cow::Owned(decoded(value).collect()),
    }
}

fn decoded(mut rest: &[u8]) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let (first, tail) = rest.split_first()?;
        let escaped = match rest {
            [b'%', high, low, ..] => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        rest = if escaped.is_some() { rest.get(3..).unwrap_or_default() } else { tail };
        Some(escaped.unwrap_or(*first))
    })
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_compare_decoded_and_exactly() {
        for (encoded, want) in [
            ("api_key", true),
            ("api%5Fkey", true),
            ("%61%70%69%5f%6b%65%79", true),
            ("API_KEY", false),
            ("api_key[]", false),
            ("api_ke", false),
            ("api_key ", false),
            ("api%255Fkey", false),
            ("api%5", false),
            ("", false),
        ] {
            assert_eq!(is_named(encoded.as_bytes(), "api_key"), want, "{encoded}");
        }
    }

    #[test]
    fn values_decode_once_and_keep_plus_and_broken_escapes() {
        for (encoded, want) in
            [("a+b", "a+b"), ("a%2Bb", "a+b"), ("%2525", "%25"), ("%", "%"), ("%z1%4", "%z1%4"), ("%41%", "A%")]
        {
            assert_eq!(decode(encoded.as_bytes()), want.as_bytes(), "{encoded}");
        }
        assert!(matches!(decode(b"plain"), Cow::Borrowed(_)));
        assert_eq!(decode(b"%ff%00"), [0xff, 0].as_slice());
    }

    #[test]
    fn an_argument_splits_at_its_first_equals_sign() {
        assert_eq!(parts(b"a=b=c"), (b"a".as_slice(), b"b=c".as_slice()));
        assert_eq!(parts(b"a"), (b"a".as_slice(), b"".as_slice()));
        assert_eq!(arguments(b"a&&b").count(), 3);
    }
}
