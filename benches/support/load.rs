//! Load by `wrk` over kept connections, and what it says of it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::process::{find, pinned};

/// What is asked over and over.
pub struct Load<'a> {
    /// Where, as a URL.
    pub url: String,
    /// The method.
    pub method: &'a str,
    /// The key, if any.
    pub key: Option<&'a str>,
    /// Bytes of the body.
    pub body: usize,
    /// How long each connection waits between an answer and the next request; zero for as many as there can be.
    pub pause: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Requests that were answered.
    pub requests: u64,
    /// In this time.
    pub took: Duration,
    /// Answers with a status of 400 and above.
    pub refused: u64,
    /// Connections that failed and requests that timed out.
    pub broken: u64,
    /// Half of the answers came within this time.
    pub p50: Duration,
    /// 99 of a hundred did.
    pub p99: Duration,
}

/// Loads for this long over so many connections. `None` without `wrk`.
pub fn run(folder: &Path, load: &Load<'_>, connections: usize, time: Duration) -> Option<Figures> {
    let wrk = find("/usr/bin/wrk")?;
    let script = folder.join("load.lua");
    let key = load.key.map(|key| format!("wrk.headers['X-Api-Key'] = '{key}'\n")).unwrap_or_default();
    let body = if load.body > 0 { format!("wrk.body = string.rep('x', {})\n", load.body) } else { String::new() };
    let millis = load.pause.as_millis();
    let pause = if millis > 0 { format!("delay = function() return {millis} end\n") } else { String::new() };
    let text = format!(
        "wrk.method = '{}'\n{key}{body}{pause}\
         done = function(s, l, r) local e = s.errors\n\
         print('figures', s.requests, s.duration, e.status, e.connect + e.read + e.write + e.timeout,\n\
         l:percentile(50), l:percentile(99)) end\n",
        load.method
    );
    fs::write(&script, text).unwrap();
    let mut command = pinned(1, &wrk);
    command.arg("-t1").arg(format!("-c{connections}")).arg(format!("-d{}s", time.as_secs().max(1)));
    // Its own two seconds would count a slow answer as none.
    command.args(["--timeout", "60s"]);
    let output = command.arg("-s").arg(&script).arg(&load.url).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    Some(read(&text).unwrap_or_else(|| panic!("wrk said {text}{}", String::from_utf8_lossy(&output.stderr))))
}

fn read(text: &str) -> Option<Figures> {
    let line = text.lines().find_map(|line| line.strip_prefix("figures"))?;
    let numbers: Vec<u64> = line.split_whitespace().map(|n| n.parse::<f64>().unwrap_or_default() as u64).collect();
    let [requests, took, refused, broken, p50, p99] = numbers[..] else { return None };
    let micros = Duration::from_micros;
    Some(Figures { requests, took: micros(took), refused, broken, p50: micros(p50), p99: micros(p99) })
}
