//! Endpoints, network report, home region and DERP routes.

use super::limits::*;
use super::*;

fn homes(bench: &mut Bench) -> Vec<Option<i64>> {
    bench.drain();
    let homes = bench.events.drain(..).filter_map(|event| {
        if let Event::HomeDerpChanged(home) = event { Some(home.map(|home| home.0)) } else { None }
    });
    homes.collect()
}

/// A machine without regions.
fn fresh() -> Bench {
    let config = Config { node_key: node_key(1), disco_key: disco_private(1), port_is_fixed: false };
    let machine = PathMachine::new(config, TestRng(1));
    Bench { now: Instant::now() + Duration::from_secs(1000), machine, transmits: vec![], events: vec![] }
}

#[test]
fn a_machine_that_knows_nothing_is_silent() {
    let mut bench = fresh();
    assert_eq!(bench.machine.poll_timeout(), None);
    bench.machine.handle_timeout(bench.now);
    bench.drain();
    assert_eq!((bench.transmits.len(), bench.events.len()), (0, 0));
}

#[test]
fn local_endpoints_are_told_before_there_is_a_map() {
    let mut bench = fresh();
    bench.machine.set_local(&[Ipv4Addr::new(10, 0, 0, 1)], 41641, bench.now);
    bench.drain();
    let endpoint = Endpoint { address: addr("10.0.0.1:41641"), kind: EndpointKind::Local };
    assert_eq!(bench.events, [Event::EndpointsChanged(vec![endpoint])]);
    bench.machine.set_local(&[Ipv4Addr::new(10, 0, 0, 1)], 41641, bench.now);
    bench.drain();
    assert_eq!(bench.events.len(), 1, "no change, no event");
}

#[test]
fn the_only_region_is_home_without_a_measurement() {
    let mut bench = fresh();
    bench.machine.set_regions(vec![region(7)], bench.now);
    bench.drain();
    assert_eq!(bench.events, [Event::HomeDerpChanged(Some(RegionId(7))), Event::DerpConnect(RegionId(7))]);
}

#[test]
fn without_measurements_a_home_is_picked_once_and_kept() {
    let mut picks = BTreeSet::new();
    for seed in 0..20 {
        let mut bench = fresh();
        let config = Config { node_key: node_key(1), disco_key: disco_private(1), port_is_fixed: false };
        bench.machine = PathMachine::new(config, TestRng(seed));
        bench.machine.set_regions((1..=3).map(region).collect(), bench.now);
        let run = |bench: &mut Bench| {
            while let Some(at) = bench.machine.poll_timeout() {
                bench.now = at;
                bench.machine.handle_timeout(at);
                while let Some(event) = bench.machine.poll_event() {
                    if let Event::MeasureHttps(region) = event {
                        bench.machine.handle_https_latency(region, None, at);
                    }
                    bench.events.push(event);
                }
            }
        };
        run(&mut bench);
        let home = bench.machine.home_derp().unwrap();
        picks.insert(home);
        bench.machine.restun(bench.now);
        run(&mut bench);
        assert_eq!(bench.machine.home_derp(), Some(home));
    }
    assert_eq!(picks.len(), 3, "not the same one for all nodes");
}

#[test]
fn home_stays_while_control_cannot_be_told() {
    let mut bench = fresh();
    bench.machine.set_regions((1..=3).map(region).collect(), bench.now);
    let answer = |bench: &mut Bench, latencies: [u64; 3]| {
        let mut in_flight = Vec::new();
        bench.machine.restun(bench.now);
        while bench.machine.netcheck.is_running() {
            while let Some(transmit) = bench.machine.poll_transmit() {
                let Destination::Udp(to) = transmit.to else { panic!() };
                let latency = latencies[usize::from(to.ip().octets()[3]) - 1];
                let tx_id = crate::stun::parse_request(&transmit.bytes).unwrap();
                let bytes = crate::stun::response(tx_id, "203.0.113.1:4000".parse().unwrap());
                in_flight.push((bench.now + Duration::from_millis(latency), bytes));
            }
            in_flight.sort();
            if let Some(at) =
                bench.machine.poll_timeout().filter(|at| in_flight.first().is_none_or(|first| *at < first.0))
            {
                bench.now = bench.now.max(at);
                bench.machine.handle_timeout(bench.now);
            } else {
                let (at, bytes) = in_flight.remove(0);
                bench.now = bench.now.max(at);
                bench.machine.handle_datagram(Source::Udp(addr("192.0.2.1:3478")), &bytes, bench.now);
            }
        }
        homes(bench)
    };
    assert_eq!(answer(&mut bench, [50, 20, 90]), [Some(2)]);
    let report = bench.machine.report().unwrap();
    assert_eq!((report.udp, report.mapping_varies_by_dest), (true, Some(false)));
    let stun = Endpoint { address: addr("203.0.113.1:4000"), kind: EndpointKind::Stun };
    assert_eq!(bench.machine.endpoints(), [stun]);

    bench.machine.set_control_connected(false);
    // Let the history of fast answers from region 2 pass.
    bench.now += Duration::from_secs(400);
    assert_eq!(answer(&mut bench, [10, 200, 90]), []);
    bench.machine.set_control_connected(true);
    assert_eq!(answer(&mut bench, [10, 200, 90]), [Some(1)]);
    // A map without the home moves it, control or not.
    bench.machine.set_control_connected(false);
    bench.machine.set_regions(vec![region(3)], bench.now);
    bench.drain();
    let closed = bench.events.iter().filter(|event| matches!(event, Event::DerpClose(_))).count();
    assert_eq!(closed, 2, "both former homes");
    assert_eq!(homes(&mut bench), [None, Some(3)]);
}

