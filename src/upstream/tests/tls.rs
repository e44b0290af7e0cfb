//! TLS towards servers: private roots, client certificates, names, protocols.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::upstream::TlsSettings;
use crate::upstream::client_tls::ClientTls;
use crate::upstream::stream::UpstreamStream;

/// A private CA with its files, and a client certificate it issued.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    folder: TempDir,
}

/// What a test server asks of its clients.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) client_certificate: bool,
    pub(super) http2: bool,
}

impl Authority {
    pub(super) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), root.pem()).unwrap();
        let authority = Self { issuer: Issuer::new(params, key), root: root.der().clone(), folder };
        let (cert, key) = authority.issue(&["gate.test"]);
        std::fs::write(authority.file("gate.pem"), cert).unwrap();
        std::fs::write(authority.file("gate.key"), key).unwrap();
        authority
    }

    fn issue(&self, names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Client settings that trust this CA.
    pub(super) fn client(&self, server_name: &str, certificate: bool) -> TlsSettings {
        TlsSettings {
            server_name: server_name.into(),
            ca: Some(self.file("ca.pem")),
            client: certificate.then(|| (self.file("gate.pem"), self.file("gate.key"))),
        }
    }
}

/// A server that reads a head's worth of bytes, answers 200 and tells what it read, or why the handshake failed.
pub(super) async fn serve(
    authority: &Authority,
    names: &[&str],
    asked: Asked,
) -> (ServerAddress, mpsc::UnboundedReceiver<Result<Vec<u8>, String>>) {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = if asked.client_certificate {
        let mut roots = RootCertStore::empty();
        roots.add(authority.root.clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let (cert, key) = authority.issue(names);
    let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
    let mut config = builder.with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap();
    config.alpn_protocols = vec![if asked.http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, address) = listen().await;
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = match acceptor.accept(stream).await {
                Ok(stream) => stream,
                Err(error) => {
                    tell.send(Err(error.to_string())).ok();
                    continue;
                }
            };
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while stream.read_buf(&mut head).await.unwrap_or(0) > 0 {
                    tell.send(Ok(std::mem::take(&mut head))).ok();
                    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok();
                    stream.flush().await.ok();
                }
            });
        }
    });
    (address, told)
}

const OPEN: Asked = Asked { client_certificate: false, http2: false };

async fn connect_by(address: &ServerAddress, tls: TlsSettings, http2: bool) -> Result<Connection, ConnectError> {
    let upstream = build(Settings { tls: Some(tls), http2, ..settings(std::slice::from_ref(address)) });
    connect(&upstream, &Pool::new(1)).await
}

#[track_caller]
fn refused(result: Result<Connection, ConnectError>, why: &str) {
    let error = result.unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error}");
    assert!(error.to_string().contains(why), "{why:?} in {error}");
    assert_eq!(error.rejection(), Rejection::BadGateway("upstream_tls"));
}

#[tokio::test]
async fn only_the_right_name_under_the_right_root_is_trusted() {
    let authority = Authority::new();
    let (address, mut told) = serve(&authority, &["worker.test"], OPEN).await;
    let mut connection = connect_by(&address, authority.client("worker.test", false), false).await.unwrap();
    soon(connection.stream.write_all(b"hello")).await.unwrap();
    soon(connection.stream.flush()).await.unwrap();
    assert_eq!(soon(told.recv()).await.unwrap().unwrap(), b"hello");

    refused(connect_by(&address, authority.client("other.test", false), false).await, "not valid for name");
    let stranger = Authority::new();
    refused(connect_by(&address, stranger.client("worker.test", false), false).await, "invalid peer certificate");
    // The address does not stand in the certificate, whatever was dialled.
    refused(connect_by(&address, authority.client("127.0.0.1", false), false).await, "not valid for name");
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let authority = Authority::new();
    let asked = Asked { client_certificate: true, http2: false };
    let (address, mut told) = serve(&authority, &["worker.test"], asked).await;
    let mut connection = connect_by(&address, authority.client("worker.test", true), false).await.unwrap();
    soon(connection.stream.write_all(b"hello")).await.unwrap();
    soon(connection.stream.flush()).await.unwrap();
    assert_eq!(soon(told.recv()).await.unwrap().unwrap(), b"hello");
    // In TLS 1.3 the client is done before the server has looked: the refusal comes with the first read.
    if let Ok(mut connection) = connect_by(&address, authority.client("worker.test", false), false).await {
        assert!(soon(connection.stream.read_u8()).await.is_err());
    }
    let error = soon(told.recv()).await.unwrap().unwrap_err();
    assert!(error.contains("no certificates"), "{error}");
}

#[tokio::test]
async fn the_protocol_is_agreed_on() {
    let authority = Authority::new();
    let client = || authority.client("worker.test", false);
    let (address, _told) = serve(&authority, &["worker.test"], Asked { client_certificate: false, http2: true }).await;
    assert!(connect_by(&address, client(), true).await.unwrap().stream.negotiated_http2());
    assert!(connect_by(&address, client(), false).await.is_err(), "HTTP/1.1 from a server of HTTP/2 alone");
    let (address, _told) = serve(&authority, &["worker.test"], OPEN).await;
    assert!(!connect_by(&address, client(), false).await.unwrap().stream.negotiated_http2());
    assert!(connect_by(&address, client(), true).await.is_err(), "HTTP/2 from a server of HTTP/1.1 alone");
}

