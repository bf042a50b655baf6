//! A topology made real.
//!
//! Every network is a bridge in some namespace: the internet's in the servers', a router's in its own. A port is a
//! veth pair between the bridge's namespace and that of the host or router that stands on it; nothing is ever made in
//! the machine's own namespace.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail};
use ipnet::Ipv4Net;
use tsrs_base_types::RegionId;
use tsrs_lab_control::{DerpTrust, LabConfig, LabControl, RegionConfig};

use crate::command::{ip_batch, run_with_input};
use crate::host::Host;
use crate::nat::{LAN, Nat, WAN};
use crate::registry;
use crate::relay::{Impairment, Relay};
use crate::space::{HostView, Space};
use crate::topology::{Attach, Topology};

/// Bridge of the internet, in the servers' namespace.
const INTERNET: &str = "inet";
/// Hardware address of every bridge. Without one of its own a bridge takes that of a port, and changes it under its
/// neighbours when ports come and go.
const BRIDGE_MAC: &str = "02:6c:61:62:00:01";
/// Interface of a host.
const ETH: &str = "eth0";
/// Port of control and DERP.
const HTTPS_PORT: u16 = 443;
/// Port of control without TLS.
const HTTP_PORT: u16 = 80;
/// Port of STUN.
const STUN_PORT: u16 = 3478;
/// Number of the first DERP region: those from 900 on are for users.
const FIRST_REGION: i64 = 900;
/// Longest name of an interface, less the terminator.
const MAX_INTERFACE_NAME_LEN: usize = 15;

/// Networks, routers and hosts that exist, and are removed with this value.
#[derive(Debug)]
pub struct Net {
    // Fields are dropped in this order: what runs inside goes before the namespaces.
    relays: std::sync::Mutex<BTreeMap<String, Relay>>,
    hosts: BTreeMap<&'static str, Host>,
    routers: BTreeMap<&'static str, Router>,
    servers: Host,
    topology: Topology,
    folder: Folder,
}

/// A router of a built net.
#[derive(Debug)]
pub struct Router {
    space: Space,
    lan: Ipv4Net,
}

#[derive(Debug)]
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        if !registry::is_kept() {
            registry::remove_folder(&self.0);
        }
    }
}

