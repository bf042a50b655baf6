//! The state of the tailnet: users, keys, nodes, settings. No input or output.

mod filter;
mod lock;
mod node;
mod register;
mod store;
mod view;

pub(crate) use filter::check as check_policy;
pub use lock::LockLie;
pub(crate) use lock::{Lock, check_secret};
pub use node::LabNode;
pub use register::PendingLogin;
pub(crate) use register::{LOGIN_PATH, Outcome};
pub(crate) use store::Stored;
pub(crate) use view::View;

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use rand_core::{OsRng, RngCore as _};
use serde_json::Value;
use tsrs_base_types::time::WireTime;
use tsrs_base_types::{DiscoPublic, LockPublic, MachinePublic, NodeId, NodePublic, UserId};
use tsrs_control_tailcfg::{Base64, DerpMap, DisplayMessage, Hostinfo, MapRequest};

use crate::config::LabConfig;
use crate::dns::DnsSettings;
use crate::keys::{AuthKey, KeySpec};
use crate::policy::Policy;

/// First address of nodes, less the node's number.
const FIRST_IPV4: u32 = Ipv4Addr::new(100, 64, 0, 0).to_bits();
/// Prefix of IPv6 addresses, less the node's number.
const FIRST_IPV6: u128 = Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 0).to_bits();
/// Most injected messages that wait for one node's stream.
const MAX_OUTBOX_LEN: usize = 1000;
/// User that all tagged nodes belong to, as servers in the field name it.
pub(crate) const TAGGED_USER: UserId = UserId(2_147_455_555);

/// What a test puts on a node's stream.
#[derive(Clone, Debug)]
pub(crate) enum Injected {
    /// A message, framed as the others.
    Message(Value),
    /// Bytes as they are.
    Raw(Vec<u8>),
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct LabUser {
    pub(crate) id: UserId,
    pub(crate) login: String,
    pub(crate) created: WireTime,
}

/// Everything that the map is made of.
pub(crate) struct Tailnet {
    pub(crate) users: Vec<LabUser>,
    pub(crate) keys: Vec<AuthKey>,
    pub(crate) nodes: BTreeMap<NodeId, LabNode>,
    pub(crate) pending: BTreeMap<String, PendingLogin>,
    pub(crate) derp_map: DerpMap,
    pub(crate) dns: DnsSettings,
    pub(crate) policy: Policy,
    pub(crate) base_domain: String,
    pub(crate) machine_approval: bool,
    pub(crate) key_lifetime: Option<Duration>,
    /// Messages for people, by id; on every node's map.
    pub(crate) messages: BTreeMap<String, DisplayMessage>,
    pub(crate) lock: Lock,
    /// Where a login page is.
    pub(crate) url: String,
    next_node: i64,
    next_stream: u64,
    outbox: BTreeMap<NodeId, VecDeque<Injected>>,
}

impl Tailnet {
    /// An empty tailnet.
    pub(crate) fn new(config: &LabConfig, url: String, derp_map: DerpMap, now: Timestamp) -> Self {
        let users = (1..).zip(&config.users).map(|(id, login)| LabUser {
            id: UserId(id),
            login: login.clone(),
            created: now.into(),
        });
        Self {
            users: users.collect(),
            keys: Vec::new(),
            nodes: BTreeMap::new(),
            pending: BTreeMap::new(),
            derp_map,
            dns: config.dns.clone(),
            policy: config.policy.clone(),
            base_domain: config.base_domain.clone(),
            machine_approval: config.machine_approval,
            key_lifetime: config.key_lifetime,
            messages: BTreeMap::new(),
            lock: Lock::default(),
            url,
            next_node: 1,
            next_stream: 1,
            outbox: BTreeMap::new(),
        }
    }

    /// Gives out an auth key.
    pub(crate) fn create_key(&mut self, spec: KeySpec, now: Timestamp) -> String {
        let key = AuthKey::new(spec, now);
        let text = key.text.clone();
        self.keys.push(key);
        text
    }

    pub(crate) fn node_by_key(&self, key: &NodePublic) -> Option<&LabNode> {
        self.nodes.values().find(|node| node.key == *key)
    }

