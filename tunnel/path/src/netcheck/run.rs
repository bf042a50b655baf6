//! The netcheck machine: one report at a time.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use rand_core::CryptoRngCore;
use tsrs_base_types::RegionId;

use super::{Region, Report};

/// A STUN request to send on the socket that carries WireGuard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetcheckTransmit {
    /// Where to.
    pub to: SocketAddrV4,
    /// The datagram.
    pub bytes: Vec<u8>,
}

/// What the machine asks for or has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetcheckEvent {
    /// Look up the IPv4 addresses of this name; answer with [`Netcheck::handle_resolved`].
    Resolve(String),
    /// Measure an HTTPS round trip to this region (`GET /derp/latency-check`), since no STUN answer came; answer with
    /// [`Netcheck::handle_https_latency`].
    MeasureHttps(RegionId),
    /// The report is complete.
    Done(Box<Report>),
}

/// Makes reports. See the module documentation.
#[derive(Debug)]
pub struct Netcheck {
    regions: Vec<Region>,
}

impl Netcheck {
    /// A machine that has no regions yet.
    pub fn new() -> Self {
        Self { regions: Vec::new() }
    }

    /// Replaces the regions. A report that is under way ends with what it has.
    pub fn set_regions(&mut self, regions: Vec<Region>) {
        self.regions = regions;
    }

    /// Starts a report; does nothing while one is under way. `full` asks for all regions at once.
    pub fn start(&mut self, full: bool, home: Option<RegionId>, now: Instant) {
        let _ = (full, home, now);
    }

    /// A STUN answer from the socket. Returns whether it belonged to a request of ours.
    pub fn handle_stun(&mut self, datagram: &[u8], now: Instant) -> bool {
        let _ = (datagram, now);
        false
    }

    /// Addresses of a name that was asked for; empty when it has none.
    pub fn handle_resolved(&mut self, host: &str, addresses: &[Ipv4Addr], now: Instant) {
        let _ = (host, addresses, now);
    }

    /// Result of a measurement that was asked for.
    pub fn handle_https_latency(&mut self, region: RegionId, latency: Option<Duration>, now: Instant) {
        let _ = (region, latency, now);
    }

    /// Time has come.
    pub fn handle_timeout(&mut self, rng: &mut impl CryptoRngCore, now: Instant) {
        let _ = (rng, now);
    }

    /// When [`Self::handle_timeout`] is wanted; none when no report is under way.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The next datagram.
    pub fn poll_transmit(&mut self) -> Option<NetcheckTransmit> {
        None
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<NetcheckEvent> {
        None
    }
}

impl Default for Netcheck {
    fn default() -> Self {
        Self::new()
    }
}
