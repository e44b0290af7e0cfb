//! HAProxy's map files (its configuration manual, `map` converters): a key, blanks, and the rest of the line for the user.

use super::{Found, Owner, lines};

/// A key and a user; a key alone has no user, as in a file for `-f`.
pub(super) fn read(text: &str) -> Found {
    let mut found = Found::default();
    for (line, content) in lines(text) {
        let (key, user) = content.split_once([' ', '\t']).unwrap_or((content, ""));
        let owner = match user.trim() {
            "" => Owner::Unnamed,
            user => Owner::Named(user.to_owned()),
        };
        let _taken = found.secret(line, key, owner);
    }
    found
}
