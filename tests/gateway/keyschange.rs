//! Changes of keys by `keygate keys`: what is named changes, all else stays byte for byte, and no secret is in any file,
//! in the audit log or on standard error.

use std::fs;
use std::path::Path;

use crate::keys::keys;
use crate::support::gateway::{Gateway, run, run_with_input, write_private};
use crate::support::origin::Origin;
use crate::support::{client, config, config_with, entry, eventually};

/// A folder with a key file of these entries; commands name it with `--keys`.
fn folder(entries: &[String]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("# Ours.\nversion: 1\nkeys:\n{}# The end.\n...\n", entries.concat());
    write_private(&folder.path().join("keys.yaml"), &text);
    folder
}

fn file(folder: &Path) -> String {
    fs::read_to_string(folder.join("keys.yaml")).unwrap()
}

fn audit(folder: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(folder.join("keys.yaml.audit")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs `keygate keys … --keys keys.yaml`; it must succeed.
fn done(folder: &Path, arguments: &str) -> (String, String) {
    let arguments: Vec<&str> = arguments.split(' ').chain(["--keys", "keys.yaml"]).collect();
    keys(folder, &arguments)
}

/// The same for one that must fail with `status`; gives standard error. Nothing may have been written.
fn refused(folder: &Path, status: i32, arguments: &str) -> String {
    let before = (file(folder), audit(folder).len());
    let arguments: Vec<&str> =
        ["keys"].into_iter().chain(arguments.split(' ')).chain(["--keys", "keys.yaml"]).collect();
    let (code, out, err) = run(folder, &arguments);
    assert_eq!((code, out.as_str()), (status, ""), "{arguments:?}: {err}");
    assert_eq!((file(folder), audit(folder).len()), before, "{arguments:?}");
    err
}

fn one() -> tempfile::TempDir {
    let more = "    name: heron\n    roles: [client]   # only this\n    note: old\n    expires: 2099-01-01\n    \
                limits: { requests: 10, per: 1s, quota: { requests: 5, per: 1d } }\n";
    folder(&[entry("a1", "alice", "one", more)])
}

#[test]
fn update_changes_what_is_named_and_nothing_else() {
    for (asked, gone, come) in [
        ("--user bob", "user: alice", "user: bob"),
        ("--name crane", "name: heron", "name: crane"),
        ("--role a --role b --role a", "roles: [client]", "roles: [a, b]"),
        ("--add-role b --remove-role x", "roles: [client]", "roles: [client, b]"),
        ("--remove-role client", "    roles: [client]   # only this\n", ""),
        ("--add-scope jobs", "    note: old\n", "    scopes: [jobs]\n    note: old\n"),
        ("--note new", "note: old", "note: new"),
        ("--no-note", "    note: old\n", ""),
        ("--expires 2098-01-01", "expires: 2099-01-01", "expires: 2098-01-01T00:00:00Z"),
        ("--no-expiry", "    expires: 2099-01-01\n", ""),
        (
            "--limit 20/m --burst 5",
            "{ requests: 10, per: 1s, quota: { requests: 5, per: 1d } }",
            "{ requests: 20, per: 1m, burst: 5, quota: { requests: 5, per: 1d } }",
        ),
        ("--no-quota", "per: 1s, quota: { requests: 5, per: 1d } }", "per: 1s }"),
        ("--no-limits --concurrent 3", "requests: 10, per: 1s, quota: { requests: 5, per: 1d }", "concurrent: 3"),
        ("--no-limits", "    limits: { requests: 10, per: 1s, quota: { requests: 5, per: 1d } }\n", ""),
        ("--allow-from 10.0.0.5", "    limits:", "    allow_from: [\"10.0.0.5\"]\n    limits:"),
    ] {
        let folder = one();
        let before = file(folder.path());
        let (out, err) = done(folder.path(), &format!("update heron {asked}"));
        assert!(out.is_empty() && err.starts_with("updated a1 (heron) of alice\n  "), "{asked}: {out}{err}");
        assert!(before.contains(gone), "{asked}");
        assert_eq!(file(folder.path()), before.replacen(gone, come, 1), "{asked}");
        let lines = audit(folder.path());
        assert_eq!(lines.len(), 1, "{asked}");
        assert_eq!((&lines[0]["action"], &lines[0]["key"]), (&"update".into(), &"a1".into()), "{asked}");
        let changes = lines[0]["changes"].as_array().unwrap();
        assert!(changes.len() == 1 && changes[0].as_str().unwrap().contains(" -> "), "{asked}: {changes:?}");
    }
}

#[test]
fn an_update_that_changes_nothing_touches_nothing() {
    use std::os::unix::fs::MetadataExt as _;
    let folder = one();
    done(folder.path(), "update a1 --allow-from 10.0.0.5");
    let inode = || fs::metadata(folder.path().join("keys.yaml")).unwrap().ino();
    let (before, lines) = (inode(), audit(folder.path()).len());
    for asked in [
        "",
        " --user alice --name heron --role client --note old --expires 2099-01-01 --limit 10/s",
        " --add-role client --remove-scope x",
        " --allow-from 10.0.0.5/32",
    ] {
        let (out, err) = done(folder.path(), &format!("update a1{asked}"));
        assert!(out.is_empty() && err.starts_with("there is nothing to change: a1 (heron)"), "{asked}: {err}");
    }
    assert_eq!((inode(), audit(folder.path()).len()), (before, lines));
}

#[test]
fn what_cannot_be_is_refused_and_nothing_is_written() {
    let folder = folder(&[
        entry("abc1", "alice", "one", "    name: heron\n"),
        entry("abc2", "bob", "two", "    name: crane\n"),
        entry("xyz", "bob", "three", ""),
    ]);
    let err = refused(folder.path(), 1, "update abc --user eve");
    assert!(err.contains("could mean 2 keys") && err.contains("abc1 (heron) of alice"), "{err}");
    assert!(err.contains("abc2 (crane) of bob") && !err.contains("xyz"), "{err}");
    for command in ["rotate abc", "disable xyz abc", "enable abc", "revoke abc xyz"] {
        assert!(refused(folder.path(), 1, command).contains("could mean 2 keys"), "{command}");
    }
    assert!(refused(folder.path(), 1, "rotate nobody").contains("no key has the id or name `nobody`"));
    assert!(refused(folder.path(), 1, "update xyz --name crane").contains("names may not repeat"));
    assert!(refused(folder.path(), 2, "update xyz --user \u{e9}").contains("visible ASCII"));
    assert!(refused(folder.path(), 2, "update xyz --expires 2020-01-01").contains("lies in the past"));
    assert!(refused(folder.path(), 2, "update xyz --allow-from here").contains("neither an address nor a network"));
    let err = refused(folder.path(), 2, "update xyz --allow-from 10.0.0.1/8");
    assert!(err.contains("would allow all of 10.0.0.0/8: write that, or 10.0.0.1"), "{err}");
    for both in ["--role a --add-role b", "--no-note --note x", "--no-expiry --expires 1d", "--no-quota --quota 1/d"] {
        assert!(refused(folder.path(), 2, &format!("update xyz {both}")).contains("cannot be used with"), "{both}");
    }
    assert!(refused(folder.path(), 2, "rotate xyz --grace 1fortnight").contains("600 (seconds), 10m, 24h"));
}

#[test]
fn a_key_given_where_no_secret_belongs_is_written_nowhere() {
    let folder = one();
    let (out, _) = done(folder.path(), "create --user carol");
    let key = out.trim_end();
    for command in
        ["update a1 --note", "update a1 --name", "update a1 --user", "rotate", "disable", "create --user x --note"]
    {
        let err = refused(folder.path(), 2, &format!("{command} {key}"));
        assert!(!err.contains(key), "{command}: {err}");
    }
    let (status, _, err) =
        run_with_input(folder.path(), &["keys", "disable", "-", "--keys", "keys.yaml"], &format!("{key}\n"));
    assert!(status == 0 && err.contains("of carol") && !err.contains(key), "{err}");
}

#[test]
fn several_keys_are_switched_in_one_write() {
    let folder = folder(&[
        entry("a1", "alice", "one", ""),
        entry("b2", "bob", "two", "    disabled: true\n"),
        entry("c3", "carol", "three", "    disabled: false\n"),
    ]);
    let before = file(folder.path());
    let (_, err) = done(folder.path(), "disable a1 b2 c3 a1");
    assert_eq!(
        err,
        "disabled a1 of alice; its connections end within a second\nb2 of bob is disabled already\n\
         disabled c3 of carol; its connections end within a second\n"
    );
    assert_eq!(file(folder.path()).matches("disabled: true").count(), 3);
    let lines = audit(folder.path());
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["after"], &lines[0]["action"]), (&lines[1]["after"], &"disable".into()), "one write");
    done(folder.path(), "enable a1 b2 c3");
    let without = |text: &str| text.replace("    disabled: true\n", "").replace("    disabled: false\n", "");
    assert_eq!(file(folder.path()), without(&before));
}

