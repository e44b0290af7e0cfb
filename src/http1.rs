//! HTTP/1 without sockets: bytes in, meaning out, and bytes out again. Heads, body framing and chunks are read here under
//! one strict set of rules (RFC 9110, RFC 9112), and what is sent on is written anew in canonical form. No Tokio, no
//! Pingora, no clock: everything is a function of its bytes, so it is table-tested, property-tested and fuzzed as such.

pub mod body;
mod fields;
pub mod head;
mod host;
pub mod request;
pub mod response;
mod scan;
#[cfg(test)]
mod tests;
pub mod write;
