//! From settings to the policy that requests go by.

use std::sync::Arc;

use crate::access_log::CredentialNames;
use crate::config::Config;
use crate::credential::Sources;
use crate::credential::challenge::Challenges;
use crate::engine::policy::{Policy, RoutePlan};
use crate::identity;
use crate::metrics::{Metrics, NO_ROUTE};
use crate::route::router::Router;
use crate::upstream::registry::Upstreams;

/// Resolves a configuration; errors are lines for the operator.
pub(super) fn policy(config: &Config, upstreams: &Upstreams, metrics: &Metrics) -> Result<Policy, Vec<String>> {
    let router = Router::new(config.routes.clone()).map_err(|problems| {
        problems.iter().map(|(index, problem)| format!("routes[{index}]: {problem}")).collect::<Vec<_>>()
    })?;
    let mut plans = Vec::with_capacity(config.routes.len());
    for route in &config.routes {
        let upstream =
            upstreams.get(&route.upstream).ok_or_else(|| vec![format!("no upstream `{}`", route.upstream)])?;
        plans.push(RoutePlan {
            upstream: upstream.clone(),
            metrics: metrics.route(&route.name),
            upstream_metrics: metrics.upstream(&route.upstream),
        });
    }
    let sources = Arc::new(Sources::new(&config.credentials));
    Ok(Policy {
        router,
        identity: identity::Policy::new(&config.identity, sources.clone()),
        sources,
        challenges: Challenges::new(&config.credentials),
        trusted_proxies: config.identity.trusted_proxies.clone(),
        credential_names: CredentialNames::of(&config.credentials),
        default_limits: config.default_limits,
        connections: config.connections,
        request: config.request,
        plans,
        unrouted: metrics.route(NO_ROUTE),
    })
}
