//! What request and response heads share: one buffer with ranges into it, and the rules every field line obeys.

/// A range into the buffer that holds a head. Heads are bounded to far less than 4 GiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

/// One field line: name and value, surrounding blanks of the value left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldSpan {
    name: Span,
    value: Span,
}

/// A field as it stands in a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name as sent.
    pub name: &'a [u8],
    /// The value without surrounding blanks.
    pub value: &'a [u8],
}

/// The fields of a head, in order.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    bytes: &'a [u8],
    spans: &'a [FieldSpan],
}

/// Bounds on a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Most bytes of a whole head, from the first of the start line to the blank line.
    pub max_head_bytes: usize,
    /// Most field lines.
    pub max_headers: usize,
    /// Most bytes of a request target.
    pub max_target_bytes: usize,
}

/// Protocol version of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
}

/// How a body's end is found (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// Exactly this many bytes; may be 0.
    Length(u64),
    /// Chunked coding.
    Chunked,
    /// All bytes until the sender closes; responses only.
    UntilClose,
}

impl Span {
    /// Bytes `start..end`.
    pub fn new(start: usize, end: usize) -> Self {
        let clip = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { start: clip(start), end: clip(end) }
    }

    /// The bytes it names in `bytes`; empty when it lies outside.
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

impl FieldSpan {
    /// A field line from its two ranges.
    pub fn new(name: Span, value: Span) -> Self {
        Self { name, value }
    }

    /// Where the value stands.
    pub(crate) fn value(self) -> Span {
        self.value
    }
}

impl<'a> Fields<'a> {
    /// The fields that `spans` name in `bytes`.
    pub fn new(bytes: &'a [u8], spans: &'a [FieldSpan]) -> Self {
        Self { bytes, spans }
    }

    /// Every field, in order.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Field<'a>> + ExactSizeIterator + Clone + use<'a> {
        self.spans.iter().map(move |span| Field { name: span.name.of(self.bytes), value: span.value.of(self.bytes) })
    }

    /// The values of every line named `name` (any case), in order.
    pub fn values(self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        self.iter().filter(move |field| field.is(name)).map(|field| field.value)
    }

    /// The value of the first line named `name` (any case).
    pub fn first(self, name: &'a str) -> Option<&'a [u8]> {
        self.values(name).next()
    }

    /// How many lines there are.
    pub fn len(self) -> usize {
        self.spans.len()
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.spans.is_empty()
    }
}

impl Field<'_> {
    /// Whether it is named `name`, in any case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The comma-separated items of a list value, blanks trimmed, empty items left out (RFC 9110 section 5.6.1). For lists
/// of tokens; a quoted string with a comma inside is cut in two.
pub fn list_items(value: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

/// Whether `bytes` is an RFC 9110 token: the form of methods and field names.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}
