//! The right to be in flight: held by a request from its admission to its end, given back by dropping it.

use std::sync::Arc;

use super::fields::Fields;
use super::state::KeyState;

/// What a permit counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// A request in flight.
    Request,
    /// A request in flight that may become a WebSocket, for which a place is kept.
    Handshake,
    /// An open WebSocket.
    WebSocket,
}

/// An admitted request. Dropping it gives back what it holds.
#[derive(Debug)]
#[must_use = "dropping the permit says that the request is over"]
pub struct Permit {
    held: Option<(Arc<KeyState>, Hold)>,
    fields: Fields,
}

impl Permit {
    pub(super) fn new(state: Arc<KeyState>, hold: Hold, fields: Fields) -> Self {
        Self { held: Some((state, hold)), fields }
    }

    /// A permit that holds nothing: nobody's requests in flight are counted.
    pub(super) fn unbound(fields: Fields) -> Self {
        Self { held: None, fields }
    }

    /// How the limits stood after this request was admitted.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// At the upstream's 101: from now on it holds one of `websockets`, which was kept for it at admission, and no longer
    /// one of `concurrent` (decision 15).
    pub fn into_websocket(mut self) -> Self {
        if let Some((state, hold)) = &mut self.held {
            if *hold == Hold::Request {
                state.begin_websocket();
            }
            if *hold != Hold::WebSocket {
                state.end_request();
            }
            *hold = Hold::WebSocket;
        }
        self
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some((state, hold)) = self.held.take() else { return };
        match hold {
            Hold::Request => state.end_request(),
            Hold::Handshake => {
                state.end_request();
                state.end_websocket();
            }
            Hold::WebSocket => state.end_websocket(),
        }
    }
}
