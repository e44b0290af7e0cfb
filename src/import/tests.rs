//! Every format, as bytes that people and attackers write.

use proptest::prelude::*;

use super::*;

const ALL: [Format; 6] = [Format::Hash, Format::Env, Format::Nginx, Format::Haproxy, Format::Csv, Format::Json];
const H1: &str = "6e87f34a127b2efbebc6b7329b94db222d67d7557b432f466cb70fdf9a51601f";

/// Line, key or `#`, user (`list*` for one of a list) and roles of each entry.
fn entries(found: &Found) -> Vec<String> {
    let of = |entry: &Entry| {
        let credential = match &entry.credential {
            Credential::Secret(secret) => secret.as_str(),
            Credential::Hash(_) => "#",
        };
        let owner = match &entry.owner {
            Owner::Named(user) => user.clone(),
            Owner::Listed(list) => format!("{list}*"),
            Owner::Unnamed => "-".to_owned(),
        };
        let fields = entry.fields.iter().map(|(field, value)| format!(" {}={}", field.name(), value.to_yaml()));
        format!("{} {credential} {owner}{}", entry.line, fields.collect::<String>())
    };
    found.entries.iter().map(of).collect()
}

fn lines_of(remarks: &[Remark]) -> Vec<usize> {
    remarks.iter().map(|remark| remark.line).collect()
}

/// `text` is read into these entries, with problems and remarks on these lines.
fn check(format: Format, text: &str, want: &[&str], problems: &[usize], remarks: &[usize]) {
    let found = read(format, text);
    assert_eq!(entries(&found), want, "{text}");
    assert_eq!(lines_of(&found.problems), problems, "{text}: {:?}", found.problems);
    assert_eq!(lines_of(&found.remarks), remarks, "{text}: {:?}", found.remarks);
}

#[test]
fn variables_of_shells_and_of_pydantic() {
    for (text, want, problems, remarks) in [
        (
            "CLIENT_API_KEYS=[\"a\",\"b\"]",
            &["1 a client* roles=[client]", "1 b client* roles=[client]"][..],
            &[][..],
            &[][..],
        ),
        ("  export  SUPER_ADMIN_API_KEYS = [ \"a\" ] # x\r\n", &["1 a super_admin* roles=[super_admin]"], &[], &[]),
        ("client_api_keys=a, b", &["1 a client* roles=[client]", "1 b client* roles=[client]"], &[], &[]),
        ("API_KEYS='[\"a\"]'", &["1 a user*"], &[], &[]),
        ("API_KEYS=\"[\\\"a\\\"]\" # two", &["1 a user*"], &[], &[]),
        ("API_KEYS='[\n\"a\",\n\"b\"\n]'\nX_API_KEYS=c", &["1 a user*", "1 b user*", "5 c x* roles=[x]"], &[], &[]),
        ("API_KEYS=a#b # c", &["1 a#b user*"], &[], &[]),
        ("API_KEYS=", &[], &[], &[]),
        ("API_KEYS=[]\nexportX_API_KEYS=b", &["2 b exportx* roles=[exportx]"], &[], &[]),
        ("# API_KEYS=a\nOTHER=b\nnonsense\n\n", &[], &[], &[]),
        ("OPENAI_API_KEY=sk-x\nAPI_KEYS_OLD=a", &[], &[], &[1]),
        ("A_API_KEYS=a\nA_API_KEYS=b", &["1 a a* roles=[a]", "2 b a* roles=[a]"], &[2], &[]),
        ("A_API_KEYS=[\"${KEY}\"]\nB_API_KEYS='a${KEY:-b}'\nC_API_KEYS=$c", &["3 $c c* roles=[c]"], &[1, 2], &[]),
        ("API_KEYS=[\"a\"", &[], &[1], &[]),
        ("API_KEYS=[\"a\"] \"b\"", &[], &[1], &[]),
        ("API_KEYS=[a]", &[], &[1], &[]),
        ("API_KEYS={\"a\":1}", &["1 {a:1} user*"], &[], &[]),
        ("API_KEYS='a", &[], &[1], &[]),
        ("API_KEYS=[1]\nB_API_KEYS=b", &["2 b b* roles=[b]"], &[1], &[]),
    ] {
        check(Format::Env, text, want, problems, remarks);
    }
}

