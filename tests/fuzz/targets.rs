//! What the fuzz targets assert. Shared: libFuzzer drives these functions on nightly, and the unit tests of `http1` replay
//! the corpus, the case tables and generated input through them on stable. The including file brings `http1` (the room
//! under test) and `strict` (the independent reader) into scope beside this module.

use super::http1::body::{BodyDecoder, BodyError, Decoded, Sender};
use super::http1::head::{Fields, Framing, HeadLimits, Version};
use super::http1::request::{Request, RequestHead};
use super::http1::response::{Asked, ResponseHead};
use super::http1::write;
use super::strict;

const LIMITS: HeadLimits = HeadLimits { max_head_bytes: 4096, max_headers: 64, max_target_bytes: 512 };

/// Where to cut `len` bytes: at a few odd places, and everywhere if there are few.
fn cuts(len: usize) -> Vec<usize> {
    let step = if len <= 512 { 1 } else { len / 7 };
    (1..len).step_by(step).collect()
}

/// A request head reads the same in pieces, and what is accepted reads the same to two other readers.
pub(crate) fn request_head(input: &[u8]) {
    let mut head = RequestHead::default();
    let whole = head.parse(input, &LIMITS);

    let mut dripped = RequestHead::default();
    let mut verdict = Ok(false);
    for end in cuts(input.len()).into_iter().chain([input.len()]) {
        verdict = dripped.parse(&input[..end], &LIMITS);
        if verdict != Ok(false) {
            break;
        }
    }
    assert_eq!(whole, verdict, "in one piece and in many");

    if whole == Ok(true) {
        let request = head.view(input);
        assert_eq!(request.len(), dripped.view(input).len());
        assert!(request.len() <= LIMITS.max_head_bytes && request.fields().len() <= LIMITS.max_headers);
        agrees_with_strict(request, input);
        agrees_with_httparse(request, input);
    }
}

fn agrees_with_strict(request: Request<'_>, input: &[u8]) {
    let other = strict::head(input).expect("the strict reader takes it too");
    assert_eq!(other.len, request.len());
    assert_eq!(other.start[0], request.method());
    assert_eq!(other.start[1], request.target());
    assert_eq!(other.start[2] == b"HTTP/1.1", request.version() == Version::Http11);
    assert!(same_fields(request.fields(), &other.fields));
    assert!(request.target().starts_with(b"/") && request.target().iter().all(|byte| byte.is_ascii_graphic()));
    let (lengths, codings) = (strict::values(&other, "content-length"), strict::values(&other, "transfer-encoding"));
    match request.framing() {
        Framing::None => assert!(lengths.is_empty() && codings.is_empty()),
        Framing::Length(length) => {
            assert!(codings.is_empty() && lengths.len() == 1);
            assert_eq!(std::str::from_utf8(lengths[0]).unwrap().parse(), Ok(length));
        }
        Framing::Chunked => assert!(lengths.is_empty() && codings.len() == 1),
        Framing::UntilClose => panic!("a request never ends with the close"),
    }
    assert!(strict::values(&other, "host").len() <= 1);
}

/// `httparse` as others configure it: as lenient as it goes.
fn agrees_with_httparse(request: Request<'_>, input: &[u8]) {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut other = httparse::Request::new(&mut headers);
    let mut config = httparse::ParserConfig::default();
    config
        .allow_multiple_spaces_in_request_line_delimiters(true)
        .allow_space_before_first_header_name(true)
        .ignore_invalid_headers_in_requests(true);
    let len = config.parse_request(&mut other, input);
    assert_eq!(len, Ok(httparse::Status::Complete(request.len())));
    assert_eq!(other.method.map(str::as_bytes), Some(request.method()));
    assert_eq!(other.path.map(str::as_bytes), Some(request.target()));
    assert_eq!(other.version, Some(u8::from(request.version() == Version::Http11)));
    let fields: Vec<_> = other.headers.iter().map(|field| (field.name.into(), field.value.into())).collect();
    assert!(same_fields(request.fields(), &fields));
}

fn same_fields(ours: Fields<'_>, theirs: &[(Vec<u8>, Vec<u8>)]) -> bool {
    ours.iter().map(|field| (field.name, field.value)).eq(theirs.iter().map(|(name, value)| (&name[..], &value[..])))
}

/// A response head reads the same in pieces. The first byte says what was asked.
pub(crate) fn response_head(input: &[u8]) {
    let Some((selector, input)) = input.split_first() else { return };
    let asked = Asked { head: selector % 3 == 1, websocket: selector % 3 == 2 };
    let mut head = ResponseHead::default();
    let whole = head.parse(input, asked);

    let mut dripped = ResponseHead::default();
    let mut verdict = Ok(false);
    for end in cuts(input.len()).into_iter().chain([input.len()]) {
        verdict = dripped.parse(&input[..end], asked);
        if verdict != Ok(false) {
            break;
        }
    }
    assert_eq!(whole, verdict, "in one piece and in many");

    if whole != Ok(true) {
        return;
    }
    let response = head.view(input);
    assert!((100..=599).contains(&response.status()));
    assert!(response.status() != 101 || asked.websocket);
    let mut out = Vec::new();
    write::status_line(&mut out, response.status(), response.reason());
    for field in response.fields().iter() {
        write::field(&mut out, field.name, field.value);
    }
    out.extend_from_slice(write::END_OF_HEAD);
    let other = strict::head(&out).expect("what is sent on is strict");
    assert_eq!(other.len, out.len());
    assert_eq!(other.start[2], response.reason());
    assert!(same_fields(response.fields(), &other.fields));
}

