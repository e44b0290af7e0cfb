//! Integration tests: the real binary between bytes on sockets. Each module is one theme; what every test needs is in
//! `support`, and what must always hold is checked there on every response.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that cannot go on panics and says why"
)]

mod support;

mod auth; // who passes, who does not, and what each is told
mod conformance; // WebSocket frames, right and wrong: the same through the gate as direct
mod framing; // every row of the head and body tables, as bytes on a socket
mod paths; // what is routed is what the origin sees
mod tidy; // house rules: who may name what, and what the documents must hold
mod websocket; // handshakes, tunnels, their limits and ends
