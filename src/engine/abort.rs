//! Ending a client's connection so that it cannot be taken for the end of an answer. A body that ends with the close has no
//! other mark of its end (RFC 9112 section 8): when such an answer breaks off, the close must be a reset. And hearing of a
//! client's own reset while nothing is read from it.

use std::future::{Future, pending};
use std::os::fd::AsFd;
use std::pin::Pin;

use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// Ready once a connection is lost; never before.
pub(crate) type Lost = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection whose close can be made to look like the failure that it is.
pub(crate) trait Abort {
    /// Makes the close that follows a reset, where the transport knows one.
    fn abort(&self);

    /// Waits until the other side resets the connection, or it fails. Reading tells that too, but a side that has said that
    /// it will send nothing more cannot be read from again.
    fn lost(&self) -> Lost;
}

impl Abort for TcpStream {
    fn abort(&self) {
        // Where the option cannot be set, the close stays a plain one: there is nothing better to do.
        let _ = self.set_zero_linger();
    }

    fn lost(&self) -> Lost {
        // A second descriptor of the same socket, so that the wait does not borrow the stream: what is rare may cost one.
        let copy = self.as_fd().try_clone_to_owned().map(std::net::TcpStream::from).and_then(Self::from_std);
        Box::pin(async move {
            let failed = match &copy {
                Ok(copy) => copy.ready(Interest::ERROR).await.is_ok(),
                Err(_) => false,
            };
            if !failed {
                pending::<()>().await;
            }
        })
    }
}

impl Abort for UnixStream {
    /// A unix socket has no reset.
    fn abort(&self) {}

    /// Nor one to hear of: the next write tells.
    fn lost(&self) -> Lost {
        Box::pin(pending())
    }
}

/// A close without `close_notify` is a truncation by itself (RFC 8446 section 6.1); the reset comes on top.
impl<S: Abort> Abort for Box<TlsStream<S>> {
    fn abort(&self) {
        self.get_ref().0.abort();
    }

    fn lost(&self) -> Lost {
        self.get_ref().0.lost()
    }
}
