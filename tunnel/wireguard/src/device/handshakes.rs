//! Handshake messages, in and out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tsrs_base_noise::Split;
use tsrs_base_types::NodePublic;
use tsrs_tunnel_packet::DropReason;

use super::{Destination, Device, Transmit};
use crate::cookie::Source;
use crate::handshake::{ZERO_PSK, initiate, read_initiation, read_response};
use crate::limits::{
    INITIATION_SPACING, MAX_HANDSHAKE_ATTEMPTS, REKEY_JITTER_MAX, REKEY_TIMEOUT, UNREACHED_RETRY,
};
use crate::peers::{Active, Handshake, PeerId, SentInitiation};
use crate::session::{Role, Session, SessionParts};
use crate::wire::{Kind, cookie_reply, field, response};

impl Device {
    pub(super) fn take_handshake(
        &mut self,
        message: &[u8],
        source: Source,
        admit: &mut dyn FnMut(&NodePublic) -> bool,
        now: Instant,
    ) -> Result<NodePublic, DropReason> {
        match Kind::of(message) {
            Some(Kind::Initiation) => {
                self.check_macs(message, &source, now)?;
                self.take_initiation(message, admit, now)
            }
            Some(Kind::Response) => {
                self.check_macs(message, &source, now)?;
                self.take_response(message, now)
            }
            Some(Kind::CookieReply) => self.take_cookie_reply(message, now),
            Some(Kind::Data) | None => Err(DropReason::BadMessage),
        }
    }

    /// Everybody must know our public key; under load, everybody must own the address and stay within its share.
    fn check_macs(&mut self, message: &[u8], source: &Source, now: Instant) -> Result<(), DropReason> {
        if !self.own_macs.mac1_verifies(message) {
            return Err(DropReason::BadMac1);
        }
        if self.loaded_until.is_none_or(|until| now >= until) {
            return Ok(());
        }
        if !self.cookies.mac2_verifies(message, source, now) {
            let rng = self.rng.as_mut().as_rngcore();
            if let Some(payload) = self.cookies.reply(message, source, &self.own_macs, rng, now) {
                self.transmits.push_back(Transmit { to: Destination::Source(*source), payload });
            }
            return Err(DropReason::CookieRequired);
        }
        if self.rate.allow(source.rate_key(), now) { Ok(()) } else { Err(DropReason::HandshakeRate) }
    }

    /// Answers an initiation. A handshake of our own goes on beside it: whichever ends first is used.
    fn take_initiation(
        &mut self,
        message: &[u8],
        admit: &mut dyn FnMut(&NodePublic) -> bool,
        now: Instant,
    ) -> Result<NodePublic, DropReason> {
        let claimed = read_initiation(&self.own, message).map_err(|_| DropReason::Unauthenticated)?;
        let peer = claimed.peer;
        let known = self.peers.id_of(&peer);
        if peer == self.own.public || (known.is_none() && !admit(&peer)) {
            return Err(DropReason::UnknownPeer);
        }
        let cached = known.and_then(|id| self.peers.slot(id)?.active.as_deref());
        let static_static = match cached {
            Some(active) => active.static_static.clone(),
            None => self.own.static_static(&peer).map_err(|_| DropReason::Unauthenticated)?,
        };
        let proven = claimed.prove(&static_static, message).map_err(|_| DropReason::Unauthenticated)?;

        // Only now is the peer proven and may cost memory.
        let id = self.peers.insert(peer).ok_or(DropReason::UnknownPeer)?;
        let slot = self.peers.slot_mut(id).ok_or(DropReason::UnknownPeer)?;
        if proven.timestamp <= slot.last_timestamp {
            return Err(DropReason::HandshakeReplay);
        }
        let answered = slot.active.as_deref().and_then(|active| active.last_initiation_answered);
        if answered.is_some_and(|at| now.saturating_duration_since(at) < INITIATION_SPACING) {
            return Err(DropReason::HandshakeFlood);
        }
        slot.last_timestamp = proven.timestamp;
        self.activate(id, Some(static_static), now)?;

        let local_index = self.new_index(id);
        let ephemeral = self.new_ephemeral();
        let remote_index = proven.remote_index;
        let Ok((mut response, split)) = proven.respond(&ephemeral, &ZERO_PSK, local_index) else {
            self.indices.remove(&local_index);
            return Err(DropReason::Unauthenticated);
        };
        self.with_active(id, now, |device, active| {
            active.last_initiation_answered = Some(now);
            active.cookies.finish(&mut response, now);
            let session = new_session(active, Role::Responder, local_index, remote_index, &split, now);
            device.put_next(id, active, session, now);
            let _ = active.activity.note_received(false, message.len(), now);
            let _ = active.activity.note_sent(false, response.len(), now);
            device.send_to_peer(active, response.to_vec());
        });
        Ok(peer)
    }

