//! The peers of a netmap, with what is needed to find them.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;
use tsrs_base_types::time::WireTime;
use tsrs_base_types::{NodeId, NodePublic, RegionId};
use tsrs_control_tailcfg::{Node, PeerChange};

use crate::names::compute_names;
use crate::ordmap::OrdMap;

/// Most peers of a netmap: what one message may list. Peers can be added one by one, so the total is bounded, too.
pub const MAX_PEERS: usize = tsrs_control_tailcfg::MAX_LIST_LEN;

/// First bytes of the key of a peer that expired here; its short form then reads `[bad01]`.
const EXPIRED_KEY_PREFIX: [u8; 6] = [0x6d, 0xa7, 0x74, 0xd5, 0xd7, 0x74];

/// The peers, in the order of their ids. A copy shares everything with the original.
///
/// Every node is in canonical form: `allowed_ips` is present, the home region is in `home_derp`, the computed names are filled in. An expired peer stays visible but cannot be reached: it has no
/// endpoints, no home region, and a key that no one owns.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    by_id: OrdMap<NodeId, Arc<Node>>,
    by_key: OrdMap<(NodePublic, NodeId), ()>,
    by_addr: OrdMap<(IpAddr, NodeId), ()>,
    /// Peers that have not expired yet and will, by the time when they do.
    expiries: OrdMap<(WireTime, NodeId), ()>,
    /// As the server sent them: peers that were made unreachable here.
    expired: OrdMap<NodeId, Arc<Node>>,
}

/// What the canonical form of a node depends on besides the node.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    /// The MagicDNS suffix.
    pub(crate) suffix: &'a str,
    /// Control's time; `None` while no clock is trusted.
    pub(crate) control_now: Option<Timestamp>,
}

impl Peers {
    /// The number of peers.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is no peer.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A peer by its id.
    pub fn get(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.by_id.get(&id)
    }

    /// A peer by its WireGuard key.
    pub fn by_key(&self, key: &NodePublic) -> Option<&Arc<Node>> {
        let ((found, id), ()) = self.by_key.range_from(&(*key, NodeId(i64::MIN))).next()?;
        (found == key).then(|| self.get(*id))?
    }

    /// A peer by one of its own addresses. Routes behind a peer are not looked at.
    pub fn by_addr(&self, addr: IpAddr) -> Option<&Arc<Node>> {
        let ((found, id), ()) = self.by_addr.range_from(&(addr, NodeId(i64::MIN))).next()?;
        (*found == addr).then(|| self.get(*id))?
    }

    /// All peers in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.by_id.iter().map(|(_, node)| node)
    }

    /// A peer as the server sent it, also where it was made unreachable here because it expired.
    pub fn original(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.expired.get(&id).or_else(|| self.by_id.get(&id))
    }

    /// When the next peer expires, by control's clock.
    pub(crate) fn next_expiry(&self) -> Option<Timestamp> {
        let ((expiry, _), ()) = self.expiries.iter().next()?;
        expiry.timestamp()
    }

    /// The peers that expire up to `control_now`.
    pub(crate) fn due(&self, control_now: Timestamp) -> Vec<NodeId> {
        let due = self.expiries.iter().take_while(|((expiry, _), ())| *expiry <= control_now.into());
        due.map(|((_, id), ())| *id).collect()
    }

    /// Builds the table from a list; of entries with one id the last wins. Peers that are as `known` are shared with it.
    pub(crate) fn from_list(mut nodes: Vec<Node>, known: &Self, around: Surroundings<'_>) -> Self {
        nodes.reverse();
        nodes.sort_by_key(|node| node.id);
        nodes.dedup_by_key(|node| node.id);
        let mut entries = Vec::with_capacity(nodes.len());
        let (mut keys, mut addrs, mut expiries, mut expired) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for node in nodes {
            let id = node.id;
            let (node, original) = settle(node, around);
            let node = known.get(id).filter(|known| **known == node).cloned().unwrap_or(node);
            expired.extend(original.map(|original| (id, original)));
            keys.push(((node.key, id), ()));
            addrs.extend(own_addrs(&node).map(|addr| ((addr, id), ())));
            expiries.extend(expiry_of(&node).map(|expiry| ((expiry, id), ())));
            entries.push((id, node));
        }
        Self {
            by_id: OrdMap::from_sorted(entries),
            by_key: OrdMap::from_sorted(sorted(keys)),
            by_addr: OrdMap::from_sorted(sorted(addrs)),
            expiries: OrdMap::from_sorted(sorted(expiries)),
            expired: OrdMap::from_sorted(expired),
        }
    }

    /// Adds a peer, or replaces the one with its id.
    pub(crate) fn put(&mut self, node: Node, around: Surroundings<'_>) {
        let id = node.id;
        let (node, original) = settle(node, around);
        match original {
            Some(original) => self.expired.insert(id, original),
            None => self.expired.remove(&id),
        };
        if self.get(id).is_some_and(|known| **known == *node) {
            return;
        }
        let before = self.by_id.insert(id, Arc::clone(&node));
        self.reindex(id, before.as_deref(), Some(&node));
    }

    /// Removes a peer.
    pub(crate) fn remove(&mut self, id: NodeId) {
        self.expired.remove(&id);
        if let Some(before) = self.by_id.remove(&id) {
            self.reindex(id, Some(&before), None);
        }
    }

    /// Changes a peer, as the server sent it. Unknown peers are ignored.
    pub(crate) fn update(&mut self, id: NodeId, around: Surroundings<'_>, change: impl FnOnce(&mut Node)) {
        if let Some(original) = self.original(id) {
            let mut node = Node::clone(original);
            change(&mut node);
            self.put(node, around);
        }
    }

    /// Puts a node that is in canonical form in the place of another, or takes that one out.
    pub(crate) fn replace(&mut self, id: NodeId, before: Option<&Node>, after: Option<&Arc<Node>>) {
        match after {
            Some(after) => self.by_id.insert(id, Arc::clone(after)),
            None => self.by_id.remove(&id),
        };
        self.reindex(id, before, after.map(AsRef::as_ref));
    }

    /// Brings the indexes from one version of a peer to the next, touching only what differs.
    fn reindex(&mut self, id: NodeId, before: Option<&Node>, after: Option<&Node>) {
        let (old_key, new_key) = (before.map(|node| node.key), after.map(|node| node.key));
        if old_key != new_key {
            old_key.map(|key| self.by_key.remove(&(key, id)));
            new_key.map(|key| self.by_key.insert((key, id), ()));
        }
        let (old_expiry, new_expiry) = (before.and_then(expiry_of), after.and_then(expiry_of));
        if old_expiry != new_expiry {
            old_expiry.map(|expiry| self.expiries.remove(&(expiry, id)));
            new_expiry.map(|expiry| self.expiries.insert((expiry, id), ()));
        }
        if before.map(|node| &node.addresses) != after.map(|node| &node.addresses) {
            for addr in before.into_iter().flat_map(own_addrs) {
                self.by_addr.remove(&(addr, id));
            }
            for addr in after.into_iter().flat_map(own_addrs) {
                self.by_addr.insert((addr, id), ());
            }
        }
    }
}