#[test]
fn maps_of_nginx() {
    for (text, want, problems, remarks) in [
        ("map $http_x_api_key $u { a alice; }", &["1 a alice"][..], &[][..], &[1][..]),
        (
            "map $http_x_api_key $u {\n\"a b\" \"al ice\"; 'c\\'d' bob; e\\\"f x;\n}",
            &["2 a b al ice", "2 c'd bob", "2 e\"f x"],
            &[],
            &[1],
        ),
        ("map $http_x_api_key $u{hostnames;volatile;default 0;\"default\" \"\";\na alice;}", &["2 a alice"], &[], &[1]),
        (
            "map $http_x_api_key $u { \\default alice; \\~x bob; \\\\z c; }",
            &["1 default alice", "1 ~x bob", "1 z c"],
            &[],
            &[1],
        ),
        ("map $http_x_api_key $u { a alice;# b bob;\n#c }\n}", &["1 a alice"], &[], &[1]),
        ("map $http_x_api_key $u {\n ~^a alice;\n \"~*b\" bob;\n}", &[], &[2, 3], &[]),
        (
            "map $http_x_api_key $u {\n include keys.map;\n default anonymous;\n x \"\"; y 0;\n}",
            &[],
            &[],
            &[2, 3, 4, 4],
        ),
        ("map $http_x_api_key $ok { a 1; b $other; }", &["1 a -"], &[1], &[1]),
        ("map $http_authorization $u { \"Bearer a\" alice; \"Basic b\" bob; c d; }", &["1 a alice"], &[1, 1], &[1]),
        (
            "http {\n map $uri $x { a b; }\n map $arg_token $u { a b; }\n server { listen 80; }\n}",
            &["3 a b"],
            &[],
            &[1, 2],
        ),
        ("a alice;\n'b' \"bob\";", &["1 a alice", "2 b bob"], &[], &[1]),
        ("a${b} alice;", &["1 a${b} alice"], &[], &[1]),
        ("map $http_x_api_key $u { a alice bob; }", &[], &[1], &[]),
        ("map $http_x_api_key $u { a alice }", &[], &[], &[]),
        ("map $http_x_api_key $u { a alice;", &["1 a alice"], &[1], &[1]),
        ("map $http_x_api_key $u {\n\"a alice;\n}", &[], &[2], &[]),
        ("\"a\"b alice;", &[], &[1], &[]),
        ("a alice", &[], &[1], &[]),
        ("server { }", &[], &[1], &[]),
        ("a\\", &[], &[1], &[]),
    ] {
        check(Format::Nginx, text, want, problems, remarks);
    }
}

#[test]
fn maps_of_haproxy() {
    for (text, want, problems) in [
        ("a alice\n# c\n\n\tb \t bob smith  \r\n", &["1 a alice", "4 b bob smith"][..], &[][..]),
        ("a", &["1 a -"], &[]),
        ("\u{a0}a alice", &["1 \u{a0}a alice"], &[]),
        ("a\u{7}b alice", &[], &[1]),
    ] {
        check(Format::Haproxy, text, want, problems, &[]);
    }
    check(
        Format::Haproxy,
        &format!("{} alice", "k".repeat(MAX_KEY_BYTES)),
        &[&format!("1 {} alice", "k".repeat(1024))],
        &[],
        &[],
    );
    check(Format::Haproxy, &format!("{} alice", "k".repeat(MAX_KEY_BYTES + 1)), &[], &[1], &[]);
}

#[test]
fn hashes_with_users_or_without() {
    for (text, want, problems) in [
        (
            format!("{H1}\n{H1} -\n{H1} alice\nbob: sha256:{H1}\ncarol {H1}"),
            &["1 # -", "2 # -", "3 # alice", "4 # bob", "5 # carol"][..],
            &[][..],
        ),
        (format!("{H1} {H1}\n{H1}0\na b c\n{}", &H1[1..]), &[], &[1, 2, 3, 4]),
        (H1.replace('6', "g"), &[], &[1]),
        (H1.to_uppercase(), &["1 # -"], &[]),
    ] {
        check(Format::Hash, &text, want, problems, &[]);
    }
}

