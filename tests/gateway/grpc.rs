//! HTTP/2 towards upstreams, and gRPC through both sides: messages, trailers, cancellation, refusals as gRPC statuses.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Response};

use crate::support::client::{Client, get, request};
use crate::support::gateway::Gateway;
use crate::support::http2::{H2Client, TlsGate, answer};
use crate::support::http2_origin::{H2Origin, config_http2};
use crate::support::{ALICE, KEYS, eventually};

const GRPC: [(&str, &str); 3] = [("content-type", "application/grpc"), ("te", "trailers"), ("x-api-key", ALICE)];

/// A gRPC message as it stands in DATA: not compressed, its length, its bytes.
fn message(text: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// A gRPC service that sends each piece of the request back as it comes, then status 0.
fn echo_service() -> H2Origin {
    H2Origin::start(100, |request, mut respond, _| async move {
        let mut body = request.into_body();
        let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let Ok(mut stream) = respond.send_response(head, false) else { return };
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
            let _ = stream.send_data(data, false);
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        trailers.insert("grpc-message", "done".parse().unwrap());
        let _ = stream.send_trailers(trailers);
    })
}

#[test]
fn http1_clients_reach_an_http2_upstream() {
    let origin = H2Origin::echo();
    let gate = Gateway::start(&config_http2(&origin, "", "threads: 1\n"));
    let sent = "x".repeat(300_000);
    let headers = [("X-Api-Key", ALICE), ("Connection", "keep-alive, x-hop"), ("x-hop", "1"), ("X-Auth-User", "root")];
    let answer = request(gate.address(0), "POST", "/a%2Fb?q=1", &headers, sent.as_bytes());
    assert_eq!((answer.status, answer.body.len()), (200, sent.len()));
    assert_eq!(answer.trailers, [("x-length".to_owned(), "300000".to_owned())]);
    let seen = origin.requests().remove(0);
    assert_eq!(seen.line, "POST http://gate.test/a%2Fb?q=1");
    assert_eq!(seen.headers["x-auth-user"], "alice");
    assert_eq!(seen.headers["content-length"], "300000");
    for gone in ["x-api-key", "x-hop", "connection", "host", "transfer-encoding"] {
        assert!(!seen.headers.contains_key(gone), "{gone}");
    }
    let mut client = Client::connect(gate.address(0));
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {ALICE}\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(head).send("5\r\nhello\r\n0\r\nx-sum: 7\r\nx-auth-user: root\r\n\r\n");
    let chunked = client.read();
    assert_eq!(chunked.text(), "hello");
    assert!(chunked.trailers.contains(&("x-sum".to_owned(), "7".to_owned())), "{:?}", chunked.trailers);
    assert_eq!(get(gate.address(0), "/", &[]).status, 401);
    assert_eq!((origin.requests().len(), origin.connections()), (2, 1), "requests share a connection");
    let head = request(gate.address(0), "HEAD", "/", &[("X-Api-Key", ALICE)], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn many_requests_share_connections_up_to_what_the_server_allows() {
    let origin = H2Origin::start(4, |request, mut respond, _| async move {
        let (_, mut rest) = (request.uri().clone(), request.into_body());
        while rest.data().await.is_some() {}
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let _ = respond.send_response(Response::new(()), true);
    });
    let gate = TlsGate::start(&config_http2(&origin, "", "threads: 1\n"));
    let mut client = gate.connect();
    let opened: Vec<_> = (0..40)
        .map(|n| client.open(H2Client::head("GET", &format!("/{n}"), &[("x-api-key", ALICE)]), true).0)
        .collect();
    let answers = client.wait(async {
        let mut answers = Vec::new();
        for response in opened {
            answers.push(answer(response).await.expect("an answer").status);
        }
        answers
    });
    assert_eq!(answers, [200; 40]);
    assert_eq!(origin.requests().len(), 40);
    assert!((2..=40).contains(&origin.connections()), "{}", origin.connections());
}

#[test]
fn what_the_server_did_not_touch_is_asked_again_once() {
    let count = AtomicUsize::new(0);
    let origin = H2Origin::start(100, move |request, mut respond, _| {
        let first = request.method() != "GET" || count.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                respond.send_reset(Reason::REFUSED_STREAM);
            } else {
                let _ = respond.send_response(Response::new(()), true);
            }
        }
    });
    let gate = Gateway::start(&config_http2(&origin, "", ""));
    assert_eq!(get(gate.address(0), "/", &[("X-Api-Key", ALICE)]).status, 200);
    let seen = origin.requests();
    assert_eq!((seen.len(), seen[1].connection), (2, 1), "asked again on a new connection");
    // A server that refuses for ever is asked twice and no more; a body that is used up is not sent again.
    assert_eq!(request(gate.address(0), "DELETE", "/", &[("X-Api-Key", ALICE)], b"").status, 502);
    assert_eq!(origin.requests().len(), 4);
    assert_eq!(request(gate.address(0), "POST", "/", &[("X-Api-Key", ALICE)], b"body").status, 502);
    assert_eq!(origin.requests().len(), 5);
}

#[test]
fn an_http2_answer_that_breaks_off_or_does_not_come_is_told_as_such() {
    let origin = H2Origin::start(100, |request, mut respond, _| async move {
        match request.uri().path() {
            "/reset" => respond.send_reset(Reason::INTERNAL_ERROR),
            "/half" => {
                if let Ok(mut stream) = respond.send_response(Response::new(()), false) {
                    let _ = stream.send_data(Bytes::from_static(b"half"), false);
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    stream.send_reset(Reason::INTERNAL_ERROR);
                }
            }
            _ => std::future::pending().await,
        }
    });
    let gate = TlsGate::start(&config_http2(&origin, ", response_timeout: 300ms", ""));
    let mut client = gate.connect();
    let key = [("x-api-key", ALICE)];
    assert_eq!(client.request("GET", "/reset", &key, b"").status, 502);
    assert_eq!(client.request("GET", "/silent", &key, b"").status, 504);
    let half = client.try_request("GET", "/half", &key, b"").expect_err("a reset");
    assert_eq!(half.reason(), Some(Reason::INTERNAL_ERROR));
}

#[test]
fn a_unary_call_passes_with_its_trailers_and_a_call_without_key_is_unauthenticated() {
    let origin = echo_service();
    let gate = TlsGate::start(&config_http2(&origin, "", ""));
    let mut client = gate.connect();
    let call = client.request("POST", "/pkg.Service/Echo", &GRPC, &message("hello"));
    assert_eq!((call.status, call.body.as_slice()), (200, message("hello").as_slice()));
    assert_eq!(call.trailers["grpc-status"], "0");
    assert_eq!(call.trailers["grpc-message"], "done");
    assert!(!call.headers.contains_key("content-length"));
    let seen = origin.requests().remove(0);
    assert_eq!(seen.line, "POST http://gate.test/pkg.Service/Echo");
    assert_eq!(seen.headers["te"], "trailers");
    assert_eq!(seen.headers["x-auth-user"], "alice");
    let refused = client.request("POST", "/pkg.Service/Echo", &GRPC[..2], &message("hello"));
    assert_eq!((refused.status, refused.one("grpc-status"), refused.body.len()), (200, Some("16"), 0));
    assert_eq!(refused.one("content-type"), Some("application/grpc"));
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn a_call_over_the_limit_is_resource_exhausted() {
    let origin = echo_service();
    let more = "limits: { default: { requests: 1, per: 1h, burst: 1 } }\n";
    let gate = TlsGate::start(&config_http2(&origin, "", more));
    let mut client = gate.connect();
    assert_eq!(client.request("POST", "/s/m", &GRPC, &message("1")).trailers["grpc-status"], "0");
    let limited = client.request("POST", "/s/m", &GRPC, &message("2"));
    assert_eq!((limited.status, limited.one("grpc-status")), (200, Some("8")));
    assert!(limited.headers.contains_key("ratelimit") && limited.headers.contains_key("retry-after"));
}

#[test]
fn a_stream_flows_both_ways_at_once() {
    let origin = echo_service();
    let gate = TlsGate::start(&config_http2(&origin, "", ""));
    let mut client = gate.connect();
    let (response, mut stream) = client.open(H2Client::head("POST", "/s/m", &GRPC), false);
    client.wait(async {
        stream.send_data(message("one").into(), false).expect("sent");
        let mut body = response.await.expect("an answer").into_body();
        for text in ["one", "two", "three"] {
            if text != "one" {
                stream.send_data(message(text).into(), false).expect("sent");
            }
            let mut got = Vec::new();
            while got.len() < message(text).len() {
                got.extend_from_slice(&body.data().await.expect("more").expect("data"));
            }
            assert_eq!(got, message(text));
        }
        stream.send_data(Bytes::new(), true).expect("sent");
        assert!(body.data().await.is_none());
        assert_eq!(body.trailers().await.expect("trailers").expect("some")["grpc-status"], "0");
    });
}

#[test]
fn a_cancelled_call_is_cancelled_at_the_server_and_frees_its_place() {
    let cancelled = Arc::new(AtomicUsize::new(0));
    let count = cancelled.clone();
    let origin = H2Origin::start(100, move |request, mut respond, _| {
        let count = count.clone();
        async move {
            let _body = request.into_body();
            let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let more = "limits: { default: { concurrent: 1 } }\n";
    let gate = TlsGate::start(&config_http2(&origin, "", more));
    let mut client = gate.connect();
    let (_response, mut stream) = client.open(H2Client::head("POST", "/s/m", &GRPC), false);
    eventually("the call arrives", || (origin.requests().len() == 1).then_some(()));
    assert_eq!(client.request("POST", "/s/m", &GRPC, b"x").one("grpc-status"), Some("8"), "the one place is taken");
    stream.send_reset(Reason::CANCEL);
    eventually("the server learns of it", || (cancelled.load(Ordering::SeqCst) == 1).then_some(()));
    let (_response, mut again) = client.open(H2Client::head("POST", "/s/m", &GRPC), false);
    eventually("the place is free", || (origin.requests().len() == 2).then_some(()));
    again.send_reset(Reason::CANCEL);
}

#[test]
fn a_revoked_key_ends_its_streams_with_a_reset_and_no_others() {
    let origin = echo_service();
    let gate = TlsGate::start(&config_http2(&origin, "", ""));
    let mut client = gate.connect();
    let (alice, mut to_alice) = client.open(H2Client::head("POST", "/s/m", &GRPC), false);
    let bobs = [GRPC[0], GRPC[1], ("x-api-key", crate::support::BOB)];
    let (bob, mut to_bob) = client.open(H2Client::head("POST", "/s/m", &bobs), false);
    to_alice.send_data(message("a").into(), false).expect("sent");
    to_bob.send_data(message("b").into(), false).expect("sent");
    let (mut alice, mut bob) = client.wait(async {
        let mut alice = alice.await.expect("an answer").into_body();
        let mut bob = bob.await.expect("an answer").into_body();
        assert!(alice.data().await.is_some() && bob.data().await.is_some());
        (alice, bob)
    });
    let without = KEYS.replace("    roles: [client, miner]\n", "    roles: [client, miner]\n    disabled: true\n");
    gate.gate.replace_keys(&without);
    client.wait(async {
        let ended = alice.data().await.expect("not a clean end").expect_err("a reset");
        assert_eq!(ended.reason(), Some(Reason::CANCEL));
        to_bob.send_data(message("b").into(), false).expect("sent");
        assert!(bob.data().await.expect("open").is_ok(), "the other key's stream goes on");
    });
    gate.gate.expect_metric(r#"keygate_connections_closed_total{reason="key_ended"}"#, 1.0);
    let line = eventually("an access line", || gate.gate.access().into_iter().find(|line| line["user"] == "alice"));
    assert_eq!(line["closed"], "key_revoked");
}