/// Applies the members of a patch that are present.
///
/// A patch with a disco key that says the peer is offline, and was last seen no later than we know, is old news: it may
/// have crossed a key that we learned since, and is dropped whole (sheet §11, rules for disco keys).
pub(crate) fn apply_patch(node: &mut Node, patch: PeerChange) {
    if let (Some(_), Some(false), Some(theirs), Some(ours)) =
        (patch.disco_key, patch.online, patch.last_seen, node.last_seen)
        && theirs <= ours
    {
        return;
    }
    let PeerChange {
        node_id: _,
        derp_region,
        cap,
        cap_map,
        endpoints,
        key,
        key_signature,
        disco_key,
        online,
        last_seen,
        key_expiry,
    } = patch;
    if derp_region != RegionId::default() {
        node.home_derp = derp_region;
    }
    if cap.0 != 0 {
        node.cap = cap;
    }
    set(&mut node.cap_map, cap_map);
    set(&mut node.endpoints, endpoints);
    set(&mut node.key, key);
    set(&mut node.key_signature, key_signature);
    set(&mut node.disco_key, disco_key);
    set(&mut node.key_expiry, key_expiry);
    node.online = online.or(node.online);
    node.last_seen = last_seen.or(node.last_seen);
}

fn set<T>(member: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *member = value;
    }
}

/// The counterpart of the rule in [`apply_patch`] for a peer in a full list: its old disco key is kept.
pub(crate) fn keep_newer_disco_key(node: &mut Node, known: &Node) {
    let outdated = known.last_seen.is_some_and(|ours| node.last_seen.is_none_or(|theirs| theirs <= ours));
    if node.online != Some(true) && node.disco_key != known.disco_key && outdated {
        node.disco_key = known.disco_key;
        node.last_seen = known.last_seen;
    }
}

/// Brings a node from the forms that servers send into the one form that consumers see.
pub(crate) fn canonicalize(node: &mut Node, suffix: &str) {
    if node.unsigned_peer_api_only || node.allowed_ips.is_none() {
        node.allowed_ips = Some(node.addresses.clone());
    }
    if let Some(region) = node.derp_region() {
        node.home_derp = region;
    }
    node.legacy_derp.clear();
    compute_names(node, suffix);
}

/// A node as consumers see it and, where it expired, as the server sent it.
fn settle(mut node: Node, around: Surroundings<'_>) -> (Arc<Node>, Option<Arc<Node>>) {
    canonicalize(&mut node, around.suffix);
    let expiry = expiry_of(&node);
    if expiry.is_some_and(|expiry| around.control_now.is_some_and(|now| expiry <= now.into())) {
        (Arc::new(unreachable(node.clone())), Some(Arc::new(node)))
    } else {
        (Arc::new(node), None)
    }
}

/// When the node will be made unreachable here; not if it never expires or the server says that it has.
fn expiry_of(node: &Node) -> Option<WireTime> {
    (!node.expired && !node.key_expiry.is_zero()).then_some(node.key_expiry)
}

fn unreachable(mut node: Node) -> Node {
    node.expired = true;
    node.endpoints.clear();
    node.home_derp = RegionId::default();
    let mut key = *node.key.as_bytes();
    key[..EXPIRED_KEY_PREFIX.len()].copy_from_slice(&EXPIRED_KEY_PREFIX);
    node.key = NodePublic::from_bytes(key);
    node
}

fn own_addrs(node: &Node) -> impl Iterator<Item = IpAddr> {
    node.addresses.iter().filter(|net| net.prefix_len() == net.max_prefix_len()).map(IpNet::addr)
}

fn sorted<T: Ord>(mut entries: Vec<(T, ())>) -> Vec<(T, ())> {
    entries.sort_unstable();
    entries.dedup();
    entries
}
