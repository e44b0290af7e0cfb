//! Idle connections: reuse, expiry, and those that died or spoke while idle.

use super::*;

/// A connection to the upstream with its other end.
async fn pair(upstream: &Upstream, pool: &Pool, listener: &TcpListener) -> (Connection, TcpStream) {
    let connection = connect(upstream, pool).await.unwrap();
    assert!(!connection.is_reused());
    (connection, soon(listener.accept()).await.unwrap().0)
}

fn port(connection: &Connection) -> u16 {
    match &connection.stream {
        super::super::stream::UpstreamStream::Tcp(stream) => stream.local_addr().unwrap().port(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_newest_idle_connection_is_used_first() {
    let (listener, address) = listen().await;
    let (upstream, pool, now) = (build(settings(&[address])), Pool::new(8), Instant::now());
    let (a, _far_a) = pair(&upstream, &pool, &listener).await;
    let (b, _far_b) = pair(&upstream, &pool, &listener).await;
    let ports = (port(&a), port(&b));
    pool.put(&upstream, a, now);
    pool.put(&upstream, b, now);
    assert_eq!((pool.len(), upstream.servers()[0].in_flight()), (2, 0));
    let first = connect(&upstream, &pool).await.unwrap();
    let second = connect(&upstream, &pool).await.unwrap();
    assert_eq!((port(&second), port(&first)), ports);
    assert!(first.is_reused() && second.is_reused() && pool.is_empty());
    assert_eq!(upstream.servers()[0].in_flight(), 2);
}

#[tokio::test]
async fn a_retry_never_gets_an_idle_connection() {
    let (listener, address) = listen().await;
    let (upstream, pool) = (build(settings(&[address])), Pool::new(8));
    let (idle, _far) = pair(&upstream, &pool, &listener).await;
    pool.put(&upstream, idle, Instant::now());
    assert!(!soon(upstream.connect_new(0)).await.unwrap().is_reused());
    assert_eq!(pool.len(), 1);
}

#[tokio::test]
async fn dead_connections_are_neither_used_nor_kept() {
    #[derive(Clone, Copy, Debug)]
    enum End {
        Closed,
        Reset,
        Spoke,
    }
    for end in [End::Closed, End::Reset, End::Spoke] {
        for swept in [false, true] {
            let (listener, address) = listen().await;
            let (upstream, pool) = (build(settings(&[address])), Pool::new(8));
            let (idle, mut far) = pair(&upstream, &pool, &listener).await;
            pool.put(&upstream, idle, Instant::now());
            pool.sweep(Instant::now());
            assert_eq!(pool.len(), 1, "a quiet one is kept");
            let _held = match end {
                End::Closed => {
                    drop(far);
                    None
                }
                End::Reset => {
                    far.set_zero_linger().unwrap();
                    drop(far);
                    None
                }
                End::Spoke => {
                    far.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
                    Some(far)
                }
            };
            if swept {
                eventually(|| {
                    pool.sweep(Instant::now());
                    pool.is_empty()
                })
                .await;
            }
            // On loopback the end has arrived already, though the reactor has had no turn to see it.
            assert!(!connect(&upstream, &pool).await.unwrap().is_reused(), "{end:?} {swept}");
            assert!(pool.is_empty());
        }
    }
}

#[tokio::test]
async fn connections_are_kept_for_their_time() {
    let (listener, address) = listen().await;
    let keep = Duration::from_secs(60);
    let (upstream, pool, now) = (build(settings(std::slice::from_ref(&address))), Pool::new(8), Instant::now());
    let (idle, _far) = pair(&upstream, &pool, &listener).await;
    pool.put(&upstream, idle, now);
    let (just, late) = (now + keep - Duration::from_nanos(1), now + keep);
    pool.sweep(just);
    let connection = soon(upstream.connect(&pool, 0, just)).await.unwrap();
    assert!(connection.is_reused());
    pool.put(&upstream, connection, now);
    assert!(!soon(upstream.connect(&pool, 0, late)).await.unwrap().is_reused());
    soon(listener.accept()).await.unwrap();

    let (idle, _far) = pair(&upstream, &pool, &listener).await;
    pool.put(&upstream, idle, now);
    pool.sweep(late);
    assert!(pool.is_empty());

    let never = build(Settings { keepalive_timeout: Duration::ZERO, ..settings(&[address]) });
    let (idle, _far) = pair(&never, &pool, &listener).await;
    pool.put(&never, idle, now);
    assert!(pool.is_empty());
}

#[tokio::test]
async fn a_full_pool_lets_the_oldest_go() {
    let (listener, address) = listen().await;
    let (upstream, pool, now) = (build(settings(&[address])), Pool::new(2), Instant::now());
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(pair(&upstream, &pool, &listener).await);
    }
    let ports: Vec<_> = held.iter().map(|(connection, _)| port(connection)).collect();
    let (connections, _far): (Vec<_>, Vec<_>) = held.into_iter().unzip();
    connections.into_iter().for_each(|connection| pool.put(&upstream, connection, now));
    assert_eq!(pool.len(), 2);
    let newest = connect(&upstream, &pool).await.unwrap();
    let next = connect(&upstream, &pool).await.unwrap();
    assert_eq!([port(&newest), port(&next)], [ports[2], ports[1]]);
    let none = Pool::new(0);
    none.put(&upstream, newest, now);
    assert!(none.is_empty());
}

#[tokio::test]
async fn no_connection_crosses_into_another_configuration_upstream_or_address() {
    let (listener, address) = listen().await;
    let other = Settings { name: "other".into(), ..settings(std::slice::from_ref(&address)) };
    let both = || vec![settings(std::slice::from_ref(&address)), other.clone()];
    let old = Upstreams::build(both()).unwrap();
    let new = old.rebuild(both()).unwrap();
    let (pool, now) = (Pool::new(8), Instant::now());
    let api = old.get("api").unwrap();
    let (idle, _far) = pair(api, &pool, &listener).await;
    pool.put(api, idle, now);
    for stranger in [old.get("other"), new.get("api"), new.get("other")] {
        assert!(!connect(stranger.unwrap(), &pool).await.unwrap().is_reused());
        soon(listener.accept()).await.unwrap();
    }
    assert_eq!(pool.len(), 1);

    // A name that moved: the connection to where it was is not used.
    let ServerAddress::Tcp { port, .. } = address else { unreachable!() };
    let everywhere = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let moving = build(settings(&[named("moving.test", port)]));
    moving.servers()[0].set_addresses(vec![SocketAddr::from(([127, 0, 0, 1], port))]);
    let (idle, _far) = pair(&moving, &pool, &listener).await;
    pool.put(&moving, idle, now);
    moving.servers()[0].set_addresses(vec![SocketAddr::from(([127, 0, 0, 2], port))]);
    let (_, far) = pair(&moving, &pool, &everywhere).await;
    assert_eq!(far.local_addr().unwrap().ip().to_string(), "127.0.0.2");
}

#[tokio::test]
async fn a_retired_upstream_leaves_the_pool() {
    let (listener, address) = listen().await;
    let upstreams = Upstreams::build(vec![settings(&[address])]).unwrap();
    let upstream = upstreams.get("api").unwrap();
    let running = upstreams.start(&names::no_resolver(), &health::no_report());
    let (pool, now) = (Pool::new(8), Instant::now());
    let (idle, _far) = pair(upstream, &pool, &listener).await;
    let (busy, _far) = pair(upstream, &pool, &listener).await;
    pool.put(upstream, idle, now);
    drop(running);
    assert!(upstream.is_retired());
    pool.sweep(now);
    assert!(pool.is_empty(), "idle ones go");
    pool.put(upstream, busy, now);
    assert!(pool.is_empty(), "busy ones go when they are done");
}

#[tokio::test]
async fn a_server_that_spoke_unasked_answers_one_request_a_connection_for_a_minute() {
    let minute = Duration::from_secs(60);
    for behind_an_answer in [false, true] {
        let (listener, address) = listen().await;
        let (_held, other) = listen().await;
        let keep = Duration::from_secs(600);
        let upstream = build(Settings { keepalive_timeout: keep, ..settings(std::slice::from_ref(&address)) });
        let (bystander, pool, now) = (build(settings(&[other])), Pool::new(8), Instant::now());
        pool.put(&bystander, connect(&bystander, &pool).await.unwrap(), now);
        let (kept, _far) = pair(&upstream, &pool, &listener).await;
        let (spoke, mut far) = pair(&upstream, &pool, &listener).await;
        pool.give_back(&upstream, kept, true, now);
        if behind_an_answer {
            pool.give_back(&upstream, spoke, false, now);
        } else {
            far.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            pool.give_back(&upstream, spoke, true, now);
        }
        // The one that spoke is passed over, and the one that did not is not tried either.
        let (fresh, _far) = pair(&upstream, &pool, &listener).await;
        pool.give_back(&upstream, fresh, true, now);
        let (almost, over) = (now + minute - Duration::from_nanos(1), Instant::now() + minute);
        assert!(!soon(upstream.connect(&pool, 0, almost)).await.unwrap().is_reused(), "{behind_an_answer}");
        assert!(soon(bystander.connect(&pool, 0, now)).await.unwrap().is_reused(), "another server is trusted");
        let (late, _far) = pair(&upstream, &pool, &listener).await;
        pool.give_back(&upstream, late, true, over);
        assert!(soon(upstream.connect(&pool, 0, over)).await.unwrap().is_reused(), "{behind_an_answer}");
    }
}
