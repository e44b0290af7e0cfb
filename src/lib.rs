#![doc = include_str!("ARCHITECTURE.md")]

// Layer 0: words.
pub mod key;
pub mod moment;
pub mod rejection;
pub mod yaml;
// Layer 1: parts.
pub mod credential;
pub mod http1;
pub mod import;
pub mod keyring;
pub mod limit;
pub mod route;
pub mod session;
pub mod strength;
// Layer 2: decide.
pub mod admission;
pub mod identity;
// Layer 3: edge.
pub mod access_log;
pub mod admin;
pub mod engine;
pub mod http2;
pub mod keepalive;
pub mod listener;
pub mod metrics;
pub mod own_log;
pub mod state;
pub mod tls;
pub mod tunnel;
pub mod upstream;
// Layer 4: compose.
pub mod app;
pub mod config;
// Layer 5: start.
pub mod cli;
