//! Connections to real servers on loopback: choice, failover, time limits, unix sockets.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};
use tokio::time::timeout;

use super::connect::{ConnectError, Connection};
use super::pool::Pool;
use super::registry::Upstreams;
use super::{Balance, HostPolicy, ServerAddress, Settings, Upstream};
use crate::rejection::Rejection;

mod health;
mod names;
mod pool;
mod tls;

/// Far more than anything here takes; only a broken test meets it.
const DEADLINE: Duration = Duration::from_secs(10);

fn settings(servers: &[ServerAddress]) -> Settings {
    let long = Duration::from_secs(60);
    Settings {
        name: "api".into(),
        servers: servers.to_vec(),
        balance: Balance::RoundRobin,
        host: HostPolicy::Keep,
        tls: None,
        http2: false,
        connect_timeout: DEADLINE,
        response_timeout: long,
        idle_timeout: long,
        write_timeout: long,
        websocket_idle_timeout: long,
        keepalive_timeout: long,
        health_check: None,
    }
}

fn build(settings: Settings) -> Arc<Upstream> {
    let name = settings.name.clone();
    Upstreams::build(vec![settings]).unwrap().get(&name).unwrap().clone()
}

fn at(address: SocketAddr) -> ServerAddress {
    ServerAddress::Tcp { host: address.ip().to_string().into(), port: address.port() }
}

fn named(host: &str, port: u16) -> ServerAddress {
    ServerAddress::Tcp { host: host.into(), port }
}

async fn listen() -> (TcpListener, ServerAddress) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = at(listener.local_addr().unwrap());
    (listener, address)
}

/// An address that refuses: a socket that is bound but does not listen keeps the port from being given to another.
fn refusing() -> (TcpSocket, ServerAddress) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = at(socket.local_addr().unwrap());
    (socket, address)
}

/// An address that swallows connects: a listener whose queue is full. Keep what it returns.
async fn swallowing() -> (TcpListener, Vec<TcpStream>, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(Ok(stream)) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        queued.push(stream);
    }
    (listener, queued, address)
}

