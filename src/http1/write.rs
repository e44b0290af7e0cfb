//! Writing heads, chunks and trailers in the one canonical form that the gate ever sends.

use crate::http1::head::Framing;

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
