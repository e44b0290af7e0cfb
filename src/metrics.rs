//! Every metric as a typed field of one struct over an owned registry; label values come from closed sets (design section 7).

mod collect;
mod key;
mod label;
mod route;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{Gauge, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder};

use self::collect::Snapshot;
use self::key::KeyCounts;
pub use self::key::{KeyMetrics, MAX_KEYS, OTHER_KEYS};
pub use self::label::{
    AuthOutcome, ClosedReason, Direction, HandshakeResult, KeyOutcome, KeyState, Method, ReloadResult, StateWrite,
};
use self::route::RequestCounts;
pub use self::route::{Held, RouteMetrics, UpstreamMetrics};
pub use self::table::{Kind, Row, TABLE};
use crate::key::KeyId;
use crate::rejection::Limited;

/// Route label of requests that met no route. Not a name: parentheses keep it apart from the operator's.
pub const NO_ROUTE: &str = "(none)";

/// The `Content-Type` of [`Metrics::encode`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of one gate. Shared behind an `Arc`; every method takes `&self`.
pub struct Metrics {
    registry: Registry,
    requests: RequestCounts,
    request_duration: HistogramVec,
    requests_in_flight: IntGaugeVec,
    websockets: IntGaugeVec,
    key_requests: KeyCounts,
    auth: Closed,
    rate_limited: Closed,
    malformed: IntCounterVec,
    bytes: Closed,
    connections_open: IntGauge,
    connections_closed: Closed,
    handshakes: Closed,
    certificate_expiry: Snapshot,
    keys: IntGaugeVec,
    key_expiry: Snapshot,
    keyfile_reloads: Closed,
    keyfile_last_success: Gauge,
    keyfile_parse: Gauge,
    keyfile_info: Snapshot,
    config_reloads: Closed,
    upstream_duration: HistogramVec,
    upstream_healthy: IntGaugeVec,
    access_log_dropped: IntCounter,
    state_writes: Closed,
    state_last_success: Gauge,
}

/// One counter for each value of a closed set, in the order of the set. All are there from the start, so that the first
/// failure is a step from 0 that `increase` can see.
struct Closed(Vec<IntCounter>);

impl Closed {
    fn add(&self, place: usize, count: u64) {
        if let Some(counter) = self.0.get(place) {
            counter.inc_by(count);
        }
    }
}

/// Registers collectors and hands them back.
struct Builder(Registry);

impl Builder {
    fn add<C: Collector + Clone + 'static>(&self, made: Result<C, prometheus::Error>) -> Result<C, prometheus::Error> {
        let collector = made?;
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn counters(&self, row: &Row) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(row.opts(), row.labels))
    }

    fn closed(&self, row: &Row, labels: impl Iterator<Item = &'static str>) -> Result<Closed, prometheus::Error> {
        let counters = self.counters(row)?;
        Ok(Closed(labels.map(|label| counters.with_label_values(&[label])).collect()))
    }

    fn gauges(&self, row: &Row) -> Result<IntGaugeVec, prometheus::Error> {
        self.add(IntGaugeVec::new(row.opts(), row.labels))
    }

    fn histograms(&self, row: &Row) -> Result<HistogramVec, prometheus::Error> {
        self.add(HistogramVec::new(row.histogram(), row.labels))
    }
}

impl Metrics {
    /// An empty registry with every metric in it. An error is a fault in the table of metrics, never the operator's.
    pub fn new() -> Result<Self, prometheus::Error> {
        Self::with_max_keys(MAX_KEYS)
    }

