//! What goes into and comes out of [`super::PathMachine`].

use std::net::{SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use tsrs_base_types::{DiscoPrivate, DiscoPublic, NodePublic, RegionId};

use crate::netcheck::NetInfo;

/// Who we are.
#[derive(Debug, Clone)]
pub struct Config {
    /// Our node key; goes into pings.
    pub node_key: NodePublic,
    /// Our disco key; new at each start of the process.
    pub disco_key: DiscoPrivate,
    /// Whether the UDP port was asked for by configuration. A hard NAT may then have a static forward for it.
    pub port_is_fixed: bool,
}

/// Where a datagram came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The UDP socket.
    Udp(SocketAddrV4),
    /// A DERP connection; the relay vouches for the sender's node key.
    Derp {
        /// Region of the connection.
        region: RegionId,
        /// Sender.
        node: NodePublic,
    },
}

/// Where a datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// By the UDP socket.
    Udp(SocketAddrV4),
    /// By the DERP connection of a region, which may have to be dialled first.
    Derp {
        /// Region of the connection.
        region: RegionId,
        /// Receiver.
        node: NodePublic,
    },
}

/// A disco or STUN datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: Destination,
    /// The datagram.
    pub bytes: Vec<u8>,
}

/// A peer of the netmap, as far as paths need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// Names the peer.
    pub node_key: NodePublic,
    /// Its disco key; absent in peers that speak no disco.
    pub disco_key: Option<DiscoPublic>,
    /// Region where it can always be reached.
    pub home: Option<RegionId>,
    /// Addresses that it told control; IPv6 ones are dropped.
    pub endpoints: Vec<SocketAddr>,
    /// Its node key has expired: nothing is sent to it.
    pub expired: bool,
}

/// A change of a peer: absent fields stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerPatch {
    /// New disco key: the peer's process was restarted (or, by TSMP, told us).
    pub disco_key: Option<DiscoPublic>,
    /// New home region; zero means none.
    pub home: Option<RegionId>,
    /// New list of endpoints.
    pub endpoints: Option<Vec<SocketAddr>>,
    /// Node key expired or renewed.
    pub expired: Option<bool>,
}

/// How data for a peer is sent now. Published to the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SendPath {
    /// Send to this address.
    pub direct: Option<SocketAddrV4>,
    /// The direct path is unproven now: send each packet by DERP too.
    pub also_derp: bool,
    /// Region for packets by DERP. Known also while a direct path is trusted.
    pub derp: Option<RegionId>,
}

impl SendPath {
    /// The region by which data is sent now, beside or instead of the direct path.
    pub fn derp_now(&self) -> Option<RegionId> {
        self.derp.filter(|_| self.direct.is_none() || self.also_derp)
    }

    /// Whether there is no way to the peer at all.
    pub fn is_none(&self) -> bool {
        self.direct.is_none() && self.derp.is_none()
    }
}

/// What kind of address an own endpoint is; the numbers are those of `tailcfg.EndpointType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EndpointKind {
    /// Address of an interface.
    Local = 1,
    /// Seen by a STUN server.
    Stun = 2,
    /// Given by the router.
    PortMapped = 3,
    /// STUN address with the local port, for a static forward on a hard NAT.
    StunLocalPort = 4,
    /// Configured.
    Explicit = 5,
}

/// An address where this node may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: SocketAddrV4,
    /// How it was found.
    pub kind: EndpointKind,
}

/// What happened to the host's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkChange {
    /// The default interface or its addresses changed, or the host slept: nothing that was known holds.
    Major,
    /// Something else changed: measure again.
    Minor,
    /// No interface is up.
    Down,
}

/// What happened to a DERP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DerpChange {
    /// It is open and ready for packets.
    Connected,
    /// It is closed or could not be opened. The caller goes on trying until [`Event::DerpClose`].
    Lost,
    /// Any frame was received. Shows that the relay works; once a second is enough.
    Received,
    /// The relay says that this peer is not there (any more).
    PeerGone(NodePublic),
}

