//! Keeping our own endpoints, network report and home region up to date (data-plane sheet §3.2, §3.8).

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use rand_core::{CryptoRngCore, RngCore};
use tsrs_base_types::RegionId;

use super::PathMachine;
use super::api::{Destination, Endpoint, Event, Transmit};
use super::limits::{ENDPOINTS_FRESH, MAX_PENDING_CALLS, STUN_INTERVAL};
use super::peers::PeerId;
use crate::netcheck::{NetInfo, NetcheckEvent, Region, Report};

/// What we last found out about ourselves, and when we look again.
#[derive(Debug)]
pub(super) struct Refresh {
    /// When the next netcheck is due; set while any peer is active.
    pub(super) next_at: Option<Instant>,
    /// One more is wanted when the one under way is done.
    again: bool,
    done_at: Option<Instant>,
    pending_calls: BTreeSet<PeerId>,
    pub(super) report: Option<Report>,
    pub(super) endpoints: Vec<Endpoint>,
    net_info: Option<NetInfo>,
    pub(super) home: Option<RegionId>,
    control_connected: bool,
    /// Picks a home when nothing could be measured: the same one all the time, but not the same for all nodes.
    blind_pick: u32,
}

impl Refresh {
    pub(super) fn new(rng: &mut impl RngCore) -> Self {
        Self {
            next_at: None,
            again: false,
            done_at: None,
            pending_calls: BTreeSet::new(),
            report: None,
            endpoints: Vec::new(),
            net_info: None,
            home: None,
            control_connected: true,
            blind_pick: rng.next_u32(),
        }
    }

    /// Whether our endpoints are fresh enough to be told to a peer.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        self.done_at.is_some_and(|at| now.saturating_duration_since(at) < ENDPOINTS_FRESH)
    }

    pub(super) fn postpone_call(&mut self, id: PeerId) {
        if self.pending_calls.len() < MAX_PENDING_CALLS {
            self.pending_calls.insert(id);
        }
    }

    pub(super) fn forget_peer(&mut self, id: PeerId) {
        self.pending_calls.remove(&id);
    }

    /// The network changed: our endpoints must be found anew.
    pub(super) fn reset(&mut self) {
        self.next_at = None;
        self.again = false;
        self.done_at = None;
        self.pending_calls.clear();
    }
}

impl<R: CryptoRngCore> PathMachine<R> {
    /// The DERP map changed. A first map, or one without our home, starts a netcheck.
    pub fn set_regions(&mut self, regions: Vec<Region>, now: Instant) {
        let lost = self.relays.set_known(regions.iter().map(|region| region.id).collect());
        self.events.extend(lost.into_iter().map(Event::DerpClose));
        self.netcheck.set_regions(regions);
        let homes = self.possible_homes();
        if self
            .refresh
            .home
            .is_some_and(|home| !self.netcheck.regions().iter().any(|region| region.id == home))
        {
            self.set_home(None, now);
        }
        if self.refresh.home.is_none() {
            // With one region there is nothing to measure before packets can flow.
            if let [only] = homes[..] {
                self.set_home(Some(only), now);
            }
            self.refresh.done_at = None;
            self.start_refresh(now);
        }
        for id in self.peers.ids() {
            self.settle(id, now);
        }
    }

    /// Addresses of the host's interfaces (without the TUN), and the port of the UDP socket. Starts a netcheck when they
    /// differ from before, or when the socket is new ([`Event::Rebind`]).
    pub fn set_local(&mut self, addresses: &[Ipv4Addr], port: u16, now: Instant) {
        let changed = self.own.set_local(addresses, port);
        if std::mem::take(&mut self.awaits_rebind) {
            self.start_refresh(now);
            for id in self.active.clone() {
                self.discover(id, true, now);
                self.settle(id, now);
            }
        } else if changed {
            self.start_refresh(now);
        }
    }

    /// Endpoints from configuration.
    pub fn set_static_endpoints(&mut self, addresses: &[SocketAddrV4]) {
        self.own.set_fixed(addresses);
        self.publish_endpoints();
    }

    /// Whether control can be reached. While it cannot, the home region stays: peers could not learn of a new one.
    pub fn set_control_connected(&mut self, connected: bool) {
        self.refresh.control_connected = connected;
    }

    /// Answer to [`Event::ResolveHost`]; empty when the name has no IPv4 address.
    pub fn handle_resolved(&mut self, host: &str, addresses: &[Ipv4Addr], now: Instant) {
        self.netcheck.handle_resolved(host, addresses, now);
        self.run_netcheck(now);
    }

    /// Answer to [`Event::MeasureHttps`]; none when it failed.
    pub fn handle_https_latency(&mut self, region: RegionId, latency: Option<Duration>, now: Instant) {
        self.netcheck.handle_https_latency(region, latency, now);
        self.drain_netcheck(now);
    }

    /// Starts a netcheck now (`debug restun`).
    pub fn restun(&mut self, now: Instant) {
        self.start_refresh(now);
    }