#[test]
fn tables_with_names_above() {
    for (text, want, problems) in [
        ("key,user\na,alice\n\n b , bob \n", &["2 a alice", "4 b bob"][..], &[][..]),
        ("User;KEY;Roles\nalice;a;x,w\n", &["2 a alice roles=[x, w]"], &[]),
        ("user\tkey\tscope\nalice\ta\tx w\n", &["2 a alice scopes=[x, w]"], &[]),
        (
            "key,note\r\na,\"two\r\nlines, \"\"so\"\"\"\r\nb,\r\n",
            &["2 a - note=\"two\\x0d\\nlines, \\\"so\\\"\"", "4 b -"],
            &[],
        ),
        (
            "key,expires,created,disabled,allow_from\na,2027-01-01,2026-01-01T00:00:00Z,TRUE,10.0.0.0/8 ::1\n",
            &[
                "2 a - expires=2027-01-01 created=2026-01-01T00:00:00Z disabled=true allow_from=[\"10.0.0.0/8\", \"::1\"]",
            ],
            &[],
        ),
        ("key,user\n#a,alice\n \t# b,bob\n\"#c\",carol\nd,#dave\n", &["4 #c carol", "5 d #dave"], &[2, 3]),
        ("key,disabled\na,no\nb,false\n,\n", &["3 b -"], &[2]),
        ("user,key\na\na,b,c\nx,\n", &[], &[2, 3, 4]),
        ("key,key\na,b\n", &[], &[1]),
        ("role,key,roles\n", &[], &[1]),
        ("id,key\n1,a\n", &[], &[1]),
        ("user\nalice\n", &[], &[1]),
        ("", &[], &[]),
    ] {
        check(Format::Csv, text, want, problems, &[]);
    }
}

#[test]
fn lists_of_objects() {
    for (text, want, problems) in [
        ("[]", &[][..], &[][..]),
        (
            r#"[{"key":"a","user":"alice","roles":["x","y z"],"note":null,"name":"","disabled":false}]"#,
            &["1 a alice roles=[x, \"y z\"]"],
            &[],
        ),
        (
            "[\n {\"key\":\"a\\\"\\n\"},\n\n {\"key\":\"[{\\\"\",\"disabled\":true}\n]",
            &["4 [{\" - disabled=true"],
            &[2],
        ),
        (
            "[{\"key\":\"a\"},\n{\"key\":1},\n[],\n\"x\",\n{\"key\":\"b\",\"key\":\"c\"},\n{\"key\":[\"a\"]},\n{}]",
            &["1 a -"],
            &[2, 3, 4, 5, 6, 7],
        ),
        ("[{\"key\":true,\"user\":\"a\"},\n{\"key\":\"b\",\"user\":false}]", &[], &[1, 2]),
        ("{}", &[], &[1]),
        ("[\n1,", &[], &[2]),
        ("", &[], &[1]),
    ] {
        check(Format::Json, text, want, problems, &[]);
    }
    // No stack is deep enough for what is nested for ever.
    check(Format::Json, &"[".repeat(1_000_000), &[], &[1], &[]);
}

#[test]
fn an_unknown_field_is_not_quoted_where_it_could_be_a_key() {
    for secret in ["VXt3pLq9Zr7mWc2KdY8sB6nHfJ", "hunter2", "a b"] {
        for (format, text) in
            [(Format::Csv, format!("{secret},user\n")), (Format::Json, format!("[{{\"{secret}\":\"x\"}}]"))]
        {
            let problems = read(format, &text).problems;
            assert!(problems.len() == 1 && !problems[0].what.contains(secret), "{problems:?}");
            assert!(problems[0].what.contains("field 1 is unknown; known are key, hash, user"), "{problems:?}");
        }
    }
}

