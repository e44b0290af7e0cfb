//! Edits as an operator would look at them: the text before, the change, the text after.

use proptest::prelude::*;

use super::*;

const A: &str = "6e87f34a127b2efbebc6b7329b94db222d67d7557b432f466cb70fdf9a51601f";
const B: &str = "618e09497540ecec350de43aa7cf9721121d5eb4b77de5e9132e570ba796d95c";
const C: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// As an edit of the whole file, read first.
fn apply(text: &str, changes: &[Change]) -> Result<Edited, EditError> {
    let old = file::parse(text).unwrap_or_else(|problems| panic!("{problems:?}\n{text}"));
    super::apply(text, &old, changes, &mut |_line| ())
}

fn text(text: &str) -> Written {
    Written::Text(text.to_owned())
}

fn new_entry(id: &str, hash: &str) -> Change {
    Change::Add(vec![(Field::Id, text(id)), (Field::User, text("carol")), (Field::Hash, text(hash))])
}

fn set(id: &str, field: Field, value: Option<Written>) -> Change {
    Change::Set(KeyId::new(id), vec![(field, value)])
}

fn remove(id: &str) -> Change {
    Change::Remove(KeyId::new(id))
}

fn filled(text: &str) -> String {
    text.replace("$A", A).replace("$B", B).replace("$C", C)
}

/// The text after `change`, hashes as `$A`…
fn after(before: &str, changes: &[Change]) -> String {
    let edited = apply(&filled(before), changes).unwrap_or_else(|e| panic!("{e:?}\n{before}"));
    edited.text.replace(A, "$A").replace(B, "$B").replace(C, "$C")
}

fn check(before: &str, changes: &[Change], want: &str) {
    assert_eq!(after(before, changes), want);
}

const BLOCK: &str = "# Team keys
version: 1
keys:
  # the pipeline
  - id: a1   # do not rename
    user: alice
    hash: $A
    roles: [client] # for now
    # asked for by Ann
    note: Data   # short
  # the boss

  - id: b2
    user: bob
    hash: $B
# end of list
...
# behind the end
";

#[test]
fn a_new_entry_stands_behind_the_last() {
    let want = BLOCK.replace("hash: $B\n", "hash: $B\n  - id: c3\n    user: carol\n    hash: $C\n");
    check(BLOCK, &[new_entry("c3", C)], &want);
}

#[test]
fn a_value_is_replaced_and_its_comment_stays() {
    check(
        BLOCK,
        &[set("a1", Field::Note, Some(text("Old data")))],
        &BLOCK.replace("note: Data  ", "note: \"Old data\"  "),
    );
    let roles = Written::List(vec!["admin".to_owned(), "client".to_owned()]);
    check(BLOCK, &[set("a1", Field::Roles, Some(roles))], &BLOCK.replace("[client]", "[admin, client]"));
}

#[test]
fn a_new_field_stands_where_new_entries_have_it() {
    let expires = || Some(Written::Plain("2027-01-01T00:00:00Z".to_owned()));
    let want = BLOCK.replace("# short\n", "# short\n    expires: 2027-01-01T00:00:00Z\n");
    check(BLOCK, &[set("a1", Field::Expires, expires())], &want);
    let want = BLOCK.replace("a1   # do not rename\n", "a1   # do not rename\n    name: amber\n");
    check(BLOCK, &[set("a1", Field::Name, Some(text("amber")))], &want);
    let want = BLOCK.replace("hash: $B\n", "hash: $B\n    expires: 2027-01-01T00:00:00Z\n");
    check(BLOCK, &[set("b2", Field::Expires, expires())], &want);
}

#[test]
fn a_field_goes_with_its_line() {
    check(BLOCK, &[set("a1", Field::Note, None)], &BLOCK.replace("    note: Data   # short\n", ""));
    check(BLOCK, &[set("a1", Field::Limits, None)], BLOCK);
}

#[test]
fn an_entry_goes_and_what_stands_around_it_stays() {
    let gone = "  - id: b2\n    user: bob\n    hash: $B\n";
    check(BLOCK, &[remove("b2")], &BLOCK.replace(gone, ""));
    let want = "# Team keys
version: 1
keys:
  # the pipeline
  # the boss

  - id: b2
    user: bob
    hash: $B
# end of list
...
# behind the end
";
    check(BLOCK, &[remove("a1")], want);
    let none = after(BLOCK, &[remove("a1"), remove("b2")]);
    assert!(none.contains("\nkeys: []\n  # the pipeline\n"), "{none}");
    let again = after(&none, &[new_entry("c3", C)]);
    assert!(again.contains("\nkeys:\n  - id: c3\n"), "{again}");
}

