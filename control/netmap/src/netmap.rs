//! The snapshot that consumers hold.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use tsrs_base_types::{NodeId, NodePublic, UserId};
use tsrs_control_tailcfg::{
    ControlDialPlan, DerpMap, DisplayMessage, DnsConfig, FilterRule, Node, SshPolicy, TkaInfo, UserProfile,
};

use crate::health::Health;
use crate::names::magic_dns_suffix;
use crate::ordmap::OrdMap;
use crate::peers::Peers;

/// Everything that the server has told about the tailnet, at one moment.
///
/// A snapshot never changes. Two snapshots in a row share all parts that are the same in both.
#[derive(Clone, Debug)]
pub struct Netmap {
    pub(crate) self_node: Arc<Node>,
    pub(crate) peers: Peers,
    pub(crate) derp_map: Arc<DerpMap>,
    pub(crate) dns: Arc<DnsConfig>,
    pub(crate) domain: Arc<str>,
    pub(crate) collect_services: bool,
    pub(crate) filter_chunks: Arc<BTreeMap<String, Arc<[FilterRule]>>>,
    pub(crate) user_profiles: OrdMap<UserId, Arc<UserProfile>>,
    pub(crate) health: Arc<Health>,
    pub(crate) ssh_policy: Option<Arc<SshPolicy>>,
    pub(crate) tka_info: Option<TkaInfo>,
    pub(crate) audit_log_id: Arc<str>,
    pub(crate) dial_plan: Option<Arc<ControlDialPlan>>,
    pub(crate) cached: bool,
}

impl Netmap {
    pub(crate) fn new(self_node: Arc<Node>, dial_plan: Option<Arc<ControlDialPlan>>) -> Self {
        Self {
            self_node,
            peers: Peers::default(),
            derp_map: Arc::default(),
            dns: Arc::default(),
            domain: "".into(),
            collect_services: false,
            filter_chunks: Arc::default(),
            user_profiles: OrdMap::default(),
            health: Arc::default(),
            ssh_policy: None,
            tka_info: None,
            audit_log_id: "".into(),
            dial_plan,
            cached: false,
        }
    }

    /// Ourselves.
    pub fn self_node(&self) -> &Arc<Node> {
        &self.self_node
    }

    /// Whether a node attribute of ours is set.
    pub fn has_self_cap(&self, name: &str) -> bool {
        self.self_node.has_cap(name)
    }

    /// The peers.
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Ourselves or a peer, by id.
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        if self.self_node.id == id { Some(&self.self_node) } else { self.peers.get(id) }
    }

    /// Ourselves or a peer, by WireGuard key.
    pub fn node_by_key(&self, key: &NodePublic) -> Option<&Arc<Node>> {
        if self.self_node.key == *key { Some(&self.self_node) } else { self.peers.by_key(key) }
    }

    /// Ourselves or a peer, by one of its own addresses. Routes behind a node are not looked at.
    pub fn node_by_addr(&self, addr: IpAddr) -> Option<&Arc<Node>> {
        let own = self.self_node.addresses.iter().any(|net| net.addr() == addr);
        if own { Some(&self.self_node) } else { self.peers.by_addr(addr) }
    }

    /// The DERP regions, merged from all updates. Empty until the server sends some.
    pub fn derp_map(&self) -> &Arc<DerpMap> {
        &self.derp_map
    }

    /// The DNS configuration.
    pub fn dns(&self) -> &Arc<DnsConfig> {
        &self.dns
    }

    /// Name of the tailnet. Its form means nothing.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// What the names of the tailnet's nodes end in, without dots at its ends; empty if we have no name.
    pub fn magic_dns_suffix(&self) -> &str {
        magic_dns_suffix(&self.self_node.name)
    }

    /// Whether `Hostinfo` should list the services of the host.
    pub fn collect_services(&self) -> bool {
        self.collect_services
    }

    /// The packet filter by chunk. All chunks together are the filter; none, or only empty ones, block all inbound.
    pub fn filter_chunks(&self) -> &BTreeMap<String, Arc<[FilterRule]>> {
        &self.filter_chunks
    }

    /// All rules of the packet filter, chunk by chunk in the order of their names.
    pub fn filter_rules(&self) -> impl Iterator<Item = &FilterRule> {
        self.filter_chunks.values().flat_map(|rules| rules.iter())
    }

    /// A user, if the server has told about it.
    pub fn user_profile(&self, id: UserId) -> Option<&Arc<UserProfile>> {
        self.user_profiles.get(&id)
    }

    /// All users that the server has told about, sorted by id; some may own no node any more.
    pub fn user_profiles(&self) -> impl Iterator<Item = &Arc<UserProfile>> {
        self.user_profiles.iter().map(|(_, profile)| profile)
    }

    /// The users that own or share one of the nodes, sorted by id. Looks at every peer.
    pub fn user_profiles_in_use(&self) -> BTreeMap<UserId, &Arc<UserProfile>> {
        let nodes = std::iter::once(&self.self_node).chain(self.peers.iter());
        // Number zero is nobody, also where a profile claims it.
        let users = nodes.flat_map(|node| [node.user, node.sharer]).filter(|user| *user != UserId(0));
        users.filter_map(|user| Some((user, self.user_profile(user)?))).collect()
    }

    /// What the server wants the user to know, by id.
    pub fn display_messages(&self) -> BTreeMap<String, DisplayMessage> {
        self.health.messages()
    }

    /// Who may log in by SSH. `None`: nobody.
    pub fn ssh_policy(&self) -> Option<&Arc<SshPolicy>> {
        self.ssh_policy.as_ref()
    }

    /// What the server knows about Tailnet Lock.
    pub fn tka_info(&self) -> Option<&TkaInfo> {
        self.tka_info.as_ref()
    }

    /// Whether the server wants Tailnet Lock on. A head that is no hash counts as no.
    pub fn lock_wanted(&self) -> bool {
        self.tka_info
            .as_ref()
            .is_some_and(|info| !info.disabled && (info.head.is_empty() || is_hash(&info.head)))
    }

    /// Head of the Tailnet Lock chain as the server knows it; `None` if it tells none or what it tells is no hash.
    pub fn lock_head(&self) -> Option<&str> {
        self.tka_info.as_ref().map(|info| info.head.as_str()).filter(|head| is_hash(head))
    }

    /// Log id for flow logs; empty if there is none.
    pub fn audit_log_id(&self) -> &str {
        &self.audit_log_id
    }

    /// How to reach the server. It outlives the stream that brought it.
    pub fn dial_plan(&self) -> Option<&Arc<ControlDialPlan>> {
        self.dial_plan.as_ref()
    }

    /// Whether this comes from the cache and not from the server.
    pub fn is_cached(&self) -> bool {
        self.cached
    }
}

/// Whether a text is the base32 form of a 32-byte hash.
fn is_hash(text: &str) -> bool {
    data_encoding::BASE32_NOPAD.decode(text.as_bytes()).is_ok_and(|hash| hash.len() == 32)
}
