//! What the machine and the workers share.

use std::sync::Arc;
use std::time::Instant;

use crate::buffer::BufferPool;
use crate::counters::DirectionCounters;
use crate::notice::Notices;
use crate::policy::FlowTables;
use crate::tables::{Epoch, Tables};

/// Superbuffers for packets on their way out: 16 open runs and as many that wait for relays (performance.md §7 point 8).
pub const OUTBOUND_BUFFERS: usize = 32;

/// Superbuffers for packets that came in over relays and wait for the worker.
pub const RELAYED_BUFFERS: usize = 16;

/// One data plane: the tables, the way to the machine, counters and buffers.
#[derive(Debug)]
pub struct Shared {
    /// What the machine publishes.
    pub tables: Tables,
    /// What workers hand to the machine.
    pub notices: Notices,
    /// Counted on the way out.
    pub outbound: DirectionCounters,
    /// Counted on the way in.
    pub inbound: DirectionCounters,
    /// Buffers of outgoing runs.
    pub outbound_pool: BufferPool,
    /// Buffers of packets that came in over relays.
    pub relayed_pool: BufferPool,
    /// Flows that the host began.
    pub(crate) flows: FlowTables,
    /// From which stamps count.
    pub epoch: Epoch,
}

impl Shared {
    pub(crate) fn new(tables: Tables, wake: impl Fn() + Send + Sync + 'static, now: Instant) -> Arc<Self> {
        Arc::new(Self {
            tables,
            notices: Notices::new(wake),
            outbound: DirectionCounters::default(),
            inbound: DirectionCounters::default(),
            outbound_pool: BufferPool::new(OUTBOUND_BUFFERS),
            relayed_pool: BufferPool::new(RELAYED_BUFFERS),
            flows: FlowTables::default(),
            epoch: Epoch::new(now),
        })
    }
}
