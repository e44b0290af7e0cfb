//! A key never leaves the gate (design rule 4, row G16): planted keys go in by every way there is, good and bad, at log
//! level trace, and are then looked for, raw and encoded, in all that came out.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::support::gateway::Gateway;
use crate::support::origin::{Answer, Origin};
use crate::support::{config_with, entry, eventually};

/// Planted keys: a foreign one with bytes that queries encode, one of another length, one that is disabled, one in no file.
const GOOD: &str = "planted/k+y=7f3a9c21d8~e5";
const ROLELESS: &str = "planted-without-roles-5b8e02";
const DISABLED: &str = "planted-but-disabled-90c4de";
const UNKNOWN: &str = "planted-in-no-file-31aa07fe";

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every character as `%XX`.
fn encoded(key: &str) -> String {
    key.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// What of a key must be nowhere: itself and its hash in each form in which somebody could read it back.
fn forms(key: &str) -> Vec<String> {
    let hash = hash(key);
    let query = key.replace('/', "%2F").replace('+', "%2B").replace('=', "%3D");
    let mut forms = vec![
        key.to_owned(),
        encoded(key),
        encoded(key).to_lowercase(),
        query.to_lowercase(),
        query,
        hex(key.as_bytes()),
        hex(&hash),
        hex(&hash).to_uppercase(),
        STANDARD_NO_PAD.encode(hash),
        URL_SAFE_NO_PAD.encode(hash),
        format!("{:?}", key.as_bytes()),
        format!("{hash:?}"),
    ];
    // In base64 a text looks in three ways, by where it begins; what is cut off depends on its neighbours.
    for before in ["", "x", "xx"] {
        let whole = STANDARD_NO_PAD.encode(format!("{before}{key}"));
        let (start, end) = ((before.len() * 8).div_ceil(6), whole.len() - 2);
        forms.push(whole[start..end].to_owned());
    }
    forms
}

const ALL: [&str; 4] = [GOOD, ROLELESS, DISABLED, UNKNOWN];

/// On a public route what is no key of ours belongs to the upstream (decision 8): there, and there alone, the key that is in
/// no file may be seen.
const OURS: [&str; 3] = [GOOD, ROLELESS, DISABLED];

#[track_caller]
fn search(place: &str, text: &str, keys: &[&str]) {
    for key in keys {
        for form in forms(key) {
            if let Some(at) = text.find(&form) {
                let shown: String = text[..at].chars().rev().take(300).collect::<Vec<_>>().into_iter().rev().collect();
                panic!("{place} shows {form} after: {shown}");
            }
        }
    }
}

/// Sends bytes, then gives all that comes back until the gate closes or has nothing more to say.
fn exchange(gate: &Gateway, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(gate.address(0)).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Requests that carry `key` in every place that is a source, and in places near them.
fn requests(key: &str) -> Vec<Vec<u8>> {
    let basic = STANDARD.encode(format!("somebody:{key}"));
    let base64url = URL_SAFE_NO_PAD.encode(key);
    let query = encoded(key);
    let half = key.replace('/', "%2F").replace('+', "%2B").replace('=', "%3D");
    let mut made = Vec::new();
    for path in
        ["/x", "/roles/x", "/open/x", "/few/x", "/narrow/x", "/gone/x", "/nowhere", "/x%2f..%2fopen/x", "/cors/x"]
    {
        for (target, fields) in [
            (path.to_owned(), format!("X-Api-Key: {key}")),
            (path.to_owned(), format!("X-Api-Key:\t {key} ")),
            (path.to_owned(), format!("Authorization: Bearer {key}")),
            (path.to_owned(), format!("Authorization: TOKEN  {key}")),
            (path.to_owned(), format!("Authorization: Basic {basic}")),
            (path.to_owned(), format!("X-Api-Key: {key}\r\nAuthorization: Basic {basic}")),
            (path.to_owned(), format!("X-Api-Key: {key}\r\nX-Api-Key: {key}")),
            (path.to_owned(), format!("Cookie: a=b; keygate_session={key}; c=d")),
            (path.to_owned(), format!("Sec-WebSocket-Protocol: a, keygate.key.{key}, b")),
            (path.to_owned(), format!("X_Api_Key: {key}\r\nx.api.key: {key}")),
            (format!("{path}?api_key={query}"), "A: b".to_owned()),
            (format!("{path}?b=1&api%5Fkey={half}&token={query}"), "A: b".to_owned()),
            (format!("{path}?api_key={query}"), "Sec-Fetch-Mode: navigate".to_owned()),
            // Names near a source's are the client's own affair where they are forwarded, but stay out of the logs.
            (format!("{}?api_key[1]={query}&token[]={half}", path.replace("open", "x")), "A: b".to_owned()),
            (path.to_owned(), format!("X-Api-Key: {key}\r\nReferer: http://a/p?token={half}&x=1#api_key={half}")),
            (path.to_owned(), format!("X-Api-Key: {key}\r\nConnection: X-Api-Key")),
            (path.to_owned(), format!("X-Api-Key: {key}\r\nContent-Type: application/grpc")),
            (path.to_owned(), format!("X-Api-Key: {key}\r\nAccept: application/problem+json")),
        ] {
            made.push(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n").into_bytes());
        }
        made.push(
            format!(
                "OPTIONS {path}?api_key={query} HTTP/1.1\r\nHost: a\r\nOrigin: http://b\r\nX-Api-Key: {key}\r\n\
                 Access-Control-Request-Method: GET\r\nCookie: keygate_session={key}\r\n\r\n"
            )
            .into_bytes(),
        );
        made.push(
            format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\
                 X-Api-Key: {key}\r\nAuthorization: Bearer {key}\r\n\r\n"
            )
            .into_bytes(),
        );
        made.push(
            format!(
                "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                 Sec-WebSocket-Protocol: chat, keygate.key.{}\r\n\r\n",
                // An item is a token (RFC 6455 section 4.1), and not every key is one.
                if key == GOOD { base64url.as_str() } else { key }
            )
            .into_bytes(),
        );
    }
    // What cannot be read at all.
    for broken in [
        format!("GET /x?token={half} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\nA: b\r\n\r\n"),
        format!("GET /x?token={half} HTTP/1.1\r\nHost: a\r\nX-Api-Key : {key}\r\n\r\n"),
        format!("GET /x HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\0\r\n\r\n"),
        format!("GET /x HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\n folded: {key}\r\n\r\n"),
        format!("GET /x HTTP/1.1\r\nHost: {key}@a\r\n\r\n"),
        format!("GET /x?token={half} HTTP/9.9\r\n\r\n"),
        format!("{key}\r\n\r\n"),
        format!("GET /x HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\nContent-Length: {key}\r\n\r\n"),
        format!("GET /x HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\nX-Long: {}\r\n\r\n", "y".repeat(40_000)),
        format!("POST /x HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        format!("GET /x HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\n"),
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{key}"),
    ] {
        made.push(broken.into_bytes());
    }
    made
}

#[test]
fn planted_keys_are_in_nothing_that_comes_out() {
    // An upstream that tells back what it was told, in head and body: what reaches it is in the answer, too.
    let origin = Origin::start(|request| {
        let body = String::from_utf8_lossy(&request.head).into_owned();
        let cookie = request.one("cookie").unwrap_or_default();
        Answer::raw(format!(
            "HTTP/1.1 200 OK\r\nX-Told: {} {cookie}\r\nContent-Length: {}\r\n\r\n{body}",
            request.target,
            body.len()
        ))
    });
    let routes = "  - { path: /x, upstream: app }\n  \
                  - { path: /roles/, upstream: app, roles: [client] }\n  \
                  - { path: /open/, upstream: app, access: public }\n  \
                  - { path: /few/, upstream: app, limits: { requests: 2, per: 1h } }\n  \
                  - { path: /narrow/, upstream: app, credentials: [X-Api-Key] }\n  \
                  - { path: /gone/, upstream: gone }\n  \
                  - { path: /cors/, upstream: app, cors_preflight: true }\n";
    let more = "limits: { failed_auth: { attempts: 100, per: 1h } }\n";
    let config = config_with(&origin, routes, more)
        .replace("level: info", "level: trace")
        .replace("upstreams:\n", "upstreams:\n  gone: { servers: [\"127.0.0.1:1\"] }\n");
    let entries = [
        entry("9a17ed01", "gina", GOOD, "    roles: [client]\n    note: planted\n"),
        entry("9a17ed02", "hugo", ROLELESS, ""),
        entry("9a17ed03", "ines", DISABLED, "    disabled: true\n"),
    ];
    let keys = format!("version: 1\nkeys:\n{}...\n", entries.concat());
    let mut gate = Gateway::start_with(&config, &keys, &[("RUST_BACKTRACE", "full")]);
    let mut answers = 0;
    for key in [GOOD, ROLELESS, DISABLED, UNKNOWN] {
        for bytes in requests(key) {
            let answer = exchange(&gate, &bytes);
            let request = String::from_utf8_lossy(&bytes);
            let keys = if request.contains(" /open/") { OURS.as_slice() } else { &ALL };
            search(&format!("the answer to {request}"), &answer, keys);
            answers += usize::from(answer.starts_with("HTTP/1.1 "));
        }
    }
    assert!(answers > 600, "{answers} answers: the requests did what they were made for");
    assert!(origin.requests().len() > 100 && origin.requests().iter().any(|seen| seen.target.starts_with("/open/")));

    // Key files that name what is wrong with them, and hold keys and hashes where neither belongs.
    for wrong in [
        keys.replace("roles: [client]", &format!("rolls: [{}]", hex(&hash(GOOD)))),
        keys.replace("disabled: true", &format!("disabled: {DISABLED}")),
        keys.replace(&hex(&hash(ROLELESS)), ROLELESS),
        keys.replace(&hex(&hash(ROLELESS)), &hex(&hash(GOOD))),
        keys.replace("version: 1", &format!("version: {GOOD}")),
        keys.replace("keys:\n", &format!("keys:\n  - {UNKNOWN}\n")),
        format!("{keys}\"{GOOD}"),
    ] {
        let failures = || gate.metric(r#"keygate_keyfile_reloads_total{result="failure"}"#);
        let before = failures();
        gate.replace_keys(&wrong);
        eventually("the refused reload", || (failures() > before).then_some(()));
    }
    let page = gate.metrics();
    gate.signal("TERM");
    gate.wait();
    assert!(gate.log().contains("\"TRACE\"") || gate.log().contains("\"DEBUG\""), "it was the level that tells all");
    search("the metrics page", &page, &ALL);
    search("the log", &gate.log(), &ALL);
    search("the access log", &gate.access().iter().map(|line| format!("{line}\n")).collect::<String>(), &ALL);
    for line in gate.access() {
        // Unescaped as well: a reader of JSON sees this.
        for value in line.as_object().expect("an object").values() {
            search("the access log", value.as_str().unwrap_or_default(), &ALL);
        }
    }
    search("what the upstream saw", &String::from_utf8_lossy(&origin.raw()), &OURS);
}
