//! What a key is: the secret a caller presents, the public id that names it in logs, and the SHA-256 that the key file
//! holds. Making, recognising and hashing keys happens here and nowhere else; the secret's bytes are read only here.

use std::fmt;

use ecow::EcoString;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Longest key that is ever hashed, in bytes; a longer one is refused unread (decision 9).
pub const MAX_KEY_BYTES: usize = 1024;

const PREFIX: &[u8] = b"kg_";
const ID_LEN: usize = 8;
const SECRET_LEN: usize = 40;
const CHECKSUM_LEN: usize = 6;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A key just made: the one moment at which the gate holds a whole secret of its own.
///
/// No `Clone`, no `Display`, and wiped when dropped.
pub struct ApiKey(Zeroizing<String>);

impl ApiKey {
    /// Makes a key `kg_<8 id><40 secret><6 checksum>` from `random`, which must fill its argument with random bytes.
    ///
    /// An `id` given is kept, as a rotation does (decision 17); otherwise one is drawn. 40 base62 characters carry
    /// 238 bits.
    pub fn generate(id: Option<&KeyId>, mut random: impl FnMut(&mut [u8])) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + ID_LEN + SECRET_LEN + CHECKSUM_LEN));
        text.push_str("kg_");
        match id {
            Some(id) => text.push_str(id.as_str()),
            None => push_random(&mut text, ID_LEN, &mut random),
        }
        push_random(&mut text, SECRET_LEN, &mut random);
        let sum = checksum(text.as_bytes());
        for digit in sum {
            text.push(char::from(digit));
        }
        Self(text)
    }

    /// The public id inside the key.
    pub fn id(&self) -> KeyId {
        KeyId::new(self.0.get(PREFIX.len()..PREFIX.len() + ID_LEN).unwrap_or_default())
    }

    /// The hash that stands for this key in the key file.
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(self.0.as_bytes())
    }

    /// The secret itself, to be shown to its owner once.
    pub fn expose_secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

/// Whether `bytes` is shaped like a key of ours: `kg_`, base62 and a right checksum (CRC-32 of all before it, in
/// base62). Tells our keys from an upstream's own credentials without a lookup; says nothing about validity.
pub fn is_own_format(bytes: &[u8]) -> bool {
    let body = PREFIX.len() + ID_LEN + SECRET_LEN;
    bytes.len() == body + CHECKSUM_LEN
        && bytes.starts_with(PREFIX)
        && bytes.split_at_checked(body).is_some_and(|(head, sum)| {
            head.iter().skip(PREFIX.len()).all(u8::is_ascii_alphanumeric) && sum == checksum(head)
        })
}

/// Whether a key of our own format stands anywhere in `bytes`, set off by anything but letters and digits.
pub fn holds_own_format(bytes: &[u8]) -> bool {
    memchr::memmem::find_iter(bytes, PREFIX).any(|at| {
        let rest = bytes.get(at..).unwrap_or_default();
        let tail = rest.iter().skip(PREFIX.len()).take_while(|byte| byte.is_ascii_alphanumeric()).count();
        rest.get(..PREFIX.len() + tail).is_some_and(is_own_format)
    })
}

/// The public name of a key: what logs, metrics and the CLI call it. Never derived from the secret part.
///
/// Up to 15 bytes, as in every id of our own making, stand in the value itself; a longer id is shared by its clones. A
/// key file may hold a million of them, where one allocation for each would be seen.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(EcoString);

impl KeyId {
    /// Wraps an id already checked by its reader (the key file takes 1 to 64 of `A-Z a-z 0-9 _ -`).
    pub fn new(id: &str) -> Self {
        Self(EcoString::from(id))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// SHA-256 of a key's bytes. As secret as the key: `Debug` shows nothing, and there is no `Display`.
///
/// Lookups go by this value, so their timing depends on something a caller cannot steer without a preimage.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Hashes a presented key; `None` when it is longer than [`MAX_KEY_BYTES`], which is refused unhashed.
    pub fn of_presented(key: &[u8]) -> Option<Self> {
        (key.len() <= MAX_KEY_BYTES).then(|| Self::of(key))
    }

    /// Hashes `key` whatever its length.
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Wraps a digest read elsewhere.
    pub fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// Reads `sha256:<64 hex digits>` or the bare 64 digits, in either case.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
        if hex.len() != 64 {
            return None;
        }
        let mut digest = [0u8; 32];
        for (byte, pair) in digest.iter_mut().zip(hex.as_chunks::<2>().0) {
            let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
            *byte = u8::try_from(high? * 16 + low?).ok()?;
        }
        Some(Self(digest))
    }

