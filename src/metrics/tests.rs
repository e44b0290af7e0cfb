//! Every metric after it was touched, closed label sets, bounds, and what `promtool` says.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use super::*;
use crate::rejection::{AuthFailure, Rejection};

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Every metric with every label at least once.
fn touched() -> (Metrics, Vec<Held>) {
    let metrics = Metrics::new().unwrap();
    let route = metrics.route("api \"quoted\" \\ and\nbroken");
    for method in Method::ALL {
        route.finish(method, 200, Duration::from_millis(3));
    }
    let held = vec![route.in_flight(), route.websocket(), metrics.connection()];
    metrics.upstream("worker").finish(Duration::from_millis(2));
    metrics.set_upstream_healthy("worker", "10.0.0.5:9101", true);
    let key = metrics.key(&KeyId::new("48e8f859"), "alice");
    KeyOutcome::ALL.iter().for_each(|outcome| key.count(*outcome));
    AuthOutcome::ALL.iter().for_each(|outcome| metrics.auth(*outcome));
    label::LIMITS.iter().for_each(|limit| metrics.rate_limited(*limit));
    metrics.malformed("cl_te");
    Direction::ALL.iter().for_each(|direction| metrics.bytes(*direction, 10));
    ClosedReason::ALL.iter().for_each(|reason| metrics.connection_closed(*reason));
    HandshakeResult::ALL.iter().for_each(|result| metrics.handshake(*result));
    metrics.set_certificates([("gate.lan", time("2031-01-01T00:00:00Z"))]);
    KeyState::ALL.iter().for_each(|state| metrics.set_keys(*state, 2));
    metrics.set_key_expiries(
        time("2030-01-01T00:00:00Z"),
        [(&KeyId::new("48e8f859"), "alice", time("2030-06-01T00:00:00Z"))],
    );
    metrics.keyfile_taken("abababababab", time("2030-01-01T00:00:00Z"), Duration::from_millis(40));
    metrics.keyfile_refused();
    ReloadResult::ALL.iter().for_each(|result| metrics.config_reload(*result));
    StateWrite::ALL.iter().for_each(|result| metrics.state_write(*result));
    metrics.set_state_last_success(time("2030-01-01T00:00:00Z"));
    metrics.access_log_dropped().inc();
    (metrics, held)
}

/// The value of the one sample that `series` names, as written; `None` when it is not there.
fn value(metrics: &Metrics, series: &str) -> Option<f64> {
    let text = metrics.encode().unwrap();
    let mut values = text.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = values.next().map(|value| value.parse().unwrap());
    assert_eq!(values.next(), None, "{series} stands twice");
    value
}

fn check(metrics: &Metrics, series: &str, want: impl Into<Option<f64>>) {
    assert_eq!(value(metrics, series), want.into(), "{series}\n{}", metrics.encode().unwrap());
}

#[test]
fn every_metric_of_the_table_appears_once_touched_and_no_other_does() {
    let (metrics, _held) = touched();
    let families = metrics.registry.gather();
    let ours: BTreeSet<_> =
        families.iter().map(|family| family.name()).filter(|name| name.starts_with("keygate")).collect();
    assert_eq!(ours, TABLE.iter().map(|row| row.name).collect());
    assert!(families.iter().any(|family| family.name() == "process_resident_memory_bytes"));
    for row in TABLE {
        let family = families.iter().find(|family| family.name() == row.name).unwrap();
        assert_eq!(family.help(), row.help);
        let kind = match row.kind {
            Kind::Counter => prometheus::proto::MetricType::COUNTER,
            Kind::Gauge => prometheus::proto::MetricType::GAUGE,
            Kind::Histogram => prometheus::proto::MetricType::HISTOGRAM,
        };
        assert_eq!(family.get_field_type(), kind, "{}", row.name);
        for metric in family.get_metric() {
            let names: BTreeSet<_> = metric.get_label().iter().map(|pair| pair.name()).collect();
            assert_eq!(names, row.labels.iter().copied().collect(), "{}", row.name);
            let value = match row.kind {
                Kind::Counter => metric.get_counter().get_value(),
                Kind::Gauge => metric.get_gauge().get_value(),
                Kind::Histogram => metric.get_histogram().get_sample_count() as f64,
            };
            assert!(value > 0.0, "{} {:?} was not touched", row.name, metric.get_label());
        }
    }
}

#[test]
fn an_untouched_registry_counts_nothing() {
    let metrics = Metrics::new().unwrap();
    for family in metrics.registry.gather() {
        let name = family.name();
        if name.starts_with("process_") || name == "keygate_build_info" {
            continue;
        }
        for metric in family.get_metric() {
            assert_eq!(metric.get_counter().get_value() + metric.get_gauge().get_value(), 0.0, "{name}");
            assert_eq!(metric.get_histogram().get_sample_count(), 0, "{name}");
        }
    }
}

