//! Values as they are written into a key file: on one line, quoted where another reader of YAML could take them for a
//! number, a switch or nothing, and never in a form that the quick reading of [`crate::yaml::simple`] does not take.

use std::fmt::Write as _;

/// A value to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// Text; quoted where it needs to be.
    Text(String),
    /// A number, switch or date of ours.
    Plain(String),
    /// A list of texts.
    List(Vec<String>),
    /// A mapping with our own field names.
    Map(Vec<(&'static str, Self)>),
}

impl Written {
    /// The value as YAML, on one line.
    pub fn to_yaml(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, false);
        out
    }

    fn write(&self, out: &mut String, in_brackets: bool) {
        match self {
            Self::Text(text) => write_text(out, text),
            // Inside brackets a colon could end a plain value for some readers.
            Self::Plain(text) if in_brackets && text.contains(':') => write_quoted(out, text),
            Self::Plain(text) => out.push_str(text),
            Self::List(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { ", " });
                    write_text(out, item);
                }
                out.push(']');
            }
            Self::Map(fields) => {
                out.push_str("{ ");
                for (at, (name, value)) in fields.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { ", " });
                    out.push_str(name);
                    out.push_str(": ");
                    value.write(out, true);
                }
                out.push_str(" }");
            }
        }
    }
}

fn write_text(out: &mut String, text: &str) {
    if is_plain(text) { out.push_str(text) } else { write_quoted(out, text) }
}

/// Whether `text` means itself to every reader of YAML without quotes, in brackets too.
fn is_plain(text: &str) -> bool {
    let words = ["true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf"];
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    let inner = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/'));
    // An id such as 48e8f859 begins with a digit and is no number: it needs a letter that no number holds.
    let letters = text.bytes().any(|byte| byte.is_ascii_alphabetic() && !matches!(byte, b'e' | b'E' | b'o' | b'x'));
    inner
        && (begins || letters && text.bytes().next().is_some_and(|byte| byte.is_ascii_digit()))
        && !words.iter().any(|word| word.eq_ignore_ascii_case(text))
        && !(text.starts_with("0x") || text.starts_with("0o") || text.starts_with("0b"))
}

fn write_quoted(out: &mut String, text: &str) {
    let escapes = text.contains(|c: char| c == '"' || c == '\\' || c.is_control() || !is_shown(c));
    if escapes && !text.contains(|c: char| c == '\'' || c.is_control() || !is_shown(c)) {
        out.push('\'');
        out.push_str(text);
        out.push('\'');
        return;
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || !is_shown(c) => {
                let _infallible = match u32::from(c) {
                    code @ 0..=0xff => write!(out, "\\x{code:02x}"),
                    code @ 0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    code => write!(out, "\\U{code:08x}"),
                };
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Whether a character may stand in YAML as it is, on one line.
fn is_shown(c: char) -> bool {
    !matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
        && (c == ' ' || !c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    #[test]
    fn texts_are_read_back_as_they_were() {
        for (text, want) in [
            ("alice", "alice"),
            ("48e8f859", "48e8f859"),
            ("48e85912", "\"48e85912\""),
            ("12", "\"12\""),
            ("0x1f", "\"0x1f\""),
            ("no", "\"no\""),
            ("Null", "\"Null\""),
            ("jobs:write", "\"jobs:write\""),
            ("a # b", "\"a # b\""),
            ("say \"hi\"", "'say \"hi\"'"),
            ("it's \"so\"", "\"it's \\\"so\\\"\""),
            ("two\nlines", "\"two\\nlines\""),
            ("", "\"\""),
            ("-", "\"-\""),
            ("Jörg", "\"Jörg\""),
            ("a\u{2028}b", "\"a\\u2028b\""),
        ] {
            let yaml = Written::Text(text.to_owned()).to_yaml();
            assert_eq!(yaml, want);
            let node = yaml::parse(&format!("a: {yaml}\nb: [{yaml}]\n")).expect(&yaml);
            let yaml::Value::Mapping(entries) = node.value else { unreachable!("a mapping") };
            assert_eq!(entries[0].value.text(), Some(text), "{yaml}");
            let yaml::Value::Sequence(items) = &entries[1].value.value else { unreachable!("a list") };
            assert_eq!(items[0].text(), Some(text), "{yaml}");
        }
    }

    #[test]
    fn lists_and_mappings_stay_on_one_line() {
        let roles = Written::List(vec!["client".to_owned(), "no".to_owned()]);
        assert_eq!(roles.to_yaml(), "[client, \"no\"]");
        assert_eq!(Written::List(Vec::new()).to_yaml(), "[]");
        let until = Written::Plain("2027-01-01T00:00:00Z".to_owned());
        assert_eq!(until.to_yaml(), "2027-01-01T00:00:00Z");
        let rate = Written::Map(vec![("requests", Written::Plain("10".to_owned())), ("until", until)]);
        assert_eq!(rate.to_yaml(), "{ requests: 10, until: \"2027-01-01T00:00:00Z\" }");
    }
}
