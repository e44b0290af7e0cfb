//! The life of a key by `keygate keys`, beside a running gate: what each command prints, what it writes, and what the gate
//! makes of it.

use std::fs;
use std::path::Path;

use crate::support::eventually;
use crate::support::gateway::{Gateway, run};
use crate::support::origin::Origin;
use crate::support::{client, config};

/// Runs `keygate keys …` in the gate's folder; it must succeed. Standard output, standard error.
pub fn keys(folder: &Path, arguments: &[&str]) -> (String, String) {
    let (status, out, err) = run(folder, &[&["keys"], arguments].concat());
    assert_eq!(status, 0, "{arguments:?}: {out}{err}");
    (out, err)
}

fn status(gate: &Gateway, key: &str) -> u16 {
    client::get(gate.address(0), "/", &[("X-Api-Key", key)]).status
}

#[test]
fn a_key_made_is_good_within_moments_and_a_revoked_one_is_not() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    let folder = gate.path("keys.yaml").parent().unwrap().to_owned();
    let (out, err) = keys(&folder, &["create", "--user", "carol", "--name", "probe"]);
    let key = out.trim_end();
    assert!(out.ends_with('\n') && key.starts_with("kg_") && key.len() == 57, "{out}");
    assert!(
        !err.contains(key)
            && err.contains("(probe) for carol")
            && err.contains("curl -H \"X-Api-Key: $KEY\" http://your-gate/"),
        "{err}"
    );
    eventually("the new key is good", || (status(&gate, key) == 200).then_some(()));
    assert_eq!(origin.last().one("x-auth-user"), Some("carol"));

    let (out, err) = keys(&folder, &["revoke", "probe"]);
    assert!(out.is_empty() && err.contains("revoked ") && err.contains("(probe) of carol"), "{out}{err}");
    eventually("the key is gone", || (status(&gate, key) == 401).then_some(()));
    let audit = fs::read_to_string(folder.join("keys.yaml.audit")).unwrap();
    let lines: Vec<serde_json::Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!([&lines[0]["action"], &lines[1]["action"]], ["create", "revoke"]);
    assert_eq!(lines[0]["after"], lines[1]["before"]);
    assert!(!audit.contains(key) && !audit.contains("sha256"), "{audit}");
}
