//! The answer of `status`, which is also what `status --json` prints (client sheet §1.6).

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tsrs_base_types::time::WireTime;
use tsrs_base_types::{NodeId, NodePublic, StableNodeId, UserId};
use tsrs_control_tailcfg::{CapMap, DnsRecord};

use crate::json;
use crate::profile::UserProfile;

/// State of the agent: a word in [`Status`], a number in [`crate::Notify`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BackendState {
    /// Not yet known: the agent is starting or changing profile.
    #[default]
    NoState,
    /// Another local user has it; Windows only.
    InUseOtherUser,
    /// A login is needed.
    NeedsLogin,
    /// The login is done; an admin must approve the device.
    NeedsMachineAuth,
    /// Logged in, and down by the user's wish.
    Stopped,
    /// Wanted up, no netmap or no connection yet.
    Starting,
    /// Up.
    Running,
}

impl BackendState {
    /// Every state, at the index of its number.
    pub const ALL: [Self; 7] = [
        Self::NoState,
        Self::InUseOtherUser,
        Self::NeedsLogin,
        Self::NeedsMachineAuth,
        Self::Stopped,
        Self::Starting,
        Self::Running,
    ];

    /// Its number on the bus.
    pub fn number(self) -> u8 {
        match self {
            Self::NoState => 0,
            Self::InUseOtherUser => 1,
            Self::NeedsLogin => 2,
            Self::NeedsMachineAuth => 3,
            Self::Stopped => 4,
            Self::Starting => 5,
            Self::Running => 6,
        }
    }

    /// From its number on the bus.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Its word in `status`.
    pub fn word(self) -> &'static str {
        match self {
            Self::NoState => "NoState",
            Self::InUseOtherUser => "InUseOtherUser",
            Self::NeedsLogin => "NeedsLogin",
            Self::NeedsMachineAuth => "NeedsMachineAuth",
            Self::Stopped => "Stopped",
            Self::Starting => "Starting",
            Self::Running => "Running",
        }
    }
}

/// Everything about the node, its tailnet and its peers at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Version of the daemon.
    #[serde(rename = "Version")]
    pub version: String,
    /// Whether there is a TUN device.
    #[serde(rename = "TUN")]
    pub tun: bool,
    /// State of the agent.
    #[serde(rename = "BackendState")]
    pub backend_state: BackendState,
    /// Whether the current profile has a node key, expired or not.
    #[serde(rename = "HaveNodeKey", skip_serializing_if = "json::is_default")]
    pub have_node_key: bool,
    /// Where to log in, while a login is pending.
    #[serde(rename = "AuthURL")]
    pub auth_url: String,
    /// Addresses of this node in the tailnet.
    #[serde(rename = "TailscaleIPs")]
    pub tailscale_ips: Option<Vec<IpAddr>>,
    /// This node; never `null` in what we write, because clients dereference it.
    #[serde(rename = "Self")]
    pub self_node: Option<PeerStatus>,
    /// The exit node in use.
    #[serde(rename = "ExitNodeStatus", skip_serializing_if = "Option::is_none")]
    pub exit_node_status: Option<ExitNodeStatus>,
    /// Texts of the health warnings.
    #[serde(rename = "Health")]
    pub health: Option<Vec<String>>,
    /// DNS suffix of the tailnet without dots at its ends.
    #[serde(rename = "MagicDNSSuffix")]
    pub magic_dns_suffix: String,
    /// The tailnet; `null` without a netmap.
    #[serde(rename = "CurrentTailnet")]
    pub current_tailnet: Option<TailnetStatus>,
    /// Names that the node may get certificates for.
    #[serde(rename = "CertDomains")]
    pub cert_domains: Option<Vec<String>>,
    /// Extra DNS records of the tailnet.
    #[serde(rename = "ExtraRecords")]
    pub extra_records: Option<Vec<DnsRecord>>,
    /// Peers by node key; `null` when left out or when there is none.
    #[serde(rename = "Peer")]
    pub peer: Option<BTreeMap<NodePublic, PeerStatus>>,
    /// Users that the nodes name.
    #[serde(rename = "User")]
    pub user: Option<BTreeMap<UserId, UserProfile>>,
    /// News about versions; we look for none, so `null`.
    #[serde(rename = "ClientVersion")]
    pub client_version: Option<Value>,
}

/// The tailnet that the node is in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TailnetStatus {
    /// Its name.
    #[serde(rename = "Name")]
    pub name: String,
    /// Its DNS suffix.
    #[serde(rename = "MagicDNSSuffix")]
    pub magic_dns_suffix: String,
    /// Whether names below the suffix resolve.
    #[serde(rename = "MagicDNSEnabled")]
    pub magic_dns_enabled: bool,
}

/// The exit node in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExitNodeStatus {
    /// Its stable id.
    #[serde(rename = "ID")]
    pub id: StableNodeId,
    /// Whether control sees it.
    #[serde(rename = "Online")]
    pub online: bool,
    /// Its addresses as prefixes.
    #[serde(rename = "TailscaleIPs")]
    pub tailscale_ips: Option<Vec<IpNet>>,
}

