//! Joins flows, policy and dialer: packets of peers in, packets for peers out, bytes to and from the proxies in between.
//!
//! The caller gives batches of packets to [`ExitRelay::handle_batch`] and takes packets from [`ExitRelay::poll_transmit`] until there are
//! none, after each batch and whenever [`ExitRelay::transmit_ready`] returns. [`ExitRelay::run`] keeps the timers. Both run in the
//! runtime of the caller, in which the relay starts a task for each flow.

mod answer;
mod limits;
mod splice;
mod udp;

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use rand_core::OsRng;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::sleep_until;
use tsrs_tunnel_packet::icmp::Unreachable;
use tsrs_tunnel_packet::vnet::VirtioNetHdr;

use crate::dial::RealDialer;
use crate::flow::{CloseReason, Event, FlowId, FlowStack, FlowUsage, Input, InputDrop, Refusal};
use crate::policy::{self, Destination, Policy, Verdict};

pub use limits::RelayLimits;

use answer::answer_to;
use splice::{SPLICE_LEN, splice};
use udp::Associations;

/// What the relay did, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelayCounters {
    /// Flows that a proxy connected.
    pub connected: u64,
    /// Flows that no proxy connected.
    pub failed: u64,
    /// Flows and datagrams that the policy refused.
    pub refused: HashMap<policy::Refusal, u64>,
    /// Flows and datagrams of subnet routes, which have no business here.
    pub misrouted: u64,
    /// Packets that were no use.
    pub dropped: HashMap<InputDrop, u64>,
    /// Datagrams that were dropped: full queues, too many associations, or replies that nobody asked for or that do not fit.
    pub datagrams_dropped: u64,
}

/// See the module's documentation. Clones are the same.
#[derive(Clone)]
pub struct ExitRelay(Arc<Shared>);

struct Shared {
    dialer: Arc<RealDialer>,
    limits: RelayLimits,
    /// Packets wait to be taken.
    output: Notify,
    /// The first timer is another one.
    timer: Notify,
    inner: Mutex<Inner>,
}

struct Inner {
    stack: FlowStack<OsRng>,
    policy: Policy,
    flows: HashMap<FlowId, Entry>,
    associations: Associations,
    counters: RelayCounters,
    /// When [`ExitRelay::run`] looks at the timers next.
    wake_at: Option<Instant>,
    /// Where bytes of proxies are read to before the stack takes them. One for all: a buffer for each flow would be most of the memory.
    scratch: Box<[u8]>,
}

/// A flow as the relay sees it.
struct Entry {
    /// Waits for word of the stack.
    waker: Option<Waker>,
    /// The stack has no more of it.
    finished: bool,
    task: AbortHandle,
}

impl ExitRelay {
    /// A relay that refuses everything until it has a policy and the dialer has a proxy.
    pub fn new(
        dialer: Arc<RealDialer>,
        stack: FlowStack<OsRng>,
        policy: Policy,
        limits: RelayLimits,
    ) -> Self {
        let inner = Inner {
            stack,
            policy,
            flows: HashMap::new(),
            associations: Associations::default(),
            counters: RelayCounters::default(),
            wake_at: None,
            scratch: vec![0; SPLICE_LEN].into_boxed_slice(),
        };
        let (output, timer) = (Notify::new(), Notify::new());
        Self(Arc::new(Shared { dialer, limits, output, timer, inner: Mutex::new(inner) }))
    }

    /// What is judged from now on is judged by this policy.
    pub fn set_policy(&self, policy: Policy) {
        self.0.lock().policy = policy;
    }

    /// What it did so far.
    pub fn counters(&self) -> RelayCounters {
        self.0.lock().counters.clone()
    }

    /// What its flows cost.
    pub fn usage(&self) -> FlowUsage {
        self.0.lock().stack.usage()
    }

