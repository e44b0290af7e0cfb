//! The `limits` of a key file entry, with the meaning they have in the configuration (decision 13).

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use super::notes::Notes;
use crate::limit::{Limits, Quota, QuotaWindow, Rate};
use crate::yaml::Entry;

const LIMITS: &[&str] = &["requests", "per", "burst", "concurrent", "websockets", "quota"];
const QUOTA: &[&str] = &["requests", "per"];
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// All groups of one key; what is wrong is noted and left out.
pub(super) fn limits(entry: &Entry, notes: &mut Notes) -> Limits {
    let mut limits = Limits::default();
    let (mut requests, mut per, mut burst) = (None, None, None);
    let Some(fields) = notes.mapping(entry) else { return limits };
    for field in fields {
        match field.key.as_str() {
            "requests" => requests = count(field, notes),
            "per" => per = duration(field, notes),
            "burst" => burst = count(field, notes),
            "concurrent" => limits.concurrent = count(field, notes),
            "websockets" => limits.websockets = count(field, notes),
            "quota" => limits.quota = quota(field, notes),
            other => notes.unknown(other, field.position.line, LIMITS),
        }
    }
    rate_is_whole(fields, notes);
    limits.rate = requests.zip(per).map(|(requests, per)| Rate { requests, per, burst: burst.unwrap_or(requests) });
    limits
}

/// `requests` and `per` come together; `burst` does not come without them.
fn rate_is_whole(fields: &[Entry], notes: &mut Notes) {
    let line_of = |name: &str| fields.iter().find(|field| field.key == name).map(|field| field.position.line);
    match (line_of("requests"), line_of("per"), line_of("burst")) {
        (Some(line), None, _) => notes.hinted(line, "`requests` has no `per`", "such as `per: 1s`"),
        (None, Some(line), _) => notes.hinted(line, "`per` has no `requests`", "such as `requests: 10`"),
        (None, None, Some(line)) => notes.hinted(line, "`burst` has no rate", "it belongs to `requests` and `per`"),
        (Some(_), Some(_), _) | (None, None, None) => {}
    }
}

fn quota(entry: &Entry, notes: &mut Notes) -> Option<Quota> {
    let fields = notes.mapping(entry)?;
    notes.missing(fields, QUOTA, entry.position.line, "`quota`");
    let (mut requests, mut per) = (None, None);
    for field in fields {
        match field.key.as_str() {
            "requests" => requests = whole_number(field, notes),
            "per" => per = window(field, notes),
            other => notes.unknown(other, field.position.line, QUOTA),
        }
    }
    Some(Quota { requests: requests?, per: per? })
}

fn window(entry: &Entry, notes: &mut Notes) -> Option<QuotaWindow> {
    let window = match notes.scalar(entry)? {
        "1h" => Some(QuotaWindow::Hour),
        "1d" => Some(QuotaWindow::Day),
        "1mo" => Some(QuotaWindow::Month),
        _ => None,
    };
    if window.is_none() {
        notes.problem(entry.position.line, "`per` of a quota must be 1h, 1d or 1mo");
    }
    window
}

fn count(entry: &Entry, notes: &mut Notes) -> Option<NonZeroU32> {
    let number = whole_number(entry, notes)?;
    let count = NonZeroU32::try_from(number).ok();
    if count.is_none() {
        notes.problem(entry.position.line, format!("`{}` is over {}", entry.key, u32::MAX));
    }
    count
}

fn whole_number(entry: &Entry, notes: &mut Notes) -> Option<NonZeroU64> {
    let text = notes.scalar(entry)?;
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse::<u64>().ok() } else { None };
    let line = entry.position.line;
    match number.map(NonZeroU64::new) {
        Some(Some(number)) => return Some(number),
        Some(None) => {
            let what = format!("`{}` must be at least 1", entry.key);
            notes.hinted(line, what, "to bar a key write `disabled: true`; to lift a limit leave it out");
        }
        None => notes.problem(line, format!("`{}` must be a whole number", entry.key)),
    }
    None
}

fn duration(entry: &Entry, notes: &mut Notes) -> Option<Duration> {
    let duration = span(notes.scalar(entry)?).filter(|span| !span.is_zero() && *span <= LONGEST);
    if duration.is_none() {
        let what = format!("`{}` must be a time over zero and up to 366d", entry.key);
        notes.hinted(entry.position.line, what, "a whole number with ms, s, m, h or d, such as 1s or 10m");
    }
    duration
}

/// `500ms`, `10s`, `1m`, `1h`, `1d`.
fn span(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let number: u64 = digits.parse().ok()?;
    let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3_600),
        "d" => seconds(86_400),
        _ => None,
    }
}
