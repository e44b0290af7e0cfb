//! Rust source as the house rules read it: without comments, strings and test code, and with every path spelled out.

use std::fs;
use std::path::{Path, PathBuf};

/// One file of ours.
pub(crate) struct Source {
    /// From the top of the repository: `src/key.rs`.
    pub(crate) path: String,
    /// As written.
    pub(crate) text: String,
    /// `text` with comments, strings and characters blanked; lines stay where they are.
    pub(crate) code: String,
    /// `code` with what is built for tests only blanked too; all of it for such a file.
    pub(crate) shipped: String,
}

/// A path as `use` or an expression names it, from its first name on: `["std", "fs", "read"]`.
pub(crate) type Names = Vec<String>;

impl Source {
    /// The module that a file of `src` is: `src/keyring/file.rs` is `keyring`, `file`; `src/lib.rs` is the crate itself.
    pub(crate) fn module(&self) -> Option<Vec<&str>> {
        let inside = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        Some(if matches!(inside, "lib" | "main") { Vec::new() } else { inside.split('/').collect() })
    }
}

/// All files of ours that end in `.rs`, in order of their names.
pub(crate) fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    for folder in ["src", "tests", "benches"] {
        collect(&top().join(folder), &mut sources);
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    let test_only: Vec<Vec<String>> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        let Some(module) = source.module() else { continue };
        if test_only.iter().any(|test| module.len() >= test.len() && test.iter().eq(&module[..test.len()])) {
            source.shipped.clear();
        }
    }
    sources
}

/// The folder of `Cargo.toml`.
pub(crate) fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn collect(folder: &Path, sources: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            // Build output, and what package managers bring.
            if !["target", "node_modules"].iter().any(|name| path.ends_with(name)) {
                collect(&path, sources);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(read(&path));
        }
    }
}

fn read(path: &PathBuf) -> Source {
    let text = fs::read_to_string(path).unwrap();
    let code = code_of(&text);
    let shipped = without_tests(&code);
    let path = path.strip_prefix(top()).unwrap().to_str().unwrap().to_owned();
    Source { path, text, code, shipped }
}

/// Modules that a file declares for tests only.
fn test_modules(source: &Source) -> Vec<Vec<String>> {
    let Some(module) = source.module() else { return Vec::new() };
    let mut found = Vec::new();
    for (at, _) in source.code.match_indices(TEST_ONLY) {
        let item = &source.code[at + TEST_ONLY.len()..][..item_end(&source.code[at + TEST_ONLY.len()..])];
        if let Some(name) = item.strip_suffix(';').and_then(|item| item.split_once("mod ")) {
            found.push(module.iter().copied().chain([name.1.trim()]).map(str::to_owned).collect());
        }
    }
    found
}

const TEST_ONLY: &str = "#[cfg(test)]";

fn without_tests(code: &str) -> String {
    let mut shipped = String::with_capacity(code.len());
    let mut rest = code;
    while let Some((before, after)) = rest.split_once(TEST_ONLY) {
        let (item, next) = after.split_at(item_end(after));
        shipped.push_str(before);
        shipped.extend(item.chars().filter(|&c| c == '\n'));
        rest = next;
    }
    shipped + rest
}

/// Where the item that `code` begins with is over: at its `;`, or at the brace that closes its first one.
fn item_end(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 && matches!(c, ';' | '}') {
            return at + 1;
        }
    }
    code.len()
}

/// `text` with the insides of comments, strings and characters blanked.
pub(crate) fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let word_before = code.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = (!word_before).then(|| raw_string(rest)).flatten() {
            length
        } else if c == '"' {
            quoted(rest, '"')
        } else if c == '\'' && is_character(rest) {
            quoted(rest, '\'')
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        code.push(' ');
        code.extend(rest[..length].chars().filter(|&c| c == '\n'));
        rest = &rest[length..];
    }
    code
}

