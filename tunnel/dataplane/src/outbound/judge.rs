//! The steps before encryption: what a packet of the host is, whether it may go, and to whom.

use std::sync::Arc;

use tsrs_tunnel_packet::DropReason;
use tsrs_tunnel_packet::gso::SuperPacket;
use tsrs_tunnel_packet::icmp::Unreachable;
use tsrs_tunnel_packet::ipv4::{self, Class, Parsed};
use tsrs_tunnel_packet::vnet::VirtioNetHdr;

use crate::disco_loop::carries_disco_of;
use crate::policy::{Candidate, FlowTables, LastFlow};
use crate::tables::{PeerSlot, Routes};

/// What is to be done with a packet of the host.
pub(super) enum Judgement<'t, 'p> {
    /// It goes to this peer.
    Send(&'t Arc<PeerSlot>, SuperPacket<'p>),
    /// It is for this host's own services.
    Service,
    /// It is dropped, and the host is told, so that a connection fails at once instead of after minutes.
    Unreachable(DropReason, Unreachable),
    /// It is dropped.
    Drop(DropReason),
}

/// Judges one packet or a run of them: what holds for the first segment holds for all.
///
/// The order is that of design.md §4 path 1 and of data-plane sheet §8.6: our own services first, then what must never
/// enter the tunnel, then the filter, then the route.
pub(super) fn judge<'t, 'p>(
    routes: &'t Routes,
    flows: &FlowTables,
    last_flow: &mut LastFlow,
    offload: &VirtioNetHdr,
    packet: &'p [u8],
) -> Judgement<'t, 'p> {
    let parsed = ipv4::parse(packet);
    if parsed.class == Class::Unknown {
        return Judgement::Drop(unknown_reason(packet, &parsed));
    }
    if routes.config.service_address == Some(parsed.dst) {
        return Judgement::Service;
    }
    if parsed.class == Class::Tsmp {
        return Judgement::Drop(DropReason::TsmpFromHost);
    }
    if parsed.class == Class::Udp && carries_disco_of(&routes.disco_key, packet, &parsed) {
        return Judgement::Drop(DropReason::DiscoLoop);
    }
    let peer = routes.peers.lookup(parsed.dst);
    let jailed = peer.is_some_and(|peer| peer.is_jailed());
    let candidate = Candidate { parsed: &parsed, len: packet.len(), jailed };
    if let Err(reason) = last_flow.or_check(&parsed, || routes.policy.check_out(candidate, flows)) {
        return Judgement::Drop(reason);
    }
    let Some(peer) = peer else {
        return Judgement::Unreachable(DropReason::NoPeer, Unreachable::Host);
    };
    if peer.is_expired() {
        return Judgement::Unreachable(DropReason::PeerExpired, Unreachable::HostProhibited);
    }
    match SuperPacket::new(offload, packet) {
        Err(reason) => Judgement::Drop(reason),
        Ok(packet) if packet.max_len() > usize::from(routes.config.mtu) => {
            Judgement::Unreachable(DropReason::TooBig, Unreachable::TooBig { mtu: routes.config.mtu })
        }
        Ok(packet) => Judgement::Send(peer, packet),
    }
}

fn unknown_reason(packet: &[u8], parsed: &Parsed) -> DropReason {
    match parsed.version {
        6 => DropReason::NotIpv4,
        _ if packet.len() < ipv4::HEADER_LEN => DropReason::TooShort,
        _ => DropReason::Malformed,
    }
}
