//! What differs between two snapshots.

use std::collections::BTreeSet;
use std::sync::Arc;

use tsrs_base_types::NodeId;
use tsrs_control_tailcfg::Node;

use crate::netmap::Netmap;

/// One thing that differs from the snapshot before. The new value is in the snapshot that the change comes with.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A peer is gone.
    PeerRemoved(Arc<Node>),
    /// A peer is not what it was.
    PeerChanged {
        /// What it was.
        before: Arc<Node>,
        /// What it is.
        after: Arc<Node>,
    },
    /// A peer is new.
    PeerAdded(Arc<Node>),
    /// We ourselves are not what we were.
    SelfNode,
    /// The DERP regions.
    DerpMap,
    /// The DNS configuration.
    Dns,
    /// The name of the tailnet.
    Domain,
    /// Whether services should be listed.
    CollectServices,
    /// The packet filter.
    PacketFilter,
    /// The users.
    UserProfiles,
    /// What the server wants the user to know.
    DisplayMessages,
    /// The SSH policy.
    SshPolicy,
    /// What the server knows about Tailnet Lock.
    Tka,
    /// The log id for flow logs.
    AuditLogId,
    /// How to reach the server.
    DialPlan,
    /// The snapshot comes from the server now, the one before came from the cache, or the other way round.
    Cached,
}

impl Change {
    /// The peer that it is about, as it was and as it is; nothing of either where it is about something else.
    pub fn peer(&self) -> (Option<&Arc<Node>>, Option<&Arc<Node>>) {
        match self {
            Self::PeerRemoved(before) => (Some(before), None),
            Self::PeerChanged { before, after } => (Some(before), Some(after)),
            Self::PeerAdded(after) => (None, Some(after)),
            Self::SelfNode
            | Self::DerpMap
            | Self::Dns
            | Self::Domain
            | Self::CollectServices
            | Self::PacketFilter
            | Self::UserProfiles
            | Self::DisplayMessages
            | Self::SshPolicy
            | Self::Tka
            | Self::AuditLogId
            | Self::DialPlan
            | Self::Cached => (None, None),
        }
    }
}

/// The peers that a message may have changed.
pub(crate) enum Touched {
    /// Any of them.
    All,
    /// Only these.
    Some(BTreeSet<NodeId>),
}

impl Touched {
    pub(crate) fn add(&mut self, id: NodeId) {
        match self {
            Self::All => {}
            Self::Some(ids) => {
                ids.insert(id);
            }
        }
    }
}

/// Lists what differs. Removed peers come first, then changed, then added ones, each sorted by id: an address that
/// moves from one peer to another is taken away before it is given.
pub(crate) fn changes(before: Option<&Netmap>, after: &Netmap, touched: Touched) -> Vec<Change> {
    let mut changes = peer_changes(before, after, touched);
    let mut note = |differs: bool, change| {
        if differs {
            changes.push(change);
        }
    };
    let Some(before) = before else {
        note(true, Change::SelfNode);
        note(true, Change::DerpMap);
        note(true, Change::Dns);
        note(true, Change::Domain);
        note(true, Change::CollectServices);
        note(true, Change::PacketFilter);
        note(true, Change::UserProfiles);
        note(true, Change::DisplayMessages);
        note(true, Change::SshPolicy);
        note(true, Change::Tka);
        note(true, Change::AuditLogId);
        note(true, Change::DialPlan);
        note(true, Change::Cached);
        return changes;
    };
    note(differ(&before.self_node, &after.self_node), Change::SelfNode);
    note(differ(&before.derp_map, &after.derp_map), Change::DerpMap);
    note(differ(&before.dns, &after.dns), Change::Dns);
    note(before.domain != after.domain, Change::Domain);
    note(before.collect_services != after.collect_services, Change::CollectServices);
    note(differ(&before.filter_chunks, &after.filter_chunks), Change::PacketFilter);
    note(!before.user_profiles.is_same(&after.user_profiles), Change::UserProfiles);
    note(differ(&before.health, &after.health), Change::DisplayMessages);
    note(before.ssh_policy != after.ssh_policy, Change::SshPolicy);
    note(before.tka_info != after.tka_info, Change::Tka);
    note(before.audit_log_id != after.audit_log_id, Change::AuditLogId);
    note(before.dial_plan != after.dial_plan, Change::DialPlan);
    note(before.cached != after.cached, Change::Cached);
    changes
}

fn differ<T: PartialEq + ?Sized>(before: &Arc<T>, after: &Arc<T>) -> bool {
    !Arc::ptr_eq(before, after) && before != after
}

fn peer_changes(before: Option<&Netmap>, after: &Netmap, touched: Touched) -> Vec<Change> {
    let (mut removed, mut changed, mut added) = (Vec::new(), Vec::new(), Vec::new());
    let mut compare = |before: Option<&Arc<Node>>, after: Option<&Arc<Node>>| match (before, after) {
        (Some(before), Some(after)) if differ(before, after) => {
            changed.push(Change::PeerChanged { before: Arc::clone(before), after: Arc::clone(after) });
        }
        (Some(before), None) => removed.push(Change::PeerRemoved(Arc::clone(before))),
        (None, Some(after)) => added.push(Change::PeerAdded(Arc::clone(after))),
        (Some(_), Some(_)) | (None, None) => {}
    };
    match touched {
        Touched::Some(ids) => {
            for id in ids {
                compare(before.and_then(|netmap| netmap.peers.get(id)), after.peers.get(id));
            }
        }
        Touched::All => {
            let mut old = before.into_iter().flat_map(|netmap| netmap.peers.iter()).peekable();
            for new in after.peers.iter() {
                while let Some(gone) = old.next_if(|old| old.id < new.id) {
                    compare(Some(gone), None);
                }
                compare(old.next_if(|old| old.id == new.id), Some(new));
            }
            old.for_each(|gone| compare(Some(gone), None));
        }
    }
    removed.into_iter().chain(changed).chain(added).collect()
}