    /// The user of this login name, made if there is none; the first user for an empty name.
    pub(crate) fn user(&mut self, login: &str, now: Timestamp) -> String {
        if login.is_empty() {
            return self.users.first().map(|user| user.login.clone()).unwrap_or_default();
        }
        if !self.users.iter().any(|user| user.login == login) {
            let id = UserId(self.users.iter().map(|user| user.id.0).max().unwrap_or(0) + 1);
            self.users.push(LabUser { id, login: login.to_owned(), created: now.into() });
        }
        login.to_owned()
    }

    pub(crate) fn user_id(&self, login: &str) -> UserId {
        self.users.iter().find(|user| user.login == login).map_or(TAGGED_USER, |user| user.id)
    }

    pub(crate) fn user_created(&self, login: &str) -> WireTime {
        self.users.iter().find(|user| user.login == login).map_or(WireTime::ZERO, |user| user.created)
    }

    /// Makes a node with the next free number, and with it its addresses.
    pub(crate) fn add_node(
        &mut self,
        machine: MachinePublic,
        key: NodePublic,
        now: Timestamp,
    ) -> &mut LabNode {
        let number = self.next_node;
        self.next_node += 1;
        let node = LabNode {
            id: NodeId(number),
            name: String::new(),
            renamed: false,
            user: String::new(),
            machine,
            key,
            disco: DiscoPublic::default(),
            lock_key: LockPublic::default(),
            key_signature: Base64::default(),
            renewable_signature: Base64::default(),
            lock_head: String::new(),
            // Numbers of nodes in a lab are far below 2^22.
            ipv4: Ipv4Addr::from_bits(FIRST_IPV4 + u32::try_from(number).unwrap_or(0)),
            ipv6: Ipv6Addr::from_bits(FIRST_IPV6 + u128::from(number.unsigned_abs())),
            hostinfo: Hostinfo::default(),
            endpoints: Vec::new(),
            endpoint_types: Vec::new(),
            version: tsrs_control_tailcfg::CapabilityVersion(0),
            created: now.into(),
            key_expiry: WireTime::ZERO,
            tags: Vec::new(),
            ephemeral: false,
            authorized: !self.machine_approval,
            approved_routes: Vec::new(),
            last_seen: None,
            streams: 0,
            latest_stream: 0,
        };
        self.nodes.entry(NodeId(number)).or_insert(node)
    }

