//! An upstream's side over HTTP/2: one stream of a shared connection. The request's canonical head becomes the stream's
//! fields, and the answer's fields become a canonical head, read by the same strict parser as an HTTP/1 answer.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Uri};

use super::fields::{is_line, to_map};
use super::wire::{Receiving, Sending, failed};
use crate::engine::relay::Answering;
use crate::engine::wire::{Fill, Trailers, Wire, WireError};
use crate::http1::body::Sender;
use crate::http1::head::{Framing, HeadLimits};
use crate::http1::request::RequestHead;
use crate::http1::response::{Asked, ResponseHead};
use crate::http1::write;

/// A stream to an upstream in the middle of an exchange.
#[derive(Debug)]
pub(crate) struct H2Answer {
    response: ResponseFuture,
    /// None once the request is out whole.
    sending: Option<Sending>,
    receiving: Option<Receiving>,
    head: Vec<u8>,
    answered: bool,
    refused: bool,
}

/// Why a canonical head cannot be sent over HTTP/2.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The head cannot be said in HTTP/2: a byte in its target that the crate does not take.
    Unspeakable,
    /// The connection takes no more streams.
    Refused,
}

impl H2Answer {
    /// Opens a stream with the request of which `head` is the canonical head.
    pub(crate) fn open(send: &mut SendRequest<Bytes>, head: &[u8], secure: bool) -> Result<Self, OpenError> {
        let (request, ends) = request(head, secure).ok_or(OpenError::Unspeakable)?;
        let (response, stream) = send.send_request(request, ends).map_err(|error| {
            tracing::debug!(%error, "no stream to an upstream");
            OpenError::Refused
        })?;
        let sending = (!ends).then(|| Sending::new(stream));
        Ok(Self { response, sending, receiving: None, head: Vec::new(), answered: false, refused: false })
    }

    /// Whether the server said that it did nothing with the request (RFC 9113 sections 6.8 and 8.7).
    pub(crate) fn was_refused(&self) -> bool {
        self.refused
    }

    fn keep_head(&mut self, status: u16, fields: &HeaderMap, body: Option<&RecvStream>) -> Result<(), WireError> {
        self.head.clear();
        write::status_line(&mut self.head, status, b"");
        for (name, value) in fields {
            if !is_line(value.as_bytes()) {
                return Err(WireError::Malformed("field_value"));
            }
            write::field(&mut self.head, name.as_str().as_bytes(), value.as_bytes());
        }
        if body.is_some() && !fields.contains_key("content-length") && !matches!(status, 204 | 304) {
            write::framing(&mut self.head, Framing::Chunked);
        }
        self.head.extend_from_slice(write::END_OF_HEAD);
        Ok(())
    }

    fn note(&mut self, error: h2::Error) -> WireError {
        // A GOAWAY is the error of those streams alone that are above its last one, whatever its code.
        let untouched = error.reason() == Some(Reason::REFUSED_STREAM) || (error.is_go_away() && error.is_remote());
        self.refused |= untouched && !self.answered;
        failed(error)
    }
}

impl Wire for H2Answer {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, WireError>> {
        match &mut self.receiving {
            Some(receiving) => receiving.poll_fill(cx),
            None => Poll::Ready(Err(WireError::Closed)),
        }
    }

    fn data(&self) -> &[u8] {
        self.receiving.as_ref().map(Receiving::data).unwrap_or_default()
    }

    fn consume(&mut self, count: usize) {
        if let Some(receiving) = &mut self.receiving {
            receiving.consume(count);
        }
    }

    fn gather(&mut self, cx: &mut Context<'_>) {
        if let Some(receiving) = &mut self.receiving {
            receiving.gather(cx);
        }
    }

    fn trailers(&self) -> &Trailers {
        self.receiving.as_ref().map(Receiving::trailers).unwrap_or_default()
    }

    fn poll_send(&mut self, data: &[u8], cx: &mut Context<'_>) -> Poll<Result<usize, WireError>> {
        match &mut self.sending {
            Some(sending) => sending.poll_send(data, cx),
            None => Poll::Ready(Err(WireError::Malformed("body_longer_than_declared"))),
        }
    }

    fn poll_finish(&mut self, trailers: &Trailers, _cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        Poll::Ready(self.sending.as_mut().map_or(Ok(()), |sending| sending.finish(trailers)))
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        // The connection's own task writes.
        Poll::Ready(Ok(()))
    }
}

impl Answering for H2Answer {
    fn poll_head(
        &mut self,
        asked: Asked,
        head: &mut ResponseHead,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), WireError>> {
        if let Poll::Ready(Some(interim)) = self.response.poll_informational(cx) {
            let interim = interim.map_err(|error| self.note(error))?;
            self.answered = true;
            self.keep_head(interim.status().as_u16(), interim.headers(), None)?;
        } else {
            let response = ready!(std::pin::Pin::new(&mut self.response).poll(cx));
            let (parts, body) = response.map_err(|error| self.note(error))?.into_parts();
            self.answered = true;
            self.keep_head(parts.status.as_u16(), &parts.headers, Some(&body))?;
            self.receiving = Some(Receiving::new(body, Sender::Upstream));
        }
        match head.parse(&self.head, asked).map_err(WireError::Malformed)? {
            true => Poll::Ready(Ok(())),
            // Not reached: what was written is one whole head.
            false => Poll::Ready(Err(WireError::Malformed("head"))),
        }
    }

    fn head_bytes(&self) -> &[u8] {
        &self.head
    }

    fn take_head(&mut self, _head: &ResponseHead) {
        self.head.clear();
    }

    fn has_answered(&self) -> bool {
        self.answered
    }
}

/// The request that a canonical head says, and whether it ends with it.
fn request(head: &[u8], secure: bool) -> Option<(Request<()>, bool)> {
    let limits = HeadLimits { max_head_bytes: head.len(), max_headers: head.len(), max_target_bytes: head.len() };
    let mut spans = RequestHead::default();
    if spans.parse(head, &limits) != Ok(true) {
        return None;
    }
    let canonical = spans.view(head);
    let uri = Uri::builder()
        .scheme(if secure { "https" } else { "http" })
        .authority(canonical.host()?)
        .path_and_query(canonical.target())
        .build()
        .ok()?;
    // One reading: what the crate sends must be what was decided on.
    if uri.path_and_query()?.as_str().as_bytes() != canonical.target() {
        return None;
    }
    let fields = canonical.fields().iter();
    let fields = fields.filter(|field| !field.is("host") && !field.is("transfer-encoding"));
    let mut request = Request::builder().method(canonical.method()).uri(uri).body(()).ok()?;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = to_map(fields);
    Some((request, matches!(canonical.framing(), Framing::None | Framing::Length(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canonical_head_becomes_fields() {
        let head = b"POST /a?b=%2F HTTP/1.1\r\nHost: h:8\r\nX: 1\r\nX: 2\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n";
        let (request, ends) = request(head, true).unwrap();
        assert_eq!((request.uri().to_string().as_str(), request.method().as_str()), ("https://h:8/a?b=%2F", "POST"));
        assert!(
            !ends && !request.headers().contains_key("host") && !request.headers().contains_key("transfer-encoding")
        );
        assert_eq!(request.headers().get_all("x").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(request.headers()["te"], "trailers");
        let (plain, ends) = super::request(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", false).unwrap();
        assert!(ends && plain.uri().scheme_str() == Some("http"));
        assert!(super::request(b"GET /<x> HTTP/1.1\r\nHost: h\r\n\r\n", false).is_none());
    }
}