#[test]
fn all_changes_of_one_edit_are_made() {
    let changes =
        [remove("b2"), new_entry("c3", C), set("a1", Field::Disabled, Some(Written::Plain("true".to_owned())))];
    let want = BLOCK
        .replace("  - id: b2\n    user: bob\n    hash: $B\n", "  - id: c3\n    user: carol\n    hash: $C\n")
        .replace("# short\n", "# short\n    disabled: true\n");
    check(BLOCK, &changes, &want);
}

#[test]
fn an_empty_file_gets_its_first_entry() {
    let text = after(EMPTY, &[new_entry("c3", C)]);
    assert!(text.ends_with("version: 1\nkeys:\n  - id: c3\n    user: carol\n    hash: $C\n...\n"), "{text}");
}

#[test]
fn entries_in_braces_are_edited_in_braces() {
    let flow = "version: 1\nkeys:\n  - { id: a1, user: alice, hash: $A, note: x } # one\n  - { id: b2, user: bob, hash: $B }\n";
    let want = flow.replace(", note: x", "") + "...\n";
    check(flow, &[set("a1", Field::Note, None)], &want);
    let want = flow.replace("user: bob, hash: $B", "user: bob, hash: $B, roles: [x]") + "...\n";
    check(flow, &[set("b2", Field::Roles, Some(Written::List(vec!["x".to_owned()])))], &want);
    let want = flow.replace("  - { id: a1, user: alice, hash: $A, note: x } # one\n", "") + "...\n";
    check(flow, &[remove("a1")], &want);
}

#[test]
fn a_list_in_brackets_stays_in_brackets() {
    let flow = "keys: [ { id: a1, user: alice, hash: $A }, { id: b2, user: bob, hash: $B } ] # all\nversion: 1\n...\n";
    check(flow, &[remove("a1")], "keys: [ { id: b2, user: bob, hash: $B } ] # all\nversion: 1\n...\n");
    check(flow, &[remove("b2")], "keys: [ { id: a1, user: alice, hash: $A } ] # all\nversion: 1\n...\n");
    check(flow, &[remove("a1"), remove("b2")], "keys: [  ] # all\nversion: 1\n...\n");
    let want = flow.replace("$B }", "$B }, { id: c3, user: carol, hash: $C }");
    check(flow, &[new_entry("c3", C)], &want);
}

#[test]
fn in_brackets_a_neighbours_comment_stays() {
    let entry = |id: &str, hash: &str| format!("{{ id: {id}, user: {id}, hash: {hash} }}");
    let (a, b, c) = (entry("a1", "$A"), entry("b2", "$B"), entry("c3", "$C"));
    let with = |lines: &str| {
        let text = lines.replace("{a}", &a).replace("{b}", &b).replace("{c}", &c);
        format!("version: 1\nkeys: [\n{text}] # all\n...\n")
    };
    for comma in ["", ","] {
        let all = with(&format!("  {{a}}, # one\n  # of two\n  {{b}}, # two\n  # of three\n  {{c}}{comma} # three\n"));
        for (gone, left) in [
            (&["a1"][..], "  # of two\n  {b}, # two\n  # of three\n  {c}COMMA # three\n"),
            (&["b2"], "  {a}, # one\n  # of two\n  # of three\n  {c}COMMA # three\n"),
            (&["c3"], "  {a}, # one\n  # of two\n  {b}, # two\n  # of three\n"),
            (&["a1", "c3"], "  # of two\n  {b}, # two\n  # of three\n"),
            (&["b2", "c3"], "  {a}, # one\n  # of two\n  # of three\n"),
        ] {
            let removed: Vec<Change> = gone.iter().map(|id| remove(id)).collect();
            check(&all, &removed, &with(&left.replace("COMMA", comma)));
        }
        let none = "version: 1\nkeys: []\n  # of two\n  # of three\n # all\n...\n";
        check(&all, &[remove("a1"), remove("b2"), remove("c3")], none);
        check(&with(&format!("  {{a}}{comma}\n")), &[remove("a1")], "version: 1\nkeys: []\n # all\n...\n");
    }
    let side = with("  {a},\n  {b}, # two\n  {c}\n");
    check(&side, &[remove("a1"), remove("b2")], &with("    {c}\n"));
    check(&with("  {a} # one\n  , {b}\n  , {c}\n"), &[remove("a1")], &with("  {b}\n  , {c}\n"));
    check(&with("  {a}, # one\n  {b}, {c}\n"), &[remove("b2"), remove("c3")], &with("  {a}, # one\n  \n"));
    check(&with("  {a}, {b}, # two\n  {c}\n"), &[remove("b2")], &with("  {a},  # two\n  {c}\n"));
    check(&with("  {a}, {b}, # two\n  {c}\n"), &[remove("b2"), remove("c3")], &with("  {a}, # two\n"));
}

