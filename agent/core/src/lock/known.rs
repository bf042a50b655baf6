//! What a profile remembers of Tailnet Lock, beside the stored chain.

use tsrs_control_tka::{Authority, DisablementSecret, Pin, State, StateId};

/// Locks that were switched off here and are remembered. A tailnet has one lock at a time; this bounds what years of locks that
/// come and go leave in the state file.
const MAX_DISABLED: usize = 64;

/// The lock that a profile belongs to, and those that it does not want.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The lock that was verified. While it is here, nothing but its own chain is believed.
    pub lock: Option<Lock>,
    /// Locks that the user has switched off on this node; the newest last.
    pub disabled: Vec<StateId>,
    /// The auth key promised a lock, and none was verified yet.
    pub awaited: bool,
}

/// A lock that was verified once. It is kept in the state file, so that the loss of the chain's files, a log-out or a forced login
/// gives control no second chance to present a chain of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Which lock, and how far its chain had come.
    pub pin: Pin,
    /// What a disablement secret has to hash to, so that the lock can be ended without the files of the chain.
    pub disablement_values: Vec<[u8; 32]>,
}

impl Lock {
    /// The lock of a chain that was just verified for the first time.
    pub fn new(authority: &Authority) -> Self {
        Self { pin: Pin::new(authority), disablement_values: values(authority.state()) }
    }

    /// Takes note of how the chain goes on. Says whether anything is new.
    pub fn note(&mut self, authority: &Authority) -> bool {
        let before = self.clone();
        self.pin.note_head(authority);
        self.disablement_values = values(authority.state());
        *self != before
    }

    /// Whether a secret ends the lock.
    pub fn is_ended_by(&self, secret: &DisablementSecret) -> bool {
        State::new(Vec::new(), self.disablement_values.clone(), self.pin.id).is_ended_by(secret)
    }
}

impl Known {
    /// Switches the lock off on this node alone: its chain is never taken again. Says whether there was one, or one was awaited.
    pub fn disable_here(&mut self) -> bool {
        let awaited = std::mem::take(&mut self.awaited);
        let Some(lock) = self.lock.take() else { return awaited };
        self.disabled.retain(|id| *id != lock.pin.id);
        self.disabled.push(lock.pin.id);
        let excess = self.disabled.len().saturating_sub(MAX_DISABLED);
        self.disabled.drain(..excess);
        true
    }
}

fn values(state: &State) -> Vec<[u8; 32]> {
    state.disablement_values().filter_map(|value| value.try_into().ok()).collect()
}
