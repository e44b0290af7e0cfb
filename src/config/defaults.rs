//! Every default, in one place. Where the contract shows one, it is that; where a number needs a reason, it stands here.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::access_log::{Level, Target};
use crate::credential::Source;
use crate::upstream::Balance;

pub(super) const TLS_HTTP2: bool = true;
pub(super) const KEY_FILE: &str = "keys.yaml";
pub(super) const REALM: &str = "keygate";

/// What most clients of API keys send: `X-Api-Key`, and `Authorization: Bearer`.
pub(super) fn credentials() -> Vec<Source> {
    vec![
        Source::Header { name: "x-api-key".into() },
        Source::Scheme { name: "authorization".into(), schemes: vec!["Bearer".into()] },
    ]
}

/// Sent when `identity.headers` is not written at all. An upstream that trusts these names is then safe from clients
/// that send them, even where the operator did not think of it.
pub(super) const IDENTITY_USER: &str = "X-Auth-User";
pub(super) const IDENTITY_KEY_ID: &str = "X-Auth-Key-Id";
pub(super) const IDENTITY_ROLES: &str = "X-Auth-Roles";
pub(super) const IDENTITY_SCOPES: &str = "X-Auth-Scopes";

/// 20, written so that it is known not to be zero.
pub(super) const FAILED_ATTEMPTS: NonZeroU32 = NonZeroU32::MIN.saturating_add(19);
pub(super) const FAILED_PER: Duration = Duration::from_secs(60);
/// At about a hundred bytes each, some 6 MiB when an attacker fills the table.
pub(super) const FAILED_MAX_ADDRESSES: usize = 65_536;

pub(super) const CONNECTIONS_MAX: usize = 10_000;
pub(super) const CONNECTIONS_PER_ADDRESS: usize = 1_000;
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);

pub(super) const MAX_HEADER_BYTES: usize = 32 << 10;
pub(super) const MAX_HEADERS: usize = 100;
pub(super) const MAX_URI_BYTES: usize = 8 << 10;
pub(super) const MAX_BODY_BYTES: u64 = 1 << 30;
pub(super) const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
pub(super) const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
pub(super) const BODY_MIN_RATE: u64 = 256;
pub(super) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(75);
/// As long as a body may pause in the other direction.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) const BALANCE: Balance = Balance::RoundRobin;
pub(super) const UPSTREAM_HTTP2: bool = false;
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
pub(super) const UPSTREAM_WRITE_TIMEOUT: Duration = Duration::from_secs(60);
pub(super) const WEBSOCKET_IDLE_TIMEOUT: Duration = Duration::from_secs(3_600);
/// Long enough to be reused under light load; a server that closes earlier costs one retry.
pub(super) const UPSTREAM_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
pub(super) const UNHEALTHY_AFTER: u32 = 3;
pub(super) const HEALTHY_AFTER: u32 = 2;

pub(super) const LOG_LEVEL: Level = Level::Info;
pub(super) const LOG_ACCESS: Target = Target::Stdout;
