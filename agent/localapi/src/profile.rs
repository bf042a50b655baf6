//! Login profiles (client sheet §2.3, last paragraph).

use serde::{Deserialize, Serialize};
use tsrs_base_types::StableNodeId;
use tsrs_base_types::time::WireTime;

pub use tsrs_control_tailcfg::UserProfile;

/// One account on one control server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoginProfile {
    /// Four hex digits; empty for a profile that was never logged in.
    #[serde(rename = "ID")]
    pub id: String,
    /// Login name or nickname.
    #[serde(rename = "Name")]
    pub name: String,
    /// The tailnet.
    #[serde(rename = "NetworkProfile")]
    pub network_profile: NetworkProfile,
    /// Name of its entry in the state file: `profile-` and the id.
    #[serde(rename = "Key")]
    pub key: String,
    /// Who logged in.
    #[serde(rename = "UserProfile")]
    pub user_profile: UserProfile,
    /// Stable id of this node in it.
    #[serde(rename = "NodeID")]
    pub node_id: StableNodeId,
    /// Windows: the local user who owns the profile.
    #[serde(rename = "LocalUserID")]
    pub local_user_id: String,
    /// The control server.
    #[serde(rename = "ControlURL")]
    pub control_url: String,
    /// When it was first saved.
    #[serde(rename = "Created", skip_serializing_if = "WireTime::is_zero")]
    pub created: WireTime,
}

/// Names of a tailnet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkProfile {
    /// Its DNS suffix.
    #[serde(rename = "MagicDNSName")]
    pub magic_dns_name: String,
    /// Its domain name.
    #[serde(rename = "DomainName")]
    pub domain_name: String,
    /// Its name for people.
    #[serde(rename = "DisplayName")]
    pub display_name: String,
}
