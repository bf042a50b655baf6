//! One connection to a relay, from the first byte inside TLS on (data-plane sheet §4).

use std::ops::Range;
use std::time::{Duration, Instant};

use rand_core::CryptoRngCore;
use tsrs_base_types::{NodePrivate, NodePublic};

use crate::bucket::TokenBucket;
use crate::buffer::{FrameBuffer, FrameTooLong};
use crate::frame::{
    self, FrameType, GoneReason, KEY_LEN, MAX_FRAME_LEN, MAX_PACKET_LEN, MAX_SERVER_KEY_LEN,
    SEND_OVERHEAD_LEN, ServerFrame,
};
use crate::info::{ClientInfo, InfoError, ServerInfo};
use crate::upgrade::{Request, Response, ResponseError, parse_response};

/// From the first byte sent to the server's answer to our greeting.
pub const LOGIN_LIMIT: Duration = Duration::from_secs(10);
/// A server that is silent longer is gone: it sends a keep-alive each 60 to 65 s.
pub const READ_LIMIT: Duration = Duration::from_secs(120);
/// Limit for the answer to a ping of ours.
pub const PING_LIMIT: Duration = Duration::from_secs(3);
/// Unsent bytes above which data packets are dropped: some 200 packets, or 20 ms at 100 Mb/s. TCP inside the tunnel sees
/// the loss and slows down.
pub const MAX_QUEUED_BYTES: usize = 256 << 10;
/// Further room for disco packets and our own frames, so that path finding goes on while data is dropped.
pub const CONTROL_RESERVE_BYTES: usize = 32 << 10;
/// Problem texts of the server are cut to this.
const MAX_HEALTH_LEN: usize = 1024;
/// An output buffer that has grown beyond this and was emptied by a small write is given back: the connection is idle
/// again. One that bulk traffic empties keeps its memory.
const SHRINK_OUTPUT_ABOVE: usize = 16 << 10;
/// What a disco packet begins with.
const DISCO_MAGIC: [u8; 6] = [0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac];

/// How the connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Request, response, the server's key, then our greeting.
    Normal,
    /// The server's key is known from the meta certificate (only under TLS 1.3): request and greeting go out together.
    Fast(NodePublic),
}

/// What a connection needs to know.
#[derive(Debug)]
pub struct ClientConfig<'a> {
    /// Our node key.
    pub node_key: NodePrivate,
    /// `Host` header; see [`crate::Node::http_host`].
    pub host: &'a str,
    /// Name of the region's first node, when this is another one.
    pub ideal_node: Option<&'a str>,
    /// How to begin.
    pub start: Start,
    /// Whether this region is our home.
    pub preferred: bool,
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The upgrade failed.
    #[error(transparent)]
    Upgrade(#[from] ResponseError),
    /// The server's greeting is not one.
    #[error("server's greeting is malformed")]
    ServerKey,
    /// The server's answer to our greeting is not one.
    #[error("server's answer to the greeting: {0}")]
    ServerInfo(InfoError),
    /// Our own greeting could not be made.
    #[error("own greeting: {0}")]
    ClientInfo(InfoError),
    /// A frame above the limit.
    #[error(transparent)]
    FrameTooLong(#[from] FrameTooLong),
    /// No complete login within [`LOGIN_LIMIT`].
    #[error("server did not complete the login in time")]
    LoginTimeout,
    /// Nothing received for [`READ_LIMIT`].
    #[error("server was silent for too long")]
    ReadTimeout,
    /// No pong within [`PING_LIMIT`].
    #[error("server did not answer a ping in time")]
    PingTimeout,
}

/// Why a packet was not queued. It is dropped, as a network would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Above [`MAX_PACKET_LEN`].
    #[error("packet is too large for a relay")]
    TooLarge,
    /// The connection does not drain fast enough.
    #[error("relay queue is full")]
    QueueFull,
    /// Above the rate that the server set.
    #[error("above the relay's rate limit")]
    RateLimited,
}

/// What a connection delivers.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The server answered our greeting.
    Ready(ServerInfo),
    /// A packet. It can be decrypted where it lies.
    Packet {
        /// Sender; the relay vouches for it.
        source: NodePublic,
        /// WireGuard or disco.
        packet: &'a mut [u8],
    },
    /// A peer cannot be reached here.
    PeerGone {
        /// The peer.
        peer: NodePublic,
        /// Why.
        reason: GoneReason,
    },
    /// Our ping was answered.
    Pong {
        /// Round trip.
        latency: Duration,
    },
    /// A problem for the user, empty when it is over.
    Health(String),
    /// The server is about to restart.
    Restarting {
        /// When to reconnect.
        reconnect_in: Duration,
        /// How long to try before another node is used.
        try_for: Duration,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The request is out.
    AwaitResponse,
    /// The response came.
    AwaitServerKey,
    /// Our greeting is out.
    AwaitServerInfo(NodePublic),
    /// The server answered it.
    Ready(NodePublic),
}

