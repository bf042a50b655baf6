//! A host of a net: what a test does on it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tsrs_lab_control::{LabConfig, LabControl};

use crate::capture::Capture;
use crate::process::{self, Process, bare_command};
use crate::space::Space;
use crate::traffic::{self, PingReport, TransferReport};

/// A host of a net.
#[derive(Debug)]
pub struct Host {
    name: String,
    address: Ipv4Addr,
    space: Space,
    folder: PathBuf,
}

impl Host {
    pub(crate) fn new(name: &str, address: Ipv4Addr, space: Space, folder: PathBuf) -> Self {
        Self { name: name.to_owned(), address, space, folder }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address on its network.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its namespaces.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// Its folder: logs, and what it sees as `/run`, `/var/lib` and changes to `/etc`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a path below `/run` or `/var/lib` of the host lies for the test, for example a socket.
    pub fn outside(&self, inside: &str) -> PathBuf {
        if let Some(rest) = inside.strip_prefix("/run/") {
            return self.folder.join("run").join(rest);
        }
        if let Some(rest) = inside.strip_prefix("/var/lib/") {
            return self.folder.join("lib").join(rest);
        }
        PathBuf::from(inside)
    }

    /// A file as the host sees it.
    pub fn read(&self, path: &str) -> Result<String> {
        let path = path.to_owned();
        self.space.run(move || fs::read_to_string(&path).with_context(|| format!("read {path}")))
    }

    /// Its `/etc/resolv.conf`.
    pub fn resolv_conf(&self) -> Result<String> {
        self.read("/etc/resolv.conf")
    }

    /// Replaces a file of the host below `/etc`, `/run` or `/var/lib`.
    pub fn write(&self, path: &str, content: &str) -> Result<()> {
        if !["/etc/", "/run/", "/var/lib/"].iter().any(|own| path.starts_with(own)) {
            bail!("{path} is not the host's own");
        }
        let (path, content) = (path.to_owned(), content.to_owned());
        self.space.run(move || fs::write(&path, content).with_context(|| format!("write {path}")))
    }

    /// A command that can be run or started here; of the environment it has only `PATH` and `HOME`.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = bare_command(program);
        command.env("HOME", self.folder.join("lib"));
        command
    }

    /// Runs a command to its end.
    pub fn output(&self, command: Command) -> Result<Output> {
        process::output(&self.space, command)
    }

    /// Runs a program to its end; its standard output, or an error with all that it said.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(program);
        command.args(arguments);
        let output = self.output(command)?;
        if !output.status.success() {
            bail!(
                "{program} {} on {}: {}\n{}{}",
                arguments.join(" "),
                self.name,
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts a process; its output goes to `NAME.log` in the host's folder.
    pub fn spawn(&self, name: &str, command: Command) -> Result<Process> {
        fs::create_dir_all(&self.folder)?;
        Process::spawn(&self.space, &format!("{name} on {}", self.name), &self.log_path(name), command)
    }

    pub(crate) fn log_path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    /// Starts a lab control server here, in this process.
    pub fn lab_control(&self, config: LabConfig) -> Result<LabControl> {
        LabControl::start(LabConfig { on_thread_start: self.space.thread_hook()?, ..config })
    }

    /// Counts and writes what passes its interfaces.
    pub fn capture(&self, name: &str) -> Result<Capture> {
        Capture::start(&self.space, &self.folder.join(format!("{name}.pcap")))
    }

    /// ICMP echo, until `count` answers have come or `limit` has passed.
    pub fn ping(&self, address: Ipv4Addr, count: u16, limit: Duration) -> Result<PingReport> {
        self.space.run(move || traffic::ping(address, count, limit))
    }

    /// Waits until `address` answers an ICMP echo.
    pub fn wait_ping(&self, address: Ipv4Addr, limit: Duration) -> Result<PingReport> {
        let report = self.ping(address, 1, limit)?;
        if report.received == 0 {
            bail!("{}: no answer from {address} in {limit:?}", self.name);
        }
        Ok(report)
    }

    /// Listens on a TCP port and sinks and checks what comes; see [`Self::tcp_transfer`].
    pub fn tcp_server(&self, address: SocketAddr) -> Result<traffic::TcpServer> {
        traffic::TcpServer::start(&self.space, address)
    }

    /// Sends `bytes` bytes to a [`Self::tcp_server`], reads as many back, and compares checksums both ways.
    pub fn tcp_transfer(&self, server: SocketAddr, bytes: u64, limit: Duration) -> Result<TransferReport> {
        self.space.run(move || traffic::tcp_transfer(server, bytes, limit))
    }

    /// Whether a TCP connection can be opened within `limit`.
    pub fn tcp_connects(&self, server: SocketAddr, limit: Duration) -> bool {
        self.space.run(move || std::net::TcpStream::connect_timeout(&server, limit).is_ok())
    }

    /// Answers every UDP datagram with itself.
    pub fn udp_server(&self, address: SocketAddr) -> Result<traffic::UdpServer> {
        traffic::UdpServer::start(&self.space, address)
    }

    /// Sends datagrams to a [`Self::udp_server`] and counts the answers.
    pub fn udp_echo(&self, server: SocketAddr, count: u32, len: usize, limit: Duration) -> Result<u32> {
        self.space.run(move || traffic::udp_echo(server, count, len, limit))
    }

    /// Asks a DNS server for the addresses of a name.
    pub fn dns_query(&self, server: SocketAddr, name: &str, limit: Duration) -> Result<traffic::DnsAnswer> {
        let name = name.to_owned();
        self.space.run(move || traffic::dns_query(server, &name, limit))
    }

    /// Asks a DNS server over TCP.
    pub fn dns_query_tcp(
        &self,
        server: SocketAddr,
        name: &str,
        limit: Duration,
    ) -> Result<traffic::DnsAnswer> {
        let name = name.to_owned();
        self.space.run(move || traffic::dns_query_tcp(server, &name, limit))
    }

    /// Resolves a name as programs on the host do, by its own resolv.conf.
    pub fn resolve(&self, name: &str) -> Result<Vec<IpAddr>> {
        let text = self.run("getent", &["ahosts", name])?;
        let mut list: Vec<IpAddr> =
            text.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect();
        list.dedup();
        Ok(list)
    }
}
