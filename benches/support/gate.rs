//! A gate to be measured: the real binary, optimised as the bench was built, on ports that the system chose.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

/// A key that is in the key file of every gate here, for user `bench`.
pub const KEY: &str = "key-of-the-benches";

/// A running gate; ended when dropped.
pub struct Gate {
    folder: tempfile::TempDir,
    child: Child,
    /// Addresses of the listeners, in the order of the configuration.
    pub listeners: Vec<String>,
    /// PEM of the certificate that TLS listeners show, for `gate.test`; a configuration names it as `cert.pem`, `key.pem`.
    pub certificate: String,
}

impl Gate {
    /// Starts a gate and waits until it listens. `KEYGATE_BIN` names another binary than the one built along.
    pub fn start(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let made = rcgen::generate_simple_self_signed(["gate.test".to_owned()]).expect("a certificate");
        let certificate = made.cert.pem();
        let hash: String = Sha256::digest(KEY).iter().map(|byte| format!("{byte:02x}")).collect();
        let keys = format!("version: 1\nkeys:\n  - {{ id: bench001, user: bench, hash: {hash} }}\n...\n");
        write_private(&folder.path().join("keygate.yaml"), config);
        write_private(&folder.path().join("keys.yaml"), &keys);
        write_private(&folder.path().join("cert.pem"), &certificate);
        write_private(&folder.path().join("key.pem"), &made.signing_key.serialize_pem());
        let binary = std::env::var_os("KEYGATE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_keygate").into());
        let log = fs::File::create(folder.path().join("log")).expect("a log");
        let child = Command::new(binary)
            .args(["serve", "--config"])
            .arg(folder.path().join("keygate.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let mut gate = Self { folder, child, listeners: Vec::new(), certificate };
        gate.await_ready();
        gate
    }

    fn await_ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let log = self.log();
            let events = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            let events: Vec<_> = events.collect();
            if events.iter().any(|event| event["message"] == "ready") {
                let listening = events.iter().filter(|event| event["message"] == "listening");
                self.listeners = listening.filter_map(|event| Some(event["address"].as_str()?.to_owned())).collect();
                return;
            }
            let ended = self.child.try_wait().expect("waits");
            assert!(ended.is_none() && Instant::now() < deadline, "the gate does not start: {log}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the gate wrote to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_private(path: &Path, text: &str) {
    fs::write(path, text).expect("writes");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("chmod");
}
