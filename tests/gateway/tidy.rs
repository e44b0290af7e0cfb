//! House rules as tests: who may depend on whom, what may be named where, and what the documents must hold. Each test
//! reads all of the source and reports everything it finds at once.

mod layers; // arrows point down only
mod source; // how source is read

use std::collections::BTreeSet;
use std::fs;

use source::{Source, sources, top};

/// Files of more than 400 lines, and why each stays one.
const LONG_FILES: &[(&str, &str)] = &[
    ("src/config/tests.rs", "one table of cases and the checks on it"),
    ("src/credential/tests.rs", "one table a source of credentials"),
    ("src/identity/tests.rs", "one table of requests and what the upstream sees"),
    ("tests/gateway/contract.rs", "one table of settings, and the tests that turn them"),
    ("tests/gateway/keys_import.rs", "one table of sources, one of refusals, and what becomes of them"),
    ("tests/gateway/revocation.rs", "one theme: every way a key ends, on every kind of connection"),
    ("tests/gateway/suites.rs", "one table of requests and outcomes per suite of another gateway"),
    ("tests/gateway/websocket.rs", "one theme: handshakes, tunnels, their limits and ends"),
];

/// Tests that do not run by themselves, and what runs them.
const IGNORED: &[(&str, &str)] =
    &[("src/own_log/tests.rs", "a log is installed for a process; its neighbour starts one for it")];

/// Fails with everything in `found`, if there is anything.
fn nothing(rule: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{rule}\n  {}\n{} in all", found.join("\n  "), found.len());
}

/// Places in `text` (that of `source`, or a part with the same lines) that hold one of `needles`.
fn places(source: &Source, text: &str, needles: &[&str]) -> Vec<String> {
    let lines = text.lines().enumerate();
    let hits =
        lines.filter_map(|(at, line)| needles.iter().find(|needle| line.contains(**needle)).map(|hit| (at + 1, hit)));
    hits.map(|(line, hit)| format!("{}:{line}: {hit}", source.path)).collect()
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = sources()
        .into_iter()
        .filter(|source| !["//! ", "#![doc = include_str!("].iter().any(|opening| source.text.starts_with(opening)));
    nothing(
        "A file opens with a `//!` paragraph that says what it is for.",
        silent.map(|source| source.path).collect(),
    );
}

#[test]
fn modules_are_named_by_their_file() {
    let found = sources().into_iter().filter(|source| source.path.ends_with("/mod.rs"));
    nothing("A module is `foo.rs` with its children in `foo/`.", found.map(|source| source.path).collect());
}

#[test]
fn files_stay_short() {
    let mut found = Vec::new();
    let all = sources();
    for source in &all {
        let lines = source.text.lines().count();
        let reason = LONG_FILES.iter().find(|(path, _)| *path == source.path);
        if lines > 600 {
            found.push(format!("{}: {lines} lines; 600 are the end", source.path));
        } else if lines > 400 && reason.is_none() {
            found.push(format!("{}: {lines} lines; past 400 it needs a reason in LONG_FILES", source.path));
        } else if lines <= 400 && reason.is_some() {
            found.push(format!("{}: {lines} lines; it needs no place in LONG_FILES any more", source.path));
        }
    }
    let gone = LONG_FILES.iter().filter(|(path, _)| !all.iter().any(|source| source.path == *path));
    found.extend(gone.map(|(path, _)| format!("{path}: not there, but in LONG_FILES")));
    nothing("Do two rooms share a roof?", found);
}

#[test]
fn no_test_is_left_out_and_no_lint_without_reason() {
    let mut found = Vec::new();
    for source in sources() {
        for (at, line) in source.code.lines().enumerate() {
            let line = line.trim_start();
            let attribute = line.starts_with("#[") || line.starts_with("#![");
            let run_elsewhere = IGNORED.iter().any(|(path, _)| *path == source.path);
            if attribute && line.contains("ignore") && !run_elsewhere {
                found.push(format!("{}:{}: an ignored test", source.path, at + 1));
            }
            if attribute && line.contains("allow(") {
                found.push(format!("{}:{}: a bare allow", source.path, at + 1));
            }
        }
    }
    nothing("Tests run or go; lints are silenced by #[expect(.., reason = \"..\")].", found);
}

