//! The sockets of exit traffic: the one module of this crate that makes any.
//!
//! Each is IPv4, and carries the exit mark before it is given a peer. What it is connected to is a proxy, or the relay of one.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::AsFd as _;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tsrs_platform_api::ExitBinder;

/// Why there is no socket.
pub(super) enum SocketError {
    /// The exit mark was refused. Nothing may be dialled then.
    Mark(io::Error),
    /// The proxy does not take the connection, or there are no descriptors.
    Io(io::Error),
}

/// Connects to a proxy.
pub(super) async fn connect_tcp(
    binder: &dyn ExitBinder,
    proxy: SocketAddrV4,
) -> Result<TcpStream, SocketError> {
    let socket = TcpSocket::new_v4().map_err(SocketError::Io)?;
    binder.mark_exit(socket.as_fd()).map_err(SocketError::Mark)?;
    let stream = socket.connect(proxy.into()).await.map_err(SocketError::Io)?;
    // Handshakes are small messages in turn.
    stream.set_nodelay(true).map_err(SocketError::Io)?;
    Ok(stream)
}

/// A socket for the relay of a proxy: it sends to nobody else and takes datagrams of nobody else.
pub(super) struct RelaySocket(UdpSocket);

impl RelaySocket {
    pub(super) async fn send(&self, datagram: &[u8]) -> io::Result<()> {
        self.0.send(datagram).await.map(drop)
    }

    pub(super) async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buffer).await
    }
}

/// Opens a socket for a relay.
pub(super) fn connect_udp(binder: &dyn ExitBinder, relay: SocketAddrV4) -> Result<RelaySocket, SocketError> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).map_err(SocketError::Io)?;
    socket.set_nonblocking(true).map_err(SocketError::Io)?;
    binder.mark_exit(socket.as_fd()).map_err(SocketError::Mark)?;
    socket.connect(&relay.into()).map_err(SocketError::Io)?;
    UdpSocket::from_std(socket.into()).map(RelaySocket).map_err(SocketError::Io)
}
