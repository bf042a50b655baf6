//! Folding of map responses into snapshots (control protocol sheet §11, §12, §14, §15, §20).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tsrs_base_types::time::WireTime;
use tsrs_control_tailcfg::{
    ClientVersion, ControlDialPlan, Debug, DerpMap, FilterRule, MapResponse, Node, PingRequest,
};

use crate::change::{Change, Touched, changes};
use crate::clock::ControlClock;
use crate::names::magic_dns_suffix;
use crate::netmap::Netmap;
use crate::peers::{MAX_PEERS, Peers, Surroundings, apply_patch, canonicalize, keep_newer_disco_key};

/// Most rules of the packet filter, all chunks together. Compiled, a rule takes a few hundred bytes.
pub const MAX_FILTER_RULES: usize = 100_000;

/// Most chunks of the packet filter.
pub const MAX_FILTER_CHUNKS: usize = 10_000;

/// Most users that are remembered; a stream never takes one back.
pub const MAX_USER_PROFILES: usize = MAX_PEERS;

/// How long after a peer's expiry it is looked at again, so that several that expire together are one change.
const EXPIRY_DELAY: SignedDuration = SignedDuration::from_secs(10);

/// Why a map stream must be dropped. The netmap stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The frame is not a map response.
    #[error("map response: {0}")]
    Json(#[from] serde_json::Error),
    /// The first frame that is not a keep-alive does not say who we are.
    #[error("the first map response has no node")]
    NoNode,
    /// More than [`MAX_PEERS`].
    #[error("more than {MAX_PEERS} peers")]
    TooManyPeers,
    /// More than [`MAX_FILTER_RULES`] or [`MAX_FILTER_CHUNKS`].
    #[error("more than {MAX_FILTER_RULES} packet filter rules or {MAX_FILTER_CHUNKS} chunks of them")]
    TooManyRules,
    /// More than [`MAX_USER_PROFILES`].
    #[error("more than {MAX_USER_PROFILES} user profiles")]
    TooManyUsers,
    /// More than [`crate::MAX_DISPLAY_MESSAGES`].
    #[error("more than {} display messages", crate::MAX_DISPLAY_MESSAGES)]
    TooManyMessages,
}

/// What a frame, or the passing of time, has brought.
#[derive(Debug, Default)]
pub struct Update {
    /// The new snapshot; `None` if nothing in it changed.
    pub netmap: Option<Arc<Netmap>>,
    /// What differs from the snapshot before. Empty exactly when `netmap` is `None`.
    pub changes: Vec<Change>,
    /// What the server asks to be done once.
    pub requests: Requests,
}

/// What the server asks to be done once. A keep-alive may carry these, too.
#[derive(Debug, Default)]
pub struct Requests {
    /// The frame carried no state.
    pub keep_alive: bool,
    /// Something to prove. Absent when it has the URL of the one before.
    pub ping: Option<Box<PingRequest>>,
    /// A page to open. Absent when it is the one before. The scheme is not checked.
    pub pop_browser_url: Option<String>,
    /// Whether a newer program exists.
    pub client_version: Option<Box<ClientVersion>>,
    /// A new way to reach the server; also in the next snapshot.
    pub dial_plan: Option<Arc<ControlDialPlan>>,
    /// Act on it before the changes.
    pub debug: Option<Debug>,
    /// Default for automatic updates; only the first one ever counts.
    pub default_auto_update: Option<bool>,
}

/// Folds the frames of one map stream after the other into snapshots.
///
/// The caller feeds every decoded frame to [`Session::handle_frame`], calls [`Session::begin_stream`] before the first
/// frame of each stream, and [`Session::handle_time`] at [`Session::poll_timeout`]. Our wall clock is passed in; control's
/// is derived from it. A frame that is refused changes nothing, and its stream must be dropped. An ended stream changes
/// nothing either: the snapshot stays until the first frame of the next stream replaces it.
#[derive(Clone, Debug, Default)]
pub struct Session {
    current: Option<Arc<Netmap>>,
    /// Whether a frame of this stream was folded; before it, there is no state to change.
    in_stream: bool,
    clock: ControlClock,
    last_ping_url: String,
    last_browser_url: String,
    /// A plan that came before there was any netmap to hold it.
    dial_plan: Option<Arc<ControlDialPlan>>,
}

impl Session {
    /// A session without a netmap.
    pub fn new() -> Self {
        Self::default()
    }

    /// A session that begins with a netmap from the cache.
    pub fn with_netmap(netmap: Arc<Netmap>) -> Self {
        Self { dial_plan: netmap.dial_plan.clone(), current: Some(netmap), ..Self::default() }
    }

    /// The latest snapshot.
    pub fn netmap(&self) -> Option<&Arc<Netmap>> {
        self.current.as_ref()
    }

    /// The next frame is the first of a new stream: it is complete, and nothing of the old stream goes into it.
    pub fn begin_stream(&mut self) {
        self.in_stream = false;
    }

