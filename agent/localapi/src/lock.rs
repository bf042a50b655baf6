//! Answer of `tka/status` (client sheet §1.6, last paragraph).

use serde::{Deserialize, Serialize};
use tsrs_base_types::{LockPublic, NodePublic};

/// State of Tailnet Lock as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockStatus {
    /// Whether the tailnet has a lock.
    #[serde(rename = "Enabled")]
    pub enabled: bool,
    /// Hash of the newest AUM, as 32 numbers.
    #[serde(rename = "Head")]
    pub head: Option<[u8; 32]>,
    /// Lock key of this node.
    #[serde(rename = "PublicKey")]
    pub public_key: LockPublic,
    /// Node key of this node; `null` before the first login.
    #[serde(rename = "NodeKey")]
    pub node_key: Option<NodePublic>,
    /// Whether this node's key is signed.
    #[serde(rename = "NodeKeySigned")]
    pub node_key_signed: bool,
    /// Its signature.
    #[serde(rename = "NodeKeySignature")]
    pub node_key_signature: Option<serde_json::Value>,
    /// Keys that may sign.
    #[serde(rename = "TrustedKeys")]
    pub trusted_keys: Option<Vec<serde_json::Value>>,
    /// Peers with a good signature.
    #[serde(rename = "VisiblePeers")]
    pub visible_peers: Option<Vec<serde_json::Value>>,
    /// Peers that the lock keeps out.
    #[serde(rename = "FilteredPeers")]
    pub filtered_peers: Option<Vec<serde_json::Value>>,
    /// Identifies the lock.
    #[serde(rename = "StateID")]
    pub state_id: u64,
}
