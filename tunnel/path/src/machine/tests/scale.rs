//! Many peers: what an idle one costs, and that changes of one do not touch the others.

use super::*;

fn numbered(n: u32) -> PeerConfig {
    let mut raw = [0; 32];
    raw[..4].copy_from_slice(&n.to_le_bytes());
    raw[31] = 1;
    PeerConfig {
        node_key: NodePublic::from_bytes(raw),
        disco_key: Some(DiscoPublic::from_bytes(raw)),
        home: Some(RegionId(1)),
        endpoints: vec!["198.51.100.2:41641".parse().unwrap(); 4],
        expired: false,
    }
}

#[test]
fn a_hundred_thousand_idle_peers_are_small_and_silent() {
    let mut bench = Bench::new();
    for n in 0..100_000 {
        bench.machine.upsert_peer(numbered(n), bench.now);
        // One event each: the relay that leads there.
        assert!(matches!(bench.machine.poll_event(), Some(Event::PathChanged { .. })));
        assert_eq!(bench.machine.poll_event(), None);
    }
    assert_eq!(bench.machine.poll_timeout(), None);
    let paths = bench
        .machine
        .peers
        .ids()
        .into_iter()
        .filter(|id| bench.machine.peers.get(*id).unwrap().paths.is_some());
    assert_eq!(paths.count(), 0, "no path state without traffic");
    assert!(size_of::<peers::Peer>() <= 192, "{} bytes in the table", size_of::<peers::Peer>());
    // The same again changes nothing.
    for n in 0..1000 {
        bench.machine.upsert_peer(numbered(n), bench.now);
        assert_eq!(bench.machine.poll_event(), None);
    }
    for n in 0..100_000 {
        bench.machine.remove_peer(&numbered(n).node_key);
    }
    assert_eq!(bench.machine.peers.ids().len(), 0);
    // Their places are used again.
    bench.machine.upsert_peer(numbered(7), bench.now);
    assert_eq!(bench.machine.path(&numbered(7).node_key).derp, Some(RegionId(1)));
}

#[test]
fn timers_of_many_peers_run_in_bounded_portions() {
    let mut bench = Bench::new();
    for n in 0..1000 {
        bench.machine.upsert_peer(PeerConfig { disco_key: None, ..numbered(n) }, bench.now);
        bench.machine.note_sent(&numbered(n).node_key, bench.now, bench.now);
    }
    bench.drain();
    bench.events.clear();
    bench.now += Duration::from_secs(45);
    let mut calls = 0;
    while bench.machine.poll_timeout().is_some_and(|at| at <= bench.now) {
        bench.machine.handle_timeout(bench.now);
        let mut idle = 0;
        while let Some(event) = bench.machine.poll_event() {
            idle += usize::from(matches!(event, Event::PeerIdle(_)));
        }
        assert!(idle <= MAX_TIMERS_PER_CALL);
        calls += 1;
    }
    assert_eq!(calls, 4);
    assert_eq!(bench.machine.active_peers().count(), 0);
}
