//! Interfaces and the default route of the host, and what changes there.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

/// The host's interfaces at one moment. The agent's own TUN and table are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// All interfaces, ordered by index.
    pub interfaces: Vec<Interface>,
    /// The IPv4 default route that packets around the tunnel take, if there is one.
    pub default_route: Option<DefaultRoute>,
}

/// One network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Number that the kernel gives it.
    pub index: u32,
    /// Name, such as `eth0`.
    pub name: String,
    /// Whether it is up and has carrier.
    pub up: bool,
    /// Whether it is the loopback.
    pub loopback: bool,
    /// Addresses with the prefixes that are on-link through it, both families, ordered.
    pub addresses: Vec<IpNet>,
}

/// The way that packets around the tunnel take to the internet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// Number of the interface.
    pub index: u32,
    /// Name of the interface.
    pub interface: String,
    /// The router, unless the interface is a point-to-point link.
    pub gateway: Option<Ipv4Addr>,
}

impl LinkState {
    /// Whether any interface could reach somebody: up, not loopback, with an address that is not link-local.
    pub fn any_up(&self) -> bool {
        self.interfaces.iter().any(Interface::is_useful)
    }

    /// IPv4 prefixes that are on-link on interfaces that are up, loopback left out.
    pub fn on_link(&self) -> Vec<Ipv4Net> {
        self.interfaces
            .iter()
            .filter(|interface| interface.up && !interface.loopback)
            .flat_map(|interface| &interface.addresses)
            .filter_map(|address| match address {
                IpNet::V4(net) => Some(net.trunc()),
                IpNet::V6(_) => None,
            })
            .collect()
    }

    /// IPv4 addresses at which others on the underlay could reach this host: the local endpoint candidates.
    pub fn local_addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.interfaces.iter().filter(|interface| interface.is_useful()).flat_map(|interface| {
            interface.addresses.iter().filter_map(|address| match address {
                IpNet::V4(net) if !net.addr().is_link_local() => Some(net.addr()),
                IpNet::V4(_) | IpNet::V6(_) => None,
            })
        })
    }

    /// How far this state is from `before`.
    pub fn change_since(&self, before: &Self) -> Option<Change> {
        if self == before {
            return None;
        }
        let uplink = |state: &Self| {
            let index = state.default_route.as_ref().map(|route| route.index);
            state.interfaces.iter().find(|interface| Some(interface.index) == index).map(|interface| {
                let v4: Vec<IpNet> =
                    interface.addresses.iter().copied().filter(|net| matches!(net, IpNet::V4(_))).collect();
                (interface.up, v4)
            })
        };
        let major = self.default_route != before.default_route
            || uplink(self) != uplink(before)
            || self.any_up() != before.any_up();
        Some(if major { Change::Major } else { Change::Minor })
    }
}

impl Interface {
    fn is_useful(&self) -> bool {
        self.up
            && !self.loopback
            && self.addresses.iter().any(|address| match address {
                IpNet::V4(net) => !net.addr().is_link_local(),
                IpNet::V6(net) => !net.addr().is_unicast_link_local(),
            })
    }
}

/// How much a link change matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Something changed, but not the way to the internet.
    Minor,
    /// The default route, its interface's addresses, or a wake-up: rebind, ask STUN again, kick control, set DNS again.
    Major,
}

/// A change of the link state, events of one burst merged.
#[derive(Clone, Debug)]
pub struct LinkEvent {
    /// The state now.
    pub state: Arc<LinkState>,
    /// How much it matters.
    pub change: Change,
    /// How long the host slept, when this is a wake-up.
    pub slept: Option<Duration>,
}

/// Watches the host's links. Changes are told through the sink given at creation; dropping it ends the watch.
pub trait LinkMonitor: Send {
    /// The state as last seen.
    fn state(&self) -> Arc<LinkState>;
}
