//! From the socket, and from relays, to the TUN.

use std::io::{self, IoSliceMut};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use tsrs_tunnel_dataplane::buffer::Superbuffer;
use tsrs_tunnel_dataplane::inbound::{Inbound, Layout, Write};
use tsrs_tunnel_packet::{DropReason, gro, vnet};
use tsrs_tunnel_path::Source;

use super::{Plant, Relayed};
use crate::offload::Offload;
use crate::sys::mmsg::{RECEIVE_BATCH, Received};
use crate::udp::Underlay;
use crate::wake::Waiter;

/// Packets go to the TUN when so many bytes of them are there: full runs gain nothing by waiting for more, and their bytes are
/// still in the cache.
const DELIVER_BYTES: usize = 48 << 10;

/// The worker's own things.
pub(crate) struct Receiver {
    plant: Arc<Plant>,
    waiter: Waiter,
    underlay: Arc<Underlay>,
    inbound: Inbound,
    buffers: [Superbuffer; RECEIVE_BATCH],
}

impl Receiver {
    pub(crate) fn new(plant: Arc<Plant>) -> io::Result<Self> {
        let waiter = Waiter::new(&plant.wake_receive)?;
        let underlay = plant.underlay.load_full();
        waiter.watch(underlay.as_fd())?;
        let inbound = Inbound::new(Arc::clone(&plant.shared));
        Ok(Self { plant, waiter, underlay, inbound, buffers: std::array::from_fn(|_| Superbuffer::new()) })
    }

    /// Works until the engine stops.
    pub(crate) fn run(mut self) -> io::Result<()> {
        loop {
            let woken = self.waiter.wait()?;
            if self.plant.is_stopped() {
                return Ok(());
            }
            if woken.called {
                self.follow_underlay()?;
            }
            let mut more = true;
            while more && !self.plant.is_stopped() {
                // Both sources have their turn, so that neither starves the other.
                more = self.take_relayed();
                if woken.readable {
                    more |= self.receive();
                }
            }
        }
    }

    /// Watches the socket that is in use now.
    fn follow_underlay(&mut self) -> io::Result<()> {
        let current = self.plant.underlay.load_full();
        if !Arc::ptr_eq(&current, &self.underlay) {
            self.waiter.unwatch(self.underlay.as_fd());
            self.waiter.watch(current.as_fd())?;
            self.underlay = current;
        }
        Ok(())
    }

    /// One batch from the socket. True when there may be more.
    pub(crate) fn receive(&mut self) -> bool {
        let mut received = [Received::EMPTY; RECEIVE_BATCH];
        let count = {
            let mut slices = self.buffers.each_mut().map(|buffer| IoSliceMut::new(buffer));
            match self.underlay.receive(&mut slices, &mut received) {
                Ok(count) => count,
                Err(error) => return self.note_error(&error),
            }
        };
        let plant = &self.plant;
        plant.counters.receive_calls.add(1);
        let now = plant.clock.now();
        let routes = plant.shared.tables.routes();
        let receivers = plant.shared.tables.receivers();
        for (index, message) in received.iter().take(count).enumerate() {
            if let Some(total) = message.dropped_total {
                plant.counters.socket_drops.set(u64::from(total));
            }
            let Some(from) = message.from.filter(|_| !message.truncated) else {
                plant.shared.inbound.drop_packets(DropReason::BadMessage, 1);
                continue;
            };
            let layout = Layout::Even { len: message.len, stride: message.segment_len };
            let buffer = &mut self.buffers[index];
            self.inbound.open((&routes, &receivers), (index, buffer), layout, Source::Udp(from), now);
            if self.inbound.kept_bytes() > DELIVER_BYTES {
                deliver(&mut self.inbound, &self.buffers, plant);
            }
        }
        deliver(&mut self.inbound, &self.buffers, plant);
        count == RECEIVE_BATCH
    }

    /// An ICMP error about something that we sent is reported here (`ECONNREFUSED` and the like): it is no failure of the
    /// socket, which goes on. True when it is worth to try again at once.
    fn note_error(&self, error: &io::Error) -> bool {
        if error.kind() != io::ErrorKind::WouldBlock && error.kind() != io::ErrorKind::Interrupted {
            tracing::debug!(%error, "receive failed");
            self.plant.counters.receive_errors.add(1);
        }
        error.kind() == io::ErrorKind::Interrupted
    }

    /// What relay connections have delivered. True when there was something.
    fn take_relayed(&mut self) -> bool {
        let Some(Relayed { buffer, ends, source }) = self.plant.from_relays.pop() else { return false };
        let plant = &self.plant;
        let now: Instant = plant.clock.now();
        let routes = plant.shared.tables.routes();
        let receivers = plant.shared.tables.receivers();
        let mut buffers = [buffer];
        let [only] = &mut buffers;
        self.inbound.open((&routes, &receivers), (0, only), Layout::Ends(&ends), source, now);
        deliver(&mut self.inbound, &buffers, plant);
        true
    }
}

/// Writes what was accepted to the TUN, joined as far as it goes.
fn deliver(inbound: &mut Inbound, buffers: &[Superbuffer], plant: &Plant) {
    inbound.set_gro(gro::Options {
        tcp: plant.switches.is_on(Offload::TunTcpGro),
        udp: plant.switches.is_on(Offload::TunUdpGro),
    });
    let mut writes = 0;
    inbound.coalesce(buffers, |write| {
        writes += 1;
        if let Err(error) = plant.tun.write(write.head, write.pieces) {
            note_write_error(plant, &write, &error);
        }
    });
    plant.counters.tun_writes.add(writes);
}

fn note_write_error(plant: &Plant, write: &Write<'_>, error: &io::Error) {
    plant.shared.inbound.drop_packets(DropReason::TunWriteFailed, write.pieces.len());
    let is_run = write.head.len() > vnet::LEN;
    if !is_run || error.raw_os_error() != Some(libc::EINVAL) {
        return;
    }
    // A kernel that does not take such runs would refuse the next one too.
    let is_udp = write.head.get(1) == Some(&vnet::GSO_UDP_L4);
    let offload = if is_udp { Offload::TunUdpGro } else { Offload::TunTcpGro };
    if plant.switches.switch_off(offload) {
        tracing::warn!(
            offload = offload.name(),
            "the kernel refuses joined packets, they are written singly"
        );
    }
}
