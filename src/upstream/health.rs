//! Active health checks: a `GET` over our own connector, so that TLS, client certificates and unix sockets are checked as
//! requests will meet them. Not Pingora's `HttpHealthCheck`: it connects through `TransportConnector`, whose TLS needs a
//! back end built into Pingora, and it knows no unix sockets.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{self, MissedTickBehavior};

use super::server::Server;
use super::stream::UpstreamStream;
use super::{HealthCheck, HostPolicy, Upstream};

/// A server that came back or went away, or its state when checks begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthChange<'a> {
    /// The upstream's name.
    pub upstream: &'a str,
    /// The server's label.
    pub server: &'a str,
    /// What it is now.
    pub healthy: bool,
}

/// Who is told of changes: the metric `keygate_upstream_healthy`.
pub type HealthReport = dyn Fn(HealthChange<'_>) + Send + Sync;

/// Counts results until a change is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthState {
    healthy: bool,
    /// Results in a row that speak against `healthy`.
    against: u32,
}

impl HealthState {
    /// A server that is `healthy` or not, with no result yet.
    pub fn new(healthy: bool) -> Self {
        Self { healthy, against: 0 }
    }

    /// Takes one result; gives the new state when it changes.
    pub fn observe(&mut self, passed: bool, check: &HealthCheck) -> Option<bool> {
        if passed == self.healthy {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        let needed = if self.healthy { check.unhealthy_after } else { check.healthy_after };
        if self.against < needed {
            return None;
        }
        *self = Self::new(passed);
        Some(passed)
    }
}

/// Checks one server for ever, the first time at once.
pub(super) async fn keep_checking(upstream: Arc<Upstream>, server: Arc<Server>, report: Arc<HealthReport>) {
    let Some(check) = upstream.settings.health_check.clone() else { return };
    let name = &*upstream.settings.name;
    let tell = |healthy| report(HealthChange { upstream: name, server: server.label(), healthy });
    let mut state = HealthState::new(server.is_healthy());
    tell(server.is_healthy());
    let mut tick = time::interval(check.interval.max(MIN_INTERVAL));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let result = probe(&upstream, &server, &check).await;
        if let Some(healthy) = state.observe(result.is_ok(), &check) {
            server.set_healthy(healthy);
            tell(healthy);
            match result {
                Ok(()) => tracing::info!(upstream = name, server = server.label(), "server is healthy again"),
                Err(reason) => tracing::warn!(upstream = name, server = server.label(), reason, "server is unhealthy"),
            }
        }
        server.set_checked();
    }
}

/// One check: `Ok` for a 2xx within the time, else what went wrong.
pub(super) async fn probe(upstream: &Upstream, server: &Server, check: &HealthCheck) -> Result<(), String> {
    let settings = &upstream.settings;
    let limit = check.interval.min(settings.connect_timeout.saturating_add(settings.response_timeout));
    let asked = async {
        let (stream, _) =
            upstream.open(&Arc::clone(&upstream.era()), server).await.map_err(|error| error.to_string())?;
        let host = match &settings.host {
            HostPolicy::Literal(host) => host,
            HostPolicy::Keep | HostPolicy::Upstream => server.authority(),
        };
        let secure = settings.tls.is_some();
        let answer = if settings.http2 {
            ask_http2(stream, secure, host, &check.path).await
        } else {
            ask_http1(stream, host, &check.path).await
        };
        answer.map_err(|error| error.to_string())
    };
    match time::timeout(limit, asked).await {
        Ok(Ok(status)) if (200..300).contains(&status) => Ok(()),
        Ok(Ok(status)) => Err(format!("status {status}")),
        Ok(Err(reason)) => Err(reason),
        Err(_elapsed) => Err("no answer in time".to_owned()),
    }
}

async fn ask_http1(mut stream: UpstreamStream, host: &str, path: &str) -> io::Result<u16> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut start = Vec::with_capacity(256);
    loop {
        if let Some(status) = status_of(&start)? {
            return Ok(status);
        }
        if start.len() >= MAX_STATUS_LINE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "status line too long"));
        }
        if stream.read_buf(&mut start).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an answer"));
        }
    }
}

/// The status, once its line is complete. The fields after it do not matter to a health check.
fn status_of(start: &[u8]) -> io::Result<Option<u16>> {
    let mut head = httparse::Response::new(&mut []);
    match head.parse(start) {
        Ok(_) | Err(httparse::Error::TooManyHeaders) => Ok(head.code),
        Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "not an HTTP/1 answer")),
    }
}

async fn ask_http2(stream: UpstreamStream, secure: bool, host: &str, path: &str) -> io::Result<u16> {
    let (sender, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
    let scheme = if secure { "https" } else { "http" };
    let request = http::Request::get(format!("{scheme}://{host}{path}"))
        .header(http::header::USER_AGENT, USER_AGENT)
        .body(())
        .map_err(io::Error::other)?;
    let exchange = async {
        let mut sender = sender.ready().await.map_err(io::Error::other)?;
        let (response, _) = sender.send_request(request, true).map_err(io::Error::other)?;
        Ok(response.await.map_err(io::Error::other)?.status().as_u16())
    };
    tokio::select! {
        status = exchange => status,
        ended = connection => match ended {
            Ok(()) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an answer")),
            Err(error) => Err(io::Error::other(error)),
        },
    }
}

const USER_AGENT: &str = concat!("keygate/", env!("CARGO_PKG_VERSION"), " (health check)");

/// Most bytes read in search of the status.
const MAX_STATUS_LINE: usize = 4096;

/// Shortest time between checks, whatever is configured.
const MIN_INTERVAL: Duration = Duration::from_millis(10);
