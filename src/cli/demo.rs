//! `keygate demo`: a gate that needs no files. It makes a certificate, a key and a configuration in a folder of its own, puts
//! an echo service behind, and prints commands to paste.

mod echo;

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use super::{FAILED, complain, serve};
use crate::app::Options;
use crate::config::{self, System};
use crate::key::ApiKey;
use crate::tls::self_signed::self_signed;

/// `keygate demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address of the TLS listener; port 0 lets the system choose
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    tls: SocketAddr,
    /// Address of the plain listener
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    plain: SocketAddr,
    /// Address of the admin listener
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    admin: SocketAddr,
}

/// Runs a gate that needs no files.
pub(super) fn run(args: Args) -> ExitCode {
    match prepare(&args) {
        Ok((options, folder)) => {
            let status = serve::start(options);
            drop(folder);
            status
        }
        Err(error) => {
            complain(&format!("demo: {error}"));
            ExitCode::from(FAILED)
        }
    }
}

fn prepare(args: &Args) -> io::Result<(Options, tempfile::TempDir)> {
    let folder = tempfile::Builder::new().prefix("keygate-demo-").tempdir()?;
    let key = ApiKey::generate(None, |bytes| {
        // Without random bytes there is no key, and so no demo; the check below sees the zeros.
        let _ = getrandom::fill(bytes);
    });
    let mut probe = [0; 16];
    getrandom::fill(&mut probe).map_err(io::Error::other)?;
    let certificate = self_signed(&["localhost", "127.0.0.1"], jiff::Timestamp::now()).map_err(io::Error::other)?;
    write_private(&folder.path().join("cert.pem"), certificate.cert.as_bytes())?;
    write_private(&folder.path().join("key.pem"), certificate.key.as_bytes())?;
    write_private(&folder.path().join("keys.yaml"), key_file(&key).as_bytes())?;
    let upstream = echo::start()?;
    let text = configuration(args, upstream);
    let path = folder.path().join("keygate.yaml");
    write_private(&path, text.as_bytes())?;
    let loaded = config::load(&path, &System).map_err(|problems| {
        io::Error::other(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })?;
    let shown = folder.path().display().to_string();
    let on_ready = move |listeners: Vec<String>, admin: Option<String>| {
        let [tls, plain] = listeners.as_slice() else { return };
        let guide = guide(&shown, tls, plain, &admin.unwrap_or_default(), key.expose_secret());
        let _closed = io::stdout().lock().write_all(guide.as_bytes());
    };
    let options = Options {
        config: loaded.config,
        config_path: Some(path),
        environment: Box::new(System),
        on_ready: Box::new(on_ready),
    };
    Ok((options, folder))
}

fn configuration(args: &Args, upstream: SocketAddr) -> String {
    let Args { tls, plain, admin } = args;
    format!(
        "listen:
  - address: \"{tls}\"
    tls: {{ certificates: [{{ cert: cert.pem, key: key.pem }}] }}
  - address: \"{plain}\"
admin: {{ address: \"{admin}\" }}
keys: {{ file: keys.yaml }}
credentials:
  - header: X-Api-Key
  - header: Authorization
    schemes: [Bearer, Apikey, Api-Key, Token]
  - query: api_key
  - websocket_protocol: \"keygate.key.\"
upstreams:
  echo: {{ servers: [\"{upstream}\"] }}
routes:
  - {{ exact: /public, access: public, upstream: echo }}
  - {{ path: /limited/, upstream: echo, limits: {{ requests: 3, per: 10s }} }}
  - {{ path: /admin/, roles: [admin], upstream: echo }}
  - {{ path: /, upstream: echo }}
log: {{ level: warn, format: text, access: stdout }}
"
    )
}

fn key_file(key: &ApiKey) -> String {
    let hash: String = key.hash().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "version: 1
keys:
  - id: {}
    name: demo-key
    user: demo
    hash: \"sha256:{hash}\"
    roles: [client]
...
",
        key.id()
    )
}

fn guide(folder: &str, tls: &str, plain: &str, admin: &str, key: &str) -> String {
    format!(
        "
keygate demo: a gate, an echo service behind it, and a key made for this run.

  TLS      https://{tls}   (a certificate made for this run: curl needs -k)
  plain    http://{plain}
  admin    http://{admin}   (/metrics /healthz /readyz)
  files    {folder}   (keygate.yaml, keys.yaml; gone when the demo ends)
  key      {key}

Paste these into another terminal. The first line is for the commands of README.md:

  KEY={key} PLAIN={plain} TLS={tls} ADMIN={admin}

  # 401: no key
  curl -i http://{plain}/hello

  # 200: the echo service shows what reached it: who is calling, and no key
  curl -i -H 'X-Api-Key: {key}' http://{plain}/hello

  # the same over TLS and HTTP/2, with a body
  curl -ik --http2 -H 'Authorization: Bearer {key}' -d 'some data' https://{tls}/hello

  # 429: the fourth request within ten seconds
  for i in 1 2 3 4; do curl -s -o /dev/null -w '%{{http_code}}\\n' -H 'X-Api-Key: {key}' http://{plain}/limited/; done

  # a WebSocket: 101 and a greeting from the echo service (any WebSocket client echoes)
  curl -iN --http1.1 --max-time 2 -H 'X-Api-Key: {key}' -H 'Connection: Upgrade' -H 'Upgrade: websocket' \\
       -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==' http://{plain}/ws; echo

  # what Prometheus sees
  curl -s http://{admin}/metrics | grep '^keygate_requests_total'

Ctrl-C stops it. Requests are shown below.

"
    )
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}
