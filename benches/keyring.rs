//! What a great many keys cost: time to load them, memory beside their words, time to reload them, and what a reload does to the
//! requests under way.
//!
//! `cargo bench --bench keyring` measures with a million keys; `-- --keys 100000 --rounds 3` are its options. Without `--bench` it
//! runs once with few keys, checks the answers and measures nothing.

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
#[path = "support/process.rs"]
mod process;

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use load::{Figures, Load};
use process::Program;
use sha2::{Digest, Sha256};

const MIB: f64 = 1024.0 * 1024.0;

/// A gate with a key file of so many keys.
struct Gate {
    program: Program,
    port: u16,
    /// From its start until it listens.
    started: Duration,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name: &str, default: usize| {
        let value = arguments.iter().position(|it| it == name).and_then(|at| arguments.get(at + 1));
        value.map_or(default, |it| it.parse().expect("a number"))
    };
    let measures = arguments.iter().any(|argument| argument == "--bench");
    let (keys, rounds) = (number("--keys", if measures { 1_000_000 } else { 50 }), number("--rounds", 3));
    let folder = tempfile::tempdir().unwrap();
    let upstream = nginx::upstream(folder.path());
    // Without an upstream a good key gets a 502, which tells it from a bad one just as well.
    let upstream_port = upstream.as_ref().map_or(9, |(_, port)| *port);
    let welcome = if upstream.is_some() { 200 } else { 502 };

    let few = gate(folder.path(), "few", &file(1, 0).0, upstream_port);
    let (empty_start, empty_memory) = (few.started, memory(few.program.id(), "RssAnon"));
    drop(few);

    let (text, words) = file(keys, 0);
    let gate = gate(folder.path(), "many", &text, upstream_port);
    for (key, status) in [(0, welcome), (keys - 1, welcome), (keys, 401)] {
        assert_eq!(answer(gate.port, key), status, "key {key} of {keys}");
    }
    if measures {
        let anonymous = memory(gate.program.id(), "RssAnon");
        let beside = (anonymous - empty_memory - words as f64) / keys as f64;
        println!("{keys} keys, a key file of {:.0} MiB", text.len() as f64 / MIB);
        println!(
            "start                {:.2} s, {:.2} s with one key",
            gate.started.as_secs_f64(),
            empty_start.as_secs_f64()
        );
        println!("CPU time of it       {:.2} s", gate.program.cpu().as_secs_f64());
        println!("memory               {:.0} MiB, {:.0} MiB with one key", anonymous / MIB, empty_memory / MIB);
        println!("memory at its most   {:.0} MiB", memory(gate.program.id(), "VmHWM") / MIB);
        println!("beside the words     {beside:.0} bytes a key, of which the digest is 32 (goal: 200)");
    }

    forget_peak(gate.program.id());
    let before = gate.program.cpu();
    prepare(folder.path(), keys, 1);
    let took = reload(folder.path(), &gate, keys, 1, welcome);
    if measures {
        println!("reload               {:.2} s from the rename to the first answer by it", took.as_secs_f64());
        println!("CPU time of it       {:.2} s", (gate.program.cpu() - before).as_secs_f64());
        let (peak, file) = (memory(gate.program.id(), "VmHWM") / MIB, text.len() as f64 / MIB);
        println!("memory at its most   {peak:.0} MiB: the old keys, the new ones and the file of {file:.0} MiB");
        match upstream {
            Some(_) => during_reloads(folder.path(), &gate, keys, rounds),
            None => println!("SKIPPED: nginx is missing, and requests under way need an upstream"),
        }
        println!("memory after reloads {:.0} MiB", memory(gate.program.id(), "RssAnon") / MIB);
    }
    println!("ok keyring: {keys} keys, before and after a reload");
}

/// A key file, and how many bytes its ids and users have. A generation has one key of its own beside the common ones.
fn file(keys: usize, generation: usize) -> (String, usize) {
    let mut text = String::from("version: 1\nkeys:\n");
    let mut words = 0;
    for number in (0..keys).chain((generation > 0).then_some(keys + generation)) {
        let (id, user) = (format!("{number:08x}"), format!("user{number}"));
        words += id.len() + user.len();
        writeln!(text, "  - id: \"{id}\"\n    user: {user}\n    hash: {}", hash(number)).unwrap();
    }
    text.push_str("...\n");
    (text, words)
}

fn key(number: usize) -> String {
    format!("{number:08}-bench-key-of-many")
}

fn hash(number: usize) -> String {
    let mut hex = String::with_capacity(64);
    Sha256::digest(key(number)).iter().for_each(|byte| write!(hex, "{byte:02x}").unwrap());
    hex
}

