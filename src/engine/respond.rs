//! The gate's own answers: the one place where a refusal becomes status, fields and body. What the client is told is fixed
//! for each refusal; nothing it sent is echoed but its request id and, for CORS, its origin.

use serde::Serialize;

use crate::http1::head::{Field, Fields, list_items};
use crate::limit::fields::policy_name;
use crate::rejection::Rejection;

/// How the caller wants to be refused; read from its request once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Style {
    /// `Accept` names `application/problem+json`.
    pub(crate) problem: bool,
    /// It is a gRPC call: the answer is a gRPC status.
    pub(crate) grpc: bool,
    /// Its `Origin`, where the route lets pages of other origins read refusals.
    pub(crate) cors_origin: Option<Box<[u8]>>,
}

impl Style {
    /// Reads the style from request fields. `cors` is whether the route speaks CORS.
    pub(crate) fn of(fields: Fields<'_>, cors: bool) -> Self {
        let mut style = Self::default();
        for field in fields.iter() {
            if field.is("accept") {
                style.problem |= list_items(field.value)
                    .any(|item| item.to_ascii_lowercase().starts_with(b"application/problem+json"));
            } else if field.is("content-type") {
                style.grpc |= is_grpc(field.value);
            } else if cors && field.is("origin") && style.cors_origin.is_none() {
                style.cors_origin = Some(Box::from(field.value));
            }
        }
        style
    }
}

/// Whether a content type is gRPC's (`application/grpc`, `application/grpc+proto`…), but not gRPC-Web's.
pub(crate) fn is_grpc(content_type: &[u8]) -> bool {
    let lower = content_type.to_ascii_lowercase();
    lower.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// An answer of the gate itself, ready for either protocol.
#[derive(Debug, Default)]
pub(crate) struct OwnAnswer {
    /// Status.
    pub(crate) status: u16,
    /// Fields, without framing.
    fields: Vec<(&'static str, Vec<u8>)>,
    /// Body.
    pub(crate) body: Vec<u8>,
}

impl OwnAnswer {
    /// An answer without body.
    pub(crate) fn new(status: u16) -> Self {
        Self { status, fields: Vec::new(), body: Vec::new() }
    }

    /// The answer to a refusal.
    pub(crate) fn refusal(rejection: &Rejection, request_id: &str, style: &Style) -> Self {
        let answer = rejection.answer();
        let mut own = if style.grpc { grpc_status(rejection) } else { problem(rejection, request_id, style.problem) };
        own.push("X-Request-Id", request_id.as_bytes());
        if let Some(seconds) = rejection.retry_after() {
            own.push("Retry-After", seconds.to_string().as_bytes());
        }
        if let Some(origin) = &style.cors_origin {
            own.push("Access-Control-Allow-Origin", origin);
            own.push("Access-Control-Allow-Credentials", b"true");
            own.push("Access-Control-Expose-Headers", EXPOSED.as_bytes());
            own.push("Vary", b"Origin");
        }
        if matches!(answer.status, 401 | 403 | 429) {
            own.push("Cache-Control", b"no-store");
        }
        own
    }

    /// Adds a field. The value must be a legal field value.
    pub(crate) fn push(&mut self, name: &'static str, value: &[u8]) {
        self.fields.push((name, value.to_vec()));
    }

    /// The fields.
    pub(crate) fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        self.fields.iter().map(|(name, value)| Field { name: name.as_bytes(), value })
    }
}

/// What a page may read of a refusal (Fetch standard, CORS-exposed header names).
const EXPOSED: &str = "Retry-After, RateLimit, RateLimit-Policy, WWW-Authenticate, X-Request-Id";

#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    request_id: &'a str,
    #[serde(rename = "violated-policies", skip_serializing_if = "Option::is_none")]
    violated_policies: Option<[&'a str; 1]>,
    message: &'a str,
    error: ErrorMember<'a>,
}

#[derive(Serialize)]
struct ErrorMember<'a> {
    message: &'a str,
    r#type: &'a str,
    code: &'a str,
}

