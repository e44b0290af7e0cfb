//! When files that change together are worth reading again: a pure decision over what stat said and the time.

use std::time::{Duration, Instant};

/// What stat tells of a file; two that differ mean that it was written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Device and inode: another file under the same name.
    pub file: (u64, u64),
    /// Bytes.
    pub len: u64,
    /// Time of the last write, seconds and nanoseconds.
    pub modified: (i64, i64),
    /// Time of the last change of any kind, seconds and nanoseconds; cannot be set back by tools that keep the other.
    pub changed: (i64, i64),
}

/// One look at `N` files; `None` for one that is not there.
pub type Look<const N: usize> = [Option<Stamp>; N];

/// Between two looks.
pub const LOOK_EVERY: Duration = Duration::from_millis(200);

/// After this the files are read though nothing seems to have changed: some file systems tell little by stat.
pub const REREAD_EVERY: Duration = Duration::from_secs(5);

/// Follows `N` files that belong together.
#[derive(Clone, Copy, Debug)]
pub struct Watch<const N: usize> {
    last: Option<Look<N>>,
    read: Option<(Look<N>, Instant)>,
}

impl<const N: usize> Default for Watch<N> {
    fn default() -> Self {
        Self { last: None, read: None }
    }
}

impl<const N: usize> Watch<N> {
    /// Takes one look and says whether to read now: when all files held still since the look before, and either differ from
    /// when they were last read or were last read [`REREAD_EVERY`] ago. So a change is read at the second look after it, at
    /// most two times [`LOOK_EVERY`] later, and never while it is being written.
    pub fn look(&mut self, seen: Look<N>, now: Instant) -> bool {
        let still = self.last == Some(seen);
        self.last = Some(seen);
        let news = self.read.is_none_or(|(read, at)| read != seen || now.saturating_duration_since(at) >= REREAD_EVERY);
        if still && news {
            self.read = Some((seen, now));
        }
        still && news
    }

    /// Takes `seen` for what was read last, at the time it was.
    #[cfg(test)]
    pub(super) fn assume_read(&mut self, seen: Look<N>) {
        self.last = Some(seen);
        self.read = self.read.map(|(_, at)| (seen, at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(version: i64) -> Option<Stamp> {
        Some(Stamp { file: (1, 1), len: 10, modified: (version, 0), changed: (version, 0) })
    }

    /// Feeds looks 200 ms apart; `*` in `want` marks those at which the files are to be read.
    #[track_caller]
    fn check(looks: &[Look<2>], want: &str) {
        let start = Instant::now();
        let mut watch = Watch::default();
        let got: String = (0_u32..)
            .zip(looks)
            .map(|(step, look)| if watch.look(*look, start + LOOK_EVERY * step) { '*' } else { '.' })
            .collect();
        assert_eq!(got, want);
    }

    #[test]
    fn a_change_is_read_once_it_holds_still() {
        let (a, b, c) = (stamp(1), stamp(2), stamp(3));
        check(&[[a, a], [a, a], [a, a]], ".*.");
        check(&[[a, a], [a, a], [b, a], [b, a], [b, a]], ".*.*.");
        // The key follows the certificate: read only when both are still.
        check(&[[a, a], [a, a], [b, a], [b, b], [b, b], [b, b]], ".*..*.");
        // Written all the time: never read.
        check(&[[a, a], [b, a], [c, a], [a, a], [b, a]], ".....");
        // Gone is a change too, and so is coming back as it was.
        check(&[[a, a], [a, a], [None, a], [None, a], [a, a], [a, a]], ".*.*.*");
        // Changed and back between two reads: nothing to read.
        check(&[[a, a], [a, a], [b, a], [a, a], [a, a]], ".*...");
    }

    #[test]
    fn unchanged_files_are_read_every_five_seconds() {
        let looks = [[stamp(1), stamp(1)]; 52];
        let want: String = (0..52).map(|step| if matches!(step, 1 | 26 | 51) { '*' } else { '.' }).collect();
        check(&looks, &want);
    }
}
