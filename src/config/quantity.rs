//! Values that are amounts or choices: durations, sizes, counts, `true` and `false`, one word of a list.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::Duration;

use super::foreign::nearest;
use super::problem::Fault;
use crate::limit::QuotaWindow;

/// A time of more than zero, such as `500ms`, `10s`, `1m`, `1h`, `1d`.
pub(super) fn duration(text: &str) -> Result<Duration, Fault> {
    let duration = duration_or_zero(text)?;
    if duration.is_zero() {
        return Err(Fault::new("must be more than 0"));
    }
    Ok(duration)
}

/// A time, with zero allowed.
pub(super) fn duration_or_zero(text: &str) -> Result<Duration, Fault> {
    let (digits, unit) = split_digits(text);
    if digits.is_empty() {
        return Err(Fault::new("is not a duration").hint(DURATION_HINT));
    }
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err(Fault::new("has no unit").suggest(format!("write `{digits}s` if seconds are meant"))),
        other => return Err(duration_fault(digits, other)),
    };
    let total = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(milliseconds));
    match total.map(Duration::from_millis) {
        Some(duration) if duration <= LONGEST => Ok(duration),
        _ => Err(Fault::new("is longer than 366d, the longest there is")),
    }
}

fn duration_fault(digits: &str, unit: &str) -> Fault {
    let fault = Fault::new("is not a duration");
    let meant = match unit.trim().to_ascii_lowercase().as_str() {
        "ms" | "msec" | "millis" | "milliseconds" => "ms",
        "s" | "sec" | "secs" | "second" | "seconds" => "s",
        "m" | "min" | "mins" | "minute" | "minutes" => "m",
        "h" | "hr" | "hour" | "hours" => "h",
        "d" | "day" | "days" => "d",
        "mo" | "month" | "months" => return fault.hint("only a quota counts in months; here the longest unit is d"),
        _ => return fault.hint(DURATION_HINT),
    };
    fault.suggest(format!("write `{digits}{meant}`"))
}

/// Bytes: a plain number, or with `B`, `KiB`, `MiB`, `GiB`.
pub(super) fn size(text: &str) -> Result<u64, Fault> {
    let (digits, unit) = split_digits(text);
    let hint = "write a whole number of bytes, or one with B, KiB, MiB or GiB, such as 32KiB";
    if digits.is_empty() {
        return Err(Fault::new("is not a size").hint(hint));
    }
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        other => {
            let fault = Fault::new("is not a size");
            let meant = match other.trim().to_ascii_lowercase().as_str() {
                "b" | "bytes" => "B",
                "k" | "kb" | "kib" => "KiB",
                "m" | "mb" | "mib" => "MiB",
                "g" | "gb" | "gib" => "GiB",
                _ => return Err(fault.hint(hint)),
            };
            return Err(fault.suggest(format!("write `{digits}{meant}`; units are powers of 1024")));
        }
    };
    let bytes = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(1 << shift));
    bytes.ok_or_else(|| Fault::new("is too large"))
}

/// A size between two bounds, as `usize`.
pub(super) fn size_within(low: usize, high: usize) -> impl Fn(&str) -> Result<usize, Fault> {
    move |text| {
        let bytes = usize::try_from(size(text)?).unwrap_or(usize::MAX);
        if (low..=high).contains(&bytes) {
            return Ok(bytes);
        }
        Err(Fault::new(format!("is out of bounds: from {} to {}", show_size(low as u64), show_size(high as u64))))
    }
}

/// A count of at least one.
pub(super) fn count(text: &str) -> Result<NonZeroU32, Fault> {
    let count = u32::try_from(large_count(text)?.get()).ok().and_then(NonZeroU32::new);
    count.ok_or_else(|| Fault::new(format!("is too large; at most {}", u32::MAX)))
}

/// A count of at least one that may pass four thousand million.
pub(super) fn large_count(text: &str) -> Result<NonZeroU64, Fault> {
    let (digits, rest) = split_digits(text);
    if digits.is_empty() || !rest.is_empty() {
        return Err(Fault::new("is not a count").hint("write a whole number of at least 1, digits alone"));
    }
    let count = digits.parse::<u64>().map_err(|_error| Fault::new("is too large"))?;
    NonZeroU64::new(count).ok_or_else(|| Fault::new("must be at least 1"))
}

