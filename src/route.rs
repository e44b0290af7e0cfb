//! Routes: which upstream a host and path belong to, and who may go there. A path is matched under every reading that an
//! upstream might take; readings that disagree are refused (design rule 2, decisions 1-4).

mod host;
mod path;
pub mod router;
#[cfg(test)]
mod tests;
mod tree;

use std::sync::Arc;

use crate::limit::Rate;
use crate::rejection::Rejection;

/// One route as configured.
#[derive(Clone, Debug)]
pub struct Route {
    /// Label in metrics and log: `name`, or host and path as written.
    pub name: Arc<str>,
    /// The host it is for; `None` is any.
    pub host: Option<HostPattern>,
    /// The paths it owns.
    pub path: PathPattern,
    /// Methods it takes; `None` is all.
    pub methods: Option<Vec<Box<str>>>,
    /// Whether a key is needed.
    pub access: Access,
    /// The key must hold one of these; empty asks for none.
    pub roles: Vec<Box<str>>,
    /// The key must hold all of these.
    pub scopes: Vec<Box<str>>,
    /// Whether CORS preflights pass without a key, and refusals carry CORS headers.
    pub cors_preflight: bool,
    /// One more bucket per key and route (per address on public routes).
    pub limits: Option<Rate>,
    /// The credential sources it accepts, as indices into `credential::Settings::sources`; `None` is all.
    pub credentials: Option<Vec<usize>>,
    /// Name of the upstream.
    pub upstream: Arc<str>,
    /// Headers set on what goes upstream; values may be the upstream's own secrets.
    pub set_headers: Vec<(Box<str>, HeaderSecret)>,
    /// Prefix cut from the path before it is sent on; empty cuts nothing.
    pub strip_prefix: Box<str>,
}

impl Route {
    /// Whether the route names `method` itself. Methods are compared as sent: they are case-sensitive (RFC 9110
    /// section 9.1).
    fn lists(&self, method: &[u8]) -> bool {
        self.methods.iter().flatten().any(|listed| listed.as_bytes() == method)
    }

    /// The path to send upstream for a request whose raw path is `path`: the bytes as sent, less `strip_prefix`.
    ///
    /// The cut is at a segment boundary, so `/api` and `/api/` both cut `/api` from `/api/x`, and nothing from `/apix`.
    /// What is left is never empty. Errors with [`Rejection::AmbiguousPath`] when the raw bytes do not begin with the
    /// prefix: better refused than forwarded unstripped.
    pub fn forward_path<'p>(&self, path: &'p [u8]) -> Result<&'p [u8], Rejection> {
        let rest = path.strip_prefix(self.cut()).ok_or(Rejection::AmbiguousPath)?;
        match rest.first() {
            None => Ok(b"/"),
            Some(b'/') => Ok(rest),
            Some(_) => Err(Rejection::AmbiguousPath),
        }
    }

    /// The prefix to cut, without its closing slash.
    fn cut(&self) -> &[u8] {
        self.strip_prefix.trim_end_matches('/').as_bytes()
    }
}

/// Whether a request is a CORS preflight (Fetch standard, section 3.3.2): `OPTIONS` with both `Origin` and
/// `Access-Control-Request-Method`. A bare `OPTIONS` is a request like any other.
pub fn is_preflight(method: &[u8], has_origin: bool, has_request_method: bool) -> bool {
    method == b"OPTIONS" && has_origin && has_request_method
}

/// A header value that may be a secret: shown by nobody.
#[derive(Clone)]
pub struct HeaderSecret(Arc<[u8]>);

impl HeaderSecret {
    /// Wraps a value already checked to be a legal field value.
    pub fn new(value: &[u8]) -> Self {
        Self(Arc::from(value))
    }

    /// The value, for writing it upstream.
    pub fn expose_secret(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for HeaderSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HeaderSecret(..)")
    }
}

/// Which hosts a route is for. Lower case, no port, no trailing dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// This name or address alone.
    Exact(Box<str>),
    /// `*.example.org`: every name below `example.org`, at any depth, not itself; holds `.example.org`.
    Below(Box<str>),
}

/// Which paths a route is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPattern {
    /// This path alone.
    Exact(Box<str>),
    /// This path and all below it, at a segment boundary; `/v1/` owns `/v1` too.
    Below(Box<str>),
}

/// Whether a route needs a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A good key is needed.
    Key,
    /// Anybody passes; a bad key is still 401.
    Public,
}
