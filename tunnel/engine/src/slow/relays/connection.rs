//! One region: a connection that is opened again whenever it is lost.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand_core::OsRng;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tsrs_base_types::{NodePrivate, NodePublic};
use tsrs_platform_net::{Net, NetError};
use tsrs_tunnel_dataplane::buffer::{SUPERBUFFER_LEN, Superbuffer};
use tsrs_tunnel_derp::{self as derp, ClientConfig, ClientMachine, Dial, Message, Region, RegionDialer};
use tsrs_tunnel_packet::DropReason;
use tsrs_tunnel_path::Source;
use tsrs_tunnel_wireguard::wire::data_receiver;

use super::connect::connect;
use super::transport::{Moved, Transport};
use super::{Happening, Outlet, Parcel, RelayEvent};
use crate::worker::{Plant, Relayed};

/// That frames come in, and from whom, is told this often. Path finding counts in seconds.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// How long a region without a usable node is left alone. A new map opens a new connection.
const IMPOSSIBLE_PAUSE: Duration = Duration::from_secs(3600);

/// Why a connection ended.
#[derive(Debug, Error)]
enum End {
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    Protocol(#[from] derp::Error),
    #[error("connection: {0}")]
    Stream(#[from] std::io::Error),
}

pub(super) struct Connection {
    pub(super) plant: Arc<Plant>,
    pub(super) net: Net,
    pub(super) node_key: NodePrivate,
    pub(super) region: Arc<Region>,
    pub(super) outlet: Arc<Outlet>,
    pub(super) events: mpsc::Sender<RelayEvent>,
}

impl Connection {
    /// Goes on until the task is aborted.
    pub(super) async fn run(self) {
        let mut dialer = RegionDialer::new();
        loop {
            let now = self.plant.clock.now();
            let (node, ideal_node) = match dialer.next(&self.region, now) {
                Dial::Node { node, ideal_node } => (node.clone(), ideal_node.map(str::to_owned)),
                Dial::Wait(at) => {
                    sleep(at.saturating_duration_since(now)).await;
                    continue;
                }
                Dial::Impossible => {
                    tracing::warn!(region = self.region.id.0, "the region has no relay that can be used");
                    sleep(IMPOSSIBLE_PAUSE).await;
                    continue;
                }
            };
            let mut ready = false;
            let end = self.hold(&node, ideal_node.as_deref(), &mut ready).await;
            tracing::debug!(region = self.region.id.0, error = %end, ready, "relay connection ended");
            let now = self.plant.clock.now();
            if ready {
                dialer.note_lost(&mut OsRng, now);
            } else {
                dialer.note_failed(&self.region, &mut OsRng, now);
            }
            self.tell(Happening::Lost).await;
        }
    }

    /// One connection from dial to end. `ready` is set when packets can flow.
    async fn hold(&self, node: &derp::Node, ideal_node: Option<&str>, ready: &mut bool) -> End {
        let (stream, start) = match connect(&self.net, node).await {
            Ok(connected) => connected,
            Err(error) => return error.into(),
        };
        let host = node.http_host();
        let config = ClientConfig {
            node_key: self.node_key.clone(),
            host: &host,
            ideal_node,
            start,
            preferred: self.outlet.preferred.load(Ordering::Relaxed),
        };
        match ClientMachine::new(config, OsRng, self.plant.clock.now()) {
            Ok(machine) => {
                let mut session = Session { connection: self, machine, ready, told: Told::default() };
                match session.run(Transport::new(stream)).await {
                    Ok(never) => match never {},
                    Err(end) => end,
                }
            }
            Err(error) => error.into(),
        }
    }

    /// Waits for room: these events may not be lost.
    async fn tell(&self, what: Happening) {
        let _ = self.events.send(RelayEvent { region: self.region.id, what }).await;
    }

    /// Does not wait. False when there is no room.
    fn try_tell(&self, what: Happening) -> bool {
        self.events.try_send(RelayEvent { region: self.region.id, what }).is_ok()
    }
}

/// When was last told that something came in.
#[derive(Default)]
struct Told {
    received: Option<Instant>,
    heard: Option<(NodePublic, Instant)>,
}

/// An open connection.
struct Session<'a> {
    connection: &'a Connection,
    machine: ClientMachine<OsRng>,
    ready: &'a mut bool,
    told: Told,
}

impl Session<'_> {
    async fn run(
        &mut self,
        mut transport: Transport<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>,
    ) -> Result<std::convert::Infallible, End> {
        let connection = self.connection;
        loop {
            let now = connection.plant.clock.now();
            self.fill(now);
            let wait = self.machine.poll_timeout().saturating_duration_since(now);
            let moved = tokio::select! {
                moved = poll_fn(|cx| transport.poll(&mut self.machine, cx)) => Some(moved?),
                () = connection.outlet.changed.notified() => None,
                () = sleep(wait) => {
                    self.machine.handle_timeout(connection.plant.clock.now())?;
                    None
                }
            };
            match moved {
                Some(Moved::Read(count)) => {
                    let now = connection.plant.clock.now();
                    self.machine.note_read(count, now);
                    self.take_messages(now).await?;
                }
                Some(Moved::Written) | None => {}
            }
        }
    }

