//! All upstreams of one configuration by name, what a reload carries over, and the tasks that keep them current.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};

use super::health::{self, HealthReport};
use super::resolve::{self, Resolve};
use super::server::Server;
use super::{Problem, ServerAddress, Settings, Upstream};

/// The upstreams of one configuration. A reload makes a new one by [`rebuild`](Self::rebuild).
#[derive(Debug, Default)]
pub struct Upstreams {
    by_name: HashMap<Arc<str>, Arc<Upstream>>,
}

/// The tasks of a configuration in force: names and health. Dropping it ends them and retires its upstreams: pools let
/// go of their connections, while requests under way go on.
#[derive(Debug)]
#[must_use = "dropping it retires the upstreams"]
pub struct Running {
    upstreams: Vec<Arc<Upstream>>,
    tasks: Vec<AbortHandle>,
}

impl Upstreams {
    /// Builds all upstreams, or says everything that is wrong with them. Reads the TLS files.
    pub fn build(settings: Vec<Settings>) -> Result<Self, Vec<Problem>> {
        Self::default().rebuild(settings)
    }

    /// Builds the upstreams of a new configuration. A server whose settings did not change keeps its health, its addresses and
    /// its count of requests; one that stands at the same place under other settings keeps its addresses. TLS files are read
    /// anew, and no idle connection of the old configuration is used again.
    pub fn rebuild(&self, settings: Vec<Settings>) -> Result<Self, Vec<Problem>> {
        let mut next = Self { by_name: HashMap::with_capacity(settings.len()) };
        let mut problems = Vec::new();
        for settings in settings {
            let servers = settings.servers.iter().map(|address| self.server(&settings, address)).collect();
            let name = settings.name.clone();
            match Upstream::new(settings, servers) {
                Ok(upstream) => drop(next.by_name.insert(name, Arc::new(upstream))),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(next) } else { Err(problems) }
    }

    fn server(&self, settings: &Settings, address: &ServerAddress) -> Arc<Server> {
        let old = self.by_name.get(&settings.name);
        let same_place = |upstream: &Arc<Upstream>| upstream.servers.iter().find(|s| s.address() == address).cloned();
        if let Some(server) = old.filter(|old| checked_alike(&old.settings, settings)).and_then(same_place) {
            return server;
        }
        let server = Server::new(address.clone());
        if let Some(known) = self.by_name.values().find_map(same_place) {
            server.set_addresses(known.addresses().to_vec());
        }
        // The gate is serving already: a new check must not make it unready.
        if !self.by_name.is_empty() {
            server.set_checked();
        }
        Arc::new(server)
    }

    /// The upstream of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.by_name.get(name)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.by_name.values()
    }

    /// Whether any server of any upstream may be chosen; one without a health check may.
    pub fn any_healthy(&self) -> bool {
        self.iter().any(|upstream| upstream.servers.iter().any(|server| server.is_healthy()))
    }

    /// Upstream and label of every server whose health is checked.
    pub fn checked_servers(&self) -> impl Iterator<Item = (&str, &str)> {
        let checked = self.iter().filter(|upstream| upstream.settings.health_check.is_some());
        checked.flat_map(|upstream| upstream.servers.iter().map(|server| (&*upstream.settings.name, server.label())))
    }

    /// Whether every health check has had its first round (`/readyz`, decision 23).
    pub fn is_ready(&self) -> bool {
        self.iter().all(|upstream| upstream.is_checked())
    }

    /// Looks up every name that has no address yet, all at once, and waits at most `limit`. To be called before the
    /// configuration is put in force, so that its first requests find addresses.
    pub async fn resolve(&self, resolver: &Arc<dyn Resolve>, limit: Duration) {
        let mut lookups = JoinSet::new();
        for upstream in self.iter() {
            for server in upstream.servers.iter().filter(|s| s.name().is_some() && s.addresses().is_empty()) {
                let (upstream, server, resolver) = (upstream.clone(), server.clone(), resolver.clone());
                lookups.spawn(async move { resolve::refresh(&upstream.settings.name, &server, &*resolver).await });
            }
        }
        let all = async { while lookups.join_next().await.is_some() {} };
        // What is late is tried again by the tasks of `start`.
        tokio::time::timeout(limit, all).await.ok();
    }

    /// Starts the tasks that resolve names and check health, on the runtime this is called in. `report` is told each checked
    /// server's state now and at every change.
    pub fn start(&self, resolver: &Arc<dyn Resolve>, report: &Arc<HealthReport>) -> Running {
        let mut tasks = Vec::new();
        for upstream in self.iter() {
            for server in &upstream.servers {
                if server.name().is_some() {
                    let current = resolve::keep_current(upstream.clone(), server.clone(), resolver.clone());
                    tasks.push(tokio::spawn(current).abort_handle());
                }
                if upstream.settings.health_check.is_some() {
                    let checking = health::keep_checking(upstream.clone(), server.clone(), report.clone());
                    tasks.push(tokio::spawn(checking).abort_handle());
                }
            }
        }
        Running { upstreams: self.iter().cloned().collect(), tasks }
    }
}

/// Whether a health check under `old` says the same as one under `new`.
fn checked_alike(old: &Settings, new: &Settings) -> bool {
    (&old.health_check, &old.tls, old.http2, &old.host) == (&new.health_check, &new.tls, new.http2, &new.host)
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        for upstream in &self.upstreams {
            upstream.retire();
        }
    }
}
