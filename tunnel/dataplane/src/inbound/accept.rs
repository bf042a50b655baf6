//! The steps after decryption: whether a packet of a peer goes to the host.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tsrs_tunnel_packet::ipv4::{self, Class, Parsed};
use tsrs_tunnel_packet::{DropReason, tsmp};

use crate::disco_loop::carries_disco_of;
use crate::notice::Notice;
use crate::policy::{Candidate, LastFlow};
use crate::shared::Shared;
use crate::tables::{PeerSlot, Routes};

/// Bytes of a refused packet that the machine needs to tell the peer: IP and TCP headers.
const REFUSED_LEN: usize = 80;

/// Judges the packets of one peer.
pub(super) struct Gate<'a> {
    routes: &'a Routes,
    peer: &'a Arc<PeerSlot>,
    shared: &'a Shared,
    /// The last source address that was found to be the peer's.
    known_source: Option<Ipv4Addr>,
    last_flow: LastFlow,
}

impl<'a> Gate<'a> {
    pub(super) fn new(routes: &'a Routes, peer: &'a Arc<PeerSlot>, shared: &'a Shared) -> Self {
        Self { routes, peer, shared, known_source: None, last_flow: LastFlow::default() }
    }

    /// Whether the packet goes to the host. Everything else about it is done when this returns.
    ///
    /// The order is that of design.md §4 path 2 and of data-plane sheet §8.6. The source comes first: nothing else that
    /// the packet says is looked at before.
    pub(super) fn passes(&mut self, packet: &[u8]) -> bool {
        match self.judge(packet) {
            Ok(passes) => passes,
            Err(reason) => {
                self.shared.inbound.drop_packets(reason, 1);
                false
            }
        }
    }

    fn judge(&mut self, packet: &[u8]) -> Result<bool, DropReason> {
        let parsed = ipv4::parse(packet);
        if parsed.version != 4 {
            return Err(DropReason::NotIpv4);
        }
        if parsed.header_len == 0 {
            return Err(DropReason::Malformed);
        }
        self.check_source(parsed.src)?;
        if parsed.class == Class::Tsmp {
            self.handle_tsmp(packet, &parsed);
            return Ok(false);
        }
        if parsed.class == Class::Udp && carries_disco_of(&self.routes.disco_key, packet, &parsed) {
            return Err(DropReason::DiscoLoop);
        }
        let candidate = Candidate { parsed: &parsed, len: packet.len(), jailed: self.peer.is_jailed() };
        let (policy, flows) = (&self.routes.policy, &self.shared.flows);
        if let Err(reason) = self.last_flow.or_check(&parsed, || policy.check_in(candidate, flows)) {
            if parsed.is_tcp_syn() && !self.is_peerapi(&parsed) {
                self.tell_refused(packet);
            }
            if !self.is_peerapi(&parsed) {
                return Err(reason);
            }
        }
        Ok(true)
    }

    /// Cryptokey routing: the security boundary between peers (data-plane sheet §1.8).
    fn check_source(&mut self, source: Ipv4Addr) -> Result<(), DropReason> {
        if self.known_source == Some(source) {
            return Ok(());
        }
        if !self.peer.may_send_from(source) {
            return Err(DropReason::ForeignSource);
        }
        self.known_source = Some(source);
        Ok(())
    }

    /// A connection to our peerAPI, which authorizes on its own (data-plane sheet §8.3).
    fn is_peerapi(&self, parsed: &Parsed) -> bool {
        let config = &self.routes.config;
        parsed.is_tcp_syn()
            && config.peerapi_port != 0
            && parsed.dst_port == config.peerapi_port
            && self.routes.is_own(parsed.dst)
    }

    /// Never reaches the host, whatever it says.
    fn handle_tsmp(&self, packet: &[u8], parsed: &Parsed) {
        let Some(message) = tsmp::Message::from_packet(parsed, packet) else {
            return self.shared.inbound.drop_packets(DropReason::Malformed, 1);
        };
        let notice = Notice::Tsmp { peer: Arc::clone(self.peer), from: parsed.src, to: parsed.dst, message };
        if !self.shared.notices.push(notice) {
            self.shared.inbound.drop_packets(DropReason::SlowPathFull, 1);
        }
    }

    /// The answer is a courtesy: it is lost when the machine is busy.
    fn tell_refused(&self, packet: &[u8]) {
        let headers = &packet[..packet.len().min(REFUSED_LEN)];
        self.shared.notices.push(Notice::Refused { peer: Arc::clone(self.peer), packet: headers.into() });
    }
}
