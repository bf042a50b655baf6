//! Tailnet Lock, as the server's operator and a test see it.

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use tsrs_base_types::LockPublic;

use super::LabControl;
use crate::tailnet::LockLie;

impl LabControl {
    /// Text form of the lock's head; `None` if the lock is off.
    pub fn lock_head(&self) -> Option<String> {
        self.parts.shared.read(|tailnet| tailnet.lock.head())
    }

    /// The keys that the lock trusts, in the order of its state.
    pub fn lock_keys(&self) -> Vec<LockPublic> {
        self.parts.shared.read(|tailnet| {
            let keys = tailnet.lock.state().map(|state| state.keys()).unwrap_or_default();
            keys.iter().filter_map(|key| key.public()).collect()
        })
    }

    /// Ends the lock with the secret that was left for the operator when it was made.
    pub fn end_lock_as_support(&self) -> Result<()> {
        self.parts.shared.change(|tailnet| {
            let secret = tailnet.lock.support_secret().cloned().context("no secret was left")?;
            let state = tailnet.lock.state().cloned().context("tailnet lock is off")?;
            tailnet.end_lock(&state, secret).map(drop)
        })
    }

    /// Lies to the nodes about the lock from now on; `None` speaks the truth again.
    pub fn lie_about_lock(&self, lie: Option<LockLie>) -> Result<()> {
        self.parts.shared.change(|tailnet| tailnet.lock.lie(lie, Timestamp::now()))
    }
}
