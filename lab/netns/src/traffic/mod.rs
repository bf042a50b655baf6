//! Traffic for tests, in plain sockets: it runs on whatever thread or process is inside the host's namespace.

mod dns;
mod icmp;
mod tcp;
mod udp;

pub use dns::{DnsAnswer, DnsServer, dns_query, dns_query_tcp};
pub use icmp::{PingReport, ping};
pub use tcp::{TcpServer, TransferReport, serve_tcp, tcp_transfer};
pub use udp::{UdpServer, serve_udp, udp_echo};

use std::time::Duration;

/// How often a server looks whether it shall end.
const IDLE: Duration = Duration::from_millis(50);

/// A byte stream that is the same for everybody and differs in every block: what transfers send and expect.
#[derive(Debug)]
struct Pattern {
    state: u64,
}

impl Pattern {
    fn new(seed: u64) -> Self {
        Self { state: seed | 1 }
    }

    /// Xorshift64: cheap, and no stretch of it repeats within a transfer.
    fn fill(&mut self, block: &mut [u8]) {
        for chunk in block.chunks_mut(8) {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            chunk.copy_from_slice(&self.state.to_le_bytes()[..chunk.len()]);
        }
    }
}