#[test]
fn stun_repeats_while_active_only() {
    let mut bench = Bench::new();
    bench.machine.upsert_peer(peer_config(2), bench.now);
    bench.send_data(2);
    let start = bench.now;
    let mut rounds: Vec<Duration> = Vec::new();
    for second in 0..300 {
        if second < 100 {
            bench.send_data(2);
        }
        bench.advance(Duration::from_secs(1));
        let stun = bench.transmits.drain(..).filter(|transmit| transmit.bytes.len() == 40).count();
        if stun > 0 && rounds.last().is_none_or(|last| bench.now - start - *last > Duration::from_secs(5)) {
            rounds.push(bench.now - start);
        }
    }
    // Rounds of 20 to 26 s and 3 s of waiting for answers that never come, until 45 s after the last packet.
    assert!((5..=7).contains(&rounds.len()), "{rounds:?}");
    assert!(*rounds.last().unwrap() < Duration::from_secs(100 + 45 + 5));
    assert_eq!(bench.machine.poll_timeout(), None);
}

#[test]
fn peers_are_reached_over_an_open_connection_first() {
    let mut bench = Bench::new();
    bench.machine.set_regions((1..=3).map(region).collect(), bench.now);
    bench.finish_netcheck();
    assert_eq!(bench.machine.home_derp(), Some(RegionId(1)));
    bench.machine.upsert_peer(PeerConfig { home: Some(RegionId(2)), ..peer_config(2) }, bench.now);
    assert_eq!(bench.path(2).derp, Some(RegionId(2)));
    bench.drain();
    assert!(!bench.events.contains(&Event::DerpConnect(RegionId(2))), "not dialled without traffic");

    // It was heard over our home, which is open; its own is not.
    bench.machine.note_derp_heard(&node_key(2), RegionId(1), bench.now);
    assert_eq!(bench.path(2).derp, Some(RegionId(1)));
    bench.machine.handle_derp(RegionId(1), DerpChange::PeerGone(node_key(2)), bench.now);
    assert_eq!(bench.path(2).derp, Some(RegionId(2)));

    bench.send_data(2);
    assert!(bench.events.contains(&Event::DerpConnect(RegionId(2))));
    bench.machine.note_derp_heard(&node_key(2), RegionId(1), bench.now);
    assert_eq!(bench.path(2).derp, Some(RegionId(1)), "open beats dialling");
    bench.machine.handle_derp(RegionId(2), DerpChange::Connected, bench.now);
    assert_eq!(bench.path(2).derp, Some(RegionId(2)), "its home beats others");
    bench.machine.handle_derp(RegionId(2), DerpChange::Lost, bench.now);
    assert_eq!(bench.path(2).derp, Some(RegionId(1)));
    bench.machine.handle_derp(RegionId(1), DerpChange::Lost, bench.now);
    assert_eq!(bench.path(2).derp, Some(RegionId(2)));
}

#[test]
fn a_peer_without_a_home_is_answered_where_it_was_heard() {
    let mut bench = Bench::new();
    bench.machine.upsert_peer(PeerConfig { home: None, ..peer_config(2) }, bench.now);
    assert!(bench.path(2).is_none());
    bench.machine.note_derp_heard(&node_key(2), RegionId(1), bench.now);
    assert_eq!(bench.path(2).derp, Some(RegionId(1)));
    // Regions that are not in the map lead nowhere.
    bench.machine.upsert_peer(PeerConfig { home: Some(RegionId(99)), ..peer_config(3) }, bench.now);
    assert!(bench.path(3).is_none());
}

#[test]
fn a_foreign_connection_is_closed_when_it_is_not_used() {
    let mut bench = Bench::new();
    bench.machine.set_regions((1..=2).map(region).collect(), bench.now);
    bench.finish_netcheck();
    bench.machine.upsert_peer(PeerConfig { home: Some(RegionId(2)), ..peer_config(2) }, bench.now);
    let closed = |bench: &Bench| bench.events.contains(&Event::DerpClose(RegionId(2)));
    for _ in 0..50 {
        bench.send_data(2);
        bench.machine.handle_derp(RegionId(2), DerpChange::Connected, bench.now);
        bench.advance(Duration::from_secs(3));
        assert!(!closed(&bench), "in use");
    }
    let start = bench.now;
    while !closed(&bench) {
        bench.advance(Duration::from_secs(1));
    }
    let idle = bench.now - start;
    assert!(
        idle >= DERP_IDLE && idle <= SESSION_ACTIVE + DERP_IDLE + DERP_IDLE_CHECK + HEARTBEAT,
        "{idle:?}"
    );
    bench.advance(Duration::from_secs(300));
    assert_eq!(bench.machine.poll_timeout(), None);
    assert!(!bench.events.contains(&Event::DerpClose(RegionId(1))), "home is kept");
}

