//! The admin listener over real sockets: pages, refusals, bounds and deadlines.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::connection::{HEAD_TIMEOUT, KEEPALIVE_TIMEOUT, MAX_HEAD_BYTES};
use super::*;

const WITHIN: Duration = Duration::from_secs(10);

fn state() -> Arc<AdminState> {
    let readiness = Readiness::default();
    readiness.set_keys_loaded();
    readiness.set_health_known();
    readiness.set_upstream_up(true);
    Arc::new(AdminState { metrics: Arc::new(Metrics::new().unwrap()), readiness: Arc::new(readiness) })
}

struct Admin {
    address: SocketAddr,
    state: Arc<AdminState>,
    shutdown: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Admin {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, ended) = watch::channel(false);
        let state = state();
        let serving = tokio::spawn(serve(listener, Arc::clone(&state), ended));
        Self { address, state, shutdown, serving }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Everything that comes back for these bytes until the gate closes.
    async fn exchange(&self, bytes: &[u8]) -> String {
        exchange(self.connect().await, bytes).await
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> String {
    stream.write_all(bytes).await.unwrap();
    let mut all = Vec::new();
    timeout(WITHIN, stream.read_to_end(&mut all)).await.expect("the connection was not closed").unwrap();
    String::from_utf8(all).unwrap()
}

fn get(method: &str, target: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").into_bytes()
}

fn status(answer: &str) -> u16 {
    answer.strip_prefix("HTTP/1.1 ").unwrap_or_else(|| panic!("{answer:?}"))[..3].parse().unwrap()
}

#[tokio::test]
async fn every_page_has_its_status() {
    let admin = Admin::start().await;
    for (method, target, want) in [
        ("GET", "/metrics", 200),
        ("GET", "/metrics?name=keygate_keys", 200),
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("HEAD", "/metrics", 200),
        ("HEAD", "/readyz", 200),
        ("POST", "/metrics", 405),
        ("get", "/metrics", 405),
        ("DELETE", "/healthz", 405),
        ("OPTIONS", "/readyz", 405),
        ("GET", "/", 404),
        ("POST", "/", 404),
        ("GET", "/metrics/", 404),
        ("GET", "/Metrics", 404),
        ("GET", "//metrics", 404),
        ("GET", "/%6detrics", 404),
        ("GET", "/config", 404),
        ("GET", "/debug/pprof", 404),
        ("GET", "http://x/metrics", 400),
        ("OPTIONS", "*", 400),
    ] {
        let answer = admin.exchange(&get(method, target)).await;
        assert_eq!(status(&answer), want, "{method} {target}: {answer}");
        assert_eq!(answer.contains("\r\nAllow: GET, HEAD\r\n"), want == 405);
        assert!(!answer.to_lowercase().contains("server:") && answer.contains("\r\nConnection: close\r\n"));
    }
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let admin = Admin::start().await;
    admin.state.metrics.config_reload(metrics::ReloadResult::Success);
    let answer = admin.exchange(&get("GET", "/metrics")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    assert!(body.contains("\nkeygate_config_reloads_total{result=\"success\"} 1\n"), "{body}");
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let admin = Admin::start().await;
    let (get, head) = (admin.exchange(&get("GET", "/healthz")).await, admin.exchange(&get("HEAD", "/healthz")).await);
    assert!(get.ends_with("\r\n\r\nok\n"));
    assert_eq!(head, get.strip_suffix("ok\n").unwrap());
}

#[tokio::test]
async fn readiness_names_its_reason() {
    let admin = Admin::start().await;
    let readiness = Readiness::default();
    let check = |want: Result<(), NotReady>| assert_eq!(readiness.check(), want);
    check(Err(NotReady::NoKeys));
    readiness.set_keys_loaded();
    check(Err(NotReady::HealthUnknown));
    readiness.set_health_known();
    check(Err(NotReady::UpstreamsDown));
    readiness.set_upstream_up(true);
    check(Ok(()));
    readiness.set_upstream_up(false);
    check(Err(NotReady::UpstreamsDown));
    readiness.set_draining();
    check(Err(NotReady::Draining));
    admin.state.readiness.set_draining();
    let answer = admin.exchange(&get("GET", "/readyz")).await;
    assert_eq!(status(&answer), 503);
    assert!(answer.ends_with("\r\n\r\nnot ready: draining\n"));
    assert_eq!(status(&admin.exchange(&get("GET", "/healthz")).await), 200);
}

#[tokio::test]
async fn requests_follow_each_other_on_one_connection() {
    let admin = Admin::start().await;
    // Pipelined, the head of the third in pieces, with a bare close at the end.
    let mut stream = admin.connect().await;
    let one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(&[&one[..], one, &one[..10]].concat()).await.unwrap();
    let mut answers = [0; 1024];
    let mut len = 0;
    while String::from_utf8_lossy(&answers[..len]).matches("ok\n").count() < 2 {
        len += timeout(WITHIN, stream.read(&mut answers[len..])).await.unwrap().unwrap();
    }
    stream.write_all(&one[10..]).await.unwrap();
    let rest = exchange(stream, b"HEAD /readyz HTTP/1.1\r\nhost: x\r\nconnection: Close\r\n\r\n").await;
    assert_eq!((rest.matches("HTTP/1.1 200 OK").count(), rest.matches("ok\n").count()), (2, 1), "{rest}");
    assert_eq!(rest.matches("Connection: close").count(), 1);
}

#[tokio::test]
async fn http_1_0_is_answered_and_closed() {
    let admin = Admin::start().await;
    let answer = admin.exchange(b"GET /healthz HTTP/1.0\r\n\r\n").await;
    assert_eq!(status(&answer), 200);
    assert!(answer.contains("Connection: close"));
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_and_closed() {
    let admin = Admin::start().await;
    let long = [b"GET /".as_slice(), &[b'x'; MAX_HEAD_BYTES]].concat();
    let many = [&b"GET /healthz HTTP/1.1\r\nHost: x\r\n"[..], &b"a: b\r\n".repeat(65), b"\r\n"].concat();
    for (bytes, want) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], 400),
        (b"\0\0\0\0\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400),
        (b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /healthz\r\n\r\n", 400),
        (&many, 400),
        (&long, 431),
    ] {
        let answer = admin.exchange(bytes).await;
        assert_eq!(status(&answer), want, "{:?}", String::from_utf8_lossy(bytes));
        assert_eq!(answer.matches("HTTP/1.1").count(), 1);
    }
    // The listener is none the worse.
    assert_eq!(status(&admin.exchange(&get("GET", "/healthz")).await), 200);
}

#[tokio::test]
async fn connections_past_the_bound_wait() {
    let admin = Admin::start().await;
    let mut held = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut stream = admin.connect().await;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        timeout(WITHIN, stream.read_u8()).await.unwrap().unwrap();
        held.push(stream);
    }
    let request = get("GET", "/healthz");
    let waiting = admin.exchange(&request);
    tokio::pin!(waiting);
    // The answer cannot come: no place is free until one of the others goes.
    assert!(timeout(Duration::from_millis(50), &mut waiting).await.is_err());
    held.pop();
    assert_eq!(status(&waiting.await), 200);
}

#[tokio::test]
async fn shutdown_closes_what_is_idle_and_ends() {
    let admin = Admin::start().await;
    let mut idle = admin.connect().await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    timeout(WITHIN, idle.read_u8()).await.unwrap().unwrap();
    admin.shutdown.send(true).unwrap();
    timeout(WITHIN, admin.serving).await.unwrap().unwrap();
    assert!(TcpStream::connect(admin.address).await.is_err());
    let mut rest = Vec::new();
    timeout(WITHIN, idle.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(rest.ends_with(b"ok\n"));
}

#[tokio::test]
async fn a_unix_socket_serves_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (_shutdown, ended) = watch::channel(false);
    tokio::spawn(serve(listener, state(), ended));
    let stream = UnixStream::connect(&path).await.unwrap();
    assert_eq!(status(&exchange(stream, &get("GET", "/healthz")).await), 200);
}

/// Feeds `pieces`, each after its pause, and says what came back and after what time the connection closed.
async fn timed(pieces: &[(Duration, &[u8])]) -> (String, Duration) {
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let begun = Instant::now();
    let serving = tokio::spawn(async move {
        connection::run(server, &state(), std::future::pending()).await;
        begun.elapsed()
    });
    for (pause, piece) in pieces {
        tokio::time::sleep(*pause).await;
        // A connection that is closed already takes no more, which the time shows.
        let _ = client.write_all(piece).await;
    }
    let mut all = String::new();
    timeout(100 * WITHIN, client.read_to_string(&mut all)).await.expect("there is no deadline").unwrap();
    drop(client);
    (all, serving.await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn every_phase_has_a_deadline() {
    const SECOND: Duration = Duration::from_secs(1);
    let slack = SECOND + SECOND / 2;
    let check = async |pieces: &[(Duration, &[u8])], want: &str, after: Duration| {
        let (answer, took) = timed(pieces).await;
        let statuses: Vec<_> =
            answer.split("HTTP/1.1 ").filter_map(|answer| answer.get(..3)).map(str::to_owned).collect();
        assert_eq!(statuses.join(" "), want);
        assert!((after..after + slack).contains(&took), "{took:?} instead of {after:?}");
    };
    let whole = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    // Silence.
    check(&[], "", HEAD_TIMEOUT).await;
    // A byte a second: the deadline is for the whole head.
    let drip: Vec<_> = whole.chunks(1).map(|byte| (SECOND, byte)).collect();
    check(&drip, "408", HEAD_TIMEOUT).await;
    // Idle between requests.
    check(&[(Duration::ZERO, whole)], "200", KEEPALIVE_TIMEOUT).await;
    // A second head begun after an idle time.
    check(&[(Duration::ZERO, whole), (30 * SECOND, b"G")], "200 408", 30 * SECOND + HEAD_TIMEOUT).await;
    // A second head begun together with the first.
    let both = [&whole[..], b"GET"].concat();
    check(&[(Duration::ZERO, &both)], "200 408", HEAD_TIMEOUT).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_let_go() {
    let (mut client, server) = tokio::io::duplex(16);
    let begun = Instant::now();
    let serving = tokio::spawn(async move { connection::run(server, &state(), std::future::pending()).await });
    client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    timeout(100 * WITHIN, serving).await.expect("there is no deadline").unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20));
    drop(client);
}
