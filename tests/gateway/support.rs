//! The harness: a gate (the real binary), an origin that records what reaches it, and a client that speaks raw bytes.

pub mod cases;
pub mod client;
pub mod crowd;
pub mod gateway;
pub mod http2;
pub mod http2_origin;
pub mod origin;
pub mod pki;
pub mod socket;

use std::time::{Duration, Instant};

/// A key whose digest is in [`KEYS`], for user `alice`, roles `client` and `miner`.
pub const ALICE: &str = "alice-example-key-48e8f859";
/// A key whose digest is in [`KEYS`], for user `bob`, without roles.
pub const BOB: &str = "bob-example-key-ba9af604";
/// What must never be seen outside the gate: keys and digests.
pub const SECRETS: [&str; 4] = [
    ALICE,
    BOB,
    "6e87f34a127b2efbebc6b7329b94db222d67d7557b432f466cb70fdf9a51601f",
    "618e09497540ecec350de43aa7cf9721121d5eb4b77de5e9132e570ba796d95c",
];

/// The key file most tests start with.
pub const KEYS: &str = r#"version: 1
keys:
  - id: 48e8f859
    name: amber-falcon
    user: alice
    hash: "sha256:6e87f34a127b2efbebc6b7329b94db222d67d7557b432f466cb70fdf9a51601f"
    roles: [client, miner]
    scopes: ["jobs:write", "read:metadata"]
  - id: ba9af604
    user: bob
    hash: 618e09497540ecec350de43aa7cf9721121d5eb4b77de5e9132e570ba796d95c
...
"#;

/// One entry of a key file; `more` are further lines of it, each indented by four blanks.
pub fn entry(id: &str, user: &str, key: &str, more: &str) -> String {
    use sha2::{Digest, Sha256};
    let hash: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("  - id: {id}\n    user: {user}\n    hash: {hash}\n{more}")
}

/// The usual key file with these entries added.
pub fn keys_with(entries: &[String]) -> String {
    format!("{}{}...\n", KEYS.trim_end_matches("...\n"), entries.concat())
}

/// A configuration with one plain listener, an admin listener and `origin` behind `/`; the usual credential sources.
pub fn config(origin: &origin::Origin) -> String {
    config_with(origin, "  - { path: /, upstream: app }\n", "")
}

/// As [`config`], with routes of its own (all to the upstream `app`) and whatever sections `more` holds.
pub fn config_with(origin: &origin::Origin, routes: &str, more: &str) -> String {
    format!(
        r#"listen: [{{ address: "127.0.0.1:0" }}]
admin: {{ address: "127.0.0.1:0" }}
keys: {{ file: keys.yaml }}
credentials:
  - header: X-Api-Key
  - header: api-key
  - header: Authorization
    schemes: [Bearer, Apikey, Api-Key, Token]
  - {{ query: api_key, browser_login: true }}
  - query: token
  - websocket_protocol: "keygate.key."
  - websocket_protocol: "openai-insecure-api-key."
  - basic: password
  - cookie: keygate_session
upstreams:
  app: {{ servers: ["{}"] }}
routes:
{routes}log: {{ level: info, format: json, access: stdout }}
{more}"#,
        origin.address()
    )
}

/// Polls `probe` until it gives a value; panics with `what` after ten seconds (decision 36).
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within ten seconds: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
