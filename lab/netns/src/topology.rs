//! Topologies as tables.
//!
//! ```text
//!             internet 203.0.113.0/24 (a bridge; .1 and .2 are the servers')
//!      ┌──────────────┬──────────────┐
//!   ra .11         rb .12         rc .13        routers, each with a kind of NAT
//!      │              │              │
//!   a 192.168.1.10  b 192.168.2.10  c 192.168.3.10
//! ```

use std::net::Ipv4Addr;

use anyhow::Result;
use ipnet::Ipv4Net;

use crate::nat::Nat;
use crate::net::Net;

/// A whole network, before it is built.
#[derive(Clone, Debug)]
pub struct Topology {
    /// Short name; part of the namespaces' names.
    pub name: &'static str,
    /// The network that all routers and servers share.
    pub internet: Ipv4Net,
    /// Addresses of the servers (control, DERP, STUN, DNS), all on one host.
    pub servers: Vec<Ipv4Addr>,
    /// Routers.
    pub routers: Vec<RouterSpec>,
    /// Hosts.
    pub hosts: Vec<HostSpec>,
}

/// A router between a network and its hosts.
#[derive(Clone, Debug)]
pub struct RouterSpec {
    /// Name.
    pub name: &'static str,
    /// Where it stands itself: on the internet, or behind another router (carrier NAT).
    pub attach: Attach,
    /// The network behind it; the router has its first address.
    pub lan: Ipv4Net,
    /// What it does to the traffic of its hosts.
    pub nat: Nat,
}

/// A host: the place where an agent runs.
#[derive(Clone, Debug)]
pub struct HostSpec {
    /// Name; also its host name.
    pub name: &'static str,
    /// Where it stands.
    pub attach: Attach,
}

/// A place in a network.
#[derive(Clone, Debug)]
pub enum Attach {
    /// On the internet.
    Internet(Ipv4Addr),
    /// Behind a router.
    Router {
        /// Name of the router.
        router: &'static str,
        /// Address in its network.
        address: Ipv4Addr,
    },
}

impl Attach {
    /// The address at this place.
    pub fn address(&self) -> Ipv4Addr {
        match self {
            Self::Internet(address) | Self::Router { address, .. } => *address,
        }
    }
}

/// The address `host` of the documentation network that stands for the internet.
const fn public(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, host)
}

/// The address `host` of the private network `lan`.
const fn private(lan: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, lan, host)
}

impl Topology {
    /// The servers and nothing else.
    pub fn empty(name: &'static str) -> Self {
        Self {
            name,
            internet: Ipv4Net::new_assert(public(0), 24),
            servers: vec![public(1), public(2)],
            routers: Vec::new(),
            hosts: Vec::new(),
        }
    }

    /// Hosts `a`, `b`, `c` behind routers `ra`, `rb`, `rc` with easy NAT.
    pub fn three_hosts() -> Self {
        Self::empty("three").behind("ra", Nat::Easy, &["a"]).behind("rb", Nat::Easy, &["b"]).behind(
            "rc",
            Nat::Easy,
            &["c"],
        )
    }

    /// Hosts `a` and `b` behind routers `ra` and `rb` of these kinds.
    pub fn pair(left: Nat, right: Nat) -> Self {
        Self::empty("pair").behind("ra", left, &["a"]).behind("rb", right, &["b"])
    }

    /// Hosts `a` and `b` in one network behind the router `ra`.
    pub fn one_lan() -> Self {
        Self::empty("lan").behind("ra", Nat::Easy, &["a", "b"])
    }

    /// Hosts `a` and `b` on the internet itself.
    pub fn public_pair() -> Self {
        Self::empty("public").on_internet("a").on_internet("b")
    }

    /// Adds a router with the next free network, and hosts behind it.
    #[must_use]
    pub fn behind(mut self, router: &'static str, nat: Nat, hosts: &[&'static str]) -> Self {
        let index = self.next_index();
        let attach = Attach::Internet(public(10 + index));
        self.routers.push(RouterSpec { name: router, attach, lan: lan(index), nat });
        self.add_hosts(router, index, hosts);
        self
    }

    /// Adds a router behind the router `outer`, and hosts behind it: two NATs in a row.
    #[must_use]
    pub fn behind_two(
        mut self,
        outer: &'static str,
        router: &'static str,
        nat: Nat,
        hosts: &[&'static str],
    ) -> Self {
        let index = self.next_index();
        let parent = self.routers.iter().find(|spec| spec.name == outer);
        let base = parent.map_or(Ipv4Addr::UNSPECIFIED, |spec| spec.lan.network());
        let [a, b, c, _] = base.octets();
        let attach = Attach::Router { router: outer, address: Ipv4Addr::new(a, b, c, 100 + index) };
        self.routers.push(RouterSpec { name: router, attach, lan: lan(index), nat });
        self.add_hosts(router, index, hosts);
        self
    }

    /// Adds a host with a public address.
    #[must_use]
    pub fn on_internet(mut self, host: &'static str) -> Self {
        let taken = u8::try_from(self.hosts.len()).unwrap_or(u8::MAX);
        self.hosts.push(HostSpec { name: host, attach: Attach::Internet(public(100 + taken % 100)) });
        self
    }

    /// Makes it real. Needs root.
    pub fn build(&self) -> Result<Net> {
        Net::build(self)
    }

    fn next_index(&self) -> u8 {
        u8::try_from(self.routers.len() + 1).unwrap_or(u8::MAX)
    }

    fn add_hosts(&mut self, router: &'static str, index: u8, hosts: &[&'static str]) {
        for (&name, host) in hosts.iter().zip(10..) {
            let attach = Attach::Router { router, address: private(index, host) };
            self.hosts.push(HostSpec { name, attach });
        }
    }
}

fn lan(index: u8) -> Ipv4Net {
    Ipv4Net::new_assert(private(index, 0), 24)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn every() -> [Topology; 5] {
        [
            Topology::three_hosts(),
            Topology::pair(Nat::Easy, Nat::Hard),
            Topology::one_lan(),
            Topology::public_pair(),
            Topology::empty("cgnat").behind("isp", Nat::Hard, &[]).behind_two("isp", "ra", Nat::Easy, &["a"]),
        ]
    }

    #[test]
    fn addresses_and_names_are_unique_and_inside_their_network() {
        for topology in every() {
            let mut seen = BTreeSet::new();
            let routers = topology.routers.iter().map(|spec| (spec.name, &spec.attach));
            let hosts = topology.hosts.iter().map(|spec| (spec.name, &spec.attach));
            for (name, attach) in routers.chain(hosts) {
                assert!(seen.insert(name.to_owned()), "{name} twice");
                assert!(seen.insert(attach.address().to_string()), "{name}: address twice");
                let network = match attach {
                    Attach::Internet(_) => topology.internet,
                    Attach::Router { router, .. } => {
                        topology.routers.iter().find(|spec| spec.name == *router).unwrap().lan
                    }
                };
                assert!(network.contains(&attach.address()), "{name}");
            }
        }
    }
}
