//! Bodies and parameters of the smaller endpoints (client sheet §1.6 and §2.2).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tsrs_control_tailcfg::{CapMap, Node};

use crate::json::{self, FromClient};
use crate::prefs::{NAMES, Prefs};
use crate::profile::UserProfile;

/// Body of `start`.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StartOptions {
    /// Ignored.
    #[serde(rename = "FrontendLogID")]
    pub frontend_log_id: String,
    /// The prefs to run with, all of them; the login in `Config` is ignored.
    #[serde(rename = "UpdatePrefs")]
    pub update_prefs: Option<Prefs>,
    /// A key to log in with.
    #[serde(rename = "AuthKey")]
    pub auth_key: String,
}

impl FromClient for StartOptions {
    const NAMES: &'static [&'static str] = NAMES;
}

impl fmt::Debug for StartOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartOptions")
            .field("update_prefs", &self.update_prefs)
            .field("auth_key", &if self.auth_key.is_empty() { "" } else { "[redacted]" })
            .finish_non_exhaustive()
    }
}

/// Kinds of `ping`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PingKind {
    /// Path probe.
    Disco,
    /// Through WireGuard to the peer's engine.
    Tsmp,
    /// Through WireGuard to the peer's operating system.
    Icmp,
    /// HTTP request to the peer's PeerAPI.
    PeerApi,
}

impl PingKind {
    /// Its word in the parameter `type`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Disco => "disco",
            Self::Tsmp => "TSMP",
            Self::Icmp => "ICMP",
            Self::PeerApi => "peerapi",
        }
    }
}

impl FromStr for PingKind {
    type Err = UnknownPingKind;

    fn from_str(word: &str) -> Result<Self, UnknownPingKind> {
        [Self::Disco, Self::Tsmp, Self::Icmp, Self::PeerApi]
            .into_iter()
            .find(|kind| kind.word() == word)
            .ok_or(UnknownPingKind)
    }
}

/// The parameter `type` of `ping` names no kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown ping type")]
pub struct UnknownPingKind;

/// Answer of `ping`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PingResult {
    /// The address asked for.
    #[serde(rename = "IP")]
    pub ip: String,
    /// The peer's own address.
    #[serde(rename = "NodeIP")]
    pub node_ip: String,
    /// The peer's name.
    #[serde(rename = "NodeName")]
    pub node_name: String,
    /// Why there was no answer.
    #[serde(rename = "Err")]
    pub err: String,
    /// Round trip.
    #[serde(rename = "LatencySeconds")]
    pub latency_seconds: f64,
    /// UDP address of a direct answer.
    #[serde(rename = "Endpoint")]
    pub endpoint: String,
    /// Peer relay of the answer.
    #[serde(rename = "PeerRelay")]
    pub peer_relay: String,
    /// DERP region of the answer.
    #[serde(rename = "DERPRegionID")]
    pub derp_region_id: i64,
    /// Code of that region.
    #[serde(rename = "DERPRegionCode")]
    pub derp_region_code: String,
    /// Port of the peer's PeerAPI, in answers to TSMP.
    #[serde(rename = "PeerAPIPort", skip_serializing_if = "json::is_default")]
    pub peer_api_port: u16,
    /// URL of the peer's PeerAPI, in answers to `peerapi`.
    #[serde(rename = "PeerAPIURL", skip_serializing_if = "String::is_empty")]
    pub peer_api_url: String,
    /// Whether the address is our own.
    #[serde(rename = "IsLocalIP", skip_serializing_if = "json::is_default")]
    pub is_local_ip: bool,
}

/// Answer of `whois`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WhoIs {
    /// The node behind the address.
    #[serde(rename = "Node")]
    pub node: Option<Box<Node>>,
    /// Its user.
    #[serde(rename = "UserProfile")]
    pub user_profile: Option<UserProfile>,
    /// What the node may do with us; `null` when that is nothing.
    #[serde(rename = "CapMap")]
    pub cap_map: Option<CapMap>,
}

/// Answer of `dns-osconfig`: the host's settings below ours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsOsConfig {
    /// Name servers.
    #[serde(rename = "Nameservers")]
    pub nameservers: Vec<String>,
    /// Search domains.
    #[serde(rename = "SearchDomains")]
    pub search_domains: Vec<String>,
    /// Domains that the name servers are for.
    #[serde(rename = "MatchDomains")]
    pub match_domains: Vec<String>,
}

/// Answer of `dns-query`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsQueryAnswer {
    /// The whole DNS message in base64.
    #[serde(rename = "Bytes")]
    pub bytes: String,
    /// Who was asked.
    #[serde(rename = "Resolvers")]
    pub resolvers: Vec<ResolverAddr>,
}

/// One resolver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResolverAddr {
    /// Address, with a port or as a URL.
    #[serde(rename = "Addr")]
    pub addr: String,
    /// Addresses of a resolver that is named by URL.
    #[serde(rename = "BootstrapResolution", skip_serializing_if = "Vec::is_empty")]
    pub bootstrap_resolution: Vec<IpAddr>,
}

/// Answer of `check-ip-forwarding`, `check-udp-gro-forwarding` and their like: empty = all is well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Warning {
    /// What to fix.
    #[serde(rename = "Warning")]
    pub warning: String,
}

/// Answer of `check-so-mark-in-use`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UseSoMark {
    /// Whether own sockets bypass the tunnel by a mark.
    #[serde(rename = "UseSOMark")]
    pub use_so_mark: bool,
}

/// Answer of `suggest-exit-node`; empty strings = none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExitNodeSuggestion {
    /// Stable id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Name.
    #[serde(rename = "Name")]
    pub name: String,
}

/// Answer of `reload-config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reloaded {
    /// Whether there is a configuration file and it was read again.
    #[serde(rename = "Reloaded")]
    pub reloaded: bool,
    /// Why it could not be read.
    #[serde(rename = "Err")]
    pub err: String,
}

/// Answer of `check-prefs`: empty = the prefs are fine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckPrefsAnswer {
    /// Why not.
    #[serde(rename = "Error", skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// Body of a JSON error. Clients read either spelling.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorBody {
    /// What went wrong.
    #[serde(rename = "error", alias = "Error")]
    pub error: String,
}

/// Header names and values of `dial` (client sheet §2.2).
pub mod dial {
    /// Value of `Upgrade`.
    pub const UPGRADE: &str = "ts-dial";
    /// Header: the host to reach.
    pub const HOST: &str = "Dial-Host";
    /// Header: its port.
    pub const PORT: &str = "Dial-Port";
    /// Header: `tcp` or `udp`.
    pub const NETWORK: &str = "Dial-Network";
    /// Header of the answer: `true` when the caller must dial itself.
    pub const SELF: &str = "Dial-Self";
    /// Header of the answer: the address to dial.
    pub const ADDR: &str = "Dial-Addr";
}
