//! Reads a stranger's bytes in sips. The crate decodes all heads that a read brings before the first is looked at, and a few
//! bytes can say a head of hundreds of fields: what one turn of a connection may decode is bounded here, so that its streams
//! are dealt with before more is read (decision 28).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::Standing;

/// Most bytes read in one turn before the connection's first admission of a key.
const SIP: usize = 512;

/// A transport that is read in sips until a key is admitted.
pub(super) struct Sips<S> {
    io: S,
    standing: Arc<Standing>,
    left: usize,
}

impl<S> Sips<S> {
    pub(super) fn new(io: S, standing: Arc<Standing>) -> Self {
        Self { io, standing, left: SIP }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Sips<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.standing.keyed.load(Ordering::Relaxed) {
            return Pin::new(&mut self.io).poll_read(cx, buffer);
        }
        if self.left == 0 {
            // The turn ends; the next begins behind the tasks that are ready now.
            self.left = SIP;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let most = self.left.min(buffer.remaining());
        let mut sip = ReadBuf::new(buffer.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut sip))?;
        let count = sip.filled().len();
        buffer.advance(count);
        self.left -= count;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sips<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
