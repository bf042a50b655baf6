//! The three places of a peer's sessions, and the packets that wait for one.

use std::sync::Arc;
use std::time::Instant;

use tsrs_tunnel_packet::DropReason;

use super::{Device, Event};
use crate::limits::{MAX_STAGED_BYTES, MAX_STAGED_PACKETS, ZERO_KEYS_AFTER};
use crate::peers::{Active, PeerId};
use crate::session::{Outgoing, Session};
use crate::wire::DATA_HEADER_LEN;

impl Device {
    /// A session that we answered: it receives, and sends once the peer has used it.
    pub(super) fn put_next(&mut self, id: PeerId, active: &mut Active, session: Arc<Session>, now: Instant) {
        self.note_new_session(id, active, &session, now);
        active.crossed = false;
        let replaced = active.next.replace(session);
        self.end_session(replaced);
    }

    /// A session that we began: it sends at once, and must send something so that the peer may send too.
    pub(super) fn put_current(
        &mut self,
        id: PeerId,
        active: &mut Active,
        session: Arc<Session>,
        now: Instant,
    ) {
        self.note_new_session(id, active, &session, now);
        self.rotate(active, session);
        if active.staged.is_empty() {
            self.send_keepalive(active, now);
        } else {
            self.flush_staged(active, now);
        }
    }

    /// The peer has used the session that we answered.
    ///
    /// If a session of ours was made in the same moment, both sides would go over to the one that the other began, and
    /// nobody would renew it. So the session that the side with the greater key began stays.
    pub(super) fn promote_next(&mut self, active: &mut Active, now: Instant) {
        let Some(session) = active.next.take() else {
            return;
        };
        self.drop_handshake(active);
        if active.crossed && active.current.is_some() && self.own.public > active.peer {
            let replaced = active.previous.replace(session);
            self.end_session(replaced);
        } else {
            self.rotate(active, session);
        }
        active.crossed = false;
        self.flush_staged(active, now);
    }

    fn note_new_session(&mut self, id: PeerId, active: &mut Active, session: &Arc<Session>, now: Instant) {
        active.zero_at = now + ZERO_KEYS_AFTER;
        active.silence_jitter = self.jitter();
        if let Some(slot) = self.peers.slot_mut(id) {
            slot.last_handshake = Some(now);
        }
        self.events.push_back(Event::SessionAdded(Arc::clone(session)));
    }

    fn rotate(&mut self, active: &mut Active, session: Arc<Session>) {
        self.events.push_back(Event::SendSession { peer: active.peer, session: Some(Arc::clone(&session)) });
        let before = active.current.replace(session);
        let replaced = std::mem::replace(&mut active.previous, before);
        self.end_session(replaced);
    }

    /// Ends a session for everybody who holds it.
    pub(super) fn end_session(&mut self, session: Option<Arc<Session>>) {
        if let Some(session) = session {
            session.revoke();
            self.indices.remove(&session.local_index());
            let (peer, local_index) = (session.peer(), session.local_index());
            self.events.push_back(Event::SessionRemoved { peer, local_index });
        }
    }

    /// Ends the sessions of a peer that are too old.
    pub(super) fn end_expired(&mut self, active: &mut Active, now: Instant) {
        let old = |session: &mut Arc<Session>| session.is_expired(now);
        let expired = [active.next.take_if(old), active.previous.take_if(old)];
        let current = active.current.take_if(old);
        if current.is_some() {
            self.events.push_back(Event::SendSession { peer: active.peer, session: None });
        }
        for session in expired.into_iter().chain([current]) {
            self.end_session(session);
        }
    }

    pub(super) fn send_or_stage(
        &mut self,
        id: PeerId,
        active: &mut Active,
        packet: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        if packet.is_empty() || packet.len() > usize::from(u16::MAX) {
            return Err(DropReason::TooBig);
        }
        if self.send_by_session(active, packet, now).is_ok() {
            self.run_rekey(id, active, now);
            return Ok(());
        }
        let staged = self.stage(active, packet);
        self.want_handshake(id, active, now);
        staged
    }

    /// Keeps a packet until there is a session. The oldest gives way when its peer has too many; either way an error stands
    /// for one dropped packet.
    fn stage(&mut self, active: &mut Active, packet: &[u8]) -> Result<(), DropReason> {
        let is_full = active.staged.len() >= MAX_STAGED_PACKETS;
        let freed = active.staged.front().filter(|_| is_full).map_or(0, |oldest| oldest.len());
        if self.staged_bytes - freed + packet.len() > MAX_STAGED_BYTES {
            return Err(DropReason::StagedFull);
        }
        if is_full {
            active.staged.pop_front();
        }
        self.staged_bytes = self.staged_bytes - freed + packet.len();
        active.staged.push_back(packet.into());
        if is_full { Err(DropReason::StagedFull) } else { Ok(()) }
    }

    fn flush_staged(&mut self, active: &mut Active, now: Instant) {
        while let Some(packet) = active.staged.pop_front() {
            self.staged_bytes -= packet.len();
            if self.send_by_session(active, &packet, now).is_err() {
                // No session after all: it waits on.
                self.staged_bytes += packet.len();
                active.staged.push_front(packet);
                return;
            }
        }
    }

    /// Drops what waits; gives how many packets.
    pub(super) fn drop_staged(&mut self, active: &mut Active) -> usize {
        let count = active.staged.len();
        self.staged_bytes -= active.staged.drain(..).map(|packet| packet.len()).sum::<usize>();
        count
    }

    pub(super) fn abandon_handshake(&mut self, active: &mut Active) {
        let dropped_packets = self.drop_staged(active);
        self.events.push_back(Event::HandshakeAbandoned { peer: active.peer, dropped_packets });
    }

    pub(super) fn send_keepalive(&mut self, active: &Active, now: Instant) {
        // Without a session there is nothing to be kept alive.
        let _ = self.send_by_session(active, &[], now);
    }

    fn send_by_session(&mut self, active: &Active, packet: &[u8], now: Instant) -> Result<(), DropReason> {
        let session = active.current.as_ref().ok_or(DropReason::SessionExpired)?;
        let message = Outgoing::new(0, packet.len(), self.mtu);
        let mut payload = vec![0; message.datagram_len()];
        payload[DATA_HEADER_LEN..DATA_HEADER_LEN + packet.len()].copy_from_slice(packet);
        // The device sets the timer of the peer after every call, so nobody has to be told.
        let _ = session.seal(&mut payload, &[message], now)?;
        self.send_to_peer(active, payload);
        Ok(())
    }
}