    fn with_max_keys(max_keys: usize) -> Result<Self, prometheus::Error> {
        let build = Builder(Registry::new());
        build.0.register(Box::new(ProcessCollector::for_self()))?;
        let info = build.gauges(&table::BUILD)?;
        info.with_label_values(&[env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH]).set(1);
        let reloads = || ReloadResult::ALL.iter().map(|result| result.label());
        Ok(Self {
            requests: build.add(RequestCounts::new())?,
            request_duration: build.histograms(&table::REQUEST_DURATION)?,
            requests_in_flight: build.gauges(&table::REQUESTS_IN_FLIGHT)?,
            websockets: build.gauges(&table::WEBSOCKETS)?,
            key_requests: build.add(KeyCounts::new(max_keys))?,
            auth: build.closed(&table::AUTH, AuthOutcome::ALL.iter().map(|outcome| outcome.label()))?,
            rate_limited: build.closed(&table::RATE_LIMITED, label::LIMITS.iter().map(|limit| limit.label()))?,
            malformed: build.counters(&table::MALFORMED)?,
            bytes: build.closed(&table::BYTES, Direction::ALL.iter().map(|direction| direction.label()))?,
            connections_open: build.add(IntGauge::with_opts(table::CONNECTIONS_OPEN.opts()))?,
            connections_closed: build
                .closed(&table::CONNECTIONS_CLOSED, ClosedReason::ALL.iter().map(|reason| reason.label()))?,
            handshakes: build.closed(&table::HANDSHAKES, HandshakeResult::ALL.iter().map(|result| result.label()))?,
            certificate_expiry: build.add(Snapshot::new(table::CERTIFICATE_EXPIRY))?,
            keys: build.gauges(&table::KEYS)?,
            key_expiry: build.add(Snapshot::new(table::KEY_EXPIRY))?,
            keyfile_reloads: build.closed(&table::KEYFILE_RELOADS, reloads())?,
            keyfile_last_success: build.add(Gauge::with_opts(table::KEYFILE_LAST_SUCCESS.opts()))?,
            keyfile_parse: build.add(Gauge::with_opts(table::KEYFILE_PARSE.opts()))?,
            keyfile_info: build.add(Snapshot::new(table::KEYFILE_INFO))?,
            config_reloads: build.closed(&table::CONFIG_RELOADS, reloads())?,
            upstream_duration: build.histograms(&table::UPSTREAM_DURATION)?,
            upstream_healthy: build.gauges(&table::UPSTREAM_HEALTHY)?,
            access_log_dropped: build.add(IntCounter::with_opts(table::ACCESS_LOG_DROPPED.opts()))?,
            state_writes: build.closed(&table::STATE_WRITES, StateWrite::ALL.iter().map(|result| result.label()))?,
            state_last_success: build.add(Gauge::with_opts(table::STATE_LAST_SUCCESS.opts()))?,
            registry: build.0,
        })
    }

