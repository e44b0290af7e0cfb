//! Access lines: pinned forms, hostile bytes, redaction, and a target that is slow or fails.

use std::io::{Read as _, Write};
use std::net::IpAddr;
use std::sync::mpsc;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::key::KeyId;
use crate::rejection::{AuthFailure, Limited, Rejection};

const WITHIN: Duration = Duration::from_secs(10);

fn line<'a>(names: &'a CredentialNames, text: &'a [u8]) -> Line<'a> {
    Line {
        time: "2030-01-02T03:04:05.0678Z".parse().unwrap(),
        request_id: "0a1b",
        remote: Some(IpAddr::from([192, 0, 2, 7])),
        method: text,
        host: Some(text),
        target: Some(RedactedTarget::new(text, names)),
        protocol: Protocol::Http11,
        tls: Some("1.3"),
        key_id: None,
        user: None,
        route: None,
        status: 200,
        rejection: None,
        bytes_in: 78,
        bytes_out: 1234567,
        duration: Duration::from_micros(12_345),
        upstream: Some(Duration::from_micros(12_001)),
        gate: Duration::from_nanos(344_900),
        server: Some("10.0.0.5:9101"),
        closed: None,
        user_agent: Some(text),
    }
}

fn written(line: &Line<'_>, format: Format) -> String {
    let mut out = Vec::new();
    line.push(format, &mut out);
    let text = String::from_utf8(out).unwrap();
    assert!(text.ends_with('\n') && text.matches('\n').count() == 1, "{text:?}");
    assert!(text.trim_end().bytes().all(|byte| (b' '..0x7f).contains(&byte)), "{text:?}");
    text
}

fn json(line: &Line<'_>) -> Value {
    serde_json::from_str(&written(line, Format::Json)).unwrap()
}

#[test]
fn a_whole_line_is_pinned_in_both_formats() {
    let names = CredentialNames::default();
    let id = KeyId::new("48e8f859");
    let rejection = Rejection::BadGateway("upstream_reset");
    let whole = Line {
        method: b"GET",
        host: Some(b"gate.lan:8443"),
        target: Some(RedactedTarget::new(b"/v1/x?y=1", &names)),
        key_id: Some(&id),
        user: Some("alice"),
        route: Some("/v1/"),
        status: 502,
        rejection: Some(&rejection),
        closed: Some("upstream"),
        user_agent: Some(b"curl/8"),
        ..line(&names, b"")
    };
    assert_eq!(
        written(&whole, Format::Json),
        concat!(
            r#"{"time":"2030-01-02T03:04:05.067Z","request_id":"0a1b","remote":"192.0.2.7","method":"GET","#,
            r#""host":"gate.lan:8443","target":"/v1/x?y=1","protocol":"HTTP/1.1","tls":"1.3","key_id":"48e8f859","#,
            r#""user":"alice","route":"/v1/","status":502,"outcome":"failed","reason":"upstream_reset","#,
            r#""bytes_in":78,"bytes_out":1234567,"duration_ms":12.345,"upstream_ms":12.001,"gate_ms":0.344,"#,
            r#""server":"10.0.0.5:9101","closed":"upstream","user_agent":"curl/8"}"#,
            "\n"
        )
    );
    assert_eq!(
        written(&whole, Format::Text),
        concat!(
            r#"2030-01-02T03:04:05.067Z 502 failed reason=upstream_reset 192.0.2.7 "GET" "gate.lan:8443" "/v1/x?y=1" "#,
            r#"HTTP/1.1 TLS1.3 key="48e8f859" user="alice" route="/v1/" in=78 out=1234567 ms=12.345 "#,
            r#"upstream_ms=12.001 gate_ms=0.344 server="10.0.0.5:9101" closed=upstream agent="curl/8" id="0a1b""#,
            "\n"
        )
    );
}

#[test]
fn what_is_not_known_is_null() {
    let names = CredentialNames::default();
    let bare = Line {
        remote: None,
        host: None,
        target: None,
        tls: None,
        upstream: None,
        server: None,
        user_agent: None,
        ..line(&names, b"")
    };
    let value = json(&bare);
    for field in [
        "remote",
        "host",
        "target",
        "tls",
        "key_id",
        "user",
        "route",
        "reason",
        "upstream_ms",
        "server",
        "closed",
        "user_agent",
    ] {
        assert_eq!(value.get(field), Some(&Value::Null), "{field}");
    }
    assert_eq!(value["method"], "");
    written(&bare, Format::Text);
}

#[test]
fn outcome_and_reason_follow_the_rejection() {
    let names = CredentialNames::default();
    for (rejection, outcome, reason) in [
        (Rejection::Unauthorized(AuthFailure::Unknown), "unauthorized", "unknown"),
        (Rejection::Forbidden, "forbidden", "forbidden"),
        (Rejection::TooManyRequests(Limited::Quota, Duration::ZERO), "limited", "quota"),
        (Rejection::Malformed("cl_te"), "refused", "cl_te"),
        (Rejection::NoRoute, "refused", "not_found"),
        (Rejection::GatewayTimeout("connect"), "failed", "connect"),
        (Rejection::Internal, "failed", "internal_error"),
    ] {
        let value = json(&Line { rejection: Some(&rejection), ..line(&names, b"") });
        assert_eq!((&value["outcome"], &value["reason"]), (&outcome.into(), &reason.into()));
    }
    assert_eq!(json(&line(&names, b""))["outcome"], "admitted");
}

