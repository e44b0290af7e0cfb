//! Routes: which upstream a host and path belong to, and who may go there. A path is matched under every reading that an
//! upstream might take; readings that disagree are refused (design rule 2, decisions 1-4).

use std::sync::Arc;

use crate::limit::Rate;

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
