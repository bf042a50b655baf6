//! `POST /machine/map`: the request (sheet §9, §13).

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tsrs_base_types::{DiscoPublic, NodePublic};

use crate::{CapabilityVersion, Hostinfo};

wire! {
    /// Opens the map stream (`stream`), or tells the server our state (`omit_peers` without `stream`).
    struct MapRequest {
        /// Capability version of the client.
        keep "Version" version: CapabilityVersion,
        /// `zstd`, or empty for plain JSON frames.
        keep "Compress" compress: String,
        /// Whether the server should send keep-alives.
        keep "KeepAlive" keep_alive: bool,
        /// Our node key.
        keep "NodeKey" node_key: NodePublic,
        /// Our disco key.
        keep "DiscoKey" disco_key: DiscoPublic,
        /// A long poll of many frames. Read-only for the server from capability version 68 on.
        keep "Stream" stream: bool,
        /// The host as it is now.
        keep "Hostinfo" hostinfo: Option<Box<Hostinfo>>,
        /// Session to resume. We never send it.
        omit "MapSessionHandle" map_session_handle: String,
        /// Last frame seen in the session to resume.
        omit "MapSessionSeq" map_session_seq: i64,
        /// Our candidate addresses.
        addrs "Endpoints" endpoints: Vec<SocketAddr>,
        /// Where each entry of `endpoints` comes from.
        omit "EndpointTypes" endpoint_types: Vec<EndpointType>,
        /// Head of the local Tailnet Lock chain.
        omit "TKAHead" tka_head: String,
        /// Deprecated, always false.
        omit "ReadOnly" read_only: bool,
        /// Peers need not be answered.
        omit "OmitPeers" omit_peers: bool,
        /// Free texts without promise, such as `warn-ip-forwarding-off`.
        omit "DebugFlags" debug_flags: Vec<String>,
        /// Names the connection in tests.
        omit "ConnectionHandleForTest" connection_handle_for_test: String,
    }
}

/// Where a candidate address comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EndpointType(pub i64);

impl EndpointType {
    /// Not known.
    pub const UNKNOWN: Self = Self(0);
    /// Address of an interface of the host.
    pub const LOCAL: Self = Self(1);
    /// Seen by a STUN server.
    pub const STUN: Self = Self(2);
    /// Mapped by the router.
    pub const PORTMAPPED: Self = Self(3);
    /// Public IPv4 address with our local port: a guess behind a hard NAT.
    pub const STUN4_LOCAL_PORT: Self = Self(4);
    /// Set by the user.
    pub const EXPLICIT: Self = Self(5);
}
