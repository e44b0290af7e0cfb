//! The closed list of refusals. Every way in which the gate itself says no is one variant here, and one table gives its
//! status, its machine-readable code, the fixed text the client sees and the label that metrics and log carry.

use std::time::Duration;

/// Why a bad or absent key was refused. The client never learns which: the answer is the same 401 (design rule 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthFailure {
    /// No configured source held anything.
    Missing,
    /// A source held something that cannot be a key (wrong scheme, too long, undecodable).
    Malformed,
    /// The same source twice, or two sources with different values.
    Conflict,
    /// No key file entry has this digest.
    Unknown,
    /// The entry says `disabled: true`.
    Disabled,
    /// The entry's `expires`, or its previous key's grace, has passed.
    Expired,
    /// The client's address is not in the entry's `allow_from`.
    Address,
}

impl AuthFailure {
    /// The label in `keygate_auth_total{outcome}` and the access log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Conflict => "conflict",
            Self::Unknown => "unknown",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
            Self::Address => "address",
        }
    }

    /// Whether it counts towards the per-address throttle: a request without any key is no guess (decision 10).
    pub const fn is_guess(self) -> bool {
        !matches!(self, Self::Missing)
    }
}

/// Which bound a good key, an address or a route ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limited {
    /// Requests per time of the key.
    KeyRate,
    /// Requests per time of the route, per key, or per address on public routes.
    RouteRate,
    /// Requests in flight of the key.
    Concurrent,
    /// Open WebSockets of the key.
    WebSockets,
    /// The key's quota of the current window.
    Quota,
    /// Too many bad keys from this address.
    FailedAuth,
}

impl Limited {
    /// The label in `keygate_rate_limited_total{limit}`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::KeyRate => "key_rate",
            Self::RouteRate => "route_rate",
            Self::Concurrent => "concurrent",
            Self::WebSockets => "websockets",
            Self::Quota => "quota",
            Self::FailedAuth => "failed_auth",
        }
    }
}

/// Everything the gate can answer by itself instead of the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The request cannot be read in one way only, or breaks a rule of HTTP; the label names the rule.
    Malformed(&'static str),
    /// The path is read differently by different upstreams.
    AmbiguousPath,
    /// TRACE, CONNECT or an extended CONNECT.
    MethodNotSupported,
    /// An `Expect` other than `100-continue`.
    ExpectationFailed,
    /// The request head came too slowly.
    HeadTimeout,
    /// The request body came too slowly.
    BodyTimeout,
    /// The target is longer than `max_uri_bytes`.
    UriTooLong,
    /// The head is larger than `max_header_bytes` or has more than `max_headers` fields.
    HeadTooLarge,
    /// The body is larger than `max_body_bytes`.
    BodyTooLarge,
    /// No good key where one is needed.
    Unauthorized(AuthFailure),
    /// A good key that lacks the route's role or scope.
    Forbidden,
    /// A cookie credential on an unsafe method or an upgrade without our own `Origin`, or HTTP Basic with another's.
    ForeignOrigin,
    /// No route for a good key.
    NoRoute,
    /// The route does not take this method.
    MethodNotAllowed,
    /// A bound was met; try again after the time given, rounded up to whole seconds and at least one.
    TooManyRequests(Limited, Duration),
    /// No healthy upstream server.
    NoUpstream,
    /// The upstream refused the connection, broke it, or answered in a way that cannot be read.
    BadGateway(&'static str),
    /// The upstream did not connect or answer in time.
    GatewayTimeout(&'static str),
    /// The gate is going away and takes no new requests on this connection.
    ShuttingDown,
    /// A fault of the gate itself.
    Internal,
}

/// What a client is told: fixed for each refusal, never an echo of what it sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Machine-readable code, `error.code` in the body.
    pub code: &'static str,
    /// One sentence for people.
    pub message: &'static str,
}

impl Rejection {
    /// The one table: refusal to status, code and text.
    pub const fn answer(&self) -> Answer {
        let (status, code, message) = match self {
            Self::Malformed(_) => (400, "malformed_request", "The request is not well-formed HTTP."),
            Self::AmbiguousPath => (400, "ambiguous_path", "The path can be read in more than one way."),
            Self::MethodNotSupported => (405, "method_not_supported", "This method is not supported."),
            Self::ExpectationFailed => (417, "expectation_failed", "Only 100-continue can be expected."),
            Self::HeadTimeout => (408, "request_timeout", "The request head took too long to arrive."),
            Self::BodyTimeout => (408, "request_timeout", "The request body took too long to arrive."),
            Self::UriTooLong => (414, "uri_too_long", "The request target is too long."),
            Self::HeadTooLarge => (431, "headers_too_large", "The request header fields are too large."),
            Self::BodyTooLarge => (413, "body_too_large", "The request body is too large."),
            Self::Unauthorized(_) => (401, "unauthorized", "A valid API key is required."),
            Self::Forbidden => (403, "forbidden", "This key may not use this route."),
            Self::ForeignOrigin => {
                (403, "foreign_origin", "A cookie or a browser's password is only accepted from this site's own pages.")
            }
            Self::NoRoute => (404, "not_found", "There is no such route."),
            Self::MethodNotAllowed => (405, "method_not_allowed", "This route does not take this method."),
            Self::TooManyRequests(Limited::Quota, _) => (429, "quota_exceeded", "The quota of this key is used up."),
            Self::TooManyRequests(Limited::Concurrent, _) => {
                (429, "too_many_concurrent_requests", "Too many requests of this key are in flight.")
            }
            Self::TooManyRequests(Limited::WebSockets, _) => {
                (429, "too_many_websockets", "Too many WebSockets of this key are open.")
            }
            Self::TooManyRequests(Limited::FailedAuth, _) => {
                (429, "too_many_failed_attempts", "Too many failed attempts from this address.")
            }
            Self::TooManyRequests(Limited::KeyRate | Limited::RouteRate, _) => {
                (429, "rate_limited", "Too many requests; slow down.")
            }
            Self::NoUpstream => (503, "no_upstream", "The service behind this gate is not available."),
            Self::BadGateway(_) => (502, "bad_gateway", "The service behind this gate gave no usable answer."),
            Self::GatewayTimeout(_) => (504, "gateway_timeout", "The service behind this gate took too long."),
            Self::ShuttingDown => (503, "shutting_down", "The gate is shutting down."),
            Self::Internal => (500, "internal_error", "The gate failed to handle this request."),
        };
        Answer { status, code, message }
    }

    /// The reason for the log and for metric labels: finer than the answer, from a closed set.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Malformed(reason) | Self::BadGateway(reason) | Self::GatewayTimeout(reason) => reason,
            Self::Unauthorized(failure) => failure.label(),
            Self::TooManyRequests(limited, _) => limited.label(),
            other => other.answer().code,
        }
    }

    /// `Retry-After` in whole seconds, at least one, on those refusals that carry it.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::TooManyRequests(_, wait) => Some((wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)),
            _ => None,
        }
    }

    /// The standard phrase of the status, `title` in the problem document (RFC 9110 section 15).
    pub const fn title(&self) -> &'static str {
        phrase(self.answer().status)
    }
}

