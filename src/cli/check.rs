//! `keygate check`: every problem of a configuration and its key file, with file, line and a hint; with `--print` the
//! configuration that is in force, secrets left out.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use super::{ConfigFile, FAILED, USAGE, complain, out};
use crate::app;
use crate::config::{self, Config, Environment, Problem, System};
use crate::key::KeyId;
use crate::keyring::{self, Keyring, edit};
use crate::listener::files;
use crate::strength::common;

/// `keygate check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// Print the effective configuration, with secrets as ***
    #[arg(long)]
    print: bool,
}

/// Checks, prints, and turns the outcome into an exit status.
pub(super) fn run(args: Args) -> ExitCode {
    let (mut out, mut err) = (io::stdout().lock(), io::stderr());
    match check(&args.config.path(), args.print, &System, files::hard_limit(), &mut out, &mut err) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(USAGE),
        Err(error) => {
            complain(&out::unwritten(&error));
            ExitCode::from(FAILED)
        }
    }
}

/// What stands in a key file that the gate would refuse, and what it would warn of.
#[derive(Default)]
struct KeyFile {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    /// Whether a key names a quota of its own.
    has_quota: bool,
}

/// Whether the configuration at `path` and its key file may be used.
fn check(
    path: &Path,
    print: bool,
    environment: &dyn Environment,
    open_files: Option<u64>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<bool> {
    let loaded = match config::load(path, environment) {
        Ok(loaded) => loaded,
        Err(problems) => {
            report(&problems, &[], err)?;
            return Ok(false);
        }
    };
    let keys = check_key_file(&loaded.config.key_file);
    let few = too_few_files(path, &loaded.config, open_files);
    let (state, told) = match loaded.config.state_path.as_deref().map_or(Ok(None), app::state_file_problem) {
        Ok(told) => (None, told.or_else(|| forgotten_quotas(path, &loaded.config, keys.has_quota))),
        Err(problem) => (Some(problem), None),
    };
    let warnings = [loaded.warnings.as_slice(), &keys.warnings, few.as_slice(), told.as_slice()].concat();
    let problems = [keys.problems.as_slice(), state.as_slice()].concat();
    report(&problems, &warnings, err)?;
    let written = match (print, problems.is_empty()) {
        (true, _) => write!(out, "{}", loaded.to_yaml()),
        (false, true) => writeln!(out, "{}", summary(&loaded.config)),
        (false, false) => Ok(()),
    };
    out::if_read(written.and_then(|()| out.flush()))?;
    Ok(problems.is_empty())
}

/// What to say when quotas are counted and nothing keeps the counts.
fn forgotten_quotas(path: &Path, config: &Config, key_has_quota: bool) -> Option<Problem> {
    let has_quota = key_has_quota || config.default_limits.quota.is_some();
    (has_quota && config.state_path.is_none()).then(|| Problem {
        file: path.to_owned(),
        line: None,
        path: "state.path".into(),
        what: "quotas are counted in memory only: every restart refills them".into(),
        hint: Some("name a file to keep the counts in, such as state.db".into()),
    })
}

/// What to say when all the connections that may be open take more files than the process may have.
pub(super) fn too_few_files(path: &Path, config: &Config, limit: Option<u64>) -> Option<Problem> {
    let hint = "raise the hard limit on open files (LimitNOFILE, ulimit -n), or lower connections.max";
    let what = files::shortage(config.connections.max, limit)?;
    Some(Problem { file: path.to_owned(), line: None, path: "connections.max".into(), what, hint: Some(hint.into()) })
}

/// Reads the key file as the gate would.
fn check_key_file(path: &Path) -> KeyFile {
    let in_file = |problem: &keyring::file::Problem| app::key_file_problem(path, problem);
    match keyring::reload::load(path) {
        Ok(loaded) => KeyFile {
            problems: Vec::new(),
            warnings: loaded.warnings.iter().chain(&common_secrets(path, &loaded.keyring)).map(in_file).collect(),
            has_quota: loaded.keyring.records().any(|record| record.limits().quota.is_some()),
        },
        Err(problems) => KeyFile { problems: problems.iter().map(in_file).collect(), ..KeyFile::default() },
    }
}

/// Entries with the hash of a secret that everybody knows. The known ones are looked up, not the keys, so that it takes as
/// long for a million keys as for one.
fn common_secrets(path: &Path, keyring: &Keyring) -> Vec<keyring::file::Problem> {
    let ids: HashSet<KeyId> =
        common::hashes().filter_map(|hash| keyring.find_by_hash(&hash).map(|record| record.id().clone())).collect();
    if ids.is_empty() {
        return Vec::new();
    }
    // Only lines are looked for here: a file that changed since it was read has none for what is gone.
    let source = keyring::source::read(path).ok();
    let text = source.as_ref().and_then(|source| keyring::file::decode(&source.bytes).ok()).unwrap_or_default();
    let lines = edit::lines_of(text, |id| ids.contains(&KeyId::new(id)));
    let warning = |(line, id): (usize, KeyId)| keyring::file::Problem {
        line: Some(line),
        what: format!("the key of `{id}` is one that everybody knows"),
        hint: Some(format!("whoever tries common secrets gets in; keygate keys rotate {id}")),
    };
    lines.into_iter().map(warning).collect()
}

fn report(problems: &[Problem], warnings: &[Problem], err: &mut dyn Write) -> io::Result<()> {
    for warning in warnings {
        writeln!(err, "warning: {warning}")?;
    }
    for problem in problems {
        writeln!(err, "{problem}")?;
    }
    let counts = [count(problems.len(), "problem"), count(warnings.len(), "warning")];
    let counts: Vec<String> = counts.into_iter().filter(|count| !count.starts_with("0 ")).collect();
    if counts.is_empty() { Ok(()) } else { writeln!(err, "{}", counts.join(", ")) }
}

fn summary(config: &Config) -> String {
    let counts = [
        count(config.listeners.len(), "listener"),
        count(config.routes.len(), "route"),
        count(config.upstreams.len(), "upstream"),
        count(config.credentials.sources.len(), "credential source"),
    ];
    format!("ok: {}", counts.join(", "))
}

fn count(number: usize, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const LEAST: &str = "listen: [{ address: \"127.0.0.1:0\" }]
upstreams: { app: { servers: [\"127.0.0.1:8000\"] } }
routes: [{ path: /, upstream: app, set_headers: { X-Key: hunter2 } }]
";

    /// Whether it is fine, standard output, standard error without the folder's name.
    fn checked(text: &str, keys: Option<&str>, print: bool) -> (bool, String, String) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keygate.yaml");
        fs::write(&path, text).expect("written");
        if let Some(keys) = keys {
            let path = folder.path().join("keys.yaml");
            fs::write(&path, keys).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("changed");
        }
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let fine = check(&path, print, &System, Some(20_000), &mut out, &mut err).expect("written");
        let shown = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).expect("UTF-8");
            text.replace(&format!("{}/", folder.path().display()), "")
        };
        (fine, shown(out), shown(err))
    }

    const KEYS: Option<&str> = Some(
        "version: 1\nkeys:\n  - { id: bob, user: bob, \
         hash: 0a5e09497540ecec350de43aa7cf9721121d5eb4b77de5e9132e570ba796d95c }\n...\n",
    );

    #[test]
    fn a_bad_key_file_is_refused_with_its_lines() {
        let (fine, out, err) = checked(LEAST, Some("version: 1\nkeys:\n  - { id: bob, usr: bob }\n"), false);
        assert!(!fine && out.is_empty());
        assert!(err.contains("keys.yaml:3: ") && err.contains("usr"), "{err}");
    }

    #[test]
    fn a_good_configuration_is_counted() {
        let (fine, out, err) = checked(LEAST, KEYS, false);
        assert!(fine);
        assert_eq!(out, "ok: 1 listener, 1 route, 1 upstream, 2 credential sources\n");
        assert_eq!(err, "");
    }

    #[test]
    fn a_key_that_everybody_knows_is_warned_of() {
        let hash = |key: &str| -> String {
            crate::key::KeyHash::of(key.as_bytes()).as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let rotated = format!("previous: {{ hash: {}, until: 2099-01-01 }}", hash("letmein"));
        let keys = format!(
            "\u{feff}version: 1\nkeys:\n  - id: a\n    user: a\n    hash: {}\n  # b\n  - {{ id: b, user: b, hash: {}, {rotated} }}\n  \
             - id: c\n    user: c\n    hash: {}\n...\n",
            hash("password"),
            hash("a long secret of nobody"),
            hash("admin_dev_key_1_valid"),
        );
        let (fine, out, err) = checked(LEAST, Some(&keys), false);
        assert!(fine && out.starts_with("ok: "), "{err}");
        for (line, id) in [(3, "a"), (7, "b"), (8, "c")] {
            let says = format!("warning: keys.yaml:{line}: the key of `{id}` is one that everybody knows; ");
            assert!(err.contains(&says), "{err}");
        }
        assert!(err.ends_with("3 warnings\n"), "{err}");
        assert!(
            !["password", "letmein", "admin_dev", &hash("password")].iter().any(|secret| err.contains(secret)),
            "{err}"
        );
    }

    #[test]
    fn problems_go_to_standard_error_with_a_count() {
        let (fine, out, err) = checked(&LEAST.replace("path: /", "path: x"), KEYS, true);
        assert!(!fine);
        assert_eq!(out, "");
        assert_eq!(err, "keygate.yaml:3: routes[0].path: `x` is not a path; a path begins with `/`\n1 problem\n");
    }

    #[test]
    fn more_connections_than_files_are_warned_of() {
        let (fine, out, err) = checked(&format!("{LEAST}connections: {{ max: 10001 }}"), KEYS, false);
        assert!(fine && out.starts_with("ok: "));
        let says =
            "connections.max: 10001 connections take up to 20002 open files, and this process may have 20000; raise";
        assert!(err.starts_with("warning: keygate.yaml") && err.contains(says), "{err}");
    }

    #[test]
    fn a_quota_that_nothing_keeps_is_warned_of() {
        let own =
            KEYS.map(|keys| keys.replace("user: bob,", "user: bob, limits: { quota: { requests: 9, per: 1d } },"));
        let default = format!("{LEAST}limits: {{ default: {{ quota: {{ requests: 9, per: 1d }} }} }}\n");
        let kept = "state: { path: state.db }\n";
        let says = "warning: keygate.yaml: state.path: quotas are counted in memory only: every restart refills them; name \
                    a file to keep the counts in, such as state.db\n1 warning\n";
        for (row, config, keys, want) in [
            ("none", LEAST, KEYS, ""),
            ("a key's own", LEAST, own.as_deref(), says),
            ("by default", &default, KEYS, says),
            ("kept", &format!("{default}{kept}"), own.as_deref(), ""),
        ] {
            let (fine, out, err) = checked(config, keys, false);
            assert_eq!((fine, out.starts_with("ok: "), err.as_str()), (true, true, want), "{row}");
        }
    }

    #[test]
    fn a_missing_key_file_is_a_problem() {
        let (fine, out, err) = checked(LEAST, None, false);
        assert!(!fine);
        assert_eq!(out, "");
        assert!(err.starts_with("keys.yaml: ") && err.ends_with("1 problem\n"), "{err}");
    }

    #[test]
    fn the_effective_configuration_hides_secrets_and_loads() {
        let (fine, out, _) = checked(LEAST, KEYS, true);
        assert!(fine && out.contains("response_timeout: 1m\n"), "{out}");
        assert!(!out.contains("hunter2"), "{out}");
        assert!(config::load_str(&out, Path::new("/etc/keygate/keygate.yaml"), &System).is_ok(), "{out}");
    }
}
