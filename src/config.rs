//! The validated configuration: each room's own settings, gathered from one YAML file, with every problem found at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::limit::{FailedAuth, Limits};
use crate::route::Route;
use crate::yaml::{self, Node};
use crate::{access_log, credential, engine, identity as identity_room, listener, upstream};

use decode::{Decoder, Found, Section};
pub use environment::{Environment, System};
pub use problem::Problem;

mod address;
mod certificate;
mod credentials;
mod crosscheck;
mod decode;
mod defaults;
mod environment;
mod foreign;
mod headers;
mod identity;
mod limits;
mod listen;
mod log;
mod name;
mod place;
mod print;
mod problem;
mod quantity;
mod request;
mod routes;
mod upstreams;

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
    pub identity: identity_room::Settings,
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

impl Config {
    /// The settings that differ in `new` and that only a restart can change (decision 26).
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let changed = [
            ("threads", self.threads != new.threads),
            ("state.path", self.state_path != new.state_path),
            ("admin.address", self.admin != new.admin),
        ];
        changed.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
    }
}

/// A configuration that may be used, and what to say about it.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// What is legal and probably not meant, in the order of the file.
    pub warnings: Vec<Problem>,
    /// Every setting that was looked for, as in `routes[].limits.per` and `upstreams.*.servers`: for the full example
    /// all there are.
    pub settings: BTreeSet<String>,
    references: BTreeMap<String, String>,
}

impl Loaded {
    /// The effective configuration as YAML: every setting with its value, values of `set_headers` as `***`, and values
    /// that came from `${…}` as they were written.
    pub fn to_yaml(&self) -> String {
        print::print(&self.config, &self.references)
    }
}

/// Reads and checks the configuration at `path`.
///
/// # Errors
///
/// Everything that is wrong with it, in the order of the file.
pub fn load(path: &Path, environment: &dyn Environment) -> Result<Loaded, Vec<Problem>> {
    let refused = |what: String, hint: Option<&str>| {
        vec![Problem { file: path.to_owned(), line: None, path: String::new(), what, hint: hint.map(str::to_owned) }]
    };
    let bytes = environment.read(path).map_err(|e| {
        let hint =
            (e.kind() == io::ErrorKind::NotFound).then_some("`--config FILE` names another, `keygate demo` needs none");
        refused(format!("cannot be read ({})", environment::why(&e)), hint)
    })?;
    let text = String::from_utf8(bytes).map_err(|_error| refused("is not UTF-8".to_owned(), None))?;
    load_str(&text, path, environment)
}

/// As [`load`], for `text` that stands at `path`; relative paths are relative to the folder of `path`.
///
/// # Errors
///
/// Everything that is wrong with it, in the order of the file.
pub fn load_str(text: &str, path: &Path, environment: &dyn Environment) -> Result<Loaded, Vec<Problem>> {
    let root = yaml::parse(text).map_err(|e| {
        let file = path.to_owned();
        vec![Problem { file, line: Some(e.position.line), path: String::new(), what: e.message, hint: None }]
    })?;
    let absolute = std::path::absolute(path).unwrap_or_else(|_error| path.to_owned());
    let directory = absolute.parent().unwrap_or(Path::new("/"));
    let decoder = Decoder::new(path, directory, environment);
    let config = decode(&decoder, &root).filter(|_| decoder.is_clean());
    let Found { problems, warnings, references, asked } = decoder.finish();
    config.map(|config| Loaded { config, warnings, settings: asked, references }).ok_or(problems)
}

/// The files that a configuration names and that the key commands need.
#[derive(Debug)]
pub struct Files {
    /// Key file.
    pub key_file: PathBuf,
    /// State file, if there is one.
    pub state: Option<PathBuf>,
}

/// Reads only where the keys and the state are, whatever else is wrong with the configuration at `path`: what the gate
/// needs to run, such as a variable or a certificate, may be out of an operator's reach.
///
/// # Errors
///
/// The first thing that is wrong with these two settings, or with the file as YAML.
pub fn files(path: &Path, environment: &dyn Environment) -> Result<Files, Problem> {
    let problem = |line, what: String| Problem { file: path.to_owned(), line, path: String::new(), what, hint: None };
    let bytes =
        environment.read(path).map_err(|e| problem(None, format!("cannot be read ({})", environment::why(&e))))?;
    let text = String::from_utf8(bytes).map_err(|_error| problem(None, "is not UTF-8".to_owned()))?;
    let root = yaml::parse(&text).map_err(|e| problem(Some(e.position.line), e.message))?;
    let absolute = std::path::absolute(path).unwrap_or_else(|_error| path.to_owned());
    let decoder = Decoder::new(path, absolute.parent().unwrap_or(Path::new("/")), environment);
    let mut top = decoder.root(&root).section().ok_or_else(|| problem(Some(1), "is not a mapping".to_owned()))?;
    let key_file = key_file(&mut top);
    let state = state_path(&mut top, &key_file);
    let files = Files { key_file, state };
    decoder.finish().problems.into_iter().next().map_or(Ok(files), Err)
}

fn decode(decoder: &Decoder<'_>, root: &Node) -> Option<Config> {
    let mut top = decoder.root(root).section()?;
    let listeners = listen::listeners(&mut top);
    let admin = listen::admin(&mut top);
    listen::check(&listeners, admin.as_ref(), &top);
    let credentials = credentials::decode(&mut top);
    let (identity, identity_names) = identity::decode(&mut top);
    let (default_limits, failed_auth) = limits::decode(&mut top);
    let upstreams = upstreams::decode(&mut top);
    let routes = routes::decode(&mut top, &credentials);
    crosscheck::upstreams(decoder, &routes.upstreams, &upstreams.names);
    crosscheck::routes(decoder, &routes.drafts);
    headers::check(decoder, &identity_names, &credentials.headers, &routes.set_headers);
    let key_file = key_file(&mut top);
    let state_path = state_path(&mut top, &key_file);
    let config = Config {
        listeners: listeners.into_iter().map(|listener| listener.value).collect(),
        admin: admin.map(|admin| admin.value),
        key_file,
        state_path,
        credentials: credentials.settings,
        identity,
        default_limits,
        failed_auth,
        connections: request::connections(&mut top),
        shutdown_grace: request::shutdown_grace(&mut top),
        threads: top.or("threads", None, quantity::threads),
        request: request::decode(&mut top),
        upstreams: upstreams.settings,
        routes: routes.drafts.into_iter().map(|draft| draft.route).collect(),
        log: log::decode(&mut top),
    };
    top.finish();
    Some(config)
}

fn key_file(top: &mut Section<'_>) -> PathBuf {
    let decoder = top.decoder;
    let default = decoder.resolve(defaults::KEY_FILE);
    let Some(mut section) = top.section("keys") else { return default };
    let file = section.get("file").and_then(certificate::file);
    section.finish();
    file.map_or(default, |file| file.value)
}

/// The state file is written and, where it is damaged, put aside: it must be no file of another use.
fn state_path(top: &mut Section<'_>, key_file: &Path) -> Option<PathBuf> {
    let mut section = top.section("state")?;
    let path = section.required("path", "name a file, or leave `state` out").and_then(certificate::file);
    if let Some(path) = path.as_ref().filter(|path| path.value == key_file) {
        top.decoder.problem(&path.place, "is the key file", Some("the state has a file of its own, such as state.db"));
    }
    section.finish();
    path.map(|path| path.value)
}

#[cfg(test)]
mod tests;
