//! What the connections of an upstream have in common: the configuration and the TLS files they were opened under. When
//! either is replaced a new era begins; no connection of an older one is used for another request.

use std::sync::atomic::{AtomicBool, Ordering};

use super::client_tls::ClientTls;

/// One era of an upstream. Its place in memory tells it from all others for as long as anybody holds it.
#[derive(Debug)]
pub(super) struct Era {
    pub(super) tls: Option<ClientTls>,
    over: AtomicBool,
}

impl Era {
    pub(super) fn new(tls: Option<ClientTls>) -> Self {
        Self { tls, over: AtomicBool::new(false) }
    }

    /// Ends it: pools let go of its connections, while requests under way go on.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}