    /// Moves what waits into the machine, as far as it has room.
    fn fill(&mut self, now: Instant) {
        let outlet = &self.connection.outlet;
        self.machine.set_preferred(outlet.preferred.load(Ordering::Relaxed));
        if outlet.check.swap(false, Ordering::Relaxed) {
            self.machine.ping(now);
        }
        while self.machine.send_room() > 2 * SUPERBUFFER_LEN {
            let Some(parcel) = outlet.parcels.pop() else { return };
            let refused = match &parcel {
                Parcel::Datagram { to, bytes } => {
                    usize::from(self.machine.send_packet(to, bytes, now).is_err())
                }
                Parcel::Run(run) => {
                    let to = run.peer().key();
                    let datagrams = run.datagrams().chunks(run.stride()).take(run.count());
                    datagrams.filter(|bytes| self.machine.send_packet(to, bytes, now).is_err()).count()
                }
            };
            self.connection.plant.shared.outbound.drop_packets(DropReason::RelayFull, refused);
        }
    }

    /// Takes all messages of one read. Data goes to the worker as one batch.
    async fn take_messages(&mut self, now: Instant) -> Result<(), End> {
        let connection = self.connection;
        let mut batch = Batch::new(connection);
        if due(&mut self.told.received, now) {
            connection.try_tell(Happening::Received);
        }
        loop {
            let happening = match self.machine.poll_message(now)? {
                None => break,
                Some(Message::Packet { source, packet }) => {
                    if data_receiver(packet).is_some() {
                        if self.told.heard.is_none_or(|(peer, at)| peer != source || is_due(at, now)) {
                            self.told.heard = Some((source, now));
                            connection.try_tell(Happening::Heard(source));
                        }
                        batch.add(source, packet);
                    } else if !connection.try_tell(Happening::Datagram { source, bytes: packet.to_vec() }) {
                        connection.plant.shared.inbound.drop_packets(DropReason::SlowPathFull, 1);
                    }
                    continue;
                }
                Some(Message::Ready(_)) => {
                    *self.ready = true;
                    Happening::Connected
                }
                Some(Message::PeerGone { peer, .. }) => Happening::PeerGone(peer),
                Some(Message::Health(text)) => Happening::Health(text),
                // The server says when it goes; the connection then ends, and is opened again after a pause.
                Some(Message::Restarting { .. } | Message::Pong { .. }) => continue,
            };
            connection.tell(happening).await;
        }
        batch.deliver();
        Ok(())
    }
}

/// Whether an interval has passed since the last time; notes the time if so.
fn due(last: &mut Option<Instant>, now: Instant) -> bool {
    let due = last.is_none_or(|at| is_due(at, now));
    if due {
        *last = Some(now);
    }
    due
}

fn is_due(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) >= TELL_INTERVAL
}

/// Data packets of one read, collected for the worker.
struct Batch<'a> {
    connection: &'a Connection,
    open: Option<Relayed>,
}

impl<'a> Batch<'a> {
    fn new(connection: &'a Connection) -> Self {
        Self { connection, open: None }
    }

    fn add(&mut self, source: NodePublic, packet: &[u8]) {
        let used = self.open.as_ref().and_then(|open| open.ends.last().copied()).unwrap_or(0);
        if used + packet.len() > SUPERBUFFER_LEN {
            self.deliver();
        }
        if self.open.is_none() {
            self.open = self.take_buffer(source);
        }
        let Some(open) = &mut self.open else {
            return self.connection.plant.shared.inbound.drop_packets(DropReason::RelayFull, 1);
        };
        let start = open.ends.last().copied().unwrap_or(0);
        if let Some(place) = open.buffer.get_mut(start..start + packet.len()) {
            place.copy_from_slice(packet);
            open.ends.push(start + packet.len());
        }
    }

    fn take_buffer(&self, source: NodePublic) -> Option<Relayed> {
        let buffer: Superbuffer = self.connection.plant.shared.relayed_pool.take()?;
        let source = Source::Derp { region: self.connection.region.id, node: source };
        Some(Relayed { buffer, ends: Vec::new(), source })
    }

    fn deliver(&mut self) {
        let Some(relayed) = self.open.take() else { return };
        let plant = &self.connection.plant;
        // The queue has a place for each buffer of the pool.
        if let Err(lost) = plant.from_relays.push(relayed) {
            plant.shared.inbound.drop_packets(DropReason::RelayFull, lost.ends.len());
        }
        plant.wake_receive.wake();
    }
}
