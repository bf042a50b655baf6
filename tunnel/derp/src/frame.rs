//! DERP frames, protocol version 2 (data-plane sheet §4.2).
//!
//! ```text
//! type u8 | body length u32 big-endian | body
//! ```
//!
//! `put_*` append one whole frame to a buffer, so that many go out in one write. Types that a side does not expect and
//! bodies that are longer than known are tolerated, since the other side may be newer.

use std::time::Duration;

use tsrs_base_types::NodePublic;

/// Length of type and body length.
pub const HEADER_LEN: usize = 5;
/// Largest packet that a relay carries.
pub const MAX_PACKET_LEN: usize = 65_536;
/// Largest body that a client reads: well above every frame that exists, and small enough to hold.
pub const MAX_FRAME_LEN: usize = 1 << 20;
/// Largest body of the server's greeting; today's has 40 bytes.
pub const MAX_SERVER_KEY_LEN: usize = 1024;
/// Largest body of the client's greeting.
pub const MAX_CLIENT_INFO_LEN: usize = 256 << 10;
/// What a SendPacket frame adds to its packet: header and destination key.
pub const SEND_OVERHEAD_LEN: usize = HEADER_LEN + KEY_LEN;
/// What the server's greeting begins with: "DERP" and U+1F511.
pub const MAGIC: [u8; 8] = [0x44, 0x45, 0x52, 0x50, 0xf0, 0x9f, 0x94, 0x91];
/// Protocol version that both greetings name.
pub const PROTOCOL_VERSION: i64 = 2;

pub(crate) const KEY_LEN: usize = 32;
const PING_LEN: usize = 8;

/// Type of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameType(pub u8);

impl FrameType {
    /// Server's greeting.
    pub const SERVER_KEY: Self = Self(0x01);
    /// Client's greeting.
    pub const CLIENT_INFO: Self = Self(0x02);
    /// Server's answer to it.
    pub const SERVER_INFO: Self = Self(0x03);
    /// Packet from a client to the relay.
    pub const SEND_PACKET: Self = Self(0x04);
    /// Packet from the relay to a client.
    pub const RECV_PACKET: Self = Self(0x05);
    /// Server is alive.
    pub const KEEP_ALIVE: Self = Self(0x06);
    /// Client says whether this server is its home.
    pub const NOTE_PREFERRED: Self = Self(0x07);
    /// A peer cannot be reached here.
    pub const PEER_GONE: Self = Self(0x08);
    /// Asks for a pong.
    pub const PING: Self = Self(0x12);
    /// Answers a ping.
    pub const PONG: Self = Self(0x13);
    /// Text of a problem, empty when it is over.
    pub const HEALTH: Self = Self(0x14);
    /// Server is about to restart.
    pub const RESTARTING: Self = Self(0x15);
}

/// Type and body length from the first bytes of a frame; none until [`HEADER_LEN`] bytes are there.
pub fn parse_header(bytes: &[u8]) -> Option<(FrameType, usize)> {
    let &[kind, l0, l1, l2, l3] = bytes.first_chunk::<HEADER_LEN>()?;
    // A length that does not fit is above every limit anyway.
    let body_len = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
    Some((FrameType(kind), body_len))
}

/// Why a peer cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoneReason {
    /// It was here and left.
    Disconnected,
    /// It is not here.
    NotHere,
    /// A code that we do not know.
    Other(u8),
}

impl From<u8> for GoneReason {
    fn from(code: u8) -> Self {
        match code {
            0 => Self::Disconnected,
            1 => Self::NotHere,
            other => Self::Other(other),
        }
    }
}

impl From<GoneReason> for u8 {
    fn from(reason: GoneReason) -> Self {
        match reason {
            GoneReason::Disconnected => 0,
            GoneReason::NotHere => 1,
            GoneReason::Other(code) => code,
        }
    }
}