#[test]
fn lists_of_lines_become_one_line_and_keep_what_is_around() {
    let lines = "version: 1\nkeys:\n- user: alice\n  id: a1\n  roles: # who\n    - client\n    - miner # both\n  hash: $A\n...\n";
    let want = "version: 1\nkeys:\n- user: alice\n  id: a1\n  roles: [admin] # who\n  hash: $A\n...\n";
    check(lines, &[set("a1", Field::Roles, Some(Written::List(vec!["admin".to_owned()])))], want);
    check(lines, &[set("a1", Field::Roles, None)], "version: 1\nkeys:\n- user: alice\n  id: a1\n  hash: $A\n...\n");
}

#[test]
fn odd_ways_to_write_an_entry_are_edited_or_refused_with_the_line() {
    let dash_alone = "version: 1\nkeys:\n  - # first\n    id: a1\n    user: alice\n    hash: $A\n  -\n    id: b2\n    user: bob\n    hash: $B\n...\n";
    check(dash_alone, &[remove("a1")], "version: 1\nkeys:\n  -\n    id: b2\n    user: bob\n    hash: $B\n...\n");
    check(dash_alone, &[set("b2", Field::User, Some(text("eve")))], &dash_alone.replace("bob", "eve"));
    let crlf = "version: 1\r\nkeys:\r\n  - id: a1\r\n    user: alice\r\n    hash: $A\r\n...\r\n";
    let want = crlf.replace("user: alice\r\n", "user: eve\r\n").replace("$A\r\n", "$A\r\n    note: x\r\n");
    let change = Change::Set(KeyId::new("a1"), vec![(Field::User, Some(text("eve"))), (Field::Note, Some(text("x")))]);
    check(crlf, &[change], &want);
    let no_end = "version: 1\nkeys:\n  - id: a1\n    user: alice\n    hash: $A";
    check(no_end, &[new_entry("c3", C)], &format!("{no_end}\n  - id: c3\n    user: carol\n    hash: $C\n...\n"));
    let folded =
        "version: 1\nkeys:\n  - id: a1\n    note: >-\n      a long\n      one\n    user: alice\n    hash: $A\n...\n";
    let want = "version: 1\nkeys:\n  - id: a1\n    note: short\n    user: alice\n    hash: $A\n...\n";
    check(folded, &[set("a1", Field::Note, Some(text("short")))], want);
    check(folded, &[set("a1", Field::Note, None)], &want.replace("    note: short\n", ""));
}

#[test]
fn what_is_missing_or_repeated_is_told() {
    assert_eq!(apply(&filled(BLOCK), &[remove("zz")]).err(), Some(EditError::Missing(KeyId::new("zz"))));
    for change in [new_entry("a1", C), new_entry("c3", A), set("a1", Field::User, Some(text("a\u{e9}")))] {
        let refused = apply(&filled(BLOCK), &[change]).expect_err("refused");
        assert!(matches!(&refused, EditError::Refused(problems) if problems.len() == 1), "{refused:?}");
    }
}

#[test]
fn a_record_written_anew_is_the_same_record() {
    let full = filled(
        "version: 1\nkeys:\n  - { id: a1, name: amber-falcon, user: alice, hash: $A, roles: [x, y], scopes: [\"a:b\"], note: \"it's\",
      previous: { hash: $B, until: 2027-01-01 }, created: 2026-01-01, expires: 2027-11-22T10:00:00.25+02:00, disabled: true,
      allow_from: [10.0.0.0/8, \"fd00::/8\"], limits: { requests: 10, per: 1500ms, burst: 20, concurrent: 3, websockets: 4,
      quota: { requests: 1000, per: 1mo } } }\n",
    );
    let keyring = file::parse(&full).expect("good").keyring;
    let fields = fields_of(keyring.records().next().expect("one"));
    assert_eq!(fields.len(), Field::ALL.len());
    let again = apply(EMPTY, &[Change::Add(fields)]).expect("added");
    assert!(again.keyring.records().eq(keyring.records()), "{}", again.text);
}

