//! What the device keeps of its peers: little for an idle one, a box for one with traffic.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tsrs_base_noise::{Initiator, Secret};
use tsrs_base_types::NodePublic;

use crate::activity::Activity;
use crate::cookie::CookieJar;
use crate::limits::{MAX_PEERS, REKEY_TIMEOUT, ZERO_KEYS_AFTER};
use crate::session::Session;
use crate::tai64n::Tai64n;

/// Place of a peer in the table; used again after the peer was removed.
pub(crate) type PeerId = u32;

/// A peer, idle or not.
pub(crate) struct Slot {
    pub(crate) key: NodePublic,
    /// Of its last initiation; kept while the peer exists, so that an old one cannot be replayed.
    pub(crate) last_timestamp: Tai64n,
    /// When its last session was made.
    pub(crate) last_handshake: Option<Instant>,
    /// Traffic before the current [`Active`].
    pub(crate) past_sent_bytes: u64,
    pub(crate) past_received_bytes: u64,
    pub(crate) active: Option<Box<Active>>,
}

/// A peer with a session, a handshake, or packets that wait for one.
pub(crate) struct Active {
    pub(crate) peer: NodePublic,
    pub(crate) static_static: Secret,
    pub(crate) cookies: CookieJar,
    pub(crate) handshake: Option<Handshake>,
    /// A session that we answered and that the peer has not used yet.
    pub(crate) next: Option<Arc<Session>>,
    /// The session that sends.
    pub(crate) current: Option<Arc<Session>>,
    /// The session before it, for packets that are still under way.
    pub(crate) previous: Option<Arc<Session>>,
    /// `next` and `current` come from handshakes that both sides began at the same time.
    pub(crate) crossed: bool,
    pub(crate) activity: Arc<Activity>,
    /// Packets that wait for a session.
    pub(crate) staged: VecDeque<Box<[u8]>>,
    pub(crate) last_initiation_sent: Option<Instant>,
    pub(crate) last_initiation_answered: Option<Instant>,
    /// Random part of the time after which silence is answered with a handshake.
    pub(crate) silence_jitter: Duration,
    /// When all of this is forgotten.
    pub(crate) zero_at: Instant,
    /// The entry in the table of timers.
    pub(crate) deadline: Option<Instant>,
}

/// A handshake of ours: waiting to be sent, or for its response.
pub(crate) struct Handshake {
    pub(crate) sent: Option<SentInitiation>,
    /// Initiations sent since somebody last asked for the handshake.
    pub(crate) attempts: u32,
    /// How long an initiation that did not reach the peer waits for the next.
    pub(crate) unreached_retry: Duration,
    /// When the next one is sent, or the handshake is given up.
    pub(crate) next_at: Instant,
}

/// An initiation that can be answered.
pub(crate) struct SentInitiation {
    pub(crate) state: Initiator,
    pub(crate) local_index: u32,
    pub(crate) sent_at: Instant,
}

impl Active {
    pub(crate) fn new(peer: NodePublic, static_static: Secret, now: Instant) -> Self {
        Self {
            peer,
            static_static,
            cookies: CookieJar::new(&peer),
            handshake: None,
            next: None,
            current: None,
            previous: None,
            crossed: false,
            activity: Arc::new(Activity::new(now)),
            staged: VecDeque::new(),
            last_initiation_sent: None,
            last_initiation_answered: None,
            silence_jitter: Duration::ZERO,
            zero_at: now + ZERO_KEYS_AFTER,
            deadline: None,
        }
    }

    /// The initiation that a response to this index answers.
    pub(crate) fn sent_initiation(&self, local_index: u32) -> Option<&SentInitiation> {
        self.handshake.as_ref()?.sent.as_ref().filter(|sent| sent.local_index == local_index)
    }

    /// The initiation that waits for its response did not reach the peer. It does not count, but each is followed later
    /// than the one before: a relay can say this of every one of them.
    pub(crate) fn hasten_handshake(&mut self) {
        let Some(handshake) = &mut self.handshake else { return };
        let Some(sent) = &handshake.sent else { return };
        let retry_at = sent.sent_at + handshake.unreached_retry;
        if handshake.unreached_retry < REKEY_TIMEOUT && retry_at < handshake.next_at {
            handshake.next_at = retry_at;
            handshake.attempts = handshake.attempts.saturating_sub(1);
            handshake.unreached_retry *= 2;
        }
    }

    /// All sessions.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = &Arc<Session>> {
        [&self.next, &self.current, &self.previous].into_iter().flatten()
    }
}

/// All peers, by key and by place.
#[derive(Default)]
pub(crate) struct PeerTable {
    ids: HashMap<NodePublic, PeerId>,
    slots: Vec<Option<Slot>>,
    free: Vec<PeerId>,
}

impl PeerTable {
    pub(crate) fn id_of(&self, peer: &NodePublic) -> Option<PeerId> {
        self.ids.get(peer).copied()
    }

    /// The place of a peer, made if it is new; `None` if there is no room.
    pub(crate) fn insert(&mut self, peer: NodePublic) -> Option<PeerId> {
        if let Some(id) = self.id_of(&peer) {
            return Some(id);
        }
        if self.ids.len() >= MAX_PEERS {
            return None;
        }
        let slot = Slot {
            key: peer,
            last_timestamp: Tai64n::default(),
            last_handshake: None,
            past_sent_bytes: 0,
            past_received_bytes: 0,
            active: None,
        };
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                let id = PeerId::try_from(self.slots.len()).ok()?;
                self.slots.push(None);
                id
            }
        };
        *self.slots.get_mut(place(id))? = Some(slot);
        self.ids.insert(peer, id);
        Some(id)
    }

    pub(crate) fn remove(&mut self, id: PeerId) {
        if let Some(slot) = self.slots.get_mut(place(id)).and_then(Option::take) {
            self.ids.remove(&slot.key);
            self.free.push(id);
        }
    }

    pub(crate) fn slot(&self, id: PeerId) -> Option<&Slot> {
        self.slots.get(place(id))?.as_ref()
    }

    pub(crate) fn slot_mut(&mut self, id: PeerId) -> Option<&mut Slot> {
        self.slots.get_mut(place(id))?.as_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Every peer that is not idle.
    pub(crate) fn active_ids(&self) -> Vec<PeerId> {
        let active = |id: &PeerId| self.slot(*id).is_some_and(|slot| slot.active.is_some());
        self.ids.values().copied().filter(active).collect()
    }
}

fn place(id: PeerId) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_peer_costs_at_most_200_bytes() {
        // The map keeps at most 7 of 8 buckets filled and doubles, so an entry costs up to 16/7 of its size and its control byte.
        let entry = (size_of::<(NodePublic, PeerId)>() + 1) * 16 / 7;
        assert!(size_of::<Option<Slot>>() + entry <= 200, "{} + {entry}", size_of::<Option<Slot>>());
    }

    #[test]
    fn places_are_used_again() {
        let mut table = PeerTable::default();
        let key = |byte| NodePublic::from_bytes([byte; 32]);
        let first = table.insert(key(1)).unwrap();
        assert_eq!(table.insert(key(1)), Some(first));
        let second = table.insert(key(2)).unwrap();
        table.remove(first);
        assert!(table.slot(first).is_none());
        assert_eq!(table.id_of(&key(1)), None);
        assert_eq!(table.insert(key(3)), Some(first));
        assert_eq!(table.slot(second).unwrap().key, key(2));
        assert_eq!(table.len(), 2);
    }
}
