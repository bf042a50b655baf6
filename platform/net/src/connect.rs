//! TCP connections that bypass the tunnel.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tsrs_platform_api::SocketBinder;

use crate::error::NetError;

/// Pause before the next address is tried beside those that have not answered (RFC 8305 §5).
const NEXT_ADDRESS_DELAY: Duration = Duration::from_millis(250);
/// Addresses tried of one host. More come from a broken or hostile server, and each costs a socket.
const MAX_ADDRESSES: usize = 8;

/// Marks a socket that will talk to `peer`. Loopback needs no mark and on macOS bears none.
pub(crate) fn mark(binder: &dyn SocketBinder, socket: BorrowedFd<'_>, peer: SocketAddrV4) -> io::Result<()> {
    if peer.ip().is_loopback() {
        return Ok(());
    }
    binder.mark_bypass(socket)
}

/// Connects to the first address that answers: one after the other, without waiting for a silent one to give up.
pub(crate) async fn connect_tcp(
    binder: &Arc<dyn SocketBinder>,
    target: &str,
    addresses: &[SocketAddrV4],
    limit: Duration,
) -> Result<TcpStream, NetError> {
    let raced = timeout(limit, race(binder, addresses)).await;
    match raced {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(Failure::Mark(error))) => Err(NetError::Mark(error)),
        Ok(Err(Failure::Connect(error))) => Err(NetError::Connect { target: target.to_owned(), error }),
        Err(_) => Err(NetError::Timeout { what: format!("connecting to {target}"), after: limit }),
    }
}

enum Failure {
    Mark(io::Error),
    Connect(io::Error),
}

async fn race(binder: &Arc<dyn SocketBinder>, addresses: &[SocketAddrV4]) -> Result<TcpStream, Failure> {
    let mut waiting = addresses.iter().take(MAX_ADDRESSES).copied();
    let mut attempts = JoinSet::new();
    let mut last = Failure::Connect(io::Error::new(io::ErrorKind::AddrNotAvailable, "no address"));
    let mut next = waiting.next();
    loop {
        if let Some(address) = next.take() {
            attempts.spawn(attempt(Arc::clone(binder), address));
        }
        let more = waiting.len() > 0;
        tokio::select! {
            done = attempts.join_next() => match done {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(failure))) => {
                    last = failure;
                    next = waiting.next();
                }
                Some(Err(join)) => last = Failure::Connect(io::Error::other(join)),
                None => return Err(last),
            },
            () = sleep(NEXT_ADDRESS_DELAY), if more => next = waiting.next(),
        }
    }
}

async fn attempt(binder: Arc<dyn SocketBinder>, address: SocketAddrV4) -> Result<TcpStream, Failure> {
    let socket = TcpSocket::new_v4().map_err(Failure::Connect)?;
    mark(&*binder, socket.as_fd(), address).map_err(Failure::Mark)?;
    let stream = socket.connect(address.into()).await.map_err(Failure::Connect)?;
    // Small frames (handshakes, pings, HTTP/2 windows) must not wait for each other.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Instant;

    use tokio::net::TcpListener;
    use tsrs_platform_api::fake::FakeBinder;

    use super::*;
    use crate::test_support::{RefusingBinder, v4};

    const LIMIT: Duration = Duration::from_secs(5);

    fn binder() -> Arc<dyn SocketBinder> {
        Arc::new(FakeBinder::default())
    }

    #[tokio::test]
    async fn a_refusing_address_hands_over_at_once() {
        let closed = v4(TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap());
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open_address = v4(open.local_addr().unwrap());
        let stream = connect_tcp(&binder(), "lab", &[closed, open_address], LIMIT).await.unwrap();
        assert_eq!(v4(stream.peer_addr().unwrap()), open_address);

        let error = connect_tcp(&binder(), "lab:443", &[closed], LIMIT).await.unwrap_err();
        assert!(matches!(error, NetError::Connect { .. }), "{error}");
        assert!(error.to_string().contains("lab:443"), "{error}");
    }

    #[tokio::test]
    async fn no_address_is_an_error_and_not_a_wait() {
        let started = Instant::now();
        assert!(connect_tcp(&binder(), "lab", &[], LIMIT).await.is_err());
        assert!(started.elapsed() < LIMIT);
    }

    #[tokio::test]
    async fn a_refused_mark_fails_the_connection_before_any_packet() {
        let binder: Arc<dyn SocketBinder> = Arc::new(RefusingBinder);
        let address = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 443);
        let error = connect_tcp(&binder, "lab", &[address], LIMIT).await.unwrap_err();
        assert!(matches!(error, NetError::Mark(_)), "{error}");
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    }

    #[test]
    fn loopback_is_not_marked_and_everything_else_is() {
        let fake = FakeBinder::default();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        mark(&fake, socket.as_fd(), SocketAddrV4::new(Ipv4Addr::LOCALHOST, 53)).unwrap();
        assert_eq!(fake.marked(), 0);
        mark(&fake, socket.as_fd(), SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 53)).unwrap();
        assert_eq!(fake.marked(), 1);
    }
}
