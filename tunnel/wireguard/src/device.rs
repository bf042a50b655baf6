//! The slow machine: peers, handshakes and timers.

mod handshakes;
mod sessions;
mod timers;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use rand_core::CryptoRngCore;
use tsrs_base_noise::Secret;
use tsrs_base_types::{NodePrivate, NodePublic};
use tsrs_tunnel_packet::DropReason;
use zeroize::Zeroizing;

use crate::cookie::{CookieMaker, MacKeys, Source};
use crate::handshake::Identity;
use crate::limits::{MAX_PEERS, MAX_TIMEOUTS_PER_CALL, UNDER_LOAD_BACKLOG, UNDER_LOAD_LINGER};
use crate::peers::{Active, PeerId, PeerTable};
use crate::rate::RateLimiter;
use crate::session::Session;
use crate::tai64n::WallClock;

/// A datagram to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: Destination,
    /// What: any of the four messages.
    pub payload: Vec<u8>,
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To a peer, by the path in use to it.
    Peer(NodePublic),
    /// Back to where a message came from.
    Source(Source),
}

/// What changed for the workers.
#[derive(Clone, Debug)]
pub enum Event {
    /// Data messages for [`Session::local_index`] are opened by this session from now on.
    SessionAdded(Arc<Session>),
    /// What is sent to the peer goes by this session; `None`: nothing can be sent before the next handshake.
    SendSession {
        /// The peer.
        peer: NodePublic,
        /// Its session.
        session: Option<Arc<Session>>,
    },
    /// No session has this index any more.
    SessionRemoved {
        /// The peer.
        peer: NodePublic,
        /// The index that is free again.
        local_index: u32,
    },
    /// The peer did not answer in time. Packets that waited for it were dropped.
    HandshakeAbandoned {
        /// The peer.
        peer: NodePublic,
        /// Packets dropped for [`DropReason::HandshakeTimeout`].
        dropped_packets: usize,
    },
}

/// What there is to say about a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStatus {
    /// When the last session was made.
    pub last_handshake: Option<Timestamp>,
    /// Bytes of all messages sent to it.
    pub sent_bytes: u64,
    /// Bytes of all authentic messages received from it.
    pub received_bytes: u64,
    /// Whether a session exists that sends.
    pub has_session: bool,
}

/// No room for another peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_PEERS} peers")]
pub struct TooManyPeers;

