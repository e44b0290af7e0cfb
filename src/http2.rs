//! HTTP/2 towards clients: each stream becomes the same canonical head bytes as an HTTP/1 request and takes the same path.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::engine::peer::Peer;
use crate::engine::worker::Worker;

/// Serves one HTTP/2 connection.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(_stream: S, _peer: Arc<Peer>, _worker: Arc<Worker>) {}