/// Why a datagram could not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// No route, host or network unreachable, address not available: this path is dead.
    Unreachable,
    /// EPIPE or ENOTCONN (and EPERM, but not on Linux, where it means that a firewall dropped the packet, which is a loss
    /// like any other and not reported): the socket is bad.
    Socket,
}

/// Names a ping that a user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PingId(pub u64);

/// Why a ping cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PingError {
    /// The key is not in the netmap.
    #[error("no such peer")]
    UnknownPeer,
    /// The peer has no disco key.
    #[error("the peer does not speak disco")]
    NoDisco,
    /// The peer's node key has expired.
    #[error("the peer's node key has expired")]
    Expired,
    /// The link is down, or too many pings to this peer are outstanding.
    #[error("no ping can be sent now: the network is down, or too many to this peer wait for an answer")]
    NoPath,
    /// More pings are outstanding than [`super::limits::MAX_CLI_PINGS`].
    #[error("too many pings at once")]
    TooMany,
    /// The wanted packet size is above [`super::limits::MAX_PING_SIZE`].
    #[error("ping size is too large")]
    Size,
}

/// The path on which a pong came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PongVia {
    /// Direct.
    Udp(SocketAddrV4),
    /// By a relay.
    Derp(RegionId),
}

/// What the machine tells or asks its caller.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Data for this peer goes another way from now on.
    PathChanged {
        /// The peer.
        peer: NodePublic,
        /// The way.
        path: SendPath,
    },
    /// Nothing was sent to this peer for 45 s, or nothing may be sent: probing has stopped. The next packet must be told
    /// by `note_sent` again, at once.
    PeerIdle(NodePublic),
    /// Our endpoints for control.
    EndpointsChanged(Vec<Endpoint>),
    /// Our network for control.
    NetInfoChanged(NetInfo),
    /// The home region changed: tell the connections (NotePreferred).
    HomeDerpChanged(Option<RegionId>),
    /// Open a DERP connection, report [`DerpChange`], and open it again whenever it is lost, until `DerpClose`.
    DerpConnect(RegionId),
    /// Close it: it is not needed any longer.
    DerpClose(RegionId),
    /// The link changed: close it if its local address is gone, otherwise ping it with a limit of 3 s.
    DerpCheck(RegionId),
    /// Make a new UDP socket, on the same port if possible; answer with `set_local`.
    Rebind,
    /// Look up the IPv4 addresses of this name; answer with `handle_resolved`.
    ResolveHost(String),
    /// Measure an HTTPS round trip to this region; answer with `handle_https_latency`.
    MeasureHttps(RegionId),
    /// A user's ping was answered.
    Pong {
        /// Of the ping.
        id: PingId,
        /// The peer.
        peer: NodePublic,
        /// The path.
        via: PongVia,
        /// Round trip.
        latency: Duration,
    },
    /// A user's ping was not answered in time on any path.
    PingTimedOut {
        /// Of the ping.
        id: PingId,
        /// The peer.
        peer: NodePublic,
    },
}

/// What `status` shows of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerStatus {
    /// The present path.
    pub path: SendPath,
    /// Round trip of the direct path.
    pub latency: Option<Duration>,
    /// Data was sent in the last 45 s.
    pub active: bool,
    /// When data was last sent.
    pub last_sent: Option<Instant>,
}

/// How many received datagrams came to what end. For diagnosis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Disco messages that were understood.
    pub disco_accepted: u64,
    /// Disco from keys that no peer has; dropped before any cryptography.
    pub disco_unknown_sender: u64,
    /// Disco that does not open with the key it claims.
    pub disco_bad_box: u64,
    /// Disco that opens but cannot be read.
    pub disco_malformed: u64,
    /// Disco that is not acted upon: it came on a way on which its kind does not count, its node is not clear, it was
    /// seen before, or it answers nothing.
    pub disco_ignored: u64,
    /// STUN answers to requests of ours.
    pub stun_accepted: u64,
    /// Other STUN.
    pub stun_ignored: u64,
    /// Neither.
    pub not_ours: u64,
}
