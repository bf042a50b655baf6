//! What the agent asks its caller to do.

use std::fmt;
use std::sync::Arc;

use tsrs_agent_localapi::Notify;
use tsrs_base_types::{LockPrivate, MachinePrivate, NodePrivate, Redacted};
use tsrs_control_netmap::Netmap;
use tsrs_control_tailcfg::{DerpMap, Hostinfo};
use tsrs_platform_api::{DnsConfig, RouterConfig};
use tsrs_tunnel_dataplane::{Change, Policy, TunnelConfig};
use tsrs_tunnel_dns::Config as ResolverConfig;

use crate::lock::{Call, StoreStep};
use crate::wanted::HostChange;

/// One thing to do. They come in the order in which they must be done: what closes comes before what opens.
#[derive(Debug)]
pub enum Action {
    /// Write [`super::Agent::state`] to the state file, and sync it, before anything that follows.
    Save,
    /// Write the netmap of a profile to disk.
    CacheNetmap {
        /// The profile.
        profile_id: String,
        /// Its netmap.
        netmap: Arc<Netmap>,
    },
    /// Change the folder in which the chain of a profile is kept, then call [`super::Agent::handle_lock_stored`].
    StoreLock {
        /// The profile.
        profile_id: String,
        /// What to do, in this order.
        steps: Vec<StoreStep>,
    },
    /// Remove the cached netmap and the chain of a profile that is gone.
    ForgetProfile(String),
    /// Read what is kept of the profile that is current now and pass it to [`super::Agent::handle_kept`].
    LoadProfile(String),
    /// For the control client.
    Control(ControlAction),
    /// For the engine.
    Tunnel(TunnelAction),
    /// Make the host's network match, then call [`super::Agent::handle_router_done`].
    Router(RouterConfig),
    /// Make the host's name resolution match, then call [`super::Agent::handle_dns_done`].
    Dns(DnsConfig),
    /// For the resolver at the service address.
    Resolver(ResolverConfig),
    /// Names for that resolver.
    Hosts(Vec<HostChange>),
}

/// For the control client.
#[derive(Debug)]
pub enum ControlAction {
    /// Start one; none runs.
    Start(Box<ControlStart>),
    /// End it.
    Stop,
    /// Register.
    Login {
        /// With a new key, even though the one in use works.
        renew: bool,
        /// With this key from now on.
        auth_key: Option<Redacted<String>>,
    },
    /// Log out at the server.
    Logout,
    /// This is what to tell about the host.
    Hostinfo(Box<Hostinfo>),
    /// There is no network (`true`), or there is again.
    Pause(bool),
    /// Ask about Tailnet Lock, then call [`super::Agent::handle_lock_answer`] with this number.
    Lock {
        /// Number of the call.
        number: u64,
        /// What to ask.
        call: Call,
    },
    /// This is the head of the chain; empty without one.
    LockHead(String),
}

/// What a control client is started with.
pub struct ControlStart {
    /// URL of the server; empty means the default one.
    pub server_url: String,
    /// Key of this machine.
    pub machine_key: MachinePrivate,
    /// The node key in use.
    pub node_key: Option<NodePrivate>,
    /// The node key before it.
    pub old_node_key: Option<NodePrivate>,
    /// Tailnet Lock key of the profile.
    pub lock_key: Option<LockPrivate>,
    /// What to tell about the host.
    pub hostinfo: Hostinfo,
    /// The last netmap, to compare the first frame with.
    pub netmap: Option<Arc<Netmap>>,
    /// Head of the chain of Tailnet Lock, base32; empty without one.
    pub lock_head: String,
    /// Whether there is no network.
    pub paused: bool,
}

impl fmt::Debug for ControlStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlStart").field("server_url", &self.server_url).finish_non_exhaustive()
    }
}

/// For the engine.
#[derive(Debug)]
pub enum TunnelAction {
    /// This is our key from now on.
    NodeKey(NodePrivate),
    /// What may pass.
    Policy(Policy),
    /// Our own side.
    Config(TunnelConfig),
    /// Peers.
    Peers(Vec<Change>),
    /// The relays; an empty map closes all connections.
    DerpMap(Arc<DerpMap>),
    /// The tunnel is wanted (`true`), or everything may rest.
    Up(bool),
    /// Whether control can be reached: without it peers cannot learn of a new home relay, so there must be none.
    ControlReachable(bool),
}

/// Something for watchers of the bus.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A message.
    Message(Box<Notify>),
    /// The same, with the netmap for those that want it: the node key changed.
    WithNetmap(Box<Notify>, Arc<Netmap>),
    /// A message with the statistics of the engine.
    EngineStatus,
}
