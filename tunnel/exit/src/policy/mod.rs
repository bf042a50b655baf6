//! Which destinations a peer may reach, decided by the address and never by the length of a route.

mod ranges;
mod rules;

use std::collections::HashSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;

pub use ranges::{Class, REGISTRY_DATE, classify};
pub use rules::{MAX_RULE_COUNT, Rule, RuleLimitError};

/// An address and port that a [`Policy`] admitted for a proxy. Nothing else can make one, and nothing else can be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Destination(SocketAddrV4);

impl Destination {
    /// The address, which is globally routable.
    pub const fn ip(self) -> Ipv4Addr {
        *self.0.ip()
    }

    /// The port, which is not 0.
    pub const fn port(self) -> u16 {
        self.0.port()
    }

    /// Address and port.
    pub const fn address(self) -> SocketAddrV4 {
        self.0
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is to be done with a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes through a proxy.
    Proxy(Destination),
    /// It is a flow of a subnet route: the packet filter and the kernel see to it, and no proxy ever does.
    Subnet,
    /// It goes nowhere.
    Refused(Refusal),
}

/// Why a destination is refused. Counted by reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The address is not on the public internet.
    #[error("the destination is {0}")]
    Class(Class),
    /// One of this host's own addresses.
    #[error("the destination is this host")]
    Own,
    /// An address of a proxy: a peer must not talk to it in our place.
    #[error("the destination is a proxy of this node")]
    Proxy,
    /// No program listens on port 0.
    #[error("the destination has port 0")]
    PortZero,
    /// A rule forbids it.
    #[error("a rule of this node denies the destination")]
    Denied,
    /// There are rules that allow, and none of them allows this.
    #[error("no rule of this node allows the destination")]
    NotAllowed,
}

/// What the policy needs to know. All of it is replaced as a whole.
#[derive(Clone, Debug, Default)]
pub struct PolicyConfig {
    /// All addresses of this host, of every interface.
    pub own_addresses: HashSet<Ipv4Addr>,
    /// Ranges that are this tailnet's besides 100.64.0.0/10.
    pub tailnet: Vec<Ipv4Net>,
    /// All addresses of all configured proxies.
    pub proxies: HashSet<Ipv4Addr>,
    /// Subnet routes that are advertised and approved.
    pub subnets: Vec<Ipv4Net>,
    /// If there are any, a destination must match one of them.
    pub allow: Vec<Rule>,
    /// A destination that matches one of them is refused.
    pub deny: Vec<Rule>,
}

/// Decides where flows of peers may go.
#[derive(Debug)]
pub struct Policy {
    config: PolicyConfig,
}

impl Policy {
    /// A policy; there are limits on the number of rules.
    pub fn new(config: PolicyConfig) -> Result<Self, RuleLimitError> {
        RuleLimitError::check(&config.allow)?;
        RuleLimitError::check(&config.deny)?;
        Ok(Self { config })
    }

    /// Judges one flow, or one datagram. `peer` is the address inside the tunnel that it comes from, which the data plane has checked
    /// against the peer's prefixes.
    pub fn judge(&self, peer: Ipv4Addr, destination: SocketAddrV4) -> Verdict {
        let ip = *destination.ip();
        let class = classify(ip);
        if class == Class::Private && self.config.subnets.iter().any(|subnet| subnet.contains(&ip)) {
            return Verdict::Subnet;
        }
        match self.refusal(class, peer, destination) {
            Some(refusal) => Verdict::Refused(refusal),
            None => Verdict::Proxy(Destination(destination)),
        }
    }

    fn refusal(&self, class: Class, peer: Ipv4Addr, destination: SocketAddrV4) -> Option<Refusal> {
        let (ip, port) = (*destination.ip(), destination.port());
        let config = &self.config;
        let matches = |rules: &[Rule]| rules.iter().any(|rule| rule.matches(peer, destination));
        if config.own_addresses.contains(&ip) {
            return Some(Refusal::Own);
        }
        if config.proxies.contains(&ip) {
            return Some(Refusal::Proxy);
        }
        if class != Class::Global {
            return Some(Refusal::Class(class));
        }
        if config.tailnet.iter().any(|range| range.contains(&ip)) {
            return Some(Refusal::Class(Class::Shared));
        }
        if port == 0 {
            return Some(Refusal::PortZero);
        }
        if matches(&config.deny) {
            return Some(Refusal::Denied);
        }
        (!config.allow.is_empty() && !matches(&config.allow)).then_some(Refusal::NotAllowed)
    }
}

#[cfg(test)]
mod tests;
