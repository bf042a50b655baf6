//! Who is measured, and how it is started: a tunnel between two hosts, each end a process of its own.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ipnet::Ipv4Net;
use rand_core::OsRng;
use serde_json::Value;
use tsrs_base_types::NodePrivate;
use tsrs_lab_control::{KeySpec, LabConfig, LabControl};
use tsrs_lab_netns::{
    Agent, Host, Net, Process, Tailscaled, TailscaledOptions, Topology, UpArgs, WireguardPeer,
    WireguardProgram, tools, wait,
};

/// Time for anything that takes a few round trips and a timer or two.
const SOON: Duration = Duration::from_secs(30);
/// Addresses of the wire between the two ends of a plain tunnel.
const WIRE: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2)];
/// Addresses inside a plain tunnel.
const INSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 78, 0, 1), Ipv4Addr::new(10, 78, 0, 2)];
/// UDP port of both ends of a plain tunnel.
const PORT: u16 = 51820;
/// Interface of a plain tunnel.
const INTERFACE: &str = "wg0";
/// Keeps the datagrams of a host in, but for its questions to the resolver.
const BLOCK_UDP: &str = "table inet bench {
    chain out {
        type filter hook output priority -300
        oifname \"eth0\" udp dport != 53 drop
    }
}
";
/// The hosts of the topology.
const HOSTS: [&str; 2] = ["a", "b"];

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    /// Our engine with fixed peers: the program of the engine's example `static_peers`.
    Engine(PathBuf),
    /// Another WireGuard program, and its name with its version.
    Wireguard(PathBuf, String),
    /// Our agent, joined to the lab's control server.
    Agent,
    /// The official agent, and its version.
    Tailscaled(String),
}

impl Contender {
    /// For tables.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Engine(_) => "engine".to_owned(),
            Self::Wireguard(_, name) => name.clone(),
            Self::Agent => "tsrs-agent".to_owned(),
            Self::Tailscaled(version) => format!("tailscaled {version}"),
        }
    }

    /// Whether this is ours.
    pub(super) fn is_ours(&self) -> bool {
        match self {
            Self::Engine(_) | Self::Agent => true,
            Self::Wireguard(..) | Self::Tailscaled(_) => false,
        }
    }

    /// Whether this is an agent with control, filter and paths, and not a plain WireGuard tunnel.
    pub(super) fn is_agent(&self) -> bool {
        match self {
            Self::Agent | Self::Tailscaled(_) => true,
            Self::Engine(_) | Self::Wireguard(..) => false,
        }
    }
}

/// The version that a program prints: the first word with a digit and a dot in it.
pub(super) fn version_of(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = text.split_whitespace().map(|word| word.trim_start_matches('v'));
    let version = words.find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))?;
    // wireguard-go's is a date behind two zeros.
    Some(version.trim_start_matches("0.0.").to_owned())
}

/// A network with two hosts, and for agents the control server. What runs in it is a [`Tunnel`].
pub(super) struct Rig {
    // Fields are dropped in this order: the server lives in the network.
    control: Option<LabControl>,
    net: Net,
}

impl Rig {
    /// For this contender.
    pub(super) fn build(contender: &Contender) -> Result<Self> {
        let mut topology = Topology::public_pair();
        topology.name = "bench";
        let net = topology.build()?;
        if contender.is_agent() {
            let control = net.lab_control(LabConfig::default())?;
            return Ok(Self { control: Some(control), net });
        }
        let [a, b] = HOSTS.map(|name| net.host(name).space().namespace().to_owned());
        ip(&["-n", &a, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", &b])?;
        for (namespace, address) in [&a, &b].into_iter().zip(WIRE) {
            ip(&["-n", namespace, "address", "add", &format!("{address}/24"), "dev", "wire"])?;
            ip(&["-n", namespace, "link", "set", "wire", "up"])?;
        }
        Ok(Self { control: None, net })
    }

    /// Its hosts.
    pub(super) fn hosts(&self) -> [&Host; 2] {
        HOSTS.map(|name| self.net.host(name))
    }

    /// Starts the contender at both ends; returns when a packet has gone there and back.
    pub(super) fn start(&self, contender: &Contender, mtu: u16) -> Result<Tunnel<'_>> {
        match contender {
            Contender::Engine(program) => self.start_engine(program, mtu),
            Contender::Wireguard(program, _) => self.start_wireguard(program, mtu),
            Contender::Agent => self.start_agents(),
            Contender::Tailscaled(_) => self.start_tailscaleds(),
        }
    }

    fn start_engine(&self, program: &Path, mtu: u16) -> Result<Tunnel<'_>> {
        let keys = [(); 2].map(|()| NodePrivate::generate(&mut OsRng));
        let mut processes = Vec::new();
        for (index, host) in self.hosts().into_iter().enumerate() {
            let config = host.folder().join("engine.conf");
            std::fs::write(&config, engine_config(&keys, index, mtu))?;
            let mut command = host.command(program);
            command.arg(INTERFACE).arg(&config);
            let process = host.spawn("engine", command)?;
            let made = || host.run("ip", &["link", "show", INTERFACE]).is_ok().then_some(());
            wait::until("the engine makes its interface", SOON, made).with_context(|| process.log())?;
            host.run("ip", &["address", "add", &format!("{}/24", INSIDE[index]), "dev", INTERFACE])?;
            host.run("ip", &["link", "set", INTERFACE, "up"])?;
            processes.push(process);
        }
        self.ready(Ends::Engine(processes), INSIDE, None)
    }