/// A body reads the same in pieces, and what was read, written anew, reads the same again. The first byte says whose body
/// it is and how it is framed.
pub(crate) fn body(input: &[u8]) {
    let Some((selector, input)) = input.split_first() else { return };
    let sender = if selector & 1 == 0 { Sender::Client } else { Sender::Upstream };
    let framing = match (selector / 2) % 3 {
        0 => Framing::Chunked,
        1 => Framing::Length(u64::from(selector / 6)),
        _ => Framing::UntilClose,
    };
    let mut decoder = BodyDecoder::new(framing, sender);
    let whole = decode(&mut decoder, &[input]);
    for cut in cuts(input.len()) {
        let (left, right) = input.split_at(cut);
        let mut pieces = BodyDecoder::new(framing, sender);
        assert_eq!(whole, decode(&mut pieces, &[left, right]), "cut at {cut}");
        assert_eq!(decoder.trailers(), pieces.trailers(), "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(whole, decode(&mut BodyDecoder::new(framing, sender), &bytes), "byte by byte");

    let Ok((payload, used)) = whole else { return };
    assert!(decoder.is_over() && used <= input.len() && payload.len() <= used);
    let mut out = Vec::new();
    payload.chunks(1 + usize::from(*selector)).for_each(|piece| write::chunk(&mut out, piece));
    write::last_chunk(&mut out, decoder.trailers().iter().map(|(name, value)| (&name[..], &value[..])));
    let other = strict::chunked(&out).expect("what is sent on is strict");
    assert_eq!((other.payload, other.len), (payload, out.len()));
    let trailers = decoder.trailers().iter().map(|(name, value)| (name.to_vec(), value.to_vec()));
    assert!(other.trailers.into_iter().eq(trailers));
}

/// Decodes a body that comes in `pieces` and then ends: its payload, and how many bytes it took up.
pub(crate) fn decode(decoder: &mut BodyDecoder, pieces: &[&[u8]]) -> Result<(Vec<u8>, usize), BodyError> {
    let (mut payload, mut total) = (Vec::new(), 0);
    for piece in pieces {
        let mut at = 0;
        loop {
            match decoder.decode(&piece[at..])? {
                Decoded::Data { skip, end } => {
                    assert!(skip < end, "data is never empty");
                    payload.extend_from_slice(&piece[at + skip..at + end]);
                    at += end;
                }
                Decoded::More { used } => {
                    at += used;
                    assert_eq!(at, piece.len(), "more is asked for only when all is used up");
                    break;
                }
                Decoded::End { used } => {
                    assert!(decoder.is_over());
                    return Ok((payload, total + at + used));
                }
            }
        }
        total += at;
    }
    decoder.close()?;
    Ok((payload, total))
}

/// A request that is accepted, written anew as the gate does, is one strict message that means the same.
pub(crate) fn roundtrip(input: &[u8]) {
    let mut head = RequestHead::default();
    if head.parse(input, &LIMITS) != Ok(true) {
        return;
    }
    let request = head.view(input);
    let rest = &input[request.len()..];
    let mut decoder = BodyDecoder::new(request.framing(), Sender::Client);
    let body = decode(&mut decoder, &[rest]).ok();

    let kept =
        |name: &[u8]| !name.eq_ignore_ascii_case(b"content-length") && !name.eq_ignore_ascii_case(b"transfer-encoding");
    let mut out = Vec::new();
    write::request_line(&mut out, request.method(), request.target());
    request.fields().iter().filter(|field| kept(field.name)).for_each(|field| {
        write::field(&mut out, field.name, field.value);
    });
    write::framing(&mut out, request.framing());
    out.extend_from_slice(write::END_OF_HEAD);

    let other = strict::head(&out).expect("what is sent on is strict");
    assert_eq!(other.len, out.len(), "and one message");
    assert_eq!(other.start, [request.method().to_vec(), request.target().to_vec(), b"HTTP/1.1".to_vec()]);
    let before = request.fields().iter().filter(|field| kept(field.name)).map(|field| (field.name, field.value));
    let after = other.fields.iter().filter(|(name, _)| kept(name)).map(|(name, value)| (&name[..], &value[..]));
    assert!(before.eq(after));

    // HTTP/1.0 may lack a Host, and is sent on as 1.1 with one of the gate's own.
    let mut again = RequestHead::default();
    if request.host().is_some() {
        let room = HeadLimits { max_head_bytes: LIMITS.max_head_bytes + 64, ..LIMITS };
        match again.parse(&out, &room) {
            Ok(true) => assert_eq!(again.view(&out).framing(), request.framing()),
            // Only a field that HTTP/1.0 does not know may stand in the way.
            other => assert!(request.version() == Version::Http10, "{other:?}"),
        }
    }
    if let (Framing::Chunked, Some((payload, _))) = (request.framing(), body) {
        let mut out = Vec::new();
        write::chunk(&mut out, &payload);
        write::last_chunk(&mut out, []);
        assert_eq!(strict::chunked(&out).map(|body| body.payload), Some(payload));
    }
}
