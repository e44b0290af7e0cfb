//! One connection of the admin listener: HTTP/1.1 with keep-alive, small bounds, a deadline for every phase.

use std::fmt::Write as _;
use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout, timeout_at};

use super::{AdminState, Page, page};
use crate::rejection::phrase;

/// Time for a whole head, from the connection's start or the head's first byte.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Time between requests; longer than the longest usual scrape interval.
pub(super) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(90);

/// Time for a client to take an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes of a head.
pub(super) const MAX_HEAD_BYTES: usize = 8 * 1024;

const MAX_HEADERS: usize = 64;

/// What matters of a request head.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    method: String,
    target: String,
    len: usize,
    keep_alive: bool,
}

/// A head that cannot be read, or one that says it is followed by a body: nothing here takes one.
#[derive(Debug, PartialEq, Eq)]
struct Bad;

/// Serves one connection until it closes, errs, runs into a deadline, or `ended` is done between two requests.
pub(super) async fn run<S>(mut stream: S, state: &AdminState, ended: impl Future<Output = ()>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    tokio::pin!(ended);
    let mut bytes = Vec::new();
    let mut first = true;
    loop {
        let head = tokio::select! {
            head = read_head(&mut stream, &mut bytes, first) => head,
            () = &mut ended => return,
        };
        let (page, head_only, keep_alive) = match head {
            Read::Head(head) => {
                bytes.drain(..head.len);
                (page(state, &head.method, &head.target), head.method == "HEAD", head.keep_alive)
            }
            Read::Refused(status) => (Page::text(status, &phrase(status).to_lowercase()), false, false),
            Read::Closed => return,
        };
        let answer = answer(&page, head_only, keep_alive);
        let written = timeout(WRITE_TIMEOUT, stream.write_all(&answer)).await;
        if !keep_alive || !matches!(written, Ok(Ok(()))) {
            close(stream).await;
            return;
        }
        first = false;
    }
}

/// What came of waiting for a head.
enum Read {
    Head(Head),
    /// Answer with this status and close.
    Refused(u16),
    /// The client closed, or said nothing in time.
    Closed,
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>, first: bool) -> Read {
    let mut deadline = Instant::now() + if first || !bytes.is_empty() { HEAD_TIMEOUT } else { KEEPALIVE_TIMEOUT };
    let mut begun = !bytes.is_empty();
    loop {
        match parse(bytes) {
            Ok(Some(head)) => return Read::Head(head),
            Err(Bad) => return Read::Refused(400),
            Ok(None) if bytes.len() >= MAX_HEAD_BYTES => return Read::Refused(431),
            Ok(None) => {}
        }
        let room = (MAX_HEAD_BYTES - bytes.len()) as u64;
        match timeout_at(deadline, (&mut *stream).take(room).read_buf(bytes)).await {
            Ok(Ok(count)) if count > 0 => {}
            Err(_late) if begun => return Read::Refused(408),
            _ => return Read::Closed,
        }
        if !begun && !first {
            deadline = Instant::now() + HEAD_TIMEOUT;
        }
        begun = true;
    }
}

/// Reads a head from the start of `bytes`; `None` asks for more of them.
fn parse(bytes: &[u8]) -> Result<Option<Head>, Bad> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut fields);
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_unreadable) => return Err(Bad),
    };
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(Bad);
    };
    let mut keep_alive = version == 1;
    let mut hosts = 0;
    for field in request.headers.iter() {
        match field.name.to_ascii_lowercase().as_str() {
            "transfer-encoding" => return Err(Bad),
            "content-length" if field.value != b"0" => return Err(Bad),
            "connection" if !field.value.eq_ignore_ascii_case(b"keep-alive") => keep_alive = false,
            "host" => hosts += 1,
            _ => {}
        }
    }
    if !target.starts_with('/') || hosts > 1 || (hosts == 0 && version == 1) {
        return Err(Bad);
    }
    Ok(Some(Head { method: method.to_owned(), target: target.to_owned(), len, keep_alive }))
}

/// The bytes of an answer. A HEAD's has the fields of a GET's (RFC 9110 section 9.3.2).
fn answer(page: &Page, head_only: bool, keep_alive: bool) -> Vec<u8> {
    let mut head = String::with_capacity(256);
    // Writing to a string does not fail.
    let _ = write!(
        head,
        "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\n",
        page.status,
        phrase(page.status),
        page.content_type,
        page.body.len(),
    );
    if page.status == 405 {
        head.push_str("Allow: GET, HEAD\r\n");
    }
    if !keep_alive {
        head.push_str("Connection: close\r\n");
    }
    head.push_str("\r\n");
    let mut answer = head.into_bytes();
    if !head_only {
        answer.extend_from_slice(page.body.as_bytes());
    }
    answer
}

/// Closes so that the answer arrives: what the client still sends is read for a moment, else its system would be told to
/// throw the answer away (RFC 9112 section 9.6).
async fn close(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    const LINGER: Duration = Duration::from_secs(1);
    const MOST: u64 = 64 * 1024;
    let linger = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut (&mut stream).take(MOST), &mut tokio::io::sink()).await
    };
    // Whether the client closed, erred or went on, the connection ends here.
    let _ = timeout(LINGER, linger).await;
}