/// The machine. Read into [`Self::read_space`], then call [`Self::note_read`] and drain [`Self::poll_message`]; write
/// [`Self::output`], then call [`Self::note_written`]. After an error the connection must be closed.
#[derive(Debug)]
pub struct ClientMachine<R> {
    node_key: NodePrivate,
    rng: R,
    state: State,
    preferred: bool,
    received: FrameBuffer,
    /// Bytes to write, from `written` on.
    output: Vec<u8>,
    written: usize,
    /// Frames that wait for our greeting to go out.
    held: Vec<u8>,
    bucket: Option<TokenBucket>,
    login_deadline: Instant,
    last_received: Instant,
    ping: Option<([u8; 8], Instant)>,
}

impl<R: CryptoRngCore> ClientMachine<R> {
    /// Begins a connection: the request is in [`Self::output`].
    pub fn new(config: ClientConfig<'_>, rng: R, now: Instant) -> Result<Self, Error> {
        let mut machine = Self {
            node_key: config.node_key,
            rng,
            state: State::AwaitResponse,
            preferred: false,
            received: FrameBuffer::new(),
            output: Vec::new(),
            written: 0,
            held: Vec::new(),
            bucket: None,
            login_deadline: now + LOGIN_LIMIT,
            last_received: now,
            ping: None,
        };
        let fast_start = matches!(config.start, Start::Fast(_));
        Request { host: config.host, ideal_node: config.ideal_node, fast_start }.put(&mut machine.output);
        machine.set_preferred(config.preferred);
        if let Start::Fast(server_key) = config.start {
            machine.send_greeting(server_key)?;
        }
        Ok(machine)
    }

    /// Room to read into.
    pub fn read_space(&mut self) -> &mut [u8] {
        self.received.space()
    }

    /// `count` bytes were read into [`Self::read_space`].
    pub fn note_read(&mut self, count: usize, now: Instant) {
        self.received.note_filled(count);
        self.last_received = now;
    }