    /// One netcheck at a time; a request during one is kept for afterwards.
    pub(super) fn start_refresh(&mut self, now: Instant) {
        if !self.link_up || self.awaits_rebind {
            return;
        }
        if self.netcheck.is_running() {
            self.refresh.again = true;
            return;
        }
        self.netcheck.start(false, self.refresh.home, now);
        self.run_netcheck(now);
    }

    /// A peer became active: look at our endpoints from time to time.
    pub(super) fn schedule_refresh(&mut self, now: Instant) {
        if self.refresh.next_at.is_none() && !self.netcheck.is_running() {
            self.refresh.next_at = Some(now + self.random_interval());
        }
    }

    fn random_interval(&mut self) -> Duration {
        let (least, most) = STUN_INTERVAL;
        least + (most - least).mul_f64(f64::from(self.rng.next_u32()) / f64::from(u32::MAX))
    }

    pub(super) fn on_refresh_timer(&mut self, now: Instant) {
        if self.refresh.next_at.is_some_and(|at| at <= now) {
            self.refresh.next_at = None;
            if !self.active.is_empty() {
                self.start_refresh(now);
            }
        }
        if self.netcheck.poll_timeout().is_some_and(|at| at <= now) {
            self.run_netcheck(now);
        }
    }

    fn run_netcheck(&mut self, now: Instant) {
        self.netcheck.handle_timeout(&mut self.rng, now);
        self.drain_netcheck(now);
    }

    pub(super) fn drain_netcheck(&mut self, now: Instant) {
        while let Some(transmit) = self.netcheck.poll_transmit() {
            let (to, bytes) = (Destination::Udp(transmit.to), transmit.bytes.to_vec());
            self.transmits.push_back(Transmit { to, bytes });
        }
        while let Some(event) = self.netcheck.poll_event() {
            match event {
                NetcheckEvent::Resolve(host) => self.events.push_back(Event::ResolveHost(host)),
                NetcheckEvent::MeasureHttps(region) => self.events.push_back(Event::MeasureHttps(region)),
                NetcheckEvent::Done(report) => self.on_report(*report, now),
            }
        }
    }

    fn on_report(&mut self, report: Report, now: Instant) {
        tracing::debug!(
            udp = report.udp,
            mapping_varies = report.mapping_varies_by_dest,
            regions = report.region_latency.len(),
            "netcheck done"
        );
        self.own.note_report(&report, self.config.port_is_fixed, now);
        self.refresh.done_at = Some(now);
        self.choose_home(&report, now);
        self.publish_endpoints();
        self.publish_net_info(&report);
        self.refresh.report = Some(report);
        for id in std::mem::take(&mut self.refresh.pending_calls) {
            self.call(id, now);
        }
        if std::mem::take(&mut self.refresh.again) {
            self.start_refresh(now);
        }
        self.refresh.next_at = None;
        if !self.active.is_empty() {
            self.schedule_refresh(now);
        }
    }

    fn choose_home(&mut self, report: &Report, now: Instant) {
        let present = self.refresh.home;
        if present.is_some() && !self.refresh.control_connected {
            return;
        }
        let home = report.preferred_derp.or(present).or_else(|| self.blind_home());
        self.set_home(home, now);
    }

    fn possible_homes(&self) -> Vec<RegionId> {
        let usable = |region: &&Region| !region.avoid && !region.no_measure_no_home;
        self.netcheck.regions().iter().filter(usable).map(|region| region.id).collect()
    }

    fn blind_home(&self) -> Option<RegionId> {
        let homes = self.possible_homes();
        let count = u32::try_from(homes.len()).ok().filter(|&count| count > 0)?;
        homes.get(usize::try_from(self.refresh.blind_pick % count).ok()?).copied()
    }

    fn set_home(&mut self, home: Option<RegionId>, now: Instant) {
        if self.refresh.home == home {
            return;
        }
        tracing::info!(region = home.map(|home| home.0), "home region");
        self.refresh.home = home;
        self.relays.set_home(home);
        self.events.push_back(Event::HomeDerpChanged(home));
        self.keep_home_open(now);
    }

    /// The home connection is always kept: it is where peers reach us.
    pub(super) fn keep_home_open(&mut self, now: Instant) {
        if let Some(home) = self.refresh.home {
            self.use_relay(home, now);
        }
    }

    fn publish_endpoints(&mut self) {
        let endpoints = self.own.collect();
        if endpoints != self.refresh.endpoints {
            self.refresh.endpoints.clone_from(&endpoints);
            self.events.push_back(Event::EndpointsChanged(endpoints));
        }
    }

    fn publish_net_info(&mut self, report: &Report) {
        if self.netcheck.regions().is_empty() {
            return;
        }
        let info = NetInfo {
            mapping_varies_by_dest_ip: report.mapping_varies_by_dest,
            working_udp: Some(report.udp),
            have_port_map: false,
            preferred_derp: self.refresh.home,
            derp_latency_v4: report.region_v4_latency.clone(),
        };
        if self.refresh.net_info.as_ref().is_none_or(|old| info.differs_materially(old)) {
            self.refresh.net_info = Some(info.clone());
            self.events.push_back(Event::NetInfoChanged(info));
        }
    }
}
