//! TCP in bulk, both ways, with checksums.
//!
//! ```text
//! client → server   length u64 BE, then so many bytes, then SHA-256 of them
//! server → client   the same length of other bytes, then SHA-256 of them, then SHA-256 of what it received
//! ```

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ring::digest::{Context as Hash, SHA256};

use super::{IDLE, Pattern};
use crate::space::Space;

/// Bytes of one write or read.
const BLOCK_BYTES: usize = 64 * 1024;
/// Bytes of a SHA-256.
const HASH_LEN: usize = 32;
/// Most bytes that a server takes in one transfer.
const MAX_TRANSFER_BYTES: u64 = 1 << 40;
/// Time without a byte after which a transfer counts as stuck.
const STALL_LIMIT: Duration = Duration::from_secs(30);
/// What the client's bytes begin with.
const UP_SEED: u64 = 0x1357_9bdf;
/// What the server's bytes begin with.
const DOWN_SEED: u64 = 0x2468_ace1;

/// What a transfer brought.
#[derive(Clone, Debug, PartialEq)]
pub struct TransferReport {
    /// Bytes each way.
    pub bytes: u64,
    /// Time from the first byte to the server's confirmation.
    pub up: Duration,
    /// Time of the way back.
    pub down: Duration,
    /// SHA-256 of what went up, as both ends computed it.
    pub up_sha256: String,
    /// SHA-256 of what came down, as both ends computed it.
    pub down_sha256: String,
}

impl TransferReport {
    /// Rate up in bits a second.
    pub fn up_bits_per_sec(&self) -> f64 {
        rate(self.bytes, self.up)
    }

    /// Rate down in bits a second.
    pub fn down_bits_per_sec(&self) -> f64 {
        rate(self.bytes, self.down)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 * 8.0 / time.as_secs_f64().max(1e-9)
}

/// A server in a host; ends with this value.
#[derive(Debug)]
pub struct TcpServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    transfers: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl TcpServer {
    pub(crate) fn start(space: &Space, address: SocketAddr) -> Result<Self> {
        let listener =
            space.run(move || TcpListener::bind(address)).with_context(|| format!("listen on {address}"))?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let transfers = Arc::new(AtomicU64::new(0));
        let thread = space.thread("lab-tcp", {
            let (stop, transfers) = (Arc::clone(&stop), Arc::clone(&transfers));
            move || {
                if let Err(error) = serve_tcp(&listener, &stop, &transfers) {
                    tracing::warn!(%error, "lab TCP server ended");
                }
            }
        })?;
        Ok(Self { address, stop, transfers, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Transfers that came to their end.
    pub fn transfers(&self) -> u64 {
        self.transfers.load(Ordering::Relaxed)
    }
}

impl Drop for TcpServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Serves transfers until `stop`.
pub fn serve_tcp(listener: &TcpListener, stop: &Arc<AtomicBool>, transfers: &Arc<AtomicU64>) -> Result<()> {
    listener.set_nonblocking(true)?;
    while !stop.load(Ordering::Relaxed) {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(IDLE);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let (stop, transfers) = (Arc::clone(stop), Arc::clone(transfers));
        // Inherits the namespace. Ends at the end of the transfer, a stall, or soon after `stop`.
        std::thread::spawn(move || match serve_one(stream, &stop) {
            Ok(()) => drop(transfers.fetch_add(1, Ordering::Relaxed)),
            Err(error) => tracing::debug!(%error, "transfer ended early"),
        });
    }
    Ok(())
}

fn serve_one(mut stream: TcpStream, stop: &AtomicBool) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(STALL_LIMIT))?;
    stream.set_write_timeout(Some(STALL_LIMIT))?;
    let mut length = [0; 8];
    stream.read_exact(&mut length)?;
    let bytes = u64::from_be_bytes(length);
    if bytes > MAX_TRANSFER_BYTES {
        bail!("transfer of {bytes} bytes is refused");
    }
    let received = receive(&mut stream, bytes, stop)?;
    stream.write_all(&received)?;
    let sent = send(&mut stream, bytes, Pattern::new(DOWN_SEED), stop)?;
    stream.write_all(&sent)?;
    Ok(())
}

/// Sends `bytes` bytes to a server, takes as many back, and compares the checksums.
pub fn tcp_transfer(server: SocketAddr, bytes: u64, limit: Duration) -> Result<TransferReport> {
    let never = AtomicBool::new(false);
    let mut stream =
        TcpStream::connect_timeout(&server, limit).with_context(|| format!("connect to {server}"))?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let start = Instant::now();
    stream.write_all(&bytes.to_be_bytes())?;
    let up_hash = send(&mut stream, bytes, Pattern::new(UP_SEED), &never)?;
    let mut confirmed = [0; HASH_LEN];
    stream.read_exact(&mut confirmed).context("no confirmation")?;
    let up = start.elapsed();
    if confirmed != up_hash {
        bail!("checksums of what was sent differ");
    }
    let start = Instant::now();
    let down_hash = receive(&mut stream, bytes, &never)?;
    stream.read_exact(&mut confirmed).context("no checksum")?;
    let down = start.elapsed();
    if confirmed != down_hash {
        bail!("checksums of what came back differ");
    }
    let hex = |hash: &[u8]| data_encoding::HEXLOWER.encode(hash);
    Ok(TransferReport { bytes, up, down, up_sha256: hex(&up_hash), down_sha256: hex(&down_hash) })
}

fn send(
    stream: &mut TcpStream,
    bytes: u64,
    mut pattern: Pattern,
    stop: &AtomicBool,
) -> Result<[u8; HASH_LEN]> {
    let mut hash = Hash::new(&SHA256);
    let mut block = vec![0; BLOCK_BYTES];
    let mut left = bytes;
    while left > 0 {
        check(stop)?;
        let part = part(&mut block, left);
        pattern.fill(part);
        hash.update(part);
        stream.write_all(part).context("send")?;
        left -= u64::try_from(part.len())?;
    }
    finish(hash)
}

fn receive(stream: &mut TcpStream, bytes: u64, stop: &AtomicBool) -> Result<[u8; HASH_LEN]> {
    let mut hash = Hash::new(&SHA256);
    let mut block = vec![0; BLOCK_BYTES];
    let mut left = bytes;
    while left > 0 {
        check(stop)?;
        let count = stream.read(part(&mut block, left)).context("receive")?;
        if count == 0 {
            bail!("closed with {left} bytes to come");
        }
        hash.update(&block[..count]);
        left -= u64::try_from(count)?;
    }
    finish(hash)
}

fn part(block: &mut [u8], left: u64) -> &mut [u8] {
    let len = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
    &mut block[..len]
}

fn check(stop: &AtomicBool) -> Result<()> {
    if stop.load(Ordering::Relaxed) {
        bail!("server ends");
    }
    Ok(())
}

fn finish(hash: Hash) -> Result<[u8; HASH_LEN]> {
    Ok(hash.finish().as_ref().try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_over_loopback_gives_equal_checksums() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let transfers = Arc::new(AtomicU64::new(0));
        let server = std::thread::spawn({
            let (stop, transfers) = (Arc::clone(&stop), Arc::clone(&transfers));
            move || serve_tcp(&listener, &stop, &transfers)
        });
        for bytes in [0, 1, 65_536, 300_001] {
            let report = tcp_transfer(address, bytes, Duration::from_secs(10)).unwrap();
            assert_eq!(report.bytes, bytes);
            assert_eq!(report.up_sha256 == report.down_sha256, bytes == 0);
        }
        stop.store(true, Ordering::Relaxed);
        server.join().unwrap().unwrap();
    }
}
