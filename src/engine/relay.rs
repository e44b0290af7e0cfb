//! Moves one request and its response between client and upstream, both directions at once, without holding more than a
//! buffer of either, and with a deadline for every way in which either side can stall (design rule 10, decision 16).

mod pump;

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::watchdog::Watchdog;
use super::wire::{Downstream, Hangup, Wire, WireError};
use crate::engine::relay::pump::{Blocked, Direction, PumpError, pump};
use crate::http1::response::{Asked, ResponseHead};

/// How often a direction moves bytes before the other has its turn. The runtime grants a task some 128 reads and writes at a
/// time; a direction that never has to wait would use them all, and the other would stand still for as long as it lasts.
pub(crate) const TURN: usize = 16;

/// An upstream's side: it is asked, and answers with a head.
pub(crate) trait Answering: Wire + Send {
    /// Waits for a whole response head, final or interim; it then stands in [`Self::head_bytes`].
    fn poll_head(&mut self, asked: Asked, head: &mut ResponseHead, cx: &mut Context<'_>)
    -> Poll<Result<(), WireError>>;

    /// The bytes that the head was parsed from.
    fn head_bytes(&self) -> &[u8];

    /// Marks the head as used, and begins its body if it is final.
    fn take_head(&mut self, head: &ResponseHead);

    /// Whether any byte of an answer has come.
    fn has_answered(&self) -> bool;
}

/// Tells when the right to go on has ended: the key is no longer good, or the gate is going away.
pub(crate) trait Revocation: Send {
    /// Why it ended, once it has. Cheap; must be asked again whenever something moved.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<EndReason>;

    /// From now on the task must be woken when the right ends. Most exchanges are over before that is worth its price.
    fn stay_awake(&mut self);
}

/// Why an exchange or a tunnel is ended by the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndReason {
    /// The key was removed, disabled, changed its address list or lost a role the route needs.
    KeyRevoked,
    /// The key's expiry, or its rotation grace, passed.
    KeyExpired,
    /// The route is gone from the configuration or leads elsewhere.
    RouteChanged,
    /// The gate is shutting down.
    Shutdown,
}

impl EndReason {
    /// A word for the log.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::KeyRevoked => "key_revoked",
            Self::KeyExpired => "key_expired",
            Self::RouteChanged => "route_changed",
            Self::Shutdown => "shutdown",
        }
    }
}

/// The time each step may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// Between bytes of the request body.
    pub(crate) body_idle: Duration,
    /// Bytes a second that the request body must average after ten seconds; `None` where no floor is set.
    pub(crate) body_min_rate: Option<u64>,
    /// For a write to the client to make progress.
    pub(crate) client_write: Duration,
    /// For a write to the upstream to make progress.
    pub(crate) upstream_write: Duration,
    /// From the last request byte to the first of the answer.
    pub(crate) response: Duration,
    /// Between bytes of the answer.
    pub(crate) upstream_idle: Duration,
    /// Most bytes of the request body.
    pub(crate) max_body: Option<u64>,
}

/// Why a relay ended before its end.
#[derive(Debug)]
pub(crate) enum RelayError {
    /// The client closed or its connection failed.
    ClientGone,
    /// The client's body breaks a rule.
    ClientMalformed(&'static str),
    /// The client's body came too slowly.
    ClientSlow,
    /// The client does not read.
    ClientStalled,
    /// The client's body is larger than allowed.
    BodyTooLarge,
    /// The upstream closed or its connection failed.
    UpstreamGone,
    /// The upstream's answer breaks a rule.
    UpstreamMalformed(&'static str),
    /// The upstream did not answer in time.
    UpstreamSlow,
    /// The upstream does not read.
    UpstreamStalled,
    /// The gate ended it.
    Ended(EndReason),
}

/// After this much time an exchange is a long one: it is woken when its right ends, and the client's going is looked for.
/// Before that, a change is seen when something moves or at the latest at this moment, within the second of design rule 8.
const LONG: Duration = Duration::from_millis(250);

/// One exchange under way.
pub(crate) struct Relay<'a, D, U, R> {
    pub(crate) down: &'a mut D,
    pub(crate) up: &'a mut U,
    revocation: R,
    timing: Timing,
    watchdog: &'a mut Watchdog,
    request: Direction,
    response: Direction,
    trailers: TrailerFilters<'a>,
    /// Whether the client's body goes with the request.
    sends_body: bool,
    /// The upstream no longer takes the request; its answer may still come.
    upstream_deaf: bool,
    began: Instant,
    /// Whether it has lasted [`LONG`].
    long: bool,
    /// Between bytes of an answer to a client that will send nothing more, and may be gone.
    quiet_client_idle: Duration,
}

/// Which trailers pass, by name: of the request, and of the response.
#[derive(Clone, Copy)]
pub(crate) struct TrailerFilters<'a> {
    pub(crate) request: &'a (dyn Fn(&[u8]) -> bool + Sync),
    pub(crate) response: &'a (dyn Fn(&[u8]) -> bool + Sync),
}

