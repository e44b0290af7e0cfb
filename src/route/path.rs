//! The readings of a path: every form in which an upstream might understand the bytes that were sent (design rule 2,
//! decision 1). A plain path has one reading and costs one pass; any other is expanded under a fixed budget, and what
//! can be read in more ways than the budget holds is refused like what is read in two.

use crate::rejection::Rejection;

/// Rounds of percent-decoding that are followed; a path that could be decoded once more is refused.
const MAX_DECODES: usize = 3;
/// Most readings of one path.
const MAX_READINGS: usize = 64;
/// Most bytes of all readings of one path of ordinary length; longer paths get [`BYTES_PER_BYTE`] times their own.
const MAX_BYTES: usize = 128 * 1024;
/// See [`MAX_BYTES`].
const BYTES_PER_BYTE: usize = 16;

/// What one pass over a path as sent says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One reading: single slashes and characters that mean themselves, all letters lower case.
    Plain,
    /// As `Plain`, with an upper-case letter: the lower-case reading may differ.
    MixedCase,
    /// It must be expanded with [`every_reading`].
    Tricky,
}

/// Looks at a path as sent, the target up to its first `?`.
///
/// Refused whatever the routes are: no leading slash, `?` or `#`, blanks, controls and bytes from 0x80, a `%` that two
/// hex digits do not follow, and dot segments (also those that hide behind `;params` or a backslash).
pub(super) fn inspect(path: &[u8]) -> Result<Shape, Rejection> {
    if path.first() != Some(&b'/') {
        return Err(Rejection::Malformed("path_form"));
    }
    let mut shape = Shape::Plain;
    let mut rest = path;
    let mut at_segment_start = false;
    while let Some((&byte, after)) = rest.split_first() {
        match byte {
            b'/' if at_segment_start => shape = Shape::Tricky,
            b'.' if at_segment_start && is_dot_segment(rest) => return Err(Rejection::Malformed("path_dot_segment")),
            b'A'..=b'Z' if shape == Shape::Plain => shape = Shape::MixedCase,
            b'\\' | b';' => shape = Shape::Tricky,
            b'%' if escape(rest).is_some() => shape = Shape::Tricky,
            b'%' => return Err(Rejection::Malformed("path_escape")),
            b'#' => return Err(Rejection::Malformed("path_fragment")),
            b'?' => return Err(Rejection::Malformed("path_form")),
            0..=b' ' | 0x7f => return Err(Rejection::Malformed("path_control")),
            0x80.. => return Err(Rejection::Malformed("path_not_ascii")),
            _ => {}
        }
        at_segment_start = is_separator(byte);
        rest = after;
    }
    Ok(shape)
}

/// Calls `lands_alike` with every reading of `path`, itself included, and refuses the path at the first `false`.
///
/// The readings are the closure of the steps below and of percent-decoding, at most three rounds of it. Lower case is
/// not a step: it commutes with all of them, so the caller looks each reading up in both ways.
pub(super) fn every_reading(path: &[u8], mut lands_alike: impl FnMut(&[u8]) -> bool) -> Result<(), Rejection> {
    let mut readings = Readings::of(path);
    let mut scratch = Vec::with_capacity(path.len());
    let mut round_start = 0;
    for decodes in 0..=MAX_DECODES {
        let mut next = round_start;
        while let Some(reading) = readings.get(next) {
            if !lands_alike(reading) {
                return Err(Rejection::AmbiguousPath);
            }
            for step in STEPS {
                scratch.clear();
                step(readings.get(next).unwrap_or_default(), &mut scratch);
                readings.add(&scratch)?;
            }
            next += 1;
        }
        for encoded in round_start..next {
            for keep in [keep_none, keep_slashes] {
                scratch.clear();
                let changed = decode(readings.get(encoded).unwrap_or_default(), keep, &mut scratch)?;
                if changed && decodes == MAX_DECODES {
                    return Err(Rejection::AmbiguousPath);
                }
                readings.add(&scratch)?;
            }
        }
        if readings.spans.len() == next {
            break;
        }
        round_start = next;
    }
    Ok(())
}

/// Distinct readings in the order they were found, one behind the other in one buffer.
struct Readings {
    bytes: Vec<u8>,
    spans: Vec<std::ops::Range<usize>>,
    max_bytes: usize,
}

impl Readings {
    fn of(path: &[u8]) -> Self {
        let max_bytes = MAX_BYTES.max(path.len().saturating_mul(BYTES_PER_BYTE));
        let mut bytes = Vec::with_capacity(path.len().saturating_mul(4));
        bytes.extend_from_slice(path);
        let whole = 0..path.len();
        Self { bytes, spans: Vec::from_iter([whole]), max_bytes }
    }

    fn get(&self, index: usize) -> Option<&[u8]> {
        self.bytes.get(self.spans.get(index)?.clone())
    }

