//! The name of one request in every log on its way.

use std::fmt;

use crate::http1::request::Request;
use crate::key;

/// Longest id taken from a client, in bytes.
const MAX_LEN: usize = 128;

/// A request id: 1 to 128 of `A-Z a-z 0-9 . _ -`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    bytes: [u8; MAX_LEN],
    len: u8,
}

impl RequestId {
    /// The client's `X-Request-Id` when there is one and it is well formed.
    ///
    /// Ids are logged and sent back, so one that is, or holds, a key of ours is not kept (design rule 4).
    pub fn sent(request: Request<'_>) -> Option<Self> {
        let mut sent = request.fields().values("x-request-id");
        match (sent.next(), sent.next()) {
            (Some(id), None) if is_well_formed(id) => Some(Self::copy(id)),
            _ => None,
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The id as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    fn copy(id: &[u8]) -> Self {
        let mut bytes = [0; MAX_LEN];
        bytes.iter_mut().zip(id).for_each(|(slot, byte)| *slot = *byte);
        Self { bytes, len: u8::try_from(id.len()).unwrap_or_default() }
    }

    /// 32 hex digits made of `random`, where the client sent none.
    pub fn hex(random: [u8; 16]) -> Self {
        let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' + value - 10 };
        let mut bytes = [0; MAX_LEN];
        for ([high, low], byte) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(random) {
            (*high, *low) = (digit(byte >> 4), digit(byte & 15));
        }
        Self { bytes, len: 32 }
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn is_well_formed(id: &[u8]) -> bool {
    (1..=MAX_LEN).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
        && !key::holds_own_format(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::request::sample::Sample;
    use crate::key::ApiKey;

    #[test]
    fn well_formed_ids_are_kept_and_nothing_else() {
        let (longest, longer) = ("a".repeat(128), "a".repeat(129));
        let key = ApiKey::generate(None, |bytes| bytes.fill(5));
        let key = format!("id-{}", key.expose_secret());
        for (sent, kept) in [
            ("7b6a4c1e-1f0e-4a3c-9f54-0a1b2c3d4e5f", true),
            ("a.B_9", true),
            (&longest, true),
            (&longer, false),
            ("", false),
            ("a b", false),
            ("a\"b", false),
            ("a\u{1b}[31m", false),
            ("é", false),
            (&key, false),
        ] {
            let sample = Sample::get("/", &[format!("x-request-ID: {sent}")]);
            let id = RequestId::sent(sample.request());
            assert_eq!(id.as_ref().map(RequestId::as_str), kept.then_some(sent));
            assert_eq!(id.map(|id| id.to_string()), kept.then(|| sent.to_owned()));
        }
        let twice = Sample::get("/", &["X-Request-Id: a", "X-Request-Id: a"]);
        assert_eq!(RequestId::sent(twice.request()), None, "two may differ for those behind");
        let made = RequestId::hex([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(made.as_str(), "000102030405060708090a0b0c0d0eff");
    }
}
