//! Ending a client's connection so that it cannot be taken for the end of an answer. A body that ends with the close has no
//! other mark of its end (RFC 9112 section 8): when such an answer breaks off, the close must be a reset.

use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// A connection whose close can be made to look like the failure that it is.
pub(crate) trait Abort {
    /// Makes the close that follows a reset, where the transport knows one.
    fn abort(&self);
}

impl Abort for TcpStream {
    fn abort(&self) {
        // Where the option cannot be set, the close stays a plain one: there is nothing better to do.
        let _ = self.set_zero_linger();
    }
}

impl Abort for UnixStream {
    /// A unix socket has no reset.
    fn abort(&self) {}
}

/// A close without `close_notify` is a truncation by itself (RFC 8446 section 6.1); the reset comes on top.
impl<S: Abort> Abort for Box<TlsStream<S>> {
    fn abort(&self) {
        self.get_ref().0.abort();
    }
}
