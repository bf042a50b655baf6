//! What all tasks of one server share.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tsrs_base_types::{MachinePrivate, NodeId, RegionId};

use crate::derp::Hub;
use crate::fault::Faults;
use crate::store::StateFile;
use crate::sync::lock;
use crate::tailnet::{Injected, Tailnet};

/// Answers that pings still wait for, at most; a lab asks one at a time.
const MAX_PINGS: usize = 1000;

/// What all tasks of one server share.
pub(crate) struct Shared {
    pub(crate) key: MachinePrivate,
    tailnet: Mutex<Tailnet>,
    changed: Condvar,
    /// Counts changes of the tailnet; map streams wait on it.
    pub(crate) version: watch::Sender<u64>,
    /// Counts orders to drop every connection.
    pub(crate) cut: watch::Sender<u64>,
    pub(crate) faults: Faults,
    pub(crate) hubs: BTreeMap<RegionId, Arc<Hub>>,
    pub(crate) keep_alive: Duration,
    pub(crate) stun_requests: AtomicU64,
    pings: Mutex<HashMap<String, oneshot::Sender<Vec<u8>>>>,
    state_file: Option<(PathBuf, StateFile)>,
}

impl Shared {
    pub(crate) fn new(
        key: MachinePrivate,
        tailnet: Tailnet,
        hubs: BTreeMap<RegionId, Arc<Hub>>,
        keep_alive: Duration,
        state_file: Option<(PathBuf, StateFile)>,
    ) -> Self {
        Self {
            key,
            tailnet: Mutex::new(tailnet),
            changed: Condvar::new(),
            version: watch::Sender::new(0),
            cut: watch::Sender::new(0),
            faults: Faults::default(),
            hubs,
            keep_alive,
            stun_requests: AtomicU64::new(0),
            pings: Mutex::default(),
            state_file,
        }
    }

    /// Looks at the tailnet.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Tailnet) -> T) -> T {
        look(&lock(&self.tailnet))
    }

    /// Changes the tailnet; every map stream then looks what is new for its node.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Tailnet) -> T) -> T {
        let mut tailnet = lock(&self.tailnet);
        let result = change(&mut tailnet);
        self.publish(tailnet);
        result
    }

    /// Changes the tailnet if `change` says that it did.
    pub(crate) fn change_if(&self, change: impl FnOnce(&mut Tailnet) -> bool) {
        let mut tailnet = lock(&self.tailnet);
        if change(&mut tailnet) {
            self.publish(tailnet);
        }
    }

    /// Changes what no map shows.
    pub(crate) fn change_quietly<T>(&self, change: impl FnOnce(&mut Tailnet) -> T) -> T {
        change(&mut lock(&self.tailnet))
    }

    fn publish(&self, tailnet: MutexGuard<'_, Tailnet>) {
        if let Some((path, state)) = &self.state_file
            && let Err(error) = state.write(path, tailnet.store())
        {
            tracing::error!(%error, "lab state not written");
        }
        drop(tailnet);
        self.wake();
    }

    /// Waits until `check` gives something; `None` when `limit` has passed.
    pub(crate) fn wait<T>(&self, limit: Duration, mut check: impl FnMut(&Tailnet) -> Option<T>) -> Option<T> {
        let end = Instant::now() + limit;
        let mut tailnet = lock(&self.tailnet);
        loop {
            if let Some(found) = check(&tailnet) {
                return Some(found);
            }
            let left = end.checked_duration_since(Instant::now())?;
            tailnet = self.changed.wait_timeout(tailnet, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Wakes all who wait for a fact that is not part of the tailnet.
    pub(crate) fn wake(&self) {
        self.version.send_modify(|version| *version += 1);
        self.changed.notify_all();
    }

    /// A new number for a ping, and where its answer will come.
    pub(crate) fn expect_ping(&self) -> (String, oneshot::Receiver<Vec<u8>>) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = format!("ping{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let (answer, answered) = oneshot::channel();
        let mut pings = lock(&self.pings);
        pings.retain(|_, waiting| !waiting.is_closed());
        if pings.len() < MAX_PINGS {
            pings.insert(id.clone(), answer);
        }
        (id, answered)
    }

    /// An answer to a ping has come; `false` if nobody waits for it.
    pub(crate) fn answer_ping(&self, id: &str, body: Vec<u8>) -> bool {
        lock(&self.pings).remove(id).is_some_and(|waiting| waiting.send(body).is_ok())
    }

    /// Sends a node a message on its stream.
    pub(crate) fn inject(&self, id: NodeId, message: Injected) {
        self.change(|tailnet| tailnet.inject(id, message));
    }
}
