//! Hashes of keys, one a line, with a user or without: what FetchML's operators keep, and what `sha256sum` prints.

use super::{Found, Owner, lines};
use crate::key::KeyHash;

/// `user hash`, `hash user`, `user: hash`, a hash alone, or a hash and `-`.
pub(super) fn read(text: &str) -> Found {
    let mut found = Found::default();
    for (line, content) in lines(text) {
        let is_hash = |word: &str| KeyHash::parse(word).is_some();
        let words: Vec<&str> = content.split_whitespace().collect();
        let (user, hash) = match words.as_slice() {
            [hash] | [hash, "-"] => (None, *hash),
            [hash, user] if is_hash(hash) && !is_hash(user) => (Some(*user), *hash),
            [user, hash] if !is_hash(user) => (Some(user.strip_suffix(':').unwrap_or(user)), *hash),
            _ => {
                found.problem(line, "a line holds a hash, with a user before or behind it or alone");
                continue;
            }
        };
        let owner = user.map_or(Owner::Unnamed, |user| Owner::Named(user.to_owned()));
        let _taken = found.hash(line, hash, owner);
    }
    found
}
