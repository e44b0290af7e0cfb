//! The tables of `tests/cases/http1`, and what does not fit into a row.

mod corpus;
mod properties;
mod strict;
#[path = "../../tests/fuzz/targets.rs"]
mod targets;

#[path = "../../tests/gateway/support/cases.rs"]
mod cases;

use crate::http1;
use crate::http1::body::{BodyDecoder, BodyError, Decoded, MAX_EXTENSION_SURPLUS, Sender};
use crate::http1::head::{Framing, HeadLimits};
use crate::http1::request::RequestHead;
use crate::http1::response::{Asked, ResponseHead};
use crate::http1::write;
use cases::escape;

const LIMITS: HeadLimits = HeadLimits { max_head_bytes: 32 * 1024, max_headers: 100, max_target_bytes: 8 * 1024 };

/// Holds every row of `table` against what `outcome` makes of its context and bytes.
fn check(table: &str, outcome: impl Fn(&str, &[u8]) -> String) {
    let mut wrong = Vec::new();
    for case in cases::read(table) {
        let got = outcome(&case.context, &case.bytes);
        // Expectations are compared as written, but a table may use the short escapes and repetitions.
        let expected: Vec<String> =
            case.expectation.split(' ').map(|word| escape(&cases::unescape(word).unwrap())).collect();
        if got != expected.join(" ") {
            wrong.push(format!("{}: expected {}, got {got}", case.name, case.expectation));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn framing_text(framing: Framing) -> String {
    match framing {
        Framing::None => "none".into(),
        Framing::Length(length) => format!("length:{length}"),
        Framing::Chunked => "chunked".into(),
        Framing::UntilClose => "until-close".into(),
    }
}

fn framing_named(name: &str) -> Framing {
    match name.split_once(':') {
        Some(("length", length)) => Framing::Length(length.parse().unwrap()),
        _ => match name {
            "none" => Framing::None,
            "chunked" => Framing::Chunked,
            "until-close" => Framing::UntilClose,
            other => panic!("framing {other}"),
        },
    }
}

fn request_outcome(bytes: &[u8]) -> String {
    let mut head = RequestHead::default();
    match head.parse(bytes, &LIMITS) {
        Ok(false) => "more".into(),
        Err(rejection) => format!("{} {}", rejection.answer().status, rejection.label()),
        Ok(true) => {
            let request = head.view(bytes);
            let mut text = format!(
                "ok {} {} {}",
                escape(request.method()),
                escape(request.target()),
                framing_text(request.framing())
            );
            let flags = [
                (!request.keep_alive(), " close"),
                (request.expects_continue(), " continue"),
                (request.is_websocket(), " websocket"),
            ];
            text.extend(flags.iter().filter(|(on, _)| *on).map(|(_, word)| *word));
            text
        }
    }
}

fn response_outcome(asked: &str, bytes: &[u8]) -> String {
    let asked = Asked { head: asked == "head", websocket: asked == "websocket" };
    let mut head = ResponseHead::default();
    match head.parse(bytes, asked) {
        Ok(false) => "more".into(),
        Err(rule) => format!("error {rule}"),
        Ok(true) => {
            let response = head.view(bytes);
            let close = if response.closes() { " close" } else { "" };
            format!("ok {} {}{close}", response.status(), framing_text(response.framing()))
        }
    }
}

fn body_outcome(context: &str, bytes: &[u8]) -> String {
    let (sender, framing) = context.split_once(' ').unwrap();
    let sender = if sender == "client" { Sender::Client } else { Sender::Upstream };
    let mut decoder = BodyDecoder::new(framing_named(framing), sender);
    match targets::decode(&mut decoder, &[bytes]) {
        Err(error) => format!("error {error}"),
        Ok((payload, used)) => {
            let mut text = String::from("ok");
            if !payload.is_empty() {
                text += &format!(" payload={}", escape(&payload));
            }
            for (name, value) in decoder.trailers() {
                text += &format!(" trailer={}:{}", escape(name), escape(value));
            }
            if used < bytes.len() {
                text += &format!(" rest={}", escape(&bytes[used..]));
            }
            text
        }
    }
}

#[test]
fn request_heads_by_the_table() {
    check(include_str!("../../tests/cases/http1/requests.txt"), |_, bytes| request_outcome(bytes));
}

#[test]
fn response_heads_by_the_table() {
    check(include_str!("../../tests/cases/http1/responses.txt"), response_outcome);
}

#[test]
fn bodies_by_the_table() {
    check(include_str!("../../tests/cases/http1/bodies.txt"), body_outcome);
}

/// What the fuzz targets assert holds for every row, whatever the row expects: any split gives the same result, and what
/// is accepted reads the same to other readers.
#[test]
fn every_row_reads_the_same_in_pieces_and_elsewhere() {
    for case in cases::read(include_str!("../../tests/cases/http1/requests.txt")) {
        targets::request_head(&case.bytes);
        targets::roundtrip(&case.bytes);
    }
    for case in cases::read(include_str!("../../tests/cases/http1/responses.txt")) {
        for selector in 0..3 {
            targets::response_head(&[&[selector], &case.bytes[..]].concat());
        }
    }
    for case in cases::read(include_str!("../../tests/cases/http1/bodies.txt")) {
        for selector in 0..6 {
            targets::body(&[&[selector], &case.bytes[..]].concat());
        }
    }
}

#[test]
fn a_request_head_shows_its_parts() {
    let bytes = b"PUT /a/b?c=d?e HTTP/1.1\r\nX-One:  a b \t\r\nhost: Example.org:8443\r\nx-one:\r\n\r\nbody";
    let mut head = RequestHead::default();
    assert_eq!(head.parse(bytes, &LIMITS), Ok(true));
    let request = head.view(bytes);
    assert_eq!(request.path(), b"/a/b");
    assert_eq!(request.query(), Some(&b"c=d?e"[..]));
    assert_eq!(request.host(), Some(&b"Example.org:8443"[..]));
    assert_eq!(request.len(), bytes.len() - 4);
    let fields: Vec<_> = request.fields().iter().map(|field| (field.name, field.value)).collect();
    assert_eq!(
        fields,
        [(&b"X-One"[..], &b"a b"[..]), (&b"host"[..], &b"Example.org:8443"[..]), (&b"x-one"[..], &b""[..])]
    );
}

#[test]
fn a_response_head_shows_its_parts() {
    let bytes = b"HTTP/1.0 404 Not  Found\nA: b\nSet-Cookie: c\n\nbody";
    let mut head = ResponseHead::default();
    assert_eq!(head.parse(bytes, Asked { head: false, websocket: false }), Ok(true));
    let response = head.view(bytes);
    assert_eq!((response.status(), response.reason()), (404, &b"Not  Found"[..]));
    assert_eq!(response.version(), http1::head::Version::Http10);
    assert_eq!(response.len(), bytes.len() - 4);
    assert_eq!(response.fields().first("set-cookie"), Some(&b"c"[..]));
    assert_eq!(response.fields().len(), 2);
}

#[test]
fn more_fields_than_the_stack_holds() {
    for count in [31, 32, 33, 127, 128, 129, 500] {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(count));
        let mut head = RequestHead::default();
        let limits = HeadLimits { max_headers: count + 1, ..LIMITS };
        assert_eq!(head.parse(bytes.as_bytes(), &limits), Ok(true), "{count}");
        assert_eq!(head.view(bytes.as_bytes()).fields().len(), count + 1);
        assert!(head.view(bytes.as_bytes()).fields().iter().skip(1).all(|field| field.value == b"b"));
    }
}

#[test]
fn one_head_after_another_in_the_same_place() {
    let mut head = RequestHead::default();
    let refused = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n";
    let websocket = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let plain = b"GET / HTTP/1.0\r\n\r\n";
    assert_eq!(head.parse(websocket, &LIMITS), Ok(true));
    assert!(head.view(websocket).is_websocket());
    assert!(head.parse(refused, &LIMITS).is_err());
    assert_eq!(head.parse(plain, &LIMITS), Ok(true));
    let request = head.view(plain);
    assert!(!request.is_websocket() && request.host().is_none() && request.fields().is_empty());
}

/// Bytes of another connection behind an unfinished head: nothing that was remembered may let a broken head pass.
#[test]
fn a_stale_scan_never_hides_a_broken_line() {
    let unfinished = b"GET / HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaa\r\n";
    for broken in [
        &b"GET / HTTP/1.1\r\nHost: a\nX: y\r\nZ: zzzzzzzzzzzz\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: a\rX: y\r\nZ: zzzzzzzzzzzz\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n X: y\r\nZ: zzzzzzzzzzz\r\n\r\n",
    ] {
        let mut head = RequestHead::default();
        assert_eq!(head.parse(unfinished, &LIMITS), Ok(false));
        assert!(head.parse(broken, &LIMITS).is_err(), "{}", escape(broken));
    }
    let mut head = RequestHead::default();
    assert_eq!(head.parse(unfinished, &LIMITS), Ok(false));
    head.restart();
    let whole = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n";
    assert_eq!(head.parse(whole, &LIMITS), Ok(true));
}

#[test]
fn extensions_may_not_be_the_bulk_of_a_body() {
    let chunk = |extension: usize, payload: usize| {
        let mut bytes = Vec::new();
        write::chunk(&mut bytes, &vec![b'x'; payload]);
        let line_end = bytes.windows(2).position(|pair| pair == b"\r\n").unwrap();
        bytes.splice(line_end..line_end, [b";", &vec![b'e'; extension - 1][..]].concat());
        bytes
    };
    let attempt = |extension: usize, payload: usize, chunks: usize| {
        let body = [chunk(extension, payload).repeat(chunks), b"0\r\n\r\n".to_vec()].concat();
        targets::decode(&mut BodyDecoder::new(Framing::Chunked, Sender::Client), &[&body])
    };
    let surplus = usize::try_from(MAX_EXTENSION_SURPLUS).unwrap();
    assert!(attempt(1000, 1000, 100).is_ok(), "paid for by payload");
    assert!(attempt(512, 1, surplus / 512).is_ok(), "within the surplus");
    assert_eq!(attempt(512, 1, surplus / 512 + 1), Err(BodyError("chunk_extensions_too_large")));
    assert_eq!(attempt(2, 1, surplus + 100), Err(BodyError("chunk_extensions_too_large")), "many small ones");
}

#[test]
fn data_is_where_it_stands() {
    let mut decoder = BodyDecoder::new(Framing::Chunked, Sender::Client);
    assert_eq!(decoder.decode(b""), Ok(Decoded::More { used: 0 }));
    assert_eq!(decoder.decode(b"5;a\r\nhel"), Ok(Decoded::Data { skip: 5, end: 8 }));
    assert_eq!(decoder.decode(b"lo\r\n0\r\n\r\nGET"), Ok(Decoded::Data { skip: 0, end: 2 }));
    assert!(!decoder.is_over());
    assert_eq!(decoder.decode(b"\r\n0\r\n\r\nGET"), Ok(Decoded::End { used: 7 }));
    assert!(decoder.is_over());
    assert_eq!(decoder.decode(b"GET"), Ok(Decoded::End { used: 0 }));
    assert_eq!(decoder.close(), Ok(()));

    let mut decoder = BodyDecoder::new(Framing::Length(3), Sender::Client);
    assert_eq!(decoder.decode(b"ab"), Ok(Decoded::Data { skip: 0, end: 2 }));
    assert_eq!(decoder.decode(b""), Ok(Decoded::More { used: 0 }));
    assert_eq!(decoder.decode(b"cGET"), Ok(Decoded::Data { skip: 0, end: 1 }));
    assert!(decoder.is_over(), "without another byte");
    assert_eq!(decoder.decode(b""), Ok(Decoded::End { used: 0 }));
}

#[test]
fn a_broken_body_stays_broken() {
    let mut decoder = BodyDecoder::new(Framing::Chunked, Sender::Client);
    assert_eq!(decoder.decode(b"zz"), Err(BodyError("chunk_size")));
    assert_eq!(decoder.decode(b"0\r\n\r\n"), Err(BodyError("chunk_size")));
    assert_eq!(decoder.close(), Err(BodyError("chunk_size")));
    let mut decoder = BodyDecoder::new(Framing::Length(1), Sender::Client);
    assert_eq!(decoder.close(), Err(BodyError("truncated_body")));
    assert_eq!(decoder.decode(b"x"), Err(BodyError("truncated_body")));
}

#[test]
fn what_is_written() {
    let mut out = Vec::new();
    write::request_line(&mut out, b"GET", b"/a?b");
    write::field(&mut out, b"Host", b"a");
    write::framing(&mut out, Framing::Length(u64::MAX));
    out.extend_from_slice(write::END_OF_HEAD);
    assert_eq!(out, b"GET /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n");

    let mut out = Vec::new();
    write::status_line(&mut out, 204, b"");
    write::framing(&mut out, Framing::None);
    write::framing(&mut out, Framing::UntilClose);
    assert_eq!(out, b"HTTP/1.1 204 \r\n");

    let mut out = Vec::new();
    for len in [0, 1, 15, 16, 255, 256, 4096, 0xdead_beef] {
        write::chunk_head(&mut out, len);
    }
    assert_eq!(out, b"1\r\nf\r\n10\r\nff\r\n100\r\n1000\r\ndeadbeef\r\n");

    let mut out = Vec::new();
    write::chunk(&mut out, b"");
    write::chunk(&mut out, b"hello");
    write::last_chunk(&mut out, [(&b"A"[..], &b"b"[..])]);
    assert_eq!(out, b"5\r\nhello\r\n0\r\nA: b\r\n\r\n");
}