/// One node: this one or a peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerStatus {
    /// Stable id.
    #[serde(rename = "ID")]
    pub id: StableNodeId,
    /// Number.
    #[serde(rename = "NodeID")]
    pub node_id: NodeId,
    /// Node key.
    #[serde(rename = "PublicKey")]
    pub public_key: NodePublic,
    /// Host name as the host reports it.
    #[serde(rename = "HostName")]
    pub host_name: String,
    /// Full DNS name with the final dot.
    #[serde(rename = "DNSName")]
    pub dns_name: String,
    /// Operating system.
    #[serde(rename = "OS")]
    pub os: String,
    /// Owner.
    #[serde(rename = "UserID")]
    pub user_id: UserId,
    /// The user who shared it, when that is not the owner.
    #[serde(rename = "AltSharerUserID", skip_serializing_if = "json::is_default")]
    pub alt_sharer_user_id: UserId,
    /// Addresses in the tailnet.
    #[serde(rename = "TailscaleIPs")]
    pub tailscale_ips: Option<Vec<IpAddr>>,
    /// Prefixes that are routed to it.
    #[serde(rename = "AllowedIPs", skip_serializing_if = "Option::is_none")]
    pub allowed_ips: Option<Vec<IpNet>>,
    /// Its tags.
    #[serde(rename = "Tags", skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Subnet routes for which it is the active router.
    #[serde(rename = "PrimaryRoutes", skip_serializing_if = "Option::is_none")]
    pub primary_routes: Option<Vec<IpNet>>,
    /// UDP endpoints of this node; `null` for peers.
    #[serde(rename = "Addrs")]
    pub addrs: Option<Vec<String>>,
    /// The direct path in use, or empty.
    #[serde(rename = "CurAddr")]
    pub cur_addr: String,
    /// Code of its home DERP region.
    #[serde(rename = "Relay")]
    pub relay: String,
    /// The peer relay in use.
    #[serde(rename = "PeerRelay")]
    pub peer_relay: String,
    /// Bytes received from it.
    #[serde(rename = "RxBytes")]
    pub rx_bytes: u64,
    /// Bytes sent to it.
    #[serde(rename = "TxBytes")]
    pub tx_bytes: u64,
    /// When it joined the tailnet.
    #[serde(rename = "Created")]
    pub created: WireTime,
    /// When the last packet was sent to it.
    #[serde(rename = "LastWrite")]
    pub last_write: WireTime,
    /// When control last saw it; zero while online.
    #[serde(rename = "LastSeen")]
    pub last_seen: WireTime,
    /// When the last WireGuard handshake was made.
    #[serde(rename = "LastHandshake")]
    pub last_handshake: WireTime,
    /// Whether control sees it.
    #[serde(rename = "Online")]
    pub online: bool,
    /// Whether it is the exit node in use.
    #[serde(rename = "ExitNode")]
    pub exit_node: bool,
    /// Whether it offers to be an exit node.
    #[serde(rename = "ExitNodeOption")]
    pub exit_node_option: bool,
    /// Whether traffic flowed lately.
    #[serde(rename = "Active")]
    pub active: bool,
    /// Base URLs of its PeerAPI.
    #[serde(rename = "PeerAPIURL")]
    pub peer_api_url: Option<Vec<String>>,
    /// Whether files can be sent to it: 0 unknown, 1 yes, 2 no netmap, 3 not running, 4 missing capability, 5 offline, …
    #[serde(rename = "TaildropTarget")]
    pub taildrop_target: u8,
    /// Why files cannot be sent to it.
    #[serde(rename = "NoFileSharingReason")]
    pub no_file_sharing_reason: String,
    /// Old form of `CapMap`.
    #[serde(rename = "Capabilities", skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
    /// Capabilities and their values.
    #[serde(rename = "CapMap", skip_serializing_if = "Option::is_none")]
    pub cap_map: Option<CapMap>,
    /// SSH host keys.
    #[serde(rename = "sshHostKeys", skip_serializing_if = "Option::is_none")]
    pub ssh_host_keys: Option<Vec<String>>,
    /// Whether it is here only because we shared a node with its owner.
    #[serde(rename = "ShareeNode", skip_serializing_if = "json::is_default")]
    pub sharee_node: bool,
    /// Whether it is in the netmap.
    #[serde(rename = "InNetworkMap")]
    pub in_network_map: bool,
    /// Whether path selection knows it.
    #[serde(rename = "InMagicSock")]
    pub in_magic_sock: bool,
    /// Whether it has a WireGuard session.
    #[serde(rename = "InEngine")]
    pub in_engine: bool,
    /// Whether its node key has expired.
    #[serde(rename = "Expired", skip_serializing_if = "json::is_default")]
    pub expired: bool,
    /// When its node key expires.
    #[serde(rename = "KeyExpiry", skip_serializing_if = "Option::is_none")]
    pub key_expiry: Option<WireTime>,
    /// Where it stands.
    #[serde(rename = "Location", skip_serializing_if = "Option::is_none")]
    pub location: Option<Value>,
}

/// What the list of own capabilities begins with: clients are asked to read `CapMap`.
pub const DEPRECATED_CAPABILITIES: &str =
    "HTTPS://TAILSCALE.COM/s/DEPRECATED-NODE-CAPS#see-https://github.com/tailscale/tailscale/issues/11508";
