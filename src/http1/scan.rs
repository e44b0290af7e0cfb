//! Finds the blank line that ends a head or a trailer section, and refuses on the way the line ends that other readers
//! take differently. Remembers how far it looked, so that a head that arrives byte by byte is not read over and over.

use crate::http1::body::Sender;

/// How far the lines of one section were looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LineScan {
    /// Bytes before this one hold no line end that was not seen.
    seen: usize,
    /// Where the unfinished line starts.
    line_start: usize,
    /// How many lines are complete.
    lines: usize,
}

/// A section that is there in whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    /// Its length, blank line included.
    pub(crate) len: usize,
    /// Its lines, without the blank one.
    pub(crate) lines: usize,
}

/// Why the lines cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineError {
    /// A line end or fold that breaks the named rule.
    Broken(&'static str),
    /// More lines than allowed.
    TooMany,
}

impl LineScan {
    /// Looks for the end of the section at the start of `bytes`; `None` asks for more bytes.
    ///
    /// `bytes` must begin with the bytes of the call before. Should they not, an end may be found late, but what is found
    /// is right all the same: a section that came in pieces is looked through once more from its first byte.
    pub(crate) fn find_end(
        &mut self,
        bytes: &[u8],
        sender: Sender,
        max_lines: usize,
    ) -> Result<Option<Section>, LineError> {
        let resumed = self.seen > 0 && self.seen <= bytes.len();
        if !resumed {
            *self = Self::default();
        }
        let found = self.advance(bytes, sender, max_lines)?;
        if resumed && found.is_some() {
            *self = Self::default();
            return self.advance(bytes, sender, max_lines);
        }
        Ok(found)
    }

    fn advance(&mut self, bytes: &[u8], sender: Sender, max_lines: usize) -> Result<Option<Section>, LineError> {
        loop {
            let rest = bytes.get(self.seen..).unwrap_or_default();
            let Some(at) = memchr::memchr2(b'\r', b'\n', rest).map(|offset| self.seen + offset) else {
                self.seen = bytes.len();
                return Ok(None);
            };
            self.seen = at;
            let next_line = match (bytes.get(at), bytes.get(at + 1)) {
                (Some(b'\n'), _) if sender == Sender::Client => return Err(LineError::Broken("bare_lf")),
                (Some(b'\n'), _) => at + 1,
                (_, Some(b'\n')) => at + 2,
                (_, Some(_)) => return Err(LineError::Broken("bare_cr")),
                (_, None) => return Ok(None),
            };
            if at == self.line_start {
                return Ok(Some(Section { len: next_line, lines: self.lines }));
            }
            if matches!(bytes.get(self.line_start), Some(b' ' | b'\t')) {
                return Err(LineError::Broken("obs_fold"));
            }
            if self.lines == max_lines {
                return Err(LineError::TooMany);
            }
            *self = Self { seen: next_line, line_start: next_line, lines: self.lines + 1 };
        }
    }
}
