//! Design rule 8 in a crowd: 2,000 open WebSockets of 100 keys beside events, downloads, uploads and HTTP/2 streams of each, all
//! at work when one write of the key file ends some of the keys, each in another way. The times seen are printed.

use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::client::get;
use crate::support::crowd::streams::{download, events, events_over_http2, upload};
use crate::support::crowd::{Crowd, Fate, Noise, origin, raise_file_limit};
use crate::support::eventually;
use crate::support::gateway::write_private;
use crate::support::http2::{H2Client, TlsGate};

const KEYS: usize = 100;
const SOCKETS: usize = 20;

/// What the write does to a key, by the last digit of its number.
const CHANGES: [Change; 10] = {
    use Change::{AddressLost, Disabled, Expires, GraceEnds, None, Removed, RoleLost, Rotated};
    [Removed, Disabled, Expires, GraceEnds, RoleLost, AddressLost, Rotated, None, None, None]
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Removed,
    Disabled,
    /// Only `LATER`.
    Expires,
    /// It was rotated before, and only `LATER` the old secret is no longer good.
    GraceEnds,
    RoleLost,
    AddressLost,
    /// With a long grace: that closes nothing.
    Rotated,
    None,
}

/// How long after the write the keys expire, and graces end.
const LATER: Duration = Duration::from_millis(1500);

fn key(number: usize, generation: &str) -> String {
    format!("crowd-key-{number}-{generation}")
}

/// The key file, before the write or, with the time when keys expire, after it.
fn key_file(later: Option<&str>) -> String {
    let digest = |text: String| Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut text = String::from("version: 1\nkeys:\n");
    for number in 0..KEYS {
        let (old, new) = (digest(key(number, "old")), digest(key(number, "new")));
        let rotated = |until: &str| format!("hash: {new}, previous: {{ hash: {old}, until: {until} }}");
        let (mut hash, mut roles, mut more) = (format!("hash: {old}"), "client", String::new());
        if CHANGES[number % 10] == Change::GraceEnds {
            hash = rotated("2100-01-01");
        }
        if let Some(later) = later {
            match CHANGES[number % 10] {
                Change::Removed => continue,
                Change::Disabled => more.push_str(", disabled: true"),
                Change::Expires => more.push_str(&format!(", expires: {later}")),
                Change::GraceEnds => hash = rotated(later),
                Change::RoleLost => roles = "miner",
                Change::AddressLost => more.push_str(", allow_from: [10.0.0.0/8]"),
                Change::Rotated => hash = rotated("2100-01-01"),
                Change::None => {}
            }
        }
        text.push_str(&format!("  - {{ id: id{number:06}, user: user{number}, {hash}, roles: [{roles}]{more} }}\n"));
    }
    text + "...\n"
}

/// One of the crowd: its key, by number and generation, and what it is.
#[derive(Clone, Copy, Debug)]
struct Member {
    number: usize,
    generation: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Idle,
    Busy,
    Drip,
    Slow,
    Events,
    Download,
    Upload,
    Http2,
}

impl Member {
    /// Why it must be closed, and whether only `LATER` after the write.
    fn end(self) -> Option<(&'static str, bool)> {
        match CHANGES[self.number % 10] {
            Change::Removed | Change::Disabled | Change::RoleLost | Change::AddressLost => Some(("key revoked", false)),
            Change::Expires => Some(("key expired", true)),
            Change::GraceEnds if self.generation == "old" => Some(("key expired", true)),
            _ => None,
        }
    }

    fn fate(self) -> Fate {
        let websocket = matches!(self.kind, Kind::Idle | Kind::Busy | Kind::Drip | Kind::Slow);
        match self.end() {
            None => Fate::Stayed,
            Some((reason, _)) if websocket => Fate::Closed(1008, reason.to_owned()),
            Some(_) => Fate::Closed(0, "cut".to_owned()),
        }
    }
}

