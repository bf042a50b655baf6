//! The agent as readers see it at one moment.

use std::sync::Arc;

use rand_core::CryptoRngCore;
use tsrs_agent_localapi::notify::HealthState;
use tsrs_agent_localapi::{BackendState, LoginProfile, Prefs};
use tsrs_base_types::{LockPrivate, LockPublic, NodePublic};
use tsrs_control_netmap::Netmap;

use super::{Agent, LockView, Now};
use crate::wanted::FilterWanted;

/// Everything that reads are answered from. Cheap to make: the netmap is shared.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Version of the daemon.
    pub version: String,
    /// The state.
    pub state: BackendState,
    /// The prefs, without keys.
    pub prefs: Prefs,
    /// The account in use.
    pub profile: LoginProfile,
    /// All saved accounts.
    pub profiles: Vec<LoginProfile>,
    /// What may be seen of the netmap.
    pub netmap: Option<Arc<Netmap>>,
    /// Answers what peers may do with us.
    pub filter: Option<FilterWanted>,
    /// Health, for the bus.
    pub health: HealthState,
    /// Health, for `status`.
    pub health_texts: Vec<String>,
    /// Where a pending login waits.
    pub auth_url: Option<String>,
    /// Whether the account has a node key.
    pub have_node_key: bool,
    /// Its public half; zero without one.
    pub node_key: NodePublic,
    /// Lock key of the account.
    pub lock_key: LockPublic,
    /// Tailnet Lock.
    pub lock: LockView,
    /// The node key has expired.
    pub key_expired: bool,
    /// The map stream delivers.
    pub control_online: bool,
    /// The address is on the TUN.
    pub address_is_set: bool,
    /// Name of the host, for a status before the first netmap.
    pub hostname: String,
    /// Operating system.
    pub os: String,
    /// UDP port of the tunnel.
    pub udp_port: Option<u16>,
    /// Advertised routes in the settings.
    pub advertised_route_count: usize,
}

impl<R: CryptoRngCore> Agent<R> {
    /// The agent as readers see it now.
    pub fn snapshot(&self, now: Now) -> Snapshot {
        let profiles = &self.state.profiles;
        let current = profiles.current();
        let (udp_port, _) = self.tunnel_contact();
        Snapshot {
            version: self.version.clone(),
            state: self.told_state,
            prefs: current.public_prefs(),
            profile: current.meta.clone(),
            profiles: profiles.saved().map(|profile| profile.meta.clone()).collect(),
            netmap: self.netmap.clone(),
            filter: self.filter().cloned(),
            health: self.health.state(now.mono),
            health_texts: self.health.texts(now.mono),
            auth_url: self.login.auth_url.clone(),
            have_node_key: current.login.node_key.is_some(),
            node_key: current.login.public_node_key(),
            lock_key: current.login.lock_key.as_ref().map(LockPrivate::public).unwrap_or_default(),
            lock: self.lock_view(),
            key_expired: self.is_key_expired(now.wall),
            control_online: self.control_online,
            address_is_set: self.tunnel.is_up(),
            hostname: self.host.hostname.clone(),
            os: self.host.os.clone(),
            udp_port,
            advertised_route_count: current.prefs.advertise_routes.as_ref().map_or(0, Vec::len),
        }
    }
}
