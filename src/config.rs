//! The validated configuration: each room's own settings, gathered from one YAML file, with every problem found at once.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::limit::{FailedAuth, Limits};
use crate::route::Route;
use crate::{access_log, credential, engine, identity, listener, upstream};

/// Everything the gate needs to run, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Listeners, at least one.
    pub listeners: Vec<listener::Settings>,
    /// The operators' listener.
    pub admin: Option<listener::ListenAddress>,
    /// Key file.
    pub key_file: PathBuf,
    /// State file; the session secret lies beside it.
    pub state_path: Option<PathBuf>,
    /// Credential sources.
    pub credentials: credential::Settings,
    /// Identity headers.
    pub identity: identity::Settings,
    /// Limits of every key that names none of its own.
    pub default_limits: Limits,
    /// Throttle on bad keys.
    pub failed_auth: Option<FailedAuth>,
    /// Bounds on connections.
    pub connections: listener::Connections,
    /// How long SIGTERM drains.
    pub shutdown_grace: Duration,
    /// Worker threads; `None` is one per core.
    pub threads: Option<NonZeroUsize>,
    /// What is accepted from a client.
    pub request: engine::RequestSettings,
    /// Upstreams, in the order of the file.
    pub upstreams: Vec<upstream::Settings>,
    /// Routes, in the order of the file.
    pub routes: Vec<Route>,
    /// Logging.
    pub log: access_log::Settings,
}
