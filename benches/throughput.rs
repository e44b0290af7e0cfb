//! What a request costs: the gate beside nginx and HAProxy, in turns in the same run, before the same upstream.
//!
//! `cargo bench --bench throughput` measures; `-- --rounds 5 --seconds 2 --case get` are its options. Without `--bench`, as under
//! `cargo test`, each case runs once against each program and its answers are checked; nothing is measured.
//!
//! CPU time per request is user and system time of the program's processes divided by answered requests: the figure to trust on
//! a machine whose cores the load shares. Ratios are medians over rounds of same-round ratios to nginx.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench that cannot go on panics and says why; its figures are for the terminal"
)]
#![expect(unreachable_pub, reason = "the support is a small library: its `pub` says what benches may use")]

#[path = "support/ask.rs"]
mod ask;
#[path = "support/load.rs"]
mod load;
#[path = "support/nginx.rs"]
mod nginx;
#[path = "support/peer.rs"]
mod peer;
#[path = "support/process.rs"]
mod process;

use std::fs;
use std::path::Path;
use std::time::Duration;

use load::{Figures, Load};
use peer::Peer;

/// Connections kept open by the load.
const CONNECTIONS: usize = 64;

/// One kind of request and the answer it must get.
struct Case {
    name: &'static str,
    what: &'static str,
    tls: bool,
    with_key: bool,
    method: &'static str,
    target: &'static str,
    body: usize,
    status: u16,
    /// Bytes of the answer's body; `None` where each program has its own.
    answer: Option<usize>,
}

const GET: Case = Case {
    name: "get",
    what: "Short GET with a key",
    tls: false,
    with_key: true,
    method: "GET",
    target: "/",
    body: 0,
    status: 200,
    answer: Some(nginx::SMALL.len()),
};

const CASES: [Case; 5] = [
    GET,
    Case { name: "refuse", what: "GET without a key: 401", with_key: false, status: 401, answer: None, ..GET },
    Case { name: "post", what: "POST of 16 KiB", method: "POST", body: 16 * 1024, ..GET },
    Case { name: "download", what: "GET of 1 MiB", target: "/large", answer: Some(nginx::LARGE), ..GET },
    Case { name: "tls", what: "Short GET over TLS", tls: true, ..GET },
];

/// What is asked of the bench.
struct Plan {
    measures: bool,
    rounds: usize,
    time: Duration,
    case: Option<String>,
}

/// One program's figures of one round.
#[derive(Clone, Copy)]
struct Sample {
    figures: Figures,
    cpu: Duration,
}

fn main() {
    let plan = plan();
    let folder = tempfile::tempdir().unwrap();
    let certificate = certificate(folder.path());
    let Some((_upstream, port)) = nginx::upstream(folder.path()) else {
        return println!("SKIPPED: nginx is missing, and it is the upstream too");
    };
    let mut peers = vec![peer::gate(folder.path(), port)];
    for (name, peer) in [("nginx", peer::nginx(folder.path(), port)), ("haproxy", peer::haproxy(folder.path(), port))] {
        match peer {
            Some(peer) => peers.push(peer),
            None => println!("SKIPPED: {name} is missing or does not start"),
        }
    }
    for case in CASES.iter().filter(|case| plan.case.as_ref().is_none_or(|only| only == case.name)) {
        for peer in &peers {
            check(case, peer, &certificate);
        }
        println!("ok {}: right from {}", case.name, peers.iter().map(|peer| peer.name).collect::<Vec<_>>().join(", "));
        if plan.measures && process::find("/usr/bin/wrk").is_none() {
            println!("SKIPPED: wrk is missing, nothing is measured");
        } else if plan.measures {
            measure(&plan, case, &peers, folder.path());
        }
    }
}

fn plan() -> Plan {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| arguments.iter().position(|it| it == name).and_then(|at| arguments.get(at + 1));
    let number = |name: &str, default| value(name).map_or(default, |it| it.parse().expect("a number"));
    Plan {
        measures: arguments.iter().any(|argument| argument == "--bench"),
        rounds: number("--rounds", 5),
        time: Duration::from_secs(number("--seconds", 2) as u64),
        case: value("--case").cloned(),
    }
}

