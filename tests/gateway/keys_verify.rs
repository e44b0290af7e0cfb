//! `keygate keys verify`: what it says of a key, and that the gate itself answers the same.

use std::path::Path;

use crate::support::gateway::{Gateway, run_with_input, write_private};
use crate::support::origin::Origin;
use crate::support::{ALICE, BOB, SECRETS, client, config_with, entry, keys_with};

const ROUTES: &str = "  - { path: /v1/jobs/, upstream: app, roles: [client] }
  - { path: /v1/admin/, upstream: app, roles: [admin] }
  - { path: /v1/data/, upstream: app, scopes: [\"read:metadata\", \"write:metadata\"], methods: [GET] }
  - { path: /open/, upstream: app, access: public }
";

/// Exit status, standard output and standard error, which never hold the key or a hash.
fn verify(folder: &Path, key: &str, arguments: &[&str]) -> (i32, String, String) {
    let arguments = [&["keys", "verify"], arguments].concat();
    let (status, out, err) = run_with_input(folder, &arguments, &format!("{key}\n"));
    for secret in SECRETS.iter().chain([&key]) {
        assert!(!out.contains(secret) && !err.contains(secret), "{arguments:?}: {out}{err}");
    }
    (status, out, err)
}

fn json(folder: &Path, key: &str, arguments: &[&str]) -> (i32, serde_json::Value) {
    let (status, out, err) = verify(folder, key, &[arguments, &["--json"]].concat());
    (status, serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}")))
}

fn keys() -> String {
    let replaced =
        "    previous: { hash: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08, until: 2999-01-01 }\n";
    keys_with(&[
        entry("old00001", "carol", "expired-key", "    expires: 2020-01-01\n"),
        entry("off00001", "dave", "disabled-key", "    disabled: true\n"),
        entry("lan00001", "erin", "lan-key", "    allow_from: [10.0.0.0/8]\n"),
        entry("rot00001", "frank", "new-key", replaced),
    ])
}

#[test]
fn a_key_is_told_with_its_state() {
    let folder = tempfile::tempdir().unwrap();
    write_private(&folder.path().join("keys.yaml"), &keys());
    for (key, more, status, state, id) in [
        (ALICE, &[][..], 0, "active", Some("48e8f859")),
        ("expired-key", &[], 1, "expired", Some("old00001")),
        ("disabled-key", &[], 1, "disabled", Some("off00001")),
        ("lan-key", &[], 0, "active", Some("lan00001")),
        ("lan-key", &["--from", "10.1.2.3"], 0, "active", Some("lan00001")),
        ("lan-key", &["--from", "192.0.2.1"], 1, "address", Some("lan00001")),
        ("test", &[], 0, "grace", Some("rot00001")),
        (ALICE, &["-"], 0, "active", Some("48e8f859")),
        ("nobody's-key", &[], 1, "unknown", None),
    ] {
        let (got, answer) = json(folder.path(), key, &[&["--keys", "keys.yaml"], more].concat());
        assert_eq!(
            (got, answer["state"].as_str(), answer["id"].as_str()),
            (status, Some(state), id),
            "{key}: {answer}"
        );
        assert_eq!(answer["good"], status == 0, "{answer}");
    }
    let (status, out, err) = verify(folder.path(), ALICE, &["--keys", "keys.yaml"]);
    assert_eq!(status, 0);
    assert_eq!(
        out,
        "48e8f859 (amber-falcon) of alice\n  state: active\n  roles: client, miner\n  scopes: jobs:write, read:metadata\n"
    );
    assert_eq!(err, "");
    let (status, out, _) = verify(folder.path(), "nobody's-key", &["--keys", "keys.yaml"]);
    assert_eq!((status, out.as_str()), (1, "this key is not in the key file\n"));
    assert_eq!(run_with_input(folder.path(), &["keys", "verify", "--keys", "keys.yaml"], "").0, 2, "no key");
    assert_eq!(verify(folder.path(), ALICE, &["--keys", "keys.yaml", "--path", "/"]).0, 2, "no routes");
}

#[test]
fn what_it_says_of_a_path_is_what_the_gate_answers() {
    let origin = Origin::ok();
    let gate = Gateway::start_with(&config_with(&origin, ROUTES, ""), &keys(), &[]);
    let folder = gate.dir.path();
    for (key, method, path, want, why) in [
        (ALICE, "GET", "/v1/jobs/1", None, "route `/v1/jobs/` to `app`"),
        (BOB, "GET", "/v1/jobs/1", Some(403), "route `/v1/jobs/` asks for one of these roles: client"),
        (ALICE, "GET", "/v1/admin/", Some(403), "asks for one of these roles: admin"),
        (ALICE, "GET", "/v1/data/x", Some(403), "asks for more scopes: write:metadata"),
        (ALICE, "POST", "/v1/data/x", Some(405), "takes GET, HEAD only"),
        (ALICE, "GET", "/nowhere", Some(404), "no route has this host and path"),
        (ALICE, "GET", "/v1/jobs/%2e%2e/admin/", Some(400), ""),
        (ALICE, "GET", "/v1/jobs/..%2fadmin", Some(400), ""),
        (ALICE, "TRACE", "/v1/jobs/", Some(405), ""),
        ("disabled-key", "GET", "/v1/jobs/1", Some(401), "the key is not good (disabled)"),
        ("disabled-key", "GET", "/open/", Some(401), "the key is not good (disabled)"),
        (BOB, "GET", "/open/x", None, "which needs no key"),
    ] {
        let (status, answer) = json(folder, key, &["--path", path, "--method", method]);
        let verdict = &answer["path"];
        let told = (verdict["status"].as_u64(), verdict["allowed"].as_bool(), status);
        assert_eq!(told, (want, Some(want.is_none()), i32::from(want.is_some())), "{method} {path}: {answer}");
        assert!(verdict["why"].as_str().unwrap().contains(why), "{answer}");
        let got = client::request(gate.address(0), method, path, &[("X-Api-Key", key)], b"");
        assert_eq!(u64::from(got.status), want.unwrap_or(200), "{method} {path}");
    }
    let (_, out, _) = verify(folder, BOB, &["--path", "/v1/jobs/"]);
    assert!(out.ends_with("  refused with 403: route `/v1/jobs/` asks for one of these roles: client\n"), "{out}");
}
