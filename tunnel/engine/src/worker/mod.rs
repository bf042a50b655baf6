//! The two threads of the fast path. Each runs to completion: what it takes in it carries to the end.

pub(crate) mod receive;
pub(crate) mod transmit;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use crossbeam_queue::ArrayQueue;
use tsrs_tunnel_dataplane::buffer::Superbuffer;
use tsrs_tunnel_dataplane::outbound::Run;
use tsrs_tunnel_dataplane::shared::Shared;
use tsrs_tunnel_path::Source;

use crate::clock::Clock;
use crate::metrics::IoCounters;
use crate::offload::{Offload, Switches};
use crate::tun::TunQueue;
use crate::udp::Underlay;
use crate::wake::Waker;

/// Runs that wait for relay connections. A relay that is slower than the host makes them be dropped: TCP inside sees the
/// loss and slows down. Half of the buffers, so that direct traffic goes on beside a stalled relay.
pub(crate) const TO_RELAYS: usize = tsrs_tunnel_dataplane::shared::OUTBOUND_BUFFERS / 2;

/// Batches that came from relays and wait for the worker.
pub(crate) const FROM_RELAYS: usize = tsrs_tunnel_dataplane::shared::RELAYED_BUFFERS;

/// Datagrams that came over a relay connection with one read.
#[derive(Debug)]
pub(crate) struct Relayed {
    pub(crate) buffer: Superbuffer,
    /// Where each datagram ends.
    pub(crate) ends: Vec<usize>,
    pub(crate) source: Source,
}

/// What the workers and the slow path of one engine share.
pub(crate) struct Plant {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tun: TunQueue,
    /// Replaced when the socket has to be bound anew.
    pub(crate) underlay: ArcSwap<Underlay>,
    pub(crate) switches: Switches,
    /// What could be switched on: what was on after all probes at the start.
    offered: Switches,
    pub(crate) counters: IoCounters,
    pub(crate) clock: Clock,
    pub(crate) to_relays: ArrayQueue<Run>,
    pub(crate) from_relays: ArrayQueue<Relayed>,
    /// Wakes the slow path.
    pub(crate) slow: Arc<tokio::sync::Notify>,
    pub(crate) wake_transmit: Waker,
    pub(crate) wake_receive: Waker,
    stopped: AtomicBool,
}

/// What a plant is made of.
pub(crate) struct PlantParts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tun: TunQueue,
    pub(crate) underlay: Underlay,
    pub(crate) switches: Switches,
    pub(crate) clock: Clock,
    pub(crate) slow: Arc<tokio::sync::Notify>,
}

impl Plant {
    pub(crate) fn new(parts: PlantParts) -> std::io::Result<Self> {
        Ok(Self {
            shared: parts.shared,
            tun: parts.tun,
            underlay: ArcSwap::from_pointee(parts.underlay),
            offered: parts.switches.clone(),
            switches: parts.switches,
            counters: IoCounters::default(),
            clock: parts.clock,
            to_relays: ArrayQueue::new(TO_RELAYS),
            from_relays: ArrayQueue::new(FROM_RELAYS),
            slow: parts.slow,
            wake_transmit: Waker::new()?,
            wake_receive: Waker::new()?,
            stopped: AtomicBool::new(false),
        })
    }

    /// Ends the workers and the slow path.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.wake_transmit.wake();
        self.wake_receive.wake();
        self.slow.notify_one();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Switches an offload while the workers run.
    pub(crate) fn set_offload(&self, offload: Offload, on: bool) {
        self.switches.set(offload, on && self.offered.is_on(offload));
        match offload {
            Offload::TunTso | Offload::TunUso => {
                if let Err(error) = self.tun.set_offload(&self.switches) {
                    tracing::warn!(%error, "cannot change the offloads of the TUN");
                }
            }
            Offload::UdpGro => self.underlay.load().set_gro(&self.switches),
            // The machine asks for it before it makes sessions.
            Offload::SimdCipher => {}
            Offload::TunTcpGro | Offload::TunUdpGro | Offload::UdpGso | Offload::EqualTail => {}
        }
    }

    /// A new socket takes the place of the old one.
    pub(crate) fn replace_underlay(&self, underlay: Underlay) {
        self.underlay.store(Arc::new(underlay));
        self.wake_receive.wake();
    }
}
