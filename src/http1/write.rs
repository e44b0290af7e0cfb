//! Writing heads, chunks and trailers in the one canonical form that the gate ever sends.

use crate::http1::head::Framing;

/// What ends the field section of a head.
pub const END_OF_HEAD: &[u8] = b"\r\n";

/// What follows the payload of a chunk.
pub const END_OF_CHUNK: &[u8] = b"\r\n";

/// Appends a request line; always HTTP/1.1. The caller vouches for both parts: they come from a parsed head.
pub fn request_line(out: &mut Vec<u8>, method: &[u8], target: &[u8]) {
    out.extend_from_slice(method);
    out.push(b' ');
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// Appends a status line; always HTTP/1.1. `status` has three digits.
pub fn status_line(out: &mut Vec<u8>, status: u16, reason: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(decimal(status.into(), &mut [0; 20]));
    out.push(b' ');
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

/// Appends `name: value` and CRLF. The caller vouches for both: they come from a parsed head or from checked settings.
pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends the field that declares `framing`, if it takes one.
pub fn framing(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => {
            field(out, b"Content-Length", decimal(length, &mut [0; 20]));
        }
        Framing::Chunked => field(out, b"Transfer-Encoding", b"chunked"),
    }
}

/// Appends the line that opens a chunk of `len` bytes; the payload and [`END_OF_CHUNK`] follow. Nothing for an empty one,
/// which would end the body: write no [`END_OF_CHUNK`] then either.
pub fn chunk_head(out: &mut Vec<u8>, len: usize) {
    if len == 0 {
        return;
    }
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4);
    let digit = |place: u32| HEX.get(len >> (4 * place) & 0xf).copied();
    out.extend((0..digits).rev().filter_map(digit));
    out.extend_from_slice(b"\r\n");
}

/// Appends a whole chunk; nothing for an empty payload.
pub fn chunk(out: &mut Vec<u8>, payload: &[u8]) {
    if !payload.is_empty() {
        chunk_head(out, payload.len());
        out.extend_from_slice(payload);
        out.extend_from_slice(END_OF_CHUNK);
    }
}

/// Appends the last chunk and the trailer section, which end a chunked body. The caller vouches for the fields: they come
/// from a decoded body.
pub fn last_chunk<'a>(out: &mut Vec<u8>, trailers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        field(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Writes `number` in decimal at the end of `digits` and returns the part used.
pub fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + (number % 10) as u8;
        number /= 10;
        at -= 1;
        if number == 0 {
            break;
        }
    }
    digits.get(at..).unwrap_or_default()
}
