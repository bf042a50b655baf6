//! From the TUN to the socket.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use tsrs_tunnel_dataplane::notice::Notice;
use tsrs_tunnel_dataplane::outbound::{MAX_OPEN_RUNS, Outbound, Run};
use tsrs_tunnel_packet::DropReason;

use super::Plant;
use crate::offload::Offload;
use crate::sys::mmsg::Outgoing;
use crate::tun::READ_LEN;
use crate::udp::{SendNote, send_error};
use crate::wake::{Waiter, wait_writable};

/// Reads of the TUN in one batch at most (performance.md §7 point 2): small packets fill runs slowly.
const MAX_READS: usize = 128;

/// How long to wait for room in the socket before the stop flag is looked at again.
const FULL_WAIT_MS: u16 = 100;

/// The worker's own things.
pub(crate) struct Transmitter {
    plant: Arc<Plant>,
    waiter: Waiter,
    outbound: Outbound,
}

impl Transmitter {
    pub(crate) fn new(plant: Arc<Plant>) -> io::Result<Self> {
        let waiter = Waiter::new(&plant.wake_transmit)?;
        waiter.watch(plant.tun.as_fd())?;
        let outbound = Outbound::new(Arc::clone(&plant.shared), plant.clock.now());
        Ok(Self { plant, waiter, outbound })
    }

    /// Works until the engine stops. An error means that the TUN is gone.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut buffer = vec![0; READ_LEN];
        loop {
            let woken = self.waiter.wait()?;
            if self.plant.is_stopped() {
                return Ok(());
            }
            if woken.readable {
                while self.batch(&mut buffer)? {}
            }
        }
    }

    /// Carries what the TUN has, up to the size of a batch, to the socket. False when the TUN was empty.
    pub(crate) fn batch(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let plant = Arc::clone(&self.plant);
        let routes = plant.shared.tables.routes();
        let now = plant.clock.now();
        self.outbound.set_equal_tail(plant.switches.is_on(Offload::EqualTail));
        let mut emptied = false;
        let mut reads = 0;
        while reads < MAX_READS && !self.outbound.is_full() {
            let Some((offload, packet)) = plant.tun.read(buffer)? else {
                emptied = true;
                break;
            };
            reads += 1;
            if let Some(mut routed) = self.outbound.judge(&routes, &offload, packet, now) {
                while !self.outbound.append(&routes, &mut routed, now) {
                    self.send(now);
                }
            }
        }
        plant.counters.tun_reads.add(reads as u64);
        self.send(now);
        Ok(!emptied && !plant.is_stopped())
    }

    /// Seals and sends all runs.
    fn send(&mut self, now: Instant) {
        self.outbound.seal(now);
        send_direct(&self.plant, self.outbound.runs());
        let plant = &self.plant;
        let mut relayed = false;
        for run in self.outbound.drain() {
            if run.path().derp_now().is_none() {
                continue;
            }
            relayed = true;
            // The oldest gives way: what is newest is what TCP still waits for.
            if let Some(oldest) = plant.to_relays.force_push(run) {
                plant.shared.outbound.drop_packets(DropReason::RelayFull, oldest.count());
            }
        }
        if relayed {
            plant.slow.notify_one();
        }
    }
}

/// One system call for all runs that have a direct path, unless the socket is full meanwhile.
fn send_direct(plant: &Plant, runs: &[Run]) {
    let mut batch = [Outgoing { to: UNSPECIFIED, payload: &[], segment_len: None }; MAX_OPEN_RUNS];
    let direct = runs.iter().filter_map(|run| Some((run.path().direct?, run)));
    let mut count = 0;
    for (slot, (to, run)) in batch.iter_mut().zip(direct) {
        let segment_len = u16::try_from(run.stride()).ok().filter(|_| run.datagrams().len() > run.stride());
        *slot = Outgoing { to, payload: run.datagrams(), segment_len };
        count += 1;
    }
    let mut left = &batch[..count];
    let underlay = plant.underlay.load();
    while !left.is_empty() && !plant.is_stopped() {
        plant.counters.send_calls.add(1);
        let sent = underlay.send(left, &plant.switches, |note| note_send(plant, note));
        left = &left[sent.done..];
        if sent.full {
            // Nothing more is read from the TUN meanwhile: its queue holds the host back.
            plant.counters.socket_full.add(1);
            wait_writable(underlay.as_fd(), FULL_WAIT_MS);
        }
    }
}

const UNSPECIFIED: std::net::SocketAddrV4 = std::net::SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0);

fn note_send(plant: &Plant, note: SendNote) {
    match note {
        SendNote::CutHere => plant.counters.runs_cut_here.add(1),
        SendNote::GsoOff => tracing::warn!("the kernel cannot cut datagrams on this device, UDP GSO is off"),
        SendNote::Refused { to, error } => {
            plant.shared.outbound.drop_packets(DropReason::SendFailed, 1);
            let Some(error) = send_error(&error.into()) else { return };
            // Lost when the machine is busy: the next refusal tells it again.
            plant.shared.notices.push(Notice::SendFailed { to, error });
            plant.shared.notices.flush();
        }
    }
}
