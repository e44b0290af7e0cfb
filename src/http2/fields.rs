//! Fields between HTTP/2's map and canonical HTTP/1 bytes: the one place where either becomes the other.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::http1::body::{BodyDecoder, Decoded, Sender, Trailer};
use crate::http1::head::{Field, Framing};
use crate::http1::write;

/// Whether a value can stand on a line of its own: the crates refuse these bytes already, and nothing may hang on that.
pub(crate) fn is_line(bytes: &[u8]) -> bool {
    !bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
}

/// The fields as a map, in their order. A field that HTTP/2 cannot say is left out.
pub(crate) fn to_map<'f>(fields: impl Iterator<Item = Field<'f>>) -> HeaderMap {
    let mut map = HeaderMap::new();
    for Field { name, value } in fields {
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) else {
            tracing::debug!("a field that HTTP/2 cannot carry was left out");
            continue;
        };
        // Fails past 24,576 fields: many times more than any head read here may have.
        let _ = map.try_append(name, value);
    }
    map
}

/// Trailers as a map.
pub(crate) fn trailers_to_map(trailers: &[Trailer]) -> HeaderMap {
    to_map(trailers.iter().map(|(name, value)| Field { name, value }))
}

/// Reads trailers by the rules that trailers of a chunked body are held to: they are written as the end of one.
/// The decoder holds them then. `Err` names the rule that was broken.
pub(crate) fn read_trailers(map: &HeaderMap, sender: Sender) -> Result<BodyDecoder, &'static str> {
    let mut end = b"0\r\n".to_vec();
    for (name, value) in map {
        if !is_line(value.as_bytes()) {
            return Err("field_value");
        }
        write::field(&mut end, name.as_str().as_bytes(), value.as_bytes());
    }
    end.extend_from_slice(b"\r\n");
    let mut decoder = BodyDecoder::new(Framing::Chunked, sender);
    match decoder.decode(&end) {
        Ok(Decoded::End { .. }) => Ok(decoder),
        Ok(_) => Err("trailers"),
        Err(error) => Err(error.0),
    }
}