#[test]
fn promtool_finds_nothing_to_say() {
    let (metrics, _held) = touched();
    let started = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = started else {
        panic!("this test needs promtool: install the Debian package `prometheus`, which holds it ({started:?})");
    };
    promtool.stdin.take().unwrap().write_all(metrics.encode().unwrap().as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn methods_and_codes_are_closed_sets() {
    let metrics = Metrics::new().unwrap();
    let route = metrics.route("r");
    let long = [b'A'; 9000];
    for method in [&b"GET"[..], b"get", b"TRACE", b"", b"\xff\n", &long, b"GET "] {
        route.finish(Method::of(method), 204, Duration::ZERO);
    }
    check(&metrics, r#"keygate_requests_total{code="204",method="GET",route="r"}"#, 1.0);
    check(&metrics, r#"keygate_requests_total{code="204",method="other",route="r"}"#, 6.0);
    for (status, code) in
        [(100, "100"), (101, "101"), (418, "418"), (599, "599"), (0, "other"), (99, "other"), (600, "other")]
    {
        let before = format!(r#"keygate_requests_total{{code="{code}",method="PUT",route="r"}}"#);
        let count = value(&metrics, &before).unwrap_or(0.0);
        route.finish(Method::Put, status, Duration::ZERO);
        check(&metrics, &before, count + 1.0);
    }
    assert_eq!(metrics.encode().unwrap().matches("keygate_requests_total{").count(), 2 + 5);
    for method in Method::ALL {
        assert_eq!(Method::ALL[method as usize], method);
        assert!(method == Method::Other || Method::of(method.label().as_bytes()) == method);
    }
}

#[test]
fn a_label_counts_under_its_own_name() {
    let metrics = Metrics::new().unwrap();
    metrics.auth(AuthFailure::Expired.into());
    check(&metrics, r#"keygate_auth_total{outcome="expired"}"#, 1.0);
    check(&metrics, r#"keygate_auth_total{outcome="ok"}"#, 0.0);
    use AuthFailure as F;
    for failure in [F::Missing, F::Malformed, F::Conflict, F::Unknown, F::Disabled, F::Expired, F::Address] {
        assert_eq!(AuthOutcome::from(failure).label(), failure.label());
    }
    for limit in label::LIMITS {
        assert_eq!(label::LIMITS[label::limit_place(limit)], limit);
        metrics.rate_limited(limit);
        check(&metrics, &format!(r#"keygate_rate_limited_total{{limit="{}"}}"#, limit.label()), 1.0);
    }
    metrics.bytes(Direction::Out, 7);
    check(&metrics, r#"keygate_bytes_total{direction="out"}"#, 7.0);
    check(&metrics, r#"keygate_bytes_total{direction="in"}"#, 0.0);
    metrics.connection_closed(ClosedReason::KeyEnded);
    check(&metrics, r#"keygate_connections_closed_total{reason="key_ended"}"#, 1.0);
    check(&metrics, r#"keygate_connections_closed_total{reason="fault"}"#, 0.0);
    metrics.malformed(Rejection::Malformed("cl_te").label());
    check(&metrics, r#"keygate_malformed_requests_total{reason="cl_te"}"#, 1.0);
}

#[test]
fn one_route_name_is_one_set_of_counters() {
    let metrics = Metrics::new().unwrap();
    metrics.route("r").finish(Method::Get, 200, Duration::from_millis(1));
    metrics.route("r").finish(Method::Get, 200, Duration::from_secs(1000));
    check(&metrics, r#"keygate_requests_total{code="200",method="GET",route="r"}"#, 2.0);
    check(&metrics, r#"keygate_request_duration_seconds_count{route="r"}"#, 2.0);
    check(&metrics, r#"keygate_request_duration_seconds_bucket{route="r",le="0.001"}"#, 1.0);
    check(&metrics, r#"keygate_request_duration_seconds_bucket{route="r",le="120"}"#, 1.0);
}

#[test]
fn guards_leave_their_gauge_even_on_a_panic() {
    let metrics = Metrics::new().unwrap();
    let route = metrics.route("r");
    let series = r#"keygate_requests_in_flight{route="r"}"#;
    let held = (route.in_flight(), route.in_flight(), route.websocket(), metrics.connection());
    check(&metrics, series, 2.0);
    check(&metrics, r#"keygate_websockets_active{route="r"}"#, 1.0);
    check(&metrics, "keygate_connections_open", 1.0);
    drop(held);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _held = route.in_flight();
        std::panic::resume_unwind(Box::new("a request's fault"));
    }));
    assert!(panicked.is_err());
    check(&metrics, series, 0.0);
    check(&metrics, r#"keygate_websockets_active{route="r"}"#, 0.0);
    check(&metrics, "keygate_connections_open", 0.0);
}

#[test]
fn keys_past_the_bound_are_counted_together() {
    let metrics = Metrics::with_max_keys(3).unwrap();
    let user = "u";
    for n in 0..100 {
        metrics.key(&KeyId::new(&format!("key{n}")), user).count(KeyOutcome::Admitted);
    }
    check(&metrics, r#"keygate_key_requests_total{key="key2",outcome="admitted",user="u"}"#, 1.0);
    check(&metrics, r#"keygate_key_requests_total{key="(other)",outcome="admitted",user=""}"#, 97.0);
    assert_eq!(metrics.encode().unwrap().matches("keygate_key_requests_total{").count(), 4);
    // Room made by a reload is used again.
    metrics.retain_keys(|id| id.as_str() == "key2");
    metrics.key(&KeyId::new("key50"), user).count(KeyOutcome::Limited);
    check(&metrics, r#"keygate_key_requests_total{key="key50",outcome="limited",user="u"}"#, 1.0);
    check(&metrics, r#"keygate_key_requests_total{key="key1",outcome="admitted",user="u"}"#, None);
}

#[test]
fn the_bound_on_keys_is_exact_under_contention() {
    let metrics = Metrics::with_max_keys(50).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..200 {
                    metrics.key(&KeyId::new(&format!("key{n}")), "u").count(KeyOutcome::Admitted);
                }
            });
        }
    });
    let text = metrics.encode().unwrap();
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("keygate_key_requests_total{")).collect();
    assert_eq!(lines.len(), 51);
    let sum: f64 = lines.iter().map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum();
    assert_eq!(sum, 800.0);
}

#[test]
fn a_renamed_user_begins_a_new_series() {
    let metrics = Metrics::new().unwrap();
    let id = KeyId::new("k");
    metrics.key(&id, "old").count(KeyOutcome::Admitted);
    metrics.key(&id, "new").count(KeyOutcome::Admitted);
    metrics.key(&id, "new").count(KeyOutcome::Admitted);
    check(&metrics, r#"keygate_key_requests_total{key="k",outcome="admitted",user="new"}"#, 2.0);
    check(&metrics, r#"keygate_key_requests_total{key="k",outcome="admitted",user="old"}"#, None);
}

#[test]
fn key_outcomes_follow_the_rejection() {
    for (rejection, want) in [
        (Rejection::Forbidden, "forbidden"),
        (Rejection::ForeignOrigin, "forbidden"),
        (Rejection::TooManyRequests(Limited::Quota, Duration::ZERO), "limited"),
        (Rejection::NoRoute, "refused"),
        (Rejection::MethodNotAllowed, "refused"),
    ] {
        assert_eq!(KeyOutcome::of(&rejection).label(), want, "{rejection:?}");
    }
}

#[test]
fn expiries_are_replaced_whole_and_bounded_to_the_nearest() {
    let metrics = Metrics::new().unwrap();
    let now = time("2030-01-01T00:00:00Z");
    let ids: Vec<_> = (0..MAX_KEYS + 10).map(|n| KeyId::new(&format!("k{n}"))).collect();
    // The first two have ended; the rest end one second after the other.
    let end = |n: usize| now + Duration::from_secs(n as u64 + 1) - Duration::from_secs(if n < 2 { 10 } else { 0 });
    metrics.set_key_expiries(now, ids.iter().enumerate().map(|(n, id)| (id, "u", end(n))));
    assert_eq!(metrics.encode().unwrap().matches("keygate_key_expiry_timestamp_seconds{").count(), MAX_KEYS);
    let series = |n: usize| format!(r#"keygate_key_expiry_timestamp_seconds{{key="k{n}",user="u"}}"#);
    check(&metrics, &series(2), end(2).as_second() as f64);
    check(&metrics, &series(0), None);
    check(&metrics, &series(MAX_KEYS + 2), None);
    metrics.set_key_expiries(now, []);
    check(&metrics, &series(2), None);
}

#[test]
fn key_file_and_certificates_show_what_is_in_force() {
    let metrics = Metrics::new().unwrap();
    let now = time("2030-01-01T00:00:00.9Z");
    metrics.keyfile_taken("010101010101", now, Duration::from_millis(1500));
    metrics.keyfile_taken("fefefefefefe", now, Duration::from_millis(250));
    metrics.keyfile_refused();
    check(&metrics, r#"keygate_keyfile_info{digest="fefefefefefe"}"#, 1.0);
    check(&metrics, r#"keygate_keyfile_info{digest="010101010101"}"#, None);
    check(&metrics, r#"keygate_keyfile_reloads_total{result="success"}"#, 2.0);
    check(&metrics, r#"keygate_keyfile_reloads_total{result="failure"}"#, 1.0);
    check(&metrics, "keygate_keyfile_last_success_timestamp_seconds", now.as_second() as f64);
    check(&metrics, "keygate_keyfile_parse_duration_seconds", 0.25);
    let (near, far) = (time("2030-02-01T00:00:00Z"), time("2030-03-01T00:00:00Z"));
    metrics.set_certificates([("a.lan", far), ("b.lan", far), ("a.lan", near)]);
    check(&metrics, r#"keygate_tls_certificate_expiry_timestamp_seconds{name="a.lan"}"#, near.as_second() as f64);
    check(&metrics, r#"keygate_tls_certificate_expiry_timestamp_seconds{name="b.lan"}"#, far.as_second() as f64);
    metrics.set_upstream_healthy("w", "1.2.3.4:1", false);
    check(&metrics, r#"keygate_upstream_healthy{server="1.2.3.4:1",upstream="w"}"#, 0.0);
    metrics.forget_server("w", "1.2.3.4:1");
    check(&metrics, r#"keygate_upstream_healthy{server="1.2.3.4:1",upstream="w"}"#, None);
}
