//! Who is at the other end of a connection, as far as the transport tells.

use std::net::IpAddr;

/// A client's end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Its address; none on a unix socket.
    pub(crate) address: Option<IpAddr>,
    /// TLS version spoken with it, for the log; none on plain connections.
    pub(crate) tls: Option<&'static str>,
}