/// A frame from a server, as a client reads it after the greeting.
#[derive(Debug, PartialEq, Eq)]
pub enum ServerFrame<'a> {
    /// Nonce and box; see [`crate::info::ServerInfo::open`].
    ServerInfo(&'a [u8]),
    /// A packet. It can be decrypted where it lies.
    RecvPacket {
        /// Sender; the relay vouches for it.
        source: NodePublic,
        /// WireGuard or disco.
        packet: &'a mut [u8],
    },
    /// Server is alive.
    KeepAlive,
    /// A peer cannot be reached here.
    PeerGone {
        /// The peer.
        peer: NodePublic,
        /// Why.
        reason: GoneReason,
    },
    /// Wants a pong with the same data.
    Ping([u8; 8]),
    /// Answers our ping.
    Pong([u8; 8]),
    /// A problem, empty when it is over.
    Health(&'a [u8]),
    /// Server is about to restart.
    Restarting {
        /// When to reconnect.
        reconnect_in: Duration,
        /// How long to try before another node is used.
        try_for: Duration,
    },
}

impl<'a> ServerFrame<'a> {
    /// Reads a body. None for types that a client has no use for and for bodies that are too short: both are skipped.
    pub fn parse(kind: FrameType, body: &'a mut [u8]) -> Option<Self> {
        match kind {
            FrameType::SERVER_INFO => Some(Self::ServerInfo(body)),
            FrameType::RECV_PACKET => {
                let (source, packet) = body.split_first_chunk_mut::<KEY_LEN>()?;
                Some(Self::RecvPacket { source: NodePublic::from_bytes(*source), packet })
            }
            FrameType::KEEP_ALIVE => Some(Self::KeepAlive),
            FrameType::PEER_GONE => {
                let (peer, rest) = body.split_first_chunk::<KEY_LEN>()?;
                let reason = rest.first().map_or(GoneReason::Disconnected, |&code| code.into());
                Some(Self::PeerGone { peer: NodePublic::from_bytes(*peer), reason })
            }
            FrameType::PING => body.first_chunk().copied().map(Self::Ping),
            FrameType::PONG => body.first_chunk().copied().map(Self::Pong),
            FrameType::HEALTH => Some(Self::Health(body)),
            FrameType::RESTARTING => {
                let (reconnect_in, rest) = body.split_first_chunk::<4>()?;
                let millis = |raw: [u8; 4]| Duration::from_millis(u32::from_be_bytes(raw).into());
                Some(Self::Restarting {
                    reconnect_in: millis(*reconnect_in),
                    try_for: millis(*rest.first_chunk::<4>()?),
                })
            }
            _ => None,
        }
    }
}

/// A frame from a client, as a server reads it.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientFrame<'a> {
    /// Greeting; see [`crate::info::ClientInfo::open`].
    ClientInfo(&'a [u8]),
    /// A packet.
    SendPacket {
        /// Receiver.
        destination: NodePublic,
        /// WireGuard or disco.
        packet: &'a [u8],
    },
    /// Whether this server is the client's home.
    NotePreferred(bool),
    /// Wants a pong with the same data.
    Ping([u8; 8]),
    /// Answers the server's ping.
    Pong([u8; 8]),
}

impl<'a> ClientFrame<'a> {
    /// Reads a body. None for types that a server of clients has no use for, and for bodies that are too short.
    pub fn parse(kind: FrameType, body: &'a [u8]) -> Option<Self> {
        match kind {
            FrameType::CLIENT_INFO => Some(Self::ClientInfo(body)),
            FrameType::SEND_PACKET => {
                let (destination, packet) = body.split_first_chunk::<KEY_LEN>()?;
                Some(Self::SendPacket { destination: NodePublic::from_bytes(*destination), packet })
            }
            FrameType::NOTE_PREFERRED => body.first().map(|&flag| Self::NotePreferred(flag != 0)),
            FrameType::PING => body.first_chunk().copied().map(Self::Ping),
            FrameType::PONG => body.first_chunk().copied().map(Self::Pong),
            _ => None,
        }
    }
}

/// The server's key from the body of its greeting; bytes behind it are ignored.
pub fn parse_server_key(body: &[u8]) -> Option<NodePublic> {
    let key = body.strip_prefix(&MAGIC)?.first_chunk::<KEY_LEN>()?;
    Some(NodePublic::from_bytes(*key))
}

/// Header of a frame with a body of `body_len` bytes.
fn header(kind: FrameType, body_len: usize) -> [u8; HEADER_LEN] {
    // Every body that we make is below MAX_FRAME_LEN.
    let [l0, l1, l2, l3] = u32::try_from(body_len).unwrap_or(u32::MAX).to_be_bytes();
    [kind.0, l0, l1, l2, l3]
}

/// Appends a frame whose body is the given parts one after the other.
pub fn put_frame(out: &mut Vec<u8>, kind: FrameType, parts: &[&[u8]]) {
    let body_len = parts.iter().map(|part| part.len()).sum();
    out.reserve(HEADER_LEN + body_len);
    out.extend_from_slice(&header(kind, body_len));
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// What goes in front of a packet of `packet_len` bytes; for those who write header and packet by one vectored write.
pub fn send_packet_head(destination: &NodePublic, packet_len: usize) -> [u8; SEND_OVERHEAD_LEN] {
    let mut head = [0; SEND_OVERHEAD_LEN];
    head[..HEADER_LEN].copy_from_slice(&header(FrameType::SEND_PACKET, KEY_LEN + packet_len));
    head[HEADER_LEN..].copy_from_slice(destination.as_bytes());
    head
}

/// Client to server: a packet of at most [`MAX_PACKET_LEN`] bytes.
pub fn put_send_packet(out: &mut Vec<u8>, destination: &NodePublic, packet: &[u8]) {
    out.reserve(SEND_OVERHEAD_LEN + packet.len());
    out.extend_from_slice(&send_packet_head(destination, packet.len()));
    out.extend_from_slice(packet);
}

/// Server to client: a packet.
pub fn put_recv_packet(out: &mut Vec<u8>, source: &NodePublic, packet: &[u8]) {
    put_frame(out, FrameType::RECV_PACKET, &[source.as_bytes(), packet]);
}

/// Client to server: whether this is our home.
pub fn put_note_preferred(out: &mut Vec<u8>, preferred: bool) {
    put_frame(out, FrameType::NOTE_PREFERRED, &[&[u8::from(preferred)]]);
}

/// Either way: asks for a pong.
pub fn put_ping(out: &mut Vec<u8>, data: &[u8; PING_LEN]) {
    put_frame(out, FrameType::PING, &[data]);
}

/// Either way: answers a ping with its data.
pub fn put_pong(out: &mut Vec<u8>, data: &[u8; PING_LEN]) {
    put_frame(out, FrameType::PONG, &[data]);
}

/// Server to client: greeting.
pub fn put_server_key(out: &mut Vec<u8>, key: &NodePublic) {
    put_frame(out, FrameType::SERVER_KEY, &[&MAGIC, key.as_bytes()]);
}

/// Server to client: alive.
pub fn put_keep_alive(out: &mut Vec<u8>) {
    put_frame(out, FrameType::KEEP_ALIVE, &[]);
}

/// Server to client: a peer cannot be reached here.
pub fn put_peer_gone(out: &mut Vec<u8>, peer: &NodePublic, reason: GoneReason) {
    put_frame(out, FrameType::PEER_GONE, &[peer.as_bytes(), &[reason.into()]]);
}

/// Server to client: a problem, empty when it is over.
pub fn put_health(out: &mut Vec<u8>, problem: &str) {
    put_frame(out, FrameType::HEALTH, &[problem.as_bytes()]);
}

/// Server to client: about to restart.
pub fn put_restarting(out: &mut Vec<u8>, reconnect_in: Duration, try_for: Duration) {
    let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX).to_be_bytes();
    put_frame(out, FrameType::RESTARTING, &[&millis(reconnect_in), &millis(try_for)]);
}
