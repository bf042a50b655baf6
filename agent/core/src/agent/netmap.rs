//! Netmaps: from control and from the disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand_core::CryptoRngCore;
use tsrs_agent_localapi::Notify;
use tsrs_control_netmap::{Change, Netmap};
use tsrs_control_tailcfg::Node;
use tsrs_control_tka::Graph;

use super::{Action, Agent, CACHE_DELAY, Notice, Now};
use crate::health::Problem;
use crate::lock::Stored;

/// What the disk keeps of a profile, beside the state file.
#[derive(Debug)]
pub struct Kept {
    /// The netmap of the last run.
    pub netmap: Option<Arc<Netmap>>,
    /// The chain of Tailnet Lock.
    pub chain: Stored,
}

impl Default for Kept {
    /// Nothing is kept of a new profile.
    fn default() -> Self {
        Self { netmap: None, chain: Ok(Graph::default()) }
    }
}

impl<R: CryptoRngCore> Agent<R> {
    /// Takes what [`Action::LoadProfile`] asked for.
    pub fn handle_kept(&mut self, profile_id: &str, kept: Kept, now: Now) {
        // The account may have changed meanwhile.
        if self.cache_asked && self.state.profiles.current().meta.id == profile_id {
            self.cache_asked = false;
            self.adopt_kept(kept, now);
            self.settle(now);
        }
    }

    pub(super) fn adopt_kept(&mut self, kept: Kept, now: Now) {
        self.load_lock(kept.chain);
        let profile = self.state.profiles.current();
        // A cache of another key belongs to a login that is over.
        let ours = |netmap: &Arc<Netmap>| netmap.self_node().key == profile.login.public_node_key();
        if let Some(netmap) = kept.netmap.filter(ours) {
            // What was admitted in the last run is not known: a lock lets nobody in that it has not verified.
            self.lock.full = Some(netmap);
            self.tunnel.dirty_all();
            self.pass_doors(Vec::new(), now);
        }
    }

    pub(super) fn note_netmap(&mut self, netmap: Arc<Netmap>, changes: Vec<Change>, now: Now) {
        self.node_unknown = false;
        let before = self.lock.full.replace(Arc::clone(&netmap));
        let key_changed =
            before.as_ref().is_some_and(|before| before.self_node().key != netmap.self_node().key);
        if changes.iter().any(is_worth_writing) {
            // The first netmap of a key is the one that the next start needs.
            let due = now.mono + if before.is_none() || key_changed { Duration::ZERO } else { CACHE_DELAY };
            self.cache_due = Some(self.cache_due.map_or(due, |already| already.min(due)));
        }
        self.health.clear(Problem::CachedNetmap);
        self.lock.keeper.note_news(now.mono);
        let changes = self.pass_doors(changes, now);
        if let Some(view) = self.netmap.clone() {
            self.tell_netmap(&view, &changes, key_changed);
        }
    }

    /// Takes another view of the netmap: what may be seen of it.
    pub(super) fn adopt_view(&mut self, view: Arc<Netmap>, changes: &[Change], now: Now) {
        self.netmap = Some(Arc::clone(&view));
        self.tunnel.note_changes(changes);
        // Rules that take away come before peers that may be new.
        self.settle_filter(now);
        self.apply_peer_changes(changes, &view);
        for change in changes {
            match change {
                Change::SelfNode | Change::Domain | Change::UserProfiles => self.note_identity(now),
                Change::DisplayMessages => self.note_display_messages(),
                Change::PeerRemoved(_)
                | Change::PeerChanged { .. }
                | Change::PeerAdded(_)
                | Change::DerpMap
                | Change::Dns
                | Change::CollectServices
                | Change::PacketFilter
                | Change::SshPolicy
                | Change::Tka
                | Change::AuditLogId
                | Change::DialPlan
                | Change::Cached => {}
            }
        }
    }

    /// Tells watchers what changed; with `key_changed` the whole netmap, for clients that look for the new key in it.
    ///
    /// Of a new key of this node it tells once the login is done that made it: the map stream may be faster.
    pub(super) fn tell_netmap(&mut self, netmap: &Arc<Netmap>, changes: &[Change], key_changed: bool) {
        let of_login = netmap.self_node().key == self.state.profiles.current().login.public_node_key();
        let mut notify = self.message();
        if of_login && changes.contains(&Change::SelfNode) {
            notify.self_change = Some(Box::new(Node::clone(netmap.self_node())));
        }
        if self.peers_watched {
            add_peers(&mut notify, netmap, changes);
        }
        if notify.is_empty() {
            return;
        }
        let notify = Box::new(notify);
        self.notices.push_back(match key_changed && of_login {
            true => Notice::WithNetmap(notify, Arc::clone(netmap)),
            false => Notice::Message(notify),
        });
    }

    /// Writes the netmap of the current account, if it is saved and its netmap is one.
    pub(super) fn write_cache(&mut self) {
        let profile = self.state.profiles.current();
        let full = self.lock.full.as_ref();
        if let Some(netmap) = full.filter(|netmap| profile.is_saved() && !netmap.is_cached()) {
            let (profile_id, netmap) = (profile.meta.id.clone(), Arc::clone(netmap));
            self.actions.push_back(Action::CacheNetmap { profile_id, netmap });
        }
    }

    /// Gives out what must not be lost, before the caller ends.
    pub fn flush(&mut self) {
        if self.cache_due.take().is_some() {
            self.write_cache();
        }
    }
}

fn add_peers(notify: &mut Notify, netmap: &Netmap, changes: &[Change]) {
    let mut users = BTreeMap::new();
    for change in changes {
        match change.peer() {
            (Some(node), None) => notify.peers_removed.push(node.id),
            (_, Some(node)) => {
                for user in [node.user, node.sharer] {
                    users.extend(netmap.user_profile(user).map(|profile| (user, profile.as_ref().clone())));
                }
                notify.peers_changed.push(Node::clone(node));
            }
            (None, None) => {}
        }
    }
    notify.user_profiles = users;
}

/// Whether the next start would work differently without this change: where peers were seen last is not worth a write.
fn is_worth_writing(change: &Change) -> bool {
    match change {
        Change::PeerChanged { before, after } => {
            let mut seen = Node::clone(before);
            seen.online = after.online;
            seen.last_seen = after.last_seen;
            seen.endpoints.clone_from(&after.endpoints);
            seen != **after
        }
        Change::DisplayMessages | Change::AuditLogId => false,
        Change::PeerRemoved(_)
        | Change::PeerAdded(_)
        | Change::SelfNode
        | Change::DerpMap
        | Change::Dns
        | Change::Domain
        | Change::CollectServices
        | Change::PacketFilter
        | Change::UserProfiles
        | Change::SshPolicy
        | Change::Tka
        | Change::DialPlan
        | Change::Cached => true,
    }
}
