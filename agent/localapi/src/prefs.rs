//! Preferences and masked preferences (client sheet §2.3).

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tsrs_base_types::StableNodeId;

use crate::json::{self, FromClient};
use crate::profile::UserProfile;

/// Defines [`Prefs`], [`PrefsMask`] and what moves a field from one to the other, so that no field can be forgotten.
macro_rules! prefs {
    ($($(#[doc = $doc:literal])* $(#[serde($($attr:tt)*)])* $field:ident: $type:ty = $name:literal / $mask:literal,)*) => {
        /// Everything that a user may set, as one flat object.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Prefs {
            $($(#[doc = $doc])* $(#[serde($($attr)*)])* #[serde(rename = $name)] pub $field: $type,)*
            /// When and as what updates install themselves.
            #[serde(rename = "AutoUpdate")]
            pub auto_update: AutoUpdatePrefs,
            /// The persisted login as readers may see it; `null` before the first login.
            #[serde(rename = "Config")]
            pub config: Option<LoginConfig>,
        }

        impl Prefs {
            /// The value of every field in Go's zero state.
            pub fn zero() -> Self {
                Self {
                    $($field: <$type>::default(),)*
                    auto_update: AutoUpdatePrefs::default(),
                    config: None,
                }
            }
        }

        /// Which fields of a [`MaskedPrefs`] count.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct PrefsMask {
            $(
                #[doc = concat!("Whether `", $name, "` counts.")]
                #[serde(rename = $mask, skip_serializing_if = "json::is_default")]
                pub $field: bool,
            )*
            /// Which members of `AutoUpdate` count.
            #[serde(rename = "AutoUpdateSet", skip_serializing_if = "json::is_default")]
            pub auto_update: AutoUpdateMask,
        }

        impl MaskedPrefs {
            /// Writes the fields that count into `prefs`.
            pub fn apply_to(&self, prefs: &mut Prefs) {
                $(if self.mask.$field { prefs.$field.clone_from(&self.prefs.$field); })*
                if self.mask.auto_update.check {
                    prefs.auto_update.check = self.prefs.auto_update.check;
                }
                if self.mask.auto_update.apply {
                    prefs.auto_update.apply = self.prefs.auto_update.apply;
                }
            }

            /// The edit that turns `from` into `to`: only fields that differ count.
            pub fn between(from: &Prefs, to: &Prefs) -> Self {
                Self {
                    prefs: Prefs { config: None, ..to.clone() },
                    mask: PrefsMask {
                        $($field: from.$field != to.$field,)*
                        auto_update: AutoUpdateMask {
                            check: from.auto_update.check != to.auto_update.check,
                            apply: from.auto_update.apply != to.auto_update.apply,
                        },
                    },
                }
            }
        }

        impl FromClient for Prefs {
            const NAMES: &'static [&'static str] = NAMES;
        }

        impl FromClient for MaskedPrefs {
            const NAMES: &'static [&'static str] = NAMES;
        }

        /// Every field name of prefs, their masks and the objects inside them.
        pub(crate) const NAMES: &[&str] = &[
            $($name, $mask,)*
            "AutoUpdate", "AutoUpdateSet", "Check", "CheckSet", "Apply", "ApplySet", "Advertise", "Config",
            "PrivateNodeKey", "OldPrivateNodeKey", "UserProfile", "NetworkLockKey", "NodeID", "ID", "LoginName",
            "DisplayName", "ProfilePicURL", "FrontendLogID", "UpdatePrefs", "AuthKey",
        ];
    };
}

