//! Text from strangers as pure ASCII inside a JSON string: no byte of it can end the string, the line, or reach a terminal.

/// More letters and digits than this after `kg_` are more than a key's public id, so some of them are secret.
const PUBLIC_ID_LEN: usize = 8;

/// Appends `bytes` escaped. Control bytes, DEL and every byte from 0x80 become `\u00XX`: the byte's number, whatever
/// coding it was meant in.
pub(super) fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| !is_plain(*byte)) {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain);
        if let Some((byte, tail)) = tail.split_first() {
            push_escape(out, u16::from(*byte));
            rest = tail;
        }
    }
    out.extend_from_slice(rest);
}

/// Appends `text` escaped; characters beyond ASCII become `\uXXXX`, as surrogate pairs where needed (RFC 8259 section 7).
pub(super) fn push_str(out: &mut Vec<u8>, text: &str) {
    if text.is_ascii() {
        return push_bytes(out, text.as_bytes());
    }
    for character in text.chars() {
        match u8::try_from(character) {
            Ok(byte) if is_plain(byte) => out.push(byte),
            _ => character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| push_escape(out, *unit)),
        }
    }
}

/// As [`push_bytes`], for what a client sent: anything shaped like a key of ours becomes `kg_***`, wherever it stands. At
/// most `max` bytes of the input are looked at; `...` says that there were more.
pub(super) fn push_client(out: &mut Vec<u8>, bytes: &[u8], max: usize) {
    let mut rest = bytes.get(..max).unwrap_or(bytes);
    while let Some((before, key)) = split_key(rest) {
        push_bytes(out, before);
        out.extend_from_slice(b"kg_***");
        rest = key.split_at(run(key)).1;
    }
    push_bytes(out, rest);
    if bytes.len() > max {
        out.extend_from_slice(b"...");
    }
}

/// Whether something shaped like a key of ours stands anywhere in `bytes`.
pub(super) fn has_key(bytes: &[u8]) -> bool {
    split_key(bytes).is_some()
}

/// What stands before the first `kg_` with more than an id behind it, and what follows that `kg_`.
fn split_key(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    memchr::memmem::find_iter(bytes, b"kg_").find_map(|at| {
        let (before, found) = bytes.split_at(at);
        let key = found.strip_prefix(b"kg_")?;
        (run(key) > PUBLIC_ID_LEN).then_some((before, key))
    })
}

fn run(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count()
}

fn is_plain(byte: u8) -> bool {
    (b' '..0x7f).contains(&byte) && byte != b'"' && byte != b'\\'
}

fn push_escape(out: &mut Vec<u8>, unit: u16) {
    match u8::try_from(unit) {
        Ok(b'"') => out.extend_from_slice(b"\\\""),
        Ok(b'\\') => out.extend_from_slice(b"\\\\"),
        _ => {
            out.extend_from_slice(b"\\u");
            for shift in [12, 8, 4, 0] {
                let digit = (unit >> shift & 0xf) as u8;
                out.push(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], want: &str) {
        let mut out = Vec::new();
        push_client(&mut out, bytes, 100);
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn bytes_are_escaped_and_keys_masked() {
        check(b"plain /text?x=1", "plain /text?x=1");
        check(b"\"\\", r#"\"\\"#);
        check(b"a\r\n\x00\x1b[2J\x7f\x80\x9b\xff", r"a\u000d\u000a\u0000\u001b[2J\u007f\u0080\u009b\u00ff");
        check(b"kg_abcdefgh", "kg_abcdefgh");
        check(b"kg_abcdefghi", "kg_***");
        check(b"<kg_abcdefghijkl> kg_ kg_mnopqrstuvwxyz\n", r"<kg_***> kg_ kg_***\u000a");
        check(b"kg_kg_abcdefghijkl", "kg_kg_***");
        check(&[b'x'; 101], &format!("{}...", "x".repeat(100)));
        // A key that the bound cuts shows no more than its public id.
        let cut = [&[b'x'; 89][..], b"kg_abcdefgh0123456789"].concat();
        check(&cut, &format!("{}kg_abcdefgh...", "x".repeat(89)));
    }

    #[test]
    fn text_beyond_ascii_reads_back() {
        for text in ["", "alice", "Zoë", "日本", "🦀\u{202e}", "\u{2028}\"\\\n"] {
            let mut out = vec![b'"'];
            push_str(&mut out, text);
            out.push(b'"');
            assert!(out.iter().all(|byte| (b' '..0x7f).contains(byte)));
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
