//! One configuration as the request path uses it: everything a request needs, resolved once. Swapped whole at a reload; a
//! request loads it once and keeps to it.

use std::sync::Arc;

use crate::access_log::CredentialNames;
use crate::credential::Sources;
use crate::credential::challenge::Challenges;
use crate::identity;
use crate::limit::Limits;
use crate::listener::Connections;
use crate::metrics::{RouteMetrics, UpstreamMetrics};
use crate::route::Route;
use crate::route::router::{RouteId, Router};
use crate::upstream::Upstream;

use super::RequestSettings;

/// The configuration in force.
pub(crate) struct Policy {
    pub(crate) router: Router,
    pub(crate) sources: Arc<Sources>,
    pub(crate) challenges: Challenges,
    pub(crate) identity: identity::Policy,
    pub(crate) trusted_proxies: Vec<identity::TrustedProxy>,
    pub(crate) credential_names: CredentialNames,
    pub(crate) default_limits: Limits,
    pub(crate) connections: Connections,
    pub(crate) request: RequestSettings,
    /// In the order of the routes.
    pub(crate) plans: Vec<RoutePlan>,
    /// What is counted for requests without a route.
    pub(crate) unrouted: Arc<RouteMetrics>,
}

/// What belongs to a route, resolved.
pub(crate) struct RoutePlan {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) metrics: Arc<RouteMetrics>,
    pub(crate) upstream_metrics: UpstreamMetrics,
}

impl Policy {
    /// The route and its plan; `None` only for an id of another router, which is a fault.
    pub(crate) fn plan(&self, id: RouteId) -> Option<(&Arc<Route>, &RoutePlan)> {
        Some((self.router.route(id)?, self.plans.get(id.index())?))
    }

    /// What counts requests of this route, or of none.
    pub(crate) fn route_metrics(&self, id: Option<RouteId>) -> &Arc<RouteMetrics> {
        id.and_then(|id| self.plans.get(id.index())).map_or(&self.unrouted, |plan| &plan.metrics)
    }
}
