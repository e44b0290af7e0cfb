//! `keygate keys import`: keys of other gates and services come in whole, once, and good; their sources stay as they are.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::support::eventually;
use crate::support::gateway::{Gateway, run_with_input, write_private};
use crate::support::origin::Origin;
use crate::support::{ALICE, KEYS, client, config};

/// Keys as other systems make them.
const K1: &str = "VXt3pLq9Zr7mWc2KdY8sB6nHfJ";
const K2: &str = "9b2f6c1e-4d3a-4f8b-a1c7-5e0d9b8f7a62";
/// A key as a person makes one.
const WEAK: &str = "client_dev_key_7_valid";

fn hash(key: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(key).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_private(&folder.path().join("keys.yaml"), KEYS);
    folder
}

/// Runs the import; whatever it says holds no key and no hash.
fn import(folder: &Path, arguments: &[&str], input: &str) -> (i32, String, String) {
    let arguments = [&["keys", "--keys", "keys.yaml", "import"], arguments].concat();
    let (status, out, err) = run_with_input(folder, &arguments, input);
    let audit = fs::read_to_string(folder.join("keys.yaml.audit")).unwrap_or_default();
    for secret in [K1, K2, WEAK, &hash(K1), &hash(K2), &hash(WEAK)] {
        for told in [&out, &err, &audit] {
            assert!(!told.contains(secret), "{told}");
        }
    }
    (status, out, err)
}

fn keys(folder: &Path) -> String {
    fs::read_to_string(folder.join("keys.yaml")).unwrap()
}

/// User, roles and hash of each entry behind those of the usual file.
fn imported(folder: &Path) -> Vec<(String, String, String)> {
    let (status, out, err) = run_with_input(folder, &["keys", "--keys", "keys.yaml", "list", "--json"], "");
    assert_eq!(status, 0, "{err}");
    let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
    let text = keys(folder);
    let hashes: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("hash: ")).collect();
    let all = listed.as_array().unwrap().iter().zip(hashes).skip(2);
    all.map(|(key, hash)| {
        let roles: Vec<&str> = key["roles"].as_array().unwrap().iter().map(|role| role.as_str().unwrap()).collect();
        let hash = hash.trim_matches('"').trim_start_matches("sha256:");
        (key["user"].as_str().unwrap().to_owned(), roles.join(" "), hash.to_owned())
    })
    .collect()
}

