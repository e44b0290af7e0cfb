//! Names of servers to addresses: at the start and every ten seconds, the last good answer kept (decision 23).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Upstream;
use super::server::Server;

/// Looks names up; the tests move names by it.
#[async_trait]
pub trait Resolve: Send + Sync {
    /// Addresses of `host`, best first, each with `port`.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// The system's resolver: hosts file, DNS, whatever it is set to.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }
}

/// Between two look-ups of a name.
pub const RESOLVE_EVERY: Duration = Duration::from_secs(10);

/// Between look-ups of a name that has never had an answer: its server is of no use until then.
pub const RESOLVE_UNKNOWN_EVERY: Duration = Duration::from_secs(1);

/// Looks the server's name up once. A failure keeps the addresses it has; it is logged when it begins and when it ends, not at
/// every look.
pub(super) async fn refresh(upstream: &str, server: &Server, resolver: &dyn Resolve) {
    let Some((host, port)) = server.name() else { return };
    let found = resolver.resolve(host, port).await.and_then(|addresses| {
        if addresses.is_empty() { Err(io::Error::other("the name has no address")) } else { Ok(addresses) }
    });
    let changed = server.note_name(found.is_ok());
    match found {
        Ok(addresses) => {
            if server.set_addresses(addresses) || changed {
                tracing::info!(upstream, server = server.label(), addresses = ?**server.addresses(), "name resolved");
            }
        }
        Err(_) if !changed => {}
        Err(error) => {
            let kept = server.addresses().len();
            tracing::warn!(upstream, server = server.label(), %error, kept, "name not resolved; trying again");
        }
    }
}

/// Keeps the addresses of one server current, for ever. The first look-up is at once unless addresses are known already.
pub(super) async fn keep_current(upstream: Arc<Upstream>, server: Arc<Server>, resolver: Arc<dyn Resolve>) {
    loop {
        let known = !server.addresses().is_empty();
        if known {
            tokio::time::sleep(RESOLVE_EVERY).await;
        }
        refresh(&upstream.settings.name, &server, &*resolver).await;
        if server.addresses().is_empty() {
            tokio::time::sleep(RESOLVE_UNKNOWN_EVERY).await;
        }
    }
}
