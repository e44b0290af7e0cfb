//! Metric families written by hand, for the collectors whose values do not live in the `prometheus` crate's own vectors.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto;

use super::table::{Kind, Row};

/// One sample: label values in the order of `row.labels`.
pub(super) fn sample<'a>(row: &Row, values: impl IntoIterator<Item = &'a str>, value: f64) -> proto::Metric {
    let pairs = row.labels.iter().zip(values).map(|(name, value)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value.to_owned());
        pair
    });
    let mut pairs: Vec<_> = pairs.collect();
    // In the order of their names, as the crate's own vectors write them.
    pairs.sort_by(|one, two| one.name().cmp(two.name()));
    let mut metric = proto::Metric::from_label(pairs);
    match row.kind {
        Kind::Counter => {
            let mut counter = proto::Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        }
        Kind::Gauge | Kind::Histogram => {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
    }
    metric
}

/// The family of `row` with these samples.
pub(super) fn family(row: &Row, samples: Vec<proto::Metric>) -> Vec<proto::MetricFamily> {
    let mut family = proto::MetricFamily::default();
    family.set_name(row.name.to_owned());
    family.set_help(row.help.to_owned());
    family.set_field_type(if row.kind == Kind::Counter {
        proto::MetricType::COUNTER
    } else {
        proto::MetricType::GAUGE
    });
    family.set_metric(samples);
    vec![family]
}

/// A gauge whose label sets are replaced all at once: a scrape sees the old ones or the new ones, never a mixture.
#[derive(Clone)]
pub(super) struct Snapshot {
    row: Row,
    desc: Desc,
    samples: Arc<Mutex<Vec<proto::Metric>>>,
}

impl Snapshot {
    pub(super) fn new(row: Row) -> Result<Self, prometheus::Error> {
        Ok(Self { row, desc: row.desc()?, samples: Arc::default() })
    }

    /// Replaces all samples. Of equal label sets the least value stays: two samples of one name spoil a whole scrape.
    pub(super) fn replace(&self, mut rows: Vec<(Vec<&str>, f64)>) {
        rows.sort_by(|one, two| one.0.cmp(&two.0).then(one.1.total_cmp(&two.1)));
        rows.dedup_by(|next, kept| next.0 == kept.0);
        let samples = rows.into_iter().map(|(labels, value)| sample(&self.row, labels, value)).collect();
        *self.samples.lock().unwrap_or_else(PoisonError::into_inner) = samples;
    }
}

impl Collector for Snapshot {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        family(&self.row, self.samples.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}
