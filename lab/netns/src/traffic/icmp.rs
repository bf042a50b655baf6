//! ICMP echo over a raw socket (RFC 792).

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, Socket, Type};

/// Time from one request to the next.
const INTERVAL: Duration = Duration::from_millis(100);
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
/// Longest packet that is read; answers are as long as requests.
const MAX_PACKET_LEN: usize = 1500;
/// Bytes of a request: header and payload.
const MESSAGE_LEN: usize = 8 + 56;

/// What a ping brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PingReport {
    /// Requests sent.
    pub sent: u16,
    /// Different requests that were answered.
    pub received: u16,
    /// Round-trip times in the order of arrival.
    pub times: Vec<Duration>,
}

impl PingReport {
    /// The shortest round-trip time.
    pub fn best(&self) -> Option<Duration> {
        self.times.iter().min().copied()
    }
}

/// Sends echo requests until `count` were answered or `limit` has passed.
pub fn ping(address: Ipv4Addr, count: u16, limit: Duration) -> Result<PingReport> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).context("raw ICMP socket")?;
    let id = u16::try_from(std::process::id() & 0xffff)?
        ^ u16::from_be_bytes([address.octets()[2], address.octets()[3]]);
    let target = SocketAddrV4::new(address, 0).into();
    let start = Instant::now();
    let mut report = PingReport::default();
    let mut sent_at: Vec<Option<Instant>> = Vec::new();
    while report.received < count && start.elapsed() < limit && report.sent < u16::MAX {
        // Noted first: the answer may be here before the call returns.
        sent_at.push(Some(Instant::now()));
        // No route yet counts as lost.
        let _ = socket.send_to(&request(id, report.sent), &target);
        report.sent += 1;
        let next = Instant::now() + INTERVAL;
        while let Some(left) = next.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            socket.set_read_timeout(Some(left))?;
            let mut packet = [0; MAX_PACKET_LEN];
            let Ok(len) = (&socket).read(&mut packet) else { break };
            let Some(sequence) = reply(&packet[..len], id, address) else { continue };
            if let Some(sent) = sent_at.get_mut(usize::from(sequence)).and_then(Option::take) {
                report.received += 1;
                report.times.push(sent.elapsed());
                if report.received == count {
                    break;
                }
            }
        }
    }
    Ok(report)
}

fn request(id: u16, sequence: u16) -> [u8; MESSAGE_LEN] {
    let mut message = [0x5a; MESSAGE_LEN];
    message[..4].copy_from_slice(&[ECHO_REQUEST, 0, 0, 0]);
    message[4..6].copy_from_slice(&id.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// The sequence number of an answer to our request; a raw socket gives the IP header too.
fn reply(packet: &[u8], id: u16, from: Ipv4Addr) -> Option<u16> {
    let header_len = usize::from(packet.first()? & 15) * 4;
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let message = packet.get(header_len..)?;
    let &[kind, 0, _, _, i0, i1, s0, s1] = message.first_chunk::<8>()? else { return None };
    (kind == ECHO_REPLY && u16::from_be_bytes([i0, i1]) == id && Ipv4Addr::from(source) == from)
        .then(|| u16::from_be_bytes([s0, s1]))
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_a_checksum_that_sums_to_nothing() {
        assert_eq!(checksum(&request(7, 9)), 0);
    }

    #[test]
    fn only_our_own_answers_count() {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet[12..16].copy_from_slice(&[10, 0, 0, 1]);
        packet.extend_from_slice(&[ECHO_REPLY, 0, 0, 0, 0, 7, 0, 9]);
        let from = Ipv4Addr::new(10, 0, 0, 1);
        assert_eq!(reply(&packet, 7, from), Some(9));
        assert_eq!(reply(&packet, 8, from), None);
        assert_eq!(reply(&packet, 7, Ipv4Addr::LOCALHOST), None);
        for len in 0..packet.len() {
            assert_eq!(reply(&packet[..len], 7, from), None);
        }
    }
}
