//! Why a connection or a stream ends, in the words of the metric and the log.

use super::relay::{EndReason, RelayError};
use crate::metrics::ClosedReason;
use crate::rejection::Rejection;

/// The word for an answer or a tunnel that a panic cut short.
pub(crate) const FAULT: &str = "fault";

/// Why a connection ends with this refusal.
pub(crate) fn closed_by(rejection: &Rejection) -> ClosedReason {
    match rejection {
        Rejection::Malformed(_) | Rejection::AmbiguousPath => ClosedReason::Malformed,
        Rejection::HeadTimeout => ClosedReason::HeadTimeout,
        Rejection::BodyTimeout => ClosedReason::BodyTimeout,
        Rejection::Internal => ClosedReason::Fault,
        _ => ClosedReason::Answered,
    }
}

/// Why a connection ends when the right to it does.
pub(crate) fn ended(reason: EndReason) -> ClosedReason {
    match reason {
        EndReason::KeyRevoked | EndReason::KeyExpired => ClosedReason::KeyEnded,
        EndReason::RouteChanged => ClosedReason::RouteEnded,
        EndReason::Shutdown => ClosedReason::Shutdown,
    }
}

/// Why a connection ends in the middle of an answer, for metric and log.
pub(crate) fn broken(error: &RelayError) -> (ClosedReason, &'static str) {
    match error {
        RelayError::ClientGone => (ClosedReason::Client, "client_gone"),
        RelayError::ClientMalformed(rule) => (ClosedReason::Malformed, rule),
        RelayError::ClientSlow => (ClosedReason::BodyTimeout, "client_slow"),
        RelayError::ClientStalled => (ClosedReason::WriteTimeout, "client_stalled"),
        RelayError::BodyTooLarge => (ClosedReason::Answered, "body_too_large"),
        RelayError::UpstreamGone => (ClosedReason::Upstream, "upstream_gone"),
        RelayError::UpstreamMalformed(rule) => (ClosedReason::Upstream, rule),
        RelayError::UpstreamSlow => (ClosedReason::Upstream, "upstream_slow"),
        RelayError::UpstreamStalled => (ClosedReason::Upstream, "upstream_stalled"),
        RelayError::Ended(reason) => (ended(*reason), reason.label()),
    }
}