#[test]
fn what_clients_make_long_is_cut() {
    let names = CredentialNames::default();
    let long = [b'x'; 9000];
    let value = json(&line(&names, &long));
    for (field, max) in [("method", 32), ("host", 255), ("target", 2048), ("user_agent", 200)] {
        assert_eq!(value[field].as_str().unwrap().len(), max + 3, "{field}");
    }
}

#[test]
fn keys_are_masked_in_every_text_of_the_client() {
    let names = CredentialNames::default();
    let key = b"kg_48e8f859SECRETSECRETSECRETSECRETSECRETSECRETSECRET";
    let line = Line { request_id: std::str::from_utf8(key).unwrap(), ..line(&names, key) };
    for format in [Format::Json, Format::Text] {
        let text = written(&line, format);
        assert!(!text.contains("SECRET") && text.contains("kg_***"), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever bytes a client sends, a line is one line, printable, and reads back as those bytes.
    #[test]
    fn hostile_bytes_read_back(bytes in prop::collection::vec(any::<u8>(), 0..150), user in "\\PC{0,20}") {
        let names = CredentialNames::default();
        let latin: String = bytes.iter().map(|byte| char::from(*byte)).collect();
        prop_assume!(!latin.contains("kg_") && !latin.contains('%'));
        let line = Line { user: Some(&user), route: Some(&user), request_id: &user, server: Some(&user), ..line(&names, &bytes) };
        let value = json(&line);
        prop_assert_eq!(value["host"].as_str(), Some(&*latin));
        prop_assert_eq!(value["target"].as_str(), Some(&*latin));
        prop_assert_eq!(value["user_agent"].as_str(), Some(&*latin));
        prop_assert_eq!(value["user"].as_str(), Some(&*user));
        prop_assert_eq!(value["server"].as_str(), Some(&*user));
        written(&line, Format::Text);
    }

    /// Whatever stands around it, a value given under a credential's name is not in the log.
    #[test]
    fn a_planted_secret_never_shows(before in "[a-z%&=;?/+]{0,20}", after in "[a-z%&=;?/+]{0,20}", n in 0usize..3) {
        let names = CredentialNames::of(&crate::credential::Settings {
            sources: vec![crate::credential::Source::Query { name: "api_key".into(), browser_login: false }],
            realm: "r".into(),
        });
        let name = ["api_key", "api%5Fkey", "%61pi_key"][n];
        let target = format!("/x?{before}&{name}=SECRET{after}");
        let shown = RedactedTarget::new(target.as_bytes(), &names).to_string();
        prop_assert!(!shown.contains("SECRET"), "{} -> {}", target, shown);
    }
}

fn counter() -> IntCounter {
    IntCounter::new("dropped", "dropped").unwrap()
}

fn settings(access: Target) -> Settings {
    Settings { level: Level::Info, format: None, access }
}

#[test]
fn a_file_is_appended_to_and_followed_through_rotation() {
    let folder = tempfile::tempdir().unwrap();
    let (path, old) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    std::fs::write(&path, "before\n").unwrap();
    let names = CredentialNames::default();
    let log = AccessLog::start(&settings(Target::File(path.clone())), counter()).unwrap();
    let handle = log.handle();
    handle.write(&Line { request_id: "one", ..line(&names, b"") });
    assert!(log.flush(WITHIN));
    std::fs::rename(&path, &old).unwrap();
    handle.write(&Line { request_id: "two", ..line(&names, b"") });
    assert!(log.flush(WITHIN));
    log.reopen(&Settings { format: Some(Format::Text), ..settings(Target::File(path.clone())) }).unwrap();
    assert!(log.flush(WITHIN));
    handle.write(&Line { request_id: "three", ..line(&names, b"") });
    assert!(log.flush(WITHIN));
    let (first, second) = (std::fs::read_to_string(&old).unwrap(), std::fs::read_to_string(&path).unwrap());
    assert!(first.starts_with("before\n{") && first.contains("\"one\"") && first.contains("\"two\""), "{first}");
    assert!(second.starts_with("2030") && second.ends_with("id=\"three\"\n"), "{second}");
    assert_eq!(second.lines().count(), 1);
    // A target that cannot be opened changes nothing.
    log.reopen(&settings(Target::File(folder.path().join("no/such/folder")))).unwrap_err();
    handle.write(&Line { request_id: "four", ..line(&names, b"") });
    assert!(log.flush(WITHIN));
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    // Off is off.
    log.reopen(&settings(Target::Off)).unwrap();
    handle.write(&Line { request_id: "five", ..line(&names, b"") });
    assert!(log.flush(WITHIN));
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
}

#[test]
fn a_new_file_is_not_for_everybody() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let _log = AccessLog::start(&settings(Target::File(path.clone())), counter()).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o007, 0);
}

