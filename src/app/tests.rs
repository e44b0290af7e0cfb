//! Single connections of a whole gate, in states that no client can bring about at will. One request's panic is that request's
//! 500 and no more (design rule 10), wherever on its way it happens: no input makes the gate panic that we know of, so the
//! client's side of an exchange is played by one that panics when told to. And a listener closes between two turns of the
//! reactor.

use std::cell::Cell;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix;
use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::*;
use crate::config;
use crate::config::System;
use crate::engine::client::Client;
use crate::engine::connection::{self, Connection, HeadBytes, Held};
use crate::engine::exchange::{self, Outcome};
use crate::engine::exchange_h1;
use crate::engine::peer::{Closing, Peer};
use crate::engine::watchdog::Watchdog;
use crate::engine::wire_h1::H1Wire;
use crate::engine::worker::Worker;
use crate::http1::request::RequestHead;
use crate::http2;
use crate::metrics::ClosedReason;
use crate::upstream::pool::Pool;
use crate::upstream::sessions::Sessions;

/// The call at which the exchange panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Nowhere,
    /// When it asks whose worker it is: nothing is known yet.
    Worker,
    /// Once it is let in: the key's permit is held.
    Admitted,
    /// At the given use of the wire: an answer may be queued by then, or sent.
    Sides(u32),
    /// When the rest of the body is read: the answer is out.
    Drain,
}

struct Panicking {
    inner: Box<Connection<UnixStream>>,
    at: At,
    worker_asked: Cell<bool>,
    sides_asked: u32,
}

impl Client for Panicking {
    type Wire = H1Wire<UnixStream>;

    fn sides(&mut self) -> (&mut Self::Wire, &mut Watchdog) {
        self.sides_asked += 1;
        assert_ne!(self.at, At::Sides(self.sides_asked));
        self.inner.sides()
    }

    fn peer(&self) -> &Peer {
        self.inner.peer()
    }

    fn worker(&self) -> &Arc<Worker> {
        let first = !self.worker_asked.replace(true);
        assert!(!first || self.at != At::Worker);
        self.inner.worker()
    }

    fn body_is_over(&self) -> bool {
        self.inner.body_is_over()
    }

    async fn drain(&mut self) -> bool {
        assert_ne!(self.at, At::Drain);
        self.inner.drain().await
    }

    fn admitted(&mut self, _keyed: bool) {
        assert_ne!(self.at, At::Admitted);
    }
}

const KEY: &str = "alice-example-key-48e8f859";
const KEYS: &str = "version: 1
keys:
- { id: alice, user: alice, hash: 6e87f34a127b2efbebc6b7329b94db222d67d7557b432f466cb70fdf9a51601f }
...
";

