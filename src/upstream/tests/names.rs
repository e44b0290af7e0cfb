//! Names that move, fail and come late; what a reload carries over.

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::upstream::HealthCheck;
use crate::upstream::resolve::{RESOLVE_EVERY, RESOLVE_UNKNOWN_EVERY, Resolve, SystemResolver};

/// Answers from a table; what is not in it fails.
#[derive(Default)]
struct Names {
    table: Mutex<HashMap<String, Vec<&'static str>>>,
    asked: Mutex<usize>,
}

impl Names {
    fn set(&self, host: &str, addresses: &[&'static str]) {
        self.table.lock().unwrap().insert(host.to_owned(), addresses.to_vec());
    }

    fn forget(&self, host: &str) {
        self.table.lock().unwrap().remove(host);
    }

    fn asked(&self) -> usize {
        *self.asked.lock().unwrap()
    }
}

#[async_trait]
impl Resolve for Names {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        *self.asked.lock().unwrap() += 1;
        let found = self.table.lock().unwrap().get(host).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(found.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect())
    }
}

/// A resolver that knows nothing.
pub(super) fn no_resolver() -> Arc<dyn Resolve> {
    Arc::new(Names::default())
}

fn addresses(upstream: &Upstream) -> Vec<String> {
    upstream.servers()[0].addresses().iter().map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn names_move_and_the_last_good_answer_is_kept() {
    let names = Arc::new(Names::default());
    let resolver: Arc<dyn Resolve> = names.clone();
    let upstreams = Upstreams::build(vec![settings(&[named("api.test", 80)])]).unwrap();
    let upstream = upstreams.get("api").unwrap();
    let turn = Duration::from_millis(1);
    let running = upstreams.start(&resolver, &health::no_report());

    tokio::time::sleep(turn).await;
    assert_eq!((names.asked(), addresses(upstream).len()), (1, 0), "unknown yet");
    names.set("api.test", &["10.0.0.1", "10.0.0.2"]);
    tokio::time::sleep(RESOLVE_UNKNOWN_EVERY).await;
    assert_eq!(addresses(upstream), ["10.0.0.1:80", "10.0.0.2:80"], "asked again after a second");

    names.set("api.test", &["10.0.0.3"]);
    tokio::time::sleep(RESOLVE_EVERY - 2 * turn).await;
    assert_eq!((names.asked(), addresses(upstream).len()), (2, 2), "not before its time");
    tokio::time::sleep(2 * turn).await;
    assert_eq!(addresses(upstream), ["10.0.0.3:80"]);

    names.forget("api.test");
    tokio::time::sleep(RESOLVE_EVERY).await;
    names.set("api.test", &[]);
    tokio::time::sleep(RESOLVE_EVERY).await;
    assert_eq!((names.asked(), addresses(upstream)), (5, vec!["10.0.0.3:80".to_owned()]));

    drop(running);
    tokio::time::sleep(RESOLVE_EVERY * 3).await;
    assert_eq!(names.asked(), 5, "nobody asks for a retired configuration");
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_fails_is_logged_when_that_begins_and_when_it_ends() {
    let (log, names) = (Log::default(), Arc::new(Names::default()));
    let kept = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || kept.clone()).finish();
    let _installed = tracing::subscriber::set_default(subscriber);
    let resolver: Arc<dyn Resolve> = names.clone();
    let upstreams = Upstreams::build(vec![settings(&[named("api.test", 80)])]).unwrap();
    let _running = upstreams.start(&resolver, &health::no_report());
    let told = || {
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        (text.matches("name not resolved").count(), text.matches("name resolved").count())
    };
    tokio::time::sleep(RESOLVE_UNKNOWN_EVERY * 10).await;
    assert!(names.asked() >= 10 && told() == (1, 0), "{} asked, {:?}", names.asked(), told());
    for round in 1..3 {
        names.set("api.test", &["10.0.0.1"]);
        tokio::time::sleep(RESOLVE_EVERY * 3).await;
        assert_eq!(told(), (round, round));
        names.set("api.test", &[]);
        tokio::time::sleep(RESOLVE_EVERY * 3).await;
        assert_eq!(told(), (round + 1, round), "no address is a failure too");
    }
}

#[tokio::test]
async fn all_names_are_asked_before_the_start() {
    let names = Arc::new(Names::default());
    names.set("api.test", &["10.0.0.1"]);
    let resolver: Arc<dyn Resolve> = names.clone();
    let servers = [named("api.test", 80), named("unknown.test", 80), named("127.0.0.1", 80)];
    let upstreams = Upstreams::build(vec![settings(&servers)]).unwrap();
    upstreams.resolve(&resolver, DEADLINE).await;
    let known: Vec<_> = upstreams.get("api").unwrap().servers().iter().map(|server| server.addresses().len()).collect();
    assert_eq!((known, names.asked()), (vec![1, 0, 1], 2));
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_hangs_does_not_hold_up_the_start() {
    struct Hangs;
    #[async_trait]
    impl Resolve for Hangs {
        async fn resolve(&self, _host: &str, _port: u16) -> io::Result<Vec<SocketAddr>> {
            std::future::pending().await
        }
    }
    let resolver: Arc<dyn Resolve> = Arc::new(Hangs);
    let upstreams = Upstreams::build(vec![settings(&[named("api.test", 80)])]).unwrap();
    let begun = tokio::time::Instant::now();
    upstreams.resolve(&resolver, Duration::from_secs(3)).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(3));
}

#[tokio::test]
async fn the_system_knows_itself() {
    let found = soon(SystemResolver.resolve("localhost", 80)).await.unwrap();
    assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 80), "{found:?}");
    assert!(!found.is_empty());
}

#[test]
fn a_reload_carries_over_what_did_not_change() {
    let check =
        HealthCheck { path: "/up".into(), interval: Duration::from_secs(5), unhealthy_after: 3, healthy_after: 2 };
    let base =
        || Settings { health_check: Some(check.clone()), ..settings(&[named("a.test", 80), named("b.test", 80)]) };
    let old = Upstreams::build(vec![base()]).unwrap();
    assert!(!old.is_ready(), "the first round is to come");
    let server = &old.get("api").unwrap().servers()[1];
    server.set_addresses(vec!["10.0.0.2:80".parse().unwrap()]);
    server.set_healthy(false);
    let _lease = old.get("api").unwrap().pick(0).unwrap();

    // Timeouts and order do not touch what is known of a server.
    let mut settings = base();
    settings.servers.reverse();
    settings.servers.push(named("c.test", 80));
    settings.connect_timeout = Duration::from_secs(1);
    let new = old.rebuild(vec![settings]).unwrap();
    let servers = new.get("api").unwrap().servers();
    assert!(Arc::ptr_eq(&servers[0], server));
    assert_eq!((servers[0].is_healthy(), servers[1].in_flight(), servers[2].is_healthy()), (false, 1, true));
    assert!(servers[2].is_checked(), "a gate that serves stays ready");

    // Another check may say otherwise, but the address stands.
    let mut settings = base();
    settings.health_check = Some(HealthCheck { path: "/other".into(), ..check.clone() });
    let new = old.rebuild(vec![settings]).unwrap();
    let servers = new.get("api").unwrap().servers();
    assert_eq!((servers[1].is_healthy(), servers[1].addresses().len()), (true, 1));
    assert_eq!(servers[1].in_flight(), 0);
    assert!(new.get("gone").is_none() && new.iter().count() == 1);
}
