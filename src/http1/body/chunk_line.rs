//! The line before a chunk: `chunk-size [ chunk-ext ] CRLF` (RFC 9112 section 7.1), byte by byte. Extensions are checked
//! for their grammar and dropped.

use crate::http1::body::{MAX_CHUNK_LINE_BYTES, Sender};
use crate::http1::head::is_token;

/// A chunk-size line so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ChunkLine {
    place: Place,
    size: u64,
    digits: u8,
    len: u16,
}

/// Where in the line the next byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// In the size.
    #[default]
    Size,
    /// In blanks that a semicolon must follow.
    Blanks,
    /// Behind a semicolon and blanks.
    NameStart,
    Name,
    /// In blanks behind a name: an equals sign or a semicolon must follow.
    NameBlanks,
    /// Behind an equals sign and blanks.
    ValueStart,
    Value,
    Quoted,
    /// Behind a backslash in a quoted string.
    Escaped,
    /// Behind a closing quote.
    AfterQuote,
    /// Behind the CR.
    LineEnd,
}

/// Most digits of a chunk size: what fits in 64 bits.
const MAX_DIGITS: u8 = 16;

impl ChunkLine {
    /// Looks at the next byte. Once the line is complete: the size of the chunk, and how many bytes of the line were
    /// extensions.
    pub(super) fn take(&mut self, byte: u8, sender: Sender) -> Result<Option<(u64, u64)>, &'static str> {
        let ends = byte == b'\n' && (self.place == Place::LineEnd || (sender == Sender::Upstream && self.may_end()));
        if ends {
            return Ok(Some((self.size, u64::from(self.len.saturating_sub(u16::from(self.digits))))));
        }
        self.place = match byte {
            b'\r' if self.may_end() => Place::LineEnd,
            _ if self.place == Place::Size && self.take_digit(byte)? => Place::Size,
            _ => self.next_place(byte)?,
        };
        if self.place != Place::LineEnd {
            self.len += 1;
        }
        if usize::from(self.len) > MAX_CHUNK_LINE_BYTES {
            return Err("chunk_line_too_long");
        }
        Ok(None)
    }

    fn may_end(&self) -> bool {
        match self.place {
            Place::Size => self.digits > 0,
            Place::Name | Place::Value | Place::AfterQuote => true,
            _ => false,
        }
    }

    /// Takes `byte` as a digit of the size, if it is one.
    fn take_digit(&mut self, byte: u8) -> Result<bool, &'static str> {
        let Some(digit) = char::from(byte).to_digit(16) else { return Ok(false) };
        if self.digits == MAX_DIGITS {
            return Err("chunk_size");
        }
        self.digits += 1;
        self.size = (self.size << 4) | u64::from(digit);
        Ok(true)
    }

    /// `*( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )` (RFC 9112 section 7.1.1).
    fn next_place(&self, byte: u8) -> Result<Place, &'static str> {
        let blank = matches!(byte, b' ' | b'\t');
        let text = blank || byte.is_ascii_graphic() || byte >= 0x80;
        let token = is_token(&[byte]);
        let next = match self.place {
            Place::Size if self.digits == 0 => return Err("chunk_size"),
            Place::LineEnd => return Err("bare_cr"),
            _ if byte == b'\n' => return Err("bare_lf"),
            Place::Size | Place::Value | Place::AfterQuote | Place::Blanks if blank => Place::Blanks,
            Place::Name | Place::NameBlanks if blank => Place::NameBlanks,
            Place::Size | Place::Blanks | Place::Name | Place::NameBlanks | Place::Value | Place::AfterQuote
                if byte == b';' =>
            {
                Place::NameStart
            }
            Place::Name | Place::NameBlanks if byte == b'=' => Place::ValueStart,
            Place::NameStart if blank => Place::NameStart,
            Place::NameStart | Place::Name if token => Place::Name,
            Place::ValueStart if blank => Place::ValueStart,
            Place::ValueStart if byte == b'"' => Place::Quoted,
            Place::ValueStart | Place::Value if token => Place::Value,
            Place::Quoted if byte == b'"' => Place::AfterQuote,
            Place::Quoted if byte == b'\\' => Place::Escaped,
            Place::Quoted | Place::Escaped if text => Place::Quoted,
            Place::Size => return Err("chunk_size"),
            _ => return Err("chunk_extension"),
        };
        Ok(next)
    }
}
