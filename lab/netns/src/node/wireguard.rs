//! Userspace WireGuard programs that share no code with ours, as peers of the engine: wireguard-go, gotatun, boringtun.
//!
//! All of them make an interface, stay in the foreground with `-f`, and take their settings over the same socket.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::SocketAddrV4;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ipnet::Ipv4Net;
use tsrs_base_types::{NodePrivate, NodePublic};

use crate::host::Host;
use crate::process::Process;
use crate::{tools, wait};

/// Time that the program gets to open its socket.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Name of its interface.
const INTERFACE: &str = "wg0";
/// Where it takes its settings, by the cross-platform configuration protocol of WireGuard.
const SOCKET: &str = "/run/wireguard/wg0.sock";

/// What every path carries (RFC 8200 §5).
const DEFAULT_MTU: u16 = 1280;

/// A peer of a [`WireguardProgram`].
#[derive(Clone, Debug)]
pub struct WireguardPeer {
    /// Its key.
    pub key: NodePublic,
    /// Where it is, if this side shall begin.
    pub endpoint: Option<SocketAddrV4>,
    /// What is routed to it.
    pub allowed_ips: Vec<Ipv4Net>,
    /// Seconds between keep-alives; 0 is none.
    pub keepalive_secs: u16,
}

/// A running program with its interface up; it ends with this value.
#[derive(Debug)]
pub struct WireguardProgram {
    socket: PathBuf,
    process: Process,
}

impl Host {
    /// Starts the `wireguard-go` found on `PATH`, with an address on its interface and routes to its peers.
    pub fn wireguard_go(
        &self,
        key: &NodePrivate,
        port: u16,
        address: Ipv4Net,
        peers: &[WireguardPeer],
    ) -> Result<WireguardProgram> {
        let program = tools::find("wireguard-go").context("wireguard-go not found")?;
        self.wireguard_program(&program, DEFAULT_MTU, key, port, address, peers)
    }

    /// The same with another program and another MTU.
    pub fn wireguard_program(
        &self,
        program: &Path,
        mtu: u16,
        key: &NodePrivate,
        port: u16,
        address: Ipv4Net,
        peers: &[WireguardPeer],
    ) -> Result<WireguardProgram> {
        std::fs::create_dir_all(self.outside("/run/wireguard/"))?;
        let mut command = self.command(program);
        command.arg("-f");
        let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if ["gotatun", "boringtun-cli"].contains(&name) {
            // They would become another user, which has no rights in the namespace.
            command.args(["-v", "error", "--disable-drop-privileges"]).env("WG_SUDO", "1");
        } else {
            command.env("LOG_LEVEL", "verbose");
        }
        command.arg(INTERFACE);
        let process = self.spawn("wireguard", command)?;
        let socket = self.outside(SOCKET);
        let running = WireguardProgram { socket, process };
        wait::until_ok("the program takes settings", START_LIMIT, || running.get())
            .with_context(|| running.process.log())?;
        running.set(&settings(key, port, peers))?;
        self.run("ip", &["address", "add", &address.to_string(), "dev", INTERFACE])?;
        self.run("ip", &["link", "set", INTERFACE, "mtu", &mtu.to_string(), "up"])?;
        for prefix in peers.iter().flat_map(|peer| &peer.allowed_ips) {
            self.run("ip", &["route", "replace", &prefix.to_string(), "dev", INTERFACE])?;
        }
        Ok(running)
    }
}

impl WireguardProgram {
    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its settings and counters, as `key=value` lines.
    pub fn get(&self) -> Result<String> {
        self.ask("get=1\n\n")
    }

    /// Changes settings, given as `key=value` lines.
    pub fn set(&self, settings: &str) -> Result<()> {
        self.ask(&format!("set=1\n{settings}\n")).map(drop)
    }

    /// A number of its one peer, for example `rx_bytes` or `last_handshake_time_sec`.
    pub fn number(&self, name: &str) -> Result<u64> {
        let answer = self.get()?;
        let value = answer.lines().filter_map(|line| line.split_once('=')).find(|(key, _)| *key == name);
        value.with_context(|| format!("no {name} in:\n{answer}"))?.1.parse().context("number")
    }

    fn ask(&self, question: &str) -> Result<String> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(START_LIMIT))?;
        stream.write_all(question.as_bytes())?;
        let mut answer = String::new();
        let mut block = [0; 4096];
        // The answer ends with an empty line; the connection stays open.
        while !answer.ends_with("\n\n") {
            let count = stream.read(&mut block)?;
            if count == 0 {
                bail!("answer broke off");
            }
            answer.push_str(&String::from_utf8_lossy(&block[..count]));
        }
        if !answer.contains("errno=0\n") {
            bail!("the program refuses: {}", answer.trim());
        }
        Ok(answer)
    }
}

fn settings(key: &NodePrivate, port: u16, peers: &[WireguardPeer]) -> String {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let mut lines =
        format!("private_key={}\nlisten_port={port}\nreplace_peers=true\n", hex(key.expose_bytes()));
    for peer in peers {
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "public_key={}", hex(peer.key.as_bytes()));
        if let Some(endpoint) = peer.endpoint {
            let _ = writeln!(lines, "endpoint={endpoint}");
        }
        let _ = writeln!(lines, "persistent_keepalive_interval={}", peer.keepalive_secs);
        for prefix in &peer.allowed_ips {
            let _ = writeln!(lines, "allowed_ip={prefix}");
        }
    }
    lines
}
