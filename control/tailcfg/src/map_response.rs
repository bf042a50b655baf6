//! `POST /machine/map`: one frame of the answer (sheet §11).

use std::collections::BTreeMap;
use std::net::IpAddr;

use tsrs_base_types::NodeId;
use tsrs_base_types::time::WireTime;

use crate::{DerpMap, DnsConfig, FilterRule, Node, PeerChange, PingRequest, SshPolicy, UserProfile};

wire! {
    /// One frame of the map stream. The first is complete; in later ones an absent member means "unchanged".
    struct MapResponse {
        /// Handle for resuming the session. We ignore it.
        omit "MapSessionHandle" map_session_handle: String,
        /// Number of the frame for resuming.
        omit "Seq" seq: i64,
        /// A frame without state.
        omit "KeepAlive" keep_alive: bool,
        /// Something to prove; also in keep-alives.
        omit "PingRequest" ping_request: Option<Box<PingRequest>>,
        /// Page to open, once per distinct URL; also in keep-alives.
        omit "PopBrowserURL" pop_browser_url: String,
        /// Ourselves.
        omit "Node" node: Option<Box<Node>>,
        /// The DERP regions, merged into those known.
        omit "DERPMap" derp_map: Option<Box<DerpMap>>,
        /// All peers. An empty list means nothing; a list with entries voids the other members about peers.
        list "Peers" peers: Vec<Node>,
        /// Peers to add or replace.
        list "PeersChanged" peers_changed: Vec<Node>,
        /// Peers to remove.
        omit "PeersRemoved" peers_removed: Vec<NodeId>,
        /// Changes of peers, applied last.
        list "PeersChangedPatch" peers_changed_patch: Vec<PeerChange>,
        /// `true`: seen now; `false`: not known when it was seen.
        omit "PeerSeenChange" peer_seen_change: BTreeMap<NodeId, bool>,
        /// New connection states.
        omit "OnlineChange" online_change: BTreeMap<NodeId, bool>,
        /// Replaces the DNS configuration.
        omit "DNSConfig" dns_config: Option<Box<DnsConfig>>,
        /// Name of the tailnet.
        omit "Domain" domain: String,
        /// Whether `Hostinfo` should list services.
        omit "CollectServices" collect_services: Option<bool>,
        /// Replaces the filter chunk `base`; an empty list empties it.
        opt_list "PacketFilter" packet_filter: Option<Vec<FilterRule>>,
        /// Sets chunks of the filter, or deletes them (`None`); `*` with `None` deletes all first.
        lists "PacketFilters" packet_filters: BTreeMap<String, Option<Vec<FilterRule>>>,
        /// Profiles to add or update.
        list "UserProfiles" user_profiles: Vec<UserProfile>,
        /// Replaces the problems that the server sees; an empty list means healthy.
        omit "Health" health: Option<Vec<String>>,
        /// Sets messages by id, or deletes them (`None`); `*` with `None` deletes all first.
        omit "DisplayMessages" display_messages: BTreeMap<String, Option<DisplayMessage>>,
        /// Replaces the SSH policy.
        omit "SSHPolicy" ssh_policy: Option<Box<SshPolicy>>,
        /// The server's clock; also in keep-alives.
        omit "ControlTime" control_time: Option<WireTime>,
        /// State of Tailnet Lock. Absent in the first frame: off.
        omit "TKAInfo" tka_info: Option<TkaInfo>,
        /// Log id for flow logs.
        omit "DomainDataPlaneAuditLogID" domain_data_plane_audit_log_id: String,
        /// Something to do once.
        omit "Debug" debug: Option<Debug>,
        /// How to reach the server; also in keep-alives.
        omit "ControlDialPlan" control_dial_plan: Option<ControlDialPlan>,
        /// Whether a newer program exists; also in keep-alives.
        omit "ClientVersion" client_version: Option<Box<ClientVersion>>,
        /// Deprecated default for automatic updates.
        omit "DefaultAutoUpdate" default_auto_update: Option<bool>,
    }

    /// A message about the health of the node, from the server to the user.
    struct DisplayMessage {
        /// One line.
        keep "Title" title: String,
        /// The explanation.
        keep "Text" text: String,
        /// `high`, `medium` or `low`.
        keep "Severity" severity: String,
        /// It keeps traffic from flowing.
        omit "ImpactsConnectivity" impacts_connectivity: bool,
        /// What the user may do.
        omit "PrimaryAction" primary_action: Option<DisplayMessageAction>,
    }

    /// A page that helps.
    struct DisplayMessageAction {
        /// The page.
        keep "URL" url: String,
        /// Text of the link.
        keep "Label" label: String,
    }

    /// What the server knows about Tailnet Lock.
    struct TkaInfo {
        /// Head of the chain, base32.
        omit "Head" head: String,
        /// The lock must be switched off.
        omit "Disabled" disabled: bool,
    }

    /// Something to do once.
    struct Debug {
        /// Block the stream for so many seconds.
        omit "SleepSeconds" sleep_seconds: f64,
        /// Upload no logs.
        omit "DisableLogTail" disable_log_tail: bool,
        /// End the program with this code.
        omit "Exit" exit: Option<i64>,
    }

    /// How to reach the server. An empty list means by name.
    struct ControlDialPlan {
        /// The candidates, all tried in parallel, each after its own delay.
        list "Candidates" candidates: Vec<ControlIpCandidate>,
    }

    /// One way to reach the server.
    struct ControlIpCandidate {
        /// Address instead of the name; of `ace_host` if that is given.
        addr "IP" ip: Option<IpAddr>,
        /// Proxy to CONNECT through.
        omit "ACEHost" ace_host: String,
        /// Seconds to wait before trying.
        omit "DialStartDelaySec" dial_start_delay_sec: f64,
        /// Seconds until giving up.
        omit "DialTimeoutSec" dial_timeout_sec: f64,
        /// Ignored by clients of today.
        omit "Priority" priority: i64,
    }

    /// Whether a newer program exists.
    struct ClientVersion {
        /// The newest runs.
        omit "RunningLatest" running_latest: bool,
        /// The newest version.
        omit "LatestVersion" latest_version: String,
        /// A security fix is missing.
        omit "UrgentSecurityUpdate" urgent_security_update: bool,
        /// Tell the user, once per version.
        omit "Notify" notify: bool,
        /// Page for the user.
        omit "NotifyURL" notify_url: String,
        /// Text for the user.
        omit "NotifyText" notify_text: String,
    }
}