/// A certificate for localhost in `folder`, in the files that each program wants.
fn certificate(folder: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    fs::write(folder.join("cert.pem"), &cert).unwrap();
    fs::write(folder.join("key.pem"), &key).unwrap();
    fs::write(folder.join("both.pem"), format!("{cert}{key}")).unwrap();
    cert
}

/// Three requests on one connection, each answered rightly.
fn check(case: &Case, peer: &Peer, certificate: &str) {
    let key = if case.with_key { format!("X-Api-Key: {}\r\n", peer::key(7)) } else { String::new() };
    let length = if case.body > 0 { format!("Content-Length: {}\r\n", case.body) } else { String::new() };
    let mut request =
        format!("{} {} HTTP/1.1\r\nHost: localhost\r\n{key}{length}\r\n", case.method, case.target).into_bytes();
    request.resize(request.len() + case.body, b'x');
    let port = if case.tls { peer.tls } else { peer.plain };
    for (status, body) in ask::ask(port, case.tls.then_some(certificate), &request, 3) {
        assert_eq!(status, case.status, "{} from {}", case.name, peer.name);
        assert!(case.answer.is_none_or(|length| length == body.len()), "{} from {}", case.name, peer.name);
    }
}

/// Rounds in which each program has its turn, beginning with another each time.
fn measure(plan: &Plan, case: &Case, peers: &[Peer], folder: &Path) {
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); peers.len()];
    for round in 0..=plan.rounds {
        for turn in 0..peers.len() {
            let at = (round + turn) % peers.len();
            let time = if round == 0 { Duration::from_secs(1) } else { plan.time };
            let sample = sample(case, &peers[at], folder, time);
            // The first round fills caches and pools.
            if round > 0 {
                samples[at].push(sample);
            }
        }
    }
    let nginx = peers.iter().position(|peer| peer.name.starts_with("nginx"));
    println!("\n{} ({CONNECTIONS} connections, {} rounds)", case.what, plan.rounds);
    println!("{:<12} {:>10} {:>12} {:>12} {:>9} {:>9}", "", "requests/s", "CPU/request", "CPU to nginx", "p50", "p99");
    for (peer, own) in peers.iter().zip(&samples) {
        let of = |value: fn(&Sample) -> f64| median(own.iter().map(value).collect());
        let ratio = nginx.map(|at| median(own.iter().zip(&samples[at]).map(|(a, b)| a.cost() / b.cost()).collect()));
        println!(
            "{:<12} {:>10.0} {:>9.1} us {:>12} {:>6.2} ms {:>6.2} ms",
            peer.name,
            of(|sample| sample.figures.requests as f64 / sample.figures.took.as_secs_f64()),
            of(Sample::cost),
            ratio.map_or("-".into(), |ratio| format!("{ratio:.2}")),
            of(|sample| sample.figures.p50.as_secs_f64() * 1e3),
            of(|sample| sample.figures.p99.as_secs_f64() * 1e3),
        );
    }
    println!();
}

fn sample(case: &Case, peer: &Peer, folder: &Path, time: Duration) -> Sample {
    let key = peer::key(7);
    let (scheme, port) = if case.tls { ("https", peer.tls) } else { ("http", peer.plain) };
    let url = format!("{scheme}://127.0.0.1:{port}{}", case.target);
    let load =
        Load { url, method: case.method, key: case.with_key.then_some(&key), body: case.body, pause: Duration::ZERO };
    let before = peer.program.cpu();
    let figures = load::run(folder, &load, CONNECTIONS, time).expect("wrk is there");
    let cpu = peer.program.cpu() - before;
    let refused = if case.status < 400 { 0 } else { figures.requests };
    assert_eq!((figures.refused, figures.broken), (refused, 0), "{} from {}: {figures:?}", case.name, peer.name);
    Sample { figures, cpu }
}

impl Sample {
    /// Microseconds of CPU time per request.
    fn cost(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.figures.requests as f64
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
