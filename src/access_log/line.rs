//! One finished request as one line. The fields are types that cannot hold a secret, or are masked while they are written.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;

use super::Format;
use super::escape::{push_bytes, push_client, push_str};
use super::redact::RedactedTarget;
use crate::http1::write::decimal;
use crate::key::KeyId;
use crate::rejection::Rejection;

const TIME: DateTimePrinter = DateTimePrinter::new().precision(Some(3));

// Most bytes logged of what a client may make as long as a head.
const MAX_METHOD_BYTES: usize = 32;
const MAX_HOST_BYTES: usize = 255;
const MAX_ID_BYTES: usize = 128;
const MAX_AGENT_BYTES: usize = 200;

/// Protocol of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

impl Protocol {
    const fn label(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// What became of a request, in one word; the reason stands beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Forwarded, and the upstream's answer relayed.
    Admitted,
    /// No good key: 401.
    Unauthorized,
    /// A good key without the right: 403.
    Forbidden,
    /// A limit: 429.
    Limited,
    /// Any other fault of the client.
    Refused,
    /// A fault of the upstream or of the gate: 5xx.
    Failed,
}

impl Outcome {
    /// The outcome of a request that ended with this refusal, or with none.
    pub const fn of(rejection: Option<&Rejection>) -> Self {
        let Some(rejection) = rejection else { return Self::Admitted };
        match rejection.answer().status {
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            429 => Self::Limited,
            500.. => Self::Failed,
            _ => Self::Refused,
        }
    }

    /// The word in the log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Limited => "limited",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// One finished request. Byte fields are as the client sent them; writing escapes, masks and cuts them.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// When it came.
    pub time: Timestamp,
    /// The id sent upstream and back.
    pub request_id: &'a str,
    /// Client address (decision 25); `None` on a unix listener.
    pub remote: Option<IpAddr>,
    /// Method as sent; empty when no head could be read.
    pub method: &'a [u8],
    /// Host as sent.
    pub host: Option<&'a [u8]>,
    /// Path and query; `None` when no head could be read.
    pub target: Option<RedactedTarget<'a>>,
    /// Protocol; `HTTP/1.1` where no head of HTTP/1 could be read.
    pub protocol: Protocol,
    /// TLS version, `1.2` or `1.3`; `None` without TLS.
    pub tls: Option<&'static str>,
    /// Id of the good key.
    pub key_id: Option<&'a KeyId>,
    /// Its user.
    pub user: Option<&'a str>,
    /// Label of the route.
    pub route: Option<&'a str>,
    /// Status sent to the client.
    pub status: u16,
    /// The refusal it ended with, if it did.
    pub rejection: Option<&'a Rejection>,
    /// Bytes of the request: head and body, without the framing of chunks and frames; what a tunnel took, too.
    pub bytes_in: u64,
    /// Bytes of the answer, counted alike; the head of an HTTP/2 answer before compression.
    pub bytes_out: u64,
    /// From its first byte to the last of its answer, or to the end of its tunnel.
    pub duration: Duration,
    /// Spent waiting for the upstream.
    pub upstream: Option<Duration>,
    /// Spent in the gate itself.
    pub gate: Duration,
    /// Upstream server as configured.
    pub server: Option<&'a str>,
    /// Why a tunnel, or an answer cut short, ended: a word of the source code.
    pub closed: Option<&'static str>,
    /// `User-Agent` as sent.
    pub user_agent: Option<&'a [u8]>,
}

impl<'a> Line<'a> {
    /// The line of a request of which no head could be read: nothing is known of it but when it was refused.
    pub fn unread(time: Timestamp, request_id: &'a str, protocol: Protocol) -> Self {
        Self {
            time,
            request_id,
            remote: None,
            method: b"",
            host: None,
            target: None,
            protocol,
            tls: None,
            key_id: None,
            user: None,
            route: None,
            status: 0,
            rejection: None,
            bytes_in: 0,
            bytes_out: 0,
            duration: Duration::ZERO,
            upstream: None,
            gate: Duration::ZERO,
            server: None,
            closed: None,
            user_agent: None,
        }
    }
}

impl Line<'_> {
    /// Appends the line and its line feed. All of it is printable ASCII.
    pub fn push(&self, format: Format, out: &mut Vec<u8>) {
        match format {
            Format::Json => self.push_json(out),
            Format::Text => self.push_text(out),
        }
        out.push(b'\n');
    }

