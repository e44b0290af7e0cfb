//! `.env` files whose variables list keys by role, as AITBC's coordinator reads them: `CLIENT_API_KEYS=["k1","k2"]` has two
//! keys of the role `client`. Lists are JSON, as pydantic reads them, or divided by commas; quotes are the shell's.

use std::collections::HashMap;

use super::{Found, Owner};
use crate::keyring::edit::{Field, Written};

/// Every variable whose name ends with `API_KEYS`. Others are not looked at.
pub(super) fn read(text: &str) -> Found {
    let mut found = Found::default();
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut rest = text;
    let mut line = 1;
    while !rest.is_empty() {
        let (first, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let mut used = 1;
        if let Some((name, value)) = variable(first) {
            let name = name.to_ascii_uppercase();
            if name.ends_with("API_KEY") {
                let what = format!("`{name}` is left out: one key in a variable is mostly for a service elsewhere");
                found.remark(line, what);
            } else if name.ends_with("API_KEYS") {
                // A quoted value may go on for several lines.
                let whole = rest.get(first.len() - value.len()..).unwrap_or_default();
                used = take(&mut found, line, &name, value, whole);
                if let Some(before) = seen.insert(name.clone(), line) {
                    let what =
                        format!("`{name}` stands on line {before} already, and a service counts only one of them");
                    found.problem(line, what);
                }
            }
        }
        line += used;
        rest = after;
        for _ in 1..used {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
        }
    }
    found
}

/// The name and value of an assignment.
pub(super) fn variable(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let line = line.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(line);
    let (name, value) = line.split_once('=')?;
    let name = name.trim();
    let good = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    good.then_some((name, value))
}

/// Takes the keys of one variable; returns how many lines it stands on. `value` ends with the line, `whole` with the text.
fn take(found: &mut Found, line: usize, name: &str, value: &str, whole: &str) -> usize {
    let (keys, used) = if value.trim_start().starts_with('[') {
        (json_and_comment(value), 1)
    } else {
        match unquoted(whole.trim_start_matches([' ', '\t'])) {
            Some((text, used)) if text.trim_start().starts_with('[') => (serde_json::from_str(&text).ok(), used),
            Some((text, used)) => (Some(text.split(',').map(|key| key.trim().to_owned()).collect()), used),
            None => (None, 1),
        }
    };
    let Some(keys) = keys else {
        found.problem(
            line,
            format!("`{name}` is neither a list such as [\"key1\",\"key2\"] nor keys with commas between"),
        );
        return used;
    };
    if keys.iter().any(|key| key.contains("${")) {
        let what = "a variable stands here in `${}`, for which a service takes what it holds: write that in its place";
        found.problem(line, what);
        return used;
    }
    let role = name.trim_end_matches("API_KEYS").trim_matches('_').to_ascii_lowercase();
    for key in keys.iter().filter(|key| !key.is_empty()) {
        let list = if role.is_empty() { "user" } else { role.as_str() };
        let taken = found.secret(line, key, Owner::Listed(list.to_owned()));
        if let Some(entry) = taken.filter(|_| !role.is_empty()) {
            entry.fields.push((Field::Roles, Written::List(vec![role.clone()])));
        }
    }
    used
}

/// A JSON list of texts, and behind it nothing but a comment.
fn json_and_comment(text: &str) -> Option<Vec<String>> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Vec<String>>();
    let keys = values.next()?.ok()?;
    let rest = text.get(values.byte_offset()..)?.trim();
    (rest.is_empty() || rest.starts_with('#')).then_some(keys)
}

/// A value without the shell's quotes, up to a comment or its end, and how many lines it takes.
fn unquoted(text: &str) -> Option<(String, usize)> {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    let mut quote = None;
    let mut used = 1;
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '\n') => break,
            (None, '\'' | '"') => quote = Some(c),
            (None, ' ' | '\t') if chars.peek() == Some(&'#') => break,
            (Some(open), _) if c == open => quote = None,
            (Some('"'), '\\') => match chars.next()? {
                escaped @ ('"' | '\\' | '$' | '`') => out.push(escaped),
                other => out.extend(['\\', other]),
            },
            (Some(_), '\n') => {
                used += 1;
                out.push('\n');
            }
            _ => out.push(c),
        }
    }
    quote.is_none().then(|| (out.trim().to_owned(), used))
}
