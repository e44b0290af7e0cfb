//! What is counted per route and per upstream. A handle is made once per configuration; finishing a request is then a few
//! atomic additions, with no lookup by label.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::{Histogram, IntGauge, proto};

use super::collect::{family, sample};
use super::label::Method;
use super::table;

/// Statuses 100 to 599 have a counter each; the last one is for all others.
const CODES: usize = 501;
const FIRST_CODE: u16 = 100;

type Codes = Box<[AtomicU64; CODES]>;

/// The metrics of one route.
pub struct RouteMetrics {
    /// Per method, made at its first request: most routes see two or three methods.
    counts: [OnceLock<Codes>; Method::ALL.len()],
    duration: Histogram,
    in_flight: IntGauge,
    websockets: IntGauge,
}

impl RouteMetrics {
    pub(super) fn new(duration: Histogram, in_flight: IntGauge, websockets: IntGauge) -> Self {
        Self { counts: [const { OnceLock::new() }; Method::ALL.len()], duration, in_flight, websockets }
    }

    /// Counts a finished request. `took` runs to the last byte of the answer, or to a WebSocket's 101.
    pub fn finish(&self, method: Method, status: u16, took: Duration) {
        let codes = self.counts.get(method as usize).map(|slot| slot.get_or_init(zeroed));
        if let Some(count) = codes.and_then(|codes| codes.get(slot_of(status))) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.duration.observe(took.as_secs_f64());
    }

    /// A request is being handled for as long as the value lives.
    pub fn in_flight(&self) -> Held {
        Held::new(&self.in_flight)
    }

    /// A WebSocket is open for as long as the value lives.
    pub fn websocket(&self) -> Held {
        Held::new(&self.websockets)
    }
}

/// One counted in a gauge; leaves it when dropped, so that no way out of a request can forget to.
#[derive(Debug)]
pub struct Held(IntGauge);

impl Held {
    pub(super) fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The metrics of one upstream.
#[derive(Clone, Debug)]
pub struct UpstreamMetrics {
    duration: Histogram,
}

impl UpstreamMetrics {
    pub(super) fn new(duration: Histogram) -> Self {
        Self { duration }
    }

    /// Counts one exchange: from the request's sending to the last byte of the answer, or to the 101.
    pub fn finish(&self, took: Duration) {
        self.duration.observe(took.as_secs_f64());
    }
}

/// All routes' request counters. The lock is taken when a configuration is applied and at a scrape, never by a request.
#[derive(Clone)]
pub(super) struct RequestCounts {
    desc: Desc,
    routes: Arc<Mutex<BTreeMap<Box<str>, Arc<RouteMetrics>>>>,
}

impl RequestCounts {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        Ok(Self { desc: table::REQUESTS.desc()?, routes: Arc::default() })
    }

    pub(super) fn route(&self, name: &str, make: impl FnOnce() -> RouteMetrics) -> Arc<RouteMetrics> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(routes.entry(name.into()).or_insert_with(|| Arc::new(make())))
    }
}

impl Collector for RequestCounts {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut samples = Vec::new();
        for (name, route) in self.routes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            for (method, codes) in Method::ALL.iter().zip(&route.counts) {
                let Some(codes) = codes.get() else { continue };
                for (slot, count) in codes.iter().enumerate() {
                    let count = count.load(Ordering::Relaxed);
                    if count > 0 {
                        let code = code_of(slot);
                        samples.push(sample(&table::REQUESTS, [name, method.label(), &code], count as f64));
                    }
                }
            }
        }
        family(&table::REQUESTS, samples)
    }
}

fn zeroed() -> Codes {
    Box::new([const { AtomicU64::new(0) }; CODES])
}

fn slot_of(status: u16) -> usize {
    status.checked_sub(FIRST_CODE).map_or(CODES - 1, |slot| usize::from(slot).min(CODES - 1))
}

fn code_of(slot: usize) -> String {
    if slot == CODES - 1 { "other".to_owned() } else { (slot + usize::from(FIRST_CODE)).to_string() }
}
