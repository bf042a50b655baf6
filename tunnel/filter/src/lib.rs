//! The packet filter: which packets pass in each direction, and what peers may do with us (data-plane sheet §8).
//!
//! Rules come as [`FilterRule`]s, in the JSON shape of the control protocol, and are read leniently into [`Match`]es. A
//! [`Filter`] is compiled from them once and never changes; workers share it and look up a packet in time that grows with
//! the logarithm of the number of addresses in all rules, plus the rules that name its source. What a host sent is
//! remembered in a [`FlowTable`], which outlives a change of rules.
//!
//! Only IPv4 packets are filtered; rules for IPv6 are read, serve capability lookups, and match no packet. Packets of the
//! agent's own protocol (TSMP) pass here, because the data plane takes them before; the exception for the PeerAPI port is its
//! caller's too.
#![forbid(unsafe_code)]

mod address;
mod caps;
mod compiled;
mod filter;
mod flows;
mod local;
mod ranges;
mod rules;

pub use address::{AddressError, parse_prefixes};
pub use caps::Capabilities;
pub use filter::Filter;
pub use flows::{FLOW_COUNT, FlowTable, Flows};
pub use local::{LocalNets, shrunk_default_route};
pub use ranges::{RangeSet, V4Range};
pub use rules::{
    CapDst, CapGrant, DstPorts, FilterRule, MAX_RULES, Match, NetPortRange, ParsedRules, PortRange,
    admits_any_of, parse_rules,
};

#[cfg(test)]
mod tests;
