//! Secrets that everybody knows: the thousand commonest, and the keys that stand as examples in public documents. Their
//! hashes are known as well, so an entry with one of them is open to anybody.

use crate::key::KeyHash;

/// One item between blanks; lines that begin with `#` tell of its source and licence.
const COMMON: &str = include_str!("common.txt");

/// Keys that are printed in documents, ours and those of the systems whose keys come to us, and in the tests.
const EXAMPLES: [&str; 21] = [
    // keygate's README and tests.
    "alice-example-key-48e8f859",
    "bob-example-key-ba9af604",
    // AITBC's page on setting up keys.
    "key1",
    "key2",
    "test_client_key_16_chars",
    "client_dev_key_1_valid",
    "client_dev_key_2_valid",
    "test_key_16_characters_long_minimum",
    "miner_dev_key_1_valid",
    "miner_dev_key_2_valid",
    "test_admin_key_16_chars_min",
    "admin_dev_key_1_valid",
    // Tiled's page on API keys.
    "8df0146c93e9add287d0e7f84a165ba4bd3517bbb3c7c6b4d963c3e1549d0311",
    "48e8f8598940fa0f3e80b406def606e17e815a2c76fe21350a99d6d9935371d11533b318",
    "ba9af604023a829ab22edb786168d6e1b97cef68c54c6d95d7fad5e3e6347fa131263581",
    "573928c62e53096321fb874847bcc6a90ea636eebd8acbd7c5e9d18d2859847b3bfb4f19",
    // What FetchML's and Baseten's pages have people replace.
    "<your-api-key>",
    "<paste-from-bitwarden>",
    "paste value from Baseten between quotes",
    // What others have people replace.
    "your-api-key",
    "YOUR_API_KEY",
];

/// What none of the common ones is longer than, in bytes.
const LONGEST: usize = 16;

/// All of them, commonest first.
pub fn secrets() -> impl Iterator<Item = &'static str> {
    let lines = COMMON.lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(|line| line.split(' ')).chain(EXAMPLES)
}

/// Whether `secret` is one of them.
pub fn is_common(secret: &str) -> bool {
    // Most keys are longer than all that are common: a hundred thousand are asked about in an import.
    EXAMPLES.contains(&secret) || secret.len() <= LONGEST && secrets().any(|common| common == secret)
}

/// Their hashes, made as they are asked for: about a thousand, however many keys they are looked up in.
pub fn hashes() -> impl Iterator<Item = KeyHash> {
    secrets().map(|secret| KeyHash::of(secret.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_whole() {
        assert_eq!(secrets().count(), 1_000 + EXAMPLES.len());
        assert_eq!(secrets().next(), Some("123456"));
        assert!(secrets().all(|secret| !secret.is_empty()));
        for secret in ["password", "changeme", "letmein", "miner_dev_key_2_valid", "bob-example-key-ba9af604"] {
            assert!(is_common(secret), "{secret}");
        }
        assert!(secrets().take(1_000).all(|secret| secret.len() <= LONGEST && is_common(secret)));
        assert!(!is_common("") && !is_common("#"));
    }

    #[test]
    fn hashes_are_those_of_the_file_format() {
        let password = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8";
        assert!(hashes().any(|hash| Some(hash) == KeyHash::parse(password)));
    }
}
