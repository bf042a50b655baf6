//! Messages of `watch-ipn-bus` (client sheet §2.4).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use tsrs_base_types::time::WireTime;
use tsrs_base_types::{NodeId, NodePublic, UserId};
use tsrs_control_tailcfg::{Node, PeerChange};

use crate::json;
use crate::prefs::Prefs;
use crate::profile::UserProfile;
use crate::status::{BackendState, Status};

/// Which first messages and which later messages a watcher wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct WatchMask(pub u64);

impl WatchMask {
    /// Statistics of the engine are polled every two seconds.
    pub const ENGINE_UPDATES: Self = Self(1);
    /// First: state, session id and a pending login URL.
    pub const INITIAL_STATE: Self = Self(1 << 1);
    /// First: prefs.
    pub const INITIAL_PREFS: Self = Self(1 << 2);
    /// First: netmap and own node.
    pub const INITIAL_NETMAP: Self = Self(1 << 3);
    /// First: Taildrive shares.
    pub const INITIAL_DRIVE_SHARES: Self = Self(1 << 5);
    /// First: files on their way out.
    pub const INITIAL_OUTGOING_FILES: Self = Self(1 << 6);
    /// First: health.
    pub const INITIAL_HEALTH: Self = Self(1 << 7);
    /// At most one message each three seconds.
    pub const RATE_LIMIT: Self = Self(1 << 8);
    /// First: suggested exit node.
    pub const INITIAL_SUGGESTED_EXIT_NODE: Self = Self(1 << 10);
    /// First: client version.
    pub const INITIAL_CLIENT_VERSION: Self = Self(1 << 11);
    /// Peers as they are added, changed and removed.
    pub const PEER_CHANGES: Self = Self(1 << 12);
    /// Never a netmap after the first message.
    pub const NO_NETMAP: Self = Self(1 << 13);
    /// First: a whole status.
    pub const INITIAL_STATUS: Self = Self(1 << 14);
    /// Peers as patches.
    pub const PEER_PATCHES: Self = Self(1 << 15);
    /// For users inside the official daemon only; refused on the socket.
    pub const IN_PROCESS: Self = Self(1 << 16);
    /// WireGuard session state of peers.
    pub const PEER_STATE: Self = Self(1 << 18);

    /// Whether any bit of `other` is set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl std::ops::BitOr for WatchMask {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One message of the bus. A member that is absent or null says "unchanged".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Notify {
    /// Version of the daemon; in every message.
    #[serde(rename = "Version")]
    pub version: String,
    /// Names this connection, in the first message only.
    #[serde(rename = "SessionID", skip_serializing_if = "String::is_empty")]
    pub session_id: String,
    /// A failure that clients take as final.
    #[serde(rename = "ErrMessage")]
    pub err_message: Option<String>,
    /// A login just succeeded.
    #[serde(rename = "LoginFinished")]
    pub login_finished: Option<Empty>,
    /// State of the agent.
    #[serde(rename = "State", with = "state_number")]
    pub state: Option<BackendState>,
    /// The prefs as they are now.
    #[serde(rename = "Prefs")]
    pub prefs: Option<Box<Prefs>>,
    /// This node as it is now.
    #[serde(rename = "SelfChange", skip_serializing_if = "Option::is_none")]
    pub self_change: Option<Box<Node>>,
    /// A whole status, in the first message only.
    #[serde(rename = "InitialStatus", skip_serializing_if = "Option::is_none")]
    pub initial_status: Option<Box<Status>>,
    /// The netmap in the official client's form.
    #[serde(rename = "NetMap")]
    pub net_map: Option<Value>,
    /// Peers that changed a little.
    #[serde(rename = "PeerChangedPatch", skip_serializing_if = "Vec::is_empty")]
    pub peer_changed_patch: Vec<PeerChange>,
    /// Peers that are new or changed.
    #[serde(rename = "PeersChanged", skip_serializing_if = "Vec::is_empty")]
    pub peers_changed: Vec<Node>,
    /// Peers that are gone.
    #[serde(rename = "PeersRemoved", skip_serializing_if = "Vec::is_empty")]
    pub peers_removed: Vec<NodeId>,
    /// Users that the changes name.
    #[serde(rename = "UserProfiles", skip_serializing_if = "BTreeMap::is_empty")]
    pub user_profiles: BTreeMap<UserId, UserProfile>,
    /// Sessions of peers.
    #[serde(rename = "PeerState", skip_serializing_if = "BTreeMap::is_empty")]
    pub peer_state: BTreeMap<NodeId, PeerState>,
    /// Statistics.
    #[serde(rename = "Engine")]
    pub engine: Option<EngineStatus>,
    /// Where to log in.
    #[serde(rename = "BrowseToURL")]
    pub browse_to_url: Option<String>,
    /// Taildrive shares.
    #[serde(rename = "DriveShares")]
    pub drive_shares: Option<Vec<Value>>,
    /// Files on their way out.
    #[serde(rename = "OutgoingFiles", skip_serializing_if = "Option::is_none")]
    pub outgoing_files: Option<Vec<Value>>,
    /// Health warnings as they are now.
    #[serde(rename = "Health", skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthState>,
}

