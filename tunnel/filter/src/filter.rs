//! The filter itself: the checks and their order (data-plane sheet §8.2 to §8.4).

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use tsrs_tunnel_packet::DropReason;
use tsrs_tunnel_packet::ipv4::{Class, HEADER_LEN, Parsed};

use crate::caps::Capabilities;
use crate::compiled::BySource;
use crate::flows::Flows;
use crate::local::LocalNets;
use crate::ranges::{RangeSet, V4Range};
use crate::rules::Match;

/// The one link-local address that may be reached: metadata and DNS of clouds, through a subnet router.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// What passes. Made once, shared by all workers.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    local: LocalNets,
    by_address: BySource,
    /// Sources named by capability, which count for ICMP and ports only.
    by_capability: BySource,
    capabilities: Capabilities,
    shielded: bool,
}

impl Filter {
    /// A filter that lets nothing in: nothing is local, and there is no rule.
    pub fn closed() -> Self {
        Self::default()
    }

    /// A filter that lets in only what answers: for "shields up", and for what jailed peers send.
    pub fn shielded(local: LocalNets) -> Self {
        Self { local, shielded: true, ..Self::default() }
    }

    /// Compiles rules. `holders` gives the addresses of the peers that hold a node capability.
    pub fn new(matches: &[Match], local: LocalNets, holders: &dyn Fn(&str) -> Vec<IpAddr>) -> Self {
        let by_address = matches.iter().map(|rule| (rule, v4_sources(rule)));
        let by_capability = matches.iter().map(|rule| (rule, holders_of(rule, holders)));
        Self {
            local,
            by_address: BySource::new(by_address),
            by_capability: BySource::new(by_capability),
            capabilities: Capabilities::new(matches),
            shielded: false,
        }
    }

    /// What sources may do with us beside sending packets.
    pub const fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// May this packet of a peer come in? `packet_len` is the length of the buffer that was parsed.
    pub fn check_in(
        &self,
        parsed: &Parsed,
        packet_len: usize,
        flows: &mut Flows<'_>,
    ) -> Result<(), DropReason> {
        match before_rules(parsed, packet_len)? {
            Early::Pass => return Ok(()),
            Early::GoOn => {}
        }
        if !self.local.contains(parsed.dst) {
            return Err(DropReason::NotLocal);
        }
        let passes = match parsed.class {
            Class::Tsmp => true,
            Class::Tcp => !parsed.is_tcp_syn() || self.matches_port(parsed),
            Class::Udp | Class::Sctp => flows.contains(parsed) || self.matches_port(parsed),
            Class::Icmp => parsed.is_echo_reply() || parsed.is_icmp_error() || self.matches_icmp(parsed),
            Class::Igmp | Class::Other => self.matches_portless(parsed),
            Class::Unknown | Class::LaterFragment => false,
        };
        if passes { Ok(()) } else { Err(self.refusal()) }
    }

    /// May this packet of the host go out? Remembers flows whose replies may come in.
    pub fn check_out(
        &self,
        parsed: &Parsed,
        packet_len: usize,
        flows: &mut Flows<'_>,
    ) -> Result<(), DropReason> {
        before_rules(parsed, packet_len)?;
        if matches!(parsed.class, Class::Udp | Class::Sctp) {
            flows.note(parsed);
        }
        Ok(())
    }

    fn refusal(&self) -> DropReason {
        if self.shielded { DropReason::ShieldsUp } else { DropReason::Acl }
    }

    fn matches_port(&self, parsed: &Parsed) -> bool {
        let matches = |by: &BySource| {
            by.rules_of(parsed.src)
                .any(|rule| rule.matches_port(parsed.protocol, parsed.dst, parsed.dst_port))
        };
        matches(&self.by_address) || matches(&self.by_capability)
    }

    /// A source named by capability passes whatever the destination of its rule, as in the reference.
    fn matches_icmp(&self, parsed: &Parsed) -> bool {
        self.by_address.rules_of(parsed.src).any(|rule| rule.matches_address(parsed.dst))
            || self.by_capability.rules_of(parsed.src).next().is_some()
    }

    fn matches_portless(&self, parsed: &Parsed) -> bool {
        self.by_address.rules_of(parsed.src).any(|rule| rule.matches_portless(parsed.protocol, parsed.dst))
    }
}

enum Early {
    Pass,
    GoOn,
}

/// The checks that come before any rule, in both directions.
fn before_rules(parsed: &Parsed, packet_len: usize) -> Result<Early, DropReason> {
    if packet_len == 0 {
        return Ok(Early::Pass);
    }
    if packet_len < HEADER_LEN {
        return Err(DropReason::TooShort);
    }
    if parsed.class == Class::Unknown {
        return Err(if parsed.version == 4 { DropReason::Malformed } else { DropReason::NotIpv4 });
    }
    if parsed.dst.is_multicast() {
        return Err(DropReason::Multicast);
    }
    if parsed.dst.is_link_local() && parsed.dst != METADATA {
        return Err(DropReason::LinkLocal);
    }
    Ok(if parsed.class == Class::LaterFragment { Early::Pass } else { Early::GoOn })
}

fn v4_sources(rule: &Match) -> RangeSet {
    let v4 = rule.srcs.iter().filter_map(|net| match net {
        IpNet::V4(net) => Some(V4Range::from(*net)),
        IpNet::V6(_) => None,
    });
    v4.collect()
}

fn holders_of(rule: &Match, holders: &dyn Fn(&str) -> Vec<IpAddr>) -> RangeSet {
    let addresses = rule.src_caps.iter().flat_map(|cap| holders(cap));
    let v4 = addresses.filter_map(|address| match address {
        IpAddr::V4(v4) => Some(V4Range { first: v4.into(), last: v4.into() }),
        IpAddr::V6(_) => None,
    });
    v4.collect()
}
