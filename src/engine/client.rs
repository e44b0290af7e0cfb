//! A client's side of one exchange: the wire it speaks through and who it is, whatever the protocol. The story of a request
//! (`exchange`, `reply`, `forward`) is written once against this.

use std::future::Future;
use std::sync::Arc;

use super::peer::Peer;
use super::watchdog::Watchdog;
use super::wire::Downstream;
use super::worker::Worker;

/// One client in the middle of one request: an HTTP/1 connection or an HTTP/2 stream.
pub(crate) trait Client: Send {
    /// What it is written to and read from.
    type Wire: Downstream;

    /// The wire, and the timer that bounds what is done with it.
    fn sides(&mut self) -> (&mut Self::Wire, &mut Watchdog);

    /// Who is at its other end.
    fn peer(&self) -> &Peer;

    /// The worker that serves it.
    fn worker(&self) -> &Arc<Worker>;

    /// Whether the request's body was read to its end and used.
    fn body_is_over(&self) -> bool;

    /// Reads and drops what is left of the request's body, where that is worth its while; says whether all of it is gone.
    fn drain(&mut self) -> impl Future<Output = bool> + Send;

    /// Told once a request is admitted; `keyed` is false where it is let in without a key, which leaves the client a stranger.
    fn admitted(&mut self, _keyed: bool) {}
}
