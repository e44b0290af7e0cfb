//! What a key may do and until when, as options of `create` and `update`, and as fields of its entry.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use ipnet::IpNet;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};

use crate::key;
use crate::keyring::edit::{self, Field, Written};
use crate::limit::{Limits, Quota, QuotaWindow, Rate};

/// The options.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Terms {
    /// Role of the key; may be given several times
    #[arg(long = "role", value_name = "ROLE")]
    pub(super) roles: Vec<String>,
    /// Scope of the key; may be given several times
    #[arg(long = "scope", value_name = "SCOPE")]
    pub(super) scopes: Vec<String>,
    /// When it ends: 600 (seconds), 10m, 3d, 1y, or a date such as 2027-11-22 or 2027-11-22T10:00:00Z
    #[arg(long = "expires-in", visible_alias = "expires", value_name = "TIME", value_parser = end)]
    pub(super) expires: Option<End>,
    /// Free text for operators
    #[arg(long, value_name = "TEXT")]
    pub(super) note: Option<String>,
    /// Rate, such as 10/s, 600/m or 5/10s
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(super) limit: Option<(NonZeroU32, Duration)>,
    /// Most requests at once within the rate [default: those of --limit]
    #[arg(long, value_name = "N", requires = "limit")]
    pub(super) burst: Option<NonZeroU32>,
    /// Requests in flight at once
    #[arg(long, value_name = "N")]
    pub(super) concurrent: Option<NonZeroU32>,
    /// Open WebSockets at once
    #[arg(long, value_name = "N")]
    pub(super) websockets: Option<NonZeroU32>,
    /// Quota of an hour, day or month in UTC: 100/h, 1000/d or 30000/mo
    #[arg(long, value_name = "QUOTA", value_parser = quota)]
    pub(super) quota: Option<Quota>,
    /// Address or network from which alone it may be used; may be given several times
    #[arg(long = "allow-from", value_name = "CIDR")]
    pub(super) allow_from: Vec<String>,
}

/// When a key ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// This long from now.
    After(SignedDuration),
    /// So many years from now, by the calendar.
    Years(i16),
    /// At this moment.
    At(Timestamp),
}

impl End {
    /// The moment, in whole seconds.
    pub(super) fn from(self, now: Timestamp) -> Option<Timestamp> {
        let end = match self {
            Self::After(span) => now.checked_add(span).ok()?,
            Self::Years(years) => {
                let years = Span::new().try_years(years).ok()?;
                now.to_zoned(TimeZone::UTC).checked_add(years).ok()?.timestamp()
            }
            Self::At(end) => return Some(end),
        };
        Timestamp::from_second(end.as_second()).ok()
    }
}

impl Terms {
    /// The fields that were given; `limits` are changed from what they were.
    pub(super) fn fields(&self, limits: Limits, now: Timestamp) -> Result<Vec<(Field, Written)>, String> {
        let mut fields = Vec::new();
        let list = |items: &[String]| Written::List(each_once(items));
        if !self.roles.is_empty() {
            fields.push((Field::Roles, list(&self.roles)));
        }
        if !self.scopes.is_empty() {
            fields.push((Field::Scopes, list(&self.scopes)));
        }
        if let Some(note) = &self.note {
            if key::holds_own_format(note.as_bytes()) {
                return Err("--note holds a key, and notes are no secret; the key now stands in the shell's history: \
                            replace it"
                    .to_owned());
            }
            fields.push((Field::Note, Written::Text(note.clone())));
        }
        if let Some(end) = self.expires {
            let end = end.from(now).ok_or("--expires-in is too far away")?;
            if end <= now {
                return Err("--expires-in lies in the past".to_owned());
            }
            fields.push((Field::Expires, Written::Plain(end.to_string())));
        }
        if let Some(net) = self.allow_from.iter().filter_map(|item| item.parse::<IpNet>().ok()).find(is_wide) {
            return Err(format!(
                "--allow-from {net} would allow all of {}: write that, or {}",
                net.trunc(),
                net.addr()
            ));
        }
        if !self.allow_from.is_empty() {
            fields.push((Field::AllowFrom, list(&self.allow_from)));
        }
        let limits = self.limits(limits);
        if let Some(limits) = edit::limits(&limits).filter(|_| self.has_limits()) {
            fields.push((Field::Limits, limits));
        }
        Ok(fields)
    }