impl<'a, D: Downstream, U: Answering, R: Revocation> Relay<'a, D, U, R> {
    /// A relay at the moment when the request's head is queued to the upstream.
    pub(crate) fn new(
        down: &'a mut D,
        up: &'a mut U,
        revocation: R,
        timing: Timing,
        trailers: TrailerFilters<'a>,
        watchdog: &'a mut Watchdog,
        now: Instant,
    ) -> Self {
        let direction = Direction { done: false, bytes: 0, moved: now, held: Duration::ZERO, blocked: Blocked::Source };
        Self {
            down,
            up,
            revocation,
            timing,
            watchdog,
            request: direction,
            response: direction,
            trailers,
            sends_body: true,
            upstream_deaf: false,
            began: now,
            long: false,
            quiet_client_idle: timing.upstream_idle,
        }
    }

    /// Sends the request and waits for the next response head, interim or final.
    pub(crate) async fn next_head(&mut self, asked: Asked, head: &mut ResponseHead) -> Result<(), RelayError> {
        poll_fn(|cx| {
            self.poll_right(cx)?;
            self.poll_request(cx)?;
            match self.up.poll_head(asked, head, cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(e)) => return Poll::Ready(Err(upstream_failed(e))),
                Poll::Pending => {}
            }
            self.poll_limits(false, cx)
        })
        .await
    }

    /// Relays the body of the final response, and what is left of the request's.
    pub(crate) async fn finish(&mut self) -> Result<(), RelayError> {
        self.response.moved = self.now();
        poll_fn(|cx| {
            self.poll_right(cx)?;
            self.poll_request(cx)?;
            if self.poll_response(cx)?.is_ready() {
                return Poll::Ready(Ok(()));
            }
            self.poll_limits(true, cx)
        })
        .await
    }

    /// Sends what is queued to the client, an interim response.
    pub(crate) async fn flush_interim(&mut self) -> Result<(), RelayError> {
        let deadline = self.now() + self.timing.client_write;
        poll_fn(|cx| {
            self.poll_right(cx)?;
            match self.down.poll_flush(cx) {
                Poll::Ready(flushed) => Poll::Ready(flushed.map_err(|_gone| RelayError::ClientGone)),
                Poll::Pending => self.poll_deadline((deadline, RelayError::ClientStalled), cx),
            }
        })
        .await
    }

    /// Withholds the client's body: only the head is sent.
    pub(crate) fn without_body(mut self) -> Self {
        self.sends_body = false;
        self
    }

    /// Allows another time between bytes of the answer, once it is known what kind of answer it is.
    pub(crate) fn set_upstream_idle(&mut self, idle: Duration) {
        self.timing.upstream_idle = idle;
    }

    /// The request's direction.
    pub(crate) fn request(&self) -> &Direction {
        &self.request
    }

    /// The response's direction.
    pub(crate) fn response(&self) -> &Direction {
        &self.response
    }

    fn poll_request(&mut self, cx: &mut Context<'_>) -> Result<(), RelayError> {
        if self.request.done || self.upstream_deaf {
            return Ok(());
        }
        if !self.sends_body {
            match self.up.poll_finish(&[], cx) {
                Poll::Ready(Ok(())) => self.request.done = true,
                Poll::Ready(Err(_)) => self.become_deaf(),
                Poll::Pending => self.request.blocked = Blocked::Sink,
            }
            return Ok(());
        }
        let max = self.timing.max_body;
        match pump(self.down, self.up, &mut self.request, max, self.trailers.request, cx) {
            Ok(Poll::Ready(())) => {
                self.response.moved = self.now();
                Ok(())
            }
            Ok(Poll::Pending) => Ok(()),
            Err(PumpError::Source(WireError::Malformed(rule))) => Err(RelayError::ClientMalformed(rule)),
            Err(PumpError::Source(WireError::Closed | WireError::Io)) => Err(RelayError::ClientGone),
            Err(PumpError::TooLarge) => Err(RelayError::BodyTooLarge),
            // The upstream may have answered and closed before it read everything: its answer decides.
            Err(PumpError::Sink) => {
                self.become_deaf();
                Ok(())
            }
        }
    }

    /// The upstream takes no more of the request: from here on it has the time for an answer that it has behind a whole one.
    fn become_deaf(&mut self) {
        self.upstream_deaf = true;
        self.response.moved = self.now();
    }

    fn poll_response(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, RelayError> {
        pump(self.up, self.down, &mut self.response, None, self.trailers.response, cx).map_err(|e| match e {
            PumpError::Source(e) => upstream_failed(e),
            PumpError::Sink | PumpError::TooLarge => RelayError::ClientGone,
        })
    }

    /// Ends the exchange when its right has ended. Asked before anything moves: an exchange that is always busy uses up the
    /// time that the runtime grants a task, and timers asked behind that would never tell.
    fn poll_right(&mut self, cx: &mut Context<'_>) -> Result<(), RelayError> {
        if !self.long && self.moved() >= self.began + LONG {
            self.become_long();
        }
        match self.revocation.poll_ended(cx) {
            Poll::Ready(reason) => Err(RelayError::Ended(reason)),
            Poll::Pending => Ok(()),
        }
    }

    fn become_long(&mut self) {
        self.long = true;
        self.revocation.stay_awake();
    }

    /// Ends the exchange when a deadline has passed, or the client is gone.
    fn poll_limits(&mut self, answering: bool, cx: &mut Context<'_>) -> Poll<Result<(), RelayError>> {
        if self.down.poll_gone(cx).is_ready() || self.long && self.poll_client_gone(cx) {
            return Poll::Ready(Err(RelayError::ClientGone));
        }
        let deadline = self.deadline(answering);
        self.poll_deadline(deadline, cx)
    }

    fn poll_deadline(
        &mut self,
        (deadline, error): (Instant, RelayError),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), RelayError>> {
        if self.moved() >= deadline {
            return Poll::Ready(Err(error));
        }
        let look = self.began + LONG;
        if !self.long && look < deadline {
            ready!(self.watchdog.poll_expired(look, cx));
            self.become_long();
            self.poll_right(cx)?;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.watchdog.poll_expired(deadline, cx));
        Poll::Ready(Err(error))
    }

    /// Whether the client of a long exchange, whose request is over, is known to be gone. One that only says that it will
    /// send nothing more may still read; but it gets the usual time between bytes and no longer one.
    fn poll_client_gone(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.request.done || !self.sends_body {
            return false;
        }
        loop {
            match self.down.poll_hangup(cx) {
                Poll::Ready(Hangup::Gone) => return true,
                Poll::Ready(Hangup::Quiet) => {
                    self.timing.upstream_idle = self.quiet_client_idle.min(self.timing.upstream_idle);
                }
                Poll::Pending => return false,
            }
        }
    }

    /// When anything last moved.
    fn moved(&self) -> Instant {
        self.request.moved.max(self.response.moved)
    }

    fn deadline(&self, answering: bool) -> (Instant, RelayError) {
        let timing = &self.timing;
        let answer = match (answering, self.response.blocked) {
            (true, Blocked::Source) => Some((self.response.moved + timing.upstream_idle, RelayError::UpstreamSlow)),
            (true, Blocked::Sink) => Some((self.response.moved + timing.client_write, RelayError::ClientStalled)),
            (false, _) if self.request.done || self.upstream_deaf => {
                Some((self.response.moved + timing.response, RelayError::UpstreamSlow))
            }
            (false, _) => None,
        };
        let request = match (self.request.done || self.upstream_deaf, self.request.blocked) {
            (true, _) => None,
            (false, Blocked::Source) => Some((self.request.due(self.began, timing), RelayError::ClientSlow)),
            (false, Blocked::Sink) => Some((self.request.moved + timing.upstream_write, RelayError::UpstreamStalled)),
        };
        match (answer, request) {
            (Some(a), Some(b)) => {
                if a.0 <= b.0 {
                    a
                } else {
                    b
                }
            }
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => (self.response.moved + timing.response, RelayError::UpstreamSlow),
        }
    }

    fn now(&self) -> Instant {
        now()
    }
}

fn upstream_failed(error: WireError) -> RelayError {
    match error {
        WireError::Closed | WireError::Io => RelayError::UpstreamGone,
        WireError::Malformed(rule) => RelayError::UpstreamMalformed(rule),
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