    /// Takes packets of peers, each with whether its transport checksum is known to be right.
    pub fn handle_batch<'a>(&self, packets: impl IntoIterator<Item = (&'a [u8], bool)>) {
        let mut inner = self.0.lock();
        for (packet, checksum_is_known) in packets {
            match inner.stack.handle_packet(packet, checksum_is_known, now()) {
                Input::Taken => {}
                Input::Datagram(datagram) => self.0.forward(&mut inner, datagram, packet),
                Input::Dropped(reason) => *inner.counters.dropped.entry(reason).or_default() += 1,
            }
        }
        self.0.handle_events(&mut inner);
        self.0.keep_time(&mut inner);
    }

    /// Writes the next packet for a peer; see [`FlowStack::poll_transmit`].
    pub fn poll_transmit(&self, max_payload: usize, out: &mut Vec<u8>) -> Option<VirtioNetHdr> {
        let mut inner = self.0.lock();
        loop {
            if let Some(header) = inner.stack.poll_transmit(max_payload, out) {
                return Some(header);
            }
            // What was sent may have ended flows.
            if !self.0.handle_events(&mut inner) {
                self.0.keep_time(&mut inner);
                return inner.associations.poll_datagram(out).then(VirtioNetHdr::default);
            }
        }
    }

    /// Waits until there may be packets to take.
    pub async fn transmit_ready(&self) {
        self.0.output.notified().await;
    }

    /// Keeps the timers. Never returns.
    pub async fn run(&self) {
        loop {
            let next = {
                let mut inner = self.0.lock();
                inner.wake_at = inner.stack.poll_timeout();
                inner.wake_at
            };
            let changed = self.0.timer.notified();
            match next {
                None => changed.await,
                Some(at) => tokio::select! {
                    () = sleep_until(at.into()) => {
                        let mut inner = self.0.lock();
                        inner.stack.handle_timeout(now());
                        self.0.settle(&mut inner);
                    }
                    () = changed => {}
                },
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what the stack has to tell. Gives whether it had anything.
    fn handle_events(self: &Arc<Self>, inner: &mut Inner) -> bool {
        let mut any = false;
        while let Some(event) = inner.stack.poll_event() {
            any = true;
            match event {
                Event::Opening { flow, peer, destination } => self.open(inner, flow, peer, destination),
                Event::Changed(flow) => {
                    if let Some(waker) = inner.flows.get_mut(&flow).and_then(|entry| entry.waker.take()) {
                        waker.wake();
                    }
                }
                Event::Closed(flow, reason) => inner.finish(flow, reason),
            }
        }
        any
    }

    /// The same, after something other than a packet happened: the caller is told that there may be packets to take.
    fn settle(self: &Arc<Self>, inner: &mut Inner) {
        self.handle_events(inner);
        self.keep_time(inner);
        self.output.notify_one();
    }

    /// Has [`ExitRelay::run`] look again, if the first timer goes off before it would.
    fn keep_time(&self, inner: &mut Inner) {
        let next = inner.stack.poll_timeout();
        if next.is_some() && inner.wake_at.is_none_or(|at| next < Some(at)) {
            inner.wake_at = next;
            self.timer.notify_one();
        }
    }

    fn open(
        self: &Arc<Self>,
        inner: &mut Inner,
        flow: FlowId,
        peer: SocketAddrV4,
        destination: SocketAddrV4,
    ) {
        match inner.judge(peer, destination) {
            Some(destination) => {
                let task = tokio::spawn(Arc::clone(self).carry(flow, destination));
                let entry = Entry { waker: None, finished: false, task: task.abort_handle() };
                inner.flows.insert(flow, entry);
            }
            None => inner.stack.refuse(flow, Refusal::Unreachable(Unreachable::AdminProhibited), now()),
        }
    }

    /// The life of a flow: dialled, answered, spliced.
    async fn carry(self: Arc<Self>, flow: FlowId, destination: Destination) {
        let dialled = match self.dialer.connect(destination).await {
            Ok(dialled) => dialled,
            Err(error) => {
                tracing::debug!(%destination, %error, "a flow is not connected");
                let mut inner = self.lock();
                inner.counters.failed += 1;
                inner.flows.remove(&flow);
                inner.stack.refuse(flow, answer_to(&error), now());
                self.settle(&mut inner);
                return;
            }
        };
        {
            let mut inner = self.lock();
            inner.counters.connected += 1;
            inner.stack.accept(flow, now());
            self.settle(&mut inner);
        }
        let end = splice(&self, flow, dialled).await;
        tracing::trace!(%destination, ?end, "a flow ended");
        let mut inner = self.lock();
        inner.flows.remove(&flow);
        if end.is_abort() {
            inner.stack.abort(flow, now());
        }
        self.settle(&mut inner);
    }
}

impl Inner {
    /// Whether a proxy may be asked for this destination.
    fn judge(&mut self, peer: SocketAddrV4, destination: SocketAddrV4) -> Option<Destination> {
        match self.policy.judge(*peer.ip(), destination) {
            Verdict::Proxy(destination) => Some(destination),
            Verdict::Subnet => {
                self.counters.misrouted += 1;
                None
            }
            Verdict::Refused(reason) => {
                *self.counters.refused.entry(reason).or_default() += 1;
                None
            }
        }
    }

    /// The stack has no more of a flow. One that came to its end has perhaps bytes on their way to the proxy, and ends by itself; the
    /// connection of any other one is cut, also while it is being made.
    fn finish(&mut self, flow: FlowId, reason: CloseReason) {
        match reason {
            CloseReason::Finished => {
                if let Some(entry) = self.flows.get_mut(&flow) {
                    entry.finished = true;
                    if let Some(waker) = entry.waker.take() {
                        waker.wake();
                    }
                }
            }
            CloseReason::Reset | CloseReason::PeerGone | CloseReason::Aborted => {
                if let Some(entry) = self.flows.remove(&flow) {
                    entry.task.abort();
                }
            }
        }
    }
}

/// The runtime's clock.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
