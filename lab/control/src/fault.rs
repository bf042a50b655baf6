//! Faults that a test switches on: how a broken or hostile server behaves.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tsrs_base_types::RegionId;

use crate::sync::lock;

/// Which requests a fault touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultTarget {
    /// `GET /key`.
    Key,
    /// `POST /ts2021`.
    Upgrade,
    /// `POST /machine/register`.
    Register,
    /// `POST /machine/map` of the long poll.
    MapStream,
    /// `POST /machine/map` of a lite update or a single map.
    MapUpdate,
    /// A call of Tailnet Lock.
    Lock(LockCall),
    /// `GET /derp` of one region.
    Derp(RegionId),
    /// STUN requests of one region. Any action but a delay drops them.
    Stun(RegionId),
}

/// A call of Tailnet Lock (Tailnet Lock sheet §15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockCall {
    /// `/machine/tka/init/begin`.
    InitBegin,
    /// `/machine/tka/init/finish`.
    InitFinish,
    /// `/machine/tka/bootstrap`.
    Bootstrap,
    /// `/machine/tka/sync/offer`.
    SyncOffer,
    /// `/machine/tka/sync/send`.
    SyncSend,
    /// `/machine/tka/disable`.
    Disable,
    /// `/machine/tka/sign`.
    Sign,
    /// `/machine/tka/affected-sigs`.
    AffectedSigs,
}

impl LockCall {
    /// The call of a path.
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        Some(match path.strip_prefix("/machine/tka/")? {
            "init/begin" => Self::InitBegin,
            "init/finish" => Self::InitFinish,
            "bootstrap" => Self::Bootstrap,
            "sync/offer" => Self::SyncOffer,
            "sync/send" => Self::SyncSend,
            "disable" => Self::Disable,
            "sign" => Self::Sign,
            "affected-sigs" => Self::AffectedSigs,
            _ => return None,
        })
    }
}

/// What happens to such a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultAction {
    /// Answered with this status, `Retry-After` (seconds) and text.
    Status {
        /// HTTP status.
        code: u16,
        /// Seconds of `Retry-After`.
        retry_after: Option<u32>,
        /// Body.
        body: String,
    },
    /// Answered with status 200 and these bytes.
    Garbage(Vec<u8>),
    /// Answered with status 200 and white space without end, which any reader of JSON waits behind.
    Endless,
    /// Never answered.
    Hang,
    /// Answered properly, but so much later.
    Delay(Duration),
}

/// A fault that is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Which requests.
    pub target: FaultTarget,
    /// What happens to them.
    pub action: FaultAction,
    /// How many requests it still touches; `None` is all.
    #[serde(default)]
    pub times: Option<u32>,
}

/// The faults of a running server.
#[derive(Debug, Default)]
pub struct Faults {
    list: Mutex<Vec<Fault>>,
    silent_streams: AtomicBool,
}

impl Faults {
    /// Switches a fault on, as it is written.
    pub fn push(&self, fault: Fault) {
        lock(&self.list).push(fault);
    }

    /// Switches a fault on.
    pub fn add(&self, target: FaultTarget, action: FaultAction) {
        self.push(Fault { target, action, times: None });
    }

    /// Switches a fault on for so many requests.
    pub fn add_times(&self, target: FaultTarget, action: FaultAction, times: u32) {
        self.push(Fault { target, action, times: Some(times) });
    }

    /// Switches everything off.
    pub fn clear(&self) {
        lock(&self.list).clear();
        self.silence_streams(false);
    }

    /// Map streams stay open but nothing more is sent on them, keep-alives included.
    pub fn silence_streams(&self, on: bool) {
        self.silent_streams.store(on, Ordering::Relaxed);
    }

    pub(crate) fn streams_are_silent(&self) -> bool {
        self.silent_streams.load(Ordering::Relaxed)
    }

    /// The action for one request, counted down.
    pub(crate) fn take(&self, target: FaultTarget) -> Option<FaultAction> {
        let mut list = lock(&self.list);
        let index = list.iter().position(|fault| fault.target == target)?;
        let action = list[index].action.clone();
        if let Some(times) = &mut list[index].times {
            *times = times.saturating_sub(1);
            if *times == 0 {
                list.remove(index);
            }
        }
        Some(action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counted_fault_ends_and_touches_only_its_target() {
        let faults = Faults::default();
        faults.add_times(FaultTarget::Key, FaultAction::Hang, 2);
        assert_eq!(faults.take(FaultTarget::Register), None);
        assert_eq!(faults.take(FaultTarget::Key), Some(FaultAction::Hang));
        assert_eq!(faults.take(FaultTarget::Key), Some(FaultAction::Hang));
        assert_eq!(faults.take(FaultTarget::Key), None);
    }

    #[test]
    fn the_first_of_two_faults_for_one_target_wins_until_it_is_used_up() {
        let faults = Faults::default();
        faults.add_times(FaultTarget::Stun(RegionId(1)), FaultAction::Hang, 1);
        faults.add(FaultTarget::Stun(RegionId(1)), FaultAction::Delay(Duration::from_secs(1)));
        assert_eq!(faults.take(FaultTarget::Stun(RegionId(1))), Some(FaultAction::Hang));
        assert!(matches!(faults.take(FaultTarget::Stun(RegionId(1))), Some(FaultAction::Delay(_))));
        assert_eq!(faults.take(FaultTarget::Stun(RegionId(2))), None);
    }
}
