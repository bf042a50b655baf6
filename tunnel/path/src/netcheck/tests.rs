//! Reports against servers made of the STUN codec, with a virtual clock.

use std::net::{IpAddr, SocketAddr};

use std::time::{Duration, Instant};

use super::*;
use crate::stun;
use tsrs_lab_vectors::SeededRng as TestRng;

/// What the network does to a request.
type Network = fn(std::net::SocketAddrV4) -> Option<(u64, SocketAddr)>;

/// One report under a virtual clock; answers come after the network's milliseconds.
struct Bench {
    start: Instant,
    now: Instant,
    netcheck: Netcheck,
    rng: TestRng,
    network: Network,
    in_flight: Vec<(Instant, Vec<u8>)>,
    requests: usize,
    resolves: usize,
    https: Vec<RegionId>,
    https_works: bool,
}

fn literal(id: i64) -> Region {
    let ip = Ipv4Addr::new(192, 0, 2, u8::try_from(id).unwrap());
    Region {
        id: RegionId(id),
        avoid: false,
        no_measure_no_home: false,
        score: 1.0,
        nodes: vec![StunNode { host: StunHost::Literal(ip), stun_port: Some(3478) }],
    }
}

fn named(id: i64) -> Region {
    let mut region = literal(id);
    region.nodes[0].host = StunHost::Name(format!("{id}.stun.test"));
    region
}

/// Latency = last octet of the server × 10 ms; the same mapping everywhere.
fn easy(to: std::net::SocketAddrV4) -> Option<(u64, SocketAddr)> {
    Some((u64::from(to.ip().octets()[3]) * 10, "203.0.113.9:4000".parse().unwrap()))
}

/// Another port for each server.
fn hard(to: std::net::SocketAddrV4) -> Option<(u64, SocketAddr)> {
    let octet = to.ip().octets()[3];
    Some((u64::from(octet) * 10, format!("203.0.113.9:{}", 4000 + u16::from(octet)).parse().unwrap()))
}

fn blocked(_: std::net::SocketAddrV4) -> Option<(u64, SocketAddr)> {
    None
}

fn first_only(to: std::net::SocketAddrV4) -> Option<(u64, SocketAddr)> {
    easy(to).filter(|_| to.ip().octets()[3] == 1)
}

impl Bench {
    fn new(regions: Vec<Region>, network: Network) -> Self {
        let start = Instant::now();
        let mut netcheck = Netcheck::new();
        netcheck.set_regions(regions);
        Self {
            start,
            now: start,
            netcheck,
            rng: TestRng(3),
            network,
            in_flight: Vec::new(),
            requests: 0,
            resolves: 0,
            https: Vec::new(),
            https_works: true,
        }
    }

    /// Runs one report to its end.
    fn report(&mut self, home: Option<i64>) -> Report {
        self.netcheck.start(false, home.map(RegionId), self.now);
        self.netcheck.handle_timeout(&mut self.rng, self.now);
        loop {
            while let Some(transmit) = self.netcheck.poll_transmit() {
                self.requests += 1;
                let tx_id = stun::parse_request(&transmit.bytes).unwrap();
                if let Some((millis, mapped)) = (self.network)(transmit.to) {
                    let at = self.now + Duration::from_millis(millis);
                    self.in_flight.push((at, stun::response(tx_id, mapped)));
                }
            }
            let mut done = None;
            while let Some(event) = self.netcheck.poll_event() {
                match event {
                    NetcheckEvent::Done(report) => done = Some(*report),
                    NetcheckEvent::Resolve(name) => {
                        self.resolves += 1;
                        let octet = name.split('.').next().unwrap().parse().unwrap();
                        let addresses = [Ipv4Addr::new(192, 0, 2, octet)];
                        let addresses = if octet == 99 { &[] } else { &addresses[..] };
                        self.netcheck.handle_resolved(&name, addresses, self.now);
                        self.netcheck.handle_timeout(&mut self.rng, self.now);
                    }
                    NetcheckEvent::MeasureHttps(region) => {
                        self.https.push(region);
                        let latency = Duration::from_millis(u64::try_from(region.0).unwrap() * 20);
                        if self.https_works {
                            self.netcheck.handle_https_latency(region, Some(latency), self.now);
                        }
                    }
                }
            }
            if let Some(report) = done {
                assert_eq!(self.netcheck.poll_timeout(), None, "silent after the report");
                return report;
            }
            if !self.netcheck.transmits.is_empty() {
                continue;
            }
            self.in_flight.sort_by_key(|(at, _)| *at);
            let answer_at = self.in_flight.first().map(|(at, _)| *at);
            let timer_at = self.netcheck.poll_timeout().unwrap();
            if let Some(at) = answer_at.filter(|&at| at <= timer_at) {
                self.now = self.now.max(at);
                let (_, bytes) = self.in_flight.remove(0);
                self.netcheck.handle_stun(&bytes, self.now);
            } else {
                self.now = self.now.max(timer_at);
                self.netcheck.handle_timeout(&mut self.rng, self.now);
            }
        }
    }