    /// The next message of those received. Call it until it gives none.
    pub fn poll_message(&mut self, now: Instant) -> Result<Option<Message<'_>>, Error> {
        if !self.is_greeted() && !self.advance_login()? {
            return Ok(None);
        }
        loop {
            let Some((kind, range)) = self.received.next_frame(MAX_FRAME_LEN)? else { return Ok(None) };
            if kind == FrameType::RECV_PACKET && range.len() >= KEY_LEN {
                let frame = ServerFrame::parse(kind, self.received.body(range));
                let Some(ServerFrame::RecvPacket { source, packet }) = frame else { return Ok(None) };
                return Ok(Some(Message::Packet { source, packet }));
            }
            if let Some(message) = self.handle_frame(kind, range, now)? {
                return Ok(Some(message));
            }
        }
    }

    /// Response and the server's key. True when our greeting is out and frames follow.
    fn advance_login(&mut self) -> Result<bool, Error> {
        if self.state == State::AwaitResponse {
            match parse_response(self.received.unread())? {
                Response::Incomplete => return Ok(false),
                Response::Upgraded { head_len } => {
                    self.received.consume(head_len);
                    self.state = State::AwaitServerKey;
                }
            }
        }
        let frame = self.received.next_frame(MAX_SERVER_KEY_LEN).map_err(|_| Error::ServerKey)?;
        let Some((kind, range)) = frame else { return Ok(false) };
        let key =
            frame::parse_server_key(self.received.body(range)).filter(|_| kind == FrameType::SERVER_KEY);
        self.send_greeting(key.ok_or(Error::ServerKey)?)?;
        Ok(true)
    }

    fn send_greeting(&mut self, server_key: NodePublic) -> Result<(), Error> {
        ClientInfo::default()
            .put(&mut self.output, &mut self.rng, &self.node_key, &server_key)
            .map_err(Error::ClientInfo)?;
        self.output.append(&mut self.held);
        self.state = State::AwaitServerInfo(server_key);
        Ok(())
    }

    /// All frames but packets; gives those that the caller must know of.
    fn handle_frame(
        &mut self,
        kind: FrameType,
        range: Range<usize>,
        now: Instant,
    ) -> Result<Option<Message<'static>>, Error> {
        let Some(frame) = ServerFrame::parse(kind, self.received.body(range)) else { return Ok(None) };
        let message = match frame {
            ServerFrame::ServerInfo(body) => {
                let (State::AwaitServerInfo(server_key) | State::Ready(server_key)) = self.state else {
                    return Ok(None);
                };
                let info = ServerInfo::open(body, &self.node_key, &server_key).map_err(Error::ServerInfo)?;
                self.state = State::Ready(server_key);
                self.bucket = bucket_of(&info, now);
                Message::Ready(info)
            }
            ServerFrame::PeerGone { peer, reason } => Message::PeerGone { peer, reason },
            ServerFrame::Ping(data) => {
                // A server that floods us with pings gets no more answers than fit.
                if self.unsent_len() < MAX_QUEUED_BYTES + CONTROL_RESERVE_BYTES {
                    frame::put_pong(self.queue(), &data);
                }
                return Ok(None);
            }
            ServerFrame::Pong(data) => {
                let Some((_, sent_at)) = self.ping.take_if(|(expected, _)| *expected == data) else {
                    return Ok(None);
                };
                Message::Pong { latency: now.saturating_duration_since(sent_at) }
            }
            ServerFrame::Health(text) => {
                let text = &text[..text.len().min(MAX_HEALTH_LEN)];
                Message::Health(String::from_utf8_lossy(text).into_owned())
            }
            ServerFrame::Restarting { reconnect_in, try_for } => {
                Message::Restarting { reconnect_in, try_for }
            }
            ServerFrame::KeepAlive | ServerFrame::RecvPacket { .. } => return Ok(None),
        };
        Ok(Some(message))
    }

    /// Queues a packet; before the login is complete it waits for it.
    pub fn send_packet(&mut self, to: &NodePublic, packet: &[u8], now: Instant) -> Result<(), Refused> {
        if packet.len() > MAX_PACKET_LEN {
            return Err(Refused::TooLarge);
        }
        let reserve = if packet.starts_with(&DISCO_MAGIC) { CONTROL_RESERVE_BYTES } else { 0 };
        let cost = SEND_OVERHEAD_LEN + packet.len();
        if self.unsent_len() + cost > MAX_QUEUED_BYTES + reserve {
            return Err(Refused::QueueFull);
        }
        if let Some(bucket) = &mut self.bucket
            && !bucket.take(u32::try_from(cost).unwrap_or(u32::MAX), now)
        {
            return Err(Refused::RateLimited);
        }
        frame::put_send_packet(self.queue(), to, packet);
        Ok(())
    }

    /// Bytes of data packets that may be queued now; a caller that reads it can leave packets where they are.
    pub fn send_room(&self) -> usize {
        MAX_QUEUED_BYTES.saturating_sub(self.unsent_len())
    }

    /// Tells the server whether it is our home.
    pub fn set_preferred(&mut self, preferred: bool) {
        if self.preferred != preferred {
            self.preferred = preferred;
            frame::put_note_preferred(self.queue(), preferred);
        }
    }

    /// Asks the server for a pong within [`PING_LIMIT`], to see whether the connection still works.
    pub fn ping(&mut self, now: Instant) {
        if self.ping.is_none() {
            let mut data = [0; 8];
            self.rng.fill_bytes(&mut data);
            self.ping = Some((data, now));
            frame::put_ping(self.queue(), &data);
        }
    }

    /// Whether the server has answered our greeting.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready(_))
    }

    /// Whether our greeting is out.
    fn is_greeted(&self) -> bool {
        matches!(self.state, State::AwaitServerInfo(_) | State::Ready(_))
    }

    /// Where frames go that we send.
    fn queue(&mut self) -> &mut Vec<u8> {
        if self.is_greeted() { &mut self.output } else { &mut self.held }
    }

    fn unsent_len(&self) -> usize {
        self.output.len() - self.written + self.held.len()
    }

    /// Bytes to write now: many frames at once.
    pub fn output(&self) -> &[u8] {
        &self.output[self.written..]
    }

    /// `count` bytes of [`Self::output`] were written.
    pub fn note_written(&mut self, count: usize) {
        self.written = self.output.len().min(self.written + count);
        if self.written == self.output.len() {
            let small = self.written < SHRINK_OUTPUT_ABOVE / 16;
            self.output.clear();
            self.written = 0;
            if small && self.output.capacity() > SHRINK_OUTPUT_ABOVE {
                self.output.shrink_to(SHRINK_OUTPUT_ABOVE);
            }
        } else if self.written > self.output.len() / 2 {
            self.output.drain(..self.written);
            self.written = 0;
        }
    }

    /// When [`Self::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Instant {
        let silence = if self.is_ready() { self.last_received + READ_LIMIT } else { self.login_deadline };
        self.ping.map_or(silence, |(_, sent_at)| silence.min(sent_at + PING_LIMIT))
    }

    /// Time has come; an error ends the connection.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        if !self.is_ready() && now >= self.login_deadline {
            return Err(Error::LoginTimeout);
        }
        if self.is_ready() && now >= self.last_received + READ_LIMIT {
            return Err(Error::ReadTimeout);
        }
        if self.ping.is_some_and(|(_, sent_at)| now >= sent_at + PING_LIMIT) {
            return Err(Error::PingTimeout);
        }
        Ok(())
    }
}

/// The bucket that the server asks for; none when it sets no rate.
fn bucket_of(info: &ServerInfo, now: Instant) -> Option<TokenBucket> {
    let clamp = |bytes: i64| u32::try_from(bytes.max(0)).unwrap_or(u32::MAX);
    let (rate, burst) = (clamp(info.bytes_per_sec), clamp(info.burst_bytes));
    (rate > 0).then(|| TokenBucket::new(rate, burst, now))
}
