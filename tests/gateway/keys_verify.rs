//! `keygate keys verify`: what it says of a key, and that the gate itself answers the same.

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::gateway::{Gateway, run_with_input, write_private};
use crate::support::origin::Origin;
use crate::support::{ALICE, BOB, SECRETS, client, config_with, entry, keys_with};

const ROUTES: &str = "  - { path: /v1/jobs/, upstream: app, roles: [client] }
  - { path: /v1/admin/, upstream: app, roles: [admin] }
  - { path: /v1/data/, upstream: app, scopes: [\"read:metadata\", \"write:metadata\"], methods: [GET] }
  - { path: /open/, upstream: app, access: public }
";

/// Exit status, standard output and standard error, which never hold the key or a hash.
fn verify(folder: &Path, key: &str, arguments: &[&str]) -> (i32, String, String) {
    let arguments = [&["keys", "verify"], arguments].concat();
    let (status, out, err) = run_with_input(folder, &arguments, &format!("{key}\n"));
    for secret in SECRETS.iter().chain([&key]) {
        assert!(!out.contains(secret) && !err.contains(secret), "{arguments:?}: {out}{err}");
    }
    (status, out, err)
}

fn json(folder: &Path, key: &str, arguments: &[&str]) -> (i32, serde_json::Value) {
    let (status, out, err) = verify(folder, key, &[arguments, &["--json"]].concat());
    (status, serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}")))
}

fn keys() -> String {
    let replaced =
        "    previous: { hash: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08, until: 2999-01-01 }\n";
    keys_with(&[
        entry("old00001", "carol", "expired-key", "    expires: 2020-01-01\n"),
        entry("off00001", "dave", "disabled-key", "    disabled: true\n"),
        entry("lan00001", "erin", "lan-key", "    allow_from: [10.0.0.0/8]\n"),
        entry("rot00001", "frank", "new-key", replaced),
    ])
}

#[test]
fn a_key_is_told_with_its_state() {
    let folder = tempfile::tempdir().unwrap();
    write_private(&folder.path().join("keys.yaml"), &keys());
    for (key, more, status, state, id) in [
        (ALICE, &[][..], 0, "active", Some("48e8f859")),
        ("expired-key", &[], 1, "expired", Some("old00001")),
        ("disabled-key", &[], 1, "disabled", Some("off00001")),
        ("lan-key", &[], 0, "active", Some("lan00001")),
        ("lan-key", &["--from", "10.1.2.3"], 0, "active", Some("lan00001")),
        ("lan-key", &["--from", "192.0.2.1"], 1, "address", Some("lan00001")),
        ("test", &[], 0, "grace", Some("rot00001")),
        (ALICE, &["-"], 0, "active", Some("48e8f859")),
        ("nobody's-key", &[], 1, "unknown", None),
    ] {
        let (got, answer) = json(folder.path(), key, &[&["--keys", "keys.yaml"], more].concat());
        assert_eq!(
            (got, answer["state"].as_str(), answer["id"].as_str()),
            (status, Some(state), id),
            "{key}: {answer}"
        );
        assert_eq!(answer["good"], status == 0, "{answer}");
    }
    let (status, out, err) = verify(folder.path(), ALICE, &["--keys", "keys.yaml"]);
    assert_eq!(status, 0);
    assert_eq!(
        out,
        "48e8f859 (amber-falcon) of alice\n  state: active\n  roles: client, miner\n  scopes: jobs:write, read:metadata\n"
    );
    assert_eq!(err, "");
    let (status, out, _) = verify(folder.path(), "nobody's-key", &["--keys", "keys.yaml"]);
    assert_eq!((status, out.as_str()), (1, "this key is not in the key file\n"));
    assert_eq!(run_with_input(folder.path(), &["keys", "verify", "--keys", "keys.yaml"], "").0, 2, "no key");
    assert_eq!(verify(folder.path(), ALICE, &["--keys", "keys.yaml", "--path", "/"]).0, 2, "no routes");
}

#[test]
fn what_it_says_of_a_path_is_what_the_gate_answers() {
    let origin = Origin::ok();
    let gate = Gateway::start_with(&config_with(&origin, ROUTES, ""), &keys(), &[]);
    let folder = gate.dir.path();
    for (key, method, path, want, why) in [
        (ALICE, "GET", "/v1/jobs/1", None, "route `/v1/jobs/` to `app`"),
        (BOB, "GET", "/v1/jobs/1", Some(403), "route `/v1/jobs/` asks for one of these roles: client"),
        (ALICE, "GET", "/v1/admin/", Some(403), "asks for one of these roles: admin"),
        (ALICE, "GET", "/v1/data/x", Some(403), "asks for more scopes: write:metadata"),
        (ALICE, "POST", "/v1/data/x", Some(405), "takes GET, HEAD only"),
        (ALICE, "GET", "/nowhere", Some(404), "no route has this host and path"),
        (ALICE, "GET", "/v1/jobs/%2e%2e/admin/", Some(400), ""),
        (ALICE, "GET", "/v1/jobs/..%2fadmin", Some(400), ""),
        (ALICE, "TRACE", "/v1/jobs/", Some(405), ""),
        ("disabled-key", "GET", "/v1/jobs/1", Some(401), "the key is not good (disabled)"),
        ("disabled-key", "GET", "/open/", Some(401), "the key is not good (disabled)"),
        (BOB, "GET", "/open/x", None, "which needs no key"),
    ] {
        let (status, answer) = json(folder, key, &["--path", path, "--method", method]);
        let verdict = &answer["path"];
        let told = (verdict["status"].as_u64(), verdict["allowed"].as_bool(), status);
        assert_eq!(told, (want, Some(want.is_none()), i32::from(want.is_some())), "{method} {path}: {answer}");
        assert!(verdict["why"].as_str().unwrap().contains(why), "{answer}");
        let got = client::request(gate.address(0), method, path, &[("X-Api-Key", key)], b"");
        assert_eq!(u64::from(got.status), want.unwrap_or(200), "{method} {path}");
    }
    let (_, out, _) = verify(folder, BOB, &["--path", "/v1/jobs/"]);
    assert!(out.ends_with("  refused with 403: route `/v1/jobs/` asks for one of these roles: client\n"), "{out}");
}

/// Numbers that look random and are the same in every run (Knuth's 64-bit generator).
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % most
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Some of these words, as a list of YAML.
    fn some(&mut self, of: &[&str]) -> String {
        let some: Vec<_> = of.iter().copied().filter(|_| self.below(2) == 0).collect();
        format!("[{}]", some.join(", "))
    }
}

const ADDRESSES: [&str; 6] = ["127.0.0.1", "10.1.2.3", "10.9.9.9", "192.0.2.7", "fd00::1", "::ffff:10.1.2.3"];

/// The key file's entries of keys `key-0`, `key-1`… in every state.
fn random_keys(dice: &mut Dice, count: usize) -> String {
    let entries: Vec<String> = (0..count)
        .map(|n| {
            let mut more = format!("    roles: {}\n    scopes: {}\n", dice.some(&["a", "b"]), dice.some(&["x", "y"]));
            more += dice.one(&["", "", "", "    disabled: true\n", "    disabled: false\n"]);
            more += dice.one(&["", "", "    expires: 2020-01-01\n", "    expires: 2999-01-01T00:00:00+02:00\n"]);
            if dice.below(3) == 0 {
                let networks = dice.one(&[
                    "127.0.0.1",
                    "10.0.0.0/8, 192.0.2.0/24",
                    "\"fd00::/8\"",
                    "10.1.2.3/32",
                    "0.0.0.0/0, \"::/0\"",
                ]);
                more += &format!("    allow_from: [{networks}]\n");
            }
            if dice.below(3) == 0 {
                let hash = crate::revocation::digest(&format!("old-{n}"));
                let until = dice.one(&["2020-01-01", "2999-01-01"]);
                more += &format!("    previous: {{ hash: {hash}, until: {until} }}\n");
            }
            entry(&format!("rnd{n:05}"), &format!("user{n}"), &format!("key-{n}"), &more)
        })
        .collect();
    keys_with(&entries)
}

/// Routes whose owners differ by host, path, method, roles and scopes.
fn random_routes(dice: &mut Dice) -> String {
    let mut routes = String::new();
    let paths = ["path: /", "path: /v1/", "path: /v1/jobs/", "exact: /v1/jobs/one", "path: /Shop/", "exact: /exact"];
    for path in paths {
        for host in ["", "host: a.test, ", "host: \"*.a.test\", "] {
            if dice.below(3) == 0 {
                continue;
            }
            let mut rights = dice.one(&["", "", ", methods: [GET]", ", methods: [POST, DELETE]"]).to_owned();
            match dice.below(4) {
                0 => rights += ", access: public",
                1 => rights += &format!(", roles: {}", dice.one(&["[a]", "[a, b]"])),
                2 => rights += &format!(", scopes: {}", dice.one(&["[x]", "[x, y]"])),
                _ => {}
            }
            if path == "path: /v1/" {
                rights += dice.one(&["", ", strip_prefix: /v1"]);
            }
            routes += &format!("  - {{ {host}{path}, upstream: app{rights} }}\n");
        }
    }
    routes
}

/// What verify says of random keys on random routes is what the gate answers to a request like it.
#[test]
fn what_it_says_of_random_keys_and_routes_is_what_the_gate_answers() {
    let long: &'static str = format!("/v1/{}", "x".repeat(9000)).leak();
    let paths = [
        "/",
        "/v1",
        "/v1/",
        "/v1/x",
        "/v1/jobs",
        "/v1/jobs/one",
        "/v1/jobs/one/",
        "/v1/jobs/%6fne",
        "/v1/jobs%2Fone",
        "/V1/x",
        "/v1/./x",
        "/v1/../x",
        "/v1/%2e%2e/x",
        "/v1//jobs/one",
        "//v1/x",
        "/v1;p=1/x",
        "/v1/x;p",
        "/v1\\jobs",
        "/v1/%5cjobs",
        "/%76%31/x",
        "/shop/",
        "/Shop/x",
        "/SHOP",
        "/exact",
        "/exact/",
        "/exact?a=1&b=%zz",
        "/v1/x#part",
        "/v1/%00",
        "/v1/%zz",
        "/v1/caf\u{e9}",
        "/v1/caf%C3%A9",
        "*",
        "",
        "v1/x",
        "http://a.test/v1/x",
        "/v1/%252e%252e/x",
        "/v1/\"<>",
        long,
    ];
    let methods =
        ["GET", "GET", "GET", "POST", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "FOO", "G,T", "PRI"];
    let hosts = [
        "a.test",
        "A.Test",
        "x.a.test",
        "y.x.a.test",
        "a.test:8080",
        "a.test.",
        "b.test",
        "[::1]",
        "127.0.0.1:1",
        "a_b",
        "a..test",
        "a.test:x",
        "a/b",
        ".a.test",
        "*.a.test",
    ];
    let origin = Origin::ok();
    let mut dice = Dice(7);
    let mut differs = Vec::new();
    let mut seen = BTreeMap::new();
    for _ in 0..4 {
        let (routes, keys) = (random_routes(&mut dice), random_keys(&mut dice, 40));
        let more = "identity: { trusted_proxies: [127.0.0.1] }\nlimits: { failed_auth: off }\n";
        let gate = Gateway::start_with(&config_with(&origin, &routes, more), &keys, &[]);
        for n in 0..40 {
            let key = match dice.below(8) {
                0 => "nobody's".to_owned(),
                1 | 2 => format!("old-{n}"),
                _ => format!("key-{n}"),
            };
            // One thing at a time is odd, or nothing: the first ones of each list are plain.
            let odd = dice.below(6);
            let mut pick = |of: &[&'static str], plain, at| dice.one(if odd == at { of } else { &of[..plain] });
            let (path, method, host) = (pick(&paths, 9, 0), pick(&methods, 5, 1), pick(&hosts, 7, 2));
            let from = dice.one(&ADDRESSES);
            let arguments = ["--path", path, "--method", method, "--host", host, "--from", from];
            let (status, answer) = json(gate.dir.path(), &key, &arguments);
            let mut client = client::Client::connect(gate.address(0));
            client.send(format!(
                "{method} {path} HTTP/1.1\r\nHost: {host}\r\nX-Api-Key: {key}\r\nX-Forwarded-For: {from}\r\n\r\n"
            ));
            let got = client.read_for(method).map_or(0, |response| response.status);
            let told = answer["path"]["status"].as_u64().unwrap_or(200);
            *seen.entry(got).or_insert(0) += 1;
            if (told, status == 0) != (got.into(), got == 200) {
                differs.push(format!("{arguments:?} of {key}: got {got}, told {answer}"));
            }
        }
    }
    assert!(differs.is_empty(), "{differs:#?}");
    let all = [200, 400, 401, 403, 405];
    assert!(all.iter().all(|status| seen.contains_key(status)), "what was asked is too much the same: {seen:?}");
}