    fn start_wireguard(&self, program: &Path, mtu: u16) -> Result<Tunnel<'_>> {
        let keys = [(); 2].map(|()| NodePrivate::generate(&mut OsRng));
        let mut running = Vec::new();
        for (index, host) in self.hosts().into_iter().enumerate() {
            let other = 1 - index;
            let peer = WireguardPeer {
                key: keys[other].public(),
                endpoint: Some(SocketAddrV4::new(WIRE[other], PORT)),
                allowed_ips: vec![Ipv4Net::from(INSIDE[other])],
                keepalive_secs: 0,
            };
            let address = Ipv4Net::new(INSIDE[index], 24)?;
            running.push(host.wireguard_program(program, mtu, &keys[index], PORT, address, &[peer])?);
        }
        self.ready(Ends::Wireguard(running), INSIDE, None)
    }

    fn start_agents(&self) -> Result<Tunnel<'_>> {
        let control = self.control.as_ref().context("no control server")?;
        let (url, key) = (control.url(), control.create_key(KeySpec::reusable()));
        let [a, b] = self.hosts();
        let idle = UpArgs::default().trusting(self.net.ca_file());
        let [a, b] = [a.agent(idle.clone())?, b.agent(idle)?];
        let up = |agent: &Agent<'_>| {
            let (server, key) = (format!("--login-server={url}"), format!("--auth-key={key}"));
            agent.cli(&["up", &server, &key]).map(drop).with_context(|| agent.process().log())
        };
        up(&a)?;
        let first = a.ipv4()?;
        let start = Instant::now();
        up(&b)?;
        b.host().wait_ping(first, SOON).with_context(|| b.process().log())?;
        let joined = start.elapsed();
        let addresses = [first, b.ipv4()?];
        self.ready(Ends::Agents(vec![a, b]), addresses, Some(joined))
    }

    fn start_tailscaleds(&self) -> Result<Tunnel<'_>> {
        let control = self.control.as_ref().context("no control server")?;
        let (url, key) = (control.url(), control.create_key(KeySpec::reusable()));
        let options = TailscaledOptions { ca_file: Some(self.net.ca_file()), ..TailscaledOptions::default() };
        let [host_a, host_b] = self.hosts();
        let [a, b] = [host_a.tailscaled(&options)?, host_b.tailscaled(&options)?];
        a.up(&url, &key, &[])?;
        let first = a.ipv4()?;
        let start = Instant::now();
        b.up(&url, &key, &[])?;
        host_b.wait_ping(first, SOON)?;
        let joined = start.elapsed();
        let addresses = [first, b.ipv4()?];
        self.ready(Ends::Tailscaleds(vec![a, b]), addresses, Some(joined))
    }

    fn ready<'a>(
        &'a self,
        ends: Ends<'a>,
        addresses: [Ipv4Addr; 2],
        joined: Option<Duration>,
    ) -> Result<Tunnel<'a>> {
        let tunnel = Tunnel { hosts: self.hosts(), ends, addresses, joined };
        tunnel.hosts[0].wait_ping(addresses[1], SOON).with_context(|| tunnel.logs())?;
        tunnel.hosts[1].wait_ping(addresses[0], SOON).with_context(|| tunnel.logs())?;
        tunnel.wait_direct(true)?;
        Ok(tunnel)
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("run ip")?;
    ensure!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn engine_config(keys: &[NodePrivate; 2], index: usize, mtu: u16) -> String {
    let base64 = |bytes: &[u8; 32]| data_encoding::BASE64.encode(bytes);
    let other = 1 - index;
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "[Interface]\nPrivateKey = {}\nListenPort = {PORT}\nMTU = {mtu}\n\n[Peer]\nPublicKey = {}\n\
         AllowedIPs = {}/32\nEndpoint = {}:{PORT}\n",
        base64(keys[index].expose_bytes()),
        base64(keys[other].public().as_bytes()),
        INSIDE[other],
        WIRE[other]
    );
    text
}