/// The standard phrase of a status the gate sends itself; empty for any other.
pub const fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        303 => "See Other",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_pinned() {
        let wait = Duration::from_millis(1200);
        let rows: &[(Rejection, u16, &str)] = &[
            (Rejection::Malformed("cl_te"), 400, "cl_te"),
            (Rejection::AmbiguousPath, 400, "ambiguous_path"),
            (Rejection::MethodNotSupported, 405, "method_not_supported"),
            (Rejection::ExpectationFailed, 417, "expectation_failed"),
            (Rejection::HeadTimeout, 408, "request_timeout"),
            (Rejection::BodyTimeout, 408, "request_timeout"),
            (Rejection::UriTooLong, 414, "uri_too_long"),
            (Rejection::HeadTooLarge, 431, "headers_too_large"),
            (Rejection::BodyTooLarge, 413, "body_too_large"),
            (Rejection::Unauthorized(AuthFailure::Missing), 401, "missing"),
            (Rejection::Unauthorized(AuthFailure::Malformed), 401, "malformed"),
            (Rejection::Unauthorized(AuthFailure::Conflict), 401, "conflict"),
            (Rejection::Unauthorized(AuthFailure::Unknown), 401, "unknown"),
            (Rejection::Unauthorized(AuthFailure::Disabled), 401, "disabled"),
            (Rejection::Unauthorized(AuthFailure::Expired), 401, "expired"),
            (Rejection::Unauthorized(AuthFailure::Address), 401, "address"),
            (Rejection::Forbidden, 403, "forbidden"),
            (Rejection::ForeignOrigin, 403, "foreign_origin"),
            (Rejection::NoRoute, 404, "not_found"),
            (Rejection::MethodNotAllowed, 405, "method_not_allowed"),
            (Rejection::TooManyRequests(Limited::KeyRate, wait), 429, "key_rate"),
            (Rejection::TooManyRequests(Limited::RouteRate, wait), 429, "route_rate"),
            (Rejection::TooManyRequests(Limited::Concurrent, wait), 429, "concurrent"),
            (Rejection::TooManyRequests(Limited::WebSockets, wait), 429, "websockets"),
            (Rejection::TooManyRequests(Limited::Quota, wait), 429, "quota"),
            (Rejection::TooManyRequests(Limited::FailedAuth, wait), 429, "failed_auth"),
            (Rejection::NoUpstream, 503, "no_upstream"),
            (Rejection::BadGateway("upstream_reset"), 502, "upstream_reset"),
            (Rejection::GatewayTimeout("connect"), 504, "connect"),
            (Rejection::ShuttingDown, 503, "shutting_down"),
            (Rejection::Internal, 500, "internal_error"),
        ];
        for (rejection, status, label) in rows {
            assert_eq!((rejection.answer().status, rejection.label()), (*status, *label), "{rejection:?}");
            assert!(!rejection.title().is_empty(), "{rejection:?}");
        }
    }

    #[test]
    fn every_bad_key_gets_one_answer() {
        use AuthFailure as F;
        let first = Rejection::Unauthorized(F::Missing).answer();
        for failure in [F::Malformed, F::Conflict, F::Unknown, F::Disabled, F::Expired, F::Address] {
            assert_eq!(Rejection::Unauthorized(failure).answer(), first);
        }
    }

    #[test]
    fn retry_after_rounds_up_and_is_never_zero() {
        for (millis, want) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (59_500, 60)] {
            let rejection = Rejection::TooManyRequests(Limited::KeyRate, Duration::from_millis(millis));
            assert_eq!(rejection.retry_after(), Some(want), "{millis} ms");
        }
        assert_eq!(Rejection::Forbidden.retry_after(), None);
    }
}
