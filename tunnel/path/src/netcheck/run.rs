//! The netcheck machine: one report at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use rand_core::CryptoRngCore;
use tsrs_base_types::RegionId;

use super::home::{self, Facts, HISTORY};
use super::plan::{self, Known, Probe};
use super::{Region, Report, StunHost};
use crate::stun::{self, TxId};

/// Limit of a whole report.
const REPORT_LIMIT: Duration = Duration::from_secs(5);
/// Limit of its STUN part.
const STUN_LIMIT: Duration = Duration::from_secs(3);
/// A full report at least this often, as long as any is made.
const FULL_INTERVAL: Duration = Duration::from_secs(300);
/// After this many regions have answered, only a little more time is given to the others.
const ENOUGH_REGIONS: usize = 3;
/// Looked-up names are used again this long.
const RESOLVED_LIFE: Duration = Duration::from_secs(600);

/// Remembered reports: one each 20 s for [`HISTORY`], and room for those that users ask for.
const MAX_HISTORY: usize = 32;

/// A STUN request to send on the socket that carries WireGuard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetcheckTransmit {
    /// Where to.
    pub to: SocketAddrV4,
    /// The datagram.
    pub bytes: [u8; stun::REQUEST_LEN],
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
    udp_allowed: bool,
    resolved: HashMap<String, (Instant, Option<Ipv4Addr>)>,
    history: Vec<(Instant, BTreeMap<RegionId, Duration>)>,
    last_full: Option<Instant>,
    /// When anything was last received from the relay of a region.
    heard: BTreeMap<RegionId, Instant>,
    run: Option<Run>,
    pub(super) transmits: VecDeque<NetcheckTransmit>,
    events: VecDeque<NetcheckEvent>,
}

/// A report under way.
#[derive(Debug)]
struct Run {
    started: Instant,
    full: bool,
    home: Option<RegionId>,
    /// Not yet sent, in the order of time.
    probes: VecDeque<Probe>,
    /// Due, but the name of the server is not known yet.
    unresolved: Vec<Probe>,
    /// Sent and not answered.
    sent: HashMap<TxId, Sent>,
    /// All regions of this report.
    regions: Vec<RegionId>,
    servers_answered: BTreeSet<SocketAddrV4>,
    sends: (usize, usize),
    /// Enough is known: the STUN part ends then.
    stop_at: Option<Instant>,
    /// Regions whose HTTPS latency is awaited, once the STUN part has ended without an answer.
    https: Option<BTreeSet<RegionId>>,
    report: Report,
}

#[derive(Debug)]
struct Sent {
    region: RegionId,
    server: SocketAddrV4,
    at: Instant,
}