#[test]
fn a_rotated_key_keeps_all_but_its_secret() {
    let folder = one();
    let (out, _) = done(folder.path(), "create --user carol --name crane --role miner");
    let (old, before) = (out.trim_end().to_owned(), file(folder.path()));
    let id = &old[3..11];
    let (out, err) = done(folder.path(), "rotate crane --grace 2h");
    let new = out.trim_end();
    assert!(new.len() == 57 && new != old && &new[3..11] == id, "the id is kept: {out}");
    assert!(err.starts_with(&format!("rotated {id} (crane) of carol\n  the old key is good until 20")), "{err}");
    assert!(!err.contains(new) && !err.contains("sha256"), "{err}");
    let after = file(folder.path());
    let kept = |text: &str| text.lines().filter(|l| !l.contains("hash:")).collect::<Vec<_>>().join("\n");
    assert_eq!(kept(&after), kept(&before));
    let hash_of = |text: &str| text.split("    hash: \"").last().unwrap()[..71].to_owned();
    assert!(after.contains(&format!("previous: {{ hash: \"{}\", until: \"20", hash_of(&before))), "{after}");

    let (out, err) = done(folder.path(), "rotate crane --json");
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&json["id"], &json["name"], &json["user"]), (&id.into(), &"crane".into(), &"carol".into()));
    assert!(json["key"].as_str().is_some_and(|key| key.len() == 57) && json["previous_until"].is_string());
    assert!(err.contains("  the one before it, which was good until 20") && err.contains(", ends now\n"), "{err}");
    assert!(!file(folder.path()).contains(&hash_of(&before)), "the eldest key is gone");

    let (out, err) = done(folder.path(), "rotate crane --grace 0");
    assert!(err.contains("the old key ends now") && !file(folder.path()).contains("previous"), "{err}");
    let log = fs::read_to_string(folder.path().join("keys.yaml.audit")).unwrap();
    for secret in [old.as_str(), new, json["key"].as_str().unwrap(), out.trim_end(), "sha256:"] {
        assert!(!log.contains(secret), "{log}");
    }
    assert_eq!(audit(folder.path()).iter().filter(|line| line["action"] == "rotate").count(), 3);
}