    fn has_limits(&self) -> bool {
        self.limit.is_some() || self.concurrent.is_some() || self.websockets.is_some() || self.quota.is_some()
    }

    /// The limits that were given, the others from `old`.
    pub(super) fn limits(&self, old: Limits) -> Limits {
        let rate = self.limit.map(|(requests, per)| Rate { requests, per, burst: self.burst.unwrap_or(requests) });
        Limits { rate, concurrent: self.concurrent, websockets: self.websockets, quota: self.quota }.or(old)
    }
}

/// Whether a network is written as an address within it: which of both is meant?
fn is_wide(net: &IpNet) -> bool {
    net.addr() != net.network()
}

/// `600` (seconds), `10m`, `3d`, `2w`, `1y`, a date, or a moment with an offset.
pub(super) fn end(text: &str) -> Result<End, String> {
    let (digits, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let far = || "that is too far away".to_owned();
    if unit == "y" && !digits.is_empty() {
        let years = digits.parse::<i16>().map_err(|_many| far())?;
        return if years == 0 { Err(AT_ONCE.to_owned()) } else { Ok(End::Years(years)) };
    }
    if let Some(unit) = seconds(unit).filter(|_| !digits.is_empty()) {
        let seconds = digits.parse::<i64>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(far)?;
        if is_unix_time(text) {
            return Err(UNIX_TIME.to_owned());
        }
        return if seconds == 0 { Err(AT_ONCE.to_owned()) } else { Ok(End::After(SignedDuration::from_secs(seconds))) };
    }
    let midnight = || text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    let moment = if text.len() == 10 { midnight() } else { text.parse::<Timestamp>().ok() };
    moment.map(End::At).ok_or_else(|| {
        "write 600 (seconds), 10m, 3d, 1y, 2027-11-22 (its first moment in UTC) or 2027-11-22T10:00:00Z".to_owned()
    })
}

/// Whether a number without a unit can only be a moment counted in seconds since 1970, which would be half a century here.
fn is_unix_time(text: &str) -> bool {
    text.parse::<u64>().is_ok_and(|number| number >= 1_000_000_000)
}

const UNIX_TIME: &str =
    "that is over 30 years: a number is seconds from now, and a moment is written 2027-11-22T10:00:00Z";

const AT_ONCE: &str = "a key that ends at once is of no use";

/// A span of time: `0`, `600` (seconds), `10m`, `24h`, `30d`, `2w`.
pub(super) fn span(text: &str) -> Result<SignedDuration, String> {
    let (digits, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let seconds = seconds(unit).zip(digits.parse::<i64>().ok()).and_then(|(unit, number)| number.checked_mul(unit));
    let seconds = seconds.ok_or("write 0, 600 (seconds), 10m, 24h, 30d or 2w")?;
    if is_unix_time(text) {
        return Err(UNIX_TIME.to_owned());
    }
    Ok(SignedDuration::from_secs(seconds))
}

fn seconds(unit: &str) -> Option<i64> {
    match unit {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        "d" => Some(86_400),
        "w" => Some(604_800),
        _ => None,
    }
}

fn each_once(items: &[String]) -> Vec<String> {
    let mut once: Vec<String> = Vec::with_capacity(items.len());
    for item in items {
        if !once.contains(item) {
            once.push(item.clone());
        }
    }
    once
}

/// `10/s`, `600/m`, `5/10s`: requests and the time in which they are gained.
fn rate(text: &str) -> Result<(NonZeroU32, Duration), String> {
    let wrong = || "write a number and a time, such as 10/s, 600/m, 1000/h or 5/10s".to_owned();
    let (requests, per) = text.split_once('/').ok_or_else(wrong)?;
    let (digits, unit) = per.split_at(per.bytes().take_while(u8::is_ascii_digit).count());
    let number: u64 = if digits.is_empty() { 1 } else { digits.parse().map_err(|_no_number| wrong())? };
    let unit = match unit {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3_600),
        "d" => Duration::from_secs(86_400),
        _ => return Err(wrong()),
    };
    let per = u32::try_from(number).ok().and_then(|number| unit.checked_mul(number)).filter(|per| !per.is_zero());
    Ok((requests.parse().map_err(|_no_number| wrong())?, per.ok_or_else(wrong)?))
}

/// `100/h`, `1000/d`, `30000/mo`.
fn quota(text: &str) -> Result<Quota, String> {
    let wrong = || "write a number and a window: 100/h, 1000/d or 30000/mo".to_owned();
    let (requests, per) = text.split_once('/').ok_or_else(wrong)?;
    let per = match per {
        "h" | "1h" => QuotaWindow::Hour,
        "d" | "1d" => QuotaWindow::Day,
        "mo" | "1mo" => QuotaWindow::Month,
        _ => return Err(wrong()),
    };
    let requests = requests.parse::<NonZeroU64>().map_err(|_no_number| wrong())?;
    Ok(Quota { requests, per })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_read_in_every_documented_form() {
        let now: Timestamp = "2026-11-22T10:00:00.5Z".parse().expect("a moment");
        for (text, want) in [
            ("600", "2026-11-22T10:10:00Z"),
            ("10m", "2026-11-22T10:10:00Z"),
            ("3d", "2026-11-25T10:00:00Z"),
            ("2w", "2026-12-06T10:00:00Z"),
            ("1y", "2027-11-22T10:00:00Z"),
            ("2027-11-22", "2027-11-22T00:00:00Z"),
            ("2027-11-22T10:00:00+02:00", "2027-11-22T08:00:00Z"),
        ] {
            let end = end(text).unwrap_or_else(|e| panic!("{text}: {e}")).from(now).expect(text);
            assert_eq!(end.to_string(), want, "{text}");
        }
        for bad in ["", "0", "0d", "10x", "tomorrow", "2027-13-01", "2027-11-22T10:00:00", "99999999999999999999", "-5"]
        {
            assert!(end(bad).is_err(), "{bad}");
        }
        assert!(end("1798761600").is_err() && end("31536000").is_ok(), "a Unix time is no span");
        assert!(span("1798761600").is_err() && span("31536000").is_ok());
        assert_eq!(end("99999y").ok(), None);
        assert_eq!(end("30000y").expect("read").from(now), None);
    }

    #[test]
    fn spans_are_read_and_may_be_nothing() {
        for (text, want) in [("0", 0), ("0d", 0), ("600", 600), ("90s", 90), ("24h", 86_400), ("2w", 1_209_600)] {
            assert_eq!(span(text).map(|span| span.as_secs()), Ok(want), "{text}");
        }
        for bad in ["", "d", "-1d", "1y", "1.5h", "9223372036854775807w"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_and_quotas_are_read() {
        let rate_of = |text| rate(text).map(|(requests, per)| (requests.get(), per.as_millis())).ok();
        assert_eq!(rate_of("10/s"), Some((10, 1_000)));
        assert_eq!(rate_of("600/m"), Some((600, 60_000)));
        assert_eq!(rate_of("5/10s"), Some((5, 10_000)));
        assert_eq!(rate_of("1/500ms"), Some((1, 500)));
        for bad in ["10", "0/s", "/s", "10/", "10/0s", "10/y", "x/s", "-1/s"] {
            assert_eq!(rate_of(bad), None, "{bad}");
        }
        let quota_of = |text| quota(text).map(|quota| (quota.requests.get(), quota.per)).ok();
        assert_eq!(quota_of("1000/d"), Some((1_000, QuotaWindow::Day)));
        assert_eq!(quota_of("100/1h"), Some((100, QuotaWindow::Hour)));
        assert_eq!(quota_of("5/mo"), Some((5, QuotaWindow::Month)));
        for bad in ["1000", "0/d", "5/m", "5/w"] {
            assert_eq!(quota_of(bad), None, "{bad}");
        }
    }
}