prefs! {
    /// URL of the control server; empty means the default one.
    control_url: String = "ControlURL" / "ControlURLSet",
    /// Whether subnet routes of peers are accepted.
    route_all: bool = "RouteAll" / "RouteAllSet",
    /// The exit node in use.
    exit_node_id: StableNodeId = "ExitNodeID" / "ExitNodeIDSet",
    /// The exit node as an address, until the netmap tells its id.
    #[serde(with = "json::addr")]
    exit_node_ip: Option<IpAddr> = "ExitNodeIP" / "ExitNodeIPSet",
    /// How an exit node is chosen, such as `any`.
    #[serde(skip_serializing_if = "String::is_empty")]
    auto_exit_node: String = "AutoExitNode" / "AutoExitNodeSet",
    /// The exit node in use before the last change; clients may not write it.
    internal_exit_node_prior: StableNodeId = "InternalExitNodePrior" / "InternalExitNodePriorSet",
    /// Whether the local network stays reachable beside an exit node.
    exit_node_allow_lan_access: bool = "ExitNodeAllowLANAccess" / "ExitNodeAllowLANAccessSet",
    /// Whether the tailnet's DNS settings are used.
    corp_dns: bool = "CorpDNS" / "CorpDNSSet",
    /// Whether the SSH server runs.
    run_ssh: bool = "RunSSH" / "RunSSHSet",
    /// Whether the web interface is served to the tailnet.
    run_web_client: bool = "RunWebClient" / "RunWebClientSet",
    /// Whether the user wants the tunnel up.
    want_running: bool = "WantRunning" / "WantRunningSet",
    /// Whether the user logged out on purpose.
    logged_out: bool = "LoggedOut" / "LoggedOutSet",
    /// Whether new incoming connections are refused.
    shields_up: bool = "ShieldsUp" / "ShieldsUpSet",
    /// Tags that the node asks for.
    advertise_tags: Option<Vec<String>> = "AdvertiseTags" / "AdvertiseTagsSet",
    /// Host name to present instead of the system's.
    hostname: String = "Hostname" / "HostnameSet",
    /// A debugging aid of Windows.
    notepad_urls: bool = "NotepadURLs" / "NotepadURLsSet",
    /// Windows: whether the tunnel stays up without a user.
    #[serde(skip_serializing_if = "json::is_default")]
    force_daemon: bool = "ForceDaemon" / "ForceDaemonSet",
    /// An easter egg of the official client.
    #[serde(skip_serializing_if = "json::is_default")]
    egg: bool = "Egg" / "EggSet",
    /// Subnets that this node routes for its peers.
    advertise_routes: Option<Vec<IpNet>> = "AdvertiseRoutes" / "AdvertiseRoutesSet",
    /// Tailscale Services that this node serves.
    advertise_services: Option<Vec<String>> = "AdvertiseServices" / "AdvertiseServicesSet",
    /// Whether the map stream is kept open.
    sync: Option<bool> = "Sync" / "SyncSet",
    /// Whether forwarded subnet traffic keeps its source address.
    no_snat: bool = "NoSNAT" / "NoSNATSet",
    /// Whether forwarded traffic is not filtered by connection state.
    no_stateful_filtering: Option<bool> = "NoStatefulFiltering" / "NoStatefulFilteringSet",
    /// How much of the host firewall is managed: see [`NetfilterMode`].
    netfilter_mode: i64 = "NetfilterMode" / "NetfilterModeSet",
    /// Local user who may change settings without being root.
    #[serde(skip_serializing_if = "String::is_empty")]
    operator_user: String = "OperatorUser" / "OperatorUserSet",
    /// Nickname of the profile.
    #[serde(skip_serializing_if = "String::is_empty")]
    profile_name: String = "ProfileName" / "ProfileNameSet",
    /// Whether this node is an app connector.
    app_connector: AppConnectorPrefs = "AppConnector" / "AppConnectorSet",
    /// Whether device identity is reported.
    posture_checking: bool = "PostureChecking" / "PostureCheckingSet",
    /// Firewall back end wanted: `iptables`, `nftables` or empty.
    netfilter_kind: String = "NetfilterKind" / "NetfilterKindSet",
    /// Whether control may call the LocalAPI.
    remote_config: bool = "RemoteConfig" / "RemoteConfigSet",
    /// Directories shared by Taildrive.
    drive_shares: Option<Vec<serde_json::Value>> = "DriveShares" / "DriveSharesSet",
    /// Port of the peer relay server; absent means off.
    #[serde(skip_serializing_if = "Option::is_none")]
    relay_server_port: Option<u16> = "RelayServerPort" / "RelayServerPortSet",
    /// Fixed endpoints of the peer relay server.
    #[serde(skip_serializing_if = "Option::is_none")]
    relay_server_static_endpoints: Option<Vec<SocketAddr>> =
        "RelayServerStaticEndpoints" / "RelayServerStaticEndpointsSet",
    /// Whether nobody comes in before Tailnet Lock is verified, and nobody unsigned afterwards. Not in the official client.
    #[serde(skip_serializing_if = "json::is_default")]
    lock_required: bool = "LockRequired" / "LockRequiredSet",
    /// The first lock that is taken: the hash of its first update, or a key that signed it; empty for any. Not in the official client.
    #[serde(skip_serializing_if = "String::is_empty")]
    lock_pin: String = "LockPin" / "LockPinSet",
}