#[test]
fn every_format_is_read_and_a_second_import_changes_nothing() {
    let (h1, h2) = (hash(K1), hash(K2));
    let nginx = format!(
        "map $http_upgrade $c {{ default upgrade; \"\" close; }}\nmap $http_x_api_key $user {{\n  default \"\"; # none\n  \
         \"{K1}\" \"alice\";\n  {K2} bob; \"gone\" \"\";\n}}\n"
    );
    let csv = format!(
        "user,key,hash,name,roles,scopes,expires,note\nalice,{K1},,laptop,client;miner,,2999-01-01,\"a, b\"\n\
         bob,,{h2},,,read:x,,\n"
    );
    let json = format!(
        r#"[{{"user":"alice","key":"{K1}","roles":["client"]}},{{"user":"bob","hash":"{h2}","roles":"a b","note":null}}]"#
    );
    for (name, source, options, users) in [
        ("-", format!("{h1}\n"), "--format hash --user alice --role lead", [("alice", "lead", K1)].as_slice()),
        ("-", format!("{h1}  -\n"), "--format hash --user alice", &[("alice", "", K1)]),
        ("-", format!("# team\nalice sha256:{h1}\r\n\nbob: sha256:{h2}\n"), "", &[("alice", "", K1), ("bob", "", K2)]),
        (
            "coordinator.env",
            format!(
                "DEBUG=1\nCLIENT_API_KEYS=[\"{K1}\"] # two\nexport MINER_API_KEYS='{K2}, {K1}'\nADMIN_API_KEYS=[]\n\
                 OPENAI_API_KEY=x\n"
            ),
            "",
            &[("client-1", "client miner", K1), ("miner-1", "miner", K2)],
        ),
        ("-", format!("API_KEYS=\"{K1},{K2}\"\n"), "--user team", &[("team", "", K1), ("team", "", K2)]),
        ("nginx.conf", nginx, "--role client", &[("alice", "client", K1), ("bob", "client", K2)]),
        (
            "-",
            format!("# hand made\n{K1} alice;\n\"{K2}\" 'bob';"),
            "--format nginx",
            &[("alice", "", K1), ("bob", "", K2)],
        ),
        ("keys.map", format!("# keys\n{K1} alice\n  {K2}\t bob \n"), "", &[("alice", "", K1), ("bob", "", K2)]),
        ("keys.csv", csv, "--role all", &[("alice", "client miner all", K1), ("bob", "all", K2)]),
        ("-", json, "", &[("alice", "client", K1), ("bob", "a b", K2)]),
    ] {
        let folder = folder();
        if name != "-" {
            fs::write(folder.path().join(name), &source).unwrap();
        }
        let arguments: Vec<&str> = [name].into_iter().chain(options.split_whitespace()).collect();
        let (status, out, err) = import(folder.path(), &arguments, &source);
        assert_eq!((status, out.as_str()), (0, ""), "{source}: {err}");
        let want: Vec<_> =
            users.iter().map(|(user, roles, key)| (user.to_string(), roles.to_string(), hash(key))).collect();
        assert_eq!(imported(folder.path()), want, "{source}: {err}");
        assert!(keys(folder.path()).starts_with(KEYS.trim_end_matches("...\n")), "{}", keys(folder.path()));
        let audit = fs::read_to_string(folder.path().join("keys.yaml.audit")).unwrap();
        assert_eq!(audit.matches(r#""action":"import""#).count(), users.len(), "{audit}");

        let before = keys(folder.path());
        let (status, _, err) = import(folder.path(), &arguments, &source);
        assert_eq!((status, keys(folder.path())), (0, before), "{err}");
        assert!(err.contains(" already there as ") && err.contains("imported 0 keys; left "), "{err}");
    }
}

#[test]
fn what_is_wrong_is_told_by_line_and_nothing_is_written() {
    let (h1, h2) = (hash(K1), hash(K2));
    for (format, source, options, status, told) in [
        ("hash", format!("alice {h1}\nbob 12345\n"), "", 2, "standard input:2: a hash has 64 hex digits"),
        ("hash", h1.clone(), "", 2, "standard input:1: no user is named here: say --user"),
        (
            "hash",
            format!("alice {h1}\nbob {h1}\n"),
            "",
            2,
            "standard input:2: this key stands on line 1 with other words",
        ),
        ("hash", format!("{h1} {h2}\n"), "", 2, "standard input:1: a line holds a hash, with a user"),
        ("hash", format!("j\u{f6}rg {h1}\n"), "", 2, "standard input:1: `user` must be 1 to 256 visible ASCII"),
        (
            "env",
            format!("CLIENT_API_KEYS=[\"{K1}\",\n"),
            "",
            2,
            "standard input:1: `CLIENT_API_KEYS` is neither a list",
        ),
        (
            "env",
            format!("A_API_KEYS={K1}\na_api_keys={K2}\n"),
            "",
            2,
            "standard input:2: `A_API_KEYS` stands on line 1 already",
        ),
        ("nginx", format!("map $arg_key $u {{\n ~^{K1} alice;\n}}"), "", 2, "standard input:2: this is a pattern"),
        ("nginx", format!("map $http_x_api_key $u {{\n {K1} 1;\n}}"), "", 2, "standard input:2: no user is named here"),
        (
            "nginx",
            format!("map $host $u {{ {K1} alice; }}"),
            "",
            2,
            "standard input:1: there is no map over a variable with",
        ),
        ("nginx", format!("map $http_x_api_key $u {{ {K1} alice;"), "", 2, "standard input:1: a `}` is missing"),
        ("haproxy", format!("\n{K1}\n"), "", 2, "standard input:2: no user is named here"),
        ("haproxy", format!("alice {K1}\n"), "", 2, "standard input:1: what stands for the user looks like a key"),
        ("haproxy", format!("{K1} the key is {K1}\n"), "", 2, "standard input:1: a key stands outside its own field"),
        (
            "csv",
            format!("user,pass word\nalice,{K1}\n"),
            "",
            2,
            "standard input:1: the first row names the columns: field 2 is",
        ),
        ("csv", format!("user,key,rolse\nalice,{K1},x\n"), "", 2, "field 3 `rolse` is unknown; did you mean `role"),
        (
            "csv",
            format!("{K1},alice\n{K2},bob\n"),
            "",
            2,
            "standard input:1: the first row names the columns: field 1 is unk",
        ),
        ("csv", format!("user,key\nalice,{K1}\nbob\n"), "", 2, "standard input:3: this row has 1 fields"),
        ("csv", format!("user,key,expires\nalice,{K1},soon\n"), "", 2, "standard input:2: `expires` is not a date"),
        ("csv", format!("user,key,roles\nalice,{K1},b\u{e9}\n"), "", 2, "standard input:2: an item of `roles` must be"),
        (
            "csv",
            format!("user,key,name\nalice,{K1},amber-falcon\n"),
            "",
            2,
            "standard input:2: a key in the key file has this name",
        ),
        (
            "csv",
            format!("user,key,name\na,{K1},x\nb,{K2},x\n"),
            "",
            2,
            "standard input:3: the name stands on line 2 already",
        ),
        ("csv", format!("user,key,hash\na,{K1},{h1}\n"), "", 2, "standard input:2: both `key` and `hash`"),
        ("csv", "user,name\na,b\n".to_owned(), "", 2, "one of them must be `key` or `hash`"),
        (
            "json",
            format!("[\n {{\"user\":\"alice\",\n \"key\":\"{K1}\"}},\n {{\"{K2}\":\"x\"}}]"),
            "",
            2,
            "standard input:4: field 1 is unknown",
        ),
        (
            "json",
            format!("[{{\"user\":\"a\",\"key\":\"{K1}\",\"usr\":\"b\"}}]"),
            "",
            2,
            "field 3 `usr` is unknown; did you mean `user`?",
        ),
        ("json", format!("[\"{K1}\"]"), "", 2, "standard input:1: this is not an object"),
        ("json", format!("[\"{K1}\""), "", 2, "standard input:1: this is not valid JSON"),
        ("json", format!("{{\"{K1}\":\"alice\"}}"), "", 2, "standard input:1: a JSON source is a list"),
        (
            "haproxy",
            format!("{K1} alice\n{WEAK} bob\n"),
            "",
            1,
            "standard input:2: the key of bob: it is made of words",
        ),
        ("haproxy", "hunter2 alice\n".to_owned(), "", 1, "standard input:1: the key of alice: it is too short"),
        (
            "hash",
            format!("alice {}\n", hash("password")),
            "",
            1,
            "standard input:1: this is the hash of a secret that everybody",
        ),
        ("haproxy", format!("{K1} alice\n"), "--expires-in 2001-01-01", 2, "--expires-in lies in the past"),
        ("haproxy", format!("{K1} a\0b\n"), "", 2, "standard input:1: a NUL byte stands here"),
    ] {
        let folder = folder();
        let arguments = ["-", "--format", format].into_iter().chain(options.split_whitespace()).collect::<Vec<_>>();
        for more in [&[][..], &["--dry-run"]] {
            let (got, out, err) = import(folder.path(), &[&arguments, more].concat(), &source);
            assert_eq!((got, out.as_str()), (status, ""), "{source}: {err}");
            assert!(err.contains(told), "{source}: {err}");
            assert_eq!(keys(folder.path()), KEYS, "{source}");
            assert!(!folder.path().join("keys.yaml.audit").exists());
        }
    }
}

#[test]
fn a_source_is_guessed_only_where_it_can_be_one_thing() {
    // 64 hex digits can be a hash, and a key just as well; a word and a word can be anything.
    for source in ["what\nis this\n", &format!("{} alice\n", hash(K1)), &format!("{K1} alice\n"), "", "# nothing\n"] {
        let folder = folder();
        let (status, _, err) = import(folder.path(), &["-"], source);
        assert!(status == 2 && err.contains("say --format hash, env, nginx, haproxy, csv or json"), "{source}: {err}");
    }
    let (status, _, err) = import(folder().path(), &["-", "-", "--format", "env"], "");
    assert!(status == 2 && err.contains("standard input can be read once"), "{err}");
    let (status, _, err) = import(folder().path(), &["nowhere.csv"], "");
    assert!(status == 2 && err.contains("nowhere.csv cannot be read: "), "{err}");
    assert_eq!(import(folder().path(), &[], "").0, 2);
}

#[test]
fn weak_keys_come_in_when_the_operator_insists() {
    let folder = folder();
    let source = format!("{WEAK} alice\n");
    let (status, _, err) = import(folder.path(), &["-", "--format", "haproxy"], &source);
    assert!(status == 1 && err.contains("unsalted") && err.contains("--accept-weak"), "{err}");
    let (status, _, err) = import(folder.path(), &["-", "--format", "haproxy", "--accept-weak"], &source);
    assert_eq!(status, 0, "{err}");
    assert_eq!(imported(folder.path()), [("alice".to_owned(), String::new(), hash(WEAK))]);
    // A hash tells nothing, unless it is that of a secret that everybody knows.
    let (status, _, err) =
        import(folder.path(), &["-", "--format", "hash", "--user", "bob", "--accept-weak"], &hash("password"));
    assert!(
        status == 0 && err.contains("standard input:1: this is the hash of a secret that everybody knows"),
        "{err}"
    );
    assert!(!err.contains("password"), "{err}");
}

#[test]
fn a_dry_run_tells_all_and_writes_nothing() {
    let folder = folder();
    let source = format!("{K1} alice\n{ALICE} alice\n{K2} bob\n");
    let arguments = ["-", "--format", "haproxy", "--role", "client", "--dry-run"];
    let (status, out, err) = import(folder.path(), &arguments, &source);
    let want = "would import standard input:1 for alice; roles: [client]\n\
                would import standard input:3 for bob; roles: [client]\n\
                standard input:2: already there as 48e8f859 (amber-falcon) of alice\n";
    assert_eq!((status, out.as_str()), (0, want), "{err}");
    assert!(err.ends_with("would import 2 keys; left 1 key that is there already\n"), "{err}");
    assert_eq!(keys(folder.path()), KEYS);
    assert!(!folder.path().join("keys.yaml.audit").exists());
    // Where there is no key file yet, none is made.
    fs::remove_file(folder.path().join("keys.yaml")).unwrap();
    let (status, _, err) = import(folder.path(), &arguments, &format!("{K1} alice\n"));
    assert_eq!(status, 0, "{err}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_key_there_that_lacks_a_role_of_the_source_is_told_of() {
    let folder = folder();
    let source = format!("ADMIN_API_KEYS={ALICE}\nCLIENT_API_KEYS={ALICE}\n");
    let (status, _, err) = import(folder.path(), &["-"], &source);
    assert_eq!((status, keys(folder.path())), (0, KEYS.to_owned()), "{err}");
    assert!(err.contains("it lacks roles: keygate keys update 48e8f859 --add-role admin\n"), "{err}");
}

#[test]
fn several_files_come_in_together_and_are_only_read() {
    let folder = folder();
    let sources =
        [("a.env", format!("CLIENT_API_KEYS={K1}\n")), ("b.env", format!("ADMIN_API_KEYS=[\"{K2}\",\"{K1}\"]\n"))];
    for (name, text) in &sources {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        fs::File::open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    }
    let (status, _, err) = import(folder.path(), &["a.env", "b.env", "--note", "from the old box"], "");
    assert_eq!(status, 0, "{err}");
    let want = [("client-1", "client admin", K1), ("admin-1", "admin", K2)];
    assert_eq!(imported(folder.path()), want.map(|(user, roles, key)| (user.to_owned(), roles.to_owned(), hash(key))));
    assert_eq!(keys(folder.path()).matches("note: \"from the old box\"").count(), 2);
    for (name, text) in &sources {
        let path = folder.path().join(name);
        assert_eq!(&fs::read_to_string(&path).unwrap(), text);
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), std::time::UNIX_EPOCH);
    }
    // The same key for two users is nobody's.
    let (status, _, err) = import(folder.path(), &["-", "--format", "haproxy"], &format!("{BOTH} a\n{BOTH} b\n"));
    assert!(status == 2 && !err.contains(BOTH), "{err}");
}

const BOTH: &str = "Zr7mWc2KdY8sB6nHfJVXt3pLq9";

#[test]
fn keys_of_our_own_keep_their_id() {
    let folder = folder();
    let (status, key, _) =
        run_with_input(folder.path(), &["keys", "--keys", "other.yaml", "create", "--user", "carol"], "");
    assert_eq!(status, 0);
    let key = key.trim();
    let (status, _, err) = import(folder.path(), &["-", "--format", "haproxy"], &format!("{key} carol\n"));
    assert!(status == 0 && !err.contains(key), "{err}");
    assert!(err.contains(&format!("imported {} for carol", &key[3..11])), "{err}");
}

#[test]
fn many_lines_are_one_change() {
    let folder = folder();
    let lines: String =
        (0..3_000).map(|number| format!("{} user{number}\n", hash(&format!("number {number}")))).collect();
    let (status, _, err) = import(folder.path(), &["-", "--format", "hash"], &lines);
    assert!(status == 0 && err.contains("\nimported 3000 keys\n") && err.lines().count() < 30, "{err}");
    assert_eq!(imported(folder.path()).len(), 3_000);
    let audit = fs::read_to_string(folder.path().join("keys.yaml.audit")).unwrap();
    let digests =
        audit.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["after"].to_string());
    assert_eq!(digests.collect::<std::collections::BTreeSet<_>>().len(), 1);
}

