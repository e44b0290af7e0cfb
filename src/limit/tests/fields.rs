//! The header values, read back by a strict reader of lists (RFC 9651 section 4.2), written apart from the writer.

use super::*;
use crate::limit::fields::{Fields, policy_name};
use crate::rejection::{Limited, Rejection};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Bare {
    Integer(i64),
    Text(String),
}

type Item = (Bare, Vec<(String, Bare)>);

/// Reads a list of strings and integers with parameters; `None` for anything that the grammar does not allow.
struct Reader<'t>(&'t [u8]);

impl Reader<'_> {
    fn list(text: &[u8]) -> Option<Vec<Item>> {
        let mut reader = Reader(text);
        let mut items = Vec::new();
        while !reader.0.is_empty() {
            items.push(reader.item()?);
            reader.blanks();
            if reader.0.is_empty() {
                return Some(items);
            }
            reader.eat(b',')?;
            reader.blanks();
            if reader.0.is_empty() {
                return None;
            }
        }
        Some(items)
    }

    fn item(&mut self) -> Option<Item> {
        let bare = self.bare()?;
        let mut parameters: Vec<(String, Bare)> = Vec::new();
        while self.eat(b';').is_some() {
            while self.eat(b' ').is_some() {}
            let name = self.name()?;
            self.eat(b'=')?;
            let value = self.bare()?;
            if parameters.iter().any(|(own, _)| *own == name) {
                return None;
            }
            parameters.push((name, value));
        }
        Some((bare, parameters))
    }

    fn bare(&mut self) -> Option<Bare> {
        if self.eat(b'"').is_some() {
            let mut text = String::new();
            loop {
                match self.next()? {
                    b'"' => return Some(Bare::Text(text)),
                    b'\\' => match self.next()? {
                        escaped @ (b'"' | b'\\') => text.push(char::from(escaped)),
                        _ => return None,
                    },
                    byte @ 0x20..=0x7e => text.push(char::from(byte)),
                    _ => return None,
                }
            }
        }
        let minus = self.eat(b'-').is_some();
        let mut digits = String::new();
        while let Some(digit) = self.0.first().filter(|byte| byte.is_ascii_digit()) {
            digits.push(char::from(*digit));
            self.next();
        }
        let number = (digits.len() <= 15).then(|| digits.parse::<i64>().ok())??;
        Some(Bare::Integer(if minus { -number } else { number }))
    }

    fn name(&mut self) -> Option<String> {
        let first = self.next().filter(|byte| byte.is_ascii_lowercase() || *byte == b'*')?;
        let mut name = String::from(char::from(first));
        while let Some(byte) =
            self.0.first().filter(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(byte))
        {
            name.push(char::from(*byte));
            self.next();
        }
        Some(name)
    }

    fn blanks(&mut self) {
        while self.eat(b' ').is_some() || self.eat(b'\t').is_some() {}
    }

    fn eat(&mut self, byte: u8) -> Option<u8> {
        (self.0.first() == Some(&byte)).then(|| self.next())?
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }
}

#[test]
fn the_reader_is_strict() {
    for good in ["", "\"a\"", "\"a\";q=1", "\"a\";q=1, \"b\\\"\" ,\t\"c\";x=\"y\"", "1;q=-2"] {
        assert!(Reader::list(good.as_bytes()).is_some(), "{good}");
    }
    for bad in [
        ",",
        "\"a\",",
        "\"a",
        "a;q",
        "\"a\";Q=1",
        "\"a\";q=",
        "\"a\";q=1;q=2",
        "\"a\"\"b\"",
        "1234567890123456",
        "\"\u{e9}\"",
    ] {
        assert!(Reader::list(bad.as_bytes()).is_none(), "{bad}");
    }
}