    /// Folds one frame, given as JSON. `now` is our wall clock.
    pub fn handle_frame(&mut self, json: &[u8], now: Timestamp) -> Result<Update, Error> {
        self.handle(serde_json::from_slice(json)?, now)
    }

    /// Folds one frame. `now` is our wall clock.
    pub fn handle(&mut self, mut response: MapResponse, now: Timestamp) -> Result<Update, Error> {
        let requests = self.take_requests(&mut response, now);
        if response.keep_alive {
            return Ok(Update { requests, ..Update::default() });
        }
        let (mut next, mut touched) = self.base(&mut response)?;
        let control_now = self.clock.control_now(now);
        fold(&mut next, &mut touched, response, control_now, now)?;
        if let Some(plan) = &self.dial_plan {
            next.dial_plan = Some(Arc::clone(plan));
        }
        expire(&mut next, &mut touched, control_now);
        self.in_stream = true;
        Ok(Update { requests, ..self.publish(next, touched) })
    }

    /// Lets peers expire whose time has come. `now` is our wall clock.
    pub fn handle_time(&mut self, now: Timestamp) -> Update {
        let Some(current) = &self.current else { return Update::default() };
        let mut next = Netmap::clone(current);
        let mut touched = Touched::Some(BTreeSet::new());
        expire(&mut next, &mut touched, self.clock.control_now(now));
        self.publish(next, touched)
    }

    /// When, on our wall clock, [`Session::handle_time`] should be called next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let expiry = self.current.as_ref()?.peers.next_expiry()?;
        self.clock.local_at(expiry.checked_add(EXPIRY_DELAY).ok()?)
    }

    /// Control's time at our time `now`; `None` when it is too early to be true.
    pub fn control_now(&self, now: Timestamp) -> Option<Timestamp> {
        self.clock.control_now(now)
    }

    /// Takes out of a frame what is handled in keep-alives, too, or only once.
    fn take_requests(&mut self, response: &mut MapResponse, now: Timestamp) -> Requests {
        if let Some(time) = response.control_time {
            self.clock.note(time, now);
        }
        let ping = response
            .ping_request
            .take()
            .filter(|ping| !ping.url.is_empty() && ping.url != self.last_ping_url);
        if let Some(ping) = &ping {
            self.last_ping_url.clone_from(&ping.url);
        }
        let url = std::mem::take(&mut response.pop_browser_url);
        let pop_browser_url = (!url.is_empty() && url != self.last_browser_url).then_some(url);
        if let Some(url) = &pop_browser_url {
            self.last_browser_url.clone_from(url);
        }
        let dial_plan = response.control_dial_plan.take().map(Arc::new);
        if let Some(plan) = &dial_plan {
            self.dial_plan = Some(Arc::clone(plan));
        }
        Requests {
            keep_alive: response.keep_alive,
            ping,
            pop_browser_url,
            client_version: response.client_version.take(),
            dial_plan,
            debug: response.debug.take().filter(|_| !response.keep_alive),
            default_auto_update: response.default_auto_update.filter(|_| !response.keep_alive),
        }
    }

    /// What a frame is folded into: the latest snapshot, or, for the first frame of a stream, nothing but ourselves.
    fn base(&self, response: &mut MapResponse) -> Result<(Netmap, Touched), Error> {
        let node = response.node.take().map(|mut node| {
            let suffix = magic_dns_suffix(&node.name).to_owned();
            canonicalize(&mut node, &suffix);
            Arc::new(*node)
        });
        match (&self.current, node) {
            (Some(current), node) if self.in_stream => {
                let mut next = Netmap::clone(current);
                let mut touched = Touched::Some(BTreeSet::new());
                if let Some(node) = node {
                    next.self_node = node;
                }
                if next.magic_dns_suffix() != current.magic_dns_suffix() {
                    touched = Touched::All;
                }
                Ok((next, touched))
            }
            (_, Some(node)) => Ok((Netmap::new(node, self.dial_plan.clone()), Touched::All)),
            (_, None) => Err(Error::NoNode),
        }
    }

    fn publish(&mut self, next: Netmap, touched: Touched) -> Update {
        let changes = changes(self.current.as_deref(), &next, touched);
        // Also without a visible change: the server's own idea of an expired peer may be another.
        let netmap = self.current.insert(Arc::new(next));
        let netmap = (!changes.is_empty()).then(|| Arc::clone(netmap));
        Update { netmap, changes, requests: Requests::default() }
    }
}

