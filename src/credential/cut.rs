//! Cutting credentials out of what goes upstream: by raw bytes, so that all that is not a credential stays as it was sent
//! (design rule 4).

use super::{Source, Sources, Untouched, query, read};
use crate::http1::head::list_items;

impl Sources {
    /// Appends `path` and what is left of `query` (what followed `?` in the target). Without anything left the `?` goes
    /// too, unless it was bare to begin with.
    pub fn write_target(&self, out: &mut Vec<u8>, path: &[u8], query: Option<&[u8]>, untouched: Untouched) {
        out.extend_from_slice(path);
        if let Some(query) = query {
            self.write_query(out, query, untouched);
        }
    }

    /// Appends a `Referer` without credentials: query arguments, user information and fragment are cut. Arguments go
    /// whoever they belong to in this request, since the link that led here may have been opened with a key.
    pub fn write_referer(&self, out: &mut Vec<u8>, value: &[u8]) {
        let value = until(value, b'#');
        let address = until(value, b'?');
        let authority = memchr::memmem::find(address, b"//").map_or(0, |at| at + 2);
        let (scheme, rest) = address.split_at_checked(authority).unwrap_or((address, &[]));
        let host = memchr::memrchr(b'@', until(rest, b'/')).map_or(0, |at| at + 1);
        out.extend_from_slice(scheme);
        let query = value.get(address.len() + 1..);
        self.write_target(out, rest.get(host..).unwrap_or_default(), query, Untouched::default());
    }

    /// Appends the cookies of all `lines`, joined, without those that are credentials. Whether anything was left.
    pub fn write_cookies<'a>(&self, out: &mut Vec<u8>, lines: impl Iterator<Item = &'a [u8]>) -> bool {
        let start = out.len();
        for line in lines {
            let mut joint: &[u8] = b"; ";
            for pair in line.split(|byte| *byte == b';').filter(|pair| !self.is_key_cookie(pair)) {
                let first = out.len() == start;
                out.extend_from_slice(if first { b"" } else { joint });
                // Blanks before a pair belong to the joint before it, which is either kept with it or written anew.
                out.extend_from_slice(if first || joint.len() > 1 { pair.trim_ascii_start() } else { pair });
                joint = b";";
            }
        }
        let left = out.iter().skip(start).any(|byte| !matches!(byte, b';' | b' ' | b'\t'));
        if !left {
            out.truncate(start);
        }
        left
    }

    /// Appends the items of all `Sec-WebSocket-Protocol` `lines`, joined, without those that carry a key. Whether
    /// anything was left: a key that was the only item is forwarded as none (decision 11).
    pub fn write_protocols<'a>(
        &self,
        out: &mut Vec<u8>,
        lines: impl Iterator<Item = &'a [u8]>,
        untouched: Untouched,
    ) -> bool {
        let start = out.len();
        for item in lines.flat_map(list_items).filter(|item| !self.is_key_protocol(item, untouched)) {
            if out.len() > start {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(item);
        }
        out.len() > start
    }

    fn write_query(&self, out: &mut Vec<u8>, query: &[u8], untouched: Untouched) {
        let start = out.len();
        out.push(b'?');
        if !self.has_query {
            return out.extend_from_slice(query);
        }
        let (mut kept, mut cut) = (0usize, false);
        for argument in query::arguments(query) {
            if self.is_key_argument(argument, untouched) {
                cut = true;
                continue;
            }
            if kept > 0 {
                out.push(b'&');
            }
            out.extend_from_slice(argument);
            kept += 1;
        }
        if cut && out.len() == start + 1 {
            out.truncate(start);
        }
    }

    fn is_key_argument(&self, argument: &[u8], untouched: Untouched) -> bool {
        let (encoded, _) = query::parts(argument);
        self.list.iter().enumerate().any(|(index, source)| match source {
            Source::Query { name, .. } => !untouched.source(index) && query::is_named(encoded, name),
            _ => false,
        })
    }

    fn is_key_cookie(&self, pair: &[u8]) -> bool {
        self.list.iter().any(|source| match source {
            Source::Cookie { name } => read::cookie_value(pair, name).is_some(),
            _ => false,
        })
    }

    fn is_key_protocol(&self, item: &[u8], untouched: Untouched) -> bool {
        self.list.iter().enumerate().any(|(index, source)| match source {
            Source::WebSocketProtocol { prefix } => !untouched.source(index) && item.starts_with(prefix.as_bytes()),
            _ => false,
        })
    }
}

/// What stands before the first `end`, or all of it.
fn until(bytes: &[u8], end: u8) -> &[u8] {
    memchr::memchr(end, bytes).and_then(|at| bytes.get(..at)).unwrap_or(bytes)
}
