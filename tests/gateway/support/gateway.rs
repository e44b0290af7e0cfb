//! The gate as a process: the real binary on ports that the system chose, in a folder of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use super::{KEYS, SECRETS, eventually};

/// A running gate; killed when dropped, after which its output is searched for secrets.
pub struct Gateway {
    /// Its folder, with `keygate.yaml` and `keys.yaml`.
    pub dir: tempfile::TempDir,
    child: Child,
    log: Arc<Mutex<String>>,
    access: Arc<Mutex<String>>,
    listeners: Vec<String>,
    admin: String,
}

impl Gateway {
    /// Starts a gate with `config` (addresses with port 0) and the usual keys; waits until it listens.
    pub fn start(config: &str) -> Self {
        Self::start_with(config, KEYS, &[])
    }

    /// Starts a gate with a key file and environment of its own.
    pub fn start_with(config: &str, keys: &str, env: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        Self::start_in(dir, config, keys, env)
    }

    /// Starts a gate in a folder prepared by the test.
    pub fn start_in(dir: tempfile::TempDir, config: &str, keys: &str, env: &[(&str, &str)]) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_keygate")), dir, config, keys, env)
    }

    /// As [`Self::start_in`], as a user who may not do everything: `nobody` where the tests run as root, to whom all that is
    /// in the folder by now is given.
    pub fn start_unprivileged(dir: tempfile::TempDir, config: &str, keys: &str) -> Self {
        if !is_root() {
            return Self::start_in(dir, config, keys, &[]);
        }
        write_private(&dir.path().join("keys.yaml"), keys);
        let command = unprivileged(dir.path());
        Self::spawn(command, dir, config, keys, &[])
    }

    fn spawn(mut command: Command, dir: tempfile::TempDir, config: &str, keys: &str, env: &[(&str, &str)]) -> Self {
        fs::write(dir.path().join("keygate.yaml"), config).expect("writes");
        write_private(&dir.path().join("keys.yaml"), keys);
        let mut child = command
            .args(["serve", "--config"])
            .arg(dir.path().join("keygate.yaml"))
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = collect(child.stderr.take().expect("piped"));
        let access = collect(child.stdout.take().expect("piped"));
        let mut gateway = Self { dir, child, log, access, listeners: Vec::new(), admin: String::new() };
        eventually("the gate listens", || {
            assert!(gateway.child.try_wait().expect("waits").is_none(), "the gate ended: {}", gateway.log());
            gateway.ready().then_some(())
        });
        gateway
    }

    fn ready(&mut self) -> bool {
        let events = self.events();
        let addresses = |message: &str| -> Vec<String> {
            let of = events.iter().filter(|event| event["message"] == message);
            of.filter_map(|event| event["address"].as_str().map(str::to_owned)).collect()
        };
        self.listeners = addresses("listening");
        self.admin = addresses("admin listening").pop().unwrap_or_default();
        events.iter().any(|event| event["message"] == "ready")
    }

    /// Address of the listener at `index` of the configuration.
    pub fn address(&self, index: usize) -> &str {
        &self.listeners[index]
    }

    /// Address of the admin listener.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything the gate wrote to its log.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The log's events.
    pub fn events(&self) -> Vec<serde_json::Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Access lines so far.
    pub fn access(&self) -> Vec<serde_json::Value> {
        let text = self.access.lock().unwrap().clone();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line:?} is not JSON: {e}")))
            .collect()
    }

    /// The access line of the request with this id.
    pub fn access_line(&self, request_id: &str) -> serde_json::Value {
        eventually("an access line", || self.access().into_iter().find(|line| line["request_id"] == request_id))
    }

    /// A path in the gate's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Replaces the key file by rename, as careful writers do.
    pub fn replace_keys(&self, keys: &str) {
        let next = self.path("keys.yaml.next");
        write_private(&next, keys);
        fs::rename(next, self.path("keys.yaml")).expect("renames");
    }

    /// The metrics page.
    pub fn metrics(&self) -> String {
        let response = super::client::get(self.admin(), "/metrics", &[]);
        assert_eq!(response.status, 200);
        String::from_utf8(response.body).expect("text")
    }

    /// The value of one metric, by its line's name and labels as they stand on the page; 0 when it is not there.
    pub fn metric(&self, series: &str) -> f64 {
        let page = self.metrics();
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')).map(str::to_owned);
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Writes a configuration and sends SIGHUP; waits for the gate's verdict: whether it is in force.
    pub fn reload(&self, config: &str) -> bool {
        fs::write(self.path("keygate.yaml"), config).expect("writes");
        let count = |result| self.metric(&format!(r#"keygate_config_reloads_total{{result="{result}"}}"#));
        let before = (count("success"), count("failure"));
        self.signal("HUP");
        eventually("a verdict on the configuration", || {
            if count("success") > before.0 {
                return Some(true);
            }
            (count("failure") > before.1).then_some(false)
        })
    }

    /// Waits until a metric has this value: what became of a request is counted when it is over, a moment after its answer.
    pub fn expect_metric(&self, series: &str, want: f64) {
        eventually(&format!("{series} {want}"), || (self.metric(series) == want).then_some(()));
    }

    /// Sends a signal by name, such as `HUP`.
    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status().expect("kill runs");
        assert!(status.success());
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        eventually("the gate ends", || self.child.try_wait().expect("waits"))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- log of the gate\n{}--- access\n{}", self.log(), self.access.lock().unwrap());
            return;
        }
        for secret in SECRETS {
            assert!(!self.log().contains(secret), "the log shows {secret}");
            assert!(!self.access.lock().unwrap().contains(secret), "the access log shows {secret}");
        }
        assert!(!self.log().contains("panicked"), "the gate panicked: {}", self.log());
    }
}

