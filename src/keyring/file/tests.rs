//! Key files good and bad: the cases of `tests/cases/keyfile`, the contract, cuts and properties.

use super::*;
use crate::keyring::source::SourceFacts;
use proptest::prelude::*;
use std::path::Path;

const DIVIDER: &str = "---- problems\n";
const CONTRACT: &str = "\
version: 1
keys:
  - id: 48e8f859                    # public
    name: amber-falcon
    user: alice
    hash: \"sha256:6e87f34a127b2efbebc6b7329b94db222d67d7557b432f466cb70fdf9a51601f\"
    roles: [client]
    scopes: [\"jobs:write\", \"read:metadata\"]
    note: Data validation pipeline
    created: 2026-11-22T10:00:00Z
    expires: 2027-11-22T10:00:00Z
    disabled: false
    allow_from: [\"10.0.0.0/8\", \"127.0.0.1\"]
    limits: { requests: 10, per: 1s, burst: 20 }
  - id: ba9af604
    user: bob
    hash: 618e09497540ecec350de43aa7cf9721121d5eb4b77de5e9132e570ba796d95c
...
";

fn problems(text: &str) -> Vec<String> {
    parse(text).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

fn warnings(text: &str) -> Vec<String> {
    parse(text).expect("good").warnings.iter().map(ToString::to_string).collect()
}

fn hex(key: &str) -> String {
    KeyHash::of(key.as_bytes()).as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file with one entry that says `field`.
fn with(field: &str) -> String {
    format!("version: 1\nkeys:\n  - id: a\n    user: u\n    hash: {}\n    {field}\n", hex("a"))
}

/// The one record of a file with one entry that says `field`.
fn record(field: &str) -> Arc<Record> {
    let text = with(field);
    parse(&text)
        .unwrap_or_else(|problems| panic!("{field}: {problems:?}"))
        .keyring
        .records()
        .next()
        .map(Arc::clone)
        .expect("a record")
}

fn first(parsed: &Parsed) -> &Record {
    parsed.keyring.records().next().expect("a record")
}

/// Each case: a key file, a divider line, and every problem in full. `KEYFILE_CASES=write` writes what was found, for a
/// new case or new words.
#[test]
fn every_bad_file_names_every_problem() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/keyfile");
    let mut seen = 0;
    for file in std::fs::read_dir(&folder).expect("the cases") {
        let path = file.expect("a case").path();
        let case = std::fs::read_to_string(&path).expect("text");
        let (input, want) = case.split_once(DIVIDER).unwrap_or((&case, ""));
        let got: String = problems(input).iter().map(|problem| format!("{problem}\n")).collect();
        assert!(!got.is_empty(), "{}: no problem found", path.display());
        for secret in ["6e87f34a", "618e0949", "alice-example-key", "kg_0123", "hunter2"] {
            assert!(!got.contains(secret), "{} shows `{secret}`", path.display());
        }
        if std::env::var_os("KEYFILE_CASES").is_some_and(|mode| mode == "write") {
            std::fs::write(&path, format!("{input}{DIVIDER}{got}")).expect("written");
        } else {
            assert_eq!(got, want, "{}", path.display());
        }
        seen += 1;
    }
    assert!(seen >= 40, "only {seen} cases");
}

#[test]
fn the_contract_loads_and_knows_its_two() {
    let parsed = parse(CONTRACT).expect("good");
    assert!(parsed.warnings.is_empty());
    let keyring = parsed.keyring;
    let now = "2027-01-01T00:00:00Z".parse().expect("a time");
    let home = Some("10.1.2.3".parse().expect("an address"));
    let alice = keyring.identify(&KeyHash::of(b"alice-example-key-48e8f859"), home, now).expect("alice");
    assert_eq!((alice.id().as_str(), alice.user(), alice.name()), ("48e8f859", "alice", Some("amber-falcon")));
    assert_eq!((alice.roles_joined(), alice.scopes_joined()), ("client", "jobs:write read:metadata"));
    assert_eq!(alice.record().note(), Some("Data validation pipeline"));
    assert_eq!(alice.record().created().map(|time| time.to_string()).as_deref(), Some("2026-11-22T10:00:00Z"));
    assert_eq!(alice.expires_at().map(|time| time.to_string()).as_deref(), Some("2027-11-22T10:00:00Z"));
    let rate = alice.limits().rate.expect("a rate");
    assert_eq!((rate.requests.get(), rate.per.as_secs(), rate.burst.get()), (10, 1, 20));
    let bob = keyring.identify(&KeyHash::of(b"bob-example-key-ba9af604"), None, now).expect("bob");
    assert_eq!((bob.id().as_str(), bob.user(), bob.name(), bob.roles_joined()), ("ba9af604", "bob", None, ""));
}

#[test]
fn scalars_are_read_as_written() {
    for id in ["48e85912", "0012", "1e3", "true", "no", "~a", "-", "_x-9"] {
        let text = format!("version: 1\nkeys:\n  - {{id: {id}, user: {id}x, hash: {}}}\n", hex("a"));
        match parse(&text) {
            Ok(parsed) => assert_eq!(first(&parsed).id().as_str(), id),
            Err(problems) => assert!(matches!(id, "~a" | "-"), "{id}: {problems:?}"),
        }
    }
    for user in ["no", "0x10", "1.0", "null-user", "2027-11-22", "Alice Smith"] {
        let text = with("").replace("user: u", &format!("user: {user}"));
        assert_eq!(first(&parse(&text).expect(user)).user(), user);
    }
}

#[test]
fn dates_in_every_good_form() {
    for (text, want) in [
        ("2027-11-22T10:00:00Z", "2027-11-22T10:00:00Z"),
        ("2027-11-22t10:00:00z", "2027-11-22T10:00:00Z"),
        ("2027-11-22T10:00:00+02:00", "2027-11-22T08:00:00Z"),
        ("2027-11-22T10:00:00-00:30", "2027-11-22T10:30:00Z"),
        ("2027-11-22T10:00:00.25Z", "2027-11-22T10:00:00.25Z"),
        ("2027-11-22", "2027-11-22T00:00:00Z"),
        ("\"2028-02-29\"", "2028-02-29T00:00:00Z"),
    ] {
        let expires = record(&format!("expires: {text}")).expires().map(|time| time.to_string());
        assert_eq!(expires.as_deref(), Some(want), "{text}");
    }
    for text in [
        "2027-11-22T10:00Z",
        "2027-11-22T10:00:00.Z",
        "20271122",
        "2027-11-22T10:00:00+0200",
        "+002027-11-22",
        "2027-W05-1",
    ] {
        assert!(!problems(&with(&format!("expires: {text}"))).is_empty(), "{text}");
    }
}

#[test]
fn networks_in_every_good_form() {
    for (text, want) in [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("192.168.1.7", "192.168.1.7/32"),
        ("fd00::/8", "fd00::/8"),
        ("::1", "::1/128"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:192.0.2.1", "192.0.2.1/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
    ] {
        let nets: Vec<_> =
            record(&format!("allow_from: ['{text}']")).allow_from().iter().map(ToString::to_string).collect();
        assert_eq!(nets, [want], "{text}");
    }
}

#[test]
fn limits_in_every_good_form() {
    let limits = *record(
        "limits: {requests: 5, per: 500ms, concurrent: 3, websockets: 2, quota: {requests: 1000000, per: 1mo}}",
    )
    .limits();
    let rate = limits.rate.expect("a rate");
    assert_eq!((rate.requests.get(), rate.per.as_millis(), rate.burst.get()), (5, 500, 5));
    assert_eq!((limits.concurrent.map(|n| n.get()), limits.websockets.map(|n| n.get())), (Some(3), Some(2)));
    let quota = limits.quota.expect("a quota");
    assert_eq!((quota.requests.get(), quota.per), (1_000_000, crate::limit::QuotaWindow::Month));
    for (per, seconds) in [("1s", 1), ("2m", 120), ("1h", 3_600), ("1d", 86_400), ("1000ms", 1)] {
        let rate = record(&format!("limits: {{requests: 1, per: {per}}}")).limits().rate.expect("a rate");
        assert_eq!(rate.per.as_secs(), seconds, "{per}");
    }
    assert_eq!(*record("limits: {}").limits(), crate::limit::Limits::default());
}

#[test]
fn what_is_odd_but_allowed_is_warned_of() {
    for (field, want) in [
        ("roles: [a, a]", "line 6: `roles` holds one item twice"),
        (
            "allow_from: [10.0.0.7/8]",
            "line 6: this network begins at 10.0.0.0: the bits behind the prefix do not count",
        ),
        ("{created: 2027-01-02, expires: 2027-01-02}", "line 3: this key expires before it was created"),
    ] {
        let text = with(&field.trim_matches(['{', '}']).replace(", expires", "\n    expires"));
        assert_eq!(warnings(&text), [want], "{field}");
    }
    assert_eq!(warnings("version: 1\nkeys: []\n"), ["line 2: there are no keys: every key is refused"]);
    assert_eq!(record("roles: [a, b, a]").roles_joined(), "a,b");
}

#[test]
fn a_key_in_the_wrong_place_is_refused_unseen() {
    let key = crate::key::ApiKey::generate(None, |bytes| bytes.fill(7));
    let secret = key.expose_secret();
    for field in ["id", "user", "name", "hash"] {
        let text = format!("version: 1\nkeys:\n  - id: a\n    {field}: {secret}\n").replace("- id: a\n    id", "- id");
        let told = problems(&text).join("\n");
        assert!(told.contains(&format!("`{field}` holds a secret")) && !told.contains(secret), "{told}");
    }
}

#[test]
fn bytes_that_are_no_text_are_refused_by_line() {
    for (bytes, want) in [
        (&b"version: 1\nkeys:\n  - id: \xff\n"[..], "line 3: not valid UTF-8"),
        (b"version: 1\nkeys:\0\n", "line 2: a NUL byte stands here"),
        (b"\0", "line 1: a NUL byte stands here"),
        (b"\xff\xfev\0e\0r\0", "line 1: not valid UTF-8"),
        (b"\xef\xbb", "line 1: not valid UTF-8"),
    ] {
        let problem = decode(bytes).expect_err(want).to_string();
        assert!(problem.starts_with(want), "{problem}");
    }
}

#[test]
fn line_ends_and_byte_order_marks_do_not_matter() {
    for text in [
        CONTRACT.to_owned(),
        CONTRACT.replace('\n', "\r\n"),
        format!("\u{feff}{CONTRACT}"),
        format!("\u{feff}{}", CONTRACT.replace('\n', "\r\n")),
        format!("---\n{CONTRACT}"),
    ] {
        let parsed = parse(decode(text.as_bytes()).expect("text")).expect("good");
        assert_eq!(parsed.keyring.records().map(|record| record.user()).collect::<Vec<_>>(), ["alice", "bob"]);
    }
    let text = with("disabled: perhaps").replace('\n', "\r\n");
    assert_eq!(problems(&text), ["line 6: `disabled` must be true or false"]);
}

/// Whatever the offset, a cut copy of the file in force is refused or holds the same keys.
#[test]
fn cut_at_every_byte_it_never_gives_a_part_of_the_set() {
    let unmarked = CONTRACT.replace("...\n", "");
    let commented = format!("{CONTRACT}# the end\n\n");
    for whole in [CONTRACT, &unmarked, &commented, &CONTRACT.replace('\n', "\r\n")] {
        let facts = SourceFacts::of(whole.as_bytes().to_vec());
        assert!(facts.cut(whole.as_bytes()).is_none());
        for end in 0..whole.len() {
            let cut = &whole.as_bytes()[..end];
            if facts.cut(cut).is_some() {
                continue;
            }
            let kept = decode(cut).ok().and_then(|text| parse(text).ok()).map(|parsed| parsed.keyring.len());
            assert_eq!(kept, Some(2), "cut at {end}");
            assert!(end >= CONTRACT.len() - 1, "cut at {end} was taken");
        }
    }
}

#[test]
fn a_shorter_file_is_taken_when_it_is_not_a_cut_one() {
    let unmarked = CONTRACT.replace("...\n", "");
    let facts = SourceFacts::of(unmarked.clone().into_bytes());
    let first_entry = unmarked.split("  - id: ba9af604").next().expect("the first entry");
    assert!(facts.cut(first_entry.as_bytes()).is_some());
    assert!(facts.cut(format!("{first_entry}...\n").as_bytes()).is_none(), "it says that it is whole");
    assert!(facts.cut(first_entry.replace("alice", "carol").as_bytes()).is_none(), "it is another file");
    let facts = SourceFacts::of(CONTRACT.as_bytes().to_vec());
    assert!(facts.cut(unmarked.as_bytes()).is_some());
    assert!(facts.cut(format!("{unmarked}# ...\n").as_bytes()).is_some(), "a comment is no end");
    for end in ["...", "...\n\n# end\n", "... # end\n", "...  \r\n"] {
        assert!(facts.cut(format!("{first_entry}{end}").as_bytes()).is_none(), "{end:?}");
    }
    for end in ["....\n", "...#\n", " ...\n", "..\n"] {
        assert!(facts.cut(format!("{first_entry}{end}").as_bytes()).is_some(), "{end:?}");
    }
}

#[test]
fn endless_problems_are_counted_not_kept() {
    let text = format!("version: 1\nkeys:\n{}", "  - x\n".repeat(3_000));
    let told = problems(&text);
    assert_eq!(told.len(), 1_001);
    assert_eq!(told.last().map(String::as_str), Some("and 2000 more problems"));
}

#[test]
fn hostile_shapes_are_refused_quickly() {
    for text in [
        "[".repeat(100_000),
        "- ".repeat(100_000),
        format!("version: 1\nkeys: [{}", "{".repeat(100_000)),
        format!("{}: 1\n", "k".repeat(100_000)),
        format!("version: 1\nkeys:\n  - id: {}\n", "x".repeat(100_000)),
        (0..50_000).map(|n| format!("k{n}: 1\n")).collect(),
    ] {
        let told = problems(&text);
        assert!(!told.is_empty() && told.iter().all(|problem| problem.len() < 400), "{told:?}");
    }
}

#[test]
fn twenty_thousand_keys_load() {
    let mut text = String::from("version: 1\nkeys:\n");
    for n in 0..20_000u32 {
        text.push_str(&format!("- {{id: k{n}, user: u, hash: {n:064x}}}\n"));
    }
    text.push_str("...\n");
    let keyring = parse(&text).expect("good").keyring;
    assert_eq!(keyring.len(), 20_000);
    let mut last = [0; 32];
    last[28..].copy_from_slice(&19_999u32.to_be_bytes());
    assert!(keyring.knows(&KeyHash::from_digest(last)));
}

/// A line that spoils an entry.
fn bad_line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("    colour: red".to_owned()),
        Just("    disabled: maybe".to_owned()),
        Just("    expires: soon".to_owned()),
        Just("    allow_from: [everywhere]".to_owned()),
        Just("    roles: ['a b']".to_owned()),
        Just("    limits: {requests: 0, per: 1s}".to_owned()),
        Just("    id: again".to_owned()),
        Just("  - id: lonely".to_owned()),
        Just("  - not an entry".to_owned()),
        Just("stray: 1".to_owned()),
        Just("    note: \"open".to_owned()),
        Just("\tnote: tab".to_owned()),
        "[a-z]{1,8}: [a-z]{1,8}".prop_map(|line| format!("    {line}x: 1")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_bad_line_refuses_the_whole_file(count in 1usize..20, at in 0usize..20, line in bad_line()) {
        let entry = |n: usize| format!("  - id: k{n}\n    user: u\n    hash: {}\n", hex(&n.to_string()));
        let entries: Vec<String> = (0..count).map(entry).collect();
        let good = format!("version: 1\nkeys:\n{}...\n", entries.concat());
        prop_assert!(parse(&good).is_ok());
        let at = at % count;
        let bad = format!("version: 1\nkeys:\n{}{line}\n{}...\n", entries[..=at].concat(), entries[at + 1..].concat());
        prop_assert!(parse(&bad).is_err(), "{}", bad);
    }

    #[test]
    fn any_text_gives_an_answer(text in "[ -~\n\u{e9}]{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&text);
        let _ = parse(&format!("version: 1\nkeys:\n  - {text}"));
        if let Ok(text) = decode(&bytes) {
            let _ = parse(text);
        }
    }
}
