//! Captures by a packet socket: counters by kind, and a pcap file for later.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, socket};

use crate::space::Space;

/// Bytes of a frame that are kept; enough for all headers.
const SNAP_LEN: usize = 256;
/// Longest frame: a super-packet with its Ethernet header.
const MAX_FRAME_LEN: usize = 65_536 + ETHERNET_LEN;
/// Frames that are written at most, so that a forgotten capture cannot fill the disk (128 MiB).
const MAX_WRITTEN_FRAMES: u64 = 500_000;
/// How often the capture looks whether it shall end, in milliseconds.
const IDLE_MS: u16 = 50;
/// Ethernet header.
const ETHERNET_LEN: usize = 14;

/// What a frame was, as far as captures tell frames apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Ethernet type: 0x0800 for IPv4, 0x86dd for IPv6.
    pub ether_type: u16,
    /// Source, for IPv4.
    pub source: Ipv4Addr,
    /// Destination, for IPv4.
    pub destination: Ipv4Addr,
    /// Protocol, for IPv4.
    pub protocol: u8,
    /// Destination port, for TCP and UDP over IPv4.
    pub port: u16,
    /// Maximum segment size, where a TCP segment over IPv4 names one.
    pub segment: Option<u16>,
    /// Number of the interface.
    pub interface: usize,
}

/// A capture at work on all interfaces of a namespace; ends with this value.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Seen>>>,
    thread: Option<JoinHandle<()>>,
    file: PathBuf,
}

impl Capture {
    pub(crate) fn start(space: &Space, file: &Path) -> Result<Self> {
        // Bound to no interface, the socket hears all of them.
        let open =
            || socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_NONBLOCK, SockProtocol::EthAll);
        let socket = space.run(open).context("packet socket")?;
        let mut writer = BufWriter::new(File::create(file)?);
        writer.write_all(&file_header())?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let thread = std::thread::Builder::new().name("lab-capture".to_owned()).spawn({
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            move || capture(&socket, writer, &stop, &seen)
        })?;
        Ok(Self { stop, seen, thread: Some(thread), file: file.to_owned() })
    }

    /// Ends the capture and gives what it saw; the file then is complete.
    pub fn finish(mut self) -> Vec<Seen> {
        self.end();
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many frames so far are such.
    pub fn count(&self, such: impl Fn(&Seen) -> bool) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|seen| such(seen)).count()
    }

    /// The pcap file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.end();
    }
}

fn capture(socket: &OwnedFd, mut writer: BufWriter<File>, stop: &AtomicBool, seen: &Mutex<Vec<Seen>>) {
    let mut frame = vec![0; MAX_FRAME_LEN];
    let mut written = 0;
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        let wait = if stopping { PollTimeout::ZERO } else { PollTimeout::from(IDLE_MS) };
        // Interrupted is as good as timed out.
        let _ = poll(&mut fds, wait);
        let mut any = false;
        while let Ok((len, from)) = recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut frame) {
            any = true;
            let interface = from.map_or(0, |from| from.ifindex());
            let bare = from.filter(|from| from.hatype() == nix::libc::ARPHRD_NONE);
            let with_header = bare.map(|from| under_ethernet(from.protocol(), &frame[..len]));
            let len = with_header.as_ref().map_or(len, Vec::len);
            let whole = with_header.as_deref().unwrap_or(&frame[..len]);
            let kept = &whole[..len.min(SNAP_LEN)];
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(describe(kept, interface));
            if written < MAX_WRITTEN_FRAMES {
                written += 1;
                // A full disk ends the file, not the capture.
                let _ =
                    writer.write_all(&record_header(kept.len(), len)).and_then(|()| writer.write_all(kept));
            }
        }
        if stopping && !any {
            break;
        }
    }
    let _ = writer.flush();
}

/// A packet of an interface without a link layer, such as a TUN, with the header that all others in the file have. The
/// protocol is in network byte order, as the kernel gives it.
fn under_ethernet(protocol: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; ETHERNET_LEN - 2];
    frame.extend_from_slice(&protocol.to_ne_bytes());
    frame.extend_from_slice(packet);
    frame
}

