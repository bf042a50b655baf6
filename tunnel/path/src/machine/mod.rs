//! [`PathMachine`]: the state of all paths of this node.

mod api;
pub mod limits;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use rand_core::CryptoRngCore;
use tsrs_base_types::{NodePublic, RegionId};

pub use api::*;

use crate::netcheck::{Region, Report};

/// The machine. See the crate documentation for what its caller must do.
#[derive(Debug)]
pub struct PathMachine<R> {
    config: Config,
    rng: R,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl<R: CryptoRngCore> PathMachine<R> {
    /// A machine without peers, regions and addresses. It is silent until it has them.
    pub fn new(config: Config, rng: R, now: Instant) -> Self {
        let _ = now;
        Self { config, rng, transmits: VecDeque::new(), events: VecDeque::new() }
    }

    /// Adds a peer or replaces what the netmap says of it; paths that are in use go on. O(endpoints).
    pub fn upsert_peer(&mut self, peer: PeerConfig, now: Instant) {
        let _ = (peer, now);
    }

    /// Changes some facts of a peer. Returns whether the peer is known.
    pub fn patch_peer(&mut self, peer: &NodePublic, patch: PeerPatch, now: Instant) -> bool {
        let _ = (peer, patch, now);
        false
    }

    /// Forgets a peer.
    pub fn remove_peer(&mut self, peer: &NodePublic) {
        let _ = peer;
    }

    /// Data was last sent to this peer at `at`. The first call after idleness starts probing; later ones keep it going.
    /// Call it at once for the first packet, and for all [`Self::active_peers`] before [`Self::handle_timeout`].
    pub fn note_sent(&mut self, peer: &NodePublic, at: Instant, now: Instant) {
        let _ = (peer, at, now);
    }

    /// A packet of this peer (also one that is not disco) came by DERP. Cheap; call it once per batch.
    pub fn note_derp_heard(&mut self, peer: &NodePublic, region: RegionId, now: Instant) {
        let _ = (peer, region, now);
    }

    /// Peers to which data was sent in the last 45 s.
    pub fn active_peers(&self) -> impl Iterator<Item = &NodePublic> {
        std::iter::empty()
    }

    /// A STUN or disco datagram.
    pub fn handle_datagram(&mut self, source: Source, datagram: &[u8], now: Instant) {
        let _ = (source, datagram, now);
    }

    /// A datagram (of ours or of WireGuard's) to this address could not be sent.
    pub fn handle_send_error(&mut self, to: SocketAddrV4, error: SendError, now: Instant) {
        let _ = (to, error, now);
    }

    /// Something happened to the connection of a region.
    pub fn handle_derp(&mut self, region: RegionId, change: DerpChange, now: Instant) {
        let _ = (region, change, now);
    }

    /// The DERP map changed.
    pub fn set_regions(&mut self, regions: Vec<Region>, now: Instant) {
        let _ = (regions, now);
    }

    /// Addresses of the host's interfaces (without the TUN), and the port of the UDP socket. Starts a netcheck when they
    /// differ from before.
    pub fn set_local(&mut self, addresses: &[Ipv4Addr], port: u16, now: Instant) {
        let _ = (addresses, port, now);
    }

    /// Endpoints from configuration.
    pub fn set_static_endpoints(&mut self, addresses: &[SocketAddrV4], now: Instant) {
        let _ = (addresses, now);
    }

    /// Our node key was renewed.
    pub fn set_node_key(&mut self, node_key: NodePublic) {
        self.config.node_key = node_key;
    }

    /// Whether UDP may be used at all (`only-tcp-443` says no).
    pub fn set_udp_allowed(&mut self, allowed: bool, now: Instant) {
        let _ = (allowed, now);
    }

    /// Whether control can be reached. While it cannot, the home region stays: peers could not learn of a new one.
    pub fn set_control_connected(&mut self, connected: bool) {
        let _ = connected;
    }

    /// The host's network changed, or the host slept ([`LinkChange::Major`]).
    pub fn handle_link_change(&mut self, change: LinkChange, now: Instant) {
        let _ = (change, now);
    }

    /// Answer to [`Event::ResolveHost`]; empty when the name has no IPv4 address.
    pub fn handle_resolved(&mut self, host: &str, addresses: &[Ipv4Addr], now: Instant) {
        let _ = (host, addresses, now);
    }

    /// Answer to [`Event::MeasureHttps`]; none when it failed.
    pub fn handle_https_latency(&mut self, region: RegionId, latency: Option<Duration>, now: Instant) {
        let _ = (region, latency, now);
    }

    /// Starts a netcheck now (`debug restun`).
    pub fn restun(&mut self, now: Instant) {
        let _ = now;
    }

    /// Sends a user's ping over all paths that may work. `size` is the wanted size of the UDP payload; 0 means the usual.
    pub fn ping(&mut self, peer: &NodePublic, size: usize, now: Instant) -> Result<PingId, PingError> {
        let _ = (peer, size, now, &mut self.rng);
        Err(PingError::UnknownPeer)
    }

    /// How data goes to this peer now.
    pub fn path(&self, peer: &NodePublic) -> SendPath {
        let _ = peer;
        SendPath::default()
    }

    /// What `status` shows of this peer.
    pub fn peer_status(&self, peer: &NodePublic, now: Instant) -> Option<PeerStatus> {
        let _ = (peer, now);
        None
    }

    /// Our endpoints as last published.
    pub fn endpoints(&self) -> &[Endpoint] {
        &[]
    }

    /// The last complete netcheck.
    pub fn report(&self) -> Option<&Report> {
        None
    }

    /// Home region.
    pub fn home_derp(&self) -> Option<RegionId> {
        None
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] is wanted; none when the machine waits for nothing.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Time has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }
}
