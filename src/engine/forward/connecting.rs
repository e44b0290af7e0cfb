//! Waiting for a connection to a server: no longer than the client waits for its answer, or may have one.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use super::{Failed, Forwarding, before_answer};
use crate::engine::key_watch::KeyWatch;
use crate::engine::relay::{RelayError, Revocation};
use crate::engine::report::Report;
use crate::engine::wire::Downstream;
use crate::route::Route;
use crate::upstream::connect::ConnectError;

impl Forwarding<'_> {
    /// Waits for a connection, unless the client gives up its request first, since what it resets must not pile up here, or its
    /// right to the request ends (design rule 8): then no server hears of it.
    pub(super) async fn unless_over<D: Downstream, C>(
        &self,
        route: &Arc<Route>,
        down: &mut D,
        report: &Report<'_>,
        connecting: impl Future<Output = Result<C, ConnectError>>,
    ) -> Result<C, Failed> {
        let mut connecting = pin!(connecting);
        // Most connections are there at once: only who waits is watched.
        let mut watch: Option<Box<KeyWatch<'_>>> = None;
        poll_fn(|cx| {
            if let Some(Poll::Ready(reason)) = watch.as_mut().map(|watch| watch.poll_ended(cx)) {
                return Poll::Ready(Err(before_answer(RelayError::Ended(reason))));
            }
            if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
                return Poll::Ready(connected.map_err(refused));
            }
            if watch.is_none() {
                let gate = &self.worker.gate;
                let fresh = KeyWatch::new(gate, self.keyring, self.request, self.admitted, report.client, route);
                let watch = watch.insert(Box::new(fresh));
                watch.stay_awake();
                if let Poll::Ready(reason) = watch.poll_ended(cx) {
                    return Poll::Ready(Err(before_answer(RelayError::Ended(reason))));
                }
            }
            ready!(down.poll_gone(cx));
            Poll::Ready(Err(Failed::Broken(RelayError::ClientGone)))
        })
        .await
    }
}

fn refused(error: ConnectError) -> Failed {
    tracing::warn!(%error, "no upstream connection");
    Failed::Refused(error.rejection())
}
