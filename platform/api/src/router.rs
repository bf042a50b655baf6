//! Addresses, routes, rules and firewall: the wanted state and who applies it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::{PlatformError, Result};

/// How far the agent may touch the host's firewall (`--netfilter-mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NetfilterMode {
    /// 0: nothing is touched. Subnet routes are then refused, because nothing would stop other forwarding.
    Off,
    /// 1: the agent's own table only; a foreign chain that drops by policy is left as it is.
    NoDivert,
    /// 2: also accept the tunnel's traffic in foreign base chains whose policy is drop.
    #[default]
    On,
}

/// The whole state that the tunnel wants from the host's network stack.
///
/// `Default` is "no tunnel": no address, no route, firewall off.
///
/// A default route among `routes` is refused: using an exit node needs more than a route (IPv6 has to be refused and a
/// vanished TUN must not open the uplink), and gets a field of its own here when that is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterConfig {
    /// Addresses of this node, each set as a /32 on the TUN. Empty means the tunnel is down.
    pub addresses: Vec<Ipv4Addr>,
    /// MTU of the TUN in bytes.
    pub mtu: u16,
    /// Prefixes that go into the tunnel: peers and accepted subnet routes. The service address is added when there
    /// is an address. With more than [`PEER_ROUTES_MAX_COUNT`] peers the caller gives 100.64.0.0/10 instead of them.
    pub routes: BTreeSet<Ipv4Net>,
    /// Prefixes that are looked up in the host's own tables although a route above covers them.
    pub bypass_routes: BTreeSet<Ipv4Net>,
    /// Subnets behind this host that peers may reach. The only destinations that packets from the TUN are forwarded
    /// to. Each must pass [`crate::advertisable`].
    pub advertised: BTreeSet<Ipv4Net>,
    /// Whether forwarded packets get the host's own address as source (`--snat-subnet-routes`).
    pub snat: bool,
    /// Whether packets to the advertised subnets' hosts are only let back into the tunnel as answers
    /// (`--stateful-filtering`).
    pub stateful: bool,
    /// Whether packets that claim a peer's address (a /32 of 100.64.0.0/10 among `routes`) but arrive outside the
    /// tunnel are dropped. Switched off for hosts whose uplink has hosts with those very addresses.
    pub drop_spoofed: bool,
    /// How far the firewall may be touched.
    pub netfilter: NetfilterMode,
    /// UDP port of the WireGuard socket, which the firewall lets in. `None` while there is no socket.
    pub udp_port: Option<u16>,
}

/// MTU of the TUN unless something larger is proven to fit: what every IPv6-capable path must carry, so that no
/// tunnel packet is fragmented underneath.
pub const DEFAULT_MTU: u16 = 1280;

/// Peers that get a route each; a larger tailnet is one route for its whole range (client sheet §3.1), so that a change
/// of a peer costs the same at any size.
pub const PEER_ROUTES_MAX_COUNT: usize = 10_000;

impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            mtu: DEFAULT_MTU,
            routes: BTreeSet::new(),
            bypass_routes: BTreeSet::new(),
            advertised: BTreeSet::new(),
            snat: true,
            stateful: false,
            drop_spoofed: true,
            netfilter: NetfilterMode::Off,
            udp_port: None,
        }
    }
}

/// Sets addresses, routes, policy rules and the firewall.
///
/// Calls block: a change of a few routes takes a millisecond, ten thousand routes a fraction of a second.
pub trait Router: Send {
    /// Makes the system match `config`, without what [`RouterConfig::admissible`] leaves out. Takes away first, gives
    /// last; does only what differs from the state applied before. On an error the rest is still tried, nothing more
    /// is open than before, and a second call tries the missing parts again.
    fn apply(&mut self, config: &RouterConfig) -> Result<()>;

    /// What works less well than asked although `apply` succeeded, as sentences for health warnings: a foreign firewall
    /// that could not be opened, for example. Empty when all is well.
    fn warnings(&self) -> Vec<String>;

    /// Whether the kernel forwards IPv4 packets from the TUN; `Err` carries the reason for a health warning and the
    /// next step. The agent never switches forwarding on.
    fn check_forwarding(&self) -> Result<()>;

    /// Takes away everything that `apply` did. The router can be used again afterwards.
    fn close(&mut self) -> Result<()>;
}

/// What a router does between calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouterEvent {
    /// Something of ours was removed by another program and has been put back.
    Repaired {
        /// What: "rules", "routes", "firewall".
        what: &'static str,
    },
    /// Another program keeps removing what we put back; the watcher waits before it tries again.
    Contested {
        /// What is contested.
        what: &'static str,
    },
    /// A repair failed.
    RepairFailed {
        /// The error, as shown to the user.
        error: String,
    },
}

impl RouterConfig {
    /// This configuration without what no system is asked for (a default route, a subnet that must not be advertised),
    /// and the first reason if something was left out.
    ///
    /// Implementations apply that part and then fail with the reason: one bad prefix, or an interface that is down for
    /// a moment, must not keep the rest of the tunnel from working. `on_link` are the prefixes of the host's own
    /// interfaces.
    pub fn admissible(&self, on_link: &[Ipv4Net]) -> (Self, Result<()>) {
        let mut refusals = Vec::new();
        let mut admissible = self.clone();
        admissible.routes.retain(|route| {
            let is_default = route.prefix_len() == 0;
            if is_default {
                let why = "using an exit node is not supported, and a default route alone would leak";
                refusals.push(PlatformError::refused(format!("route {route} into the tunnel"), why));
            }
            !is_default
        });
        admissible.advertised.retain(|prefix| match self.refuse_advertised(*prefix, on_link) {
            Ok(()) => true,
            Err(refusal) => {
                refusals.push(refusal);
                false
            }
        });
        (admissible, refusals.into_iter().next().map_or(Ok(()), Err))
    }

    fn refuse_advertised(&self, prefix: Ipv4Net, on_link: &[Ipv4Net]) -> Result<()> {
        let what = format!("advertise {prefix}");
        if self.netfilter == NetfilterMode::Off {
            let why = "with netfilter mode off nothing would keep other packets from being forwarded";
            return Err(PlatformError::refused(what, why).with_next("use --netfilter-mode=on or nodivert"));
        }
        match crate::advertisable(prefix.into(), on_link) {
            Ok(_) => Ok(()),
            Err(refusal) => Err(PlatformError::refused(what, refusal.to_string())),
        }
    }
}
