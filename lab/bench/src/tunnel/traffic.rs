//! Load and probes between two hosts, in plain sockets on threads inside their namespaces.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, Socket, Type};
use tsrs_lab_netns::Host;

/// Bytes of one write and of one read at most, as in iperf3.
const BLOCK_BYTES: usize = 128 << 10;
/// How long a call may block, and so how late the end is noticed.
const BLOCKED_LIMIT: Duration = Duration::from_millis(500);
/// Time to open a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// What is sent at a fixed rate is sent in slices of this length.
const SLICE: Duration = Duration::from_millis(1);
/// Payload of a datagram.
const DATAGRAM_LEN: usize = 64;

/// Traffic that goes on until this value is dropped.
#[derive(Debug)]
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn new() -> Self {
        Self { stop: Arc::default(), received: Arc::default(), threads: Vec::new() }
    }

    /// Bytes of TCP, or datagrams, that have arrived so far.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    fn thread(
        &mut self,
        host: &Host,
        work: impl FnOnce(&AtomicBool, &AtomicU64) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let (stop, received) = (Arc::clone(&self.stop), Arc::clone(&self.received));
        self.threads.push(host.space().thread("bench-load", move || {
            if let Err(error) = work(&stop, &received)
                && !stop.load(Ordering::Relaxed)
            {
                crate::output::progress(&format!("load ends early: {error:#}"));
            }
        })?);
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It has said why, if it failed.
            let _ = thread.join();
        }
    }
}

/// TCP streams from one host to an address of another. With a rate it is the sum of all streams', in bits per second.
pub(super) fn tcp(
    from: &Host,
    to: &Host,
    address: Ipv4Addr,
    streams: usize,
    rate: Option<u64>,
) -> Result<Load> {
    let mut load = Load::new();
    let bound = SocketAddr::from((address, 0));
    let listener = to.space().run(move || TcpListener::bind(bound)).context("listen")?;
    let server = listener.local_addr()?;
    for _ in 0..streams {
        let client = from
            .space()
            .run(move || TcpStream::connect_timeout(&server, CONNECT_LIMIT))
            .context("connect")?;
        let (accepted, _) = listener.accept()?;
        load.thread(to, move |stop, received| sink(accepted, stop, received))?;
        let slice = rate.map(|rate| slice_len(rate, streams)).transpose()?;
        load.thread(from, move |stop, _| source(client, slice, stop))?;
    }
    Ok(load)
}

/// Bytes that each of so many streams sends in a slice of time.
fn slice_len(bits_per_second: u64, streams: usize) -> Result<usize> {
    const SLICES_PER_SECOND: u64 = 1000;
    Ok(usize::try_from(bits_per_second / 8 / SLICES_PER_SECOND)? / streams)
}

fn sink(mut stream: TcpStream, stop: &AtomicBool, received: &AtomicU64) -> Result<()> {
    stream.set_read_timeout(Some(BLOCKED_LIMIT))?;
    let mut block = vec![0; BLOCK_BYTES];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut block) {
            Ok(0) => break,
            Ok(count) => drop(received.fetch_add(u64::try_from(count)?, Ordering::Relaxed)),
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error).context("receive"),
        }
    }
    Ok(())
}

/// Sends as fast as it goes, or so many bytes in each slice of time.
fn source(mut stream: TcpStream, bytes_per_slice: Option<usize>, stop: &AtomicBool) -> Result<()> {
    stream.set_write_timeout(Some(BLOCKED_LIMIT))?;
    let block = vec![0; bytes_per_slice.unwrap_or(BLOCK_BYTES)];
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        match stream.write(&block) {
            Ok(_) => {}
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error).context("send"),
        }
        if bytes_per_slice.is_some() {
            due += SLICE;
            sleep_until(due);
        }
    }
    Ok(())
}

/// Datagrams of 64 bytes from one host to an address of another: so many a second, or as many as go.
pub(super) fn udp(from: &Host, to: &Host, address: Ipv4Addr, per_second: Option<u32>) -> Result<Load> {
    let mut load = Load::new();
    let bound = SocketAddr::from((address, 0));
    let receiver = to.space().run(move || UdpSocket::bind(bound)).context("bind")?;
    receiver.set_read_timeout(Some(BLOCKED_LIMIT))?;
    let server = receiver.local_addr()?;
    let sender = from.space().run(move || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(server)?;
        Ok::<_, std::io::Error>(socket)
    });
    let sender = sender.context("bind")?;
    load.thread(to, move |stop, received| {
        let mut datagram = [0; DATAGRAM_LEN];
        while !stop.load(Ordering::Relaxed) {
            if receiver.recv(&mut datagram).is_ok() {
                received.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    })?;
    load.thread(from, move |stop, _| {
        let datagram = [0x5a; DATAGRAM_LEN];
        let per_slice = per_second.map(|rate| rate / 1000);
        let mut due = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..per_slice.unwrap_or(1000) {
                // A full queue loses a datagram, as a link does.
                let _ = sender.send(&datagram);
            }
            if per_slice.is_some() {
                due += SLICE;
                sleep_until(due);
            }
        }
        Ok(())
    })?;
    Ok(load)
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut | std::io::ErrorKind::Interrupted
    )
}

