//! The trailer section behind the last chunk (RFC 9112 section 7.1.2): collected up to a bound, then read by the same rules
//! as the fields of a head. What a trailer may not say is left out.

use crate::http1::body::{MAX_TRAILER_BYTES, Sender, Trailer};
use crate::http1::fields;
use crate::http1::head::Fields;
use crate::http1::scan::{LineError, LineScan};

/// A trailer section so far.
#[derive(Debug, Default)]
pub(super) struct Trailers {
    section: Vec<u8>,
    scan: LineScan,
    fields: Vec<Trailer>,
}

/// Most trailer lines.
const MAX_TRAILERS: usize = 64;

/// What only a header may say (RFC 9110 section 6.5.1): framing, routing, who is asking, and what the content is. Compared
/// without case and with every other byte as a hyphen, because a recipient may merge trailers into its headers.
const NEVER_TRAILERS: [&str; 31] = [
    "Authorization",
    "Cache-Control",
    "Connection",
    "Content-Encoding",
    "Content-Length",
    "Content-Range",
    "Content-Type",
    "Cookie",
    "Expect",
    "Forwarded",
    "Host",
    "HTTP2-Settings",
    "Keep-Alive",
    "Location",
    "Max-Forwards",
    "Origin",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Proxy-Connection",
    "Range",
    "Set-Cookie",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
    "Via",
    "WWW-Authenticate",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Real-IP",
];

impl Trailers {
    /// Looks at the next bytes and returns how many of them belong to the section, and whether it is over.
    pub(super) fn take(&mut self, input: &[u8], sender: Sender) -> Result<(usize, bool), &'static str> {
        let before = self.section.len();
        let room = MAX_TRAILER_BYTES.saturating_sub(before).min(input.len());
        self.section.extend_from_slice(input.get(..room).unwrap_or_default());
        let end = match self.scan.find_end(&self.section, sender, MAX_TRAILERS) {
            Ok(end) => end,
            Err(LineError::Broken(rule)) => return Err(rule),
            Err(LineError::TooMany) => return Err("trailers_too_large"),
        };
        let Some(end) = end else {
            return if self.section.len() < MAX_TRAILER_BYTES { Ok((room, false)) } else { Err("trailers_too_large") };
        };
        let mut spans = Vec::new();
        fields::read(&self.section, (0, end.len), end.lines, &mut spans)?;
        self.fields = Fields::new(&self.section, &spans)
            .iter()
            .filter(|field| !NEVER_TRAILERS.iter().any(|name| fields::folds_to(field.name, name)))
            .map(|field| (field.name.into(), field.value.into()))
            .collect();
        self.section = Vec::new();
        Ok((end.len.saturating_sub(before), true))
    }

    /// The fields, once the section is over.
    pub(super) fn fields(&self) -> &[Trailer] {
        &self.fields
    }
}
