//! Reads the case files: tables of hostile bytes as text, one row a line, shared by unit tests and by the tests that send
//! the same bytes to the real binary.
//!
//! A row is `name | context | bytes | expectation`; some tables have no context. `#` opens a comment line. In `bytes`,
//! `\r \n \t \0 \\` and `\xHH` stand for bytes, and `\{text*N}` for `text`, itself escaped, N times over. Blanks next to
//! a `|` do not count: a blank or `|` that matters is written `\x20` or `\x7c`.

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    /// Unique in its table.
    pub(crate) name: String,
    /// What the reader must know besides the bytes; empty in tables without that column.
    pub(crate) context: String,
    /// The bytes on the wire.
    pub(crate) bytes: Vec<u8>,
    /// What the table says must come of them.
    pub(crate) expectation: String,
}

/// All rows of a table. Panics with the line number at what is not a row, and at a name that comes twice.
pub(crate) fn read(table: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (line, number) in table.lines().zip(1..) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let (name, context, bytes, expectation) = match columns[..] {
            [name, bytes, expectation] => (name, "", bytes, expectation),
            [name, context, bytes, expectation] => (name, context, bytes, expectation),
            _ => panic!("line {number}: {} columns", columns.len()),
        };
        assert!(cases.iter().all(|case| case.name != name), "line {number}: {name} comes twice");
        let bytes = unescape(bytes).unwrap_or_else(|| panic!("line {number}: cannot read the bytes"));
        cases.push(Case { name: name.into(), context: context.into(), bytes, expectation: expectation.into() });
    }
    cases
}

/// The bytes that an escaped text stands for.
pub(crate) fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let Some(escape) = rest.strip_prefix('\\') else {
            let (plain, behind) = rest.split_at(first.len_utf8());
            bytes.extend_from_slice(plain.as_bytes());
            rest = behind;
            continue;
        };
        let (kind, behind) = escape.split_at_checked(1)?;
        rest = behind;
        match kind {
            "r" => bytes.push(b'\r'),
            "n" => bytes.push(b'\n'),
            "t" => bytes.push(b'\t'),
            "0" => bytes.push(0),
            "\\" => bytes.push(b'\\'),
            "x" => {
                let (digits, behind) = rest.split_at_checked(2)?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = behind;
            }
            "{" => {
                let (inside, behind) = rest.split_once('}')?;
                let (text, times) = inside.rsplit_once('*')?;
                bytes.extend(unescape(text)?.repeat(times.parse().ok()?));
                rest = behind;
            }
            _ => return None,
        }
    }
    Some(bytes)
}

/// `bytes` as the tables write them: graphic ASCII as it is, all else and `\`, `|` and blanks as `\xHH`.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'\\' && byte != b'|';
    bytes.iter().map(|&byte| if plain(byte) { char::from(byte).into() } else { format!("\\x{byte:02x}") }).collect()
}
