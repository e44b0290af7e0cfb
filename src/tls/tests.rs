//! Certificates, handshakes and reloads against a real TLS client, in memory where no file is needed.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::client::{Resumption, Tls12Resumption};
use rustls::crypto::aws_lc_rs;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SignatureScheme, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;
use tokio_rustls::server::TlsStream as ServerStream;

use super::handshake::{HandshakeError, HandshakeFailure, Negotiated, accept, has_plaintext};
use super::self_signed::self_signed;
use super::store::CertificateStore;
use super::{CertificateFiles, MinVersion, Settings, acceptor};

mod reload;

const LIMIT: Duration = Duration::from_secs(10);

/// A private CA and a folder for what it issues.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), root, folder: TempDir::new().unwrap() }
    }

    fn pem(&self, names: &[&str], algorithm: &'static rcgen::SignatureAlgorithm) -> (String, String) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// Issues for `names` into the files of `stem`.
    fn issue(&self, stem: &str, names: &[&str]) -> CertificateFiles {
        let (cert, key) = self.pem(names, &rcgen::PKCS_ECDSA_P256_SHA256);
        self.write(stem, &cert, &key)
    }

    fn write(&self, stem: &str, cert: &str, key: &str) -> CertificateFiles {
        let path = |kind: &str| self.folder.path().join(format!("{stem}.{kind}"));
        let files = CertificateFiles { cert: path("pem"), key: path("key") };
        fs::write(&files.cert, cert).unwrap();
        fs::write(&files.key, key).unwrap();
        files
    }

    fn client(&self, versions: &[&'static SupportedProtocolVersion], alpn: &[&str]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        config
    }
}

fn settings(certificates: Vec<CertificateFiles>) -> Settings {
    Settings { certificates, min_version: MinVersion::Tls12, http2: true }
}

fn load(settings: &Settings) -> (Arc<CertificateStore>, tokio_rustls::TlsAcceptor) {
    let store = Arc::new(CertificateStore::load(settings).unwrap());
    let acceptor = acceptor::build(settings, store.clone()).unwrap();
    (store, acceptor)
}

type Shaken = Result<(Box<ServerStream<DuplexStream>>, Negotiated), HandshakeError>;

async fn shake(
    acceptor: &tokio_rustls::TlsAcceptor,
    client: &Arc<ClientConfig>,
    name: &str,
) -> (Shaken, std::io::Result<ClientStream<DuplexStream>>) {
    let (near, far) = duplex(64 * 1024);
    let connector = TlsConnector::from(client.clone());
    let name = ServerName::try_from(name.to_owned()).unwrap();
    tokio::join!(accept(acceptor, near, LIMIT), connector.connect(name, far))
}

/// Sends one byte each way, which also brings the client its tickets.
async fn ping(server: &mut ServerStream<DuplexStream>, client: &mut ClientStream<DuplexStream>) {
    server.write_all(b"s").await.unwrap();
    server.flush().await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b's');
    client.write_all(b"c").await.unwrap();
    client.flush().await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), b'c');
}

fn served_leaf(client: &ClientStream<DuplexStream>) -> CertificateDer<'static> {
    client.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