fn sleep_until(due: Instant) {
    if let Some(left) = due.checked_duration_since(Instant::now()) {
        std::thread::sleep(left);
    }
}

/// Time from one echo request to the next, as `ping -i 0.002`.
const ECHO_INTERVAL: Duration = Duration::from_millis(2);
/// Time that the last echoes get.
const ECHO_LIMIT: Duration = Duration::from_secs(1);
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
/// Header and payload of an echo request.
const ECHO_LEN: usize = 8 + 56;

/// Round-trip times of ICMP echoes (RFC 792), in milliseconds. Runs for `time`; what is lost is left out.
pub(super) fn round_trips(from: &Host, to: Ipv4Addr, time: Duration) -> Result<Vec<f64>> {
    from.space().run(move || echo(to, time))
}

fn echo(to: Ipv4Addr, time: Duration) -> Result<Vec<f64>> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).context("raw ICMP socket")?;
    socket.connect(&SocketAddrV4::new(to, 0).into())?;
    let start = Instant::now();
    let (mut sent_at, mut times) = (Vec::new(), Vec::new());
    let mut next = start;
    while start.elapsed() < time + ECHO_LIMIT {
        let now = Instant::now();
        if now >= next && start.elapsed() < time {
            let number = u16::try_from(sent_at.len()).unwrap_or(u16::MAX);
            sent_at.push(Some(Instant::now()));
            // A full queue loses a request, as a link does.
            let _ = socket.send(&echo_request(number));
            next += ECHO_INTERVAL;
        }
        if start.elapsed() >= time && sent_at.iter().all(Option::is_none) {
            break;
        }
        let wait =
            next.saturating_duration_since(Instant::now()).clamp(Duration::from_micros(10), ECHO_INTERVAL);
        socket.set_read_timeout(Some(wait))?;
        let mut packet = [0; 256];
        let Ok(len) = (&socket).read(&mut packet) else { continue };
        if let Some(number) = echo_reply(&packet[..len])
            && let Some(sent) = sent_at.get_mut(usize::from(number)).and_then(Option::take)
        {
            times.push(sent.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(times)
}

/// The identifier of our echoes; there is one pinger in a namespace.
const ECHO_ID: [u8; 2] = *b"tb";

fn echo_request(number: u16) -> [u8; ECHO_LEN] {
    let mut message = [0x5a; ECHO_LEN];
    message[..4].copy_from_slice(&[ECHO_REQUEST, 0, 0, 0]);
    message[4..6].copy_from_slice(&ECHO_ID);
    message[6..8].copy_from_slice(&number.to_be_bytes());
    let sum = tsrs_tunnel_packet::checksum::Sum::new().bytes(&message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// The number of an echo of ours. A raw socket gives the IP header, too.
fn echo_reply(packet: &[u8]) -> Option<u16> {
    let header_len = usize::from(packet.first()? & 15) * 4;
    let &[kind, 0, _, _, id0, id1, n0, n1] = packet.get(header_len..)?.first_chunk::<8>()? else {
        return None;
    };
    (kind == ECHO_REPLY && [id0, id1] == ECHO_ID).then(|| u16::from_be_bytes([n0, n1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_replies_with_our_identifier_count() {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet.extend_from_slice(&[ECHO_REPLY, 0, 0, 0, b't', b'b', 1, 2]);
        assert_eq!(echo_reply(&packet), Some(0x0102));
        packet[24] = b'x';
        assert_eq!(echo_reply(&packet), None);
        for len in 0..packet.len() {
            assert_eq!(echo_reply(&packet[..len]), None);
        }
    }

    #[test]
    fn a_request_has_a_checksum_that_sums_to_nothing() {
        let sum = tsrs_tunnel_packet::checksum::Sum::new().bytes(&echo_request(7)).checksum();
        assert_eq!(sum, 0);
    }
}