#[test]
fn net_info_is_told_when_it_changes_materially_only() {
    let mut bench = fresh();
    bench.machine.set_regions(vec![region(1)], bench.now);
    let infos = |bench: &mut Bench| {
        while let Some(at) = bench.machine.poll_timeout() {
            bench.now = at;
            bench.machine.handle_timeout(at);
            bench.drain();
        }
        bench.events.drain(..).filter(|event| matches!(event, Event::NetInfoChanged(_))).count()
    };
    bench.drain();
    assert_eq!(infos(&mut bench), 1);
    bench.machine.restun(bench.now);
    assert_eq!(infos(&mut bench), 0);
    bench.machine.restun(bench.now);
    while let Some(transmit) = bench.machine.poll_transmit() {
        let tx_id = crate::stun::parse_request(&transmit.bytes).unwrap();
        let answer = crate::stun::response(tx_id, "203.0.113.1:4000".parse().unwrap());
        bench.machine.handle_datagram(Source::Udp(addr("192.0.2.1:3478")), &answer, bench.now);
    }
    bench.drain();
    assert_eq!(infos(&mut bench), 1, "UDP works now");
}

#[test]
fn endpoints_from_before_the_map_are_not_fresh_enough_for_a_call() {
    let mut bench = fresh();
    bench.machine.set_local(&[Ipv4Addr::new(10, 0, 0, 1)], 41641, bench.now);
    bench.machine.set_regions(vec![region(1)], bench.now);
    bench.machine.upsert_peer(peer_config(2), bench.now);
    bench.send_data(2);
    let calls = |bench: &mut Bench| {
        bench.sent_to(2).iter().filter(|(_, message)| matches!(message, Message::CallMeMaybe { .. })).count()
    };
    assert_eq!(calls(&mut bench), 0);
    bench.advance(Duration::from_secs(4));
    assert_eq!(calls(&mut bench), 1);
}

#[test]
fn a_request_during_a_netcheck_is_kept_for_afterwards() {
    let mut bench = Bench::new();
    let rounds = |bench: &mut Bench| {
        bench.advance(Duration::from_secs(30));
        bench.transmits.drain(..).filter(|transmit| transmit.bytes.len() == 40).count() / 3
    };
    bench.machine.restun(bench.now);
    assert_eq!(rounds(&mut bench), 1);
    bench.machine.restun(bench.now);
    bench.machine.restun(bench.now);
    bench.machine.restun(bench.now);
    assert_eq!(rounds(&mut bench), 2, "one more, not one for each");
}

#[test]
fn a_lost_connection_is_a_reason_for_stun_and_ends_what_was_heard_over_it() {
    let mut bench = Bench::new();
    bench.machine.set_regions((1..=2).map(region).collect(), bench.now);
    bench.finish_netcheck();
    bench.machine.upsert_peer(PeerConfig { home: Some(RegionId(2)), ..peer_config(2) }, bench.now);
    bench.machine.note_derp_heard(&node_key(2), RegionId(1), bench.now);
    assert_eq!(bench.path(2).derp, Some(RegionId(1)));
    bench.machine.handle_derp(RegionId(1), DerpChange::Lost, bench.now);
    assert!(bench.machine.netcheck.is_running());
    bench.finish_netcheck();
    bench.machine.handle_derp(RegionId(1), DerpChange::Lost, bench.now);
    assert!(!bench.machine.netcheck.is_running(), "a further failed try is none");
    bench.machine.handle_derp(RegionId(1), DerpChange::Connected, bench.now);
    assert_eq!(bench.path(2).derp, Some(RegionId(2)), "it was not heard over the new connection");
}

#[test]
fn data_by_relay_opens_the_connection_and_keeps_it() {
    let mut bench = Bench::new();
    bench.machine.set_regions((1..=2).map(region).collect(), bench.now);
    bench.finish_netcheck();
    // No disco: nothing but data goes there.
    let silent = PeerConfig { home: Some(RegionId(2)), disco_key: None, ..peer_config(2) };
    bench.machine.upsert_peer(silent, bench.now);
    bench.send_data(2);
    assert!(bench.events.contains(&Event::DerpConnect(RegionId(2))));
    for _ in 0..100 {
        bench.send_data(2);
        bench.advance(Duration::from_secs(2));
    }
    assert!(!bench.events.contains(&Event::DerpClose(RegionId(2))));
    bench.advance(Duration::from_secs(300));
    assert!(bench.events.contains(&Event::DerpClose(RegionId(2))));
    assert!(bench.events.contains(&Event::PeerIdle(node_key(2))));
    assert_eq!(bench.machine.poll_timeout(), None);
}