#[test]
fn a_foreign_key_is_rotated_to_one_of_ours_under_its_own_id() {
    let folder = one();
    let (out, _) = done(folder.path(), "rotate a1");
    assert!(
        out.starts_with("kg_") && out.trim_end().len() == 57 && file(folder.path()).contains("- id: a1\n"),
        "{out}"
    );
}

#[test]
fn old_and_new_key_are_both_good_within_the_grace() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    let status = |key: &str| client::get(gate.address(0), "/", &[("X-Api-Key", key)]).status;
    let (out, _) = keys(gate.dir.path(), &["create", "--user", "carol", "--name", "crane"]);
    let old = out.trim_end().to_owned();
    let (out, _) = keys(gate.dir.path(), &["rotate", "crane"]);
    let new = out.trim_end().to_owned();
    eventually("the new key is good", || (status(&new) == 200).then_some(()));
    assert_eq!(status(&old), 200);
    let (out, _) = keys(gate.dir.path(), &["rotate", "crane", "--grace", "0"]);
    eventually("the old ones are gone", || (status(&old) == 401 && status(&new) == 401).then_some(()));
    assert_eq!(status(out.trim_end()), 200);
    keys(gate.dir.path(), &["disable", "crane"]);
    eventually("it is off", || (status(out.trim_end()) == 401).then_some(()));
    keys(gate.dir.path(), &["enable", "crane"]);
    eventually("it is on", || (status(out.trim_end()) == 200).then_some(()));
}

#[test]
fn an_update_is_in_force_within_moments() {
    let origin = Origin::ok();
    let route = "  - { path: /, roles: [client], upstream: app }\n";
    let gate = Gateway::start(&config_with(&origin, route, ""));
    let (out, _) = keys(gate.dir.path(), &["create", "--user", "carol", "--name", "crane"]);
    let status = || client::get(gate.address(0), "/", &[("X-Api-Key", out.trim_end())]).status;
    for (asked, want) in [
        ("--role client", 200),
        ("--role other", 403),
        ("--add-role client", 200),
        ("--allow-from 10.0.0.0/8", 401),
        ("--allow-from 127.0.0.1", 200),
        ("--expires-in 1", 401),
        ("--no-expiry", 200),
    ] {
        let arguments: Vec<&str> = ["update", "crane"].into_iter().chain(asked.split(' ')).collect();
        keys(gate.dir.path(), &arguments);
        eventually(asked, || (status() == want).then_some(()));
    }
    keys(gate.dir.path(), &["update", "crane", "--user", "dora"]);
    let told = || status() == 200 && origin.last().one("x-auth-user") == Some("dora");
    eventually("its new user is told", || told().then_some(()));
    keys(gate.dir.path(), &["update", "crane", "--quota", "1/mo"]);
    eventually("its quota is used up", || (status() == 429).then_some(()));
}