    /// Ends a handshake of ours.
    fn take_response(&mut self, message: &[u8], now: Instant) -> Result<NodePublic, DropReason> {
        let index =
            field(message, response::RECEIVER).map(u32::from_le_bytes).ok_or(DropReason::BadMessage)?;
        let id = *self.indices.get(&index).ok_or(DropReason::UnexpectedReply)?;
        self.with_active(id, now, |device, active| {
            let sent = active.sent_initiation(index).ok_or(DropReason::UnexpectedReply)?;
            let sent_at = sent.sent_at;
            let (remote_index, split) =
                read_response(&sent.state, message, &ZERO_PSK).map_err(|_| DropReason::Unauthenticated)?;
            // The index stays in use: the session takes it over.
            active.handshake = None;
            let _ = active.activity.note_received(false, message.len(), now);
            let session = new_session(active, Role::Initiator, index, remote_index, &split, now);
            active.crossed = active.next.as_ref().is_some_and(|next| next.created() >= sent_at);
            device.put_current(id, active, session, now);
            Ok(active.peer)
        })
        .unwrap_or(Err(DropReason::UnexpectedReply))
    }

    fn take_cookie_reply(&mut self, message: &[u8], now: Instant) -> Result<NodePublic, DropReason> {
        let index =
            field(message, cookie_reply::RECEIVER).map(u32::from_le_bytes).ok_or(DropReason::BadMessage)?;
        let id = *self.indices.get(&index).ok_or(DropReason::UnexpectedReply)?;
        let slot = self.peers.slot_mut(id).ok_or(DropReason::UnexpectedReply)?;
        let active = slot.active.as_deref_mut().ok_or(DropReason::UnexpectedReply)?;
        if active.cookies.take_cookie(message, now) { Ok(slot.key) } else { Err(DropReason::Unauthenticated) }
    }

    /// Begins a handshake unless one is on its way. It is sent at once, or when the last one is old enough.
    pub(super) fn want_handshake(&mut self, id: PeerId, active: &mut Active, now: Instant) {
        if let Some(handshake) = &mut active.handshake {
            // Somebody still wants it: the count begins again, with the initiation that is under way.
            handshake.attempts = handshake.attempts.min(1);
            return;
        }
        let spaced = |at: Option<Instant>| at.map_or(now, |at| now.max(at + REKEY_TIMEOUT));
        // A session that the peer has begun may be confirmed any moment.
        let answered = active.next.as_ref().map(|next| next.created());
        let next_at = spaced(active.last_initiation_sent).max(spaced(answered));
        active.handshake =
            Some(Handshake { sent: None, attempts: 0, unreached_retry: UNREACHED_RETRY, next_at });
        self.run_handshake(id, active, now);
    }

    /// Sends an initiation that is due, or gives the handshake up.
    pub(super) fn run_handshake(&mut self, id: PeerId, active: &mut Active, now: Instant) {
        let Some(handshake) = &active.handshake else {
            return;
        };
        if now < handshake.next_at {
            return;
        }
        let (attempts, unreached_retry) = (handshake.attempts, handshake.unreached_retry);
        self.drop_handshake(active);
        if attempts >= MAX_HANDSHAKE_ATTEMPTS {
            self.abandon_handshake(active);
            return;
        }
        let local_index = self.new_index(id);
        let ephemeral = self.new_ephemeral();
        let stamp = self.wall.stamp(now);
        let started = initiate(&self.own, &active.peer, &active.static_static, ephemeral, stamp, local_index);
        let Ok((state, mut message)) = started else {
            // The peer's key is a point of small order: there can be no session with it.
            self.indices.remove(&local_index);
            self.abandon_handshake(active);
            return;
        };
        active.cookies.finish(&mut message, now);
        active.last_initiation_sent = Some(now);
        active.handshake = Some(Handshake {
            sent: Some(SentInitiation { state, local_index, sent_at: now }),
            attempts: attempts + 1,
            unreached_retry,
            next_at: now + REKEY_TIMEOUT + self.jitter(),
        });
        let _ = active.activity.note_sent(false, message.len(), now);
        self.send_to_peer(active, message.to_vec());
    }

    /// Forgets a handshake of ours; its response will not be taken.
    pub(super) fn drop_handshake(&mut self, active: &mut Active) {
        if let Some(sent) = active.handshake.take().and_then(|handshake| handshake.sent) {
            self.indices.remove(&sent.local_index);
        }
    }

    pub(super) fn jitter(&mut self) -> Duration {
        let millis = u64::try_from(REKEY_JITTER_MAX.as_millis()).unwrap_or(0);
        Duration::from_millis(u64::from(self.rng.next_u32()) % (millis + 1))
    }

    pub(super) fn send_to_peer(&mut self, active: &Active, payload: Vec<u8>) {
        self.transmits.push_back(Transmit { to: Destination::Peer(active.peer), payload });
    }
}

fn new_session(
    active: &Active,
    role: Role,
    local_index: u32,
    remote_index: u32,
    split: &Split,
    now: Instant,
) -> Arc<Session> {
    let (send_key, receive_key) = match role {
        Role::Initiator => (&split.initiator_to_responder, &split.responder_to_initiator),
        Role::Responder => (&split.responder_to_initiator, &split.initiator_to_responder),
    };
    Arc::new(Session::new(SessionParts {
        peer: active.peer,
        local_index,
        remote_index,
        role,
        created: now,
        send_key,
        receive_key,
        activity: Arc::clone(&active.activity),
    }))
}
