//! UDP and SCTP flows that the host began, so that their replies may come in (data-plane sheet §8.4).

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tsrs_tunnel_packet::ipv4::Parsed;

/// Flows that are remembered; the least recently used one goes. The reference remembers as many.
pub const FLOW_COUNT: usize = 512;

/// Index that stands for "none" in the list.
const NONE: usize = usize::MAX;

/// A packet's addresses and ports, as replies to the flow have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    protocol: u8,
    src: Ipv4Addr,
    dst: Ipv4Addr,
    src_port: u16,
    dst_port: u16,
}

impl Key {
    fn of(parsed: &Parsed) -> Self {
        Self {
            protocol: parsed.protocol,
            src: parsed.src,
            dst: parsed.dst,
            src_port: parsed.src_port,
            dst_port: parsed.dst_port,
        }
    }

    fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src, src_port: self.dst_port, dst_port: self.src_port, ..self }
    }
}

/// The table that the sending and the receiving worker share. It is locked at most once per batch and direction, by
/// [`FlowTable::batch`], and allocates nothing after it was made.
#[derive(Debug)]
pub struct FlowTable(Mutex<Lru>);

impl Default for FlowTable {
    fn default() -> Self {
        Self(Mutex::new(Lru::new()))
    }
}

impl FlowTable {
    /// Access for one batch of packets; locks when the first packet needs it, and until it is dropped.
    pub fn batch(&self) -> Flows<'_> {
        Flows { table: self, last: None, guard: None }
    }
}

/// The flow table during one batch.
#[derive(Debug)]
pub struct Flows<'a> {
    table: &'a FlowTable,
    /// The flow that was noted or found last: the packets of a batch mostly belong together.
    last: Option<Key>,
    guard: Option<MutexGuard<'a, Lru>>,
}

impl Flows<'_> {
    /// Notes a flow by a packet of the host.
    pub(crate) fn note(&mut self, parsed: &Parsed) {
        let key = Key::of(parsed).reversed();
        if self.last != Some(key) {
            self.last = Some(key);
            self.lru().insert(key);
        }
    }

    /// Whether a packet of a peer belongs to a flow; it then counts as used.
    pub(crate) fn contains(&mut self, parsed: &Parsed) -> bool {
        let key = Key::of(parsed);
        if self.last == Some(key) {
            return true;
        }
        let found = self.lru().touch(key);
        if found {
            self.last = Some(key);
        }
        found
    }

    fn lru(&mut self) -> &mut Lru {
        let table = self.table;
        // The table is consistent after every step, so a worker that panicked left it usable.
        self.guard.get_or_insert_with(|| table.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
struct Entry {
    key: Key,
    newer: usize,
    older: usize,
}

/// A map with its entries in a list by last use.
#[derive(Debug)]
struct Lru {
    index: HashMap<Key, usize>,
    entries: Vec<Entry>,
    newest: usize,
    oldest: usize,
}

impl Lru {
    fn new() -> Self {
        // Twice the room: a map that is full of removed entries would have to grow.
        let index = HashMap::with_capacity(2 * FLOW_COUNT);
        Self { index, entries: Vec::with_capacity(FLOW_COUNT), newest: NONE, oldest: NONE }
    }

    fn touch(&mut self, key: Key) -> bool {
        let Some(&slot) = self.index.get(&key) else { return false };
        self.unlink(slot);
        self.link_newest(slot);
        true
    }

    fn insert(&mut self, key: Key) {
        if self.touch(key) {
            return;
        }
        let slot = if self.entries.len() < FLOW_COUNT {
            self.entries.push(Entry { key, newer: NONE, older: NONE });
            self.entries.len() - 1
        } else {
            let slot = self.oldest;
            self.unlink(slot);
            self.index.remove(&self.entries[slot].key);
            self.entries[slot].key = key;
            slot
        };
        self.index.insert(key, slot);
        self.link_newest(slot);
    }

    fn unlink(&mut self, slot: usize) {
        let Entry { newer, older, .. } = self.entries[slot];
        match newer {
            NONE => self.newest = older,
            newer => self.entries[newer].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.entries[older].newer = newer,
        }
    }

    fn link_newest(&mut self, slot: usize) {
        self.entries[slot].newer = NONE;
        self.entries[slot].older = self.newest;
        match self.newest {
            NONE => self.oldest = slot,
            newest => self.entries[newest].newer = slot,
        }
        self.newest = slot;
    }
}