#[test]
fn only_text_is_read() {
    assert_eq!(decode("\u{feff}a\nb".as_bytes()), Ok("a\nb"));
    let line = |bytes: &'static [u8]| decode(bytes).map_err(|problem| problem.line);
    assert_eq!(line(b"a\nb\xff"), Err(2));
    assert_eq!(line(b"a\n\n\0"), Err(3));
    assert_eq!(line(b"\xff\xfea\0"), Err(1));
}

#[test]
fn formats_are_guessed_where_they_can_be_one_only() {
    for (name, text, want) in [
        ("-", "[{}]", Some(Format::Json)),
        ("a/b.JSON", "", Some(Format::Json)),
        ("keys.csv", "x", Some(Format::Csv)),
        ("-", "user,key\n", Some(Format::Csv)),
        ("-", "name;hash\n", Some(Format::Csv)),
        ("/srv/.env", "", Some(Format::Env)),
        (".env.production", "", Some(Format::Env)),
        ("-", "A=b\nexport X_API_KEYS=c\n", Some(Format::Env)),
        ("-", "events {}\n map  $http_x_api_key $user {\n", Some(Format::Nginx)),
        ("-", "a alice;\n# x\nb bob;\n", Some(Format::Nginx)),
        ("-", "alice sha256:6e87f34a127b2efbebc6b7329b94db222d67d7557b432f466cb70fdf9a51601f", Some(Format::Hash)),
        ("keys.map", "a alice\nb bob\n", Some(Format::Haproxy)),
        // A hash, or a key of 32 random bytes?
        ("keys.map", "6e87f34a127b2efbebc6b7329b94db222d67d7557b432f466cb70fdf9a51601f alice\n", None),
        ("-", "6e87f34a127b2efbebc6b7329b94db222d67d7557b432f466cb70fdf9a51601f", None),
        ("-", "a alice\nb bob\n", None),
        ("keys.txt", "key,user\nuser", Some(Format::Csv)),
        ("-", "key\na\n", None),
        ("-", "", None),
    ] {
        assert_eq!(guess(name, text), want, "{name}: {text}");
    }
}

proptest! {
    #[test]
    fn whatever_is_read_no_reader_panics_and_no_remark_quotes_it(
        text in "([a-z ,;:=\"'\\\\\\[\\]{}#~$\n\r\t]|mysecret1|key|user|map \\$http_x_api_key|API_KEYS=|\u{feff}|é){0,60}",
    ) {
        for format in ALL {
            let found = read(format, &text);
            for remark in found.problems.iter().chain(&found.remarks) {
                prop_assert!(!remark.what.contains("mysecret1"), "{:?}", remark);
                prop_assert!(remark.line >= 1 && remark.line <= text.lines().count().max(1), "{:?}: {:?}", format, remark);
            }
        }
        let _any = guess("-", &text);
    }

    #[test]
    fn keys_come_out_as_they_went_in(
        keys in proptest::collection::vec("[!-~&&[^,\"'#;\\\\${}~]]{1,40}", 1..8),
    ) {
        let list = serde_json::to_string(&keys).unwrap();
        let rows = |row: &dyn Fn(&String) -> String| keys.iter().map(row).collect::<String>();
        for (format, text) in [
            (Format::Env, format!("API_KEYS={list}\n")),
            (Format::Env, format!("API_KEYS='{list}'\n")),
            (Format::Nginx, format!("map $http_x_api_key $u {{ {} }}", rows(&|key| format!("\"\\\\{key}\" u;\n")))),
            (Format::Haproxy, rows(&|key| format!("{key} u\r\n"))),
            (Format::Csv, format!("key,user\n{}", rows(&|key| format!("\"{key}\",u\n")))),
            (Format::Json, format!("[{}]", keys.iter().map(|key| serde_json::json!({ "key": key }).to_string()).collect::<Vec<_>>().join(","))),
        ] {
            let found = read(format, &text);
            let read: Vec<&str> = found.entries.iter().filter_map(|entry| match &entry.credential {
                Credential::Secret(secret) => Some(secret.as_str()),
                Credential::Hash(_) => None,
            }).collect();
            prop_assert_eq!(&read, &keys, "{:?}: {}", format, text);
        }
    }
}
