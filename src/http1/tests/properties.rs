//! Properties over generated input: the assertions of the fuzz targets, fed with heads and bodies that are nearly right.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::{strict, targets};
use crate::http1::body::{BodyDecoder, Sender};
use crate::http1::head::{Framing, HeadLimits};
use crate::http1::request::RequestHead;
use crate::http1::write;

/// Mostly well-formed pieces, with enough bad ones that every rule is met.
fn request_bytes() -> impl Strategy<Value = Vec<u8>> {
    let method = select(vec!["GET", "POST", "HEAD", "get", "PATCH", "CONNECT", "TRACE", "G\0T", "X!#$", ""]);
    let target = select(vec!["/", "/a?b=c", "//x/../y", "/%2e%2e/", "*", "a:80", "http://a/", "/#f", "/\u{e9}", "/ "]);
    let version = select(vec!["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "http/1.1", ""]);
    let end = select(vec!["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\n "]);
    let name = select(vec![
        "Host",
        "host",
        "Content-Length",
        "content-length",
        "Transfer-Encoding",
        "Connection",
        "Expect",
        "Upgrade",
        "Content_Length",
        "X-Y",
        "X Y",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
        "TE",
        "",
        "A\0",
    ]);
    let colon = select(vec![": ", ": ", ": ", ":", " :", ":\t ", ""]);
    let value = select(vec![
        "a",
        "example.org:80",
        "[::1]",
        "5",
        "0",
        "5, 5",
        "+5",
        "chunked",
        "Chunked",
        "gzip, chunked",
        "close",
        "keep-alive, Upgrade",
        "Host",
        "100-continue",
        "websocket",
        "13",
        "dGhlIHNhbXBsZSBub25jZQ==",
        "",
        "\u{e9} x",
        "\x01",
    ]);
    let field =
        (name, colon, value, end.clone()).prop_map(|(name, colon, value, end)| [name, colon, value, end].concat());
    let host = select(vec!["Host: a\r\n", "Host: a\r\n", "host:\texample.org \r\n", ""]);
    let tail =
        select(vec!["\r\n", "\r\n", "\r\n", "", "\n", "\r\n5\r\nhello\r\n0\r\n\r\n", "\r\nGET / HTTP/1.1\r\n\r\n"]);
    (method, target, version, end, host, vec(field, 0..4), tail).prop_map(
        |(method, target, version, end, host, fields, tail)| {
            format!("{method} {target} {version}{end}{host}{}{tail}", fields.concat()).into_bytes()
        },
    )
}

fn response_bytes() -> impl Strategy<Value = Vec<u8>> {
    let line =
        select(vec!["HTTP/1.1 200 OK", "HTTP/1.0 200", "HTTP/1.1 101 x", "HTTP/1.1 204 ", "HTTP/1.1 999 x", "HTTP"]);
    let end = select(vec!["\r\n", "\r\n", "\n", "\n", "\r"]);
    let field = select(vec![
        "Content-Length: 5",
        "Content-Length: 5, 5",
        "Content-Length: 6",
        "Transfer-Encoding: chunked",
        "X:",
        "X: \u{e9}",
        "Connection: close",
        "Transfer-Encoding: gzip",
        " fold",
        "bad",
        ": x",
    ]);
    let fields = vec((field, end.clone()).prop_map(|(field, end)| [field, end].concat()), 0..4);
    (any::<u8>(), line, end.clone(), fields, end).prop_map(|(selector, line, first_end, fields, last_end)| {
        [&[selector], format!("{line}{first_end}{}{last_end}rest", fields.concat()).as_bytes()].concat()
    })
}

fn chunked_bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = select(vec![
        "5\r\nhello\r\n",
        "1\nx\n",
        "a;b=c\r\n0123456789\r\n",
        "3;q=\"\\\"\"\r\nabc\r\n",
        "0\r\n",
        "0\r\n\r\n",
        "\r\n",
        "\n",
        "\r",
        "g",
        "5",
        ";a",
        "A: b\r\n",
        "Host: a\n",
        " c\r\n",
        "fffffffffffffffff\r\n",
    ]);
    (0..2_u8, vec(piece, 0..8)).prop_map(|(selector, pieces)| [&[selector], pieces.concat().as_bytes()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn request_heads(bytes in request_bytes()) {
        targets::request_head(&bytes);
        targets::roundtrip(&bytes);
    }

    #[test]
    fn response_heads(bytes in response_bytes()) {
        targets::response_head(&bytes);
    }

    #[test]
    fn chunked_bodies(bytes in chunked_bytes()) {
        targets::body(&bytes);
    }

    #[test]
    fn arbitrary_bytes(bytes in vec(any::<u8>(), 0..200)) {
        targets::request_head(&bytes);
        targets::response_head(&bytes);
        targets::body(&bytes);
        targets::roundtrip(&bytes);
    }

    /// One byte of a good head replaced by any other: refused, unfinished, or read alike by all readers.
    #[test]
    fn one_wrong_byte(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = b"POST /a?b HTTP/1.1\r\nHost: a.b:80\r\nX-Y: z\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        targets::request_head(&bytes);
        targets::roundtrip(&bytes);
    }

    #[test]
    fn what_is_written_is_read_back(
        method in "[A-Za-z!#$%&'*+.^_`|~-]{1,10}",
        target in "/[!-\"$-~]{0,40}",
        fields in vec(("X-[A-Za-z0-9_.~-]{0,10}", "([!-~\u{a1}-\u{ff}]([ \t!-~]{0,20}[!-~])?)?"), 0..10),
        length in prop::option::of(any::<u64>()),
    ) {
        prop_assume!(!["TRACE", "CONNECT"].iter().any(|refused| method.eq_ignore_ascii_case(refused)));
        let framing = length.map_or(Framing::Chunked, Framing::Length);
        let mut out = Vec::new();
        write::request_line(&mut out, method.as_bytes(), target.as_bytes());
        write::field(&mut out, b"Host", b"a");
        fields.iter().for_each(|(name, value)| write::field(&mut out, name.as_bytes(), value.as_bytes()));
        write::framing(&mut out, framing);
        out.extend_from_slice(write::END_OF_HEAD);

        let strict = strict::head(&out).unwrap();
        prop_assert_eq!(&strict.start, &[method.into_bytes(), target.into_bytes(), b"HTTP/1.1".to_vec()]);
        let sent = fields.into_iter().map(|(name, value)| (name.into_bytes(), value.into_bytes()));
        prop_assert!(strict.fields[1..=strict.fields.len() - 2].iter().cloned().eq(sent));

        let mut head = RequestHead::default();
        let limits = HeadLimits { max_head_bytes: 1 << 16, max_headers: 100, max_target_bytes: 1 << 13 };
        prop_assert_eq!(head.parse(&out, &limits), Ok(true));
        let request = head.view(&out);
        prop_assert_eq!(request.framing(), framing);
        prop_assert_eq!((request.method(), request.target()), (&strict.start[0][..], &strict.start[1][..]));
    }

    #[test]
    fn decoding_undoes_encoding(
        chunks in vec(vec(any::<u8>(), 0..50), 0..6),
        trailers in vec(("X-[a-z]{1,8}", "[!-~]{0,8}"), 0..3),
        cut in any::<prop::sample::Index>(),
        rest in vec(any::<u8>(), 0..10),
    ) {
        let mut wire = Vec::new();
        chunks.iter().for_each(|chunk| write::chunk(&mut wire, chunk));
        write::last_chunk(&mut wire, trailers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
        let len = wire.len();
        wire.extend_from_slice(&rest);
        for sender in [Sender::Client, Sender::Upstream] {
            let (left, right) = wire.split_at(cut.index(wire.len()));
            let mut decoder = BodyDecoder::new(Framing::Chunked, sender);
            prop_assert_eq!(targets::decode(&mut decoder, &[left, right]), Ok((chunks.concat(), len)));
            let read = decoder.trailers().iter().map(|(name, value)| (&name[..], &value[..]));
            prop_assert!(read.eq(trailers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))));
        }
    }
}
