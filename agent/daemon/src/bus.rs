//! The bus: what the backend tells, to whom it may concern.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::broadcast;
use tsrs_agent_localapi::{Notify, WatchMask};
use tsrs_base_types::NodePublic;
use tsrs_control_netmap::Netmap;

/// Messages that a watcher may be behind; a slower one is dropped (client sheet §2.4).
const QUEUE_LEN: usize = 128;

/// Most watchers at once. Each is a connection of a local user; the official client uses two.
const MAX_WATCHERS: usize = 256;

/// One message on its way to the watchers.
#[derive(Clone, Debug)]
pub(crate) struct BusItem {
    pub(crate) notify: Arc<Notify>,
    /// The netmap for watchers that want it, and the key that it was sent for.
    pub(crate) netmap: Option<(Arc<Netmap>, NodePublic)>,
}

/// Where the backend tells and watchers listen.
#[derive(Clone)]
pub(crate) struct Bus {
    sender: broadcast::Sender<BusItem>,
    watchers: Arc<AtomicUsize>,
    peer_watchers: Arc<AtomicUsize>,
}

/// One watcher's end. Dropping it ends the watch.
pub(crate) struct Watch {
    pub(crate) items: broadcast::Receiver<BusItem>,
    _count: Counted,
    _peer_count: Option<Counted>,
}

struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counter))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Bus {
    pub(crate) fn new() -> Self {
        let (sender, _) = broadcast::channel(QUEUE_LEN);
        Self { sender, watchers: Arc::default(), peer_watchers: Arc::default() }
    }

    /// Begins to listen; `None` when too many do.
    pub(crate) fn watch(&self, mask: WatchMask) -> Option<Watch> {
        if self.watchers.load(Ordering::Relaxed) >= MAX_WATCHERS {
            return None;
        }
        let peers = mask.has(WatchMask::PEER_CHANGES | WatchMask::PEER_PATCHES);
        Some(Watch {
            items: self.sender.subscribe(),
            _count: Counted::new(&self.watchers),
            _peer_count: peers.then(|| Counted::new(&self.peer_watchers)),
        })
    }

    /// Whether anybody wants to hear about peers.
    pub(crate) fn peers_are_watched(&self) -> bool {
        self.peer_watchers.load(Ordering::Relaxed) > 0
    }

    /// Whether anybody listens at all.
    pub(crate) fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn tell(&self, item: BusItem) {
        // Nobody listening is fine.
        let _ = self.sender.send(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watchers_are_counted_and_bounded() {
        let bus = Bus::new();
        assert!(!bus.is_watched() && !bus.peers_are_watched());
        let plain = bus.watch(WatchMask(0)).unwrap();
        assert!(bus.is_watched() && !bus.peers_are_watched());
        let peers = bus.watch(WatchMask::PEER_PATCHES).unwrap();
        assert!(bus.peers_are_watched());
        drop((plain, peers));
        assert!(!bus.is_watched() && !bus.peers_are_watched());
        let all: Vec<Watch> = (0..MAX_WATCHERS).filter_map(|_| bus.watch(WatchMask(0))).collect();
        assert_eq!(all.len(), MAX_WATCHERS);
        assert!(bus.watch(WatchMask(0)).is_none());
    }

    #[test]
    fn a_watcher_that_is_too_slow_is_told_so() {
        let bus = Bus::new();
        let mut watch = bus.watch(WatchMask(0)).unwrap();
        for _ in 0..=QUEUE_LEN {
            bus.tell(BusItem { notify: Arc::default(), netmap: None });
        }
        assert!(matches!(watch.items.try_recv(), Err(broadcast::error::TryRecvError::Lagged(_))));
    }
}