/// Lets the runtime work until `claim` holds.
async fn eventually(mut claim: impl FnMut() -> bool) {
    let claim_holds = async {
        while !claim() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    soon(claim_holds).await;
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("took too long")
}

async fn connect(upstream: &Upstream, pool: &Pool) -> Result<Connection, ConnectError> {
    soon(upstream.connect(pool, 0, Instant::now())).await
}

#[tokio::test]
async fn servers_take_turns_and_hold_their_requests() {
    let (one, first) = listen().await;
    let (two, second) = listen().await;
    let (upstream, pool) = (build(settings(&[first, second])), Pool::new(8));
    let a = connect(&upstream, &pool).await.unwrap();
    let b = connect(&upstream, &pool).await.unwrap();
    soon(one.accept()).await.unwrap();
    soon(two.accept()).await.unwrap();
    assert!(!a.is_reused() && !b.is_reused());
    assert_ne!(a.server().label(), b.server().label());
    let held = || upstream.servers().iter().map(|server| server.in_flight()).collect::<Vec<_>>();
    assert_eq!(held(), [1, 1]);
    let (_stream, lease) = a.into_parts();
    assert_eq!(held(), [1, 1], "a tunnel still holds its request");
    drop((lease, b));
    assert_eq!(held(), [0, 0]);
    let picked = upstream.pick(0).unwrap();
    assert_eq!(held().iter().sum::<usize>(), 1);
    drop(picked);
}

#[tokio::test]
async fn the_least_loaded_server_is_next() {
    let (_one, first) = listen().await;
    let (_two, second) = listen().await;
    let pool = Pool::new(8);
    let upstream = build(Settings { balance: Balance::LeastConnections, ..settings(&[first, second]) });
    let busy = connect(&upstream, &pool).await.unwrap();
    let done = connect(&upstream, &pool).await.unwrap();
    assert_ne!(busy.server().label(), done.server().label());
    let free = done.server().label().to_owned();
    drop(done);
    for _ in 0..3 {
        assert_eq!(connect(&upstream, &pool).await.unwrap().server().label(), free);
    }
}

#[tokio::test]
async fn a_server_that_refuses_is_passed_over() {
    let (_held, dead) = refusing();
    let (_listener, live) = listen().await;
    let (upstream, pool) = (build(settings(&[dead, live.clone()])), Pool::new(8));
    for _ in 0..4 {
        let connection = connect(&upstream, &pool).await.unwrap();
        assert_eq!(connection.server().address(), &live);
        let connection = soon(upstream.connect_new(0)).await.unwrap();
        assert_eq!(connection.server().address(), &live);
    }
    assert!(upstream.servers().iter().all(|server| server.in_flight() == 0), "failed attempts give their lease back");
    // An unhealthy one is not tried, be it the last hope.
    upstream.servers()[1].set_healthy(false);
    assert!(matches!(connect(&upstream, &pool).await.unwrap_err(), ConnectError::Refused { .. }));
}

#[tokio::test]
async fn failures_have_their_answers() {
    #[track_caller]
    fn check(result: Result<Connection, ConnectError>, want: Rejection) {
        assert_eq!(result.unwrap_err().rejection(), want);
    }
    let pool = Pool::new(8);
    let (_held, dead) = refusing();
    let upstream = build(settings(&[dead.clone(), dead]));
    check(connect(&upstream, &pool).await, Rejection::BadGateway("upstream_refused"));
    upstream.servers().iter().for_each(|server| server.set_healthy(false));
    check(connect(&upstream, &pool).await, Rejection::NoUpstream);
    check(soon(upstream.connect_new(0)).await, Rejection::NoUpstream);
    let missing = ServerAddress::Unix("/nonexistent/api.sock".into());
    check(connect(&build(settings(&[missing])), &pool).await, Rejection::BadGateway("upstream_refused"));
    let unknown = build(settings(&[named("api.invalid", 80)]));
    check(connect(&unknown, &pool).await, Rejection::BadGateway("upstream_unresolved"));
    let (_listener, _queued, address) = swallowing().await;
    let brief = Settings { connect_timeout: Duration::from_millis(50), ..settings(&[at(address)]) };
    check(connect(&build(brief), &pool).await, Rejection::GatewayTimeout("upstream_connect"));
}

#[tokio::test]
async fn a_server_or_address_that_swallows_connects_leaves_time_for_the_next() {
    let (_full, _queued, swallows) = swallowing().await;
    let (_listener, live) = listen().await;
    let ServerAddress::Tcp { port, .. } = live else { unreachable!() };
    let pool = Pool::new(8);
    let brief = |servers: &[_]| Settings { connect_timeout: Duration::from_millis(500), ..settings(servers) };
    let upstream = build(brief(&[at(swallows), live.clone()]));
    for _ in 0..2 {
        assert_eq!(connect(&upstream, &pool).await.unwrap().server().address(), &live);
    }
    let upstream = build(brief(&[named("two-addresses.test", port)]));
    upstream.servers()[0].set_addresses(vec![swallows, SocketAddr::from(([127, 0, 0, 1], port))]);
    assert!(connect(&upstream, &pool).await.is_ok());
}

#[tokio::test]
async fn unix_sockets_carry_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (upstream, pool) = (build(settings(&[ServerAddress::Unix(path)])), Pool::new(8));
    let mut connection = connect(&upstream, &pool).await.unwrap();
    let (mut far, _) = soon(listener.accept()).await.unwrap();
    exchange(&mut connection, &mut far).await;
    pool.put(&upstream, connection, Instant::now());
    assert!(connect(&upstream, &pool).await.unwrap().is_reused());
}

/// Bytes both ways, by plain and by vectored writes, and readiness without a buffer.
async fn exchange(connection: &mut Connection, far: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) {
    let stream = &mut connection.stream;
    assert!(stream.is_write_vectored());
    let slices = [std::io::IoSlice::new(b"he"), std::io::IoSlice::new(b"ad")];
    assert_eq!(soon(stream.write_vectored(&slices)).await.unwrap(), 4);
    soon(stream.write_all(b"body")).await.unwrap();
    soon(stream.flush()).await.unwrap();
    let mut got = [0; 8];
    soon(far.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"headbody");
    soon(far.write_all(b"answer")).await.unwrap();
    soon(far.flush()).await.unwrap();
    soon(stream.readable()).await.unwrap();
    let mut got = [0; 3];
    soon(stream.read_exact(&mut got)).await.unwrap();
    soon(stream.readable()).await.unwrap();
    soon(stream.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"wer");
}