/// The WireGuard machine of one node.
pub struct Device {
    own: Identity,
    own_macs: MacKeys,
    mtu: u16,
    rng: Box<dyn CryptoRngCore + Send>,
    wall: WallClock,
    peers: PeerTable,
    /// Which peer an index of ours belongs to, for handshakes and sessions.
    indices: HashMap<u32, PeerId>,
    /// One entry for each peer that is not idle.
    timers: BTreeSet<(Instant, PeerId)>,
    cookies: CookieMaker,
    rate: RateLimiter,
    loaded_until: Option<Instant>,
    staged_bytes: usize,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Device {
    /// A device without peers. `mtu` is that of the TUN: padding does not go beyond it. `wall` is the time of day at `now`.
    pub fn new(
        private: NodePrivate,
        mtu: u16,
        rng: Box<dyn CryptoRngCore + Send>,
        wall: Timestamp,
        now: Instant,
    ) -> Self {
        let own = Identity::new(private);
        Self {
            own_macs: MacKeys::new(&own.public),
            own,
            mtu,
            rng,
            wall: WallClock::new(wall, now),
            peers: PeerTable::default(),
            indices: HashMap::new(),
            timers: BTreeSet::new(),
            cookies: CookieMaker::new(),
            rate: RateLimiter::default(),
            loaded_until: None,
            staged_bytes: 0,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Our own node key.
    pub const fn public_key(&self) -> NodePublic {
        self.own.public
    }

    /// Changes our own key. All sessions end; peers stay.
    pub fn set_private_key(&mut self, private: NodePrivate) {
        for id in self.peers.active_ids() {
            self.deactivate(id);
        }
        self.own = Identity::new(private);
        self.own_macs = MacKeys::new(&self.own.public);
        self.cookies = CookieMaker::new();
    }

    /// Changes the MTU of the TUN.
    pub const fn set_mtu(&mut self, mtu: u16) {
        self.mtu = mtu;
    }

    /// Corrects the time of day; to be called when the system clock was set, and after a sleep.
    pub fn note_wall_clock(&mut self, wall: Timestamp, now: Instant) {
        self.wall.set(wall, now);
    }

    /// How many handshake messages wait in the caller's queue. From [`UNDER_LOAD_BACKLOG`] on, addresses must be proven.
    pub fn note_backlog(&mut self, waiting_count: usize, now: Instant) {
        if waiting_count >= UNDER_LOAD_BACKLOG {
            self.loaded_until = Some(now + UNDER_LOAD_LINGER);
        }
    }

    /// Makes a peer known, so that its initiations are answered. It costs little until there is traffic.
    pub fn add_peer(&mut self, peer: NodePublic) -> Result<(), TooManyPeers> {
        if peer == self.own.public {
            return Ok(());
        }
        self.peers.insert(peer).map(|_| ()).ok_or(TooManyPeers)
    }

    /// Forgets a peer. Its sessions end at once, also for workers that still hold them.
    pub fn remove_peer(&mut self, peer: &NodePublic) {
        if let Some(id) = self.peers.id_of(peer) {
            self.deactivate(id);
            self.peers.remove(id);
        }
    }

    /// Ends the sessions of a peer that was started anew; the next packet begins a handshake.
    pub fn reset_peer(&mut self, peer: &NodePublic) {
        if let Some(id) = self.peers.id_of(peer) {
            self.deactivate(id);
        }
    }

    /// How many peers are known.
    pub fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// What there is to say about a peer; `None` if it is not known.
    pub fn peer_status(&self, peer: &NodePublic) -> Option<PeerStatus> {
        let slot = self.peers.slot(self.peers.id_of(peer)?)?;
        let active = slot.active.as_deref();
        let traffic = active.map(|active| &active.activity);
        Some(PeerStatus {
            last_handshake: slot.last_handshake.map(|at| self.wall.at(at)),
            sent_bytes: slot.past_sent_bytes + traffic.map_or(0, |traffic| traffic.sent_bytes()),
            received_bytes: slot.past_received_bytes + traffic.map_or(0, |traffic| traffic.received_bytes()),
            has_session: active.is_some_and(|active| active.current.is_some()),
        })
    }

    /// Takes a handshake message: initiation, response or cookie reply. `admit` is asked about the key of an initiation that is no
    /// peer's: if it agrees, and the key is then proven, the peer is made; it stays until [`Self::remove_peer`]. Gives the peer that
    /// sent the message.
    pub fn handle_handshake(
        &mut self,
        message: &[u8],
        source: Source,
        admit: &mut dyn FnMut(&NodePublic) -> bool,
        now: Instant,
    ) -> Result<NodePublic, DropReason> {
        self.take_handshake(message, source, admit, now)
    }

    /// Sends a packet by the session of its peer, which is made if it is not known. Without a session the packet waits, and a
    /// handshake begins. An error stands for one dropped packet: this one, or with [`DropReason::StagedFull`] perhaps one that
    /// waited longer.
    pub fn send(&mut self, peer: &NodePublic, packet: &[u8], now: Instant) -> Result<(), DropReason> {
        let id = self.activate_by_key(peer, now)?;
        self.with_active(id, now, |device, active| device.send_or_stage(id, active, packet, now))
            .unwrap_or(Err(DropReason::NoPeer))
    }

    /// Begins a handshake with a peer although there may be nothing to send.
    pub fn start_handshake(&mut self, peer: &NodePublic, now: Instant) -> Result<(), DropReason> {
        let id = self.activate_by_key(peer, now)?;
        self.with_active(id, now, |device, active| device.want_handshake(id, active, now));
        Ok(())
    }

    /// What went to this peer last did not reach it, as its relay says. An initiation that waits for its response is then
    /// repeated sooner: a peer that has just come up would otherwise be kept waiting for five seconds.
    pub fn note_unreached(&mut self, peer: &NodePublic, now: Instant) {
        if let Some(id) = self.peers.id_of(peer) {
            self.with_active(id, now, |_, active| active.hasten_handshake());
        }
    }

    /// Looks at a session whose methods returned [`Notice::Wake`](crate::Notice::Wake). Does nothing for an index that is gone.
    pub fn handle_notice(&mut self, local_index: u32, now: Instant) {
        if let Some(id) = self.indices.get(&local_index).copied() {
            self.run_peer(id, now);
        }
    }

    /// Runs the timers that are due. When many are, it takes more than one call: [`Self::poll_timeout`] then lies in the past.
    pub fn handle_timeout(&mut self, now: Instant) {
        for _ in 0..MAX_TIMEOUTS_PER_CALL {
            if self.poll_timeout().is_none_or(|at| at > now) {
                return;
            }
            if let Some((_, id)) = self.timers.pop_first() {
                if let Some(active) = self.peers.slot_mut(id).and_then(|slot| slot.active.as_mut()) {
                    active.deadline = None;
                }
                self.run_peer(id, now);
            }
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next change for the workers.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Runs `work` with the state of a peer that is not idle, and sets its timer afterwards.
    fn with_active<R>(
        &mut self,
        id: PeerId,
        now: Instant,
        work: impl FnOnce(&mut Self, &mut Active) -> R,
    ) -> Option<R> {
        let mut active = self.peers.slot_mut(id)?.active.take()?;
        let result = work(self, &mut active);
        self.set_timer(id, &mut active, now);
        if let Some(slot) = self.peers.slot_mut(id) {
            slot.active = Some(active);
        }
        Some(result)
    }

    fn activate_by_key(&mut self, peer: &NodePublic, now: Instant) -> Result<PeerId, DropReason> {
        if *peer == self.own.public {
            return Err(DropReason::NoPeer);
        }
        let id = self.peers.insert(*peer).ok_or(DropReason::NoPeer)?;
        self.activate(id, None, now)?;
        Ok(id)
    }

    /// Gives a peer the state of one with traffic. The shared secret is computed unless the caller has it.
    fn activate(
        &mut self,
        id: PeerId,
        static_static: Option<Secret>,
        now: Instant,
    ) -> Result<(), DropReason> {
        let slot = self.peers.slot_mut(id).ok_or(DropReason::NoPeer)?;
        if slot.active.is_none() {
            let static_static = match static_static {
                Some(shared) => shared,
                None => self.own.static_static(&slot.key).map_err(|_| DropReason::NoPeer)?,
            };
            slot.active = Some(Box::new(Active::new(slot.key, static_static, now)));
        }
        Ok(())
    }

    /// Makes a peer idle: its sessions end, its secrets are wiped, what waited is dropped. Gives the number of dropped packets.
    fn deactivate(&mut self, id: PeerId) -> usize {
        let Some(slot) = self.peers.slot_mut(id) else {
            return 0;
        };
        let Some(mut active) = slot.active.take() else {
            return 0;
        };
        slot.past_sent_bytes += active.activity.sent_bytes();
        slot.past_received_bytes += active.activity.received_bytes();
        if let Some(at) = active.deadline.take() {
            self.timers.remove(&(at, id));
        }
        self.drop_handshake(&mut active);
        let had_current = active.current.is_some();
        for session in [active.next.take(), active.current.take(), active.previous.take()] {
            self.end_session(session);
        }
        if had_current {
            self.events.push_back(Event::SendSession { peer: active.peer, session: None });
        }
        self.drop_staged(&mut active)
    }

    /// A random index that nothing else has.
    fn new_index(&mut self, id: PeerId) -> u32 {
        loop {
            let index = self.rng.next_u32();
            if let std::collections::hash_map::Entry::Vacant(entry) = self.indices.entry(index) {
                entry.insert(id);
                return index;
            }
        }
    }

    fn new_ephemeral(&mut self) -> Secret {
        let mut ephemeral = Zeroizing::new([0; 32]);
        self.rng.fill_bytes(ephemeral.as_mut_slice());
        ephemeral
    }

    /// Indices in use; none may be left when all peers are idle.
    #[cfg(test)]
    pub(crate) fn index_count(&self) -> usize {
        self.indices.len()
    }
}
