//! Kong's key-auth lifecycle suites (rows KL1 to KL12) by the key commands beside a running gate.

use std::fs;
use std::path::Path;

use crate::keys::keys;
use crate::support::gateway::{Gateway, run, run_with_input};
use crate::support::origin::Origin;
use crate::support::{client, config, config_with, eventually};

fn asked(gate: &Gateway, key: &str) -> u16 {
    client::get(gate.address(0), "/", &[("X-Api-Key", key)]).status
}

fn becomes(gate: &Gateway, key: &str, status: u16, row: &str) {
    eventually(row, || (asked(gate, key) == status).then_some(()));
}

/// Makes a key; the key and its id.
fn made(folder: &Path, arguments: &[&str]) -> (String, String) {
    let (out, _) = keys(folder, &[&["create", "--json"], arguments].concat());
    let made: serde_json::Value = serde_json::from_str(&out).unwrap();
    (made["key"].as_str().unwrap().to_owned(), made["id"].as_str().unwrap().to_owned())
}

fn listed(folder: &Path, arguments: &[&str]) -> Vec<String> {
    let (out, _) = keys(folder, &[&["list", "--json"], arguments].concat());
    let keys: Vec<serde_json::Value> = serde_json::from_str(&out).unwrap();
    keys.iter().map(|key| key["id"].as_str().unwrap().to_owned()).collect()
}

/// Exit status of a command that must not succeed, and what it says.
fn refused(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let (status, out, err) = run(folder, &[&["keys"], arguments].concat());
    assert!(status != 0 && out.is_empty(), "{arguments:?}: {status} {out}");
    (status, err)
}

#[test]
fn the_life_of_a_key_as_kong_has_it() {
    let origin = Origin::ok();
    let text = config_with(&origin, "  - { path: /, upstream: app }\n", "limits: { failed_auth: off }\n");
    let gate = Gateway::start(&text);
    let folder = gate.path("keys.yaml").parent().unwrap().to_owned();

    // KL5, and KL4 without a given key: each creation makes another. With one: there is no such option.
    let (first, first_id) = made(&folder, &["--user", "carol"]);
    let (second, second_id) = made(&folder, &["--user", "carol"]);
    assert!(first != second && first_id != second_id, "KL5");
    let (status, said) = refused(&folder, &["create", "--user", "carol", "--key", "mine-mine-mine"]);
    assert!(status == 2 && said.contains("--key"), "KL4: {said}");
    becomes(&gate, &first, 200, "KL4");
    becomes(&gate, &second, 200, "KL5");

    // KL2: the credential goes. KL1: its consumer does, with all keys.
    keys(&folder, &["revoke", &first_id]);
    becomes(&gate, &first, 401, "KL2");
    assert_eq!(asked(&gate, &second), 200, "KL2: and no other");
    let (third, _) = made(&folder, &["--user", "carol"]);
    becomes(&gate, &third, 200, "KL1");
    let all = listed(&folder, &["--user", "carol"]);
    assert_eq!(all.len(), 2, "KL1: {all:?}");
    keys(&folder, &[vec!["revoke"], all.iter().map(String::as_str).collect()].concat());
    becomes(&gate, &second, 401, "KL1");
    becomes(&gate, &third, 401, "KL1");

    // KL3: another value. KL6: what was given can be read again. KL7: a list by lifetime.
    let (old, id) = made(&folder, &["--user", "dave", "--note", "the tag", "--role", "client", "--expires-in", "1h"]);
    becomes(&gate, &old, 200, "KL3");
    let (new, _) = keys(&folder, &["rotate", "--grace", "0", &id]);
    becomes(&gate, new.trim_end(), 200, "KL3");
    assert_eq!(asked(&gate, &old), 401, "KL3");
    let (shown, _) = keys(&folder, &["show", "--json", &id]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["note"], &shown["roles"][0]), (&"the tag".into(), &"client".into()), "KL6");
    assert!(shown["expires"].as_str().is_some_and(|end| end.ends_with('Z')), "KL6: {shown}");
    assert!(listed(&folder, &[]).len() > 1, "KL7");
    assert_eq!(listed(&folder, &["--expiring", "2h"]), [id.as_str()], "KL7");

    // KL8: by id, by its beginning, by the key unseen; never by the key in the command line, nor another's.
    for arguments in [["show", &id], ["show", &id[..6]]] {
        assert!(keys(&folder, &arguments).0.contains(&id), "KL8");
    }
    let (status, out, _) = run_with_input(&folder, &["keys", "show", "-"], &new);
    assert!(status == 0 && out.contains(&id), "KL8: {out}");
    let (_, said) = refused(&folder, &["show", new.trim_end()]);
    assert!(!said.contains(new.trim_end()), "KL8: {said}");
    assert_eq!(listed(&folder, &["--user", "nobody"]), Vec::<String>::new(), "KL8");

    // KL9, KL10, KL12: refused by name, and nothing is written.
    let before = fs::read(gate.path("keys.yaml")).unwrap();
    let (status, said) = refused(&folder, &["update", &id, "--expires", "soon"]);
    assert!(status == 2 && said.contains("--expires"), "KL9: {said}");
    let (status, said) = refused(&folder, &["revoke", "nobody-here"]);
    assert!(status == 1 && said.contains("nobody-here"), "KL10: {said}");
    let (status, said) = refused(&folder, &["create", "--name", "probe"]);
    assert!(status == 2 && said.contains("--user"), "KL12: {said}");
    assert_eq!(fs::read(gate.path("keys.yaml")).unwrap(), before);
}

/// KL11: a header that cannot be is refused when the configuration is read, with the name of the setting.
#[test]
fn a_header_that_cannot_be_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let text = config(&Origin::ok()).replace("header: X-Api-Key", "header: \"X Api Key\"");
    assert!(text.contains("X Api Key"), "{text}");
    fs::write(folder.path().join("keygate.yaml"), text).unwrap();
    let (status, _, said) = run(folder.path(), &["check"]);
    assert!(status == 2 && said.contains("credentials[0].header"), "{said}");
}
