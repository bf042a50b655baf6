//! Connections to DERP relays: which there are, and what goes to which.

mod connect;
mod connection;
mod transport;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::ArrayQueue;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tsrs_base_types::{NodePrivate, NodePublic, RegionId};
use tsrs_platform_net::Net;
use tsrs_tunnel_dataplane::outbound::Run;
use tsrs_tunnel_derp::Region;
use tsrs_tunnel_packet::DropReason;

use crate::worker::Plant;
pub(super) use connect::connect;
use connection::Connection;

/// Events of all connections that wait for the machine at most. Lifecycle events wait for room, packets do not.
const MAX_EVENTS: usize = 256;

/// What waits for one connection at most (data-plane sheet §3.1); the oldest gives way.
const MAX_WAITING: usize = 32;

/// What happened on a connection.
#[derive(Debug)]
pub(crate) struct RelayEvent {
    pub(crate) region: RegionId,
    pub(crate) what: Happening,
}

#[derive(Debug)]
pub(crate) enum Happening {
    /// Ready for packets.
    Connected,
    /// Lost, or not to be had; it is tried again.
    Lost,
    /// Frames come in. Told once a second at most.
    Received,
    /// Data of this peer comes in. Told once a second at most.
    Heard(NodePublic),
    /// A peer is not there.
    PeerGone(NodePublic),
    /// A packet that is not data.
    Datagram { source: NodePublic, bytes: Vec<u8> },
    /// The server has a problem, or (empty) has none any more.
    Health(String),
}

/// What is to be sent.
#[derive(Debug)]
enum Parcel {
    Run(Run),
    Datagram { to: NodePublic, bytes: Vec<u8> },
}

/// The way from the machine and the worker into a connection.
#[derive(Debug)]
struct Outlet {
    parcels: ArrayQueue<Parcel>,
    /// There is something in the queue, or a flag has changed.
    changed: Notify,
    preferred: AtomicBool,
    check: AtomicBool,
}

/// All connections.
pub(crate) struct Relays {
    plant: Arc<Plant>,
    net: Net,
    node_key: NodePrivate,
    regions: HashMap<RegionId, Arc<Region>>,
    open: HashMap<RegionId, Task>,
    home: Option<RegionId>,
    events: mpsc::Sender<RelayEvent>,
}

struct Task {
    outlet: Arc<Outlet>,
    task: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relays {
    pub(crate) fn new(
        plant: Arc<Plant>,
        net: Net,
        node_key: NodePrivate,
    ) -> (Self, mpsc::Receiver<RelayEvent>) {
        let (events, receiver) = mpsc::channel(MAX_EVENTS);
        let (regions, open) = (HashMap::new(), HashMap::new());
        (Self { plant, net, node_key, regions, open, home: None, events }, receiver)
    }

    /// The DERP map changed. Connections to regions that are as before go on.
    pub(crate) fn set_regions(&mut self, regions: Vec<Region>) {
        let mut old = std::mem::take(&mut self.regions);
        for region in regions {
            let id = region.id;
            let same = old.remove(&id).filter(|known| **known == region);
            let changed = same.is_none();
            self.regions.insert(id, same.unwrap_or_else(|| Arc::new(region)));
            if changed && self.open.remove(&id).is_some() {
                self.connect(id);
            }
        }
        self.open.retain(|id, _| self.regions.contains_key(id));
    }

    /// Our node key was renewed: the relays know us by it.
    pub(crate) fn set_node_key(&mut self, node_key: NodePrivate) {
        self.node_key = node_key;
        let open: Vec<_> = self.open.drain().map(|(id, _)| id).collect();
        for id in open {
            self.connect(id);
        }
    }

    /// A region of the map.
    pub(crate) fn region(&self, id: RegionId) -> Option<Arc<Region>> {
        self.regions.get(&id).cloned()
    }

    /// Opens a connection and keeps it open.
    pub(crate) fn connect(&mut self, id: RegionId) {
        let Some(region) = self.regions.get(&id) else { return };
        let outlet = Arc::new(Outlet {
            parcels: ArrayQueue::new(MAX_WAITING),
            changed: Notify::new(),
            preferred: AtomicBool::new(self.home == Some(id)),
            check: AtomicBool::new(false),
        });
        let connection = Connection {
            plant: Arc::clone(&self.plant),
            net: self.net.clone(),
            node_key: self.node_key.clone(),
            region: Arc::clone(region),
            outlet: Arc::clone(&outlet),
            events: self.events.clone(),
        };
        let task = tokio::spawn(connection.run());
        self.open.insert(id, Task { outlet, task });
    }

    /// Closes a connection.
    pub(crate) fn close(&mut self, id: RegionId) {
        self.open.remove(&id);
    }

    /// Closes all of them and opens them again (`debug break-derp-conns`).
    pub(crate) fn break_all(&mut self) {
        let node_key = self.node_key.clone();
        self.set_node_key(node_key);
    }

    /// The network changed: the connection must answer soon or be made anew.
    pub(crate) fn check(&mut self, id: RegionId) {
        if let Some(open) = self.open.get(&id) {
            open.outlet.check.store(true, Ordering::Relaxed);
            open.outlet.changed.notify_one();
        }
    }

    /// The home region changed; the relays are told.
    pub(crate) fn set_home(&mut self, home: Option<RegionId>) {
        self.home = home;
        for (id, open) in &self.open {
            open.outlet.preferred.store(home == Some(*id), Ordering::Relaxed);
            open.outlet.changed.notify_one();
        }
    }

    /// Hands over what the worker has left for relays.
    pub(crate) fn take_runs(&self) {
        while let Some(run) = self.plant.to_relays.pop() {
            match run.path().derp_now() {
                Some(region) => self.send(region, Parcel::Run(run)),
                None => self.plant.shared.outbound.drop_packets(DropReason::NoPath, run.count()),
            }
        }
    }

    /// Sends a datagram of the machine.
    pub(crate) fn send_datagram(&self, region: RegionId, to: NodePublic, bytes: Vec<u8>) {
        self.send(region, Parcel::Datagram { to, bytes });
    }

    fn send(&self, region: RegionId, parcel: Parcel) {
        let drops = &self.plant.shared.outbound;
        let Some(open) = self.open.get(&region) else {
            return drops.drop_packets(DropReason::NoPath, parcel.packet_count());
        };
        if let Some(oldest) = open.outlet.parcels.force_push(parcel) {
            drops.drop_packets(DropReason::RelayFull, oldest.packet_count());
        }
        open.outlet.changed.notify_one();
    }
}

impl Parcel {
    fn packet_count(&self) -> usize {
        match self {
            Self::Run(run) => run.count(),
            Self::Datagram { .. } => 1,
        }
    }
}
