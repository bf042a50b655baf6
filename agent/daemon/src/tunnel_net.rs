//! Connections of the agent itself into the tunnel: bound to its interface, so that they go there or nowhere.
//!
//! They carry no bypass mark. The caller says where to, and has made sure that the address belongs to the tailnet.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tsrs_tunnel_packet::checksum::Sum;

/// Opens a TCP connection through the tunnel interface.
pub(crate) async fn connect(tun: &str, address: SocketAddrV4, limit: Duration) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    setsockopt(&socket, sockopt::BindToDevice, &OsString::from(tun))?;
    let connecting = socket.connect(address.into());
    tokio::time::timeout(limit, connecting).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Asks a peer's PeerAPI for its first page; gives the round trip.
pub(crate) async fn peer_api_round_trip(
    tun: &str,
    address: SocketAddrV4,
    limit: Duration,
) -> io::Result<Duration> {
    let start = Instant::now();
    let ask = async {
        let mut stream = connect(tun, address, limit).await?;
        stream.write_all(b"HEAD / HTTP/1.1\r\nHost: peer\r\nConnection: close\r\n\r\n").await?;
        let mut head = [0; 5];
        stream.read_exact(&mut head).await?;
        match &head == b"HTTP/" {
            true => Ok(start.elapsed()),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP")),
        }
    };
    tokio::time::timeout(limit, ask).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Length of an ICMP echo message without data (RFC 792, page 14).
const ECHO_LEN: usize = 8;
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;

/// Sends an ICMP echo request through the tunnel interface; gives the round trip. Blocks.
pub(crate) fn icmp_round_trip(tun: &str, to: Ipv4Addr, id: u16, limit: Duration) -> io::Result<Duration> {
    let socket = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp)?;
    setsockopt(&socket, sockopt::BindToDevice, &OsString::from(tun))?;
    let start = Instant::now();
    let request = echo_request(id);
    sendto(socket.as_raw_fd(), &request, &SockaddrIn::from(SocketAddrV4::new(to, 0)), MsgFlags::empty())?;
    loop {
        let left = limit.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if is_reply(&receive(&socket, left)?, to, id) {
            return Ok(start.elapsed());
        }
    }
}

fn receive(socket: &OwnedFd, limit: Duration) -> io::Result<Vec<u8>> {
    // Zero would mean "for ever".
    let micros = i64::try_from(limit.as_micros().max(1)).unwrap_or(i64::MAX);
    let timeout = TimeVal::new(micros / 1_000_000, micros % 1_000_000);
    setsockopt(socket, sockopt::ReceiveTimeout, &timeout)?;
    let mut packet = vec![0; 2048];
    let len = recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty())?;
    packet.truncate(len);
    Ok(packet)
}

fn echo_request(id: u16) -> [u8; ECHO_LEN] {
    let mut message = [0; ECHO_LEN];
    message[0] = ECHO_REQUEST;
    message[4..6].copy_from_slice(&id.to_be_bytes());
    message[6..8].copy_from_slice(&1_u16.to_be_bytes());
    let sum = Sum::new().bytes(&message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// Whether a packet from the raw socket, IP header included, is the answer to our request.
fn is_reply(packet: &[u8], from: Ipv4Addr, id: u16) -> bool {
    let Some((header, _)) = packet.split_first_chunk::<20>() else { return false };
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let Some(message) = packet.get(header_len..) else { return false };
    header[12..16] == from.octets()
        && message.first() == Some(&ECHO_REPLY)
        && message.get(4..6) == Some(&id.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_recognised_and_garbage_is_not() {
        let from = Ipv4Addr::new(100, 64, 0, 2);
        let request = echo_request(7);
        assert!(Sum::new().bytes(&request).verifies());
        let mut packet = vec![0x45; 1];
        packet.resize(20, 0);
        packet[12..16].copy_from_slice(&from.octets());
        packet.extend(request);
        assert!(!is_reply(&packet, from, 7), "a request is no reply");
        packet[20] = ECHO_REPLY;
        assert!(is_reply(&packet, from, 7));
        assert!(!is_reply(&packet, from, 8));
        assert!(!is_reply(&packet, Ipv4Addr::new(100, 64, 0, 3), 7));
        for len in 0..26 {
            assert!(!is_reply(&packet[..len], from, 7), "{len}");
        }
        packet[0] = 0x4f;
        assert!(!is_reply(&packet, from, 7), "a header that is longer than the packet");
    }
}