/// Both values as text, after the strict reader has had them.
fn values(fields: &Fields) -> (String, String) {
    let (mut policy, mut state) = (Vec::new(), Vec::new());
    fields.write_policy(&mut policy);
    fields.write_state(&mut state);
    let lists = [&policy, &state].map(|value| Reader::list(value).expect("a list of the grammar"));
    let names = lists.each_ref().map(|list| list.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
    assert_eq!(names[0], names[1], "each state names a policy");
    let [policy, state] = [policy, state].map(|value| String::from_utf8(value).expect("ASCII"));
    (policy, state)
}

#[test]
fn what_a_caller_is_told() {
    let day = Some(quota(1000, QuotaWindow::Day));
    let route = rate(5, 1000, 5);
    let tight = rate(1, 60_000, 1);
    let one = NonZeroU32::new(1);
    let key = only_rate(rate(10, 1000, 20));
    #[rustfmt::skip]
    let rows = [
        (key, None, r#""key";q=20;w=2"#, r#""key";r=19;t=1"#),
        (Limits { quota: day, ..key }, None, r#""key";q=20;w=2, "quota";q=1000;w=86400"#, r#""key";r=19;t=1, "quota";r=999;t=43200"#),
        (Limits { quota: day, ..key }, Some(route),
            r#""key";q=20;w=2, "route";q=5;w=1, "quota";q=1000;w=86400"#, r#""key";r=19;t=1, "route";r=4;t=1, "quota";r=999;t=43200"#),
        (Limits::default(), Some(tight), r#""route";q=1;w=60"#, r#""route";r=0;t=60"#),
        (only_rate(rate(3, 1000, 10)), None, r#""key";q=10;w=4"#, r#""key";r=9;t=1"#),
        (only_rate(rate(1000, 1, 1)), None, r#""key";q=1;w=1"#, r#""key";r=0;t=1"#),
        (Limits { concurrent: one, websockets: one, ..Limits::default() }, None, "", ""),
        (Limits { quota: Some(quota(u64::MAX, QuotaWindow::Month)), ..Limits::default() }, None,
            r#""quota";q=999999999999999;w=2678400"#, r#""quota";r=999999999999999;t=1425600"#),
    ];
    for (limits, route, policy, state) in rows {
        let (key, now) = (OneKey::new(), Clock::new().0);
        let permit = match route {
            Some(rate) => key.ask_route(&limits, "r", rate, now),
            None => key.ask(&limits, now),
        };
        let fields = *permit.expect("the first").fields();
        assert_eq!(values(&fields), (policy.to_owned(), state.to_owned()));
        assert_eq!(fields.is_empty(), policy.is_empty());
    }
}

#[test]
fn remaining_falls_by_one_and_a_refusal_says_zero_and_when() {
    let (key, clock, limits) = (OneKey::new(), Clock::new(), only_rate(rate(1, 2500, 3)));
    for left in [2, 1, 0] {
        let permit = key.ask(&limits, clock.0).expect("within the burst");
        assert_eq!(values(permit.fields()).1, format!("\"key\";r={left};t=3"));
    }
    for (millis, seconds) in [(0, 3), (400, 3), (500, 2), (1500, 1), (2499, 1)] {
        let refusal = key.ask(&limits, clock.millis(millis)).expect_err("spent");
        assert_eq!(values(&refusal.fields).1, format!("\"key\";r=0;t={seconds}"), "{millis}");
        assert_eq!(Rejection::from(refusal).retry_after(), Some(seconds), "{millis}");
    }
}

#[test]
fn every_refusal_names_a_policy_with_nothing_left_that_agrees_with_retry_after() {
    let one = NonZeroU32::new(1);
    let none = Limits::default();
    #[rustfmt::skip]
    let rows = [
        (Limited::KeyRate, only_rate(rate(1, 7000, 1)), None),
        (Limited::RouteRate, none, Some(rate(1, 9500, 1))),
        (Limited::Quota, Limits { quota: Some(quota(1, QuotaWindow::Month)), ..only_rate(rate(1, 7000, 5)) }, None),
        (Limited::Concurrent, Limits { concurrent: one, ..only_rate(rate(1, 7000, 5)) }, None),
        (Limited::WebSockets, Limits { websockets: one, ..none }, None),
    ];
    for (limited, limits, route) in rows {
        let (key, now) = (OneKey::new(), Clock::new().0);
        let ask = |websocket| {
            let name = Arc::from("r");
            let route = route.map(|rate| (&name, rate));
            key.limiter.admit(&Ask { caller: Caller::Key(&key.id, &limits), route, websocket }, now)
        };
        let _held = ask(limited == Limited::WebSockets).expect("the first");
        let refusal = ask(limited == Limited::WebSockets).expect_err("the second");
        assert_eq!(refusal.limited, limited);
        let (_, state) = values(&refusal.fields);
        let seconds = Rejection::from(refusal).retry_after().expect("a 429");
        let name = policy_name(limited).expect("a policy");
        assert!(state.contains(&format!("\"{name}\";r=0;t={seconds}")), "{limited:?}: {state}");
    }
    assert_eq!(policy_name(Limited::FailedAuth), None);
}

#[test]
fn what_is_open_at_once_has_its_own_unit() {
    let limits = Limits { concurrent: NonZeroU32::new(2), ..only_rate(rate(10, 1000, 20)) };
    let (key, now) = (OneKey::new(), Clock::new().0);
    let _held = [key.ask(&limits, now).expect("first"), key.ask(&limits, now).expect("second")];
    let refusal = key.ask(&limits, now).expect_err("third");
    let expected =
        (r#""key";q=20;w=2, "concurrent";q=2;qu="concurrent-requests""#, r#""key";r=18;t=1, "concurrent";r=0;t=1"#);
    assert_eq!(values(&refusal.fields), (expected.0.to_owned(), expected.1.to_owned()));
}