#[test]
fn the_format_suits_the_reader() {
    let unset = settings(Target::Stdout);
    assert_eq!((unset.format_for(true), unset.format_for(false)), (Format::Text, Format::Json));
    let set = Settings { format: Some(Format::Json), ..unset };
    assert_eq!(set.format_for(true), Format::Json);
}

#[test]
fn a_slow_target_costs_lines_and_never_time() {
    let (mut reader, sink) = io::pipe().unwrap();
    let dropped = counter();
    let writer = Writer::start(Some(Box::new(sink)), dropped.clone()).unwrap();
    let lines = writer.bounded_appender(4096);
    let text = format!("{}\n", "x".repeat(99));
    let mut given = 0;
    let mut give = || {
        lines.append(|out| out.extend_from_slice(text.as_bytes()));
        given += 1;
        assert!(given < 1_000_000);
    };
    // Nobody reads: the pipe fills up and the writing thread waits, then the buffer, and then every line is dropped.
    while writer.flush(Duration::from_millis(50)) {
        (0..20).for_each(|_| give());
    }
    let before = dropped.get();
    while dropped.get() < before + 10 {
        give();
    }
    // Somebody reads: every line that was not dropped comes whole.
    drop(lines);
    let reading = std::thread::spawn(move || {
        let mut all = String::new();
        reader.read_to_string(&mut all).unwrap();
        all
    });
    assert!(writer.flush(WITHIN));
    drop(writer);
    let all = reading.join().unwrap();
    assert_eq!(all.matches(text.as_str()).count(), all.lines().count());
    assert_eq!(all.lines().count() as u64, given - dropped.get());
}

#[test]
fn lines_of_many_workers_all_arrive_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let dropped = counter();
    let log = AccessLog::start(&settings(Target::File(path.clone())), dropped.clone()).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let handle = log.handle();
            scope.spawn(move || {
                let names = CredentialNames::default();
                for n in 0..500 {
                    let id = format!("{worker}-{n}");
                    handle.write(&Line { request_id: &id, ..line(&names, b"/x") });
                }
            });
        }
    });
    assert!(log.flush(WITHIN));
    assert_eq!(dropped.get(), 0);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut next = [0; 4];
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        let (worker, n) = value["request_id"].as_str().unwrap().split_once('-').unwrap();
        let next = &mut next[worker.parse::<usize>().unwrap()];
        assert_eq!(n.parse::<usize>().unwrap(), *next);
        *next += 1;
    }
    assert_eq!(next, [500; 4]);
}

/// Takes what each message allows, then fails; without a message, waits for one.
struct Moody(mpsc::Receiver<io::Result<usize>>, mpsc::Sender<Vec<u8>>);

impl Write for Moody {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.0.recv().unwrap_or(Ok(bytes.len()))?.min(bytes.len());
        self.1.send(bytes[..taken].to_vec()).unwrap();
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_failed_write_loses_counted_lines_and_tears_none() {
    let (moods, takes) = mpsc::channel();
    let (out, written) = mpsc::channel();
    let dropped = counter();
    let writer = Writer::start(Some(Box::new(Moody(takes, out))), dropped.clone()).unwrap();
    let lines = writer.appender();
    moods.send(Err(io::ErrorKind::Interrupted.into())).unwrap();
    moods.send(Ok(4)).unwrap();
    moods.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
    lines.append(|out| out.extend_from_slice(b"one\ntwo\nthree\nfour\n"));
    assert!(writer.flush(WITHIN));
    assert_eq!(dropped.get(), 3);
    moods.send(Ok(2)).unwrap();
    moods.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
    lines.append(|out| out.extend_from_slice(b"five\n"));
    assert!(writer.flush(WITHIN));
    assert_eq!(dropped.get(), 4);
    moods.send(Err(io::ErrorKind::WouldBlock.into())).unwrap();
    drop(moods);
    lines.append(|out| out.extend_from_slice(b"six\n"));
    assert!(writer.flush(WITHIN));
    let all: Vec<u8> = written.try_iter().flatten().collect();
    assert_eq!(String::from_utf8(all).unwrap(), "one\nfi\nsix\n");
    assert_eq!(dropped.get(), 4);
}

#[test]
fn a_panic_within_a_line_takes_that_line_alone() {
    let (moods, takes) = mpsc::channel::<io::Result<usize>>();
    let (out, written) = mpsc::channel();
    let writer = Writer::start(Some(Box::new(Moody(takes, out))), counter()).unwrap();
    let lines = writer.appender();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        lines.append(|out| {
            out.extend_from_slice(b"whole\ntor");
            std::panic::resume_unwind(Box::new("fault"));
        });
    }));
    assert!(panicked.is_err());
    lines.append(|out| out.extend_from_slice(b"next\n"));
    drop(moods);
    assert!(writer.flush(WITHIN));
    assert_eq!(written.try_iter().flatten().collect::<Vec<u8>>(), b"whole\nnext\n");
}
