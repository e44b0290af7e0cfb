//! nginx as a program to start: the upstream of benches, and the ground of a peer.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::process::{Program, find, listening, pinned, prepare};

/// Where Debian has it.
pub const PLACE: &str = "/usr/sbin/nginx";
/// The upstream's short answer.
pub const SMALL: &str = r#"{"status":"ok","worker":"w-17","queue":[],"version":"1.4.2"}"#;
/// Bytes of the large answer.
pub const LARGE: usize = 1 << 20;

/// The upstream: nginx with a short answer, a large one, and kept connections. `None` without nginx.
pub fn upstream(folder: &Path) -> Option<(Program, u16)> {
    let nginx = find(PLACE)?;
    let folder = prepare(folder, "upstream");
    fs::write(folder.join("large"), vec![b'x'; LARGE]).unwrap();
    let root = folder.display();
    listening(&folder, |[port, _]| {
        let server = format!(
            "server {{ listen 127.0.0.1:{port}; client_max_body_size 0; location / {{ return 200 '{SMALL}'; }}\n\
             location = /large {{ root {root}; }} }}"
        );
        (command(1, &nginx, &folder, &server), vec![port])
    })
    .map(|(program, [port, _])| (program, port))
}

/// A command for nginx on that core, with these servers and one worker; its files are in `folder`.
pub fn command(core: usize, nginx: &Path, folder: &Path, servers: &str) -> Command {
    // Workers of a root nginx run as nobody otherwise, who may not enter the folder of this bench.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let config = format!(
        "daemon off; {user} worker_processes 1; pid pid; error_log stderr crit;\nevents {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 75s; sendfile on; tcp_nopush on;\n\
         client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
         {servers}\n}}\n"
    );
    fs::write(folder.join("nginx.conf"), config).unwrap();
    let mut command = pinned(core, nginx);
    command.arg("-p").arg(folder).args(["-e", "stderr", "-c", "nginx.conf"]);
    command
}