/// A worker of a gate whose only key may have one request in flight and whose upstream is not there.
fn worker(folder: &Path) -> Arc<Worker> {
    let text = format!(
        "listen: [{{ address: \"127.0.0.1:0\" }}]
keys: {{ file: keys.yaml }}
limits: {{ default: {{ concurrent: 1 }} }}
upstreams: {{ app: {{ servers: [\"127.0.0.1:1\"] }} }}
routes: [{{ path: /, upstream: app }}]
log: {{ access: {} }}
",
        folder.join("access").display()
    );
    fs::write(folder.join("keys.yaml"), KEYS).unwrap();
    let config = config::load_str(&text, &folder.join("keygate.yaml"), &System).expect("a configuration").config;
    let metrics = Arc::new(Metrics::new().unwrap());
    let upstreams = Upstreams::build(config.upstreams.clone()).unwrap();
    let policy = assemble::policy(&config, &upstreams, &metrics).unwrap();
    let loaded = reload::load(&config.key_file).unwrap();
    let gate = Arc::new(Gate {
        policy: ArcSwap::from_pointee(policy),
        keyring: Reloader::new(config.key_file.clone(), loaded, |_| ()).keyring(),
        epoch: watch::channel(0).1,
        draining: watch::channel(false).1,
        limiter: Arc::new(Limiter::new(1)),
        throttle: ArcSwapOption::empty(),
        session: ArcSwapOption::empty(),
        connections: Arc::default(),
        access_log: AccessLog::start(&config.log, metrics.access_log_dropped()).unwrap(),
        metrics,
        clock: Clock,
    });
    let access_log = gate.access_log.handle();
    let (pool, sessions) = (Pool::new(1), Sessions::default());
    Arc::new(Worker { gate, pool, sessions, access_log, random: Mutex::default() })
}

/// What a client is answered that sends `request` while the gate panics at `at`, and what becomes of its connection.
async fn answered(worker: &Arc<Worker>, request: &str, at: At) -> (String, Outcome) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let (_open, listener) = Closing::new();
    let peer = Peer { address: None, tls: None, listener };
    let held = Held { _place: worker.gate.connections.take(10).unwrap(), _open: worker.gate.metrics.connection() };
    let mut spans = RequestHead::default();
    assert_eq!(spans.parse(request.as_bytes(), &worker.gate.policy.load().request.head), Ok(true));
    let length = spans.view(request.as_bytes()).len();
    let (head, body) = request.as_bytes().split_at(length);
    theirs.write_all(body).await.unwrap();
    theirs.shutdown().await.unwrap();
    let head = HeadBytes::whole(head.to_vec(), spans);
    let policy = worker.gate.policy.load_full();
    let mut inner = Connection::new(ours, peer, worker.clone(), held);
    let mut report = exchange_h1::begin(&mut inner, &policy, &head);
    let mut client = Panicking { inner, at, worker_asked: Cell::new(false), sides_asked: 0 };
    let outcome = exchange::run(&mut client, &policy, head.request(), &mut report).await;
    client.inner.linger().await;
    drop((client, report));
    let mut answer = String::new();
    theirs.read_to_string(&mut answer).await.unwrap();
    (answer, outcome)
}

fn request(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nX-Request-Id: r1\r\nContent-Length: 4\r\n{fields}\r\nbody")
}

#[tokio::test]
async fn a_panic_before_anything_went_out_is_a_500() {
    let folder = tempfile::tempdir().unwrap();
    let worker = worker(folder.path());
    let (keyed, strange) = (request(&format!("X-Api-Key: {KEY}\r\n")), request(""));
    let (answer, _) = answered(&worker, &keyed, At::Nowhere).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "nobody listens there: {answer}");
    // A refusal uses the wire first to queue its head, then to send it.
    for (request, at) in [
        (&strange, At::Worker),
        (&strange, At::Sides(1)),
        (&strange, At::Sides(2)),
        (&keyed, At::Worker),
        (&keyed, At::Admitted),
        (&keyed, At::Sides(1)),
        (&keyed, At::Sides(2)),
    ] {
        let (answer, outcome) = answered(&worker, request, at).await;
        assert!(answer.starts_with("HTTP/1.1 500 Internal Server Error\r\n"), "{at:?}: {answer}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{at:?}: {answer}");
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        assert!(body.starts_with('{') && body.ends_with("}"), "{at:?}, one whole answer: {answer}");
        assert!(matches!(outcome, Outcome::Close(ClosedReason::Fault)), "{at:?}");
    }
    // Nothing of them is left: not the key's one place, nor what counts what is open.
    let (answer, _) = answered(&worker, &keyed, At::Nowhere).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    let metrics = worker.gate.metrics.encode().unwrap();
    for line in [
        "keygate_requests_in_flight{route=\"/\"} 0",
        "keygate_connections_open 0",
        "keygate_requests_total{code=\"500\",method=\"POST\",route=\"/\"} 5",
    ] {
        assert!(metrics.lines().any(|have| have == line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn a_panic_behind_an_answer_adds_nothing_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let worker = worker(folder.path());
    let (answer, outcome) = answered(&worker, &request(""), At::Drain).await;
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.matches("HTTP/1.1").count() == 1, "{answer}");
    assert!(matches!(outcome, Outcome::Gone(ClosedReason::Fault)));
}

#[tokio::test]
async fn what_the_system_holds_when_its_listener_closes_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let worker = worker(folder.path());
    for (sent, want, why) in
        [(request(""), "HTTP/1.1 401 ", ClosedReason::Answered), (String::new(), "", ClosedReason::Shutdown)]
    {
        let (ours, mut theirs) = unix::net::UnixStream::pair().unwrap();
        theirs.write_all(sent.as_bytes()).unwrap();
        if !sent.is_empty() {
            theirs.shutdown(std::net::Shutdown::Write).unwrap();
        }
        ours.set_nonblocking(true).unwrap();
        let ours = UnixStream::from_std(ours).unwrap();
        let peer = Peer { address: None, tls: None, listener: Closing::new().1 };
        let held = Held { _place: worker.gate.connections.take(10).unwrap(), _open: worker.gate.metrics.connection() };
        let reason = connection::serve(Connection::new(ours, peer, worker.clone(), held)).await;
        let mut answer = String::new();
        theirs.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(want), "{answer}");
        assert_eq!(reason, why);
    }
}

#[tokio::test]
async fn http2_that_begins_while_its_listener_closes_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let worker = worker(folder.path());
    let (ours, theirs) = UnixStream::pair().unwrap();
    let peer = Peer { address: None, tls: None, listener: Closing::new().1 };
    let serving = tokio::spawn(http2::serve(ours, Arc::new(peer), worker));
    let (mut send, connection) = h2::client::handshake(theirs).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("https://a/").body(()).unwrap();
    let (response, _) = send.send_request(request, true).unwrap();
    assert_eq!(response.await.unwrap().status(), 401);
    drop(send);
    assert_eq!(serving.await.unwrap(), ClosedReason::Shutdown);
}
