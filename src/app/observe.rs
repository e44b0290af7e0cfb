//! What happens beside the requests, told to log, metrics and readiness: key reloads, certificates, upstream health.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;

use crate::admin::Readiness;
use crate::keyring::Keyring;
use crate::keyring::reload::{Loaded, ReloadOutcome};
use crate::metrics::{KeyState, Metrics};
use crate::tls::reload::{Reload, keep_current};
use crate::tls::store::CertificateStore;
use crate::upstream::files;
use crate::upstream::health::{HealthChange, HealthReport};
use crate::upstream::registry::Upstreams;

/// Tells log, metrics and readiness.
pub(super) struct Observer {
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    certificates: Mutex<Vec<AbortHandle>>,
}

impl Observer {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, readiness: Arc::default(), certificates: Mutex::default() }
    }

    pub(super) fn readiness(&self) -> &Arc<Readiness> {
        &self.readiness
    }

    pub(super) fn keys_loaded(&self, loaded: &Loaded, now: jiff::Timestamp, took: Duration) {
        self.readiness.set_keys_loaded();
        let (count, digest) = (loaded.keyring.len(), loaded.keyring.digest());
        tracing::info!(keys = count, %digest, "key file loaded");
        self.metrics.keyfile_taken(&digest, now, took);
        for warning in &loaded.warnings {
            tracing::warn!(%warning, "key file");
        }
    }

    pub(super) fn keys_reloaded(&self, outcome: &ReloadOutcome) {
        match outcome {
            ReloadOutcome::Loaded { count, digest, duration, warnings } => {
                tracing::info!(keys = count, %digest, ?duration, "key file reloaded");
                for warning in warnings {
                    tracing::warn!(%warning, "key file");
                }
                self.metrics.keyfile_taken(digest, jiff::Timestamp::now(), *duration);
            }
            ReloadOutcome::Unchanged => tracing::debug!("key file written again without a change"),
            ReloadOutcome::Rejected { problems } => {
                for problem in problems {
                    tracing::error!(%problem, "key file refused, the old keys stay");
                }
                self.metrics.keyfile_refused();
            }
        }
    }

    /// Brings the metrics about keys up to date.
    pub(super) fn describe_keys(&self, keyring: &Keyring, now: jiff::Timestamp) {
        let counts = keyring.counts(now);
        self.metrics.set_keys(KeyState::Active, counts.active);
        self.metrics.set_keys(KeyState::Disabled, counts.disabled);
        self.metrics.set_keys(KeyState::Expired, counts.expired);
        let expiring = keyring.records().filter_map(|record| Some((record.id(), record.user(), record.expires()?)));
        self.metrics.set_key_expiries(now, expiring);
        self.metrics.retain_keys(|id| keyring.find_by_id(id).is_some());
    }

    /// Who is told of health: the metric, and whether any server of `upstreams` is up.
    pub(super) fn health_report(&self, upstreams: &Arc<Upstreams>) -> Arc<HealthReport> {
        let (metrics, readiness, upstreams) = (self.metrics.clone(), self.readiness.clone(), upstreams.clone());
        readiness.set_upstream_up(upstreams.any_healthy());
        Arc::new(move |change: HealthChange<'_>| {
            metrics.set_upstream_healthy(change.upstream, change.server, change.healthy);
            readiness.set_upstream_up(upstreams.any_healthy());
        })
    }

    /// Takes servers that `new` does not check any more off the metrics.
    pub(super) fn forget_servers(&self, old: &Upstreams, new: &Upstreams) {
        let checked: HashSet<_> = new.checked_servers().collect();
        for (upstream, server) in old.checked_servers().filter(|server| !checked.contains(server)) {
            self.metrics.forget_server(upstream, server);
        }
    }

    /// Follows the certificate files of these stores and upstreams, and no others any more.
    pub(super) fn watch_certificates(&self, stores: Vec<Arc<CertificateStore>>, upstreams: &Arc<Upstreams>) {
        let mut tasks = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.drain(..).for_each(|task| task.abort());
        show_expiry(&self.metrics, &stores, upstreams);
        for upstream in upstreams.iter() {
            let (metrics, stores, upstreams) = (self.metrics.clone(), stores.clone(), upstreams.clone());
            let told = move || show_expiry(&metrics, &stores, &upstreams);
            tasks.push(tokio::spawn(files::keep_current(upstream.clone(), told)).abort_handle());
        }
        for store in stores.clone() {
            let (metrics, all, upstreams) = (self.metrics.clone(), stores.clone(), upstreams.clone());
            let report = move |reload: &Reload| {
                match reload {
                    Reload::Swapped { cert, not_after } => {
                        tracing::info!(cert = %cert.display(), %not_after, "certificate reloaded");
                    }
                    Reload::Refused(problem) => tracing::error!(%problem, "certificate refused, the old one stays"),
                }
                show_expiry(&metrics, &all, &upstreams);
            };
            tasks.push(tokio::spawn(keep_current(store, Arc::new(report))).abort_handle());
        }
    }
}

fn show_expiry(metrics: &Metrics, stores: &[Arc<CertificateStore>], upstreams: &Upstreams) {
    let certificates: Vec<_> = stores.iter().flat_map(|store| store.certificates()).collect();
    let ours: Vec<_> = upstreams.iter().filter_map(|upstream| upstream.client_certificate()).collect();
    let listeners = certificates.iter().map(|certificate| (certificate.label(), certificate.not_after()));
    metrics.set_certificates(listeners.chain(ours.iter().map(|(label, end)| (&**label, *end))));
}