/// The length of the raw string that `rest` begins with, if it does: `r"…"`, `br#"…"#`.
fn raw_string(rest: &str) -> Option<usize> {
    let inside = rest.trim_start_matches(['b', 'c']).strip_prefix('r')?;
    let body = inside.trim_start_matches('#');
    let end = format!("\"{}", &inside[..inside.len() - body.len()]);
    let body_at = rest.len() - body.len() + 1;
    Some(body.strip_prefix('"')?.find(&end)? + body_at + end.len())
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Whether a `'` opens a character and not a lifetime.
fn is_character(rest: &str) -> bool {
    let mut inside = rest.chars().skip(1);
    inside.next() == Some('\\') || inside.next() == Some('\'')
}

/// Every path of at least two names in `code`, each with its line; the trees of `use` are spelled out.
pub(crate) fn paths(code: &str) -> Vec<(usize, Names)> {
    let mut found = Vec::new();
    let mut at = 0;
    let mut line = 1;
    while let Some(c) = code[at..].chars().next() {
        let length = name_length(&code[at..]);
        if length > 0 {
            let after_path = code[..at].ends_with("::") && !code[..at].ends_with(" ::");
            let end = if after_path { at + length } else { read_tree(code, at, &[], line, &mut found) };
            line += code[at..end].matches('\n').count();
            at = end;
        } else {
            line += usize::from(c == '\n');
            at += c.len_utf8();
        }
    }
    found.retain(|(_, names)| names.len() > 1);
    found
}

/// Reads one path or tree at `at`, after `before`; says where it ends.
fn read_tree(code: &str, mut at: usize, before: &[String], line: usize, found: &mut Vec<(usize, Names)>) -> usize {
    let start = at;
    let line_at = |at: usize| line + code[start..at].matches('\n').count();
    let mut names = before.to_vec();
    loop {
        at += code[at..].len() - code[at..].trim_start().len();
        let here = line_at(at);
        if code[at..].starts_with('{') {
            at += 1;
            loop {
                at += code[at..].len() - code[at..].trim_start_matches([' ', '\n', ',']).len();
                if at >= code.len() || code[at..].starts_with('}') {
                    return (at + 1).min(code.len());
                }
                let end = read_tree(code, at, &names, line_at(at), found);
                // `as other` and `*` change nothing here.
                at = end + code[end..].find([',', '}']).unwrap_or(0);
                if at == end && end == code.len() {
                    return end;
                }
            }
        }
        let length = name_length(&code[at..]);
        if length == 0 {
            found.push((here, names));
            return at;
        }
        names.push(code[at..at + length].to_owned());
        at += length;
        let Some(rest) = code[at..].strip_prefix("::") else {
            found.push((here, names));
            return at;
        };
        at = code.len() - rest.len();
    }
}

fn name_length(code: &str) -> usize {
    if code.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    code.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(code.len())
}

#[test]
fn comments_strings_and_tests_are_no_code() {
    let text = "a /* b */ \"c // d\" e // f\n'g' 'h i '\\'' r#\"j\"k\"# l\n#[cfg(test)]\nmod m { n {} }\n#[cfg(test)]\nuse o;\np";
    assert_eq!(
        code_of(text).split_whitespace().take(6).collect::<Vec<_>>(),
        ["a", "e", "'h", "i", "l", "#[cfg(test)]"]
    );
    assert_eq!(without_tests(&code_of(text)).split_whitespace().collect::<Vec<_>>(), ["a", "e", "'h", "i", "l", "p"]);
    assert_eq!(without_tests(&code_of(text)).lines().count(), text.lines().count());
}

#[test]
fn paths_are_spelled_out() {
    let read =
        |code| paths(code).into_iter().map(|(line, names)| format!("{line} {}", names.join("::"))).collect::<Vec<_>>();
    assert_eq!(read("use a::b;"), ["1 a::b"]);
    assert_eq!(
        read("use a::{b, c::{self, d as e},\n f::*, g};\nuse h::i;\nfn j() { k::<L>::m(); n::o::p(1.q()) }"),
        ["1 a::b", "1 a::c::self", "1 a::c::d", "2 a::f", "2 a::g", "3 h::i", "4 k", "4 n::o::p"]
            .into_iter()
            .filter(|path| path.contains("::"))
            .collect::<Vec<_>>()
    );
}