    /// Adds nodes that nobody runs.
    pub(crate) fn add_paper_nodes(&mut self, count: usize, hostinfo: &Hostinfo, now: Timestamp) {
        let user = self.user("", now);
        for _ in 0..count {
            let random = || {
                let mut raw = [0; 32];
                OsRng.fill_bytes(&mut raw);
                raw
            };
            let keys = (MachinePublic::from_bytes(random()), NodePublic::from_bytes(random()));
            let disco = DiscoPublic::from_bytes(random());
            let node = self.add_node(keys.0, keys.1, now);
            node.name = format!("paper{}", node.id);
            node.renamed = true;
            node.user.clone_from(&user);
            node.disco = disco;
            node.authorized = true;
            node.hostinfo = hostinfo.clone();
            // A documentation address: nothing answers there.
            node.endpoints = vec![SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 41641))];
        }
    }

    /// Removes a node and what waits for it.
    pub(crate) fn delete(&mut self, id: NodeId) -> bool {
        self.outbox.remove(&id);
        self.nodes.remove(&id).is_some()
    }

    /// Takes over what a map request says about its node; `true` if anything differs.
    pub(crate) fn update(&mut self, id: NodeId, request: &MapRequest) -> bool {
        let auto_approve = self.policy.auto_approve_routes.clone();
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        let before = node.clone();
        node.version = request.version;
        node.disco = request.disco_key;
        node.lock_head.clone_from(&request.tka_head);
        node.endpoints.clone_from(&request.endpoints);
        node.endpoint_types.clone_from(&request.endpoint_types);
        if let Some(hostinfo) = &request.hostinfo {
            set_hostinfo(node, hostinfo, &auto_approve);
        }
        let changed = *node != before;
        if changed {
            self.rename_by_hostname(id);
        }
        changed
    }

    /// Gives a node the name that its host name asks for, made unique, unless an administrator named it.
    pub(crate) fn rename_by_hostname(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get(&id) else { return };
        if node.renamed {
            return;
        }
        let wanted = dns_label(&node.hostinfo.hostname);
        let is_taken = |name: &str| self.nodes.values().any(|other| other.id != id && other.name == name);
        let free = std::iter::once(wanted.clone())
            .chain((1..).map(|number| format!("{wanted}-{number}")))
            .find(|name| !is_taken(name))
            .unwrap_or_default();
        if let Some(node) = self.nodes.get_mut(&id) {
            node.name = free;
        }
    }

    /// A new map stream of a node: it is online, and earlier streams end.
    pub(crate) fn open_stream(&mut self, id: NodeId) -> Option<u64> {
        let number = self.next_stream;
        let node = self.nodes.get_mut(&id)?;
        node.streams += 1;
        node.latest_stream = number;
        self.next_stream += 1;
        Some(number)
    }

    /// A map stream has ended.
    pub(crate) fn close_stream(&mut self, id: NodeId, now: Timestamp) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.streams = node.streams.saturating_sub(1);
            if node.streams == 0 {
                node.last_seen = Some(now.into());
            }
        }
    }

    /// Every map stream ends; what a test puts on one from now on waits for the next.
    pub(crate) fn end_streams(&mut self) {
        for node in self.nodes.values_mut() {
            // Numbers begin with 1, so this is no stream's.
            node.latest_stream = 0;
        }
    }

    /// The server has stopped: no stream is open any more.
    pub(crate) fn close_all_streams(&mut self) {
        for node in self.nodes.values_mut() {
            node.streams = 0;
        }
    }

    /// Deletes ephemeral nodes that have been away too long; `true` if one was, or a key's life has ended.
    pub(crate) fn pass_time(&mut self, last: Timestamp, now: Timestamp, ephemeral_timeout: Duration) -> bool {
        let is_over = |node: &LabNode| {
            let since = node.last_seen.and_then(|seen| seen.timestamp()).unwrap_or(last);
            let away = Duration::try_from(now.duration_since(since)).unwrap_or_default();
            node.ephemeral && !node.online() && node.last_seen.is_some() && away >= ephemeral_timeout
        };
        let over: Vec<NodeId> =
            self.nodes.values().filter(|node| is_over(node)).map(|node| node.id).collect();
        let expired = self.nodes.values().any(|node| node.expired(now) && !node.expired(last));
        for id in &over {
            self.delete(*id);
        }
        expired || !over.is_empty()
    }

    /// Queues a message for a node's stream.
    pub(crate) fn inject(&mut self, id: NodeId, message: Injected) {
        let queue = self.outbox.entry(id).or_default();
        if queue.len() < MAX_OUTBOX_LEN {
            queue.push_back(message);
        }
    }

    pub(crate) fn take_injected(&mut self, id: NodeId) -> VecDeque<Injected> {
        self.outbox.remove(&id).unwrap_or_default()
    }
}

/// Takes over Hostinfo. NetInfo stays as it was when it is missing; routes are approved as the policy says.
pub(crate) fn set_hostinfo(node: &mut LabNode, hostinfo: &Hostinfo, auto_approve: &[IpNet]) {
    let old_net_info = node.hostinfo.net_info.take();
    node.hostinfo = hostinfo.clone();
    node.hostinfo.net_info = node.hostinfo.net_info.take().or(old_net_info);
    for route in &hostinfo.routable_ips {
        let approved = auto_approve.iter().any(|allowed| allowed.contains(route));
        if approved && !node.approved_routes.contains(route) {
            node.approved_routes.push(*route);
        }
    }
}

/// A host name as one DNS label: lower case, letters, digits and inner hyphens, at most 63 bytes.
fn dns_label(hostname: &str) -> String {
    let first = hostname.split('.').next().unwrap_or_default();
    let cleaned: String = (first.chars())
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(60)
        .collect();
    let trimmed = cleaned.trim_matches('-');
    if trimmed.is_empty() { "node".to_owned() } else { trimmed.to_owned() }
}

#[cfg(test)]
mod tests;
