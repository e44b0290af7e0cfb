//! Health checks: the thresholds as a table, the loop and the probe against real servers.

use std::sync::atomic::{AtomicU16, Ordering};

use tokio::sync::mpsc;

use super::*;
use crate::upstream::health::{HealthChange, HealthReport, HealthState, probe};
use crate::upstream::{HealthCheck, TlsSettings};

/// A report that nobody reads.
pub(super) fn no_report() -> Arc<HealthReport> {
    Arc::new(|_| ())
}

fn every(interval: Duration) -> HealthCheck {
    HealthCheck { path: "/up?full=1".into(), interval, unhealthy_after: 3, healthy_after: 2 }
}

#[test]
fn thresholds_are_counted_in_a_row() {
    /// Results as `+` and `-`; the state after each as `h` and `u`.
    #[track_caller]
    fn check(unhealthy_after: u32, healthy_after: u32, results: &str, want: &str) {
        let check = HealthCheck { unhealthy_after, healthy_after, ..every(DEADLINE) };
        let (mut state, mut healthy) = (HealthState::new(true), true);
        let got: String = results
            .chars()
            .map(|result| {
                if let Some(now) = state.observe(result == '+', &check) {
                    assert_ne!(now, healthy, "only changes are told");
                    healthy = now;
                }
                if healthy { 'h' } else { 'u' }
            })
            .collect();
        assert_eq!(got, want, "{results}");
    }
    check(3, 2, "++++", "hhhh");
    check(3, 2, "---+-++", "hhuuuuh");
    check(3, 2, "--+--+--", "hhhhhhhh");
    check(1, 1, "-+-+", "uhuh");
    // Zero is read as one.
    check(0, 0, "-+", "uh");
    check(2, 3, "--++-+++", "huuuuuuh");
}

/// Answers every connection with the status, and sends each request head to the channel.
fn serve(listener: TcpListener, status: Arc<AtomicU16>) -> mpsc::UnboundedReceiver<String> {
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n") && stream.read_buf(&mut head).await.unwrap_or(0) > 0 {}
            tell.send(String::from_utf8_lossy(&head).into_owned()).ok();
            let answer = format!("HTTP/1.1 {} X\r\nContent-Length: 0\r\n\r\n", status.load(Ordering::Relaxed));
            stream.write_all(answer.as_bytes()).await.ok();
        }
    });
    told
}

type Changes = mpsc::UnboundedReceiver<(String, String, bool)>;

fn reporting() -> (Arc<HealthReport>, Changes) {
    let (tell, told) = mpsc::unbounded_channel();
    let report = move |change: HealthChange<'_>| {
        tell.send((change.upstream.to_owned(), change.server.to_owned(), change.healthy)).ok();
    };
    (Arc::new(report), told)
}

#[tokio::test]
async fn a_server_goes_and_comes_back() {
    let (listener, address) = listen().await;
    let status = Arc::new(AtomicU16::new(204));
    let mut heads = serve(listener, status.clone());
    let label = address.to_string();
    let settings = Settings { health_check: Some(every(Duration::from_millis(10))), ..settings(&[address]) };
    let upstreams = Upstreams::build(vec![settings]).unwrap();
    let upstream = upstreams.get("api").unwrap();
    let (report, mut changes) = reporting();
    assert!(!upstreams.is_ready());
    let running = upstreams.start(&names::no_resolver(), &report);
    assert_eq!(soon(changes.recv()).await.unwrap(), ("api".into(), label.clone(), true));
    let head = soon(heads.recv()).await.unwrap();
    assert!(head.starts_with("GET /up?full=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nHost: {label}\r\n")), "{head}");
    eventually(|| upstreams.is_ready()).await;

    status.store(503, Ordering::Relaxed);
    assert_eq!(soon(changes.recv()).await.unwrap(), ("api".into(), label.clone(), false));
    assert!(matches!(upstream.pick(0), Err(ConnectError::NoServer)));
    status.store(200, Ordering::Relaxed);
    assert_eq!(soon(changes.recv()).await.unwrap(), ("api".into(), label, true));
    assert!(upstream.pick(0).is_ok());
    drop(running);
}

/// One probe over the settings given; what went wrong, or an empty string.
async fn probed(settings: Settings) -> String {
    let upstream = build(settings);
    let check = upstream.settings().health_check.clone().unwrap();
    soon(probe(&upstream, &upstream.servers()[0], &check)).await.err().unwrap_or_default()
}

