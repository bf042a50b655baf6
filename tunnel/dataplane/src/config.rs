//! What the agent tells the data plane: who we are, who the peers are, and how that changes.

use std::net::{Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;
use tsrs_base_types::{DiscoPublic, NodeId, NodePublic, RegionId};

/// MTU of the tunnel unless something larger was proven (data-plane sheet §1.10).
pub const DEFAULT_MTU: u16 = 1280;

/// Our own side of the tunnel. Replaced as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelConfig {
    /// Addresses of this node. The first is the source of messages that the agent itself sends.
    pub addresses: Vec<Ipv4Addr>,
    /// MTU of the TUN.
    pub mtu: u16,
    /// Port of our peerAPI; a SYN to it on one of our addresses passes the filter. 0 while there is none.
    pub peerapi_port: u16,
    /// Address of our resolver and services, answered on this host and never sent to a peer.
    pub service_address: Option<Ipv4Addr>,
}

impl Default for TunnelConfig {
    fn default() -> Self {
        Self { addresses: Vec::new(), mtu: DEFAULT_MTU, peerapi_port: 0, service_address: None }
    }
}

/// A peer, as far as the data plane needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Names the peer.
    pub key: NodePublic,
    /// Decides between peers with the same prefix: the lower one wins.
    pub node_id: NodeId,
    /// Its key for path finding; absent in peers that speak no disco.
    pub disco_key: Option<DiscoPublic>,
    /// Where it can always be reached.
    pub home_derp: Option<RegionId>,
    /// Where it may be reached directly. For a peer without disco the first IPv4 one is used as it is.
    pub endpoints: Vec<SocketAddr>,
    /// Its own addresses; the first is where messages of the agents to each other go.
    pub addresses: Vec<Ipv4Addr>,
    /// What is routed to it, and what it may send from. The caller has left out what is not accepted: default routes of
    /// peers that are not the selected exit node, and subnet routes unless wanted (data-plane sheet §1.8).
    pub allowed_ips: Vec<Ipv4Net>,
    /// Decides between peers with the same prefix before the node id: the higher one wins.
    pub route_score: i32,
    /// Its node key has expired: nothing is sent to it.
    pub expired: bool,
    /// It may answer and start nothing.
    pub jailed: bool,
}

impl PeerConfig {
    /// A peer with this key and nothing else.
    pub fn new(key: NodePublic) -> Self {
        Self {
            key,
            node_id: NodeId::default(),
            disco_key: None,
            home_derp: None,
            endpoints: Vec::new(),
            addresses: Vec::new(),
            allowed_ips: Vec::new(),
            route_score: 0,
            expired: false,
            jailed: false,
        }
    }
}

/// Some facts of a peer that changed; absent ones stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerPatch {
    /// Its process was restarted: the session with the old one is of no use.
    pub disco_key: Option<DiscoPublic>,
    /// New home region; zero means none.
    pub home_derp: Option<RegionId>,
    /// New candidates.
    pub endpoints: Option<Vec<SocketAddr>>,
    /// Node key expired or renewed.
    pub expired: Option<bool>,
}

/// One step from one set of peers to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds a peer or replaces what is known of it. An unchanged session and path go on.
    Upsert(Box<PeerConfig>),
    /// Changes some facts of a peer.
    Patch(NodePublic, PeerPatch),
    /// Forgets a peer: nothing of it is accepted or sent any more.
    Remove(NodePublic),
}
