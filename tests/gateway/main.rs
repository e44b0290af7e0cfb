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
#![expect(unreachable_pub, reason = "the harness is a small library: its `pub` says what tests may use")]

mod support;

mod accesslog; // every field of the access line and every metric of the request path
mod admin; // the operators' listener, and Prometheus as its reader
mod attacks; // ways past the gate that were open once, each by its name
mod auth; // who passes, who does not, and what each is told
mod bodies; // every framing in both directions, byte for byte
mod browser; // links, cookies and CORS
mod commands; // check, serve that cannot start, and what demo prints
mod configreload; // SIGHUP, all or nothing
mod conformance; // WebSocket frames, right and wrong: the same through the gate as direct
mod contract; // the contract as written, and each of its settings turned
mod early; // exchanges that break off: refused, answered too soon or wrongly, left by their client
mod framing; // every row of the head and body tables, as bytes on a socket
mod grpc; // HTTP/2 towards upstreams, and gRPC end to end
mod hostile_upstream; // answers that break every rule
mod http; // HTTP/1 as clients use it: interim answers, Expect, pipelines, early answers
mod http2; // HTTP/2 towards clients: the same answers, bounds, hostile frames
mod http2_limits; // what bounds a client on HTTP/2: limits, deadlines, floods, memory
mod http2_upstream; // sessions to upstreams: ALPN, GOAWAY, limits of streams, reload, TLS files
mod identity; // what the upstream is told of the caller, and that no client can say it
mod keyfiles; // what can stand where the key file was, and changes that nothing notifies of
mod keyreload; // the key file changes under a running gate
mod keys; // the life of a key by the key commands
mod keys_bitwarden; // keys as items for a password manager
mod keys_import; // keys of other gates and services, taken over
mod keys_places; // key commands where something is in the way: links, mounts, rights, closed streams
mod keys_safety; // key commands beside each other, killed, and beside an editor
mod keys_verify; // whose a key is and what it may do: told as the gate would decide
mod keyschange; // update, enable, disable, rotate and prune
mod keyslist; // list, show, completions and the manual
mod keysmany; // the key commands on a file of many keys
mod keyspipes; // readers of the printing commands who leave early, and outputs that are full
mod leak; // planted keys, looked for in all that comes out
mod limits; // limits through real sockets: exact, and told as the draft wants
mod listenreload; // SIGHUP changes where the gate listens
mod moving; // the README's pages for those who come from AITBC and FetchML, pasted
mod paths; // what is routed is what the origin sees
mod reuse; // connections to the upstream, and the one safe retry
mod revocation; // the end of a key is the end of its connections
mod revocation_matrix; // every way a command ends a key, on every kind of stream
mod revocation_phases; // the end of a key in every odd phase of its requests
mod scale; // the end of keys in a crowd of sockets and streams
mod shutdown; // the end of the gate
mod sse; // server-sent events
mod state; // what outlives a restart
mod statefaults; // the state file in trouble, and SIGKILL at any moment
mod statelist; // what keys list makes of the state file
mod suites; // the admission suites of other gateways, row by row
mod suites_keys; // the lifecycle suite of another gateway, row by row
mod tidy; // house rules: who may name what, and what the documents must hold
mod timeouts; // a deadline for every phase, and what strangers can hold
mod tls; // towards clients: versions, names, resumption, replaced certificates
mod upstreams; // towards servers: TLS, sockets, balance, health
mod websocket; // handshakes, tunnels, their limits and ends
mod wss; // WebSockets over TLS, with a library at both ends
