//! Certificates made for one test, a TLS client that trusts them, and a TLS origin.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use rustls::{SupportedProtocolVersion, version};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::client::Client;

/// A certificate authority of one test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, PEM.
    pub pem: String,
}

/// A TLS connection of the test client.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for these names and its key, PEM.
    pub fn issue(&self, names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// Issues a certificate into `NAME.pem` and `NAME.key` of `folder`.
    pub fn issue_to(&self, folder: &Path, name: &str, names: &[&str]) {
        let (cert, key) = self.issue(names);
        super::gateway::write_private(&folder.join(format!("{name}.pem")), &cert);
        super::gateway::write_private(&folder.join(format!("{name}.key")), &key);
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        roots
    }

    /// What a client that trusts this authority alone is configured with; sessions are resumed across its connections.
    pub fn client(&self, versions: &[&'static SupportedProtocolVersion], protocols: &[&str]) -> Arc<ClientConfig> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// The usual client: both versions, HTTP/1.1.
    pub fn http1(&self) -> Arc<ClientConfig> {
        self.client(&[&version::TLS13, &version::TLS12], &["http/1.1"])
    }

    /// An origin behind TLS for `names`: it answers 200 with the server name it was asked for and whether the client showed a
    /// certificate; with `client_certificate` it asks for one of this authority.
    pub fn origin(&self, names: &[&str], client_certificate: bool) -> TlsOrigin {
        TlsOrigin::start(self.server(names, client_certificate, &[]))
    }

    /// What a server for `names` is configured with, by ALPN `protocols`; see [`Self::origin`].
    pub fn server(&self, names: &[&str], client_certificate: bool, protocols: &[&str]) -> Arc<ServerConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = if client_certificate {
            let roots = Arc::new(self.roots());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let (cert, key) = self.issue(names);
        let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// Shakes hands with the gate at `address` as a client of `name`; the error is the client's view.
pub fn connect(address: &str, name: &str, config: &Arc<ClientConfig>) -> std::io::Result<Client<TlsStream>> {
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    socket.set_write_timeout(Some(Duration::from_secs(20)))?;
    let session = ClientConnection::new(config.clone(), ServerName::try_from(name.to_owned()).unwrap()).unwrap();
    let mut stream = StreamOwned::new(session, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(Client::on(stream))
}

/// The common or first alternative name in the certificate that the gate showed: its DER bytes, to compare.
pub fn shown(client: &Client<TlsStream>) -> Vec<u8> {
    client.stream.conn.peer_certificates().unwrap()[0].to_vec()
}

/// A certificate's DER bytes.
pub fn der(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

/// An origin behind TLS.
pub struct TlsOrigin {
    address: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl TlsOrigin {
    fn start(config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = Self { address: listener.local_addr().unwrap().to_string(), seen: Arc::default() };
        let seen = origin.seen.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), config, seen) = (stream, config.clone(), seen.clone()) else { return };
                thread::spawn(move || serve(stream, config, &seen));
            }
        });
        origin
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// One line for each request head read, or failed handshake.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, seen: &Mutex<Vec<String>>) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    let mut head = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return,
            Ok(count) => head.extend(&chunk[..count]),
            Err(error) => {
                seen.lock().unwrap().push(format!("failed: {error}"));
                return;
            }
        }
        if head.ends_with(b"\r\n\r\n") {
            let name = stream.conn.server_name().unwrap_or("none").to_owned();
            let shown = stream.conn.peer_certificates().is_some();
            seen.lock().unwrap().push(format!("name {name}, client certificate {shown}"));
            head.clear();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntls";
            if stream.write_all(answer).and_then(|()| stream.flush()).is_err() {
                return;
            }
        }
    }
}