fn describe(frame: &[u8], interface: usize) -> Seen {
    let byte = |index: usize| frame.get(index).copied().unwrap_or(0);
    let pair = |index: usize| u16::from_be_bytes([byte(index), byte(index + 1)]);
    let ip = ETHERNET_LEN;
    let address =
        |index: usize| Ipv4Addr::new(byte(index), byte(index + 1), byte(index + 2), byte(index + 3));
    let ether_type = pair(12);
    if ether_type != 0x0800 {
        let nowhere = Ipv4Addr::UNSPECIFIED;
        return Seen {
            ether_type,
            source: nowhere,
            destination: nowhere,
            protocol: 0,
            port: 0,
            segment: None,
            interface,
        };
    }
    let header_len = usize::from(byte(ip) & 15) * 4;
    let protocol = byte(ip + 9);
    let port = if matches!(protocol, 6 | 17) { pair(ip + header_len + 2) } else { 0 };
    let tcp = frame.get(ip + header_len..).filter(|_| protocol == 6);
    Seen {
        ether_type,
        source: address(ip + 12),
        destination: address(ip + 16),
        protocol,
        port,
        segment: tcp.and_then(segment_size),
        interface,
    }
}

/// The option "maximum segment size" of a TCP header (RFC 9293 §3.2).
fn segment_size(tcp: &[u8]) -> Option<u16> {
    let header_len = usize::from(tcp.get(12)? >> 4) * 4;
    let mut options = tcp.get(20..header_len)?;
    loop {
        match *options.first()? {
            0 => return None,
            1 => options = &options[1..],
            2 => return Some(u16::from_be_bytes(*options.get(2..)?.first_chunk()?)),
            _ => options = options.get(usize::from(*options.get(1)?).max(2)..)?,
        }
    }
}

/// Header of a pcap file: magic for microseconds, version 2.4, link type Ethernet.
fn file_header() -> [u8; 24] {
    let mut header = [0; 24];
    header[..4].copy_from_slice(&0xa1b2_c3d4_u32.to_le_bytes());
    header[4..6].copy_from_slice(&2u16.to_le_bytes());
    header[6..8].copy_from_slice(&4u16.to_le_bytes());
    header[16..20].copy_from_slice(&262_144_u32.to_le_bytes());
    header[20..].copy_from_slice(&1u32.to_le_bytes());
    header
}

fn record_header(kept_len: usize, whole_len: usize) -> [u8; 16] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let word = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    let mut header = [0; 16];
    header[..4].copy_from_slice(&u32::try_from(now.as_secs()).unwrap_or(u32::MAX).to_le_bytes());
    header[4..8].copy_from_slice(&now.subsec_micros().to_le_bytes());
    header[8..12].copy_from_slice(&word(kept_len));
    header[12..].copy_from_slice(&word(whole_len));
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_udp_frame_is_described_and_every_cut_of_it_is_harmless() {
        let mut frame = vec![0; 12];
        frame.extend_from_slice(&[0x08, 0x00]);
        frame.extend_from_slice(&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend_from_slice(&[0, 7, 0xa2, 0xb9, 0, 8, 0, 0]);
        let seen = describe(&frame, 3);
        assert_eq!((seen.protocol, seen.port, seen.interface), (17, 41657, 3));
        assert_eq!(seen.destination, Ipv4Addr::new(10, 0, 0, 2));
        for len in 0..frame.len() {
            describe(&frame[..len], 0);
        }
    }

    #[test]
    fn the_segment_size_of_a_tcp_packet_from_a_tun_is_found_and_every_cut_is_harmless() {
        let mut packet = vec![0x45, 0, 0, 48, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend_from_slice(&[0, 7, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0x70, 2, 0, 0, 0, 0, 0, 0]);
        packet.extend_from_slice(&[1, 3, 3, 7, 2, 4, 0x04, 0xd8]);
        let frame = under_ethernet(0x0800_u16.to_be(), &packet);
        let seen = describe(&frame, 1);
        assert_eq!((seen.ether_type, seen.port, seen.segment), (0x0800, 9, Some(1240)));
        for len in 0..frame.len() {
            assert_eq!(describe(&frame[..len], 1).segment, None);
        }
    }
}