/// Applies the state in a frame, whose `node` is applied already.
fn fold(
    next: &mut Netmap,
    touched: &mut Touched,
    response: MapResponse,
    control_now: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), Error> {
    let MapResponse {
        // Handled before.
        node: _,
        keep_alive: _,
        ping_request: _,
        pop_browser_url: _,
        control_time: _,
        control_dial_plan: _,
        client_version: _,
        debug: _,
        default_auto_update: _,
        // Resuming a session is not asked for.
        map_session_handle: _,
        seq: _,
        derp_map,
        peers,
        peers_changed,
        peers_removed,
        peers_changed_patch,
        peer_seen_change,
        online_change,
        dns_config,
        domain,
        collect_services,
        packet_filter,
        packet_filters,
        user_profiles,
        health,
        display_messages,
        ssh_policy,
        tka_info,
        domain_data_plane_audit_log_id,
    } = response;

    let suffix = next.magic_dns_suffix().to_owned();
    let around = Surroundings { suffix: &suffix, control_now };
    if !peers.is_empty() {
        // A full list makes every other member about peers void.
        *touched = Touched::All;
        next.peers = full_list(&next.peers, peers, around);
    } else {
        if matches!(touched, Touched::All) {
            next.peers = rename(&next.peers, around);
        }
        for id in peers_removed {
            touched.add(id);
            next.peers.remove(id);
        }
        for node in peers_changed {
            touched.add(node.id);
            next.peers.put(node, around);
        }
        for (id, seen) in peer_seen_change {
            touched.add(id);
            next.peers.update(id, around, |node| node.last_seen = seen.then(|| WireTime::from(now)));
        }
        for (id, online) in online_change {
            touched.add(id);
            next.peers.update(id, around, |node| node.online = Some(online));
        }
        for patch in peers_changed_patch {
            touched.add(patch.node_id);
            next.peers.update(patch.node_id, around, |node| apply_patch(node, patch));
        }
    }
    if next.peers.len() > MAX_PEERS {
        return Err(Error::TooManyPeers);
    }

    if let Some(update) = derp_map {
        merge_derp_map(Arc::make_mut(&mut next.derp_map), *update);
    }
    if let Some(dns) = dns_config {
        next.dns = Arc::new(*dns);
    }
    if !domain.is_empty() {
        next.domain = domain.into();
    }
    next.collect_services = collect_services.unwrap_or(next.collect_services);
    if packet_filter.is_some() || !packet_filters.is_empty() {
        set_filter(Arc::make_mut(&mut next.filter_chunks), packet_filter, packet_filters)?;
    }
    for profile in user_profiles {
        if next.user_profile(profile.id).is_none_or(|known| **known != profile) {
            next.user_profiles.insert(profile.id, Arc::new(profile));
        }
    }
    if next.user_profiles.len() > MAX_USER_PROFILES {
        return Err(Error::TooManyUsers);
    }
    if let Some(texts) = health {
        Arc::make_mut(&mut next.health).set_texts(texts);
    }
    if !display_messages.is_empty() {
        Arc::make_mut(&mut next.health).patch(display_messages)?;
    }
    if let Some(policy) = ssh_policy {
        next.ssh_policy = Some(Arc::new(*policy));
    }
    next.tka_info = tka_info.or_else(|| next.tka_info.take());
    if !domain_data_plane_audit_log_id.is_empty() {
        next.audit_log_id = domain_data_plane_audit_log_id.into();
    }
    Ok(())
}

fn full_list(known: &Peers, mut list: Vec<Node>, around: Surroundings<'_>) -> Peers {
    if !known.is_empty() {
        for node in &mut list {
            if let Some(known) = known.original(node.id) {
                keep_newer_disco_key(node, known);
            }
        }
    }
    Peers::from_list(list, known, around)
}

/// The same peers with the names that they have under another MagicDNS suffix.
fn rename(peers: &Peers, around: Surroundings<'_>) -> Peers {
    let originals = peers.iter().filter_map(|node| peers.original(node.id));
    Peers::from_list(originals.map(|node| Node::clone(node)).collect(), peers, around)
}

fn expire(next: &mut Netmap, touched: &mut Touched, control_now: Option<Timestamp>) {
    let Some(time) = control_now else { return };
    let suffix = next.magic_dns_suffix().to_owned();
    for id in next.peers.due(time) {
        touched.add(id);
        next.peers.update(id, Surroundings { suffix: &suffix, control_now }, |_| {});
    }
}

fn merge_derp_map(known: &mut DerpMap, update: DerpMap) {
    if let Some(regions) = update.regions {
        known.regions = Some(regions);
        known.omit_default_regions = update.omit_default_regions;
    }
    if let Some(params) = update.home_params {
        let known = known.home_params.get_or_insert_default();
        known.region_score = params.region_score.or_else(|| known.region_score.take());
    }
}

fn set_filter(
    chunks: &mut BTreeMap<String, Arc<[FilterRule]>>,
    base: Option<Vec<FilterRule>>,
    named: BTreeMap<String, Option<Vec<FilterRule>>>,
) -> Result<(), Error> {
    if let Some(rules) = base {
        chunks.insert("base".to_owned(), rules.into());
    }
    if let Some(None) = named.get("*") {
        chunks.clear();
    }
    for (name, rules) in named {
        match rules {
            _ if name == "*" => {}
            Some(rules) => {
                chunks.insert(name, rules.into());
            }
            None => {
                chunks.remove(&name);
            }
        }
    }
    let rules: usize = chunks.values().map(|rules| rules.len()).sum();
    if rules > MAX_FILTER_RULES || chunks.len() > MAX_FILTER_CHUNKS {
        Err(Error::TooManyRules)
    } else {
        Ok(())
    }
}