/// An RFC 9457 problem with the members that common SDKs look for.
fn problem(rejection: &Rejection, request_id: &str, as_problem: bool) -> OwnAnswer {
    let answer = rejection.answer();
    let policy = violated_policy(rejection);
    let document = Problem {
        r#type: if policy.is_some() { QUOTA_EXCEEDED } else { "about:blank" },
        title: rejection.title(),
        status: answer.status,
        detail: answer.message,
        request_id,
        violated_policies: policy.map(|name| [name]),
        message: answer.message,
        error: ErrorMember { message: answer.message, r#type: error_type(answer.status), code: answer.code },
    };
    let mut own = OwnAnswer::new(answer.status);
    own.body = serde_json::to_vec(&document).unwrap_or_default();
    own.push("Content-Type", if as_problem { b"application/problem+json" } else { b"application/json" });
    own
}

/// The problem type that the rate-limit fields' draft registers (draft-ietf-httpapi-ratelimit-headers).
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

fn violated_policy(rejection: &Rejection) -> Option<&'static str> {
    match rejection {
        Rejection::TooManyRequests(limited, _) => policy_name(*limited),
        _ => None,
    }
}

const fn error_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        _ => "api_error",
    }
}

/// A gRPC "Trailers-Only" response: HTTP 200 with the status in the head (gRPC over HTTP/2, "Responses").
fn grpc_status(rejection: &Rejection) -> OwnAnswer {
    let answer = rejection.answer();
    let code: u8 = match answer.status {
        400 => 3,
        401 => 16,
        403 => 7,
        404 | 405 => 12,
        408 | 504 => 4,
        413 | 429 | 431 => 8,
        503 | 502 => 14,
        _ => 13,
    };
    let mut own = OwnAnswer::new(200);
    own.push("Content-Type", b"application/grpc");
    own.push("grpc-status", code.to_string().as_bytes());
    own.push("grpc-message", answer.message.as_bytes());
    own
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rejection::Limited;
    use std::time::Duration;

    fn field<'a>(own: &'a OwnAnswer, name: &str) -> Option<&'a str> {
        own.fields
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| std::str::from_utf8(v).expect("ascii"))
    }

    #[test]
    fn a_problem_carries_what_sdks_look_for() {
        let rejection = Rejection::TooManyRequests(Limited::KeyRate, Duration::from_millis(1500));
        let own = OwnAnswer::refusal(&rejection, "req-1", &Style::default());
        let body: serde_json::Value = serde_json::from_slice(&own.body).expect("json");
        assert_eq!(
            (own.status, field(&own, "retry-after"), field(&own, "content-type")),
            (429, Some("2"), Some("application/json"))
        );
        assert_eq!(body["error"]["code"], "rate_limited");
        assert_eq!(body["request_id"], "req-1");
        assert_eq!(body["violated-policies"][0], "key");
        assert_eq!(body["type"], QUOTA_EXCEEDED);
        assert_eq!(body["message"], body["detail"]);
    }

    #[test]
    fn grpc_callers_get_a_grpc_status() {
        let style = Style { grpc: true, ..Style::default() };
        let own = OwnAnswer::refusal(&Rejection::Unauthorized(crate::rejection::AuthFailure::Missing), "r", &style);
        assert_eq!((own.status, field(&own, "grpc-status"), own.body.len()), (200, Some("16"), 0));
        for (value, want) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(value.as_bytes()), want, "{value}");
        }
    }

    #[test]
    fn cors_callers_may_read_the_refusal() {
        let style = Style { cors_origin: Some(Box::from(&b"https://app.example"[..])), ..Style::default() };
        let own = OwnAnswer::refusal(&Rejection::Forbidden, "r", &style);
        assert_eq!(field(&own, "access-control-allow-origin"), Some("https://app.example"));
        assert_eq!(field(&own, "vary"), Some("Origin"));
    }
}
