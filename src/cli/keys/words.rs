//! Names of keys, which may not repeat: the one that the operator chose, or two random words such as `amber-falcon`.

use super::Failure;
use crate::keyring::Keyring;

/// How many pairs are tried before a number is put behind one.
const TRIES: usize = 100;

/// Whether a key has this name already.
pub(super) fn is_taken(keyring: &Keyring, name: &str) -> bool {
    keyring.records().any(|record| record.name() == Some(name))
}

/// The name that the operator chose, if no key has it.
pub(super) fn chosen(keyring: &Keyring, name: &str) -> Result<String, Failure> {
    if is_taken(keyring, name) {
        return Err(Failure::failed(format!("there is a key named `{name}` already; names may not repeat")));
    }
    Ok(name.to_owned())
}

/// A name for which `taken` is false.
pub(super) fn fresh(taken: impl Fn(&str) -> bool) -> String {
    let pair = || petname::petname(2, "-").unwrap_or_else(|| "key".to_owned());
    let free = (0..TRIES).map(|_| pair()).find(|name| !taken(name));
    free.unwrap_or_else(|| {
        let base = pair();
        (2u64..).map(|number| format!("{base}-{number}")).find(|name| !taken(name)).unwrap_or(base)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_words_that_are_free() {
        let name = fresh(|_| false);
        assert_eq!(name.split('-').filter(|word| !word.is_empty()).count(), 2, "{name}");
        let numbered = fresh(|name| name.split('-').count() < 3);
        assert!(numbered.ends_with("-2"), "{numbered}");
    }
}