enum Ends<'a> {
    Engine(Vec<Process>),
    Wireguard(Vec<WireguardProgram>),
    Agents(Vec<Agent<'a>>),
    Tailscaleds(Vec<Tailscaled<'a>>),
}

/// A tunnel that carries packets.
pub(super) struct Tunnel<'a> {
    pub(super) hosts: [&'a Host; 2],
    ends: Ends<'a>,
    /// Inside the tunnel.
    pub(super) addresses: [Ipv4Addr; 2],
    /// From `up` at the second end to the first answer of the first; agents only.
    pub(super) joined: Option<Duration>,
}

impl Tunnel<'_> {
    fn processes(&self) -> Vec<&Process> {
        match &self.ends {
            Ends::Engine(processes) => processes.iter().collect(),
            Ends::Wireguard(running) => running.iter().map(WireguardProgram::process).collect(),
            Ends::Agents(agents) => agents.iter().map(Agent::process).collect(),
            Ends::Tailscaleds(running) => running.iter().map(Tailscaled::process).collect(),
        }
    }

    /// The processes of both ends.
    pub(super) fn pids(&self) -> Vec<i32> {
        self.processes().iter().map(|process| process.pid()).collect()
    }

    fn logs(&self) -> String {
        let end = |log: String| {
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(30)..].join("\n")
        };
        self.processes().iter().map(|process| end(process.log())).collect::<Vec<_>>().join("\n---\n")
    }

    fn statuses(&self) -> Result<Vec<Value>> {
        match &self.ends {
            Ends::Engine(_) | Ends::Wireguard(_) => Ok(Vec::new()),
            Ends::Agents(agents) => agents.iter().map(Agent::status).collect(),
            Ends::Tailscaleds(running) => running.iter().map(Tailscaled::status).collect(),
        }
    }

    /// Waits until both agents send directly, or both over the relay; a plain tunnel is always direct.
    pub(super) fn wait_direct(&self, direct: bool) -> Result<()> {
        let what = if direct { "a direct path" } else { "the path over the relay" };
        let reached = wait::until(what, SOON, || {
            // Only what is used is kept up.
            self.hosts[0].ping(self.addresses[1], 2, Duration::from_secs(1)).ok()?;
            let statuses = self.statuses().ok()?;
            let is_direct = |status: &Value| {
                let peers = status["Peer"].as_object();
                peers.is_some_and(|peers| {
                    peers.values().any(|peer| peer["CurAddr"].as_str().is_some_and(|addr| !addr.is_empty()))
                })
            };
            statuses.iter().all(|status| is_direct(status) == direct).then_some(())
        });
        reached.with_context(|| self.logs())
    }

    /// Blocks UDP between the ends, but for DNS, and waits until the relay carries everything.
    pub(super) fn force_relay(&self) -> Result<()> {
        for host in self.hosts {
            host.run("nft", &[BLOCK_UDP]).context("block UDP")?;
        }
        self.wait_direct(false)
    }
}

/// All contenders that this machine has; says loudly which are missing.
pub(super) fn found(engine: Option<PathBuf>, more_wireguard_go: &[PathBuf]) -> Vec<Contender> {
    let mut all = Vec::new();
    match engine {
        Some(program) => all.push(Contender::Engine(program)),
        None => tools::skip("bench tunnel", "the engine's example static_peers is not built"),
    }
    let on_path = |name: &'static str| {
        let program = tools::find(name);
        if program.is_none() {
            tools::skip("bench tunnel", &format!("{name} not found"));
        }
        program.map(|program| (name, program))
    };
    let more = more_wireguard_go.iter().map(|program| ("wireguard-go", program.clone()));
    let go = on_path("wireguard-go").into_iter().chain(more);
    for (name, program) in go.chain(["gotatun", "boringtun-cli"].into_iter().filter_map(on_path)) {
        match version_of(&program, "--version") {
            Some(version) => all.push(Contender::Wireguard(program, format!("{name} {version}"))),
            None => tools::skip("bench tunnel", &format!("{} does not run", program.display())),
        }
    }
    match tsrs_lab_netns::agent_binary() {
        Some(_) => all.push(Contender::Agent),
        None => tools::skip("bench tunnel", "tsrs-agent is not built"),
    }
    match tools::find("tailscaled").and_then(|program| version_of(&program, "--version")) {
        Some(version) => all.push(Contender::Tailscaled(version)),
        None => tools::skip("bench tunnel", "tailscaled not found"),
    }
    all
}
