//! The plain reader against the general one: equal, or stepping aside.

use super::*;
use proptest::prelude::*;

/// Both readings of `text`: the tree and the items handed out. The general one is `None` where it finds errors.
type Reading = Option<(Node, Vec<Node>)>;

fn both(text: &str) -> (Reading, Reading) {
    let mut quick_items = Vec::new();
    let quick = parse_each(text, "keys", &mut |item| quick_items.push(item));
    let mut items = Vec::new();
    let mut each = |item| items.push(item);
    let (tree, errors) = crate::yaml::parse_each(text, "keys", &mut each);
    let general = tree.filter(|_| errors.is_empty()).map(|tree| (without_begin(tree), items));
    (quick.map(|tree| (without_begin(tree), quick_items)), general)
}

/// Drops where the list begins: the general parser has two ideas of it, and nobody asks.
fn without_begin(mut tree: Node) -> Node {
    if let Value::Mapping(entries) = &mut tree.value {
        for entry in entries.iter_mut().filter(|entry| entry.key == "keys") {
            entry.value.position = entry.position;
        }
    }
    tree
}

/// What the quick reading accepts, the general one must read alike.
fn check(text: &str) -> bool {
    let (quick, general) = both(text);
    let accepted = quick.is_some();
    if accepted {
        assert_eq!(quick, general, "{text}");
    }
    accepted
}

const ENTRIES: &str = "\
# a comment
version: 1

keys: # all of them
  - id: 48e8f859                    # public
    user: alice smith
    hash: \"sha256:6e87f34a\"
    # between
    note: 'it #is: fine'
    roles: [client, \"a b\", 'c']
    scopes: []
    created: 2026-11-22T10:00:00Z
    limits: { requests: 10, per: 1s, quota: { requests: 5, per: 1d } }
  - id: b
    note: größe
...
# the end
";

#[test]
fn the_plain_form_is_read_alike() {
    for text in [
        ENTRIES,
        &ENTRIES.replace("...\n# the end\n", ""),
        &ENTRIES.replace("\n  ", "\n"),
        &ENTRIES.replace("# the end\n", "")[..ENTRIES.len() - 11],
        "keys:\n- id: a\n",
        "version: 1\nkeys:\n      - id: a#b\n        user: x:y\n",
    ] {
        assert!(check(text), "{text}");
    }
}

#[test]
fn what_is_not_plain_is_left_to_the_general_reading() {
    for text in [
        "",
        "keys:\n",
        "keys: []\n",
        "version: 1\n",
        "version: 1\nkeys:\n...\n",
        "version: 1\nversion: 1\nkeys:\n- id: a\n",
        "keys:\n- id: a\nversion: 1\n",
        "keys:\n- id: a\n...\nkeys:\n- id: b\n",
        "keys:\n- id: a\n---\n",
        "---\nkeys:\n- id: a\n",
        "keys:\n- id: a\n  id: b\n",
        "keys:\n- id: a\n user: b\n",
        "keys:\n- id: a\n   user: b\n",
        "keys:\n  - id: a\n - id: b\n",
        "keys:\n- id: a\n  more words\n",
        "keys:\n- id: |\n    a\n",
        "keys:\n- id: >\n",
        "keys:\n- id: \"a\\n\"\n",
        "keys:\n- id: 'it''s'\n",
        "keys:\n- id: \"a\n    b\"\n",
        "keys:\n- id: \"a\" b\n",
        "keys:\n- id: \"a\"#b\n",
        "keys:\n- id: a: b\n",
        "keys:\n- id: a:\n",
        "keys:\n- id: &x a\n",
        "keys:\n- id: *x\n",
        "keys:\n- id: !!str a\n",
        "keys:\n- id: null\n",
        "keys:\n- id: ~\n",
        "keys:\n- id:\n",
        "keys:\n- id: [a,]\n",
        "keys:\n- id: [a\n",
        "keys:\n- id: [a b]\n",
        "keys:\n- id: [a]]\n",
        "keys:\n- id: [null]\n",
        "keys:\n- id: {a: 1, a: 2}\n",
        "keys:\n- id: {a}\n",
        "keys:\n- id: {a:1}\n",
        "keys:\n- a\n",
        "keys:\n-\n",
        "keys:\n- - a\n",
        "keys:\n-  id: a\n",
        "keys:\n\t- id: a\n",
        "keys:\r\n- id: a\r\n",
        "keys:\n- id: a\u{a0}b\n",
        "keys:\n- id: a\u{2028}b\n",
        "keys:\n- id: a\n  #\u{7}\n",
        "keys:\n- id: a\n...\n\u{7}\n",
        "keys:\n- id: a\n\u{7}",
        "\u{feff}keys:\n- id: a\n",
    ] {
        assert!(both(text).0.is_none(), "{text:?}");
    }
}

/// Pieces of which near-plain files are made.
fn piece() -> impl Strategy<Value = String> {
    let fixed = proptest::sample::select(vec![
        "version: 1\n",
        "keys:\n",
        "keys: \n",
        "- ",
        "  - ",
        "    ",
        "  ",
        " ",
        "\n",
        "id: ",
        "user: ",
        "a",
        "b1",
        "10",
        "null",
        "~",
        "'",
        "\"",
        "[",
        "]",
        "{",
        "}",
        ",",
        ", ",
        ":",
        ": ",
        "#",
        " # c",
        "...",
        "...\n",
        "---\n",
        "\\",
        "|",
        ">",
        "&",
        "*",
        "!",
        "?",
        "-",
        "%",
        "@",
        "`",
        "\t",
        "\r",
        "ä",
        "\u{2028}",
        "\u{85}",
        "x: y\n",
        "  id: [a, b]\n",
        "  limits: { per: 1s }\n",
        "- id: a\n",
        "  - id: a\n",
        "    user: 'b'\n",
        "    note: \"c d\" # e\n",
    ]);
    fixed.prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_accepted_is_read_alike(pieces in proptest::collection::vec(piece(), 0..12)) {
        check(&pieces.concat());
        check(&format!("version: 1\nkeys:\n{}", pieces.concat()));
        check(&format!("version: 1\nkeys:\n- id: {}", pieces.concat()));
        check(&format!("keys:\n  - id: a\n    note: {}\n  - id: b\n...\n", pieces.concat()));
        check(&format!("keys:\n  - id: [{}]\n    user: {{ a: {} }}\n", pieces.concat(), pieces.concat()));
    }

    #[test]
    fn one_changed_byte_is_read_alike_or_left(at in 0..ENTRIES.len(), to in "[ -~\n\tä]") {
        let mut text = ENTRIES.to_owned();
        if text.is_char_boundary(at) && text.is_char_boundary(at + 1) {
            text.replace_range(at..at + 1, &to);
        }
        check(&text);
    }
}
