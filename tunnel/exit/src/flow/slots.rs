//! The flows by number.

use std::net::SocketAddrV4;
use std::time::Instant;

use super::tcp::{Connection, Opening};

/// Names a flow while it lives; never given again to another one within the life of a stack's caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId {
    index: usize,
    generation: u64,
}

#[derive(Debug)]
pub(super) struct Flow {
    pub(super) peer: SocketAddrV4,
    pub(super) destination: SocketAddrV4,
    pub(super) state: State,
    /// When its timer goes off.
    pub(super) timer: Option<Instant>,
    /// Bytes of memory of its buffers, as they are accounted for.
    pub(super) bytes: usize,
    /// What it has for the caller.
    pub(super) offer: Offer,
    /// Whether a word to the caller is on its way.
    pub(super) told: bool,
    /// Whether it stands in the row of those that have something to send.
    pub(super) queued: bool,
    /// Whether it waits for memory.
    pub(super) starved: bool,
}

/// What a connection has for the caller.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    /// Bytes to take.
    pub(super) readable: usize,
    /// Whether no more will come.
    pub(super) ended: bool,
    /// Room for bytes.
    pub(super) capacity: usize,
}

impl Offer {
    /// Whether the caller could do something that it could not before.
    pub(super) const fn is_better_than(self, before: Self) -> bool {
        self.readable > before.readable || self.ended && !before.ended || self.capacity > before.capacity
    }
}

#[derive(Debug)]
pub(super) enum State {
    /// Its SYN is held.
    Held(Opening),
    /// It was answered.
    Live(Box<Connection>),
}

impl Flow {
    pub(super) const fn held(peer: SocketAddrV4, destination: SocketAddrV4, opening: Opening) -> Self {
        Self {
            peer,
            destination,
            state: State::Held(opening),
            timer: None,
            bytes: 0,
            offer: Offer { readable: 0, ended: false, capacity: 0 },
            told: false,
            queued: false,
            starved: false,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Option<(u64, Flow)>>,
    free: Vec<usize>,
    generation: u64,
}

impl Slots {
    pub(super) fn insert(&mut self, flow: Flow) -> FlowId {
        self.generation += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Some((self.generation, flow));
        }
        FlowId { index, generation: self.generation }
    }

    pub(super) fn get(&self, id: FlowId) -> Option<&Flow> {
        let (generation, flow) = self.slots.get(id.index)?.as_ref()?;
        (*generation == id.generation).then_some(flow)
    }

    pub(super) fn get_mut(&mut self, id: FlowId) -> Option<&mut Flow> {
        let (generation, flow) = self.slots.get_mut(id.index)?.as_mut()?;
        (*generation == id.generation).then_some(flow)
    }

    pub(super) fn remove(&mut self, id: FlowId) -> Option<Flow> {
        self.get(id)?;
        let (_, flow) = self.slots.get_mut(id.index)?.take()?;
        self.free.push(id.index);
        Some(flow)
    }
}
