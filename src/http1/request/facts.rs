//! What the fields of a request say about the message itself: its host, its framing, its connection, its upgrade. Read in
//! one pass, and refused where two readers could come to two answers (design rule 2, decision 2).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::http1::fields;
use crate::http1::head::{Field, FieldSpan, Fields, Framing, Span, Version, list_items};
use crate::http1::host;
use crate::rejection::Rejection;

/// What the strict checks learned on the way, so that nobody reads those fields again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) framing: Framing,
    pub(super) host: Option<Span>,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
    pub(super) websocket: bool,
}

/// The fields that matter here.
#[derive(Clone, Copy, Debug)]
enum Known {
    Host,
    Expect,
    Upgrade,
    Connection,
    ContentLength,
    TransferEncoding,
    WebSocketKey,
    WebSocketVersion,
}

/// How often a field came with the one value that counts, and with any other.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    good: u32,
    bad: u32,
}

/// What the pass over the fields gathers before it can be weighed.
#[derive(Debug, Default)]
struct Seen {
    host: Option<Span>,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    connection_upgrade: bool,
    expect: Tally,
    upgrade: Tally,
    websocket_key: Tally,
    websocket_version: Tally,
}

/// Fields that a client may not have removed by naming them in `Connection` (decision 2).
const NEVER_NOMINATED: [&str; 4] = ["Host", "Content-Length", "Transfer-Encoding", "Authorization"];

impl Facts {
    /// Reads the facts from the fields of a head in `bytes`.
    pub(super) fn gather(
        bytes: &[u8],
        method: &[u8],
        version: Version,
        spans: &[FieldSpan],
    ) -> Result<Self, Rejection> {
        let mut seen = Seen::default();
        for (field, span) in Fields::new(bytes, spans).iter().zip(spans) {
            if let Some(known) = known(field.name).map_err(Rejection::Malformed)? {
                seen.take(known, field, span.value()).map_err(Rejection::Malformed)?;
            }
        }
        seen.weigh(method, version)
    }
}

impl Seen {
    fn take(&mut self, known: Known, field: Field<'_>, span: Span) -> Result<(), &'static str> {
        let value = field.value;
        match known {
            Known::Host if self.host.replace(span).is_some() => return Err("host_repeated"),
            Known::Host if !host::is_valid(value) => return Err("host"),
            Known::Host => {}
            Known::ContentLength => {
                if self.length.replace(fields::content_length(value)?).is_some() {
                    return Err("content_length_repeated");
                }
            }
            Known::TransferEncoding if !fields::is_chunked(value) => return Err("transfer_encoding"),
            Known::TransferEncoding if self.chunked => return Err("transfer_encoding_repeated"),
            Known::TransferEncoding => self.chunked = true,
            Known::Connection => self.take_connection(value)?,
            Known::Expect => self.expect.count(value.eq_ignore_ascii_case(b"100-continue")),
            Known::Upgrade => self.upgrade.count(value.eq_ignore_ascii_case(b"websocket")),
            Known::WebSocketVersion => self.websocket_version.count(value == b"13"),
            Known::WebSocketKey => self.websocket_key.count(is_websocket_key(value)),
        }
        Ok(())
    }

    fn take_connection(&mut self, value: &[u8]) -> Result<(), &'static str> {
        for option in list_items(value) {
            if NEVER_NOMINATED.iter().any(|name| option.eq_ignore_ascii_case(name.as_bytes())) {
                return Err("connection_nominates");
            }
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
        Ok(())
    }

    /// The rules that take more than one field, or the version.
    fn weigh(self, method: &[u8], version: Version) -> Result<Facts, Rejection> {
        let modern = version == Version::Http11;
        let framing = match (self.chunked, self.length) {
            (true, Some(_)) => return Err(Rejection::Malformed("content_length_with_transfer_encoding")),
            (true, None) if !modern => return Err(Rejection::Malformed("transfer_encoding_http10")),
            (true, None) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::None,
        };
        if self.host.is_none() && modern {
            return Err(Rejection::Malformed("host_missing"));
        }
        if modern && !self.expect.is_absent() && !self.expect.is_one_good() {
            return Err(Rejection::ExpectationFailed);
        }
        let bodiless = matches!(framing, Framing::None | Framing::Length(0));
        let websocket = modern
            && bodiless
            && method == b"GET"
            && self.connection_upgrade
            && [self.upgrade, self.websocket_version, self.websocket_key].iter().all(Tally::is_one_good);
        Ok(Facts {
            framing,
            host: self.host,
            close: self.close,
            keep_alive: self.keep_alive,
            expects_continue: modern && !bodiless && self.expect.is_one_good(),
            websocket,
        })
    }
}

impl Tally {
    fn count(&mut self, good: bool) {
        *(if good { &mut self.good } else { &mut self.bad }) += 1;
    }

    fn is_absent(&self) -> bool {
        (self.good, self.bad) == (0, 0)
    }

    fn is_one_good(&self) -> bool {
        (self.good, self.bad) == (1, 0)
    }
}

/// Which known field `name` is. A name that only some readers would take for a framing field is refused.
fn known(name: &[u8]) -> Result<Option<Known>, &'static str> {
    // By length first: most fields are none of these, and one comparison tells.
    let (known, text) = match name.len() {
        4 => (Known::Host, "Host"),
        6 => (Known::Expect, "Expect"),
        7 => (Known::Upgrade, "Upgrade"),
        10 => (Known::Connection, "Connection"),
        14 => (Known::ContentLength, "Content-Length"),
        17 if name.first().is_some_and(|first| first.eq_ignore_ascii_case(&b'S')) => {
            (Known::WebSocketKey, "Sec-WebSocket-Key")
        }
        17 => (Known::TransferEncoding, "Transfer-Encoding"),
        21 => (Known::WebSocketVersion, "Sec-WebSocket-Version"),
        _ => return Ok(None),
    };
    if name.eq_ignore_ascii_case(text.as_bytes()) {
        return Ok(Some(known));
    }
    let frames = matches!(known, Known::ContentLength | Known::TransferEncoding);
    if frames && fields::folds_to(name, text) { Err("framing_lookalike") } else { Ok(None) }
}

/// Whether `value` is the base64 of 16 bytes (RFC 6455 section 4.1).
fn is_websocket_key(value: &[u8]) -> bool {
    // The engine wants room for an estimate that is larger than what it decodes.
    STANDARD.decode_slice(value, &mut [0; 18]) == Ok(16)
}
