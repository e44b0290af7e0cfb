//! WebSockets over TLS on one side or both, with a library's client and server at the ends: what passes the gate is what was sent.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::{WebSocketStream, accept_async_with_config, client_async_with_config};

use crate::support::gateway::Gateway;
use crate::support::pki::Authority;
use crate::support::{ALICE, KEYS};

fn large() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(Some(20 << 20)).max_frame_size(Some(20 << 20))
}

/// Returns messages; on the text `close` it closes with 4002.
async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: S) {
    let mut socket = accept_async_with_config(stream, Some(large())).await.expect("a handshake");
    while let Some(Ok(message)) = socket.next().await {
        if message == Message::text("close") {
            let _ = socket.close(Some(close(4002, "enough"))).await;
        } else if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}

fn close(code: u16, reason: &str) -> CloseFrame {
    CloseFrame { code: CloseCode::from(code), reason: reason.to_owned().into() }
}

/// What every connection must stand, with the client's end of the last word first and then the server's.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>, client_closes: bool) {
    let bytes: Vec<u8> = (0..16_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for message in [Message::text("héllo"), Message::binary(vec![0, 255]), Message::text(""), Message::binary(bytes)] {
        socket.send(message.clone()).await.expect("sent");
        assert!(socket.next().await.expect("an echo").expect("whole") == message, "{} bytes", message.len());
    }
    let parts = [(OpCode::Data(Data::Text), "in ", false), (OpCode::Data(Data::Continue), "three ", false)];
    for (code, part, last) in parts.into_iter().chain([(OpCode::Data(Data::Continue), "parts", true)]) {
        let mut frame = Frame::message(part.as_bytes().to_vec(), code, last);
        frame.header_mut().mask = Some([1, 2, 3, 4]);
        socket.send(Message::Frame(frame)).await.expect("sent");
    }
    assert_eq!(socket.next().await.expect("an echo").expect("whole"), Message::text("in three parts"));
    socket.send(Message::Ping(b"there?".to_vec().into())).await.expect("sent");
    assert_eq!(socket.next().await.expect("an answer").expect("whole"), Message::Pong(b"there?".to_vec().into()));
    let said = if client_closes {
        socket.close(Some(close(4001, "bye"))).await.expect("sent");
        close(4001, "bye")
    } else {
        socket.send(Message::text("close")).await.expect("sent");
        close(4002, "enough")
    };
    assert_eq!(socket.next().await.expect("a close").expect("whole"), Message::Close(Some(said)));
    assert!(socket.next().await.is_none_or(|end| end.is_err()), "nothing follows a close");
}

#[test]
fn messages_pings_and_closes_pass_tls_on_both_sides_as_they_are() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().expect("a folder");
    authority.issue_to(folder.path(), "gate", &["gate.test"]);
    std::fs::write(folder.path().join("ca.pem"), &authority.pem).expect("written");
    let (cert, key) = authority.issue(&["worker.lan"]);
    let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).expect("PEM")];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let server = builder.expect("versions").with_no_client_auth().with_single_cert(chain, key).expect("a pair");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (plain, secure) = (listener().await, listener().await);
        let config = format!(
            "listen: [{{ address: \"127.0.0.1:0\", tls: {{ certificates: [{{ cert: gate.pem, key: gate.key }}] }} }}]
admin: {{ address: \"127.0.0.1:0\" }}
upstreams:
  plain: {{ servers: [\"{}\"] }}
  secure: {{ servers: [\"{}\"], tls: {{ server_name: worker.lan, ca: ca.pem }} }}
routes:
  - {{ path: /secure/, upstream: secure }}
  - {{ path: /, upstream: plain }}
log: {{ level: info, format: json, access: stdout }}
",
            plain.local_addr().expect("bound"),
            secure.local_addr().expect("bound")
        );
        tokio::spawn(async move {
            while let Ok((stream, _)) = plain.accept().await {
                tokio::spawn(echo(stream));
            }
        });
        let acceptor = TlsAcceptor::from(Arc::new(server));
        tokio::spawn(async move {
            while let Ok((stream, _)) = secure.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move { echo(acceptor.accept(stream).await.expect("shakes hands")).await });
            }
        });
        let gate = Gateway::start_in(folder, &config, KEYS, &[]);
        for path in ["/", "/secure/"] {
            for client_closes in [true, false] {
                let stream = TcpStream::connect(gate.address(0)).await.expect("connects");
                let name = ServerName::try_from("gate.test").expect("a name");
                let stream = TlsConnector::from(authority.http1()).connect(name, stream).await.expect("shakes hands");
                let mut request = format!("wss://gate.test{path}").into_client_request().expect("a request");
                request.headers_mut().insert("X-Api-Key", ALICE.parse().expect("a value"));
                let (socket, _) = client_async_with_config(request, stream, Some(large())).await.expect("a handshake");
                let talking = tokio::time::timeout(Duration::from_secs(30), talk(socket, client_closes));
                talking.await.expect("in time");
            }
        }
        crate::support::eventually("a line for each", || {
            (gate.access().iter().filter(|line| line["status"] == 101 && line["closed"] == "closed").count() == 4)
                .then_some(())
        });
    });
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("binds")
}
