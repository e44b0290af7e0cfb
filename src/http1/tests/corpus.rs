//! Replays the fuzz corpora on stable: what a fuzzer once found, or was given to start from, stays checked.

use std::fs;
use std::path::Path;

use super::targets;

/// Runs every file of one corpus through its target; the corpus may not be empty.
fn replay(target: &str, run: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut files = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        run(&fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files > 0, "{} is empty", folder.display());
}

#[test]
fn request_head() {
    replay("request_head", targets::request_head);
}

#[test]
fn response_head() {
    replay("response_head", targets::response_head);
}

#[test]
fn body() {
    replay("body", targets::body);
}

#[test]
fn roundtrip() {
    replay("roundtrip", targets::roundtrip);
}
