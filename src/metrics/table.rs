//! The one table of metrics: name, kind, labels and help. The registry is filled from it, and README and house-rule tests
//! read it, so no metric can exist in one place only.

use std::collections::HashMap;

use prometheus::core::Desc;
use prometheus::{HistogramOpts, Opts};

/// What a metric is to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
}

/// One metric as scraped.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Full name.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Label names, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// One sentence for people.
    pub help: &'static str,
}

impl Row {
    pub(super) fn opts(&self) -> Opts {
        Opts::new(self.name, self.help)
    }

    pub(super) fn histogram(&self) -> HistogramOpts {
        HistogramOpts::new(self.name, self.help).buckets(BUCKETS.to_vec())
    }

    pub(super) fn desc(&self) -> Result<Desc, prometheus::Error> {
        let labels = self.labels.iter().map(|label| (*label).to_owned()).collect();
        Desc::new(self.name.to_owned(), self.help.to_owned(), labels, HashMap::new())
    }
}

/// Upper bounds in seconds, for requests and upstreams alike: the gate's own work is far below a millisecond, a streamed
/// answer of a language model takes minutes.
const BUCKETS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Row {
    Row { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Row {
    Row { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Row {
    Row { name, kind: Kind::Histogram, labels, help }
}

macro_rules! table {
    ($($ident:ident = $row:expr;)*) => {
        $(pub(super) const $ident: Row = $row;)*
        /// Every metric of the gate's own; the standard `process_*` ones come beside them.
        pub const TABLE: &[Row] = &[$($ident),*];
    };
}

table! {
    REQUESTS = counter("keygate_requests_total", &["route", "method", "code"],
        "Requests answered, by the gate or by an upstream.");
    REQUEST_DURATION = histogram("keygate_request_duration_seconds", &["route"],
        "Time from the first byte of a request to the last of its answer, or to the 101 of a WebSocket.");
    REQUESTS_IN_FLIGHT = gauge("keygate_requests_in_flight", &["route"],
        "Requests being handled, WebSockets past their handshake not counted.");
    WEBSOCKETS = gauge("keygate_websockets_active", &["route"],
        "Open WebSockets.");
    AUTH = counter("keygate_auth_total", &["outcome"],
        "Requests by what was found out about their key.");
    KEY_REQUESTS = counter("keygate_key_requests_total", &["key", "user", "outcome"],
        "Requests with a good key, by key; past the bound on keys they count as key (other).");
    RATE_LIMITED = counter("keygate_rate_limited_total", &["limit"],
        "Requests refused by a limit.");
    MALFORMED = counter("keygate_malformed_requests_total", &["reason"],
        "Requests refused as malformed, too large to be read, or with a method or Expect that is not taken.");
    BYTES = counter("keygate_bytes_total", &["direction"],
        "Bytes of requests from clients (in) and of answers to them (out), tunnels included.");
    CONNECTIONS_OPEN = gauge("keygate_connections_open", &[],
        "Open client connections.");
    CONNECTIONS_CLOSED = counter("keygate_connections_closed_total", &["reason"],
        "Client connections closed, by why; HTTP/2 streams that ended with their key or route, too.");
    HANDSHAKES = counter("keygate_tls_handshakes_total", &["result"],
        "TLS handshakes with clients.");
    CERTIFICATE_EXPIRY = gauge("keygate_tls_certificate_expiry_timestamp_seconds", &["name"],
        "When a certificate in use ends, in seconds since 1970.");
    KEYS = gauge("keygate_keys", &["state"],
        "Keys in the key file in force.");
    KEY_EXPIRY = gauge("keygate_key_expiry_timestamp_seconds", &["key", "user"],
        "When a key ends, in seconds since 1970; of a bounded number of keys, those that end next.");
    KEYFILE_RELOADS = counter("keygate_keyfile_reloads_total", &["result"],
        "Changes of the key file seen.");
    KEYFILE_LAST_SUCCESS = gauge("keygate_keyfile_last_success_timestamp_seconds", &[],
        "When the key file in force was taken, in seconds since 1970.");
    KEYFILE_PARSE = gauge("keygate_keyfile_parse_duration_seconds", &[],
        "Time that reading and indexing the key file in force took.");
    KEYFILE_INFO = gauge("keygate_keyfile_info", &["digest"],
        "Always 1; the label is the SHA-256 of the key file in force.");
    CONFIG_RELOADS = counter("keygate_config_reloads_total", &["result"],
        "Reloads of the configuration asked for.");
    UPSTREAM_DURATION = histogram("keygate_upstream_duration_seconds", &["upstream"],
        "Time from sending a request to an upstream to the last byte of its answer, or to its 101.");
    UPSTREAM_HEALTHY = gauge("keygate_upstream_healthy", &["upstream", "server"],
        "Whether a server is used: 1 or 0.");
    ACCESS_LOG_DROPPED = counter("keygate_access_log_dropped_total", &[],
        "Access log lines lost because their target was too slow or failed.");
    STATE_WRITES = counter("keygate_state_writes_total", &["result"],
        "Writes of the state file; damaged: it was put aside and a new one begun.");
    STATE_LAST_SUCCESS = gauge("keygate_state_last_success_timestamp_seconds", &[],
        "When all that was counted was last on disk, in seconds since 1970; 0 if never or if no state is kept.");
    BUILD = gauge("keygate_build_info", &["version", "os", "arch"],
        "Always 1; the labels say what is running.");
}
