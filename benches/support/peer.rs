//! The gate and its peers before the same upstream, all doing one job: 1,000 keys, the caller's name set, the key taken
//! away, a limit per key that never bites, no access log, one worker. nginx and HAProxy hold plain keys; the gate holds hashes.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::nginx;
use super::process::{self, Program, find, listening, pinned, prepare, write_private};

/// How many keys each knows.
const KEYS: usize = 1000;
/// Its usual buffers of 4 KiB cost nginx four times as much on large answers; on small ones, large buffers do.
const LARGE_BUFFERS: &str = "proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;";

/// A running gate or peer.
pub struct Peer {
    /// What the table calls it.
    pub name: &'static str,
    /// The process.
    pub program: Program,
    /// The plain listener's port.
    pub plain: u16,
    /// The TLS listener's port.
    pub tls: u16,
}

/// The key of this number: 64 characters.
pub fn key(number: usize) -> String {
    format!("{number:04}-{}", "bench-key-of-sixty-four-characters-0123456789-abcdefghijklm")
}

/// keygate, as built for this bench.
pub fn gate(folder: &Path, upstream: u16) -> Peer {
    let folder = prepare(folder, "keygate");
    let mut keys = String::from("version: 1\nkeys:\n");
    for number in 0..KEYS {
        let hash: String = Sha256::digest(key(number)).iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(keys, "  - {{ id: k{number}, user: user{number}, hash: {hash} }}").unwrap();
    }
    write_private(&folder.join("keys.yaml"), &(keys + "...\n"));
    let (program, [plain, tls]) = listening(&folder, |[plain, tls]| {
        let config = format!(
            "listen:\n  - address: \"127.0.0.1:{plain}\"\n  - address: \"127.0.0.1:{tls}\"\n    tls:\n      certificates:\n        \
             - cert: ../cert.pem\n          key: ../key.pem\n\
             keys:\n  file: keys.yaml\nthreads: 1\n\
             limits:\n  default: {{ requests: 1000000, per: 1s }}\n\
             shutdown:\n  grace: 0s\nlog:\n  access: off\n\
             upstreams:\n  app:\n    servers: [\"127.0.0.1:{upstream}\"]\n\
             routes:\n  - path: /\n    upstream: app\n"
        );
        fs::write(folder.join("keygate.yaml"), config).unwrap();
        (process::keygate(&folder.join("keygate.yaml")), vec![plain, tls])
    })
    .expect("the gate starts");
    Peer { name: "keygate", program, plain, tls }
}

/// nginx with a map of keys.
pub fn nginx(folder: &Path, upstream: u16) -> Option<Peer> {
    let nginx = find(nginx::PLACE)?;
    let folder = prepare(folder, "nginx");
    fs::write(folder.join("keys.map"), pairs(";")).unwrap();
    let (program, [plain, tls]) = listening(&folder, |[plain, tls]| {
        let server = format!(
            "map_hash_bucket_size 128; map_hash_max_size 4096;\n\
             map $http_x_api_key $user {{ default ''; include keys.map; }}\n\
             limit_req_zone $user zone=keys:1m rate=1000000r/s;\n\
             upstream app {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 1000000000; }}\n\
             server {{ listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl;\n\
             ssl_certificate ../cert.pem; ssl_certificate_key ../key.pem;\n\
             client_max_body_size 0; client_body_buffer_size 64k; proxy_max_temp_file_size 0;\n\
             proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host $http_host;\n\
             proxy_set_header X-Api-Key ''; proxy_set_header X-Auth-User $user; proxy_set_header X-Request-Id $request_id;\n\
             proxy_set_header X-Forwarded-For $remote_addr; limit_req zone=keys burst=1000000 nodelay;\n\
             if ($user = '') {{ return 401 '{{\"message\":\"no key\"}}'; }}\n\
             location / {{ proxy_pass http://app; }}\n\
             location = /large {{ proxy_pass http://app; {LARGE_BUFFERS} }} }}"
        );
        (nginx::command(0, &nginx, &folder, &server), vec![plain, tls])
    })?;
    Some(Peer { name: "nginx map", program, plain, tls })
}

/// HAProxy with a map of keys.
pub fn haproxy(folder: &Path, upstream: u16) -> Option<Peer> {
    let haproxy = find("/usr/sbin/haproxy")?;
    let folder = prepare(folder, "haproxy");
    fs::write(folder.join("keys.map"), pairs("")).unwrap();
    let (program, [plain, tls]) = listening(&folder, |[plain, tls]| {
        let (map, pem) = (folder.join("keys.map"), folder.join("../both.pem"));
        let config = format!(
            "global\n nbthread 1\n maxconn 4000\ndefaults\n mode http\n http-reuse always\n timeout connect 5s\n \
             timeout client 60s\n timeout server 60s\nfrontend gate\n bind 127.0.0.1:{plain}\n bind 127.0.0.1:{tls} ssl crt {pem}\n \
             stick-table type string len 32 size 10k expire 60s store http_req_rate(1s)\n \
             http-request set-var(txn.user) req.hdr(x-api-key),map({map})\n \
             http-request return status 401 content-type application/json string '{{\"message\":\"no key\"}}' unless {{ var(txn.user) -m found }}\n \
             http-request track-sc0 var(txn.user)\n http-request deny deny_status 429 if {{ sc0_http_req_rate gt 100000000 }}\n \
             http-request del-header X-Api-Key\n http-request set-header X-Auth-User %[var(txn.user)]\n \
             http-request set-header X-Request-Id %[uuid()]\n http-request set-header X-Forwarded-For %[src]\n \
             default_backend app\nbackend app\n server one 127.0.0.1:{upstream}\n",
            pem = pem.display(),
            map = map.display(),
        );
        fs::write(folder.join("haproxy.cfg"), config).unwrap();
        let mut command = pinned(0, &haproxy);
        command.arg("-db").arg("-f").arg(folder.join("haproxy.cfg"));
        (command, vec![plain, tls])
    })?;
    Some(Peer { name: "HAProxy map", program, plain, tls })
}

fn pairs(end: &str) -> String {
    (0..KEYS).map(|number| format!("{} user{number}{end}\n", key(number))).collect()
}