impl Notify {
    /// Whether it says nothing beside the version.
    pub fn is_empty(&self) -> bool {
        *self == Self { version: self.version.clone(), ..Self::default() }
    }
}

/// Go's empty message: `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// Traffic of the engine as a whole and of peers with a session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineStatus {
    /// Bytes received.
    #[serde(rename = "RBytes")]
    pub rx_bytes: u64,
    /// Bytes sent.
    #[serde(rename = "WBytes")]
    pub tx_bytes: u64,
    /// Peers with a session.
    #[serde(rename = "NumLive")]
    pub live_count: usize,
    /// DERP connections.
    #[serde(rename = "LiveDERPs")]
    pub live_derp_count: usize,
    /// Each peer with a session.
    #[serde(rename = "LivePeers")]
    pub live_peers: BTreeMap<NodePublic, LivePeer>,
}

/// Traffic of one peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LivePeer {
    /// Its key.
    #[serde(rename = "NodeKey")]
    pub node_key: NodePublic,
    /// Bytes sent.
    #[serde(rename = "TxBytes")]
    pub tx_bytes: u64,
    /// Bytes received.
    #[serde(rename = "RxBytes")]
    pub rx_bytes: u64,
    /// When the last handshake was made.
    #[serde(rename = "LastHandshake")]
    pub last_handshake: WireTime,
}

/// WireGuard session of a peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerState {
    /// `none`, `handshake` or `established`.
    #[serde(rename = "PeerWireGuardState", skip_serializing_if = "String::is_empty")]
    pub wireguard_state: String,
    /// Since when.
    #[serde(rename = "PeerWireGuardStateAt", skip_serializing_if = "json::is_default")]
    pub wireguard_state_at: WireTime,
}

/// All health warnings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthState {
    /// By code; `null` when there is none.
    #[serde(rename = "Warnings")]
    pub warnings: Option<BTreeMap<String, HealthWarning>>,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthWarning {
    /// Its code, such as `no-derp-home`.
    #[serde(rename = "WarnableCode")]
    pub code: String,
    /// `low`, `medium` or `high`.
    #[serde(rename = "Severity")]
    pub severity: String,
    /// A headline.
    #[serde(rename = "Title")]
    pub title: String,
    /// One sentence or two.
    #[serde(rename = "Text")]
    pub text: String,
    /// Since when.
    #[serde(rename = "BrokenSince", skip_serializing_if = "Option::is_none")]
    pub broken_since: Option<WireTime>,
    /// Values that the text was made from.
    #[serde(rename = "Args", skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, String>,
    /// Codes whose presence explains this one.
    #[serde(rename = "DependsOn", skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// Whether traffic is hurt.
    #[serde(rename = "ImpactsConnectivity", skip_serializing_if = "json::is_default")]
    pub impacts_connectivity: bool,
    /// What the user can do about it.
    #[serde(rename = "PrimaryAction", skip_serializing_if = "Option::is_none")]
    pub primary_action: Option<HealthAction>,
}

/// A link that helps with a warning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthAction {
    /// Where it leads.
    #[serde(rename = "URL")]
    pub url: String,
    /// What it is called.
    #[serde(rename = "Label")]
    pub label: String,
}

/// The state as a number, or null.
mod state_number {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        state: &Option<BackendState>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        state.map(BackendState::number).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<BackendState>, D::Error> {
        let number = Option::<u8>::deserialize(deserializer)?;
        // A number of a later version is a state that this client cannot name.
        Ok(number.map(|number| BackendState::from_number(number).unwrap_or_default()))
    }
}
