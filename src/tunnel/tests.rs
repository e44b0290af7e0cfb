//! A tunnel whose sides do what sockets seldom do.

use tokio::io::{AsyncWriteExt, ReadBuf, duplex};

use super::*;

/// A side that takes bytes into a buffer of its own, as TLS does, and gets none of them out.
struct Clogged;

impl AsyncRead for Clogged {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Clogged {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

struct Never;

impl Revocation for Never {
    fn poll_ended(&mut self, _: &mut Context<'_>) -> Poll<EndReason> {
        Poll::Pending
    }

    fn stay_awake(&mut self) {}
}

#[tokio::test(start_paused = true)]
async fn a_side_that_keeps_even_a_little_unread_is_stalled_and_not_idle() {
    let (idle, write) = (Duration::from_secs(3600), Duration::from_secs(30));
    let (near, mut far) = duplex(1024);
    far.write_all(&[0x81, 2, b'h', b'i']).await.unwrap();
    let began = tokio::time::Instant::now();
    let client = End { io: Clogged, read: Buffer::default() };
    let mut tunnel = Tunnel::new(client, End { io: near, read: Buffer::default() }, TunnelTiming { idle, write });
    let end = tunnel.run(&mut Never, &mut Watchdog::default(), [0; 4]).await;
    assert_eq!((end, began.elapsed()), (TunnelEnd::Stalled, write));
}

/// A side that always has something to say and takes whatever is said, and fails the test when it has talked for too long.
struct Talkative(u32);

impl AsyncRead for Talkative {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, read: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0 += 1;
        assert!(self.0 < 1_000, "nobody else has a turn");
        read.put_slice(&[0x82, 0]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Talkative {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A tunnel whose client never paused gave its service no say.
#[test]
fn a_side_that_never_pauses_leaves_the_other_its_turn() {
    let end = || End { io: Talkative(0), read: Buffer::default() };
    let timing = TunnelTiming { idle: Duration::from_secs(60), write: Duration::from_secs(60) };
    let mut tunnel = Tunnel::new(end(), end(), timing);
    let mut watchdog = Watchdog::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    for polls in 1..=5 {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(tunnel.poll_relay(&mut Never, &mut watchdog, &mut cx).is_pending());
        let (up, down) = tunnel.bytes();
        assert!(up == down && up >= polls, "{up} and {down} after {polls}");
    }
}
