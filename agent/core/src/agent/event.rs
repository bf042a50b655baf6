//! What the agent is told by its caller.

use std::sync::Arc;

use tsrs_base_types::{NodePrivate, RegionId};
use tsrs_control_netmap::{Change, Netmap};
use tsrs_control_tailcfg::{Login, User};

/// From the control client.
#[derive(Debug)]
pub enum ControlEvent {
    /// The user must visit this page.
    AuthUrl(String),
    /// The node is registered; the keys must be stored at once.
    LoggedIn {
        /// The key in use.
        node_key: NodePrivate,
        /// The key before it.
        old_node_key: Option<NodePrivate>,
        /// Whom the node belongs to.
        user: Box<User>,
        /// How the user came.
        login: Box<Login>,
    },
    /// The node is logged out at the server.
    LoggedOut,
    /// A new netmap.
    Netmap {
        /// The snapshot.
        netmap: Arc<Netmap>,
        /// What differs from the one before.
        changes: Vec<Change>,
    },
    /// The map stream delivers.
    Online,
    /// It ended and is opened again.
    Offline,
    /// The key has expired.
    KeyExpired,
    /// Something failed.
    Trouble {
        /// What that means for the user.
        kind: TroubleKind,
        /// It happened while logging in.
        during_login: bool,
        /// Cause and next step.
        text: String,
    },
    /// The server wants the user to see this page.
    OpenPage(String),
}

/// What a failure means for the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// The server refuses, or is no server for us: trying again changes nothing.
    Final,
    /// The server's certificate is not trusted.
    Certificate,
    /// The server knows no node with our key.
    NodeUnknown,
    /// It may go away by itself.
    Passing,
}

/// From the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineEvent {
    /// The UDP socket is on this port; `wanted` was taken if it is another.
    UdpPort {
        /// The port.
        port: u16,
        /// The port asked for; 0 = any.
        wanted: u16,
    },
    /// How many relays are connected and how many peers have a session.
    Contact {
        /// Relays.
        live_derp_count: usize,
        /// Peers.
        live_peer_count: usize,
    },
    /// The home region; `None` = none can be reached.
    HomeDerp(Option<RegionId>),
    /// Whether the home region is connected.
    HomeConnected(bool),
}