/// All of the crowd but its HTTP/2 streams.
fn members() -> Vec<Member> {
    let mut members = Vec::new();
    for number in 0..KEYS {
        // Half of the sockets of a key that is in its grace from the start were opened with its new secret.
        let generation =
            |at: usize| if CHANGES[number % 10] == Change::GraceEnds && at % 2 == 1 { "new" } else { "old" };
        for at in 0..SOCKETS {
            let kind = match at {
                0 => Kind::Drip,
                1 if (6..10).contains(&number) => Kind::Slow,
                1..10 => Kind::Busy,
                _ => Kind::Idle,
            };
            members.push(Member { number, generation: generation(at), kind });
        }
        for (at, kind) in [Kind::Events, Kind::Download, Kind::Upload].into_iter().enumerate() {
            members.push(Member { number, generation: generation(at), kind });
        }
    }
    members
}

async fn live(crowd: &Crowd, id: usize, member: Member) -> (Fate, Instant) {
    let key = key(member.number, member.generation);
    match member.kind {
        Kind::Idle => crowd.socket("/client/echo", &key, None).await.idle(crowd, id).await,
        Kind::Busy => crowd.socket("/client/echo", &key, None).await.busy(crowd, id).await,
        Kind::Drip => crowd.socket(&format!("/client/drip/{id}"), &key, None).await.drip(crowd, id).await,
        Kind::Slow => crowd.socket("/client/echo", &key, Some(131_072)).await.slow(crowd, id).await,
        Kind::Events => events(crowd.stream(&format!("GET /client/events/{id}"), &key).await, crowd, id).await,
        Kind::Download => download(crowd.stream(&format!("GET /client/download/{id}"), &key).await, crowd, id).await,
        Kind::Upload => upload(crowd, id, &key).await,
        Kind::Http2 => unreachable!("opened on a connection of its own"),
    }
}

