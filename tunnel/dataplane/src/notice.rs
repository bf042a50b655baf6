//! What workers hand to the machine: everything that the fast path cannot finish.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::ArrayQueue;
use tsrs_tunnel_packet::tsmp;
use tsrs_tunnel_path::{SendError, Source};
use tsrs_tunnel_wireguard::Session;

use crate::tables::PeerSlot;

/// Handshake messages that wait for the machine at most (data-plane sheet §1.6). Anybody can send them, so they have a
/// queue of their own: a flood of them does not push out the pings that keep paths alive.
pub const MAX_HANDSHAKES: usize = 1024;

/// Other notices that wait at most. More come only when the machine cannot keep up.
pub const MAX_NOTICES: usize = 1024;

/// One thing for the machine to do.
#[derive(Debug)]
pub enum Notice {
    /// A STUN or disco datagram.
    Datagram {
        /// Where it came from.
        source: Source,
        /// All of it.
        datagram: Box<[u8]>,
    },
    /// Packets for a peer without a session: keep them and make one.
    Staged {
        /// Whom for.
        peer: Arc<PeerSlot>,
        /// Whole IP packets.
        packets: Vec<Box<[u8]>>,
    },
    /// Data is being sent to a peer that was idle.
    Active(Arc<PeerSlot>),
    /// A session saw its first data in a direction since the machine last looked at its timers.
    SessionUsed(Arc<Session>),
    /// An answer to a packet of the host that goes nowhere.
    ToHost(Box<[u8]>),
    /// The host sent a packet to the service address.
    Service(Box<[u8]>),
    /// A peer sent a message of the agents.
    Tsmp {
        /// Who.
        peer: Arc<PeerSlot>,
        /// The packet's source address.
        from: Ipv4Addr,
        /// The packet's destination address.
        to: Ipv4Addr,
        /// The message.
        message: tsmp::Message,
    },
    /// The filter refused to let a peer open a connection; it is told.
    Refused {
        /// Who.
        peer: Arc<PeerSlot>,
        /// IP and TCP headers.
        packet: Box<[u8]>,
    },
    /// A datagram could not be sent.
    SendFailed {
        /// Where to.
        to: SocketAddrV4,
        /// What the system said.
        error: SendError,
    },
}

/// A handshake message.
#[derive(Debug)]
pub struct Handshake {
    /// Where it came from.
    pub source: Source,
    /// All of it.
    pub message: Box<[u8]>,
}

/// The queues to the machine. Workers never wait for it.
pub struct Notices {
    queue: ArrayQueue<Notice>,
    handshakes: ArrayQueue<Handshake>,
    pushed: AtomicBool,
    /// A notice about a session found the queue full. It may not be lost, so the machine looks at all sessions.
    missed_session: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Notices {
    /// Empty queues; `wake` is called after notices were put in.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            queue: ArrayQueue::new(MAX_NOTICES),
            handshakes: ArrayQueue::new(MAX_HANDSHAKES),
            pushed: AtomicBool::new(false),
            missed_session: AtomicBool::new(false),
            wake: Box::new(wake),
        }
    }

    /// Puts a notice in. False when the queue is full: the notice is lost, and the caller counts it.
    pub fn push(&self, notice: Notice) -> bool {
        let taken = self.queue.push(notice).is_ok();
        self.pushed.store(true, Ordering::Relaxed);
        taken
    }

    /// Puts a handshake message in, unless the queue is full: then it is lost, and the caller counts it.
    pub fn push_handshake(&self, source: Source, message: &[u8]) -> bool {
        // Looked at first, so that a flood costs no copies.
        let taken = !self.handshakes.is_full()
            && self.handshakes.push(Handshake { source, message: message.into() }).is_ok();
        self.pushed.store(true, Ordering::Relaxed);
        taken
    }

    /// The session wants the machine's attention.
    pub(crate) fn push_session(&self, session: &Arc<Session>) {
        if !self.push(Notice::SessionUsed(Arc::clone(session))) {
            self.missed_session.store(true, Ordering::Relaxed);
        }
    }

    /// Data goes to a peer that the machine takes for idle. When the queue is full the next packet says it again.
    pub(crate) fn push_active(&self, peer: &Arc<PeerSlot>) {
        if !self.push(Notice::Active(Arc::clone(peer))) {
            peer.set_idle();
        }
    }

    /// Whether a notice about a session was lost since the last call.
    pub(crate) fn take_missed_session(&self) -> bool {
        self.missed_session.load(Ordering::Relaxed) && self.missed_session.swap(false, Ordering::Relaxed)
    }

    /// Wakes the machine if there is something for it. Workers call it once per batch.
    pub fn flush(&self) {
        if self.pushed.load(Ordering::Relaxed) && self.pushed.swap(false, Ordering::Relaxed) {
            (self.wake)();
        }
    }

    /// How many handshake messages wait.
    pub fn handshake_count(&self) -> usize {
        self.handshakes.len()
    }

    /// The next handshake message.
    pub fn pop_handshake(&self) -> Option<Handshake> {
        self.handshakes.pop()
    }

    /// The next notice.
    pub fn pop(&self) -> Option<Notice> {
        self.queue.pop()
    }
}

impl std::fmt::Debug for Notices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notices").field("len", &self.queue.len()).finish_non_exhaustive()
    }
}