#[tokio::test]
async fn only_a_2xx_in_time_is_healthy() {
    let endless = "\r\n".repeat(4096);
    let rows: &[(&str, &str)] = &[
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
        ("HTTP/1.0 299\r\n", ""),
        ("HTTP/1.1 200 OK\r\nX: y\r\nfield cut", ""),
        ("HTTP/1.1 199 X\r\n\r\n", "status 199"),
        ("HTTP/1.1 300 X\r\n\r\n", "status 300"),
        ("HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", "status 302"),
        ("HTTP/1.1 401 X\r\n\r\n", "status 401"),
        ("HTTP/1.1 500 X\r\n\r\n", "status 500"),
        ("HTTP/1.1 2", "closed without an answer"),
        ("", "closed without an answer"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "not an HTTP/1 answer"),
        ("HTTP/2 200\r\n\r\n", "not an HTTP/1 answer"),
        ("HTTP/1.1 2x0 OK\r\n\r\n", "not an HTTP/1 answer"),
        (&endless, "status line too long"),
    ];
    for (answer, want) in rows {
        let (listener, address) = listen().await;
        let answer = answer.as_bytes().to_vec();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read_buf(&mut Vec::with_capacity(1024)).await.unwrap() > 0);
            stream.write_all(&answer).await.ok();
            stream.shutdown().await.ok();
            // Held open until the prober is done, so that unread bytes do not turn the end into a reset.
            stream.read_to_end(&mut Vec::new()).await.ok();
        });
        let got = probed(Settings { health_check: Some(every(DEADLINE)), ..settings(&[address]) }).await;
        assert_eq!(got, *want);
        soon(server).await.unwrap();
    }
    // Refused, and silent: the interval is the limit, and so is the time to connect and answer.
    let (_held, dead) = refusing();
    let got = probed(Settings { health_check: Some(every(DEADLINE)), ..settings(&[dead]) }).await;
    assert!(got.contains("refused"), "{got}");
    let (_listener, silent) = listen().await;
    let brief = Duration::from_millis(20);
    let by_interval = Settings { health_check: Some(every(brief)), ..settings(&[silent]) };
    let by_timeouts = Settings {
        health_check: Some(every(DEADLINE * 6)),
        connect_timeout: brief,
        response_timeout: brief,
        ..by_interval.clone()
    };
    assert_eq!(probed(by_interval).await, "no answer in time");
    assert_eq!(probed(by_timeouts).await, "no answer in time");
}

#[tokio::test]
async fn the_host_is_the_configured_one() {
    for (host, want) in [
        (HostPolicy::Literal("api.example.org".into()), "api.example.org"),
        (HostPolicy::Upstream, "127.0.0.1:"),
        (HostPolicy::Keep, "127.0.0.1:"),
    ] {
        let (listener, address) = listen().await;
        let mut heads = serve(listener, Arc::new(AtomicU16::new(200)));
        assert_eq!(probed(Settings { host, health_check: Some(every(DEADLINE)), ..settings(&[address]) }).await, "");
        let head = soon(heads.recv()).await.unwrap();
        assert!(head.contains(&format!("\r\nHost: {want}")), "{head}");
    }
}

#[tokio::test]
async fn tls_servers_are_checked_over_tls() {
    let authority = tls::Authority::new();
    let (address, _) =
        tls::serve(&authority, &["api.test"], tls::Asked { client_certificate: true, http2: false }).await;
    let with = |tls: TlsSettings| Settings {
        tls: Some(tls),
        health_check: Some(every(DEADLINE)),
        ..settings(std::slice::from_ref(&address))
    };
    assert_eq!(probed(with(authority.client("api.test", true))).await, "");
    assert_ne!(probed(with(authority.client("api.test", false))).await, "", "no client certificate");
    assert_ne!(probed(with(authority.client("other.test", true))).await, "", "wrong name");
}

#[tokio::test]
async fn http2_servers_are_checked_over_http2() {
    let (listener, address) = listen().await;
    let status = Arc::new(AtomicU16::new(200));
    let answering = status.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                assert_eq!(request.uri().path_and_query().unwrap().as_str(), "/up?full=1");
                let status = answering.load(Ordering::Relaxed);
                respond.send_response(http::Response::builder().status(status).body(()).unwrap(), true).unwrap();
            }
        }
    });
    let http2 = Settings { http2: true, health_check: Some(every(DEADLINE)), ..settings(&[address]) };
    assert_eq!(probed(http2.clone()).await, "");
    status.store(404, Ordering::Relaxed);
    assert_eq!(probed(http2.clone()).await, "status 404");
    let (plain, address) = listen().await;
    let _heads = serve(plain, status);
    assert_ne!(probed(Settings { servers: vec![address], ..http2 }).await, "", "an HTTP/1 server is no HTTP/2 server");
}
