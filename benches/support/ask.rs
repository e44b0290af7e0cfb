//! A strict little client: asks on one connection several times and tells what each answer was.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

/// The statuses and bodies of so many answers to `request` on one connection to `port`; over TLS if the server's own
/// certificate is given.
pub fn ask(port: u16, certificate: Option<&str>, request: &[u8], times: usize) -> Vec<(u16, Vec<u8>)> {
    let tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    match certificate {
        None => exchange(tcp, request, times),
        Some(pem) => exchange(StreamOwned::new(tls(pem), tcp), request, times),
    }
}

fn tls(pem: &str) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
}

fn exchange(mut stream: impl Read + Write, request: &[u8], times: usize) -> Vec<(u16, Vec<u8>)> {
    let mut bytes = Vec::new();
    (0..times)
        .map(|_| {
            stream.write_all(request).unwrap();
            stream.flush().unwrap();
            let (head, length) = loop {
                if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
                    let head = String::from_utf8(bytes.drain(..end + 4).collect()).unwrap().to_lowercase();
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map(str::to_owned);
                    break (head, length.unwrap_or_else(|| "0".into()).parse::<usize>().unwrap());
                }
                more(&mut stream, &mut bytes);
            };
            while bytes.len() < length {
                more(&mut stream, &mut bytes);
            }
            (head[9..12].parse().unwrap(), bytes.drain(..length).collect())
        })
        .collect()
}

fn more(stream: &mut impl Read, bytes: &mut Vec<u8>) {
    let mut room = vec![0; 64 * 1024];
    let count = stream.read(&mut room).unwrap();
    assert!(count > 0, "closed within an answer");
    bytes.extend_from_slice(&room[..count]);
}