    /// The handle of the route with this label. The same label gives the same counters, also across reloads.
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        self.requests.route(name, || {
            RouteMetrics::new(
                self.request_duration.with_label_values(&[name]),
                self.requests_in_flight.with_label_values(&[name]),
                self.websockets.with_label_values(&[name]),
            )
        })
    }

    /// The handle of the upstream with this name.
    pub fn upstream(&self, name: &str) -> UpstreamMetrics {
        UpstreamMetrics::new(self.upstream_duration.with_label_values(&[name]))
    }

    /// The counters of a key in the key file. May be kept with the keyring's record, which dies at a reload as these do
    /// ([`Metrics::retain_keys`]); one look costs a sharded map access.
    pub fn key(&self, id: &KeyId, user: &str) -> Arc<KeyMetrics> {
        self.key_requests.key(id, user)
    }

    /// Forgets the counters of keys that are no longer in the key file, to make room for those that are.
    pub fn retain_keys(&self, in_force: impl Fn(&KeyId) -> bool) {
        self.key_requests.retain(in_force);
    }

    /// Counts what was found out about a request's key.
    pub fn auth(&self, outcome: AuthOutcome) {
        self.auth.add(outcome as usize, 1);
    }

    /// Counts a refusal by a limit.
    pub fn rate_limited(&self, limit: Limited) {
        self.rate_limited.add(label::limit_place(limit), 1);
    }

    /// Counts a request that could not be read; `reason` is its rejection's label, a word of the source code.
    pub fn malformed(&self, reason: &'static str) {
        self.malformed.with_label_values(&[reason]).inc();
    }

    /// Counts bytes to or from clients.
    pub fn bytes(&self, direction: Direction, count: u64) {
        self.bytes.add(direction as usize, count);
    }

    /// A client connection is open for as long as the value lives.
    pub fn connection(&self) -> Held {
        Held::new(&self.connections_open)
    }

    /// Counts the end of a client connection.
    pub fn connection_closed(&self, reason: ClosedReason) {
        self.connections_closed.add(reason as usize, 1);
    }

    /// Counts a TLS handshake.
    pub fn handshake(&self, result: HandshakeResult) {
        self.handshakes.add(result as usize, 1);
    }

    /// Replaces the certificates shown: name and end. Of one name on several listeners the earliest end counts.
    pub fn set_certificates<'a>(&self, certificates: impl IntoIterator<Item = (&'a str, Timestamp)>) {
        let rows = certificates.into_iter().map(|(name, end)| (vec![name], seconds(end)));
        self.certificate_expiry.replace(rows.collect());
    }

    /// Sets how many keys are in a state. Keys expire without a reload: to be set again now and then.
    pub fn set_keys(&self, state: KeyState, count: usize) {
        self.keys.with_label_values(&[state.label()]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Replaces the key expiries shown: id, user and end of every key that has one. Of more than [`MAX_KEYS`], those that
    /// end soonest after `now` stay, then those that ended last.
    pub fn set_key_expiries<'a>(
        &self,
        now: Timestamp,
        keys: impl IntoIterator<Item = (&'a KeyId, &'a str, Timestamp)>,
    ) {
        let mut keys: Vec<_> = keys.into_iter().collect();
        if keys.len() > MAX_KEYS {
            keys.sort_by_key(|(_, _, end)| (*end <= now, end.duration_since(now).unsigned_abs()));
            keys.truncate(MAX_KEYS);
        }
        let rows = keys.into_iter().map(|(id, user, end)| (vec![id.as_str(), user], seconds(end)));
        self.key_expiry.replace(rows.collect());
    }

    /// A key file was taken at `now`: the digest that names it and the time that reading and indexing it took.
    pub fn keyfile_taken(&self, digest: &str, now: Timestamp, parse: Duration) {
        self.keyfile_reloads.add(ReloadResult::Success as usize, 1);
        self.keyfile_last_success.set(seconds(now));
        self.keyfile_parse.set(parse.as_secs_f64());
        self.keyfile_info.replace(vec![(vec![digest], 1.0)]);
    }

    /// A changed key file was refused; the one in force stays.
    pub fn keyfile_refused(&self) {
        self.keyfile_reloads.add(ReloadResult::Failure as usize, 1);
    }

    /// Counts a reload of the configuration.
    pub fn config_reload(&self, result: ReloadResult) {
        self.config_reloads.add(result as usize, 1);
    }

    /// Counts a write of the state file.
    pub fn state_write(&self, result: StateWrite) {
        self.state_writes.add(result as usize, 1);
    }

    /// All that was counted was on disk at `now`.
    pub fn set_state_last_success(&self, now: Timestamp) {
        self.state_last_success.set(seconds(now));
    }

    /// Sets whether a server is used; `server` is its address as configured.
    pub fn set_upstream_healthy(&self, upstream: &str, server: &str, healthy: bool) {
        self.upstream_healthy.with_label_values(&[upstream, server]).set(i64::from(healthy));
    }

    /// Stops showing a server that a reload took away.
    pub fn forget_server(&self, upstream: &str, server: &str) {
        // An error says that it was not shown, which is what was asked for.
        let _ = self.upstream_healthy.remove_label_values(&[upstream, server]);
    }

    /// The counter of lost access log lines, for [`crate::access_log::AccessLog`] to keep.
    pub fn access_log_dropped(&self) -> IntCounter {
        self.access_log_dropped.clone()
    }

    /// Everything in Prometheus' text format, with [`CONTENT_TYPE`].
    pub fn encode(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

fn seconds(time: Timestamp) -> f64 {
    time.as_second() as f64
}