    fn add(&mut self, reading: &[u8]) -> Result<(), Rejection> {
        let known = self.spans.iter().any(|span| self.bytes.get(span.clone()) == Some(reading));
        if known {
            return Ok(());
        }
        if self.spans.len() == MAX_READINGS || self.bytes.len() + reading.len() > self.max_bytes {
            return Err(Rejection::AmbiguousPath);
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(reading);
        self.spans.push(start..self.bytes.len());
        Ok(())
    }
}

/// A step writes what it makes of a reading; a reading it does not concern comes out as it went in.
type Step = fn(&[u8], &mut Vec<u8>);

const STEPS: [Step; 8] = [
    merge_slashes,
    turn_backslashes,
    drop_params,
    cut_at_params,
    cut_at_query,
    drop_authority,
    |path, out| resolve_dot_segments(path, out, "/"),
    |path, out| resolve_dot_segments(path, out, ""),
];

/// `//` as `/`: nginx and most frameworks.
fn merge_slashes(path: &[u8], out: &mut Vec<u8>) {
    for &byte in path {
        if byte != b'/' || out.last() != Some(&b'/') {
            out.push(byte);
        }
    }
}

/// `\` as `/`: IIS, and URL parsers that follow the WHATWG rules.
fn turn_backslashes(path: &[u8], out: &mut Vec<u8>) {
    out.extend(path.iter().map(|&byte| if byte == b'\\' { b'/' } else { byte }));
}

/// Each segment without its `;params`: servlet containers.
fn drop_params(path: &[u8], out: &mut Vec<u8>) {
    let mut in_params = false;
    for &byte in path {
        match byte {
            b'/' => in_params = false,
            b';' => in_params = true,
            _ => {}
        }
        if !in_params {
            out.push(byte);
        }
    }
}

/// Everything from the first `;` dropped: parsers that know parameters only at the end of a path.
fn cut_at_params(path: &[u8], out: &mut Vec<u8>) {
    out.extend(path.iter().take_while(|byte| **byte != b';'));
}

/// A decoded `?` or `#` taken for the real one: rewriting servers (CVE-2024-38475).
fn cut_at_query(path: &[u8], out: &mut Vec<u8>) {
    out.extend(path.iter().take_while(|byte| !matches!(byte, b'?' | b'#')));
}

/// `//name/x` as a reference to the host `name` (RFC 3986 section 4.2), with any number of slashes from two (WHATWG URL):
/// upstreams that resolve the target against a base.
fn drop_authority(path: &[u8], out: &mut Vec<u8>) {
    if !path.starts_with(b"//") {
        out.extend_from_slice(path);
        return;
    }
    let after_slashes = path.iter().skip_while(|byte| **byte == b'/');
    out.extend(after_slashes.skip_while(|byte| **byte != b'/'));
    if out.is_empty() {
        out.push(b'/');
    }
}

/// `.` and `..` resolved, and never above the root. One at the end leaves `closing`: a slash (RFC 3986 section 5.2.4), or
/// nothing, as the path cleaners of most languages do.
fn resolve_dot_segments(path: &[u8], out: &mut Vec<u8>, closing: &str) {
    let mut segments = path.split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"." => {}
            b".." => {
                let parent = out.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                out.truncate(parent);
            }
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
                continue;
            }
        }
        if is_last {
            out.extend_from_slice(closing.as_bytes());
        }
    }
    if out.is_empty() {
        out.push(b'/');
    }
}

/// One round of percent-decoding but for what `keep` names; tells whether there was anything to decode.
///
/// Refused are escapes that stand for control bytes, and for the lead bytes of overlong UTF-8, in which lax decoders
/// see dots and slashes (`%c0%ae`). Other bytes from 0x80 are text in some encoding.
fn decode(path: &[u8], keep: fn(u8) -> bool, out: &mut Vec<u8>) -> Result<bool, Rejection> {
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        match escape(rest) {
            Some(decoded) if !keep(decoded) => {
                out.push(decoded);
                rest = rest.get(3..).unwrap_or_default();
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    let changed = out.len() != path.len();
    if changed && out.iter().any(u8::is_ascii_control) {
        return Err(Rejection::Malformed("path_control"));
    }
    if changed && has_overlong(out) {
        return Err(Rejection::Malformed("path_overlong"));
    }
    Ok(changed)
}

fn keep_none(_: u8) -> bool {
    false
}

/// Upstreams that see `%2e%2e` as dots and `%2f` as text: URL parsers, and servers told to leave encoded slashes alone.
fn keep_slashes(byte: u8) -> bool {
    byte == b'/'
}

/// Whether `bytes` hold a sequence that a lax UTF-8 decoder would take for a shorter character (RFC 3629 section 10).
fn has_overlong(bytes: &[u8]) -> bool {
    bytes.contains(&0xc0)
        || bytes.contains(&0xc1)
        || bytes.array_windows().any(|pair| {
            matches!(pair, [0xe0, 0x80..=0x9f] | [0xf0, 0x80..=0x8f] | [0xf8, 0x80..=0x87] | [0xfc, 0x80..=0x83])
        })
}

/// The byte that an escape at the start of `rest` stands for.
fn escape(rest: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = rest else { return None };
    let [high, low] = [*high, *low].map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? * 16 + low?).ok()
}

/// Whether the segment at the start of `rest` is `.` or `..`, with or without `;params`.
fn is_dot_segment(rest: &[u8]) -> bool {
    let end = rest.iter().position(|byte| is_separator(*byte) || *byte == b';').unwrap_or(rest.len());
    matches!(rest.get(..end), Some(b"." | b".."))
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b'/' | b'\\')
}
