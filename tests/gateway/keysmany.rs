//! The key commands on a file of many keys: each finds what it is asked for, changes the bytes of that, and no other.

use std::fs;

use crate::keys::keys;
use crate::support::gateway::write_private;
use crate::support::{entry, keys_with};

const MANY: usize = 10_000;

/// A key file with so many entries beside the two usual ones, each with a name and every other with more than it needs.
fn text() -> String {
    let entries = (0..MANY).map(|n| {
        let more = if n % 2 == 0 { "    roles: [client] # for now\n    note: \"a, b\"\n" } else { "" };
        let expires = if n % 2_000 == 7 { "    expires: 2020-01-01\n" } else { "" };
        entry(
            &format!("{n:08x}"),
            &format!("user{}", n / 10),
            &n.to_string(),
            &format!("    name: key-{n}\n{more}{expires}"),
        )
    });
    keys_with(&entries.collect::<Vec<_>>())
}

/// What stands in `new` instead of `old`: both without the lines that they begin and end with alike.
fn difference<'a>(old: &'a str, new: &'a str) -> (&'a str, &'a str) {
    let lines = |text: &'a str| text.split_inclusive('\n').collect::<Vec<_>>();
    let (olds, news) = (lines(old), lines(new));
    let begin = olds.iter().zip(&news).take_while(|(a, b)| a == b).count();
    let left = olds.len().min(news.len()) - begin;
    let end = olds.iter().rev().zip(news.iter().rev()).take(left).take_while(|(a, b)| a == b).count();
    let bytes = |lines: &[&str]| lines.iter().map(|line| line.len()).sum::<usize>();
    let range =
        |text: &'a str, lines: &[&str]| &text[bytes(&lines[..begin])..text.len() - bytes(&lines[lines.len() - end..])];
    (range(old, &olds), range(new, &news))
}

#[test]
fn changes_touch_what_they_are_about() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.yaml");
    let keys = |arguments: &[&str]| keys(folder.path(), &[&["--keys", "keys.yaml"], arguments].concat());
    let first = text();
    write_private(&path, &first);
    let read = || fs::read_to_string(&path).unwrap();

    keys(&["create", "--user", "carol", "--name", "probe"]);
    let created = read();
    let (gone, come) = difference(&first, &created);
    assert_eq!(gone, "");
    assert!(come.starts_with("  - id: ") && come.contains("\n    name: probe\n    user: carol\n"), "{come}");
    assert_eq!(come.lines().count(), 5, "{come}");
    assert!(created.ends_with(&format!("{come}...\n")));

    keys(&["revoke", "probe"]);
    assert!(read() == first, "a key made and revoked leaves nothing");

    let six_thousand = format!("{:08x}", 6_000);
    keys(&["update", "key-6000", "--note", "new", "--role", "admin"]);
    let updated = read();
    assert_eq!(
        difference(&first, &updated),
        ("    roles: [client] # for now\n    note: \"a, b\"\n", "    roles: [admin] # for now\n    note: new\n")
    );
    keys(&["revoke", &six_thousand, "key-0"]);
    let entries = |text: &str| text.matches("\n  - id: ").count();
    let revoked = read();
    assert_eq!(entries(&revoked), entries(&first) - 2);
    assert!(!revoked.contains("name: key-6000\n") && !revoked.contains("name: key-0\n"));
    assert_eq!(first.len() - revoked.len(), [0, 6_000].iter().map(|n| length_of(&first, *n)).sum::<usize>());

    let (_, err) = keys(&["prune"]);
    assert_eq!(err.lines().filter(|line| line.starts_with("removed ")).count(), 5, "{err}");
    assert_eq!(entries(&read()), entries(&revoked) - 5);
}

/// How many bytes the entry of this number has.
fn length_of(text: &str, n: usize) -> usize {
    let entry = text.split("  - id: ").find(|entry| entry.contains(&format!("name: key-{n}\n"))).unwrap();
    entry.len() + "  - id: ".len()
}

#[test]
fn all_are_listed_and_found() {
    let folder = tempfile::tempdir().unwrap();
    write_private(&folder.path().join("keys.yaml"), &text());
    let keys = |arguments: &[&str]| keys(folder.path(), &[&["--keys", "keys.yaml"], arguments].concat()).0;
    let list = keys(&["list"]);
    // Two keys are there already, and a line of heads.
    assert_eq!(list.lines().count(), MANY + 3);
    let column = list.lines().next().unwrap().find("USER").unwrap();
    let last = list.lines().last().unwrap();
    assert!(last.starts_with("0000270f  key-9999 ") && last[column..].starts_with("user999 "), "{last}");
    let json = keys(&["list", "--json"]);
    assert_eq!(json.lines().count(), MANY + 2, "an entry has a line of its own");
    let json: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    assert_eq!((json.len(), &json[MANY + 1]["name"]), (MANY + 2, &"key-9999".into()));
    assert_eq!(keys(&["list", "--user", "user999"]).lines().count(), 11);
    assert!(keys(&["show", "key-1234"]).starts_with("id           000004d2\n"));
}
