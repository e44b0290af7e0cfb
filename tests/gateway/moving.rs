//! The README's pages for those who come from another gate, as they paste them: their files, the page's own commands, the
//! example configuration, and then their clients' requests.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, run};
use crate::support::origin::Origin;

/// The coordinator's own file as its document shows it.
const DOTENV: &str = r#"APP_ENV=dev
DATABASE_URL=sqlite:///./aitbc_coordinator.db
CLIENT_API_KEYS=["client_dev_key_1_valid","client_dev_key_2_valid"]
MINER_API_KEYS=["miner_dev_key_1_valid","miner_dev_key_2_valid"]
ADMIN_API_KEYS=["admin_dev_key_1_valid"]
"#;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The commands of one page: its first block after `title`.
fn commands(title: &str) -> String {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, page) = readme.split_once(&format!("\n**{title}** ")).unwrap();
    let (_, block) = page.split_once("\n```sh\n").unwrap();
    block.split_once("```\n").unwrap().0.to_owned()
}

/// A folder in which the page's commands were pasted, with `from` read at `to`; all of them succeeded.
fn pasted(title: &str, files: &[(&str, &str)], from: &str, to: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let example = root().join("config");
    std::os::unix::fs::symlink(&example, folder.path().join("config")).unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_keygate")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let script = format!("set -eu\n{}", commands(title).replace(from, to));
    let shell = Command::new("sh").args(["-c", &script]).current_dir(folder.path()).env("PATH", path).output().unwrap();
    let said = String::from_utf8_lossy(&[shell.stdout, shell.stderr].concat()).into_owned();
    assert!(shell.status.success(), "{script}\n{said}");
    (folder, said)
}

/// The pasted configuration and keys, on a port of the system's choice before `origin`.
fn serve(folder: tempfile::TempDir, origin: &Origin, ports: [&str; 2]) -> Gateway {
    let text = fs::read_to_string(folder.path().join("keygate.yaml")).unwrap();
    let keys = fs::read_to_string(folder.path().join("keys.yaml")).unwrap();
    for port in ports {
        assert!(text.contains(port), "{text}");
    }
    let text = text.replace(ports[0], "127.0.0.1:0").replace(ports[1], &origin.address());
    Gateway::start_in(folder, &format!("{text}\nadmin: {{ address: \"127.0.0.1:0\" }}\n"), &keys, &[])
}

#[test]
fn who_comes_from_aitbc_pastes_the_page_and_is_served() {
    let (folder, said) =
        pasted("Coming from AITBC.", &[(".env", DOTENV)], "/opt/aitbc/apps/coordinator-api/.env", ".env");
    assert_eq!(fs::read_to_string(folder.path().join(".env")).unwrap(), DOTENV);
    assert!(!said.contains("_valid"), "no key is shown: {said}");
    let own = |role: &str| fs::read_to_string(folder.path().join(format!("coordinator-{role}.key"))).unwrap();
    let own = [own("client"), own("miner"), own("admin")].map(|key| key.trim_end().to_owned());
    let origin = Origin::ok();
    let gate = serve(folder, &origin, ["127.0.0.1:8000", "127.0.0.1:8001"]);
    for (key, path, status) in [
        ("client_dev_key_1_valid", "/v1/jobs", 200),
        ("client_dev_key_2_valid", "/v1/jobs", 200),
        ("client_dev_key_1_valid", "/v1/miners/poll", 403),
        ("miner_dev_key_2_valid", "/v1/miners/poll", 200),
        ("miner_dev_key_2_valid", "/v1/admin/stats", 403),
        ("admin_dev_key_1_valid", "/v1/admin/stats", 200),
        ("client_dev_key_1_invalid", "/v1/jobs", 401),
    ] {
        // Each of the three spellings that AITBC's own clients have.
        for name in ["X-Api-Key", "X-API-Key", "x-api-key"] {
            let before = origin.requests().len();
            assert_eq!(client::get(gate.address(0), path, &[(name, key)]).status, status, "{key} at {path}");
            assert_eq!(origin.requests().len() - before, usize::from(status == 200), "{key} at {path}");
            if status == 200 {
                let role = ["/v1/jobs", "/v1/miners/poll", "/v1/admin/stats"].iter().position(|known| *known == path);
                let seen = origin.last();
                assert_eq!(seen.one("x-api-key"), Some(own[role.unwrap()].as_str()), "the coordinator's own");
                assert_eq!(seen.one("x-miner-id"), seen.one("x-auth-user"));
            }
        }
    }
    assert_eq!(client::get(gate.address(0), "/health", &[]).status, 200);
    // One of them is revoked by the name that the import gave it.
    let folder = gate.path("keys.yaml").parent().unwrap().to_owned();
    let (status, out, err) = run(&folder, &["keys", "revoke", "client-2"]);
    assert_eq!(status, 0, "{out}{err}");
    let asked = |key: &str| client::get(gate.address(0), "/v1/jobs", &[("X-Api-Key", key)]).status;
    eventually("its key is gone", || (asked("client_dev_key_2_valid") == 401).then_some(()));
    assert_eq!(asked("client_dev_key_1_valid"), 200);
}

#[test]
fn who_comes_from_fetchml_pastes_the_page_and_is_served() {
    // Keys at random, as the users have them and the worker's operator has not.
    let (alice, bob) = ("VvQ3hJ0mWq8xT2nZr7LkB5cY", "s9GdX4uPeR1oHa6NfC2wKt8J");
    let users = "\
alice c2e44239d0c23f6f788e058684cc52d793bcf6195699c9659e51c6d3061a31a9
bob a367189a3c7539449807cf8f197f969a83421e7ee1a8b715470ada44eb8aa445
";
    let (folder, said) = pasted("Coming from FetchML.", &[("users.txt", users)], "", "");
    assert!(!said.contains("c2e44239d0c2"), "no hash is shown: {said}");
    let own = fs::read_to_string(folder.path().join("worker.key")).unwrap();
    let origin = Origin::ok();
    let gate = serve(folder, &origin, ["127.0.0.1:9100", "127.0.0.1:9101"]);
    for (user, key) in [("alice", alice), ("bob", bob)] {
        for fields in [("X-API-Key", key.to_owned()), ("Authorization", format!("Bearer {key}"))] {
            assert_eq!(client::get(gate.address(0), "/ws", &[(fields.0, &fields.1)]).status, 200);
            assert_eq!(origin.last().one("x-auth-user"), Some(user));
            assert_eq!(origin.last().one("x-api-key"), Some(own.trim_end()));
        }
        assert_eq!(client::get(gate.address(0), &format!("/ws?api_key={key}"), &[]).status, 200);
    }
    // A key has leaked.
    let folder = gate.path("keys.yaml").parent().unwrap().to_owned();
    let (status, out, err) = run(&folder, &["keys", "list", "--user", "alice", "--json"]);
    assert_eq!(status, 0, "{err}");
    let id = serde_json::from_str::<serde_json::Value>(&out).unwrap()[0]["id"].as_str().unwrap().to_owned();
    let (status, out, err) = run(&folder, &["keys", "rotate", "--grace", "0", &id]);
    assert_eq!(status, 0, "{err}");
    let asked = |key: &str| client::get(gate.address(0), "/ws", &[("X-API-Key", key)]).status;
    eventually("the new key is good", || (asked(out.trim_end()) == 200).then_some(()));
    assert_eq!(asked(alice), 401);
}