fn leaf_in(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

#[tokio::test]
async fn the_server_name_chooses_the_certificate() {
    let authority = Authority::new();
    let default = authority.issue("default", &["d.test", "127.0.0.1"]);
    let wild = authority.issue("wild", &["*.example.org", "Upper.Example.net"]);
    let exact = authority.issue("exact", &["api.example.org", "example.org"]);
    let (_, acceptor) = load(&settings(vec![default.clone(), wild.clone(), exact.clone()]));
    let rows = [
        ("d.test", Some(&default)),
        ("api.example.org", Some(&exact)),
        ("API.Example.ORG", Some(&exact)),
        ("www.example.org", Some(&wild)),
        ("example.org", Some(&exact)),
        ("upper.example.net", Some(&wild)),
        // No name is sent for an address: the default.
        ("127.0.0.1", Some(&default)),
        // A wildcard stands for one label; an unknown name gets the default, which the client then refuses.
        ("a.b.example.org", None),
        ("elsewhere.test", None),
    ];
    let config = Arc::new(authority.client(&[&TLS13], &[]));
    for (name, want) in rows {
        let (_, client) = shake(&acceptor, &config, name).await;
        match want {
            Some(files) => assert_eq!(served_leaf(&client.unwrap()), leaf_in(&files.cert), "{name}"),
            None => assert!(client.is_err(), "{name}"),
        }
    }
}

#[test]
fn among_certificates_of_one_name_the_client_gets_one_it_can_verify() {
    let authority = Authority::new();
    let files: Vec<_> = [("p256", &rcgen::PKCS_ECDSA_P256_SHA256), ("ed", &rcgen::PKCS_ED25519)]
        .into_iter()
        .map(|(stem, algorithm)| {
            let (cert, key) = authority.pem(&["a.test"], algorithm);
            authority.write(stem, &cert, &key)
        })
        .collect();
    let store = CertificateStore::load(&settings(files)).unwrap();
    let all = store.certificates();
    for (scheme, want) in [
        (SignatureScheme::ECDSA_NISTP256_SHA256, 0),
        (SignatureScheme::ED25519, 1),
        // Neither fits: the first, and the handshake fails with a reason.
        (SignatureScheme::RSA_PSS_SHA256, 0),
    ] {
        let chosen = store.choose(Some("a.test"), &[scheme]).unwrap();
        assert!(Arc::ptr_eq(&chosen, &all[want]), "{scheme:?}");
    }
}

#[test]
fn every_bad_pair_is_named_and_nothing_of_it_is_shown() {
    let authority = Authority::new();
    let (cert, key) = authority.pem(&["a.test"], &rcgen::PKCS_ECDSA_P256_SHA256);
    let (_, other_key) = authority.pem(&["a.test"], &rcgen::PKCS_ECDSA_P256_SHA256);
    let secret = key.lines().nth(1).unwrap();
    let rows: &[(&str, &str, &str, &str)] = &[
        ("mismatch", &cert, &other_key, "mismatch.key does not belong to the certificate"),
        ("cut", &cert, &key[..key.len() / 2], "cut.key ends in the middle"),
        ("cut-cert", &cert[..cert.len() / 2], &key, "cut-cert.pem ends in the middle"),
        ("swapped", &key, &cert, "swapped.pem holds no certificate"),
        ("no-key", &cert, "", "no-key.key holds no private key"),
        ("empty", "", &key, "empty.pem holds no certificate"),
        ("not-x509", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &key, "no readable certificate"),
        ("not-base64", &cert, &key.replace(secret, &format!("{secret}*")), "not-base64.key is not well-formed PEM"),
    ];
    let mut files: Vec<_> = rows.iter().map(|(stem, cert, key, _)| authority.write(stem, cert, key)).collect();
    files.push(CertificateFiles { cert: "/nonexistent/a.pem".into(), key: "/nonexistent/a.key".into() });
    let problems = CertificateStore::load(&settings(files)).unwrap_err();
    assert_eq!(problems.len(), rows.len() + 1, "{problems:?}");
    for (problem, (_, _, _, want)) in problems.iter().zip(rows) {
        assert!(problem.message.contains(want), "{want:?} in {:?}", problem.message);
        assert!(!problem.message.contains(&secret[..16]), "{:?}", problem.message);
        assert!(problem.file.is_some());
    }
    assert_eq!(problems.last().unwrap().file.as_deref(), Some(Path::new("/nonexistent/a.pem")));
    assert_eq!(CertificateStore::load(&settings(vec![])).unwrap_err().len(), 1);
}

#[test]
fn the_private_key_does_not_show() {
    let authority = Authority::new();
    let files = authority.issue("a", &["a.test"]);
    let key = fs::read_to_string(&files.key).unwrap();
    let store = CertificateStore::load(&settings(vec![files])).unwrap();
    let made = self_signed(&["localhost"], Timestamp::UNIX_EPOCH).unwrap();
    for shown in [format!("{store:?}"), format!("{made:?}")] {
        for line in key.lines().chain(made.key.lines()) {
            assert!(!shown.contains(line), "{shown}");
        }
    }
}

#[tokio::test]
async fn versions_and_protocols() {
    let authority = Authority::new();
    let files = authority.issue("a", &["a.test"]);
    let failed = |failure| Err(HandshakeError::Failed(failure));
    let agreed = |http2, tls13| Ok(Negotiated { http2, tls13, resumed: false });
    let (h2, h1): (&[&str], &[&str]) = (&["h2", "http/1.1"], &["http/1.1"]);
    let rows = [
        (MinVersion::Tls12, true, &TLS13, h2, agreed(true, true)),
        (MinVersion::Tls12, true, &TLS12, h2, agreed(true, false)),
        (MinVersion::Tls12, true, &TLS13, h1, agreed(false, true)),
        (MinVersion::Tls12, true, &TLS13, &[][..], agreed(false, true)),
        (MinVersion::Tls12, false, &TLS13, h2, agreed(false, true)),
        (MinVersion::Tls12, false, &TLS13, &["h2"][..], failed(HandshakeFailure::Protocol)),
        (MinVersion::Tls12, true, &TLS13, &["spdy/3"][..], failed(HandshakeFailure::Protocol)),
        (MinVersion::Tls13, true, &TLS13, h2, agreed(true, true)),
        (MinVersion::Tls13, true, &TLS12, h2, failed(HandshakeFailure::Incompatible)),
    ];
    for (min_version, http2, version, alpn, want) in rows {
        let settings = Settings { certificates: vec![files.clone()], min_version, http2 };
        let (_, acceptor) = load(&settings);
        let (server, client) = shake(&acceptor, &Arc::new(authority.client(&[version], alpn)), "a.test").await;
        let row = format!("{min_version:?} {http2} {version:?} {alpn:?}");
        assert_eq!(server.as_ref().map(|(_, negotiated)| *negotiated).map_err(|error| *error), want, "{row}");
        assert_eq!(client.is_ok(), want.is_ok(), "{row}");
    }
}

#[tokio::test]
async fn sessions_resume_without_early_data() {
    let authority = Authority::new();
    let (_, acceptor) = load(&settings(vec![authority.issue("a", &["a.test"])]));
    let ids_only = Resumption::in_memory_sessions(8).tls12_resumption(Tls12Resumption::SessionIdOnly);
    for (version, resumption) in [
        (&TLS13, Resumption::in_memory_sessions(8)),
        (&TLS12, Resumption::in_memory_sessions(8)),
        // A client without tickets: the session store.
        (&TLS12, ids_only),
    ] {
        let mut config = authority.client(&[version], &[]);
        config.resumption = resumption;
        config.enable_early_data = true;
        let config = Arc::new(config);
        for round in 0..3 {
            let (server, client) = shake(&acceptor, &config, "a.test").await;
            let ((mut server, negotiated), mut client) = (server.unwrap(), client.unwrap());
            assert_eq!(negotiated.resumed, round > 0, "{version:?} round {round}");
            assert!(!client.get_ref().1.is_early_data_accepted());
            ping(&mut server, &mut client).await;
        }
    }
    assert_eq!(acceptor.config().max_early_data_size, 0);
    assert!(acceptor.config().ticketer.enabled());
}

#[tokio::test(start_paused = true)]
async fn the_handshake_has_one_deadline() {
    let authority = Authority::new();
    let (_, acceptor) = load(&settings(vec![authority.issue("a", &["a.test"])]));
    // A client that sends a byte of a record a second is never idle and never done.
    for dribble in [false, true] {
        let (near, mut far) = duplex(1024);
        let begun = tokio::time::Instant::now();
        let client = tokio::spawn(async move {
            far.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
            while dribble && far.write_all(&[1]).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            tokio::time::sleep(Duration::from_secs(60)).await;
        });
        assert_eq!(accept(&acceptor, near, LIMIT).await.unwrap_err(), HandshakeError::Timeout);
        assert_eq!(begun.elapsed(), LIMIT);
        client.abort();
    }
}

#[tokio::test]
async fn failures_are_told_apart() {
    let authority = Authority::new();
    let (_, acceptor) = load(&settings(vec![authority.issue("a", &["a.test"])]));
    let rows: &[(&[u8], HandshakeError, &str)] = &[
        (b"", HandshakeError::Closed, "closed"),
        (&[22, 3, 1, 2, 0, 1], HandshakeError::Closed, "closed"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", HandshakeError::Failed(HandshakeFailure::NotTls), "not_tls"),
        (&[0; 64], HandshakeError::Failed(HandshakeFailure::NotTls), "not_tls"),
        // A handshake record with a message of no known shape, and one with a record past the limit.
        (&[22, 3, 1, 0, 4, 1, 0, 0, 0], HandshakeError::Failed(HandshakeFailure::Malformed), "malformed"),
        (&[22, 3, 3, 0xff, 0xff, 1], HandshakeError::Failed(HandshakeFailure::Malformed), "malformed"),
        // A fatal alert as the first message.
        (&[21, 3, 3, 0, 2, 2, 40], HandshakeError::Failed(HandshakeFailure::Alert), "alert"),
    ];
    for (bytes, want, label) in rows {
        let (near, mut far) = duplex(1024);
        far.write_all(bytes).await.unwrap();
        far.shutdown().await.unwrap();
        let got = accept(&acceptor, near, LIMIT).await.unwrap_err();
        assert_eq!((got, got.label()), (*want, *label), "{bytes:?}");
    }
    // A client that does not trust us says so.
    let stranger = Arc::new(Authority::new().client(&[&TLS12], &[]));
    let (server, _) = shake(&acceptor, &stranger, "a.test").await;
    assert_eq!(server.unwrap_err(), HandshakeError::Failed(HandshakeFailure::Alert));
}

#[tokio::test]
async fn plaintext_inside_the_session_is_seen() {
    let authority = Authority::new();
    let (_, acceptor) = load(&settings(vec![authority.issue("a", &["a.test"])]));
    let (server, client) = shake(&acceptor, &Arc::new(authority.client(&[&TLS13], &[])), "a.test").await;
    let ((mut server, _), mut client) = (server.unwrap(), client.unwrap());
    assert!(!has_plaintext(&mut server));
    client.write_all(b"two").await.unwrap();
    client.flush().await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), b't');
    assert!(has_plaintext(&mut server), "two bytes are left of the record");
    server.read_exact(&mut [0; 2]).await.unwrap();
    assert!(!has_plaintext(&mut server));
}

#[tokio::test]
async fn the_demo_certificate_serves_its_names() {
    let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
    let made = self_signed(&["localhost", "127.0.0.1"], now).unwrap();
    let mut authority = Authority::new();
    let files = authority.write("demo", &made.cert, &made.key);
    authority.root = leaf_in(&files.cert);
    let (store, acceptor) = load(&settings(vec![files]));
    assert_eq!(store.certificates()[0].not_after(), "2026-12-22T10:00:00Z".parse().unwrap());
    assert_eq!(store.certificates()[0].label(), "localhost");
    assert!(acceptor.config().alpn_protocols.contains(&b"h2".to_vec()));
    assert!(self_signed(&["n\u{e4}me"], now).is_err());
    // The client's own clock must lie in its days.
    let made = self_signed(&["localhost", "127.0.0.1"], Timestamp::now()).unwrap();
    let files = authority.write("demo", &made.cert, &made.key);
    authority.root = leaf_in(&files.cert);
    let (_, acceptor) = load(&settings(vec![files]));
    for name in ["localhost", "127.0.0.1"] {
        let (_, client) = shake(&acceptor, &Arc::new(authority.client(&[&TLS13], &[])), name).await;
        assert!(client.is_ok(), "{name}: {client:?}");
    }
}
