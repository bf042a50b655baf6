//! What may pass in each direction.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tsrs_tunnel_filter::{Filter, FlowTable};
use tsrs_tunnel_packet::DropReason;
use tsrs_tunnel_packet::ipv4::{Class, Parsed};

/// Decides about packets in both directions.
#[derive(Clone, Debug, Default)]
pub enum Policy {
    /// Nothing passes: there is no netmap yet.
    #[default]
    Closed,
    /// Everything passes that belongs to its peer: plain WireGuard.
    Open,
    /// What the filters say.
    Filtered(Arc<Filters>),
}

/// The filters in force (data-plane sheet §8.5).
#[derive(Debug)]
pub struct Filters {
    /// For most peers: the rules of control, or [`Filter::shielded`] while shields are up.
    pub normal: Filter,
    /// Whether `normal` is the one for shields up; it has a flow table of its own.
    pub shields_up: bool,
    /// For jailed peers: [`Filter::shielded`].
    pub jailed: Filter,
}

/// Flows that the host began; they outlive changes of the policy.
#[derive(Debug, Default)]
pub(crate) struct FlowTables {
    normal: FlowTable,
    shields_up: FlowTable,
    jailed: FlowTable,
}

impl Policy {
    /// May the host send this packet to a peer? Its flow is noted, so that replies may come in.
    pub(crate) fn check_out(&self, packet: Candidate<'_>, flows: &FlowTables) -> Result<(), DropReason> {
        self.check(packet, flows, |filter, table| {
            filter.check_out(packet.parsed, packet.len, &mut table.batch())
        })
    }

    /// May a peer send this packet to us?
    pub(crate) fn check_in(&self, packet: Candidate<'_>, flows: &FlowTables) -> Result<(), DropReason> {
        self.check(packet, flows, |filter, table| {
            filter.check_in(packet.parsed, packet.len, &mut table.batch())
        })
    }

    fn check(
        &self,
        packet: Candidate<'_>,
        flows: &FlowTables,
        check: impl FnOnce(&Filter, &FlowTable) -> Result<(), DropReason>,
    ) -> Result<(), DropReason> {
        match self {
            Self::Closed => Err(DropReason::NoFilter),
            Self::Open => Ok(()),
            Self::Filtered(filters) if packet.jailed => check(&filters.jailed, &flows.jailed),
            Self::Filtered(filters) if filters.shields_up => check(&filters.normal, &flows.shields_up),
            Self::Filtered(filters) => check(&filters.normal, &flows.normal),
        }
    }
}

/// A packet to be judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) parsed: &'a Parsed,
    /// Bytes of the buffer that was parsed.
    pub(crate) len: usize,
    /// Whether the peer at the other end is jailed.
    pub(crate) jailed: bool,
}

/// The flow whose packet passed last in a batch. The next ones of the same flow pass too, without a look at the flow table,
/// which the two workers share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LastFlow(Option<(u8, Ipv4Addr, Ipv4Addr, u16, u16)>);

impl LastFlow {
    /// Only UDP and SCTP have flows: what passes of TCP and ICMP depends on more than addresses and ports.
    fn of(parsed: &Parsed) -> Self {
        let has_flow = matches!(parsed.class, Class::Udp | Class::Sctp);
        Self(has_flow.then_some((parsed.protocol, parsed.src, parsed.dst, parsed.src_port, parsed.dst_port)))
    }

    /// Runs the check unless the packet is of the flow that passed last.
    pub(crate) fn or_check(
        &mut self,
        parsed: &Parsed,
        check: impl FnOnce() -> Result<(), DropReason>,
    ) -> Result<(), DropReason> {
        let flow = Self::of(parsed);
        if flow.0.is_some() && flow == *self {
            return Ok(());
        }
        check()?;
        *self = flow;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packets_of_the_same_flow_skip_the_check() {
        let udp = Parsed { class: Class::Udp, protocol: 17, src_port: 1, dst_port: 2, ..Parsed::default() };
        let mut last = LastFlow::default();
        assert_eq!(last.or_check(&udp, || Err(DropReason::Acl)), Err(DropReason::Acl));
        assert_eq!(
            last.or_check(&udp, || Err(DropReason::Acl)),
            Err(DropReason::Acl),
            "a refusal is not kept"
        );
        assert_eq!(last.or_check(&udp, || Ok(())), Ok(()));
        assert_eq!(last.or_check(&udp, || Err(DropReason::Acl)), Ok(()));
        let other = Parsed { dst_port: 3, ..udp };
        assert_eq!(last.or_check(&other, || Err(DropReason::Acl)), Err(DropReason::Acl));
        let tcp = Parsed { class: Class::Tcp, protocol: 6, ..udp };
        assert_eq!(last.or_check(&tcp, || Ok(())), Ok(()));
        assert_eq!(last.or_check(&tcp, || Err(DropReason::Acl)), Err(DropReason::Acl));
    }
}
