//! Names for keys whose operator gave none: two random words, such as `amber-falcon`, that no other key has.

/// How many pairs are tried before a number is put behind one.
const TRIES: usize = 100;

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