impl Netcheck {
    /// A machine that has no regions yet.
    pub fn new() -> Self {
        Self {
            regions: Vec::new(),
            udp_allowed: true,
            resolved: HashMap::new(),
            history: Vec::new(),
            last_full: None,
            heard: BTreeMap::new(),
            run: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Replaces the regions. A report under way goes on with those that it began with.
    pub fn set_regions(&mut self, regions: Vec<Region>) {
        self.regions = regions;
        self.heard.retain(|id, _| self.regions.iter().any(|region| region.id == *id));
        let names: BTreeSet<&str> =
            self.regions.iter().flat_map(|region| &region.nodes).filter_map(name_of).collect();
        self.resolved.retain(|name, _| names.contains(name.as_str()));
    }

    /// The regions.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Without UDP, latencies are measured by HTTPS only.
    pub fn set_udp_allowed(&mut self, allowed: bool) {
        self.udp_allowed = allowed;
    }

    /// The network changed: what was measured holds no longer, and a report under way is given up.
    pub fn reset(&mut self) {
        self.run = None;
        self.history.clear();
        self.last_full = None;
        self.resolved.clear();
        self.transmits.clear();
        self.events.clear();
    }

    /// Something was received from the relay of this region.
    pub fn note_heard(&mut self, region: RegionId, now: Instant) {
        if self.regions.iter().any(|known| known.id == region) {
            self.heard.insert(region, now);
        }
    }

    /// Whether a report is under way.
    pub fn is_running(&self) -> bool {
        self.run.is_some()
    }

    /// Starts a report; does nothing while one is under way. It is a full one if `full` says so, if the last full one is
    /// five minutes old, or if the last one found nothing. Follow with [`Self::handle_timeout`].
    pub fn start(&mut self, full: bool, home: Option<RegionId>, now: Instant) {
        if self.run.is_some() {
            return;
        }
        self.history.retain(|(at, _)| now.saturating_duration_since(*at) < HISTORY);
        let last = self.history.last().map(|(_, latency)| latency).filter(|latency| !latency.is_empty());
        let full_is_recent =
            self.last_full.is_some_and(|at| now.saturating_duration_since(at) < FULL_INTERVAL);
        let known = last.filter(|_| !full && full_is_recent).map(|latency| Known { latency, home });
        let regions = plan::chosen_regions(&self.regions, known).iter().map(|region| region.id).collect();
        let probes = if self.udp_allowed { plan::probes(&self.regions, known, now) } else { Vec::new() };
        self.run = Some(Run {
            started: now,
            full: known.is_none(),
            home,
            probes: probes.into(),
            unresolved: Vec::new(),
            sent: HashMap::new(),
            regions,
            servers_answered: BTreeSet::new(),
            sends: (0, 0),
            stop_at: None,
            https: None,
            report: Report::default(),
        });
    }

    /// A STUN answer from the socket. Returns whether it belonged to a request of this report.
    pub fn handle_stun(&mut self, datagram: &[u8], now: Instant) -> bool {
        let (Some(run), Some(response)) = (&mut self.run, stun::parse_response(datagram)) else {
            return false;
        };
        let Some(sent) = run.sent.remove(&response.tx_id) else { return false };
        let SocketAddr::V4(mapped) = response.mapped else { return false };
        run.note_answer(&sent, mapped, now);
        self.advance(now);
        true
    }

    /// A request to this server could not be sent.
    pub fn handle_send_error(&mut self, to: SocketAddrV4) {
        if let Some(run) = &mut self.run {
            let before = run.sent.len();
            run.sent.retain(|_, sent| sent.server != to);
            run.sends.1 += before - run.sent.len();
            run.report.ipv4_can_send = run.sends.0 > run.sends.1;
        }
    }

    /// Addresses of a name that was asked for; empty when it has none.
    pub fn handle_resolved(&mut self, host: &str, addresses: &[Ipv4Addr], now: Instant) {
        if self.regions.iter().flat_map(|region| &region.nodes).any(|node| name_of(node) == Some(host)) {
            self.resolved.insert(host.to_owned(), (now, addresses.first().copied()));
        }
        if let Some(run) = &mut self.run {
            if addresses.is_empty() {
                run.probes.retain(|probe| name_of(&probe.node) != Some(host));
                run.unresolved.retain(|probe| name_of(&probe.node) != Some(host));
            }
            // They are due now; handle_timeout sends them.
            let (due, still): (Vec<_>, Vec<_>) =
                run.unresolved.drain(..).partition(|probe| name_of(&probe.node) == Some(host));
            run.unresolved = still;
            due.into_iter().rev().for_each(|probe| run.probes.push_front(Probe { at: now, ..probe }));
        }
    }

    /// Result of a measurement that was asked for; none when it failed.
    pub fn handle_https_latency(&mut self, region: RegionId, latency: Option<Duration>, now: Instant) {
        if let Some(run) = &mut self.run
            && run.https.as_mut().is_some_and(|waiting| waiting.remove(&region))
            && let Some(latency) = latency
        {
            run.report.region_latency.insert(region, latency);
        }
        self.advance(now);
    }

    /// Time has come.
    pub fn handle_timeout(&mut self, rng: &mut impl CryptoRngCore, now: Instant) {
        self.send_due(rng, now);
        self.advance(now);
    }

    /// When [`Self::handle_timeout`] is wanted; none when no report is under way.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let run = self.run.as_ref()?;
        let limit = run.started + if run.https.is_some() { REPORT_LIMIT } else { STUN_LIMIT };
        let next = run.probes.front().map(|probe| probe.at);
        [next, run.stop_at, Some(limit)].into_iter().flatten().min()
    }

    /// The next datagram.
    pub fn poll_transmit(&mut self) -> Option<NetcheckTransmit> {
        self.transmits.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<NetcheckEvent> {
        self.events.pop_front()
    }

    fn send_due(&mut self, rng: &mut impl CryptoRngCore, now: Instant) {
        let Some(run) = &mut self.run else { return };
        while let Some(probe) = run.probes.pop_front_if(|probe| probe.at <= now) {
            // One answer per region is enough.
            if run.report.region_latency.contains_key(&probe.region) {
                continue;
            }
            let ip = match &probe.node.host {
                StunHost::Literal(ip) => Some(*ip),
                StunHost::Unreachable => None,
                StunHost::Name(name) => {
                    let fresh = |at: &Instant| now.saturating_duration_since(*at) < RESOLVED_LIFE;
                    match self.resolved.get(name).filter(|(at, _)| fresh(at)) {
                        Some((_, ip)) => *ip,
                        None => {
                            if !run.unresolved.iter().any(|other| name_of(&other.node) == Some(name)) {
                                self.events.push_back(NetcheckEvent::Resolve(name.clone()));
                            }
                            run.unresolved.push(probe);
                            continue;
                        }
                    }
                }
            };
            let (Some(ip), Some(port)) = (ip, probe.node.stun_port) else { continue };
            let mut tx_id = TxId([0; 12]);
            rng.fill_bytes(&mut tx_id.0);
            let server = SocketAddrV4::new(ip, port);
            run.sent.insert(tx_id, Sent { region: probe.region, server, at: now });
            run.sends.0 += 1;
            run.report.ipv4_can_send = true;
            self.transmits.push_back(NetcheckTransmit { to: server, bytes: stun::request(tx_id) });
        }
    }

    /// Ends the STUN part, or the report, when it is time.
    fn advance(&mut self, now: Instant) {
        let Some(run) = &mut self.run else { return };
        if run.https.is_none() {
            if !run.stun_is_over(now) {
                return;
            }
            run.probes.clear();
            run.unresolved.clear();
            run.sent.clear();
            run.stop_at = None;
            let regions: BTreeSet<RegionId> = match run.report.udp {
                true => BTreeSet::new(),
                false => run.regions.iter().copied().collect(),
            };
            self.events.extend(regions.iter().map(|&region| NetcheckEvent::MeasureHttps(region)));
            run.https = Some(regions);
        }
        let waiting = run.https.as_ref().is_some_and(|waiting| !waiting.is_empty());
        if !waiting || now >= run.started + REPORT_LIMIT {
            self.finish(now);
        }
    }

    fn finish(&mut self, now: Instant) {
        let Some(mut run) = self.run.take() else { return };
        if self.history.len() == MAX_HISTORY {
            self.history.remove(0);
        }
        self.history.push((now, run.report.region_latency.clone()));
        if run.full {
            self.last_full = Some(run.started);
        }
        let facts = Facts {
            regions: &self.regions,
            history: &self.history,
            current: &run.report.region_latency,
            old: run.home,
            old_heard: run.home.and_then(|home| self.heard.get(&home).copied()),
            started: run.started,
        };
        run.report.preferred_derp = home::choose(facts, now);
        self.events.push_back(NetcheckEvent::Done(Box::new(run.report)));
    }
}

impl Default for Netcheck {
    fn default() -> Self {
        Self::new()
    }
}

impl Run {
    fn note_answer(&mut self, sent: &Sent, mapped: SocketAddrV4, now: Instant) {
        let latency = now.saturating_duration_since(sent.at);
        let report = &mut self.report;
        report.udp = true;
        for latencies in [&mut report.region_latency, &mut report.region_v4_latency] {
            let best = latencies.entry(sent.region).or_insert(latency);
            *best = latency.min(*best);
        }
        // A second answer of the same server says nothing about how the mapping depends on the server.
        if self.servers_answered.insert(sent.server) {
            *report.global_v4_counts.entry(mapped).or_default() += 1;
            match report.global_v4 {
                None => report.global_v4 = Some(mapped),
                Some(first) if first != mapped => report.mapping_varies_by_dest = Some(true),
                Some(_) => report.mapping_varies_by_dest = report.mapping_varies_by_dest.or(Some(false)),
            }
        }
        if self.stop_at.is_none() && report.region_latency.len() >= ENOUGH_REGIONS {
            let largest = report.region_latency.values().max().copied().unwrap_or_default();
            self.stop_at = Some(now + if self.full { largest * 2 } else { largest });
        }
    }

    fn stun_is_over(&self, now: Instant) -> bool {
        let open = |region: &RegionId| {
            !self.report.region_latency.contains_key(region)
                && (self.probes.iter().any(|probe| probe.region == *region)
                    || self.unresolved.iter().any(|probe| probe.region == *region)
                    || self.sent.values().any(|sent| sent.region == *region))
        };
        now >= self.started + STUN_LIMIT
            || self.stop_at.is_some_and(|at| now >= at)
            || !self.regions.iter().any(open)
    }
}

fn name_of(node: &super::StunNode) -> Option<&str> {
    match &node.host {
        StunHost::Name(name) => Some(name),
        StunHost::Literal(_) | StunHost::Unreachable => None,
    }
}