#[test]
fn imported_keys_are_good_at_a_running_gate() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config(&origin));
    // As AITBC's page on setting up keys has it.
    let source = "APP_ENV=dev\nDATABASE_URL=sqlite:///./aitbc_coordinator.db\n\
                  CLIENT_API_KEYS=[\"client_dev_key_1_valid\",\"client_dev_key_2_valid\"]\n\
                  MINER_API_KEYS=[\"miner_dev_key_1_valid\",\"miner_dev_key_2_valid\"]\n\
                  ADMIN_API_KEYS=[\"admin_dev_key_1_valid\"]\n";
    fs::write(gate.path("coordinator.env"), source).unwrap();
    let (status, _, err) = run_with_input(gate.dir.path(), &["keys", "import", "coordinator.env"], "");
    assert!(status == 1 && err.matches("it is one that everybody knows").count() == 5, "{err}");
    let arguments = ["keys", "import", "coordinator.env", "--accept-weak"];
    let (status, _, err) = run_with_input(gate.dir.path(), &arguments, "");
    assert_eq!(status, 0, "{err}");
    for (key, user, role) in [
        ("client_dev_key_2_valid", "client-2", "client"),
        ("miner_dev_key_1_valid", "miner-1", "miner"),
        ("admin_dev_key_1_valid", "admin-1", "admin"),
    ] {
        eventually("the key is good", || {
            (client::get(gate.address(0), "/", &[("X-Api-Key", key)]).status == 200).then_some(())
        });
        assert_eq!(origin.last().one("x-auth-user"), Some(user));
        assert_eq!(origin.last().one("x-auth-roles"), Some(role));
    }
    // FetchML keeps the hash of a key; the key itself is its user's.
    let arguments = ["keys", "import", "--format", "hash", "--user", "dana", "--role", "lead", "-"];
    let (status, _, err) = run_with_input(gate.dir.path(), &arguments, &hash(K1));
    assert_eq!(status, 0, "{err}");
    eventually("the key is good", || {
        (client::get(gate.address(0), "/", &[("X-Api-Key", K1)]).status == 200).then_some(())
    });
    assert_eq!(origin.last().one("x-auth-user"), Some("dana"));
    // Many tries before the reload may have used up the patience with bad keys.
    assert!([401, 429].contains(&client::get(gate.address(0), "/", &[("X-Api-Key", &hash(K1))]).status));
}

#[test]
fn swapped_keys_and_users_are_told_of_though_weak_keys_are_accepted() {
    let folder = folder();
    let arguments = ["keys", "--keys", "keys.yaml", "import", "--dry-run", "--accept-weak", "--format", "haproxy", "-"];
    let (status, _, err) = run_with_input(folder.path(), &arguments, &format!("alice {K1}\n{WEAK} bob\n"));
    assert_eq!((status, err.matches("standard input:1: what stands for the user looks like a key").count()), (0, 1));
    assert!(!err.contains("standard input:2"), "{err}");
}
