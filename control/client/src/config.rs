//! What a control client is started with.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use tsrs_base_types::{DiscoPublic, LockPrivate, MachinePrivate, NodePrivate, Redacted};
use tsrs_control_netmap::Netmap;
use tsrs_control_tailcfg::{EndpointType, Hostinfo, NetInfo};

use crate::c2n::C2nHandler;
use crate::server::ServerUrl;

/// Everything that one profile brings to its control server.
pub struct Config {
    /// The server.
    pub server: ServerUrl,
    /// Key of this machine.
    pub machine_key: MachinePrivate,
    /// Keys of the node, as they were stored.
    pub node_keys: NodeKeys,
    /// Tailnet Lock key of the profile; it signs a new node key in place of one that was signed.
    pub lock_key: Option<LockPrivate>,
    /// Sent with every registration while it is set.
    pub auth_key: Option<Redacted<String>>,
    /// The node vanishes when it stops being active.
    pub ephemeral: bool,
    /// Tailnet to join; `required:` in front makes it binding. Usually empty.
    pub tailnet: String,
    /// What the server is told about us.
    pub local: LocalState,
    /// The netmap of the last run, which the first frame of the server is compared with.
    pub cached_netmap: Option<Arc<Netmap>>,
    /// Answers requests that the server sends to this node.
    pub c2n: Arc<dyn C2nHandler>,
}

/// Node keys that belong together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeKeys {
    /// The key in use.
    pub current: Option<NodePrivate>,
    /// The key before it, which the server is told on rotation.
    pub old: Option<NodePrivate>,
}

/// What the server is told about this node. A change is sent as soon as the server can be reached.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LocalState {
    /// The host, named truthfully; tags go into `request_tags`. Its `net_info` is ignored in favour of the one here.
    pub hostinfo: Hostinfo,
    /// The network around the host; a change of latencies alone is not sent.
    pub net_info: Option<NetInfo>,
    /// Where peers may reach us.
    pub endpoints: Vec<Endpoint>,
    /// Key of this run for path finding.
    pub disco_key: DiscoPublic,
    /// Head of the local Tailnet Lock chain, base32; empty without one.
    pub tka_head: String,
}

/// A candidate address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address.
    pub addr: SocketAddr,
    /// Where it comes from.
    pub kind: EndpointType,
}

impl LocalState {
    /// Whether the server need not be told of the difference.
    pub(crate) fn same_to_server(&self, other: &Self) -> bool {
        let net_info_same = match (&self.net_info, &other.net_info) {
            (Some(one), Some(two)) => one.same_but_latency(two),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        net_info_same
            && self.hostinfo == other.hostinfo
            && self.endpoints == other.endpoints
            && self.disco_key == other.disco_key
            && self.tka_head == other.tka_head
    }

    /// The `Hostinfo` of a request.
    pub(crate) fn wire_hostinfo(&self) -> Hostinfo {
        Hostinfo { net_info: self.net_info.clone().map(Box::new), ..self.hostinfo.clone() }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("server", &self.server).finish_non_exhaustive()
    }
}
