//! Probes that wait for their answer.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tsrs_base_types::NodePublic;
use tsrs_tunnel_path::PingId;

use super::Pong;

/// How long a probe inside the tunnel is waited for; clients give up after five seconds themselves.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// Most probes inside the tunnel that wait at once; each is a connection of a local client.
const MAX_WAITING: usize = 256;

/// Which probe an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ProbeId {
    Disco(PingId),
    Tsmp(NodePublic, [u8; 8]),
}

struct Waiting {
    since: Instant,
    answer: oneshot::Sender<Result<Pong, String>>,
}

/// The probes under way. The lock is held for a look-up only.
#[derive(Default)]
pub(super) struct Pings(Mutex<HashMap<ProbeId, Waiting>>);

impl Pings {
    /// Waits for an answer; `None` when too many wait already.
    pub(super) fn wait(&self, id: ProbeId) -> Option<oneshot::Receiver<Result<Pong, String>>> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those whose caller has left make room.
        waiting.retain(|_, waiting| !waiting.answer.is_closed());
        if waiting.len() >= MAX_WAITING {
            return None;
        }
        let (answer, wait) = oneshot::channel();
        waiting.insert(id, Waiting { since: Instant::now(), answer });
        Some(wait)
    }

    /// An answer came. `latency` is measured here when the engine did not.
    pub(super) fn answer(&self, id: ProbeId, pong: Pong, latency: Option<Duration>) {
        if let Some(waiting) = self.take(id) {
            let latency = latency.unwrap_or_else(|| waiting.since.elapsed());
            // The caller may have left.
            let _ = waiting.answer.send(Ok(Pong { latency_seconds: latency.as_secs_f64(), ..pong }));
        }
    }

    /// No answer will come.
    pub(super) fn fail(&self, id: ProbeId, reason: &str) {
        if let Some(waiting) = self.take(id) {
            let _ = waiting.answer.send(Err(reason.to_owned()));
        }
    }

    fn take(&self, id: ProbeId) -> Option<Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }
}