    /// The digest's bytes, for indexing and for writing the key file.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(..)")
    }
}

fn push_random(text: &mut String, count: usize, random: &mut impl FnMut(&mut [u8])) {
    let mut left = count;
    let mut pool = Zeroizing::new([0u8; 64]);
    while left > 0 {
        random(pool.as_mut_slice());
        // 248 is the largest multiple of 62 in a byte: dropping what is above it keeps every character equally likely.
        for digit in pool.iter().filter(|byte| **byte < 248).take(left) {
            text.push(base62(u32::from(*digit)));
            left -= 1;
        }
    }
}

fn checksum(head: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut rest = crc32fast::hash(head);
    let mut digits = [b'0'; CHECKSUM_LEN];
    for digit in digits.iter_mut().rev() {
        *digit = base62(rest) as u8;
        rest /= 62;
    }
    digits
}

fn base62(number: u32) -> char {
    BASE62.get((number % 62) as usize).copied().map_or('0', char::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting() -> impl FnMut(&mut [u8]) {
        let mut next = 0u8;
        move |bytes| {
            for byte in bytes {
                *byte = next;
                next = next.wrapping_add(7);
            }
        }
    }

    #[test]
    fn a_new_key_has_the_documented_shape() {
        let key = ApiKey::generate(None, counting());
        let text = key.expose_secret();
        assert_eq!(text.len(), 3 + 8 + 40 + 6);
        assert!(text.starts_with("kg_") && is_own_format(text.as_bytes()));
        assert_eq!(key.id().as_str(), &text[3..11]);
        assert_eq!(key.hash(), KeyHash::of(text.as_bytes()));
    }

    #[test]
    fn rotation_keeps_the_id() {
        let id = KeyId::new("48e8f859");
        let key = ApiKey::generate(Some(&id), counting());
        assert_eq!(key.id(), id);
        assert!(is_own_format(key.expose_secret().as_bytes()));
    }

    #[test]
    fn one_changed_character_breaks_the_checksum() {
        let key = ApiKey::generate(None, counting());
        for at in 3..57 {
            let mut bytes = key.expose_secret().as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
            assert!(!is_own_format(&bytes), "{at}");
        }
        for foreign in ["", "kg_", "alice-example-key-48e8f859", &"k".repeat(57)] {
            assert!(!is_own_format(foreign.as_bytes()));
        }
    }

    #[test]
    fn a_key_is_found_among_other_bytes() {
        let key = ApiKey::generate(None, counting());
        let key = key.expose_secret();
        for around in ["{}", "x={}&y", "kg_kg_{}", "\"{}\"", "kg_1,{},kg_2", "{} {}"] {
            assert!(holds_own_format(around.replace("{}", key).as_bytes()), "{around}");
        }
        for without in ["", "kg_", "kg_kg_kg_", &key[1..], &key[..56], &format!("{key}0")] {
            assert!(!holds_own_format(without.as_bytes()), "{without}");
        }
    }

    #[test]
    fn hashes_read_in_both_forms_and_either_case() {
        let hash = KeyHash::of(b"alice-example-key-48e8f859");
        let hex = "6e87f34a127b2efbebc6b7329b94db222d67d7557b432f466cb70fdf9a51601f";
        for text in [hex.to_owned(), format!("sha256:{hex}"), hex.to_uppercase()] {
            assert_eq!(KeyHash::parse(&text), Some(hash.clone()), "{text}");
        }
        for bad in [
            "",
            "sha256:",
            &hex[1..],
            &format!("{hex}0"),
            &hex.replace('6', "g"),
            &format!("md5:{hex}"),
            &format!("+{}", &hex[1..]),
        ] {
            assert_eq!(KeyHash::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let key = ApiKey::generate(None, counting());
        assert_eq!(format!("{key:?} {:?}", key.hash()), "ApiKey(..) KeyHash(..)");
    }

    #[test]
    fn a_presented_key_past_the_bound_is_not_hashed() {
        assert!(KeyHash::of_presented(&[b'a'; MAX_KEY_BYTES]).is_some());
        assert!(KeyHash::of_presented(&[b'a'; MAX_KEY_BYTES + 1]).is_none());
    }
}