#[test]
fn nothing_unfinished_stays() {
    // Cut in two, so that this file passes.
    let notes = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let calls = ["dbg!", "todo!", "unimplemented!"];
    let found = sources()
        .iter()
        .flat_map(|source| [places(source, &source.text, &notes), places(source, &source.code, &calls)].concat())
        .collect();
    nothing("What is not finished is not committed.", found);
}

#[test]
fn no_machine_is_named() {
    let folders = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let found = sources().iter().flat_map(|source| places(source, &source.text, &folders)).collect();
    nothing("Paths of one machine have no place in the source.", found);
}

#[test]
fn only_the_command_line_prints() {
    let calls = ["println!", "print!("];
    let found = shipped(|source| !source.path.starts_with("src/cli"))
        .flat_map(|source| places(&source, &source.shipped, &calls));
    nothing("Only `cli` prints; others log or return.", found.collect());
}

#[test]
fn only_main_exits() {
    let calls = ["process::exit", "process::abort"];
    let found =
        shipped(|source| source.path != "src/main.rs").flat_map(|source| places(&source, &source.shipped, &calls));
    nothing("Only `main` ends the process; others return.", found.collect());
}

#[test]
fn nothing_is_global() {
    let mut found = Vec::new();
    for source in shipped(|_| true) {
        // Buffers of a thread are the one exception (decision 39).
        let mut in_thread_local = false;
        for (at, line) in source.shipped.lines().enumerate() {
            in_thread_local = (in_thread_local || line.starts_with("thread_local!")) && line != "}";
            let words: Vec<&str> = line.split_whitespace().collect();
            let is_static = words.iter().position(|word| *word == "static").is_some_and(|at| {
                words[..at].iter().all(|word| word.starts_with("pub"))
                    && words.get(at + 1).is_some_and(|name| name.contains(':') || *name == "mut")
            });
            if (is_static && !in_thread_local) || line.contains("LazyLock") || line.contains("lazy_static") {
                found.push(format!("{}:{}: {}", source.path, at + 1, line.trim()));
            }
        }
    }
    nothing("No `static` holds state: what is shared is made in `app` and handed down.", found);
}

fn shipped(mut wanted: impl FnMut(&Source) -> bool) -> impl Iterator<Item = Source> {
    sources().into_iter().filter(move |source| source.path.starts_with("src/") && wanted(source))
}

fn document(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path} is part of the product: {error}"))
}

#[test]
fn every_metric_is_in_the_readme() {
    let readme = document("README.md");
    let table = document("src/metrics/table.rs");
    let names: BTreeSet<&str> = table.split('"').filter(|text| text.starts_with("keygate_")).collect();
    assert!(names.len() > 15, "src/metrics/table.rs is read wrongly: {names:?}");
    let missing = names
        .into_iter()
        .filter(|name| !readme.contains(&format!("`{name}`")) && !readme.contains(&format!("`{name}{{")));
    nothing("README.md tells of every metric, as `name` or `name{labels}`.", missing.map(str::to_owned).collect());
}

#[test]
fn every_setting_is_in_the_readme() {
    let readme = document("README.md");
    // Between backquotes, single or in threes, is what is written as code.
    let code = readme.split('`').skip(1).step_by(2);
    let named: BTreeSet<&str> = code.flat_map(|code| code.split(|c: char| !c.is_alphanumeric() && c != '_')).collect();
    let mut missing = Vec::new();
    for example in ["config/full.yaml", "config/keys.yaml"] {
        let names = settings(&document(example));
        assert!(names.len() > 5, "{example} is read wrongly: {names:?}");
        let unnamed = names.into_iter().filter(|name| !named.contains(name.as_str()));
        missing.extend(unnamed.map(|name| format!("{name} ({example})")));
    }
    nothing("README.md tells of every setting, written as code.", missing);
}

/// The names that an example sets, but for those an operator makes up: upstreams, and headers of `set_headers`.
fn settings(example: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut section = "";
    for line in example.lines() {
        let content = line.trim_start().trim_start_matches("- ");
        let Some((name, _)) = content.split_once(':') else { continue };
        let plain = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        let indent = line.len() - line.trim_start().len();
        if plain && indent == 0 {
            section = name;
        }
        if plain && !(section == "upstreams" && indent == 2) {
            names.insert(name.to_owned());
        }
    }
    names
}
