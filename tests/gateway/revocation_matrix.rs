//! Design rule 8 as a matrix: every way in which `keygate keys` ends a key, on every kind of stream, all at once on one gate:
//! that key's end and no other's, each with its own sign to the client, a line and a count.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::task::{JoinHandle, JoinSet};

use crate::keys::keys;
use crate::support::crowd::streams::{
    download, download_over_http2, events, events_over_http2, upload, upload_over_http2,
};
use crate::support::crowd::{Crowd, Fate, Noise, UPLOAD, origin};
use crate::support::http2::{H2Client, TlsGate};
use crate::support::{KEYS, eventually};

/// A key, by its user and name, what is done to it while its streams are open, and why they end of it: as a client reads it, and
/// as the access log says it.
struct Way {
    name: &'static str,
    command: &'static str,
    end: Option<(&'static str, &'static str)>,
}

const REVOKED: Option<(&str, &str)> = Some(("key revoked", "key_revoked"));
const EXPIRED: Option<(&str, &str)> = Some(("key expired", "key_expired"));

const WAYS: [Way; 12] = [
    Way { name: "revoked", command: "revoke revoked", end: REVOKED },
    Way { name: "disabled", command: "disable disabled", end: REVOKED },
    Way { name: "expiring", command: "update expiring --expires-in 1", end: EXPIRED },
    Way { name: "replaced", command: "rotate replaced --grace 1", end: EXPIRED },
    Way { name: "replaced-now", command: "rotate replaced-now --grace 0", end: REVOKED },
    Way { name: "roleless", command: "update roleless --remove-role client", end: REVOKED },
    Way { name: "scopeless", command: "update scopeless --remove-scope jobs", end: REVOKED },
    Way { name: "elsewhere", command: "update elsewhere --allow-from 10.0.0.0/8", end: REVOKED },
    Way { name: "rotated", command: "rotate rotated --grace 1h", end: None },
    Way { name: "noted", command: "update noted --note seen --add-role more --limit 9/s --expires-in 1h", end: None },
    Way { name: "still-here", command: "update still-here --allow-from 127.0.0.0/8", end: None },
    Way { name: "untouched", command: "show untouched", end: None },
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    IdleSocket,
    BusySocket,
    /// Nearly always in the middle of a frame.
    DrippingSocket,
    Events,
    Download,
    Upload,
    Http2Events,
    Http2Download,
    Http2Upload,
}

impl Kind {
    const ALL: [Self; 9] = {
        use Kind::{
            BusySocket, Download, DrippingSocket, Events, Http2Download, Http2Events, Http2Upload, IdleSocket, Upload,
        };
        [IdleSocket, BusySocket, DrippingSocket, Events, Download, Upload, Http2Events, Http2Download, Http2Upload]
    };

    fn is_http2(self) -> bool {
        matches!(self, Self::Http2Events | Self::Http2Download | Self::Http2Upload)
    }

    fn fate(self, way: &Way) -> Fate {
        let is_socket = matches!(self, Self::IdleSocket | Self::BusySocket | Self::DrippingSocket);
        match way.end {
            None => Fate::Stayed,
            Some((reason, _)) if is_socket => Fate::Closed(1008, reason.to_owned()),
            // Its answer had not begun: that is a 401, and RST_STREAM with NO_ERROR (RFC 9113 section 8.1).
            Some(_) if self == Self::Http2Upload => Fate::Closed(0, "401 Unauthorized, NO_ERROR".to_owned()),
            Some(_) => Fate::Closed(0, "cut".to_owned()),
        }
    }
}

/// Opens a stream over HTTP/1 and lives on it until it is ended, or all are.
async fn live(crowd: &Crowd, id: usize, kind: Kind, key: &str) -> (Fate, Instant) {
    match kind {
        Kind::IdleSocket => crowd.socket("/client/echo", key, None).await.idle(crowd, id).await,
        Kind::BusySocket => crowd.socket("/client/echo", key, None).await.busy(crowd, id).await,
        Kind::DrippingSocket => crowd.socket(&format!("/client/drip/{id}"), key, None).await.drip(crowd, id).await,
        Kind::Events => events(crowd.stream(&format!("GET /client/events/{id}"), key).await, crowd, id).await,
        Kind::Download => download(crowd.stream(&format!("GET /client/download/{id}"), key).await, crowd, id).await,
        Kind::Upload => upload(crowd, id, key).await,
        Kind::Http2Events | Kind::Http2Download | Kind::Http2Upload => unreachable!("they share a connection"),
    }
}

