//! The capability version: one number that says which protocol behaviour a node implements (sheet §21).

use serde::{Deserialize, Serialize};

/// A capability version. Zero means "unknown".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CapabilityVersion(pub i64);

impl CapabilityVersion {
    /// What this program claims, in the Noise prologue, in `/key?v=` and in the `Version` of every request.
    ///
    /// It is a promise: the server may leave out every older form. 119 is the highest number whose whole column is
    /// handled; from 120 on a node must speak the disco messages of peer relays, and peers that see 121 or more use
    /// it for relaying. Servers refuse numbers below about 113.
    pub const CURRENT: Self = Self(Self::CURRENT_NUMBER as i64);

    /// [`CapabilityVersion::CURRENT`] in the width that the Noise prologue and initiation have.
    pub const CURRENT_NUMBER: u16 = 119;

    /// From here on a peer's PeerAPI can answer DNS queries when that peer is the exit node.
    pub const EXIT_NODE_DNS: Self = Self(26);
}

impl std::fmt::Display for CapabilityVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
