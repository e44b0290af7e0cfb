//! Which keys somebody may have made up. The key file holds unsalted SHA-256, of which one graphics card tries 2^34 a
//! second: a key of words, of a pattern, or of few characters is found from its hash, a random one is not.

pub mod common;

use std::fmt;

use zxcvbn::zxcvbn;

use crate::key;

/// Below this a key falls to brute force: a thousand cards need a thousand years for 2^80 hashes, and days for 2^64.
const MIN_BITS: f64 = 80.0;

/// Fewer different characters than this no random key of that strength has.
const MIN_VARIETY: usize = 6;

/// Keys up to this long are estimated whole; longer ones only where they do not look random, since it takes long.
const ALWAYS_ESTIMATED: usize = 20;

/// Why a key looks like one that a person chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakness {
    /// It is printed somewhere, or is one of the thousand commonest.
    Known,
    /// It would be guessable even if it were random.
    Short,
    /// It repeats few characters.
    Monotonous,
    /// Words make up half of it or more.
    Words,
    /// It follows a pattern.
    Pattern,
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Known => "it is one that everybody knows",
            Self::Short => "it is too short",
            Self::Monotonous => "it has few different characters",
            Self::Words => "it is made of words",
            Self::Pattern => "it follows a pattern",
        })
    }
}

/// Why `secret` can be guessed; `None` where it looks random. `about` are words that belong to it, such as its user.
pub fn weakness(secret: &str, about: &[&str]) -> Option<Weakness> {
    if key::is_own_format(secret.as_bytes()) {
        return None;
    }
    if common::is_common(secret) {
        return Some(Weakness::Known);
    }
    let mut seen: Vec<char> = secret.chars().collect();
    seen.sort_unstable();
    seen.dedup();
    if bits(secret) < MIN_BITS {
        return Some(Weakness::Short);
    }
    if seen.len() < MIN_VARIETY {
        return Some(Weakness::Monotonous);
    }
    if in_words(secret, about) {
        return Some(Weakness::Words);
    }
    let length = secret.chars().count();
    let estimated = length <= ALWAYS_ESTIMATED || !looks_random(secret);
    (estimated && follows_pattern(secret, length, about)).then_some(Weakness::Pattern)
}

/// The bits that `secret` has if it was drawn from the smallest usual alphabet that it fits.
fn bits(secret: &str) -> f64 {
    let drawn = || secret.bytes().filter(u8::is_ascii_alphanumeric);
    let (lower, upper) = (drawn().any(|byte| byte.is_ascii_lowercase()), drawn().any(|byte| byte.is_ascii_uppercase()));
    let alphabet = if drawn().all(|byte| byte.is_ascii_digit()) {
        10
    } else if drawn().all(|byte| byte.is_ascii_hexdigit()) && lower != upper {
        16
    } else {
        let digits = drawn().any(|byte| byte.is_ascii_digit());
        26 * (u32::from(lower) + u32::from(upper)) + 10 * u32::from(digits)
    };
    // Signs among letters are counted as a letter where there are many, as in base64; a few divide words.
    let signs = secret.chars().filter(|c| !c.is_ascii_alphanumeric()).count();
    let counted = drawn().count() + signs / 2;
    f64::from(u32::try_from(counted).unwrap_or(u32::MAX)) * f64::from(alphabet.max(10)).log2()
}

/// A run of letters of one case, or capitalised, or of digits.
struct Token<'a> {
    text: &'a str,
    /// Whether signs or an end of the key stand on both sides, and signs somewhere.
    alone: bool,
}

fn tokens(secret: &str) -> Vec<Token<'_>> {
    #[derive(PartialEq, Clone, Copy)]
    enum Kind {
        Lower,
        Upper,
        Digit,
        Sign,
    }
    let kind = |c: char| match c {
        c if c.is_lowercase() => Kind::Lower,
        c if c.is_uppercase() => Kind::Upper,
        c if c.is_ascii_digit() => Kind::Digit,
        c if c.is_alphabetic() => Kind::Lower,
        _ => Kind::Sign,
    };
    let mut bounds = vec![0];
    let chars: Vec<(usize, char)> = secret.char_indices().collect();
    for pair in chars.windows(2) {
        let [(start, one), (at, other)] = *pair else { continue };
        let (one, other) = (kind(one), kind(other));
        let capitalised = one == Kind::Upper && other == Kind::Lower && bounds.last() == Some(&start);
        if one != other && !capitalised {
            bounds.push(at);
        }
    }
    bounds.push(secret.len());
    let pieces = bounds.windows(2).filter_map(|pair| secret.get(*pair.first()?..*pair.last()?));
    let pieces: Vec<&str> = pieces.filter(|piece| !piece.is_empty()).collect();
    let is_sign = |piece: Option<&&str>| piece.and_then(|p| p.chars().next()).is_none_or(|c| kind(c) == Kind::Sign);
    let mut tokens = Vec::with_capacity(pieces.len());
    for (at, piece) in pieces.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| pieces.get(before));
        let alone = pieces.len() > 1 && is_sign(before) && is_sign(pieces.get(at + 1));
        if !is_sign(Some(piece)) {
            tokens.push(Token { text: piece, alone });
        }
    }
    tokens
}