/// The same over HTTP/2, on the connection of `client`.
fn live_over_http2(
    client: &mut H2Client,
    crowd: &Crowd,
    id: usize,
    kind: Kind,
    key: &str,
) -> JoinHandle<(Fate, Instant)> {
    let (method, path) = match kind {
        Kind::Http2Upload => ("PUT", format!("/client/upload/{id}")),
        Kind::Http2Events => ("GET", format!("/client/events/{id}")),
        _ => ("GET", format!("/client/download/{id}")),
    };
    let fields = [("x-api-key", key), ("content-length", UPLOAD)];
    let fields = if method == "PUT" { &fields[..] } else { &fields[..1] };
    let (answer, body) = client.open(H2Client::head(method, &path, fields), method == "GET");
    let crowd = crowd.clone();
    if kind == Kind::Http2Upload {
        crowd.open.fetch_add(1, Ordering::Relaxed);
        return client.runtime.spawn(async move { upload_over_http2(answer, body, &crowd, id).await });
    }
    let answer = client.wait(answer).expect("an answer");
    assert_eq!(answer.status(), 200);
    crowd.open.fetch_add(1, Ordering::Relaxed);
    client.runtime.spawn(async move {
        match kind {
            Kind::Http2Events => events_over_http2(answer.into_body(), &crowd, id).await,
            _ => download_over_http2(answer.into_body(), &crowd, id).await,
        }
    })
}

#[test]
fn every_command_that_ends_a_key_ends_every_kind_of_its_streams_and_no_others() {
    let noise = Noise::new();
    let config = format!(
        "listen: [{{ address: \"127.0.0.1:0\" }}, {{ address: \"127.0.0.1:0\" }}]
admin: {{ address: \"127.0.0.1:0\" }}
request: {{ body_min_rate: 1B }}
upstreams: {{ app: {{ servers: [\"{}\"] }} }}
routes:
  - {{ path: /client/, roles: [client], scopes: [jobs], upstream: app }}
log: {{ level: info, format: json, access: stdout }}
",
        origin::start(noise.clone())
    );
    let tls = TlsGate::start_with_keys(&config, KEYS);
    let gate = &tls.gate;
    let folder = gate.dir.path();
    let create = |way: &Way| {
        let asked = format!("create --user {0} --name {0} --role client --role other --scope jobs", way.name);
        keys(folder, &asked.split(' ').collect::<Vec<_>>()).0.trim_end().to_owned()
    };
    let secrets = WAYS.each_ref().map(create);
    gate.expect_metric(r#"keygate_keys{state="active"}"#, (2 + WAYS.len()) as f64);

    let (crowd, phase) = Crowd::new(gate.address(1), noise);
    let (ended, open) = (crowd.ended.clone(), crowd.open.clone());
    let mut client = tls.connect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut tasks = JoinSet::new();
    for (row, (way, key)) in WAYS.iter().zip(&secrets).enumerate() {
        for (column, kind) in Kind::ALL.into_iter().enumerate() {
            let id = row * Kind::ALL.len() + column;
            if kind.is_http2() {
                let stream = live_over_http2(&mut client, &crowd, id, kind, key);
                tasks.spawn_on(async move { (way, kind, stream.await.unwrap().0) }, runtime.handle());
            } else {
                let (crowd, key) = (crowd.clone(), key.clone());
                tasks.spawn_on(async move { (way, kind, live(&crowd, id, kind, &key).await.0) }, runtime.handle());
            }
        }
    }
    let reaches = |count: &AtomicUsize, number: usize| (count.load(Ordering::Relaxed) >= number).then_some(());
    eventually("all are open", || reaches(&open, WAYS.len() * Kind::ALL.len()));
    assert_eq!(ended.load(Ordering::Relaxed), 0);

    for way in &WAYS {
        keys(folder, &way.command.split(' ').collect::<Vec<_>>());
    }
    phase.send_replace(1);
    let ends = WAYS.iter().filter(|way| way.end.is_some()).count() * Kind::ALL.len();
    eventually("the ended are closed", || reaches(&ended, ends));
    // Whoever might be closed wrongly is closed by what closed these: the file in force now.
    phase.send_replace(2);
    let outcomes = runtime.block_on(tasks.join_all());
    let wrong: Vec<_> = outcomes
        .iter()
        .filter(|(way, kind, fate)| *fate != kind.fate(way))
        .map(|(way, kind, fate)| format!("{} {kind:?}: {fate:?}", way.name))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");

    gate.expect_metric(r#"keygate_connections_closed_total{reason="key_ended"}"#, ends as f64);
    gate.expect_metric(r#"keygate_websockets_active{route="/client/"}"#, 0.0);
    for way in &WAYS {
        let Some((_, word)) = way.end else { continue };
        eventually("a line for each stream", || {
            let lines = gate.access();
            let of_it = lines.iter().filter(|line| line["user"] == way.name && line["closed"] == word);
            (of_it.count() == Kind::ALL.len()).then_some(())
        });
    }
    let stayed = |line: &serde_json::Value| WAYS.iter().any(|way| way.end.is_none() && line["user"] == way.name);
    let told = gate.access();
    assert!(
        !told.iter().any(|line| stayed(line) && line["closed"].as_str().is_some_and(|word| word.starts_with("key")))
    );
}