#[test]
fn prune_removes_what_is_over_and_nothing_else() {
    let hash = "618e09497540ecec350de43aa7cf9721121d5eb4b77de5e9132e570ba796d95c";
    let recent = (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(48)).to_string();
    let folder = folder(&[
        entry("old", "alice", "one", "    expires: 2020-01-01\n"),
        entry("new", "alice", "two", &format!("    expires: {recent}\n")),
        entry("later", "alice", "three", "    expires: 2099-01-01\n"),
        entry("turned", "bob", "four", &format!("    previous: {{ hash: {hash}, until: 2020-01-01 }}\n")),
        entry("never", "bob", "five", ""),
    ]);
    let before = file(folder.path());
    let (out, err) = done(folder.path(), "prune --dry-run");
    assert_eq!((out.lines().count(), err.as_str(), file(folder.path())), (3, "", before.clone()), "{out}");
    assert!(out.contains("would remove old of alice: expired 2020-01-01T00:00:00Z\n"), "{out}");
    let (out, err) = done(folder.path(), "prune --older-than 30d");
    assert!(out.is_empty() && err.lines().count() == 2, "{err}");
    assert!(err.contains("removed the replaced key of turned of bob"), "{err}");
    let entry_of_old = entry("old", "alice", "one", "    expires: 2020-01-01\n");
    let previous = format!("    previous: {{ hash: {hash}, until: 2020-01-01 }}\n");
    assert_eq!(file(folder.path()), before.replace(&entry_of_old, "").replace(&previous, ""));
    let (_, err) = done(folder.path(), "prune");
    assert!(err.starts_with("removed new of alice"), "{err}");
    assert_eq!(done(folder.path(), "prune").1, "there is nothing to remove\n");
    let lines = audit(folder.path());
    assert_eq!(lines.iter().filter(|line| line["action"] == "prune").count(), 3);
    assert_eq!(lines[0]["changes"][0], "expired 2020-01-01T00:00:00Z");
}

#[test]
fn a_key_on_the_command_line_of_verify_revoke_or_as_a_role_is_not_shown_or_kept() {
    let folder = one();
    let (own, _) = done(folder.path(), "create --user bob");
    let own = own.trim();
    for secret in [own, &own[..own.len() - 1], "9b1f6c0de24a7358c1d0f7aa3b92e461"] {
        for arguments in [format!("verify {secret}"), format!("revoke {secret}"), format!("disable x={secret}")] {
            let status = if arguments.starts_with("verify") || arguments.ends_with(own) { 2 } else { 1 };
            let err = refused(folder.path(), status, &arguments);
            assert!(!err.contains(secret), "{err}");
        }
    }
    let err = refused(folder.path(), 2, "verify hunter2");
    assert!(!err.contains("hunter2") && err.contains("standard input"), "{err}");
    for arguments in [format!("update a1 --add-role {own}"), format!("create --user bob --scope x:{own}")] {
        let err = refused(folder.path(), 2, &arguments);
        assert!(!err.contains(own) && err.contains("holds a secret"), "{err}");
    }
}

#[test]
fn a_key_in_place_of_a_file_or_name_is_not_repeated() {
    let folder = folder(&[entry("a1", "alice", "one", "    name: heron\n")]);
    let own = keygate::key::ApiKey::generate(None, |bytes| bytes.fill(7));
    let own = own.expose_secret();
    let (foreign, hash) = ("0123456789abcdef".repeat(4), format!("sha256:{}", "ab".repeat(32)));
    for secret in [own, &foreign, &hash] {
        let err = refused(folder.path(), 2, &format!("import {secret}"));
        assert!(!err.contains(secret) && err.contains("standard input"), "{err}");
    }
    let held = "a key made elsewhere".to_owned();
    let import = ["keys", "--keys", "keys.yaml", "import", "--format", "csv", "--accept-weak", "-"];
    let (_, _, err) = run_with_input(folder.path(), &import, &format!("key,user\n{held},zoe\n"));
    assert!(err.contains("imported 1 key\nA running gate takes it within a second.\n"), "{err}");
    let (code, _, err) = run(folder.path(), &["keys", "--keys", "keys.yaml", "revoke", &held]);
    assert!(code == 2 && err.contains("this is a key itself") && !err.contains(&held), "{err}");
}

#[test]
fn a_user_in_place_of_a_key_is_told_of_their_keys() {
    let folder = folder(&[entry("a1", "alice", "one", "    name: heron\n")]);
    let said = refused(folder.path(), 1, "revoke alice");
    assert!(said.contains("`alice` is a user; name the key:\nkeygate: a1 (heron) of alice\n"), "{said}");
}

#[test]
fn a_refused_change_says_what_would_do() {
    let folder = folder(&[entry("a1", "alice", "one", "    name: heron\n")]);
    let said = refused(folder.path(), 2, "update a1 --role a,b");
    assert!(said.contains("an item of `roles` must be") && said.contains("(no blanks and no commas: "), "{said}");
    assert!(!said.contains("line "), "{said}");
}
