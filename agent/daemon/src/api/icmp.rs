//! Echo requests of the host's own network stack (RFC 792): they go by its routes into the tunnel, like those of `ping`.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use rand_core::{OsRng, RngCore};
use tsrs_tunnel_packet::checksum::checksum;

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const HEADER_LEN: usize = 8;
/// What tells our answers from others.
const NONCE_LEN: usize = 8;

/// Largest packet that is looked at.
const MAX_PACKET_LEN: usize = 1500;

/// Sends one echo request and waits for its answer.
pub(super) async fn echo(to: Ipv4Addr) -> io::Result<()> {
    let socket = open()?;
    socket.connect(SocketAddrV4::new(to, 0))?;
    socket.set_nonblocking(true)?;
    let socket = tokio::net::UdpSocket::from_std(socket)?;
    let mut nonce = [0; NONCE_LEN];
    OsRng.fill_bytes(&mut nonce);
    socket.send(&request(&nonce)).await?;
    let mut packet = [0; MAX_PACKET_LEN];
    loop {
        let len = socket.recv(&mut packet).await?;
        if is_answer(&packet[..len], &nonce) {
            return Ok(());
        }
    }
}

/// A ping socket, or a raw one where the host allows no ping sockets. Either has the interface of a UDP socket.
fn open() -> io::Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let icmp = |kind| socket(AddressFamily::Inet, kind, flags, SockProtocol::Icmp);
    let opened = match icmp(SockType::Datagram) {
        Err(Errno::EACCES | Errno::EPERM | Errno::EPROTONOSUPPORT) => icmp(SockType::Raw),
        opened => opened,
    };
    Ok(opened?.into())
}

/// `type | code | checksum | identifier | sequence | nonce`. The kernel puts its own identifier into those of ping sockets.
fn request(nonce: &[u8; NONCE_LEN]) -> [u8; HEADER_LEN + NONCE_LEN] {
    let mut packet = [0; HEADER_LEN + NONCE_LEN];
    packet[0] = ECHO_REQUEST;
    packet[4..6].copy_from_slice(&nonce[..2]);
    packet[7] = 1;
    packet[HEADER_LEN..].copy_from_slice(nonce);
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Whether this is the answer to our request. Raw sockets put the IP header before it.
fn is_answer(packet: &[u8], nonce: &[u8; NONCE_LEN]) -> bool {
    let icmp = match packet.first() {
        Some(first) if first >> 4 == 4 => packet.get(usize::from(first & 0xf) * 4..),
        Some(_) => Some(packet),
        None => None,
    };
    icmp.is_some_and(|icmp| {
        icmp.first() == Some(&ECHO_REPLY) && icmp.get(HEADER_LEN..).is_some_and(|data| data.starts_with(nonce))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: [u8; NONCE_LEN] = *b"nonce-18";

    #[test]
    fn a_request_has_a_good_checksum() {
        let packet = request(&NONCE);
        assert_eq!(packet[0], ECHO_REQUEST);
        assert_eq!(checksum(&packet), 0);
    }

    #[test]
    fn answers_are_known_with_and_without_an_ip_header() {
        let mut answer = request(&NONCE);
        assert!(!is_answer(&answer, &NONCE), "a request is no answer");
        answer[0] = ECHO_REPLY;
        assert!(is_answer(&answer, &NONCE));
        let raw = [&[0x45; 20][..], &answer].concat();
        assert!(is_answer(&raw, &NONCE));
        assert!(!is_answer(&raw, b"another1"));
        for len in 0..answer.len() {
            assert!(!is_answer(&answer[..len], &NONCE), "{len}");
        }
        for len in 0..raw.len() {
            assert!(!is_answer(&raw[..len], &NONCE), "{len}");
        }
    }

    #[tokio::test]
    async fn the_host_answers_itself() {
        tokio::time::timeout(std::time::Duration::from_secs(5), echo(Ipv4Addr::LOCALHOST)).await.unwrap().unwrap();
    }
}