#[tokio::test]
async fn idle_tls_connections_are_reused_until_they_die() {
    let authority = Authority::new();
    let (address, mut told) = serve(&authority, &["worker.test"], OPEN).await;
    let tls = Some(authority.client("worker.test", false));
    let (upstream, pool) = (build(Settings { tls, ..settings(&[address]) }), Pool::new(4));
    let connection = connect(&upstream, &pool).await.unwrap();
    // The server's session tickets are still unread: they are no reason to drop the connection.
    pool.put(&upstream, connection, Instant::now());
    tokio::task::yield_now().await;
    let mut connection = connect(&upstream, &pool).await.unwrap();
    assert!(connection.is_reused());
    soon(connection.stream.write_all(b"hello")).await.unwrap();
    soon(connection.stream.flush()).await.unwrap();
    soon(told.recv()).await.unwrap().unwrap();
    // One byte read leaves plaintext inside the session, which readiness sees and the pool takes for a fault.
    assert_eq!(soon(connection.stream.read_u8()).await.unwrap(), b'H');
    soon(connection.stream.readable()).await.unwrap();
    pool.put(&upstream, connection, Instant::now());
    assert!(!connect(&upstream, &pool).await.unwrap().is_reused());
}

#[tokio::test]
async fn a_server_that_never_shakes_hands_times_out() {
    let authority = Authority::new();
    let (_listener, address) = listen().await;
    let upstream = build(Settings {
        tls: Some(authority.client("worker.test", false)),
        connect_timeout: Duration::from_millis(50),
        ..settings(&[address])
    });
    let error = connect(&upstream, &Pool::new(1)).await.unwrap_err();
    assert_eq!(error.rejection(), Rejection::GatewayTimeout("upstream_connect"));
}

#[tokio::test]
async fn tls_over_a_unix_socket() {
    let authority = Authority::new();
    let path = authority.file("worker.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (address, _told) = serve(&authority, &["worker.test"], OPEN).await;
    let ServerAddress::Tcp { port, .. } = address else { unreachable!() };
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        tokio::io::copy_bidirectional(&mut near, &mut far).await.ok();
    });
    let mut connection =
        connect_by(&ServerAddress::Unix(path), authority.client("worker.test", false), false).await.unwrap();
    assert!(matches!(connection.stream, UpstreamStream::TlsUnix(_)));
    soon(connection.stream.write_all(b"hello")).await.unwrap();
    soon(connection.stream.flush()).await.unwrap();
    soon(connection.stream.readable()).await.unwrap();
    assert_eq!(soon(connection.stream.read_u8()).await.unwrap(), b'H');
}

#[test]
fn bad_files_and_names_are_problems() {
    let authority = Authority::new();
    let good = authority.client("worker.test", true);
    let other = Authority::new();
    let empty = authority.file("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let cut = authority.file("cut.key");
    let key = std::fs::read_to_string(authority.file("gate.key")).unwrap();
    std::fs::write(&cut, &key[..key.len() / 2]).unwrap();
    let named = |server_name: &str| TlsSettings { server_name: server_name.into(), ..good.clone() };
    let with_ca = |ca: PathBuf| TlsSettings { ca: Some(ca), ..good.clone() };
    let with_key = |key: PathBuf| TlsSettings { client: Some((authority.file("gate.pem"), key)), ..good.clone() };
    for (tls, file, want) in [
        (named(""), None, "server_name \"\" is not a host name"),
        (named("a b"), None, "server_name \"a b\" is not a host name"),
        (with_ca(authority.file("none.pem")), Some(authority.file("none.pem")), "none.pem cannot be read"),
        (with_ca(empty.clone()), Some(empty), "empty.pem holds no certificate"),
        (
            with_key(authority.file("none.key")),
            Some(authority.file("none.key")),
            "none.key holds no readable private key",
        ),
        (with_key(cut.clone()), Some(cut), "cut.key holds no readable private key: not well-formed PEM"),
        (with_key(other.file("gate.key")), Some(authority.file("gate.pem")), "gate.pem does not go with"),
    ] {
        let settings = Settings { tls: Some(tls), ..settings(&[named_server()]) };
        let problems = Upstreams::build(vec![settings.clone(), settings]).unwrap_err();
        assert_eq!(problems.len(), 2, "every problem is told");
        assert_eq!((&*problems[0].upstream, &problems[0].file), ("api", &file));
        assert!(problems[0].message.contains(want), "{want:?} in {:?}", problems[0].message);
        let secret = &key.lines().nth(1).unwrap()[..16];
        assert!(!problems[0].message.contains(secret));
    }
}

fn named_server() -> ServerAddress {
    named("worker.test", 443)
}

#[test]
fn a_pipe_in_place_of_a_tls_file_is_refused_and_does_not_hold_its_reader() {
    let authority = Authority::new();
    for name in ["ca.pem", "gate.pem", "gate.key"] {
        let path = authority.file(name);
        let whole = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        let (told, built) = std::sync::mpsc::channel();
        let settings = authority.client("gate.test", true);
        std::thread::spawn(move || told.send(ClientTls::build(&settings, false).map(drop)));
        let error = built.recv_timeout(DEADLINE).expect("an answer in time").expect_err(name);
        assert_eq!(error.file, Some(path.clone()));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(path, whole).unwrap();
    }
}