fn gate(folder: &Path, name: &str, keys: &str, upstream: u16) -> Gate {
    let folder = process::prepare(folder, name);
    process::write_private(&folder.join("keys.yaml"), keys);
    let began = Instant::now();
    let (program, [port, _]) = process::listening(&folder, |[port, _]| {
        let config = format!(
            "listen:\n  - address: \"127.0.0.1:{port}\"\nkeys:\n  file: keys.yaml\nthreads: 1\nshutdown:\n  grace: 0s\n\
             limits:\n  failed_auth: off\nlog:\n  access: off\nupstreams:\n  app:\n    servers: [\"127.0.0.1:{upstream}\"]\n\
             routes:\n  - path: /\n    upstream: app\n"
        );
        fs::write(folder.join("keygate.yaml"), config).unwrap();
        (process::keygate(&folder.join("keygate.yaml")), vec![port])
    })
    .expect("the gate starts");
    Gate { program, port, started: began.elapsed() }
}

/// The status that the key of this number gets.
fn answer(port: u16, number: usize) -> u16 {
    let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {}\r\n\r\n", key(number));
    ask::ask(port, None, request.as_bytes(), 1)[0].0
}

/// Writes the key file of the next generation beside the one in force.
fn prepare(folder: &Path, keys: usize, generation: usize) {
    process::write_private(&folder.join("many/keys.new"), &file(keys, generation).0);
}

/// Replaces the key file by the one that was prepared; says how long it took until its own key was welcome.
fn reload(folder: &Path, gate: &Gate, keys: usize, generation: usize, welcome: u16) -> Duration {
    let (new, place) = (folder.join("many/keys.new"), folder.join("many/keys.yaml"));
    assert_eq!(answer(gate.port, keys + generation), 401, "the key of generation {generation} is known early");
    let began = Instant::now();
    fs::rename(new, place).unwrap();
    while answer(gate.port, keys + generation) != welcome {
        assert!(began.elapsed() < Duration::from_secs(120), "generation {generation} is not in force");
        sleep(Duration::from_millis(10));
    }
    began.elapsed()
}

/// Latency of requests while the file is reloaded, beside that of as long a time without: of some traffic, and of as much as
/// the gate's one core can take, which the reload then shares.
fn during_reloads(folder: &Path, gate: &Gate, keys: usize, rounds: usize) {
    let mut generation = 1;
    for (name, pause) in [("some", Duration::from_millis(2)), ("all it can", Duration::ZERO)] {
        let (key, port, place) = (key(3), gate.port, folder.to_owned());
        let traffic = move || {
            let load =
                Load { url: format!("http://127.0.0.1:{port}/"), method: "GET", key: Some(&key), body: 0, pause };
            load::run(&place, &load, 16, Duration::from_secs(6))
        };
        let mut ratios = Vec::new();
        for _ in 0..rounds {
            generation += 1;
            prepare(folder, keys, generation);
            let Some(calm) = traffic() else { return println!("SKIPPED: wrk is missing, no latency is measured") };
            let loading = spawn(traffic.clone());
            let took = reload(folder, gate, keys, generation, 200);
            let busy = loading.join().unwrap().expect("wrk is there");
            for (when, figures) in [("calm", calm), ("with a reload", busy)] {
                assert_eq!((figures.refused, figures.broken), (0, 0), "{figures:?}");
                print(&format!("{name}, {when}"), &figures);
            }
            let ratio = busy.p99.as_secs_f64() / calm.p99.as_secs_f64();
            println!("  that reload took   {:.2} s; p99 with it is {ratio:.2} of that without", took.as_secs_f64());
            ratios.push(ratio);
        }
        ratios.sort_by(f64::total_cmp);
        if let Some(median) = ratios.get(ratios.len() / 2) {
            println!("{name}: p99 with a reload is {median:.2} of that without, the median of {} rounds", ratios.len());
        }
    }
}

/// Lets the most that a process ever held begin anew with what it holds (proc_pid_clear_refs(5), since Linux 4.0).
fn forget_peak(id: u32) {
    fs::write(format!("/proc/{id}/clear_refs"), "5").unwrap();
}

fn print(name: &str, figures: &Figures) {
    let rate = figures.requests as f64 / figures.took.as_secs_f64();
    let (p50, p99) = (figures.p50.as_secs_f64() * 1e3, figures.p99.as_secs_f64() * 1e3);
    println!("{name:<26} {rate:.0} requests/s, p50 {p50:.2} ms, p99 {p99:.2} ms");
}

/// A figure of `/proc/PID/status`, in bytes.
fn memory(id: u32, name: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("a figure");
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}