impl Default for Prefs {
    fn default() -> Self {
        Self::zero()
    }
}

/// How much of the host firewall is managed (client sheet §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetfilterMode {
    /// Nothing is touched.
    Off,
    /// Our table exists but nothing is diverted to it.
    NoDivert,
    /// Fully managed; the default.
    On,
}

impl NetfilterMode {
    /// From its number in prefs; other numbers are refused.
    pub fn from_number(number: i64) -> Option<Self> {
        match number {
            0 => Some(Self::Off),
            1 => Some(Self::NoDivert),
            2 => Some(Self::On),
            _ => None,
        }
    }

    /// Its number in prefs.
    pub fn number(self) -> i64 {
        match self {
            Self::Off => 0,
            Self::NoDivert => 1,
            Self::On => 2,
        }
    }
}

/// When updates are looked for and installed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoUpdatePrefs {
    /// Whether to tell about new versions.
    #[serde(rename = "Check")]
    pub check: bool,
    /// Whether to install them; `null` = never chosen.
    #[serde(rename = "Apply")]
    pub apply: Option<bool>,
}

/// Which members of [`AutoUpdatePrefs`] count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoUpdateMask {
    /// Whether `Check` counts.
    #[serde(rename = "CheckSet", skip_serializing_if = "json::is_default")]
    pub check: bool,
    /// Whether `Apply` counts.
    #[serde(rename = "ApplySet", skip_serializing_if = "json::is_default")]
    pub apply: bool,
}

/// Settings of the app connector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AppConnectorPrefs {
    /// Whether this node offers to be one.
    #[serde(rename = "Advertise")]
    pub advertise: bool,
}

/// What readers see of the persisted login.
///
/// The CLI looks at `UserProfile.LoginName` to choose the path of a bare `up` (client sheet §2.3). The key fields are
/// there because typed clients expect them; they always hold zeros.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoginConfig {
    /// Always zero.
    #[serde(rename = "PrivateNodeKey")]
    pub private_node_key: ZeroNodeKey,
    /// Always zero.
    #[serde(rename = "OldPrivateNodeKey")]
    pub old_private_node_key: ZeroNodeKey,
    /// Who logged in.
    #[serde(rename = "UserProfile")]
    pub user_profile: UserProfile,
    /// Always zero.
    #[serde(rename = "NetworkLockKey")]
    pub network_lock_key: ZeroLockKey,
    /// Stable id of this node.
    #[serde(rename = "NodeID")]
    pub node_id: StableNodeId,
}

macro_rules! zero_key {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $digits:literal) => {
        $(#[$doc])*
        ///
        /// Whatever is read into it is thrown away.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name;

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&format_args!("{}{:0width$}", $prefix, 0, width = $digits))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
            }
        }
    };
}

zero_key! {
    /// Stands where the official daemon writes a zeroed node key.
    ZeroNodeKey, "privkey:", 64
}
zero_key! {
    /// Stands where the official daemon writes a zeroed lock key.
    ZeroLockKey, "nlpriv:", 128
}

/// An edit of prefs: values, and which of them count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MaskedPrefs {
    /// The values.
    #[serde(flatten)]
    pub prefs: Prefs,
    /// Which of them count; values without their mask are ignored.
    #[serde(flatten)]
    pub mask: PrefsMask,
}

impl MaskedPrefs {
    /// Whether nothing counts.
    pub fn is_empty(&self) -> bool {
        self.mask == PrefsMask::default()
    }
}