    fn elapsed_millis(&self) -> u128 {
        (self.now - self.start).as_millis()
    }
}

#[test]
fn an_easy_nat_is_recognised_and_the_fastest_region_becomes_home() {
    let mut bench = Bench::new((1..=3).map(literal).collect(), easy);
    let report = bench.report(None);
    let address = "203.0.113.9:4000".parse().unwrap();
    assert!(report.udp && report.ipv4_can_send);
    assert_eq!(report.global_v4, Some(address));
    assert_eq!(report.mapping_varies_by_dest, Some(false));
    assert_eq!(report.global_v4_counts[&address], 3);
    assert_eq!(report.reflexive_endpoints().collect::<Vec<_>>(), [address]);
    assert_eq!(report.preferred_derp, Some(RegionId(1)));
    assert_eq!(report.region_latency[&RegionId(2)], Duration::from_millis(20));
    assert_eq!(report.region_latency, report.region_v4_latency);
    assert_eq!((bench.requests, bench.elapsed_millis()), (3, 30), "no retries, ends with the last answer");
}

#[test]
fn a_hard_nat_offers_only_the_first_address() {
    let report = Bench::new((1..=3).map(literal).collect(), hard).report(None);
    assert_eq!(report.mapping_varies_by_dest, Some(true));
    assert_eq!(report.reflexive_endpoints().collect::<Vec<_>>(), ["203.0.113.9:4001".parse().unwrap()]);
}

#[test]
fn one_answer_says_nothing_about_the_mapping() {
    let report = Bench::new(vec![literal(1)], easy).report(None);
    assert_eq!(report.mapping_varies_by_dest, None);
    // Not even two answers of one server: the second node of the region is the same server.
    let mut region = literal(1);
    region.nodes.push(region.nodes[0].clone());
    let report = Bench::new(vec![region], |to| easy(to).map(|(_, mapped)| (150, mapped))).report(None);
    assert_eq!(report.mapping_varies_by_dest, None);
    assert_eq!(report.reflexive_endpoints().count(), 1);
}

#[test]
fn regions_that_do_not_answer_hold_up_the_report_three_seconds_only() {
    let mut bench = Bench::new((1..=3).map(literal).collect(), first_only);
    let report = bench.report(None);
    assert_eq!((bench.requests, bench.elapsed_millis()), (1 + 3 + 3, 3000));
    assert_eq!(report.preferred_derp, Some(RegionId(1)));
    assert!(bench.https.is_empty());
}

#[test]
fn after_three_answers_the_slow_ones_get_twice_the_largest_latency() {
    let mut bench = Bench::new((1..=6).map(|id| literal(if id > 3 { id * 30 } else { id })).collect(), easy);
    bench.report(None);
    assert_eq!(bench.elapsed_millis(), 30 + 60);
}

#[test]
fn without_udp_latency_is_measured_by_https() {
    let mut bench = Bench::new((1..=3).map(literal).collect(), blocked);
    let report = bench.report(None);
    assert!(!report.udp && report.ipv4_can_send);
    assert_eq!(bench.https, [1, 2, 3].map(RegionId));
    assert_eq!(report.preferred_derp, Some(RegionId(1)));
    assert!(report.region_v4_latency.is_empty());
    assert_eq!(bench.elapsed_millis(), 3000);

    let mut bench = Bench::new((1..=3).map(literal).collect(), blocked);
    bench.https_works = false;
    let report = bench.report(Some(2));
    assert_eq!((report.preferred_derp, bench.elapsed_millis()), (None, 5000));

    let mut bench = Bench::new((1..=3).map(literal).collect(), easy);
    bench.netcheck.set_udp_allowed(false);
    let report = bench.report(None);
    assert_eq!((bench.requests, report.udp, report.preferred_derp), (0, false, Some(RegionId(1))));
}

