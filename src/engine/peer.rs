//! Who is at the other end of a connection, as far as the transport tells.

use std::net::IpAddr;

use tokio::sync::watch;

/// Seen by everything that belongs to one listener: its sender is dropped when the listener is closed, by a reload that takes
/// it away or by the end of the gate.
#[derive(Clone, Debug)]
pub(crate) struct Closing(watch::Receiver<()>);

impl Closing {
    /// A listener that is open while the sender lives.
    pub(crate) fn new() -> (watch::Sender<()>, Self) {
        let (open, seen) = watch::channel(());
        (open, Self(seen))
    }

    /// Whether the listener was closed.
    pub(crate) fn is_closing(&self) -> bool {
        self.0.has_changed().is_err()
    }

    /// Waits for it.
    pub(crate) async fn closed(mut self) {
        while self.0.changed().await.is_ok() {}
    }
}

/// A client's end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Its address; none on a unix socket.
    pub(crate) address: Option<IpAddr>,
    /// TLS version spoken with it, for the log; none on plain connections.
    pub(crate) tls: Option<&'static str>,
    /// Whether the listener it came through is still there: no connection outlives it by more than the request under way.
    pub(crate) listener: Closing,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_is_closed_when_its_sender_is_gone() {
        let (open, closing) = Closing::new();
        assert!(!closing.is_closing());
        drop(open);
        assert!(closing.is_closing());
        closing.closed().await;
    }
}
