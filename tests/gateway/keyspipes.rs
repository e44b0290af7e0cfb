//! Commands that print what is there for reading, when their reader leaves early or their output is full. What a new secret
//! does then is another theme: it must have arrived.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::gateway::write_private;
use crate::support::{ALICE, entry, keys_with};

/// Every command that prints for reading. A key on standard input is ALICE.
const PRINTING: &[&[&str]] = &[
    &["keys", "list"],
    &["keys", "list", "--json"],
    &["keys", "show", "48e8f859"],
    &["keys", "show", "48e8f859", "--json"],
    &["keys", "verify"],
    &["keys", "verify", "--json"],
    &["keys", "prune", "--dry-run"],
    &["keys", "export", "--bitwarden"],
    &["completions", "bash"],
    &["man"],
    &["check"],
    &["check", "--print"],
    &["--help"],
];

/// A folder with a configuration and a key file with `more` keys beside the usual one; one of them has expired.
fn folder(more: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let gone = entry("gone", "carol", "c", "    expires: 2020-01-01\n");
    let more = (0..more).map(|n| entry(&format!("k{n}"), "carol", &format!("key-{n}"), ""));
    write_private(&folder.path().join("keys.yaml"), &keys_with(&std::iter::once(gone).chain(more).collect::<Vec<_>>()));
    let config = "listen: [{ address: \"127.0.0.1:0\" }]\nkeys: { file: keys.yaml }\n\
                  upstreams: { app: { servers: [\"127.0.0.1:9\"] } }\nroutes: [{ path: /, upstream: app }]\n";
    fs::write(folder.path().join("keygate.yaml"), config).unwrap();
    folder
}

/// Runs a command with this standard output; its exit status and standard error.
fn run(folder: &Path, arguments: &[&str], out: impl Into<Stdio>) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keygate"));
    fs::write(folder.join("key"), ALICE).unwrap();
    let key = File::open(folder.join("key")).unwrap();
    let output = command.args(arguments).current_dir(folder).stdin(key).stdout(out).output().expect("runs");
    (output.status.code().expect("no signal ended it"), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_reader_who_is_gone_is_no_failure() {
    let folder = folder(0);
    for arguments in PRINTING {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (status, err) = run(folder.path(), arguments, writer);
        // What `check` warns of and `export` tells goes to standard error whoever reads the rest.
        assert!(status == 0 && !err.contains("written") && !err.contains("pipe"), "{arguments:?}: {status} {err}");
    }
}

#[test]
fn a_full_output_is_a_failure_that_is_told() {
    let folder = folder(0);
    for arguments in PRINTING {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (status, err) = run(folder.path(), arguments, full);
        assert!(status == 1 && err.contains("cannot be written"), "{arguments:?}: {status} {err}");
    }
}

#[test]
fn a_bad_key_stays_bad_for_a_reader_who_is_gone() {
    let folder = folder(0);
    write_private(&folder.path().join("keys.yaml"), "version: 1\nkeys: []\n...\n");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(run(folder.path(), &["keys", "verify"], writer), (1, String::new()));
}

#[test]
fn the_beginning_of_a_long_list_can_be_had() {
    let folder = folder(2_000);
    for (arguments, first) in [(&["list"][..], "ID "), (&["list", "--json"], "[{")] {
        let mut list = Command::new(env!("CARGO_BIN_EXE_keygate"))
            .arg("keys")
            .args(arguments)
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::with_capacity(64, list.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert!(line.starts_with(first), "{line}");
        drop(out);
        let mut err = String::new();
        list.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!((list.wait().unwrap().code(), err.as_str()), (Some(0), ""), "{arguments:?}");
    }
}
