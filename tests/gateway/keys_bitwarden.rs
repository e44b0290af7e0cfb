//! Keys as Bitwarden items: their shape, what they hold, and that nothing secret goes anywhere but to standard output. The
//! real client takes them in `tests/real/test_bitwarden.py`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::keys::keys;
use crate::support::gateway::{run, run_with_input, write_private};
use crate::support::{ALICE, BOB, KEYS, SECRETS, entry, keys_with};

const ALICE_HASH: &str = SECRETS[2];
const BOB_HASH: &str = SECRETS[3];

fn hash(key: &str) -> String {
    Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A login as the client's template has it, with every member in its type.
fn item(name: &str, user: &str, password: &str, hash: &str, notes: &str) -> Value {
    json!({
        "type": 1, "name": name, "notes": notes, "favorite": false, "reprompt": 0, "passwordHistory": [],
        "fields": [{ "name": "api_key_hash", "value": hash, "type": 1 }],
        "login": { "username": user, "password": password, "totp": "", "uris": [], "fido2Credentials": [] },
    })
}

/// A folder with this key file and nothing else.
fn folder(keys: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_private(&folder.path().join("keys.yaml"), keys);
    folder
}

/// Runs `keygate keys export --bitwarden`; what goes to standard error and into the audit log holds no key and no hash.
fn export(folder: &Path, arguments: &[&str], input: &str) -> (i32, String, String) {
    let arguments = [&["keys", "export", "--keys", "keys.yaml", "--bitwarden"], arguments].concat();
    let (status, out, err) = run_with_input(folder, &arguments, input);
    let audit = fs::read_to_string(folder.join("keys.yaml.audit")).unwrap_or_default();
    for secret in SECRETS.iter().chain([&input.trim()]).filter(|secret| !secret.is_empty()) {
        assert!(!err.contains(secret) && !audit.contains(secret), "{arguments:?}: {err}{audit}");
    }
    (status, out, err)
}

fn exported(folder: &Path, arguments: &[&str], input: &str) -> Value {
    let (status, out, err) = export(folder, arguments, input);
    assert_eq!(status, 0, "{arguments:?}: {out}{err}");
    assert_eq!(out.lines().count(), 1, "{out}");
    serde_json::from_str(&out).unwrap()
}

fn audit(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("keys.yaml.audit")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_new_key_is_shown_inside_an_item_alone() {
    let folder = folder(KEYS);
    let made = |more: &[&str]| {
        let fixed = ["create", "--keys", "keys.yaml", "--bitwarden", "--user", "carol", "--note", "operators only"];
        let (out, err) = keys(folder.path(), &[&fixed, more].concat());
        let item: Value = serde_json::from_str(&out).unwrap();
        let key = item["login"]["password"].as_str().unwrap().to_owned();
        assert!(key.starts_with("kg_") && key.len() == 57 && out.matches(&key).count() == 1, "{out}");
        let written = fs::read_to_string(folder.path().join("keys.yaml")).unwrap();
        let audit = fs::read_to_string(folder.path().join("keys.yaml.audit")).unwrap();
        assert!(written.contains(&hash(&key)));
        assert!(err.contains(&format!("`keygate keys rotate --grace 0 --bitwarden {}`", &key[3..11])), "{err}");
        for text in [err, audit] {
            assert!(!text.contains(&key) && !text.contains(&hash(&key)), "{text}");
        }
        (item, key)
    };
    let (got, key) = made(&["--name", "probe", "--expires", "2999-01-01"]);
    let notes = format!("key {} (probe), expires 2999-01-01T00:00:00Z", &key[3..11]);
    assert_eq!(got, item("keygate API – carol", "carol", &key, &hash(&key), &notes));

    let shared = ["--service", "FetchML", "--organization", "org", "--collection", "one", "--collection", "two"];
    let (mut got, key) = made(&shared);
    assert_eq!(got["notes"].as_str().unwrap().split(' ').nth(1), Some(&key[3..11]), "{got}");
    assert_eq!(got["name"], "FetchML API – carol");
    let members = got.as_object_mut().unwrap();
    assert_eq!(members.remove("organizationId"), Some(json!("org")));
    assert_eq!(members.remove("collectionIds"), Some(json!(["one", "two"])));
}

#[test]
fn the_item_is_named_after_the_realm() {
    let folder = folder(KEYS);
    fs::write(
        folder.path().join("keygate.yaml"),
        "listen: [{ address: \"127.0.0.1:0\" }]\nkeys: { file: keys.yaml }\nrealm: My lab\n\
         upstreams: { app: { servers: [\"127.0.0.1:9\"] } }\nroutes: [{ path: /, upstream: app }]\n",
    )
    .unwrap();
    for (command, want) in [
        (&["export", "bob"][..], "My lab API – bob"),
        (&["export", "bob", "--service", "FetchML"], "FetchML API – bob"),
        (&["rotate", "bob"], "My lab API – bob"),
        (&["create", "--user", "dora"], "My lab API – dora"),
    ] {
        let command: Vec<_> = command.iter().map(|word| if *word == "bob" { "ba9af604" } else { word }).collect();
        let (out, _) = keys(folder.path(), &[&command[..], &["--bitwarden"]].concat());
        assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["name"], want);
    }
}

#[test]
fn a_rotated_key_is_an_item_of_its_new_secret() {
    let folder = folder(KEYS);
    let (out, err) = keys(folder.path(), &["rotate", "amber-falcon", "--keys", "keys.yaml", "--bitwarden"]);
    let got: Value = serde_json::from_str(&out).unwrap();
    let key = got["login"]["password"].as_str().unwrap();
    assert!(!err.contains(key) && !err.contains(&hash(key)), "{err}");
    assert_eq!(got, item("keygate API – alice", "alice", key, &hash(key), "key 48e8f859 (amber-falcon)"));
    // In its grace the old key is still good, but no item is made of it.
    for arguments in [&["-"][..], &["amber-falcon", "--password-stdin"]] {
        let (status, out, err) = export(folder.path(), arguments, ALICE);
        assert_eq!((status, out.as_str()), (1, ""));
        assert!(err.contains("was replaced by a newer one of 48e8f859"), "{err}");
    }
    let (_, out, _) = export(folder.path(), &["48e8"], "");
    assert!(out.contains(&hash(key)) && !out.contains(ALICE_HASH), "{out}");
}

#[test]
fn one_key_gives_an_item_with_the_password_that_standard_input_holds() {
    let folder = folder(KEYS);
    for (arguments, input, password) in [
        (&["amber-falcon"][..], "", ""),
        (&["48e8"], "anything", ""),
        (&["-"], ALICE, ALICE),
        (&["-"], &format!("  {ALICE}\r\nmore\n"), ALICE),
        (&["amber-falcon", "--password-stdin"], &format!("{ALICE}\n"), ALICE),
    ] {
        let got = exported(folder.path(), arguments, input);
        assert_eq!(got, item("keygate API – alice", "alice", password, ALICE_HASH, "key 48e8f859 (amber-falcon)"));
    }
    let (_, _, err) = export(folder.path(), &["ba9af604"], "");
    assert!(err.contains("exported ba9af604 of bob") && err.contains("no password"), "{err}");
}

#[test]
fn several_keys_or_all_give_a_document_to_import() {
    let ended = entry("old00001", "erin", "expired-key", "    expires: 2020-01-01\n");
    let folder = folder(&keys_with(&[ended]));
    let item_of =
        |user: &str, key: &str, hash: &str, notes: &str| item(&format!("lab API – {user}"), user, key, hash, notes);
    let alice = item_of("alice", "", ALICE_HASH, "key 48e8f859 (amber-falcon)");
    let bob = |key| item_of("bob", key, BOB_HASH, "key ba9af604");
    let erin = item_of("erin", "", &hash("expired-key"), "key old00001, expires 2020-01-01T00:00:00Z");
    for (arguments, input, items) in [
        (&[][..], "", json!([alice, bob(""), erin])),
        (&["amber-falcon", "ba9af604"], "", json!([alice, bob("")])),
        (&["48e8", "-"], BOB, json!([alice, bob(BOB)])),
    ] {
        let got = exported(folder.path(), &[arguments, &["--service", "lab"]].concat(), input);
        assert_eq!(got, json!({ "encrypted": false, "folders": [], "items": items }), "{arguments:?}");
    }
    let (_, _, err) = export(folder.path(), &[], "");
    assert_eq!(err, "exported keys: 3; without a password: 3; disabled or expired: 1\n");
}

#[test]
fn refusals_say_why_and_give_nothing_away() {
    let folder = folder(&keys_with(&[entry("48e80000", "erin", "erin's key", "")]));
    let stranger = "nobody's key at all";
    for (arguments, input, status, why) in [
        (&["nobody"][..], "", 1, "no key has the id or name `nobody`"),
        (&["48e8"], "", 1, "`48e8` could mean 2 keys:"),
        (&["-"], stranger, 1, "this key is not in the key file"),
        (&["amber-falcon", "--password-stdin"], stranger, 1, "is not that of 48e8f859 (amber-falcon) of alice"),
        (&["amber-falcon", "--password-stdin"], BOB, 1, "is not that of 48e8f859 (amber-falcon) of alice"),
        (&["-"], "", 2, "there is no key on standard input"),
        (&["amber-falcon", "--password-stdin"], "\n", 2, "there is no key on standard input"),
        (&["-", "-"], ALICE, 2, "standard input holds one key"),
        (&["-", "--password-stdin"], ALICE, 2, "standard input holds one key"),
        (&["48e8f859", "ba9af604", "--password-stdin"], ALICE, 2, "takes one KEY"),
        (&["--password-stdin"], ALICE, 2, "required arguments"),
        (&["--organization", "o", "--collection", "c"], "", 2, "--organization takes one KEY"),
        (&["48e8f859", "--organization", "o"], "", 2, "--collection <ID>"),
        (&["48e8f859", "--collection", "o"], "", 2, "--organization <ID>"),
        (&["48e8f859", "--service", ""], "", 2, "a value is required for '--service"),
    ] {
        let (got, out, err) = export(folder.path(), arguments, input);
        assert_eq!((got, out.as_str()), (status, ""), "{arguments:?}: {err}");
        assert!(err.contains(why), "{arguments:?}: {err}");
    }
    assert!(!folder.path().join("keys.yaml.audit").exists(), "nothing was handed out");
    let before = fs::read(folder.path().join("keys.yaml")).unwrap();
    for (arguments, why) in [
        (&["keys", "export", "ba9af604"][..], "--bitwarden"),
        (&["keys", "create", "--user", "dora", "--bitwarden", "--json"], "cannot be used with"),
        (&["keys", "rotate", "ba9af604", "--bitwarden", "--json"], "cannot be used with"),
        (&["keys", "create", "--user", "dora", "--service", "FetchML"], "--bitwarden"),
    ] {
        let (status, out, err) = run(folder.path(), &[arguments, &["--keys", "keys.yaml"]].concat());
        assert_eq!((status, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.contains(why), "{arguments:?}: {err}");
    }
    assert_eq!(fs::read(folder.path().join("keys.yaml")).unwrap(), before);
}

#[test]
fn the_audit_log_says_who_took_which_hashes() {
    let folder = folder(KEYS);
    exported(folder.path(), &["amber-falcon", "ba9af604"], "");
    exported(folder.path(), &[], "");
    keys(folder.path(), &["disable", "ba9af604", "--keys", "keys.yaml"]);
    let lines = audit(folder.path());
    let told: Vec<_> =
        lines.iter().map(|line| (line["action"].as_str().unwrap(), line["key"].as_str().unwrap())).collect();
    assert_eq!(told, [("export", "48e8f859"), ("export", "ba9af604"), ("export", "*"), ("disable", "ba9af604")]);
    assert_eq!(lines[2]["changes"], json!(["all 2 keys"]));
    assert!(lines[0]["by"].is_string() && lines[0]["time"].is_string());
    // Nothing was changed: the chain of digests has no link there.
    assert!(lines[..3].iter().all(|line| line.get("before").is_none() && line.get("after").is_none()));
}

#[test]
fn words_of_any_script_and_marks_pass_as_they_are() {
    let folder = folder(KEYS);
    let fixed = ["create", "--keys", "keys.yaml", "--bitwarden"];
    let words = ["--user", "o\"brien\\ & co", "--name", "schlüssel – 鍵", "--service", "Küche \u{1f511}"];
    let (out, _) = keys(folder.path(), &[&fixed[..], &words].concat());
    let got: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(got["name"], "Küche \u{1f511} API – o\"brien\\ & co");
    assert_eq!(got["login"]["username"], "o\"brien\\ & co");
    assert!(got["notes"].as_str().unwrap().ends_with(" (schlüssel – 鍵)"), "{got}");
}

#[test]
fn an_output_that_is_full_is_a_failure() {
    let folder = folder(KEYS);
    for which in [&["ba9af604"][..], &[]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut export = Command::new(env!("CARGO_BIN_EXE_keygate"));
        export.args(["keys", "export", "--keys", "keys.yaml", "--bitwarden"]).args(which).current_dir(folder.path());
        let output = export.stdout(full).stderr(Stdio::piped()).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && err.contains("cannot be written"), "{which:?}: {err}");
        assert!(!err.contains(BOB_HASH), "{err}");
    }
}

#[test]
fn a_log_that_cannot_be_written_is_told() {
    let folder = folder(KEYS);
    fs::create_dir(folder.path().join("keys.yaml.audit")).unwrap();
    let arguments = ["keys", "export", "--keys", "keys.yaml", "--bitwarden", "ba9af604"];
    let (status, out, err) = run(folder.path(), &arguments);
    assert_eq!(status, 0, "{err}");
    assert!(out.contains(BOB_HASH) && err.contains("this export is not in the audit log"), "{err}");
}
