//! A second reader of HTTP/1, for tests only: it shares no code with ours nor with `httparse`, knows no leniency and no
//! speed. What ours accepts, and all that ours writes, must read the same here.

/// A head: the three parts of its first line, its fields, its length.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) start: [Vec<u8>; 3],
    pub(crate) fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) len: usize,
}

/// A chunked body: its payload, its trailer fields, its length on the wire.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chunked {
    pub(crate) payload: Vec<u8>,
    pub(crate) trailers: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) len: usize,
}

/// Reads a head, or finds none.
pub(crate) fn head(bytes: &[u8]) -> Option<Head> {
    let mut at = 0;
    let first = line(bytes, &mut at)?;
    let mut spaces = first.iter().enumerate().filter(|(_, byte)| **byte == b' ').map(|(at, _)| at);
    let (one, two) = (spaces.next()?, spaces.next()?);
    let start = [first[..one].to_vec(), first[one + 1..two].to_vec(), first[two + 1..].to_vec()];
    let fields = fields(bytes, &mut at)?;
    Some(Head { start, fields, len: at })
}

/// Reads a chunked body without extensions, or finds none.
pub(crate) fn chunked(bytes: &[u8]) -> Option<Chunked> {
    let mut at = 0;
    let mut payload = Vec::new();
    loop {
        let digits = line(bytes, &mut at)?;
        if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        if size == 0 {
            let trailers = fields(bytes, &mut at)?;
            return Some(Chunked { payload, trailers, len: at });
        }
        payload.extend_from_slice(bytes.get(at..at.checked_add(size)?)?);
        at += size;
        if !line(bytes, &mut at)?.is_empty() {
            return None;
        }
    }
}

/// The values of all fields named `name`.
pub(crate) fn values<'h>(head: &'h Head, name: &str) -> Vec<&'h [u8]> {
    let named = |field: &&(Vec<u8>, Vec<u8>)| field.0.to_ascii_lowercase() == name.to_ascii_lowercase().into_bytes();
    head.fields.iter().filter(named).map(|field| field.1.as_slice()).collect()
}

fn fields(bytes: &[u8], at: &mut usize) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut fields = Vec::new();
    loop {
        let line = line(bytes, at)?;
        if line.is_empty() {
            return Some(fields);
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, mut value) = (&line[..colon], &line[colon + 1..]);
        while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
            value = rest;
        }
        if name.is_empty() || !name.iter().all(|byte| tchar(*byte)) {
            return None;
        }
        if value.iter().any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f) {
            return None;
        }
        fields.push((name.to_vec(), value.to_vec()));
    }
}

/// The bytes up to the next CRLF; none if a CR or LF stands alone before it.
fn line<'b>(bytes: &'b [u8], at: &mut usize) -> Option<&'b [u8]> {
    let start = *at;
    loop {
        match bytes.get(*at)? {
            b'\r' if bytes.get(*at + 1) == Some(&b'\n') => {
                *at += 2;
                return Some(&bytes[start..*at - 2]);
            }
            b'\r' | b'\n' => return None,
            _ => *at += 1,
        }
    }
}

fn tchar(byte: u8) -> bool {
    byte.is_ascii_digit() || byte.is_ascii_alphabetic() || "!#$%&'*+-.^_`|~".contains(char::from(byte))
}
