//! When a changed key file is taken: a state machine over what was seen on disk and when. It touches neither files nor
//! clocks, so every order of events can be tested without waiting.

use std::time::{Duration, Instant};

use crate::keyring::file::ends_with_marker;
use crate::keyring::source::{ReadError, Source, Stamp};

/// How often the file is looked at when nothing notifies.
pub(super) const POLL: Duration = Duration::from_millis(200);
/// How long a change must hold still, and the time between two looks at one that does not.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// A file that never holds still is taken after this time all the same, if it can be.
const FORCE: Duration = Duration::from_millis(500);
/// A file that does not hold still and cannot be taken for this long is complained of: nobody waits in silence for ever.
const COMPLAIN: Duration = Duration::from_secs(5);
/// How often the content is compared even if `stat` says that nothing changed.
const REHASH: Duration = Duration::from_secs(5);

/// What `stat` said; an error is one more thing a file can be.
pub(super) type Look = Result<Stamp, ReadError>;

/// What was found by reading, without the content: equal ones would be judged alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A file that could be read.
    Bytes {
        /// SHA-256.
        digest: [u8; 32],
        /// Mode and owner.
        rights: (u32, u32),
        /// The file.
        stamp: Stamp,
        /// Whether it ends with `...`.
        whole: bool,
    },
    /// One that could not.
    Unreadable(ReadError),
}

impl Content {
    pub(super) fn of(read: &Result<Source, ReadError>) -> Self {
        match read {
            Ok(source) => Self::Bytes {
                digest: source.digest(),
                rights: source.rights(),
                stamp: source.stamp,
                whole: ends_with_marker(&source.bytes),
            },
            Err(error) => Self::Unreadable(error.clone()),
        }
    }

    /// SHA-256 of what could be read.
    pub(super) fn digest(&self) -> Option<[u8; 32]> {
        match self {
            Self::Bytes { digest, .. } => Some(*digest),
            Self::Unreadable(_) => None,
        }
    }

    fn stamp(&self) -> Look {
        match self {
            Self::Bytes { stamp, .. } => Ok(*stamp),
            Self::Unreadable(error) => Err(error.clone()),
        }
    }

    /// Whether both would be judged alike, wherever and whenever they were written.
    fn judged_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bytes { digest, rights, .. }, Self::Bytes { digest: other, rights: others, .. }) => {
                (digest, rights) == (other, others)
            }
            (Self::Unreadable(error), Self::Unreadable(other)) => error == other,
            (Self::Bytes { .. }, Self::Unreadable(_)) | (Self::Unreadable(_), Self::Bytes { .. }) => false,
        }
    }

    /// Whether it may be taken although it moves: it says that it is whole, or it is not the file `before` grown, which
    /// may still be arriving. Taking that would take a part of a set for the set.
    fn can_be_forced(&self, before: Option<Stamp>) -> bool {
        match self {
            Self::Bytes { stamp, whole, .. } => *whole || before.is_some_and(|before| !before.grew_into(stamp)),
            Self::Unreadable(_) => false,
        }
    }
}

/// What to do after a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Glance {
    /// Nothing yet; look again at the latest by this time.
    Rest(Instant),
    /// Read the content and show it to [`Watcher::read`].
    Read,
}

/// What to do with content just read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// What was dealt with before; nothing is to be done.
    Same,
    /// What was dealt with before, written again.
    Unchanged,
    /// It may still be moving; look again by this time.
    Wait(Instant),
    /// It held still: take it, and keep the old set and complain if it is bad.
    Take,
    /// It did not hold still for too long: take it if it is good, else tell [`Watcher::not_yet`].
    Force,
    /// It neither held still nor could be taken for long: say so once, and tell [`Watcher::not_yet`].
    Restless,
}

/// Remembers what was last dealt with and what is moving.
pub(super) struct Watcher {
    settled: Content,
    settled_look: Look,
    read_at: Instant,
    moving: Option<Moving>,
}

struct Moving {
    content: Content,
    /// The last that could be read, be it before `content`.
    readable: Option<Stamp>,
    since: Instant,
    next: Instant,
}

impl Watcher {
    /// Begins with `content` in force, read at `now`.
    pub(super) fn new(content: Content, now: Instant) -> Self {
        Self { settled_look: content.stamp(), settled: content, read_at: now, moving: None }
    }

    /// Judges what `stat` says at `now`.
    pub(super) fn look(&self, seen: &Look, now: Instant) -> Glance {
        match &self.moving {
            Some(moving) if now < moving.next => Glance::Rest(moving.next),
            Some(_) => Glance::Read,
            None if *seen != self.settled_look || now.saturating_duration_since(self.read_at) >= REHASH => Glance::Read,
            None => Glance::Rest(now + POLL),
        }
    }

    /// Judges content read at `now`.
    pub(super) fn read(&mut self, content: Content, now: Instant) -> Verdict {
        self.read_at = now;
        let next = now + DEBOUNCE;
        if content.judged_like(&self.settled) {
            let rewritten = self.settled_look != content.stamp();
            self.settle(content);
            return if rewritten { Verdict::Unchanged } else { Verdict::Same };
        }
        let Some(moving) = &mut self.moving else {
            self.moving = Some(Moving { readable: content.stamp().ok(), content, since: now, next });
            return Verdict::Wait(next);
        };
        let held_still = moving.content == content && content != Content::Unreadable(ReadError::Changing);
        let waited = now.saturating_duration_since(moving.since);
        let can_be_forced = content.can_be_forced(moving.readable);
        let readable = content.stamp().ok().or(moving.readable);
        *moving = Moving { content, readable, since: moving.since, next };
        match (held_still, can_be_forced) {
            (true, _) => {
                if let Some(moving) = self.moving.take() {
                    self.settle(moving.content);
                }
                Verdict::Take
            }
            (false, true) if waited >= FORCE => Verdict::Force,
            (false, false) if waited >= COMPLAIN => Verdict::Restless,
            (false, _) => Verdict::Wait(next),
        }
    }

    /// The forced content was good and is in force.
    pub(super) fn taken(&mut self) {
        if let Some(moving) = self.moving.take() {
            self.settle(moving.content);
        }
    }

    /// The content could not be taken, and finding that out ended at `now` and took `cost`: go on waiting, longer where
    /// judging is dear. Returns when to look.
    pub(super) fn not_yet(&mut self, now: Instant, cost: Duration) -> Instant {
        let next = now + DEBOUNCE.max(cost * 2);
        if let Some(moving) = &mut self.moving {
            moving.next = next;
        }
        next
    }

    fn settle(&mut self, content: Content) {
        self.moving = None;
        self.settled_look = content.stamp();
        self.settled = content;
    }
}

#[cfg(test)]
mod tests;
