//! What `keygate keys list` and `show` print of the keys, and what the binary prints of itself: completions and the manual.

use std::fs;

use crate::keys::keys;
use crate::support::gateway::{Gateway, run, run_with_input, write_private};
use crate::support::origin::Origin;
use crate::support::{ALICE, client, config_with, entry, eventually, keys_with};

const HASH: &str = "50e721e49c013f00c62cf59f2163542a9d8df02464efeb615d31051b0fddc326";

/// A folder with a key file and a configuration with default limits.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let soon = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(48)).to_string();
    let entries = [
        entry("gone-long-ago", "carol", "c", "    name: 日本\n    expires: 2020-01-01\n"),
        entry("soon", "carol", "d", &format!("    expires: {soon}\n    note: \"two\\nlines\"\n")),
        entry("off", "dave", "e", "    disabled: true\n    expires: 2099-01-01\n"),
        entry(
            "turning",
            "dave",
            "f",
            &format!(
                "    previous: {{ hash: {HASH}, until: 2099-01-01 }}\n    allow_from: [10.0.0.0/8]\n    \
                 limits: {{ requests: 5, per: 90s, quota: {{ requests: 9, per: 1mo }} }}\n"
            ),
        ),
    ];
    write_private(&folder.path().join("keys.yaml"), &keys_with(&entries));
    let config = "listen: [{ address: \"127.0.0.1:0\" }]\nkeys: { file: keys.yaml }\n\
                  limits: { default: { requests: 1, per: 1s, concurrent: 3 } }\n\
                  upstreams: { app: { servers: [\"127.0.0.1:9\"] } }\nroutes: [{ path: /, upstream: app }]\n";
    fs::write(folder.path().join("keygate.yaml"), config).unwrap();
    folder
}

