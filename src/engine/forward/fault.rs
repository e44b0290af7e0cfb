//! What is behind a server's connection that ended without an answer, for the operator.

use crate::engine::policy::RoutePlan;
use crate::rejection::Rejection;
use crate::upstream::connect::Connection as UpstreamConnection;

/// Tells the operator why TLS with a server ended before its answer. In TLS 1.3 a server that refuses our certificate does so
/// only now, with an alert or without.
pub(super) fn tls(plan: &RoutePlan, connection: &mut UpstreamConnection) -> Option<Rejection> {
    let (upstream, server) = (&*plan.upstream.settings().name, connection.server().clone());
    let server = server.label();
    match connection.stream.tls_fault() {
        Some(error) => {
            tracing::warn!(upstream, server, %error, "an upstream broke off TLS");
            Some(Rejection::BadGateway("upstream_tls"))
        }
        None if connection.stream.is_tls() && !connection.is_reused() => {
            let hint = "does the server want another client certificate?";
            tracing::warn!(upstream, server, hint, "an upstream closed a new TLS connection without an answer");
            None
        }
        None => None,
    }
}