/// Whether words make up half of the letters and digits, or more. Random keys are full of short words by chance, so one
/// counts only where signs set it off or where it is long; looking them up takes long, so it comes last. Digits are no words:
/// half of a random hex key are digits, and some runs of them look like dates.
fn in_words(secret: &str, about: &[&str]) -> bool {
    let tokens = tokens(secret);
    let all: usize = tokens.iter().map(|token| token.text.len()).sum();
    let could_be = |token: &&Token<'_>| {
        let digits = token.text.starts_with(|c: char| c.is_ascii_digit());
        !digits && token.text.len() >= if token.alone { 3 } else { 5 }
    };
    let candidates: Vec<&Token<'_>> = tokens.iter().filter(could_be).collect();
    let length = |tokens: &[&Token<'_>]| tokens.iter().map(|token| token.text.len()).sum::<usize>();
    if length(&candidates) * 2 < all {
        return false;
    }
    let words: Vec<&Token<'_>> = candidates.into_iter().filter(|token| is_word(token, about)).collect();
    length(&words) * 2 >= all
}

fn is_word(token: &Token<'_>, about: &[&str]) -> bool {
    let text: String = token.text.chars().take(40).collect();
    // Between signs stand words, also those that no dictionary has, such as names of programs; hex digits do too, by chance.
    let vowels = text.bytes().filter(|byte| b"aeiouyAEIOUY".contains(byte)).count();
    let letters = text.bytes().all(|byte| byte.is_ascii_alphabetic());
    let hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if token.alone && letters && !hex && vowels * 6 >= text.len() && text.len() <= 12 {
        return true;
    }
    let length = f64::from(u32::try_from(text.chars().count()).unwrap_or(u32::MAX));
    zxcvbn(&text, about).guesses_log10() < 0.75 * length
}

/// Whether letters and digits mix as they do in random keys of any usual alphabet. Long keys that do are taken as random;
/// of random ones, few do not.
fn looks_random(secret: &str) -> bool {
    let drawn: Vec<u8> = secret.bytes().filter(u8::is_ascii_alphanumeric).collect();
    let class = |byte: u8| (byte.is_ascii_digit(), byte.is_ascii_uppercase());
    let changes = drawn.windows(2).filter(|pair| matches!(pair, [a, b] if class(*a) != class(*b))).count();
    // Letters and digits that count up or stand still, each seen apart from the other.
    let steady = |wanted: fn(&u8) -> bool| {
        let run: Vec<u8> = drawn.iter().copied().filter(wanted).collect();
        let steps = run.windows(2).filter(|pair| matches!(pair, [a, b] if a.abs_diff(*b) <= 1)).count();
        run.len() >= 4 && steps * 2 > run.len()
    };
    // Of six letters, half are neighbours by chance: in hex the digits alone tell.
    let hex = drawn.iter().all(u8::is_ascii_hexdigit);
    changes * 4 >= drawn.len()
        && !steady(u8::is_ascii_digit)
        && (hex || !steady(u8::is_ascii_alphabetic))
        && !repeats(&drawn)
}

/// Whether three characters come again one after the other, as copies of a part do.
fn repeats(bytes: &[u8]) -> bool {
    bytes
        .windows(4)
        .enumerate()
        .any(|(at, part)| bytes.get(at + 1..).is_some_and(|rest| rest.windows(4).any(|other| other == part)))
}

/// Whether an attacker who tries words, dates and patterns first is far quicker than one who tries everything.
fn follows_pattern(secret: &str, length: usize, about: &[&str]) -> bool {
    let length = f64::from(u32::try_from(length.min(100)).unwrap_or(100));
    zxcvbn(secret, about).guesses_log10() < (0.65 * length).min(15.0)
}

#[cfg(test)]
mod tests;
