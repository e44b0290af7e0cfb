//! Which format a source has, where only one is possible: a key that is taken for a hash, or a hash for a key, would be
//! worse than a question.

use super::{Format, env, lines};
use crate::key::KeyHash;

/// The format that `text`, from a file called `name`, can only be.
pub fn guess(name: &str, text: &str) -> Option<Format> {
    let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    let ending = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    if ending(&[".json"]) || text.trim_start().starts_with('[') {
        return Some(Format::Json);
    }
    if ending(&[".csv", ".tsv"]) {
        return Some(Format::Csv);
    }
    let rows: Vec<&str> = lines(text).map(|(_, line)| line).collect();
    let listed =
        |row: &&str| env::variable(row).is_some_and(|(name, _)| name.to_ascii_uppercase().ends_with("API_KEYS"));
    if name == ".env" || name.starts_with(".env.") || ending(&[".env"]) || rows.iter().any(listed) {
        return Some(Format::Env);
    }
    let map = |row: &&str| {
        row.split_whitespace()
            .take(2)
            .eq(["map"].into_iter().chain(row.split_whitespace().nth(1).filter(|word| word.starts_with('$'))))
    };
    if rows.iter().any(map) || (!rows.is_empty() && rows.iter().all(|row| row.ends_with(';'))) {
        return Some(Format::Nginx);
    }
    let columns: Vec<&str> =
        rows.first()?.split([',', ';', '\t']).map(|column| column.trim_matches([' ', '"'])).collect();
    let column = |wanted: &str| columns.iter().any(|column| column.eq_ignore_ascii_case(wanted));
    if columns.len() > 1 && (column("key") || column("hash")) && (column("user") || column("name")) {
        return Some(Format::Csv);
    }
    // 64 hex digits can be a hash, and a key just as well.
    let hashed =
        |row: &&str| row.split_whitespace().any(|word| word.starts_with("sha256:") && KeyHash::parse(word).is_some());
    if rows.iter().all(hashed) {
        return Some(Format::Hash);
    }
    let doubtful = |row: &&str| row.split_whitespace().any(|word| KeyHash::parse(word).is_some());
    let pairs = rows.iter().all(|row| row.split_whitespace().count() == 2);
    (pairs && ending(&[".map"]) && !rows.iter().any(doubtful)).then_some(Format::Haproxy)
}
