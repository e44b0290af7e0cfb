//! The byte stream to a server: plain TCP, a unix socket or TLS over TCP, without buffers of its own.

use std::future::poll_fn;
use std::io::{self, BufRead};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

/// A connection to a server. TCP has `TCP_NODELAY` set.
#[derive(Debug)]
pub enum UpstreamStream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
    /// TLS over TCP; boxed, for rustls keeps about a kilobyte in line.
    Tls(Box<TlsStream<TcpStream>>),
    /// TLS over a unix socket.
    TlsUnix(Box<TlsStream<UnixStream>>),
}

impl UpstreamStream {
    /// Ready when a read may bring bytes, the end or an error, without a buffer held while waiting. It may be ready without
    /// cause: a read can still be pending then.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
            Self::Tls(stream) => {
                if has_plaintext(stream) {
                    Poll::Ready(Ok(()))
                } else {
                    stream.get_ref().0.poll_read_ready(cx)
                }
            }
            Self::TlsUnix(stream) => {
                if has_plaintext(stream) {
                    Poll::Ready(Ok(()))
                } else {
                    stream.get_ref().0.poll_read_ready(cx)
                }
            }
        }
    }

    /// Waits until [`poll_readable`](Self::poll_readable) is ready.
    pub async fn readable(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_readable(cx)).await
    }

    /// Whether HTTP/2 was agreed on by ALPN.
    pub fn negotiated_http2(&self) -> bool {
        let protocol = match self {
            Self::Tcp(_) | Self::Unix(_) => None,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol(),
            Self::TlsUnix(stream) => stream.get_ref().1.alpn_protocol(),
        };
        protocol == Some(b"h2")
    }

    /// Whether it is TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::TlsUnix(_))
    }

    /// What broke TLS off, if that is what ended the connection: the server's alert, where it sent one. In TLS 1.3 a server
    /// that refuses our certificate says so only after the handshake (RFC 8446 section 4.4.2.4).
    pub fn tls_fault(&mut self) -> Option<rustls::Error> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => None,
            // A session that failed gives the same error for ever.
            Self::Tls(stream) => stream.get_mut().1.process_new_packets().err(),
            Self::TlsUnix(stream) => stream.get_mut().1.process_new_packets().err(),
        }
    }

    /// What became of an idle connection. Asks the system and not the reactor, which may not have looked for a while: a late
    /// byte of one answer must never begin the next, nor a request be lost to a connection that is closed already. Bytes of
    /// TLS that are there may be consumed: not quiet means not usable.
    pub(super) fn look(&mut self) -> Seen {
        match self {
            Self::Tcp(stream) => peek(stream),
            Self::Unix(stream) => peek(stream),
            Self::Tls(stream) => look_behind(stream),
            Self::TlsUnix(stream) => look_behind(stream),
        }
    }
}

/// What an idle connection shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is open, and nothing has come.
    Quiet,
    /// Bytes came that nobody asked for.
    Spoke,
    /// It ended, or may have.
    Ended,
}

/// What a socket shows, which never blocks.
fn peek(socket: &impl AsFd) -> Seen {
    match SockRef::from(socket).peek(&mut [MaybeUninit::uninit()]) {
        Ok(1..) => Seen::Spoke,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Seen::Quiet,
        Ok(_) | Err(_) => Seen::Ended,
    }
}

/// What a TLS session shows. Late session tickets are no bytes of an answer: rustls takes them in and the read stays pending.
fn look_behind<S: AsyncRead + AsyncWrite + AsFd + Unpin>(stream: &mut TlsStream<S>) -> Seen {
    let mut byte = [0; 1];
    let mut buffer = ReadBuf::new(&mut byte);
    match Pin::new(&mut *stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer) {
        Poll::Ready(Ok(())) if !buffer.filled().is_empty() => Seen::Spoke,
        // Bytes that are not read yet may be an alert or a ticket as well.
        Poll::Pending if peek(stream.get_ref().0) == Seen::Quiet => Seen::Quiet,
        Poll::Pending | Poll::Ready(_) => Seen::Ended,
    }
}

/// Whether decrypted bytes, or the end, wait inside the TLS session.
fn has_plaintext<S>(stream: &mut TlsStream<S>) -> bool {
    let blocked = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
    !stream.get_mut().1.reader().fill_buf().is_err_and(|error| blocked(&error))
}

impl AsyncRead for UpstreamStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::TlsUnix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::TlsUnix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::TlsUnix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::TlsUnix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::TlsUnix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::TlsUnix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