#[test]
fn of_two_thousand_sockets_those_of_ended_keys_close_and_no_other() {
    raise_file_limit();
    let noise = Noise::new();
    let config = format!(
        "listen: [{{ address: \"127.0.0.1:0\" }}, {{ address: \"127.0.0.1:0\" }}]
admin: {{ address: \"127.0.0.1:0\" }}
connections: {{ per_address: 10000 }}
request: {{ body_min_rate: 1B }}
upstreams: {{ app: {{ servers: [\"{}\"] }} }}
routes:
  - {{ path: /client/, roles: [client], upstream: app }}
  - {{ path: /, upstream: app }}
log: {{ level: info, format: json, access: \"off\" }}
",
        origin::start(noise.clone())
    );
    let tls = TlsGate::start_with_keys(&config, &key_file(None));
    let gate = &tls.gate;
    let (crowd, phase) = Crowd::new(gate.address(1), noise);
    let (ended, open) = (crowd.ended.clone(), crowd.open.clone());
    let mut http2 = tls.connect();
    let streams = open_over_http2(&mut http2, &crowd);
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let outcomes = runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for (id, member) in members().into_iter().enumerate() {
            let crowd = crowd.clone();
            tasks.spawn(async move { (member, live(&crowd, id, member).await) });
        }
        for (member, stream) in streams {
            tasks.spawn(async move { (member, stream.await.expect("no byte is lost or changed")) });
        }
        let all = tasks.len();
        until("all are open", || open.load(Ordering::Relaxed) == all).await;
        eprintln!("{all} sockets and streams open: {} ms", began.elapsed().as_millis());
        let ends =
            members().into_iter().chain((0..KEYS).map(over_http2)).filter(|member| member.end().is_some()).count();
        let written = Instant::now();
        let later = (jiff::Timestamp::now() + jiff::SignedDuration::try_from(LATER).expect("short")).to_string();
        gate.replace_keys(&key_file(Some(&later)));
        phase.send_replace(1);
        until("the ended are closed", || ended.load(Ordering::Relaxed) >= ends).await;
        // Whoever else might be closed has a moment to be.
        tokio::time::sleep(Duration::from_millis(300)).await;
        phase.send_replace(2);
        let mut outcomes = Vec::new();
        while let Some(outcome) = tasks.join_next().await {
            let (member, (fate, at)) = outcome.expect("no byte is lost or changed");
            outcomes.push((member, fate, at.saturating_duration_since(written)));
        }
        outcomes
    });
    let wrong: Vec<_> = outcomes.iter().filter(|(member, fate, _)| *fate != member.fate()).collect();
    assert!(wrong.is_empty(), "{} of {}: {:?}", wrong.len(), outcomes.len(), &wrong[..wrong.len().min(10)]);
    tell(&outcomes);
    // Each is counted once, and as what it was: HTTP/2's as streams, of a connection that goes on.
    let closed = outcomes.iter().filter(|(_, fate, _)| *fate != Fate::Stayed).count();
    gate.expect_metric(r#"keygate_connections_closed_total{reason="key_ended"}"#, closed as f64);
    let stayed =
        outcomes.iter().filter(|(member, fate, _)| *fate == Fate::Stayed && member.kind != Kind::Http2).count();
    gate.expect_metric(r#"keygate_connections_closed_total{reason="client"}"#, stayed as f64);
    for (number, generation, status) in
        [(0, "old", 401), (3, "old", 401), (3, "new", 204), (6, "old", 204), (6, "new", 204)]
    {
        let key = key(number, generation);
        assert_eq!(get(gate.address(1), "/client/", &[("X-Api-Key", &key)]).status, status, "{key}");
    }
}

fn over_http2(number: usize) -> Member {
    Member { number, generation: "old", kind: Kind::Http2 }
}

/// One stream of each key on one connection. They are read from their beginning: a client that does not is taken for one under
/// attack by its own library.
fn open_over_http2(client: &mut H2Client, crowd: &Crowd) -> Vec<(Member, JoinHandle<(Fate, Instant)>)> {
    let open = |number| {
        let member = over_http2(number);
        let key = key(number, member.generation);
        let path = format!("/client/events/{number}");
        let (answer, _) = client.open(H2Client::head("GET", &path, &[("x-api-key", &key)]), true);
        let answer = client.wait(answer).expect("an answer");
        assert_eq!(answer.status(), 200);
        crowd.open.fetch_add(1, Ordering::Relaxed);
        let crowd = crowd.clone();
        (member, client.runtime.spawn(async move { events_over_http2(answer.into_body(), &crowd, number).await }))
    };
    (0..KEYS).map(open).collect()
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Prints how long after the write, or after their keys' own time, the last were closed.
fn tell(outcomes: &[(Member, Fate, Duration)]) {
    for (kinds, what) in [
        (&[Kind::Idle][..], "idle WebSockets"),
        (&[Kind::Busy, Kind::Drip, Kind::Slow], "busy WebSockets"),
        (&[Kind::Events, Kind::Download, Kind::Upload], "streams over HTTP/1"),
        (&[Kind::Http2], "streams over HTTP/2"),
    ] {
        for late in [false, true] {
            let ended = outcomes.iter().filter(|(member, ..)| {
                kinds.contains(&member.kind) && member.end().is_some_and(|(_, later)| later == late)
            });
            let after = if late { "their time" } else { "the write" };
            let took = ended.clone().map(|(.., took)| took.saturating_sub(if late { LATER } else { Duration::ZERO }));
            let last = took.max().unwrap_or_default().as_millis();
            eprintln!("{} {what}: the last closed {last} ms after {after}", ended.count());
        }
    }
}

#[test]
fn the_gate_raises_its_limit_on_open_files() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("keygate.yaml"), "listen: [{ address: \"127.0.0.1:0\" }]\nupstreams: { app: { servers: [\"127.0.0.1:9\"] } }\nroutes: [{ path: /, upstream: app }]\n").expect("written");
    write_private(&folder.path().join("keys.yaml"), crate::support::KEYS);
    // Started as an ordinary login starts it: 300 files at first, more for those who ask.
    let start = |limit: &str, command: &str| {
        Command::new("sh")
            .args(["-c", &format!("ulimit {limit} && exec \"$0\" {command}"), env!("CARGO_BIN_EXE_keygate")])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sh starts")
    };
    let mut gate = start("-Sn 300", "serve");
    eventually("the soft limit is the hard one", || {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", gate.id())).expect("a process");
        let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
        let words: Vec<&str> = line.split_whitespace().collect();
        (words[3] != "300" && words[3] == words[4]).then_some(())
    });
    gate.kill().expect("killed");
    gate.wait().expect("ended");
    for (command, warned) in [("check", true), ("serve -c nowhere.yaml", false)] {
        let output = start("-n 300", command).wait_with_output().expect("ends");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(said.contains("connections.max: 10000 connections take up to 20000 open files"), warned, "{said}");
    }
}