/// Runs the binary in `folder` to its end: exit status, standard output, standard error.
pub fn run(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    run_with_input(folder, arguments, "")
}

/// As [`run`], with this on standard input.
pub fn run_with_input(folder: &Path, arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut stdin = tempfile::tempfile().expect("a file");
    stdin.write_all(input.as_bytes()).and_then(|()| stdin.rewind()).expect("written");
    let binary = env!("CARGO_BIN_EXE_keygate");
    let output = Command::new(binary).args(arguments).current_dir(folder).stdin(stdin).output().expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("no signal ended it"), text(output.stdout), text(output.stderr))
}

/// The user and group `nobody`.
const NOBODY: u32 = 65534;

/// Whether these tests run as root, from whom no mode keeps a file.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").expect("there").uid() == 0
}

/// The binary, to be run by a user who may not do everything: `nobody` where the tests run as root, to whom all that is in
/// `folder` by now is given.
pub fn unprivileged(folder: &Path) -> Command {
    if !is_root() {
        return Command::new(env!("CARGO_BIN_EXE_keygate"));
    }
    // The binary may lie where nobody else may look.
    let binary = folder.join("keygate");
    let built = env!("CARGO_BIN_EXE_keygate");
    fs::hard_link(built, &binary).or_else(|_| fs::copy(built, &binary).map(|_| ())).expect("a copy");
    give_away(folder);
    let mut command = Command::new(binary);
    command.uid(NOBODY).gid(NOBODY);
    command
}

/// Gives a folder and all that is in it to `nobody`.
fn give_away(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).expect("chown");
    for entry in fs::read_dir(path).into_iter().flatten() {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("told").is_dir() {
            give_away(&entry.path());
        } else if entry.file_name() != "keygate" {
            chown(entry.path(), Some(NOBODY), Some(NOBODY)).expect("chown");
        }
    }
}

/// Writes a file that only its owner can read.
pub fn write_private(path: &Path, text: &str) {
    fs::write(path, text).expect("writes");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("chmod");
}

fn collect(stream: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let sink = text.clone();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { return };
            let mut sink = sink.lock().unwrap();
            sink.push_str(&line);
            sink.push('\n');
        }
    });
    text
}
