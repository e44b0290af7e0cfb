//! The TLS handshake with a client: one deadline for all of it, and a closed set of ways to fail.

use std::error::Error as _;
use std::io::{self, BufRead};
use std::time::Duration;

use rustls::{Error, HandshakeKind, InvalidMessage, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What the two sides agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// HTTP/2 by ALPN; HTTP/1.1 otherwise, also when the client named no protocol.
    pub http2: bool,
    /// TLS 1.3; TLS 1.2 otherwise.
    pub tls13: bool,
    /// An earlier session was resumed.
    pub resumed: bool,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The deadline passed.
    #[error("TLS handshake timeout")]
    Timeout,
    /// The client went away.
    #[error("closed during the TLS handshake")]
    Closed,
    /// The handshake itself failed.
    #[error("TLS handshake failed: {}", .0.label())]
    Failed(HandshakeFailure),
}

/// How a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// The first bytes are no TLS record: plain HTTP, most often.
    NotTls,
    /// No version, cipher suite, group or signature in common.
    Incompatible,
    /// The client offers only application protocols we do not speak.
    Protocol,
    /// The client refused us with an alert, for example our certificate.
    Alert,
    /// A message that breaks the protocol.
    Malformed,
    /// Anything else.
    Other,
}

impl HandshakeError {
    /// The label in `keygate_tls_handshakes_total{result}`, beside `ok` and `resumed`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Failed(failure) => failure.label(),
        }
    }
}

impl HandshakeFailure {
    /// The label in metric and log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::Incompatible => "incompatible",
            Self::Protocol => "alpn",
            Self::Alert => "alert",
            Self::Malformed => "malformed",
            Self::Other => "other",
        }
    }
}

/// Shakes hands with a client within `limit`. The stream comes boxed, for rustls keeps about a kilobyte in line, which would
/// otherwise be moved through every state of the connection's task.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    acceptor: &TlsAcceptor,
    stream: S,
    limit: Duration,
) -> Result<(Box<TlsStream<S>>, Negotiated), HandshakeError> {
    match timeout(limit, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let negotiated = negotiated(&stream);
            Ok((Box::new(stream), negotiated))
        }
        Ok(Err(error)) => Err(classify(&error)),
        Err(_elapsed) => Err(HandshakeError::Timeout),
    }
}

/// Whether decrypted bytes, or the client's end, wait inside the session. Only when not may one wait for the socket alone.
pub fn has_plaintext<S>(stream: &mut TlsStream<S>) -> bool {
    let blocked = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
    !stream.get_mut().1.reader().fill_buf().is_err_and(|error| blocked(&error))
}

fn negotiated<S>(stream: &TlsStream<S>) -> Negotiated {
    let session = stream.get_ref().1;
    Negotiated {
        http2: session.alpn_protocol() == Some(b"h2"),
        tls13: session.protocol_version() == Some(ProtocolVersion::TLSv1_3),
        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
    }
}

fn classify(error: &io::Error) -> HandshakeError {
    use HandshakeFailure as F;
    let Some(cause) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        // Without a cause of rustls' it is the socket's: reset, or the end before the handshake's.
        return HandshakeError::Closed;
    };
    let failure = match cause {
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => F::NotTls,
        Error::PeerIncompatible(_) => F::Incompatible,
        Error::NoApplicationProtocol => F::Protocol,
        Error::AlertReceived(_) => F::Alert,
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_)
        | Error::PeerSentOversizedRecord
        | Error::DecryptError => F::Malformed,
        other => {
            tracing::debug!(error = %other, source = ?other.source(), "unclassified TLS failure");
            F::Other
        }
    };
    HandshakeError::Failed(failure)
}