    fn push_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        push_time(out, self.time);
        out.push(b'"');
        text(out, "request_id", Some(self.request_id.as_bytes()), |out, id| push_client(out, id, MAX_ID_BYTES));
        text(out, "remote", self.remote, push_address);
        text(out, "method", Some(self.method), |out, method| push_client(out, method, MAX_METHOD_BYTES));
        text(out, "host", self.host, |out, host| push_client(out, host, MAX_HOST_BYTES));
        text(out, "target", self.target, |out, target| target.push(out));
        text(out, "protocol", Some(self.protocol.label()), push_str);
        text(out, "tls", self.tls, push_str);
        text(out, "key_id", self.key_id, |out, id| push_str(out, id.as_str()));
        text(out, "user", self.user, push_str);
        text(out, "route", self.route, push_str);
        number(out, "status", Some(u64::from(self.status)), push_number);
        text(out, "outcome", Some(Outcome::of(self.rejection).label()), push_str);
        text(out, "reason", self.rejection.map(Rejection::label), push_str);
        number(out, "bytes_in", Some(self.bytes_in), push_number);
        number(out, "bytes_out", Some(self.bytes_out), push_number);
        number(out, "duration_ms", Some(self.duration), push_millis);
        number(out, "upstream_ms", self.upstream, push_millis);
        number(out, "gate_ms", Some(self.gate), push_millis);
        text(out, "server", self.server, push_str);
        text(out, "closed", self.closed, push_str);
        text(out, "user_agent", self.user_agent, |out, agent| push_client(out, agent, MAX_AGENT_BYTES));
        out.push(b'}');
    }

    fn push_text(&self, out: &mut Vec<u8>) {
        push_time(out, self.time);
        out.push(b' ');
        push_number(out, u64::from(self.status));
        out.push(b' ');
        push_str(out, Outcome::of(self.rejection).label());
        word(out, " reason=", self.rejection.map(Rejection::label), push_str);
        word(out, " ", self.remote, push_address);
        quoted(out, " ", Some(self.method), |out, method| push_client(out, method, MAX_METHOD_BYTES));
        quoted(out, " ", self.host, |out, host| push_client(out, host, MAX_HOST_BYTES));
        quoted(out, " ", self.target, |out, target| target.push(out));
        word(out, " ", Some(self.protocol.label()), push_str);
        word(out, " TLS", self.tls, push_str);
        quoted(out, " key=", self.key_id, |out, id| push_str(out, id.as_str()));
        quoted(out, " user=", self.user, push_str);
        quoted(out, " route=", self.route, push_str);
        word(out, " in=", Some(self.bytes_in), push_number);
        word(out, " out=", Some(self.bytes_out), push_number);
        word(out, " ms=", Some(self.duration), push_millis);
        word(out, " upstream_ms=", self.upstream, push_millis);
        word(out, " gate_ms=", Some(self.gate), push_millis);
        quoted(out, " server=", self.server, push_str);
        word(out, " closed=", self.closed, push_str);
        quoted(out, " agent=", self.user_agent, |out, agent| push_client(out, agent, MAX_AGENT_BYTES));
        quoted(out, " id=", Some(self.request_id.as_bytes()), |out, id| push_client(out, id, MAX_ID_BYTES));
    }
}

/// Appends `,"name":"value"`, or `null` for no value, so that every line has every field.
fn text<T>(out: &mut Vec<u8>, name: &str, value: Option<T>, push: impl FnOnce(&mut Vec<u8>, T)) {
    number(out, name, value, |out, value| {
        out.push(b'"');
        push(out, value);
        out.push(b'"');
    });
}

/// Appends `,"name":value`, or `null` for no value.
fn number<T>(out: &mut Vec<u8>, name: &str, value: Option<T>, push: impl FnOnce(&mut Vec<u8>, T)) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    match value {
        Some(value) => push(out, value),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends `before` and the value, or nothing.
fn word<T>(out: &mut Vec<u8>, before: &str, value: Option<T>, push: impl FnOnce(&mut Vec<u8>, T)) {
    if let Some(value) = value {
        push_bytes(out, before.as_bytes());
        push(out, value);
    }
}

/// As [`word`], the value in quotes: what strangers or operators named cannot pass for another field.
fn quoted<T>(out: &mut Vec<u8>, before: &str, value: Option<T>, push: impl FnOnce(&mut Vec<u8>, T)) {
    word(out, before, value, |out, value| {
        out.push(b'"');
        push(out, value);
        out.push(b'"');
    });
}

fn push_time(out: &mut Vec<u8>, time: Timestamp) {
    // Writing to a vector does not fail.
    let _ = TIME.print_timestamp(&time, out);
}

fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    let _ = write!(out, "{address}");
}

fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(decimal(number, &mut [0; 20]));
}

/// Milliseconds with three decimals.
fn push_millis(out: &mut Vec<u8>, time: Duration) {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    push_number(out, micros / 1000);
    out.push(b'.');
    for place in [100, 10, 1] {
        out.push(b'0' + (micros % 1000 / place % 10) as u8);
    }
}
