//! What a caller is told about its limits: the values of `RateLimit-Policy` and `RateLimit`
//! (draft-ietf-httpapi-ratelimit-headers-11), which are lists of structured fields (RFC 9651).

use std::num::NonZeroU32;
use std::time::Duration;

use crate::rejection::Limited;

/// The largest integer of a structured field (RFC 9651 section 3.3.1).
const MAX_INTEGER: u64 = 999_999_999_999_999;

/// The limits that applied to one request and how they stand after it. No names of keys, no `pk`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    pub(super) key: Option<Standing>,
    pub(super) route: Option<Standing>,
    pub(super) quota: Option<Standing>,
    /// A bound on what is open at once, told only when it refused: how much of it is left changes without the caller.
    pub(super) at_once: Option<(Limited, NonZeroU32)>,
}

/// How one limit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// `q`: most requests in a window.
    most: u64,
    /// `r`: requests left.
    left: u64,
    /// `w`: the window in seconds.
    window: NonZeroU32,
    /// `t`: seconds until there are more; `None` when all are there.
    more_in: Option<NonZeroU32>,
}

impl Standing {
    /// `left` of `most` requests per `window` seconds, and the time until there are more.
    pub(super) fn new(most: u64, left: u64, window: u64, more_in: Option<Duration>) -> Self {
        Self { most, left, window: at_least_one(window), more_in: more_in.map(whole_seconds) }
    }
}

/// The name of the policy behind a refusal, as in `RateLimit-Policy`; `None` for the throttle, which has no policy.
pub fn policy_name(limited: Limited) -> Option<&'static str> {
    match limited {
        Limited::KeyRate => Some("key"),
        Limited::RouteRate => Some("route"),
        Limited::Quota => Some("quota"),
        Limited::Concurrent => Some("concurrent"),
        Limited::WebSockets => Some("websockets"),
        Limited::FailedAuth => None,
    }
}

impl Fields {
    /// Whether there is nothing to tell; then neither field is sent.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Writes the value of `RateLimit-Policy`, such as `"key";q=20;w=2, "quota";q=1000;w=86400`.
    pub fn write_policy(&self, out: &mut Vec<u8>) {
        let mut list = List { out, is_first: true };
        for (limited, standing) in self.standings() {
            list.item(limited);
            list.parameter(b"q", standing.most);
            list.parameter(b"w", standing.window.get().into());
        }
        if let Some((limited, most)) = self.at_once {
            list.item(limited);
            list.parameter(b"q", most.get().into());
            list.out.extend_from_slice(b";qu=\"concurrent-requests\"");
        }
    }

    /// Writes the value of `RateLimit`, such as `"key";r=19;t=1`. On a refusal, what refused has `r=0`, and its `t` is
    /// `Retry-After`.
    pub fn write_state(&self, out: &mut Vec<u8>) {
        let mut list = List { out, is_first: true };
        for (limited, standing) in self.standings() {
            list.item(limited);
            list.parameter(b"r", standing.left);
            if let Some(seconds) = standing.more_in {
                list.parameter(b"t", seconds.get().into());
            }
        }
        if let Some((limited, _)) = self.at_once {
            list.item(limited);
            list.parameter(b"r", 0);
            list.parameter(b"t", 1);
        }
    }

    fn standings(&self) -> impl Iterator<Item = (Limited, Standing)> {
        [(Limited::KeyRate, self.key), (Limited::RouteRate, self.route), (Limited::Quota, self.quota)]
            .into_iter()
            .filter_map(|(limited, standing)| Some((limited, standing?)))
    }
}

/// Rounded up, and at least one: the same as `Retry-After`.
fn whole_seconds(time: Duration) -> NonZeroU32 {
    at_least_one(time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0)))
}

fn at_least_one(number: u64) -> NonZeroU32 {
    u32::try_from(number).map_or(NonZeroU32::MAX, |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN))
}

/// A list of strings with parameters, being written (RFC 9651 section 4.1.1).
struct List<'o> {
    out: &'o mut Vec<u8>,
    is_first: bool,
}

impl List<'_> {
    fn item(&mut self, limited: Limited) {
        if !std::mem::take(&mut self.is_first) {
            self.out.extend_from_slice(b", ");
        }
        self.out.push(b'"');
        self.out.extend_from_slice(policy_name(limited).unwrap_or_default().as_bytes());
        self.out.push(b'"');
    }

    fn parameter(&mut self, name: &[u8], value: u64) {
        let mut digits = [0u8; 15];
        let mut rest = value.min(MAX_INTEGER);
        let mut unused = digits.len();
        for digit in digits.iter_mut().rev() {
            // Always below ten.
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
            unused -= 1;
            if rest == 0 {
                break;
            }
        }
        self.out.push(b';');
        self.out.extend_from_slice(name);
        self.out.push(b'=');
        self.out.extend_from_slice(digits.get(unused..).unwrap_or_default());
    }
}