#[test]
fn names_are_looked_up_once_and_kept() {
    let mut bench = Bench::new(vec![named(1), named(2), named(99)], easy);
    let report = bench.report(None);
    assert_eq!((bench.resolves, bench.requests), (3, 2));
    assert_eq!(report.preferred_derp, Some(RegionId(1)));
    assert_eq!(bench.elapsed_millis(), 20, "a name without addresses is not waited for");
    bench.report(Some(1));
    assert_eq!(bench.resolves, 3);
}

#[test]
fn reports_are_incremental_until_five_minutes_or_a_change() {
    let mut bench = Bench::new((1..=9).map(literal).collect(), easy);
    bench.report(None);
    let full = std::mem::take(&mut bench.requests);
    assert_eq!(full, 9);
    bench.now += Duration::from_secs(25);
    bench.report(Some(1));
    assert_eq!(std::mem::take(&mut bench.requests), 3);
    bench.now += Duration::from_secs(300);
    bench.report(Some(1));
    assert_eq!(std::mem::take(&mut bench.requests), 9);
    bench.netcheck.reset();
    bench.report(Some(1));
    assert_eq!(std::mem::take(&mut bench.requests), 9);
    // A report that found nothing is followed by a full one.
    bench.network = blocked;
    bench.https_works = false;
    bench.report(Some(1));
    bench.requests = 0;
    bench.network = easy;
    bench.report(Some(1));
    assert_eq!(bench.requests, 9);
}

#[test]
fn answers_that_were_not_asked_for_change_nothing() {
    let mut bench = Bench::new((1..=3).map(literal).collect(), blocked);
    let mapped = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(6, 6, 6, 6)), 6);
    let forged = stun::response(stun::TxId([9; 12]), mapped);
    assert!(!bench.netcheck.handle_stun(&forged, bench.now), "no report");
    bench.netcheck.start(false, None, bench.now);
    bench.netcheck.handle_timeout(&mut bench.rng, bench.now);
    assert!(!bench.netcheck.handle_stun(&forged, bench.now), "unknown transaction");
    let request = bench.netcheck.poll_transmit().unwrap();
    let tx_id = stun::parse_request(&request.bytes).unwrap();
    assert!(bench.netcheck.handle_stun(&stun::response(tx_id, "192.0.2.200:1".parse().unwrap()), bench.now));
    assert!(!bench.netcheck.handle_stun(&stun::response(tx_id, mapped), bench.now), "an answer counts once");
}

#[test]
fn failed_sends_are_known_not_to_have_left() {
    let mut bench = Bench::new(vec![literal(1)], blocked);
    bench.netcheck.start(false, None, bench.now);
    let mut sent = 0;
    let report = loop {
        bench.netcheck.handle_timeout(&mut bench.rng, bench.now);
        while let Some(transmit) = bench.netcheck.poll_transmit() {
            sent += 1;
            bench.netcheck.handle_send_error(transmit.to);
        }
        match bench.netcheck.poll_event() {
            Some(NetcheckEvent::Done(report)) => break report,
            Some(NetcheckEvent::MeasureHttps(region)) => {
                bench.netcheck.handle_https_latency(region, None, bench.now);
            }
            Some(NetcheckEvent::Resolve(_)) | None => {
                bench.now = bench.netcheck.poll_timeout().unwrap_or(bench.now)
            }
        }
    };
    assert_eq!((sent, report.ipv4_can_send), (3, false));
}

#[test]
fn a_map_without_regions_gives_an_empty_report_at_once() {
    let mut bench = Bench::new(vec![], easy);
    assert_eq!(bench.report(None), Report::default());
    assert_eq!(bench.elapsed_millis(), 0);
}