impl Net {
    /// Builds the topology. Needs root.
    pub(crate) fn build(topology: &Topology) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("network namespaces need root");
        }
        registry::prepare()?;
        let folder = tempfile::Builder::new().prefix("tsrs-lab-").tempdir()?.keep();
        registry::note_folder(&folder);
        let builder = Builder { topology, prefix: prefix(topology.name), folder: Folder(folder) };
        builder.build()
    }

    /// A host by its name. The names stand in the topology; any other is a mistake in the test.
    pub fn host(&self, name: &str) -> &Host {
        self.hosts.get(name).unwrap_or_else(|| panic!("no host {name} in topology {}", self.topology.name))
    }

    /// All hosts.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values()
    }

    /// A router by its name.
    pub fn router(&self, name: &str) -> &Router {
        self.routers
            .get(name)
            .unwrap_or_else(|| panic!("no router {name} in topology {}", self.topology.name))
    }

    /// The host on the internet that control, DERP, STUN and DNS servers run on.
    pub fn servers(&self) -> &Host {
        &self.servers
    }

    /// The servers' addresses.
    pub fn server_addresses(&self) -> &[Ipv4Addr] {
        &self.topology.servers
    }

    /// Starts a lab control server on the servers' host, in this process: control on the first address, ports 443 and
    /// 80, and a DERP region with STUN on each address, numbered from 900. Its CA is written to [`Self::ca_file`].
    pub fn lab_control(&self, config: LabConfig) -> Result<LabControl> {
        let control = self.servers.lab_control(self.server_config(config)?)?;
        control.write_ca(&self.ca_file())?;
        Ok(control)
    }

    /// The same settings with the addresses and ports of this net.
    pub fn server_config(&self, config: LabConfig) -> Result<LabConfig> {
        let address = IpAddr::V4(*self.topology.servers.first().context("a topology needs a server")?);
        let region = |(id, address): (i64, &Ipv4Addr)| RegionConfig {
            id: RegionId(id),
            code: format!("lab{id}"),
            address: IpAddr::V4(*address),
            derp_port: HTTPS_PORT,
            stun_port: Some(STUN_PORT),
            trust: DerpTrust::Roots,
        };
        let regions = (FIRST_REGION..).zip(&self.topology.servers).map(region).collect();
        Ok(LabConfig { address, https_port: HTTPS_PORT, http_port: Some(HTTP_PORT), regions, ..config })
    }

    /// File that the CA of [`Self::lab_control`] is written to.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.0.join("ca.pem")
    }

    /// The folder of this net: logs, captures, state.
    pub fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// Puts a relay that delays and loses frames in front of a host or router, or changes the one that is there.
    pub fn impair(&self, name: &str, impairment: Impairment) -> Result<()> {
        let mut relays = self.relays.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(relay) = relays.get(name) {
            relay.set(impairment);
            return Ok(());
        }
        let attach = (self.topology.hosts.iter().find(|spec| spec.name == name).map(|spec| &spec.attach))
            .or_else(|| self.topology.routers.iter().find(|spec| spec.name == name).map(|spec| &spec.attach))
            .with_context(|| format!("no host or router {name}"))?;
        let (space, bridge) = match attach {
            Attach::Internet(_) => (self.servers.space(), INTERNET),
            Attach::Router { router, .. } => (&self.router(router).space, LAN),
        };
        relays.insert(name.to_owned(), Relay::insert(space, bridge, &port_name(name), impairment)?);
        Ok(())
    }

    /// Takes that relay out again.
    pub fn unimpair(&self, name: &str) {
        self.relays.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(name);
    }
}

impl Router {
    /// Its namespace.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// The network behind it.
    pub fn lan(&self) -> Ipv4Net {
        self.lan
    }

    /// Changes what it does to traffic. UDP mappings that exist are forgotten; TCP connections go on.
    pub fn set_nat(&self, nat: Nat) -> Result<()> {
        self.space.run(move || {
            run_with_input("nft", &["-f", "-"], &nat.ruleset())?;
            // Without the program mappings stay until they time out; with it they go at once.
            let _ = crate::command::run("conntrack", &["-D", "-p", "udp"]);
            Ok(())
        })
    }
}