/// A file of `count` keys in a style of its own, with comments that must all stay.
fn any_file() -> impl Strategy<Value = (String, usize)> {
    let entry = (any::<[bool; 6]>(), 0..4usize);
    (prop::collection::vec(entry, 0..6), any::<[bool; 4]>()).prop_map(|(entries, [crlf, marker, margin, last])| {
        let indent = if margin { "" } else { "  " };
        let mut text = String::from("# top\nversion: 1\n");
        text.push_str(if entries.is_empty() { "keys: [] # none\n" } else { "keys: # all\n" });
        for (at, ([flow, roles, lines, comment, blank, dash], order)) in entries.iter().enumerate() {
            let hash = format!("{at:064x}");
            let mut fields = vec![
                format!("id: k{at}"),
                format!("user: u{at}"),
                format!("hash: {hash}"),
                "disabled: false".to_owned(),
            ];
            fields.rotate_left(*order);
            if *roles {
                fields.push(if *lines && !flow {
                    format!("roles: # list\n{indent}  - r1\n{indent}  - r2")
                } else {
                    "roles: [r1, 'r2']".to_owned()
                });
            }
            if *comment {
                text.push_str(&format!("{indent}# before {at}\n"));
            }
            if *flow {
                text.push_str(&format!("{indent}- {{ {} }} # flow {at}\n", fields.join(", ")));
            } else {
                text.push_str(&format!(
                    "{indent}-{}",
                    if *dash { format!(" # dash {at}\n{indent}  ") } else { " ".to_owned() }
                ));
                text.push_str(&fields.join(&format!(" # in {at}\n{indent}  ")));
                text.push('\n');
            }
            if *blank {
                text.push('\n');
            }
        }
        if marker {
            text.push_str("...\n");
        } else if last {
            text.pop();
        }
        (if crlf { text.replace('\n', "\r\n") } else { text }, entries.len())
    })
}

fn any_change(count: usize) -> impl Strategy<Value = Vec<Change>> {
    let value = prop::option::of(prop_oneof![Just(text("new words")), Just(text("x"))]);
    let one = move |id: usize| {
        let id = KeyId::new(&format!("k{id}"));
        let (other, third) = (id.clone(), id.clone());
        prop_oneof![
            Just(None),
            Just(Some(Change::Remove(id))),
            value.clone().prop_map(move |note| Some(Change::Set(
                other.clone(),
                vec![(Field::Note, note), (Field::Roles, None)]
            ))),
            Just(Some(Change::Set(
                third,
                vec![(Field::Roles, Some(Written::List(vec!["z".to_owned()]))), (Field::User, Some(text("eve")))]
            ))),
        ]
    };
    let adds = (0..3usize).prop_map(|count| {
        (0..count).map(|at| new_entry(&format!("n{at}"), &format!("{:064x}", 100 + at))).collect::<Vec<_>>()
    });
    ((0..count).map(one).collect::<Vec<_>>(), adds)
        .prop_map(|(changes, adds)| changes.into_iter().flatten().chain(adds).collect())
}

proptest! {
    /// `apply` itself compares what came out with what was meant; here every way of writing must be one it can edit, and
    /// no comment that stands outside what was taken away may be lost.
    #[test]
    fn edits_come_out_and_comments_stay((text, changes) in any_file().prop_flat_map(|(text, count)| any_change(count).prop_map(move |changes| (text.clone(), changes)))) {
        let edited = apply(&text, &changes);
        prop_assert!(edited.is_ok(), "{edited:?}\n{text}\n{changes:?}");
        let new = edited.expect("edited").text;
        for comment in text.lines().filter_map(|line| line.split_once('#').map(|(_, comment)| comment.trim_end())) {
            let inside = comment.trim_start().starts_with("in ") || comment.contains("flow") || comment.contains("dash") || comment.contains("list");
            prop_assert!(inside || new.contains(comment), "{comment} is gone\n{text}\n{new}");
        }
        prop_assert_eq!(new.contains("\r\n"), text.contains("\r\n"));
    }
}