#[test]
fn the_table_has_a_column_for_everything() {
    let folder = folder();
    let (out, err) = keys(folder.path(), &["list"]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((lines.len(), err.as_str()), (7, ""), "{out}");
    let heads = "ID        NAME          USER   ROLES         SCOPES                    STATE     EXPIRES (UTC)     \
                 LAST USED (UTC)  TODAY  NOTE";
    assert_eq!(lines[0], heads);
    assert_eq!(
        lines[1],
        "48e8f859  amber-falcon  alice  client,miner  jobs:write,read:metadata  active    -                 \
         -                -"
    );
    assert!(
        lines[3].starts_with("gone-lon  日本          carol  -  ") && lines[3].contains("expired   2020-01-01 00:00")
    );
    assert!(lines[4].ends_with("two lines"), "{out}");
    assert!(lines[5].contains("disabled") && lines[6].contains("rotating"), "{out}");
    assert!(!out.contains("sha256") && !out.contains(&HASH[..16]), "{out}");
}

#[test]
fn the_list_can_be_narrowed() {
    let folder = folder();
    for (asked, want) in [
        (&["--user", "carol"][..], &["gone-lon", "soon"][..]),
        (&["--expired"], &["gone-lon"]),
        (&["--expiring", "7d"], &["soon"]),
        (&["--expiring", "1d"], &[]),
        (&["--user", "dave", "--expiring", "99999d"], &["off"]),
    ] {
        let (out, err) = keys(folder.path(), &[&["list"], asked].concat());
        let ids: Vec<&str> = out.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(ids, want, "{asked:?}");
        assert_eq!(err, if want.is_empty() { "there are no such keys\n" } else { "" });
        let (out, _) = keys(folder.path(), &[&["list", "--json"], asked].concat());
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(json.as_array().unwrap().len(), want.len(), "{asked:?}");
    }
    let (status, out, err) = run(folder.path(), &["keys", "list", "--unused", "30d"]);
    assert!(status == 2 && out.is_empty() && err.contains("are unused: no configuration with `state.path`"), "{err}");
}

#[test]
fn json_has_every_member_and_no_hash() {
    let folder = folder();
    let (out, _) = keys(folder.path(), &["show", "turn", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    let want = serde_json::json!({
        "id": "turning", "name": null, "user": "dave", "roles": [], "scopes": [], "note": null, "created": null,
        "expires": null, "disabled": false, "allow_from": ["10.0.0.0/8"], "state": "rotating", "last_used": null, "today": null,
        "previous_until": "2099-01-01T00:00:00Z",
        "limits": { "requests": 5, "per": "90s", "quota": { "requests": 9, "per": "1mo" } },
        "effective_limits":
            { "requests": 5, "per": "90s", "concurrent": 3, "quota": { "requests": 9, "per": "1mo" } },
    });
    assert_eq!(json, want);
    let (out, _) = keys(folder.path(), &["show", "turning", "--json", "--keys", "keys.yaml"]);
    assert!(out.contains("\"effective_limits\":null"), "{out}");
}

#[test]
fn show_says_which_limits_hold_and_why() {
    let folder = folder();
    let (out, err) = keys(folder.path(), &["show", "turning"]);
    assert_eq!(
        (out.as_str(), err.as_str()),
        (
            "id           turning\nname         -\nuser         dave\nstate        rotating\n\
             replaced key is good until 2099-01-01T00:00:00Z\nroles        -\nscopes       -\nnote         -\n\
             created      -\nexpires      never\nallow from   10.0.0.0/8\n\
             last used    not known: no configuration with `state.path` was read\ntoday        -\n\
             limits       5 requests per 90s, burst 5 (its own)\n             3 in flight at once (limits.default)\n             \
             quota of 9 per 1mo (its own)\n",
            ""
        )
    );
    let (out, _) = keys(folder.path(), &["show", "soon", "--keys", "keys.yaml"]);
    assert!(out.contains("\nnote         two\n             lines\n"), "{out}");
    assert!(
        out.contains("limits       others as limits.default of the configuration says, which was not read"),
        "{out}"
    );
    let (status, out, _) = run_with_input(folder.path(), &["keys", "show", "-"], "alice-example-key-48e8f859\n");
    assert!(status == 0 && out.starts_with("id           48e8f859\nname         amber-falcon\n"), "{out}");
    assert!(!out.contains("alice-example-key"), "{out}");
}

/// Every command there is, as the help lists them.
fn commands(folder: &std::path::Path, of: &[&str]) -> Vec<String> {
    let (status, out, _) = run(folder, &[of, &["--help"]].concat());
    assert_eq!(status, 0);
    let list = out.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let word = |line: &str| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')).map(str::to_owned);
    let words = list.lines().filter_map(word).filter_map(|line| line.split(' ').next().map(str::to_owned));
    words.filter(|word| word != "help").collect()
}

#[test]
fn completions_and_the_manual_name_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let all = [commands(folder.path(), &[]), commands(folder.path(), &["keys"])].concat();
    assert!(all.len() > 12 && all.iter().any(|word| word == "rotate"), "{all:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (status, out, err) = run(folder.path(), &["completions", shell]);
        assert_eq!((status, err.as_str()), (0, ""));
        for word in &all {
            assert!(out.contains(word.as_str()), "{shell} lacks {word}");
        }
    }
    let (status, page, err) = run(folder.path(), &["man"]);
    assert_eq!((status, err.as_str()), (0, ""));
    assert!(page.contains(".TH keygate 1") && page.contains(".SH \"KEYGATE SERVE\""), "{page}");
    for word in commands(folder.path(), &["keys"]) {
        assert!(page.contains(&format!(".SH \"KEYGATE KEYS {}\"", word.to_uppercase())), "{word}");
    }
    assert!(page.contains("\\-\\-older\\-than") && page.contains("\\-\\-config"), "options are in it");
    assert_eq!(run(folder.path(), &["completions", "tcsh"]).0, 2);
}

#[test]
fn what_keys_did_shows_while_the_gate_runs() {
    let origin = Origin::ok();
    let gate = Gateway::start(&config_with(&origin, "  - { path: /, upstream: app }\n", "state: { path: state.db }\n"));
    let folder = gate.path("keys.yaml").parent().unwrap().to_owned();
    for _ in 0..3 {
        assert_eq!(client::get(gate.address(0), "/", &[("X-Api-Key", ALICE)]).status, 200);
    }
    let list = |arguments: &[&str]| -> Vec<serde_json::Value> {
        let (out, _) = keys(&folder, &[&["list", "--json"], arguments].concat());
        serde_json::from_str(&out).unwrap()
    };
    // Around midnight some of the three were yesterday's.
    let alice = eventually("her requests are written down", || {
        list(&["--user", "alice"]).pop().filter(|alice| alice["today"].as_u64() > Some(0))
    });
    assert!(alice["last_used"].as_str().is_some_and(|time| time.ends_with('Z')), "{alice}");
    let unused: Vec<_> = list(&["--unused", "30d"]).iter().map(|key| key["user"].clone()).collect();
    assert_eq!(unused, ["bob"]);
    let (shown, _) = keys(&folder, &["show", "amber-falcon"]);
    assert!(shown.contains(&alice["last_used"].as_str().unwrap()[..10]), "{shown}");
}

/// A person sees columns of `-` and must learn why; a pipe's reader is not told.
#[test]
fn a_list_without_a_state_file_says_why_nothing_is_known() {
    if !std::path::Path::new("/usr/bin/script").exists() {
        println!("SKIPPED: script is not installed");
        return;
    }
    let folder = folder();
    let mut terminal = std::process::Command::new("script");
    let command = format!("{} keys list", env!("CARGO_BIN_EXE_keygate"));
    terminal.args(["-qec", &command, "/dev/null"]).current_dir(folder.path()).stdin(std::process::Stdio::null());
    let shown = String::from_utf8_lossy(&terminal.output().unwrap().stdout).into_owned();
    let want = "LAST USED and TODAY are not known: no configuration with `state.path` was read";
    assert!(shown.contains("amber-falcon") && shown.contains(want), "{shown}");
}
