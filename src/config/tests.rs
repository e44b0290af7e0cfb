//! Configurations good and bad: the cases of `tests/cases/config`, the contract, the shipped examples, printing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::credential::Source;
use crate::identity::TrustedProxy;
use crate::route::{Access, HostPattern, PathPattern};
use crate::upstream::{Balance, HostPolicy, ServerAddress};

/// A world of variables and files; what is not in `files` is read from disk when `disk` says so.
#[derive(Default)]
struct World {
    variables: BTreeMap<&'static str, &'static str>,
    files: BTreeMap<PathBuf, Vec<u8>>,
    disk: bool,
}

impl Environment for World {
    fn variable(&self, name: &str) -> Option<Vec<u8>> {
        self.variables.get(name).map(|value| value.as_bytes().to_vec())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self.files.get(path) {
            Some(bytes) => Ok(bytes.clone()),
            None if self.disk => fs::read(path),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Stands in every variable and file a case refers to, and must never be seen again.
const SECRET: &str = "hunter2";

impl World {
    fn of_cases() -> Self {
        let mut world = Self::default();
        world.variables.extend([
            ("SECRET", "hunter2 is not a thing"),
            ("NAME", "hunter2"),
            ("EMPTY", ""),
            ("LINES", "hunter2\nhunter2"),
            ("PORT", "8443"),
        ]);
        let (cert, key) = certificate("gate.lan");
        let (_, other) = certificate("other.lan");
        for (name, text) in [
            ("good.pem", cert.as_str()),
            ("good.key", &key),
            ("other.key", &other),
            ("junk.pem", "hunter2, not PEM"),
            ("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            ("token.txt", "hunter2\n"),
            ("two-lines.txt", "hunter2\n\n"),
        ] {
            world.files.insert(Path::new("/etc/keygate").join(name), text.as_bytes().to_vec());
        }
        world.files.insert("/etc/keygate/latin1.txt".into(), b"hunter2 \xfc".to_vec());
        world
    }
}

fn certificate(name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

const CASE_FILE: &str = "/etc/keygate/keygate.yaml";

fn load_case(text: &str) -> Result<Loaded, Vec<Problem>> {
    load_str(text, Path::new(CASE_FILE), &World::of_cases())
}

fn manifest(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What an operator would see, one line each, without the folder of the file.
fn outcome(text: &str) -> String {
    let mut out = String::new();
    let (kind, problems) = match load_case(text) {
        Ok(loaded) => {
            assert!(!loaded.to_yaml().contains(SECRET), "printed a secret:\n{}", loaded.to_yaml());
            ("warning: ", loaded.warnings)
        }
        Err(problems) => ("", problems),
    };
    for problem in problems {
        let line = problem.to_string();
        let line = line.strip_prefix("/etc/keygate/").expect("the file comes first");
        writeln!(out, "{kind}{line}").expect("written");
    }
    if out.is_empty() { "ok\n".to_owned() } else { out }
}

const DIVIDER: &str = "\n----\n";

/// `KEYGATE_BLESS=1` writes what is instead of comparing with what should be; read the difference before committing.
#[test]
fn every_case_says_what_is_expected() {
    let bless = std::env::var_os("KEYGATE_BLESS").is_some();
    let mut failures = String::new();
    let mut bad = 0;
    let mut files: Vec<_> = fs::read_dir(manifest("tests/cases/config")).expect("cases").flatten().collect();
    files.sort_by_key(fs::DirEntry::path);
    for path in files.into_iter().map(|entry| entry.path()) {
        let case = fs::read_to_string(&path).expect("UTF-8");
        let (input, expected) = case.split_once(DIVIDER).expect("a divider line");
        let found = outcome(input);
        assert!(!found.contains(SECRET), "{} shows a secret:\n{found}", path.display());
        bad += usize::from(found.lines().any(|line| line.starts_with("keygate.yaml:")));
        if bless {
            fs::write(&path, format!("{input}{DIVIDER}{found}")).expect("written");
        } else if found != expected {
            writeln!(failures, "{}\nexpected:\n{expected}found:\n{found}", path.display()).expect("written");
        }
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(bad >= 60, "only {bad} bad configurations");
}

const LEAST: &str = "
listen: [{ address: \"127.0.0.1:0\" }]
upstreams: { app: { servers: [\"127.0.0.1:8000\"] } }
routes: [{ path: /, upstream: app }]
";

#[test]
fn defaults() {
    let Loaded { config, warnings, .. } = load_case(LEAST).expect("loads");
    assert_eq!(warnings, []);
    assert_eq!(config.admin, None);
    assert_eq!(config.key_file, Path::new("/etc/keygate/keys.yaml"));
    assert_eq!(config.state_path, None);
    assert_eq!(&*config.credentials.realm, "keygate");
    let bearer = Source::Scheme { name: "authorization".into(), schemes: vec!["Bearer".into()] };
    assert_eq!(config.credentials.sources, [Source::Header { name: "x-api-key".into() }, bearer]);
    assert_eq!(config.identity.user, ["X-Auth-User".into()]);
    assert_eq!(config.identity.trusted_proxies, []);
    assert_eq!(config.default_limits, Limits::default());
    let throttle = config.failed_auth.expect("on");
    assert_eq!((throttle.attempts.get(), throttle.per), (20, Duration::from_secs(60)));
    assert_eq!((config.connections.max, config.connections.per_address), (10_000, 1_000));
    assert_eq!(config.connections.handshake_timeout, Duration::from_secs(10));
    assert_eq!(config.shutdown_grace, Duration::from_secs(30));
    assert_eq!(config.threads, None);
    let head = config.request.head;
    assert_eq!((head.max_head_bytes, head.max_headers, head.max_target_bytes), (32 << 10, 100, 8 << 10));
    assert_eq!(config.request.max_body_bytes, Some(1 << 30));
    assert_eq!(config.request.body_min_rate, 256);
    let times = [config.request.header_timeout, config.request.body_idle_timeout, config.request.keepalive_timeout];
    assert_eq!(times.map(|time| time.as_secs()), [10, 60, 75]);
    let upstream = &config.upstreams[0];
    assert_eq!((upstream.balance, &upstream.host, upstream.http2), (Balance::RoundRobin, &HostPolicy::Keep, false));
    let times =
        [upstream.connect_timeout, upstream.response_timeout, upstream.idle_timeout, upstream.websocket_idle_timeout];
    assert_eq!(times.map(|time| time.as_secs()), [2, 60, 60, 3600]);
    assert_eq!(upstream.health_check, None);
    let route = &config.routes[0];
    assert_eq!((&*route.name, route.access, route.cors_preflight), ("/", Access::Key, false));
    assert!(route.methods.is_none() && route.credentials.is_none() && route.limits.is_none());
    assert_eq!(config.log.format, None);
}

/// A folder with the files that the contract and the full example name.
fn folder_with_certificates(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("certs")).expect("certs");
    for pair in [["fullchain.pem", "privkey.pem"], ["gate.pem", "gate.key"], ["worker-ca.pem", "worker-ca.key"]] {
        let (cert, key) = certificate("gate.lan");
        fs::write(folder.path().join("certs").join(pair[0]), cert).expect("written");
        fs::write(folder.path().join("certs").join(pair[1]), key).expect("written");
    }
    for file in files {
        let name = Path::new(file).file_name().expect("a name");
        fs::copy(manifest(file), folder.path().join(name)).expect("copied");
    }
    folder
}

fn disk() -> World {
    World { variables: [("COORDINATOR_ADMIN_KEY", "hunter2")].into(), disk: true, ..World::default() }
}

#[test]
fn the_contract_loads() {
    let folder = folder_with_certificates(&["tests/cases/contract/keygate.yaml"]);
    let loaded = load(&folder.path().join("keygate.yaml"), &disk()).expect("loads");
    let config = &loaded.config;
    assert_eq!(config.listeners.len(), 2);
    assert_eq!(config.key_file, folder.path().join("keys.yaml"));
    assert_eq!(config.state_path, Some(folder.path().join("state.db")));
    assert_eq!(config.credentials.sources.len(), 9);
    assert_eq!(config.identity.user, ["X-Auth-User".into(), "X-Miner-ID".into()]);
    assert_eq!(config.default_limits.rate.map(|rate| (rate.requests.get(), rate.burst.get())), Some((100, 200)));
    let worker = &config.upstreams[1];
    assert_eq!(worker.servers[1], ServerAddress::Tcp { host: "10.0.0.6".into(), port: 9101 });
    assert!(worker.tls.as_ref().is_some_and(|tls| tls.client.is_some()));
    let [health, admin, v1, lan] = config.routes.as_slice() else { unreachable!("four routes") };
    assert_eq!((&health.path, health.access), (&PathPattern::Exact("/healthz".into()), Access::Public));
    assert_eq!(admin.set_headers[0].1.expose_secret(), b"hunter2");
    assert_eq!(v1.limits.map(|rate| rate.burst.get()), Some(10));
    assert_eq!(lan.host, Some(HostPattern::Exact("worker.lan".into())));
    assert_eq!(&*lan.name, "worker.lan/");
    assert!(!format!("{loaded:?}").contains(SECRET));
    let lines: Vec<String> = loaded.warnings.iter().map(|warning| warning.what.clone()).collect();
    assert_eq!(lines, [""; 0]);
}

#[test]
fn what_is_printed_loads_as_the_same() {
    let folder =
        folder_with_certificates(&["tests/cases/contract/keygate.yaml", "config/full.yaml", "config/minimal.yaml"]);
    for name in ["keygate.yaml", "full.yaml", "minimal.yaml"] {
        let loaded = load(&folder.path().join(name), &disk()).expect(name);
        let printed = loaded.to_yaml();
        assert!(!printed.contains(SECRET), "{printed}");
        let again = load_str(&printed, &folder.path().join("printed.yaml"), &disk())
            .unwrap_or_else(|problems| panic!("{name}: {problems:#?}\n{printed}"));
        assert_eq!(format!("{:#?}", loaded.config), format!("{:#?}", again.config), "{name}");
        assert_eq!(printed, again.to_yaml(), "{name}");
        let masked = loaded.config.routes.iter().map(|route| route.set_headers.len()).sum::<usize>();
        assert_eq!(printed.matches("'***'").count(), masked, "{printed}");
        assert_eq!(again.warnings.iter().filter(|warning| warning.what.contains("mask")).count(), masked);
    }
}

#[test]
fn references_are_printed_as_written() {
    let text = "
listen: [{ address: \"127.0.0.1:${env:PORT}\" }]
realm: \"$${env:X}\"
identity: { headers: { user: \"X-${env:NAME}\", roles: [X-Roles, \"R-${env:NAME}\"] } }
limits: { default: { requests: \"${env:PORT}\", per: 1s } }
upstreams: { app: { servers: [\"${env:NAME}:80\"], host: \"${file:token.txt}\" } }
routes: [{ path: \"/${env:NAME}\", upstream: app, set_headers: { X-Key: \"${env:NAME}\" } }]
";
    let loaded = load_case(text).expect("loads");
    assert_eq!(&*loaded.config.credentials.realm, "${env:X}");
    assert_eq!(loaded.config.upstreams[0].host, HostPolicy::Literal("hunter2".into()));
    let printed = loaded.to_yaml();
    assert!(!printed.contains(SECRET) && !printed.contains("8443"), "{printed}");
    for want in ["127.0.0.1:${env:PORT}", "$${env:X}", "- X-${env:NAME}", "- R-${env:NAME}", "/${env:NAME}"] {
        assert!(printed.contains(want), "{want}\n{printed}");
    }
    let again = load_case(&printed).expect("loads");
    assert_eq!(format!("{:?}", loaded.config), format!("{:?}", again.config));
}

/// The settings that stand in a tree, in the form of [`Loaded::settings`].
fn written(node: &Node, path: &str, found: &mut BTreeSet<String>) {
    match &node.value {
        yaml::Value::Mapping(entries) => {
            for entry in entries {
                let name = if path == "upstreams" { "*" } else { &entry.key };
                let below = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                written(&entry.value, &below, found);
                found.insert(below);
            }
        }
        yaml::Value::Sequence(items) => items.iter().for_each(|item| written(item, &format!("{path}[]"), found)),
        yaml::Value::Null | yaml::Value::Scalar { .. } => {}
    }
}

#[test]
fn the_full_example_shows_every_setting() {
    let folder = folder_with_certificates(&["config/full.yaml"]);
    let loaded = load(&folder.path().join("full.yaml"), &disk()).expect("loads");
    let text = fs::read_to_string(manifest("config/full.yaml")).expect("full.yaml");
    let mut shown = BTreeSet::new();
    written(&yaml::parse(&text).expect("YAML"), "", &mut shown);
    let missing: Vec<_> = loaded.settings.difference(&shown).collect();
    assert!(missing.is_empty(), "not in config/full.yaml: {missing:?}");
    assert!(loaded.settings.len() > 90, "{}", loaded.settings.len());
}

/// Optional scalars of the full example stand at their default: without them the same configuration loads.
#[test]
fn the_full_example_stands_at_the_defaults() {
    let folder = folder_with_certificates(&["config/full.yaml"]);
    let full = load(&folder.path().join("full.yaml"), &disk()).expect("loads").config;
    let least = load_case(LEAST).expect("loads").config;
    assert_eq!(full.failed_auth, least.failed_auth);
    assert_eq!(full.connections, least.connections);
    assert_eq!(full.request, least.request);
    assert_eq!((full.shutdown_grace, full.threads), (least.shutdown_grace, least.threads));
    assert_eq!(format!("{:?}", full.log), format!("{:?}", least.log));
    assert_eq!(full.credentials.realm, least.credentials.realm);
    let with_least = |upstream: &upstream::Settings| upstream::Settings {
        name: upstream.name.clone(),
        servers: upstream.servers.clone(),
        tls: upstream.tls.clone(),
        health_check: upstream.health_check.clone(),
        ..least.upstreams[0].clone()
    };
    assert_eq!(format!("{:?}", full.upstreams[0]), format!("{:?}", with_least(&full.upstreams[0])));
    let check = full.upstreams[0].health_check.as_ref().expect("a check");
    assert_eq!((check.interval, check.unhealthy_after, check.healthy_after), (Duration::from_secs(5), 3, 2));
}

#[test]
fn the_minimal_example_loads_where_it_stands() {
    let loaded = load(&manifest("config/minimal.yaml"), &System).expect("loads");
    assert_eq!(loaded.warnings, []);
    assert!(loaded.config.key_file.is_file(), "{}", loaded.config.key_file.display());
}

#[test]
fn secrets_reach_their_route_whole() {
    let with = |value: &str| {
        let text = LEAST.replace("upstream: app }", &format!("upstream: app, set_headers: {{ X-Key: {value} }} }}"));
        load_case(&text).map(|loaded| {
            String::from_utf8_lossy(loaded.config.routes[0].set_headers[0].1.expose_secret()).into_owned()
        })
    };
    assert_eq!(with("\"${env:NAME}\"").as_deref(), Ok("hunter2"));
    assert_eq!(with("\"Bearer ${file:token.txt}!\"").as_deref(), Ok("Bearer hunter2!"));
    assert_eq!(with("\"$${env:NAME}\"").as_deref(), Ok("${env:NAME}"));
    assert_eq!(with("\"$$${env:NAME} $\"").as_deref(), Ok("$${env:NAME} $"));
    // Exactly one newline is dropped; the other is no part of a header.
    assert!(with("\"${file:two-lines.txt}\"").is_err());
}

#[test]
fn a_reload_that_needs_a_restart_says_for_what() {
    let config = |extra: &str| load_case(&format!("{LEAST}{extra}")).expect("loads").config;
    let old = config("");
    assert_eq!(old.needs_restart(&config("log: { level: debug }")), Vec::<&str>::new());
    let new = config("threads: 2\nstate: { path: s.db }\nadmin: { address: \"127.0.0.1:0\" }");
    assert_eq!(old.needs_restart(&new), ["threads", "state.path", "admin.address"]);
}

#[test]
fn trusted_proxies_take_networks_and_unix() {
    let text = format!("{LEAST}identity: {{ trusted_proxies: [10.0.0.0/8, unix, \"::1\"] }}");
    let proxies = load_case(&text).expect("loads").config.identity.trusted_proxies;
    assert_eq!(proxies[1], TrustedProxy::Unix);
    assert_eq!(proxies.len(), 3);
}

#[test]
fn a_file_that_cannot_be_read_is_one_problem() {
    let problems = load(Path::new("/etc/keygate/none.yaml"), &World::default()).expect_err("not there");
    assert_eq!(problems.len(), 1);
    assert_eq!(
        problems[0].to_string(),
        "/etc/keygate/none.yaml: cannot be read (no such file); `--config FILE` names another, `keygate demo` needs none"
    );
}

/// The tree as YAML again, with the scalar number `index` replaced, and what stood there, if there are that many.
fn with_scalar(node: &Node, index: usize, replacement: &str) -> (String, Option<String>) {
    fn rebuild(node: &Node, left: &mut isize, new: &str, old: &mut Option<String>) -> serde_yaml::Value {
        match &node.value {
            yaml::Value::Null => serde_yaml::Value::Null,
            yaml::Value::Scalar { text, .. } => {
                *left -= 1;
                if *left == -1 {
                    *old = Some(text.clone());
                    return new.into();
                }
                text.as_str().into()
            }
            yaml::Value::Sequence(items) => items.iter().map(|item| rebuild(item, left, new, old)).collect(),
            yaml::Value::Mapping(entries) => {
                let pair = |entry: &yaml::Entry| (entry.key.as_str().into(), rebuild(&entry.value, left, new, old));
                serde_yaml::Value::Mapping(entries.iter().map(pair).collect())
            }
        }
    }
    let (mut left, mut old) = (isize::try_from(index).expect("small"), None);
    let tree = rebuild(node, &mut left, replacement, &mut old);
    (serde_yaml::to_string(&tree).expect("YAML"), old)
}

/// Every value of the full example may come from outside, and is then shown by nothing.
#[test]
fn any_value_may_be_a_reference_and_no_reference_is_shown() {
    let folder = folder_with_certificates(&["config/full.yaml"]);
    let path = folder.path().join("full.yaml");
    let tree = yaml::parse(&fs::read_to_string(&path).expect("UTF-8")).expect("YAML");
    let plain = format!("{:?}", load(&path, &disk()).expect("loads").config);
    let mut count = 0;
    loop {
        let (text, old) = with_scalar(&tree, count, "${file:value}");
        let Some(old) = old else { break };
        let mut world = disk();
        world.files.insert(folder.path().join("value"), old.clone().into_bytes());
        let loaded = load_str(&text, &path, &world).unwrap_or_else(|problems| panic!("{old}: {problems:#?}"));
        assert!(format!("{:?}", loaded.config) == plain, "{old} is read otherwise from a file");
        let printed = loaded.to_yaml();
        assert!(printed.contains("${file:value}") || printed.contains("'***'"), "{old}\n{printed}");
        let again = load_str(&printed, &path, &world).unwrap_or_else(|problems| panic!("{old}: {problems:#?}"));
        assert!(format!("{:?}", again.config) == plain, "{old} is printed otherwise:\n{printed}");

        world.files.insert(folder.path().join("value"), SECRET.into());
        match load_str(&text, &path, &world) {
            Ok(loaded) => assert!(!loaded.to_yaml().contains(SECRET), "{old}\n{}", loaded.to_yaml()),
            Err(problems) => {
                assert!(!problems.iter().any(|problem| problem.to_string().contains(SECRET)), "{old} {problems:#?}");
            }
        }
        count += 1;
    }
    assert!(count > 90, "{count}");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..proptest::prelude::ProptestConfig::default() })]

    /// Whatever a slip of the editor does to a configuration, it is told and nothing panics.
    #[test]
    fn no_text_panics(at in 0usize..9000, cut in 0usize..40, put in "[ -~\n]{0,8}") {
        let full = fs::read_to_string(manifest("config/full.yaml")).expect("UTF-8");
        let (from, to) = (at.min(full.len()), (at + cut).min(full.len()));
        let Some((head, tail)) = full.get(..from).zip(full.get(to..)) else { return Ok(()) };
        let text = format!("{head}{put}{tail}");
        let lines = text.lines().count() + 1;
        // Certificates are not there, so there is always something to tell.
        let problems = load_str(&text, Path::new(CASE_FILE), &World::default()).expect_err("no certificates");
        for problem in problems {
            proptest::prop_assert!((1..=lines).contains(&problem.line.unwrap()), "{problem}");
        }
    }
}