/// The first part of every namespace's name: unique on this machine as long as the process lives.
fn prefix(topology: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("lab-{}-{}-{topology}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The bridge's end of the port of a host or router.
fn port_name(name: &str) -> String {
    let mut port = format!("p-{name}");
    port.truncate(MAX_INTERFACE_NAME_LEN);
    port
}

struct Builder<'a> {
    topology: &'a Topology,
    prefix: String,
    folder: Folder,
}

impl Builder<'_> {
    fn build(self) -> Result<Net> {
        let servers = self.host("net", self.topology.servers.first().copied())?;
        self.make_internet(&servers)?;
        let mut routers: BTreeMap<&'static str, Router> = BTreeMap::new();
        for spec in &self.topology.routers {
            let space = Space::new(self.namespace(spec.name), None)?;
            self.attach(&servers, &routers, spec.name, &space, WAN, &spec.attach)?;
            let router = Router { space, lan: spec.lan };
            self.make_lan(&router)?;
            router.set_nat(spec.nat)?;
            if spec.nat == Nat::None {
                self.publish(&servers, spec.lan, &spec.attach)?;
            }
            routers.insert(spec.name, router);
        }
        let mut hosts = BTreeMap::new();
        for spec in &self.topology.hosts {
            let host = self.host(spec.name, Some(spec.attach.address()))?;
            self.attach(&servers, &routers, spec.name, host.space(), ETH, &spec.attach)?;
            hosts.insert(spec.name, host);
        }
        let topology = self.topology.clone();
        Ok(Net {
            relays: std::sync::Mutex::default(),
            hosts,
            routers,
            servers,
            topology,
            folder: self.folder,
        })
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn host(&self, name: &str, address: Option<Ipv4Addr>) -> Result<Host> {
        let folder = self.folder.0.join(name);
        let resolver = self.topology.servers.first().copied().unwrap_or(Ipv4Addr::LOCALHOST);
        let resolv_conf = format!("nameserver {resolver}\n");
        let view = HostView { name: name.to_owned(), folder: folder.clone(), resolv_conf };
        let space = Space::new(self.namespace(name), Some(view))?;
        Ok(Host::new(name, address.unwrap_or(Ipv4Addr::UNSPECIFIED), space, folder))
    }

    fn make_internet(&self, servers: &Host) -> Result<()> {
        let len = self.topology.internet.prefix_len();
        let mut lines = vec![
            format!("link add {INTERNET} address {BRIDGE_MAC} type bridge"),
            format!("link set {INTERNET} up"),
        ];
        lines.extend(
            self.topology.servers.iter().map(|address| format!("addr add {address}/{len} dev {INTERNET}")),
        );
        // The servers' own daemons believe the network is down without one.
        lines.push(format!("route add default dev {INTERNET}"));
        ip_batch(servers.space().namespace(), &lines)?;
        bridge_without_filter(servers.space())
    }

    fn make_lan(&self, router: &Router) -> Result<()> {
        let gateway = gateway(router.lan);
        ip_batch(
            router.space.namespace(),
            &[
                format!("link add {LAN} address {BRIDGE_MAC} type bridge"),
                format!("link set {LAN} up"),
                format!("addr add {gateway}/{} dev {LAN}", router.lan.prefix_len()),
            ],
        )?;
        bridge_without_filter(&router.space)?;
        forward(&router.space)
    }

    /// Puts a host or router on its network, with its address and default route.
    fn attach(
        &self,
        servers: &Host,
        routers: &BTreeMap<&'static str, Router>,
        name: &str,
        space: &Space,
        interface: &str,
        attach: &Attach,
    ) -> Result<()> {
        let (bridge_space, bridge, network, gateway) = match attach {
            Attach::Internet(_) => {
                let gateway = self.topology.servers.first().copied().context("a topology needs a server")?;
                (servers.space(), INTERNET, self.topology.internet, gateway)
            }
            Attach::Router { router, .. } => {
                let router =
                    routers.get(router).with_context(|| format!("{name} stands behind no known router"))?;
                (&router.space, LAN, router.lan, gateway(router.lan))
            }
        };
        let port = port_name(name);
        ip_batch(
            bridge_space.namespace(),
            &[
                format!("link add {port} type veth peer name {interface} netns {}", space.namespace()),
                format!("link set {port} master {bridge}"),
                format!("link set {port} up"),
            ],
        )?;
        ip_batch(
            space.namespace(),
            &[
                format!("addr add {}/{} dev {interface}", attach.address(), network.prefix_len()),
                format!("link set {interface} up"),
                format!("route add default via {gateway}"),
            ],
        )
    }

    /// Lets the internet reach the network behind a router that does not translate.
    fn publish(&self, servers: &Host, lan: Ipv4Net, attach: &Attach) -> Result<()> {
        let line = format!("route add {lan} via {}", attach.address());
        ip_batch(servers.space().namespace(), &[line])?;
        // Everybody else's default route leads to the servers, which then have to pass it on.
        forward(servers.space())
    }
}

/// Lets a namespace pass packets on.
fn forward(space: &Space) -> Result<()> {
    space.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("switch forwarding on"))
}

/// Keeps the frames that a bridge passes out of the namespace's IP filter. They would be tracked there before they are
/// routed, and then escape translation.
fn bridge_without_filter(space: &Space) -> Result<()> {
    space.run(|| match fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0") {
        // A kernel without bridge filter has no such switch.
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("switch the bridge filter off")
        }
        Ok(()) | Err(_) => Ok(()),
    })
}

/// The router's address in the network behind it.
fn gateway(lan: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from_bits(lan.network().to_bits() + 1)
}