/// A count between 1 and `high`, as `usize`.
pub(super) fn count_up_to(high: usize) -> impl Fn(&str) -> Result<usize, Fault> {
    move |text| {
        let count = usize::try_from(large_count(text)?.get()).unwrap_or(usize::MAX);
        if count <= high { Ok(count) } else { Err(Fault::new(format!("is too large; at most {high}"))) }
    }
}

/// `auto`, or a number of worker threads.
pub(super) fn threads(text: &str) -> Result<Option<NonZeroUsize>, Fault> {
    if text == "auto" {
        return Ok(None);
    }
    let fault = || Fault::new("is no number of threads").hint("write auto for one per core, or from 1 to 1024");
    count_up_to(1024)(text).map(NonZeroUsize::new).map_err(|_fault| fault())
}

/// `true` or `false`.
pub(super) fn boolean(text: &str) -> Result<bool, Fault> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        other => {
            let fault = Fault::new("is neither true nor false");
            Err(match other.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" | "y" => fault.suggest("write `true`"),
                "false" | "no" | "off" | "0" | "n" => fault.suggest("write `false`"),
                _ => fault,
            })
        }
    }
}

/// The window of a quota.
pub(super) fn quota_window(text: &str) -> Result<QuotaWindow, Fault> {
    match text {
        "1h" => Ok(QuotaWindow::Hour),
        "1d" => Ok(QuotaWindow::Day),
        "1mo" => Ok(QuotaWindow::Month),
        _ => Err(Fault::new("is not a window of a quota").hint("write 1h, 1d or 1mo; all begin and end in UTC")),
    }
}

/// One of a few words.
pub(super) fn choice<T: Copy>(words: &[(&'static str, T)]) -> impl Fn(&str) -> Result<T, Fault> {
    move |text| {
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let fault = Fault::new(format!("is not one of {}", names.join(", ")));
        Err(match nearest(&text.to_ascii_lowercase().replace('-', "_"), names.iter().copied()) {
            Some(word) => fault.suggest(format!("did you mean `{word}`?")),
            None => fault,
        })
    }
}

/// A duration as [`duration`] reads it, in the largest unit that keeps it whole.
pub(super) fn show_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if milliseconds >= size && milliseconds.is_multiple_of(size) {
            return format!("{}{unit}", milliseconds / size);
        }
    }
    format!("{milliseconds}ms")
}

/// A size as [`size`] reads it, in the largest unit that keeps it whole.
pub(super) fn show_size(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    if bytes == 0 { "0".to_owned() } else { format!("{bytes}B") }
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

const DURATION_HINT: &str = "write a whole number with ms, s, m, h or d, such as 10s or 500ms";

/// Longer is never meant, and a deadline that far away would not fit a clock everywhere.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, want) in [("500ms", 500), ("10s", 10_000), ("1m", 60_000), ("1h", 3_600_000), ("1d", 86_400_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(want)), "{text}");
            assert_eq!(show_duration(Duration::from_millis(want)), text);
        }
        assert_eq!(duration_or_zero("0s"), Ok(Duration::ZERO));
        for text in
            ["", "10", "0s", "s", "-1s", "1.5s", "10 s", "10sec", "1h30m", "1mo", "400d", "99999999999999999999s"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, want) in [("0", 0), ("256B", 256), ("32KiB", 32 << 10), ("1GiB", 1 << 30)] {
            assert_eq!(size(text), Ok(want), "{text}");
            assert_eq!(show_size(want), text);
        }
        assert_eq!(size("123"), Ok(123));
        for text in ["", "B", "1KB", "1mb", "1k", "1TiB", "1.5GiB", "-1", "99999999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn counts_booleans_and_windows() {
        assert_eq!(count("10").map(NonZeroU32::get), Ok(10));
        for text in ["0", "", "1_000", "1e3", "4294967296", "+1", "-1"] {
            assert!(count(text).is_err(), "{text}");
        }
        assert_eq!(boolean("true"), Ok(true));
        for text in ["True", "yes", "1", ""] {
            assert!(boolean(text).is_err(), "{text}");
        }
        assert_eq!(quota_window("1mo"), Ok(QuotaWindow::Month));
        assert!(quota_window("30d").is_err());
        assert_eq!(threads("auto"), Ok(None));
        assert!(threads("0").is_err());
    }
}
