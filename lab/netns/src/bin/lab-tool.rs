//! Traffic from inside a namespace, and house-keeping of labs, by hand or from scripts.
//!
//! `ip netns exec NAME lab-tool tcp-serve 100.64.0.2:7000`
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use tsrs_lab_netns::{Topology, remove_kept, sweep, traffic};

#[derive(Parser)]
#[command(about = "Traffic and house-keeping for the lab")]
struct Arguments {
    /// Seconds that an action may take.
    #[arg(long, default_value_t = 30, global = true)]
    limit: u64,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Serves TCP transfers until it is ended.
    TcpServe {
        /// Where to listen.
        address: SocketAddr,
    },
    /// Transfers bytes both ways and compares checksums.
    TcpTransfer {
        /// The server.
        server: SocketAddr,
        /// Bytes each way.
        #[arg(default_value_t = 100 << 20)]
        bytes: u64,
    },
    /// Sends UDP datagrams back until it is ended.
    UdpServe {
        /// Where to listen.
        address: SocketAddr,
    },
    /// Sends UDP datagrams and counts the answers.
    UdpEcho {
        /// The server.
        server: SocketAddr,
        /// How many.
        #[arg(default_value_t = 100)]
        count: u32,
        /// Bytes of each.
        #[arg(default_value_t = 1200)]
        len: usize,
    },
    /// ICMP echo.
    Ping {
        /// Whom.
        address: Ipv4Addr,
        /// Answers to wait for.
        #[arg(default_value_t = 3)]
        count: u16,
    },
    /// Asks a DNS server for the addresses of a name.
    Dns {
        /// The server.
        server: SocketAddr,
        /// The name.
        name: String,
    },
    /// Removes what killed labs left.
    Sweep,
    /// Removes the lab that a process left up on purpose.
    Remove {
        /// Number of that process.
        process: i32,
    },
    /// Builds a small net, says where it is, and holds it until it is ended.
    #[command(hide = true)]
    Hold,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let limit = Duration::from_secs(arguments.limit);
    match arguments.action {
        Action::TcpServe { address } => {
            let listener = TcpListener::bind(address)?;
            traffic::serve_tcp(&listener, &Arc::new(AtomicBool::new(false)), &Arc::new(AtomicU64::new(0)))
        }
        Action::TcpTransfer { server, bytes } => {
            let report = traffic::tcp_transfer(server, bytes, limit)?;
            say(&format!(
                "{bytes} bytes each way; up {:.1} Mbit/s, SHA-256 {}; down {:.1} Mbit/s, SHA-256 {}",
                report.up_bits_per_sec() / 1e6,
                report.up_sha256,
                report.down_bits_per_sec() / 1e6,
                report.down_sha256
            ));
            Ok(())
        }
        Action::UdpServe { address } => {
            traffic::serve_udp(&UdpSocket::bind(address)?, &AtomicBool::new(false))
        }
        Action::UdpEcho { server, count, len } => {
            let answered = traffic::udp_echo(server, count, len, limit)?;
            say(&format!("{answered} of {count} came back"));
            if answered == 0 { bail!("no answer") } else { Ok(()) }
        }
        Action::Ping { address, count } => {
            let report = traffic::ping(address, count, limit)?;
            say(&format!("{} of {} answered, best {:?}", report.received, report.sent, report.best()));
            if report.received == 0 { bail!("no answer") } else { Ok(()) }
        }
        Action::Dns { server, name } => {
            let answer = traffic::dns_query(server, &name, limit)?;
            say(&format!("code {}, addresses {:?}", answer.code, answer.addresses));
            Ok(())
        }
        Action::Sweep => sweep(),
        Action::Remove { process } => remove_kept(process),
        Action::Hold => hold(),
    }
}

fn hold() -> Result<()> {
    let net = Topology::public_pair().build()?;
    let host = net.host("a");
    let mut sleeper = host.command("sleep");
    sleeper.arg("600");
    let process = host.spawn("sleep", sleeper)?;
    say(&format!("{} {}", host.space().namespace(), process.pid()));
    process.wait_for_log("never written", Duration::from_secs(600)).context("held long enough")
}

#[expect(clippy::print_stdout, reason = "the tool's output")]
fn say(line: &str) {
    println!("{line}");
}
