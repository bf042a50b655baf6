//! UDP echo.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{IDLE, Pattern};
use crate::space::Space;

/// Longest datagram.
const MAX_DATAGRAM_LEN: usize = 65_507;
/// Bytes that number a datagram.
const NUMBER_LEN: usize = 4;
/// Datagrams that are under way at once, so that no socket buffer overflows.
const WINDOW: u32 = 32;
/// Time without an answer after which the next datagrams are sent.
const ANSWER_LIMIT: Duration = Duration::from_millis(300);

/// An echo server in a host; ends with this value.
#[derive(Debug)]
pub struct UdpServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl UdpServer {
    pub(crate) fn start(space: &Space, address: SocketAddr) -> Result<Self> {
        let socket =
            space.run(move || UdpSocket::bind(address)).with_context(|| format!("bind {address}"))?;
        let address = socket.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = space.thread("lab-udp", {
            let stop = Arc::clone(&stop);
            move || {
                if let Err(error) = serve_udp(&socket, &stop) {
                    tracing::warn!(%error, "lab UDP server ended");
                }
            }
        })?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for UdpServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends every datagram back until `stop`.
pub fn serve_udp(socket: &UdpSocket, stop: &AtomicBool) -> Result<()> {
    socket.set_read_timeout(Some(IDLE))?;
    let mut datagram = vec![0; MAX_DATAGRAM_LEN];
    while !stop.load(Ordering::Relaxed) {
        // An error is a time-out, or belongs to an answer that could not be delivered.
        let Ok((len, from)) = socket.recv_from(&mut datagram) else { continue };
        let _ = socket.send_to(&datagram[..len], from);
    }
    Ok(())
}

/// Sends `count` numbered datagrams of `len` bytes; how many came back unharmed.
pub fn udp_echo(server: SocketAddr, count: u32, len: usize, limit: Duration) -> Result<u32> {
    if !(NUMBER_LEN..=MAX_DATAGRAM_LEN).contains(&len) {
        bail!("datagrams have {NUMBER_LEN} to {MAX_DATAGRAM_LEN} bytes");
    }
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(ANSWER_LIMIT))?;
    let end = Instant::now() + limit;
    let mut answered = 0;
    let mut next = 0;
    let mut under_way = 0;
    let mut received = vec![0; MAX_DATAGRAM_LEN];
    let mut seen = vec![false; usize::try_from(count)?];
    while (next < count || under_way > 0) && Instant::now() < end {
        while next < count && under_way < WINDOW {
            // Refused or unreachable counts as lost.
            let _ = socket.send(&datagram(next, len));
            next += 1;
            under_way += 1;
        }
        match socket.recv(&mut received) {
            Ok(len_back) => {
                under_way = under_way.saturating_sub(1);
                let number = received.first_chunk().map_or(u32::MAX, |raw| u32::from_be_bytes(*raw));
                let entry = seen.get_mut(usize::try_from(number)?);
                if let Some(entry) = entry.filter(|entry| !**entry)
                    && received[..len_back] == datagram(number, len)
                {
                    *entry = true;
                    answered += 1;
                }
            }
            Err(_) => under_way = 0,
        }
    }
    Ok(answered)
}

fn datagram(number: u32, len: usize) -> Vec<u8> {
    let mut datagram = vec![0; len];
    let (head, body) = datagram.split_at_mut(NUMBER_LEN);
    head.copy_from_slice(&number.to_be_bytes());
    Pattern::new(u64::from(number) << 8).fill(body);
    datagram
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_datagram_comes_back_over_loopback_and_none_from_nowhere() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let server = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || serve_udp(&socket, &stop)
        });
        assert_eq!(udp_echo(address, 100, 64, Duration::from_secs(10)).unwrap(), 100);
        assert_eq!(udp_echo(address, 5, 9000, Duration::from_secs(10)).unwrap(), 5);
        stop.store(true, Ordering::Relaxed);
        server.join().unwrap().unwrap();
        assert_eq!(udp_echo(address, 5, 64, Duration::from_secs(2)).unwrap(), 0);
        assert!(udp_echo(address, 5, 3, Duration::from_secs(2)).is_err());
    }
}
