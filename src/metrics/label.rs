//! Label values: every label that is not a name from configuration or key file is one of these closed sets, so no client
//! can grow the registry.

use crate::rejection::{AuthFailure, Limited, Rejection};

/// A request's method, or `other` for any that is not on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
    /// OPTIONS.
    Options,
    /// Anything else.
    Other,
}

impl Method {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 8] =
        [Self::Get, Self::Head, Self::Post, Self::Put, Self::Patch, Self::Delete, Self::Options, Self::Other];

    /// The label of a method as sent; methods are case-sensitive (RFC 9110 section 9.1).
    pub fn of(method: &[u8]) -> Self {
        match method {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"PATCH" => Self::Patch,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            _ => Self::Other,
        }
    }

    /// The label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Other => "other",
        }
    }
}

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All of them, in the order of their discriminants.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The label.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }
    };
}

/// Every limit, each at its [`limit_place`].
pub(super) const LIMITS: [Limited; 6] = [
    Limited::KeyRate,
    Limited::RouteRate,
    Limited::Concurrent,
    Limited::WebSockets,
    Limited::Quota,
    Limited::FailedAuth,
];

/// Where a limit stands in [`LIMITS`].
pub(super) const fn limit_place(limit: Limited) -> usize {
    match limit {
        Limited::KeyRate => 0,
        Limited::RouteRate => 1,
        Limited::Concurrent => 2,
        Limited::WebSockets => 3,
        Limited::Quota => 4,
        Limited::FailedAuth => 5,
    }
}

labels! {
    /// What was found out about a request's key: `keygate_auth_total{outcome}`.
    AuthOutcome {
        /// A good key.
        Ok = "ok",
        /// None, on a public route.
        Anonymous = "anonymous",
        /// None, on a preflight.
        Preflight = "preflight",
        /// See [`AuthFailure::Missing`].
        Missing = "missing",
        /// See [`AuthFailure::Malformed`].
        Malformed = "malformed",
        /// See [`AuthFailure::Conflict`].
        Conflict = "conflict",
        /// See [`AuthFailure::Unknown`].
        Unknown = "unknown",
        /// See [`AuthFailure::Disabled`].
        Disabled = "disabled",
        /// See [`AuthFailure::Expired`].
        Expired = "expired",
        /// See [`AuthFailure::Address`].
        Address = "address",
    }
}

impl From<AuthFailure> for AuthOutcome {
    fn from(failure: AuthFailure) -> Self {
        match failure {
            AuthFailure::Missing => Self::Missing,
            AuthFailure::Malformed => Self::Malformed,
            AuthFailure::Conflict => Self::Conflict,
            AuthFailure::Unknown => Self::Unknown,
            AuthFailure::Disabled => Self::Disabled,
            AuthFailure::Expired => Self::Expired,
            AuthFailure::Address => Self::Address,
        }
    }
}

labels! {
    /// What became of a request with a good key: `keygate_key_requests_total{outcome}`.
    KeyOutcome {
        /// Forwarded.
        Admitted = "admitted",
        /// The key may not use the route.
        Forbidden = "forbidden",
        /// A limit was met.
        Limited = "limited",
        /// Refused for what it asked, not for who asked: no such route, wrong method.
        Refused = "refused",
    }
}

impl KeyOutcome {
    /// The outcome of a good key's request that admission refused this way.
    pub const fn of(rejection: &Rejection) -> Self {
        match rejection {
            Rejection::Forbidden | Rejection::ForeignOrigin => Self::Forbidden,
            Rejection::TooManyRequests(..) => Self::Limited,
            _ => Self::Refused,
        }
    }
}

labels! {
    /// Why a client connection ended: `keygate_connections_closed_total{reason}`.
    ClosedReason {
        /// The client closed it, or reset it.
        Client = "client",
        /// An answer was given after which the connection cannot go on.
        Answered = "answered",
        /// No next request in time.
        KeepaliveTimeout = "keepalive_timeout",
        /// No whole request head in time.
        HeadTimeout = "head_timeout",
        /// A body came too slowly.
        BodyTimeout = "body_timeout",
        /// The client did not take what was written in time.
        WriteTimeout = "write_timeout",
        /// A tunnel was idle too long.
        TunnelTimeout = "tunnel_timeout",
        /// No whole TLS handshake in time.
        HandshakeTimeout = "handshake_timeout",
        /// The TLS handshake failed.
        HandshakeFailed = "handshake_failed",
        /// Its address holds too many already.
        PerAddress = "per_address",
        /// A request that cannot be read in one way only, or an HTTP/2 error.
        Malformed = "malformed",
        /// Its key was revoked, disabled or expired (design rule 8).
        KeyEnded = "key_ended",
        /// A reload took its route or its right to it (decision 26).
        RouteEnded = "route_ended",
        /// The upstream broke off in the middle of an answer or tunnel.
        Upstream = "upstream",
        /// The gate is going away.
        Shutdown = "shutdown",
        /// A fault of the gate, a panic included.
        Fault = "fault",
    }
}

labels! {
    /// How a reload ended.
    ReloadResult {
        /// It is in force.
        Success = "success",
        /// It was refused and changed nothing (design rule 7).
        Failure = "failure",
    }
}

labels! {
    /// How a write of the state ended.
    StateWrite {
        /// It is on disk.
        Success = "success",
        /// Not; it is tried again.
        Failure = "failure",
        /// The file was put aside and a new one begun.
        Damaged = "damaged",
    }
}

labels! {
    /// How a TLS handshake ended.
    HandshakeResult {
        /// In a new session.
        Full = "full",
        /// In a resumed session.
        Resumed = "resumed",
        /// In an error.
        Failed = "failed",
        /// Not in time.
        Timeout = "timeout",
    }
}

labels! {
    /// Which way bytes went, seen from the gate.
    Direction {
        /// From a client.
        In = "in",
        /// To a client.
        Out = "out",
    }
}

labels! {
    /// State of a key file entry. Every entry is in exactly one.
    KeyState {
        /// Usable.
        Active = "active",
        /// Says `disabled: true`, expired or not.
        Disabled = "disabled",
        /// Past its `expires`.
        Expired = "expired",
    }
}
