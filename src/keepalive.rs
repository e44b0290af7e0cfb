//! TCP keep-alive, the same towards clients and upstreams: a peer that lost its power or its network, or that a NAT box forgot,
//! never says so, and an idle tunnel would wait for it as long as it may idle.

use std::io;
use std::time::Duration;

use socket2::{Socket, TcpKeepalive};

/// How long a peer may be silent before the kernel asks whether it is still there: below the time after which common NAT boxes
/// and firewalls forget a silent connection.
const PROBE_AFTER: Duration = Duration::from_secs(60);
/// How often it asks then.
const PROBE_EVERY: Duration = Duration::from_secs(15);
/// How often without an answer, before it gives up.
const PROBES: u32 = 4;
/// How long a peer may leave bytes unacknowledged, or its window shut, before the kernel gives it up (RFC 5482): keep-alive
/// is silent while bytes are under way, and retransmission alone goes on for a quarter of an hour.
const UNACKNOWLEDGED: Duration = Duration::from_secs(120);

/// Sets both on a socket. Connections inherit them from the listening socket that accepts them.
pub fn set(socket: &Socket) -> io::Result<()> {
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY).with_retries(PROBES);
    socket.set_tcp_keepalive(&probes)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}

/// Lets a peer with a longer write timeout keep its window shut for as long as that.
pub fn allow(socket: &Socket, write_timeout: Duration) -> io::Result<()> {
    if write_timeout <= UNACKNOWLEDGED {
        return Ok(());
    }
    socket.set_tcp_user_timeout(Some(write_timeout))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_lost_peer_is_given_up_within_two_minutes_or_the_write_timeout() {
        let listener = Socket::from(TcpListener::bind("127.0.0.1:0").expect("binds"));
        set(&listener).expect("set");
        let address = listener.local_addr().expect("bound").as_socket().expect("TCP");
        let _client = TcpStream::connect(address).expect("connects");
        let (accepted, _) = listener.accept().expect("accepts");
        assert!(accepted.keepalive().expect("told"));
        assert_eq!(accepted.tcp_keepalive_time().expect("told"), PROBE_AFTER);
        assert_eq!(accepted.tcp_keepalive_interval().expect("told"), PROBE_EVERY);
        assert_eq!(accepted.tcp_keepalive_retries().expect("told"), PROBES);
        for (write_timeout, want) in [(30, 120), (120, 120), (600, 600)] {
            allow(&accepted, Duration::from_secs(write_timeout)).expect("set");
            assert_eq!(accepted.tcp_user_timeout().expect("told"), Some(Duration::from_secs(want)), "{write_timeout}");
        }
    }
}
