//! Every input in every state, and long random walks: no panic, and what must always hold does.

use rand_core::RngCore;

use super::limits::*;
use super::*;
use crate::disco::relay::{AllocateRequest, AllocateResponse, Bind, RelayEndpoint};
use crate::stun;

const A: &str = "198.51.100.2:41641";

/// What holds between any two inputs.
fn check(bench: &mut Bench) {
    let machine = &bench.machine;
    for &(at, id) in &machine.timers {
        assert_eq!(
            machine.peers.get(id).unwrap().timer,
            Some(at),
            "a timer of a peer that is gone or has another"
        );
    }
    let armed =
        machine.peers.ids().into_iter().filter(|id| machine.peers.get(*id).unwrap().timer.is_some()).count();
    assert_eq!(armed, machine.timers.len());
    for id in machine.peers.ids() {
        let peer = machine.peers.get(id).unwrap();
        assert_eq!(machine.send_path(id, bench.now).direct, peer.published.direct, "unpublished path");
        assert_eq!(machine.send_path(id, bench.now).derp, peer.published.derp, "unpublished route");
        let Some(paths) = peer.paths.as_deref() else { continue };
        assert!(paths.candidates.len() <= MAX_CANDIDATES);
        assert!(!machine.active.contains(&id) || !peer.expired, "an expired peer is not active");
        assert_eq!(
            machine.active.contains(&id),
            paths.heartbeat_at.is_some(),
            "heartbeats and activity go together"
        );
        if let Some(best) = &paths.best {
            assert!(paths.candidates.iter().any(|candidate| candidate.address == best.address));
        }
    }
    let dark = !machine.link_up || !machine.udp_allowed;
    for transmit in bench.transmits.drain(..) {
        assert!(!dark || matches!(transmit.to, Destination::Derp { .. }), "UDP that must not be");
        assert!(machine.link_up, "sent without a link");
        assert!(transmit.bytes.len() <= MAX_PING_SIZE);
    }
    // Timers make progress: after a few calls nothing is due any more.
    for _ in 0..20 {
        if bench.machine.poll_timeout().is_none_or(|at| at > bench.now) {
            return;
        }
        bench.machine.handle_timeout(bench.now);
        bench.drain();
        bench.transmits.clear();
    }
    panic!("a timer that never ends");
}

const STATES: [fn() -> Bench; 10] = [
    || {
        let config = Config { node_key: node_key(1), disco_key: disco_private(1), port_is_fixed: true };
        let machine = PathMachine::new(config, TestRng(1));
        Bench { now: Instant::now() + Duration::from_secs(1000), machine, transmits: vec![], events: vec![] }
    },
    Bench::new,
    || {
        let mut bench = Bench::new();
        bench.machine.upsert_peer(peer(), bench.now);
        bench
    },
    || {
        let mut bench = STATES[2]();
        bench.send_data(2);
        bench
    },
    || {
        let mut bench = STATES[3]();
        let [(to, tx_id)] = bench.pinged(2)[..] else { panic!() };
        bench.pong(2, to, tx_id);
        bench
    },
    || {
        let mut bench = STATES[4]();
        bench.advance(TRUST);
        bench
    },
    || {
        let mut bench = STATES[4]();
        bench.machine.handle_link_change(LinkChange::Major, bench.now);
        bench
    },
    || {
        let mut bench = STATES[4]();
        bench.machine.handle_link_change(LinkChange::Down, bench.now);
        // What was queued before is of no interest.
        bench.drain();
        bench.transmits.clear();
        bench
    },
    || {
        let mut bench = STATES[3]();
        bench.machine.set_regions((1..=4).map(region).collect(), bench.now);
        bench.machine.restun(bench.now);
        bench
    },
    || {
        let mut bench = STATES[4]();
        bench.machine.set_udp_allowed(false, bench.now);
        bench.drain();
        bench.transmits.clear();
        bench
    },
];

fn peer() -> PeerConfig {
    PeerConfig { endpoints: vec![A.parse().unwrap()], ..peer_config(2) }
}

fn messages() -> Vec<Message> {
    let tx_id = TxId([9; 12]);
    let bind = || Bind { vni: 1, generation: 2, remote_key: disco_key(1), challenge: [3; 32] };
    let endpoint = RelayEndpoint { addresses: vec![A.parse().unwrap()], ..RelayEndpoint::default() };
    vec![
        Message::Ping { tx_id, node_key: Some(node_key(2)), padding_len: 0 },
        Message::Ping { tx_id, node_key: None, padding_len: 100 },
        Message::Pong { tx_id, source: A.parse().unwrap() },
        Message::CallMeMaybe { endpoints: vec![A.parse().unwrap(), "[2001:db8::1]:1".parse().unwrap()] },
        Message::CallMeMaybe { endpoints: vec!["0.0.0.0:0".parse().unwrap()] },
        Message::BindRelay(bind()),
        Message::BindRelayChallenge(bind()),
        Message::BindRelayAnswer(bind()),
        Message::CallMeMaybeVia(endpoint.clone()),
        Message::AllocateRelayRequest(AllocateRequest::default()),
        Message::AllocateRelayResponse(AllocateResponse { generation: 1, endpoint }),
    ]
}

type Input = Box<dyn Fn(&mut Bench)>;

fn inputs() -> Vec<Input> {
    let mut inputs: Vec<Input> = Vec::new();
    for message in messages() {
        for n in [2, 3] {
            for source in [Source::Udp(addr(A)), Source::Udp(addr("203.0.113.9:9")), by_derp(2), by_derp(9)] {
                let message = message.clone();
                inputs.push(Box::new(move |bench| bench.receive(n, source, &message)));
            }
        }
    }
    for bytes in
        [vec![], vec![0; 62], envelope::MAGIC.repeat(20), stun::request(stun::TxId([1; 12])).to_vec()]
    {
        for source in [Source::Udp(addr(A)), by_derp(2)] {
            let bytes = bytes.clone();
            inputs.push(Box::new(move |bench| bench.machine.handle_datagram(source, &bytes, bench.now)));
        }
    }
    for change in [LinkChange::Major, LinkChange::Minor, LinkChange::Down] {
        inputs.push(Box::new(move |bench| bench.machine.handle_link_change(change, bench.now)));
    }
    for change in [
        DerpChange::Connected,
        DerpChange::Lost,
        DerpChange::Received,
        DerpChange::PeerGone(node_key(2)),
        DerpChange::PeerGone(node_key(9)),
    ] {
        for region in [1, 2, 99] {
            inputs
                .push(Box::new(move |bench| bench.machine.handle_derp(RegionId(region), change, bench.now)));
        }
    }
    for error in [SendError::Unreachable, SendError::Socket] {
        for to in [A, "192.0.2.1:3478"] {
            inputs.push(Box::new(move |bench| bench.machine.handle_send_error(addr(to), error, bench.now)));
        }
    }
    for patch in [
        PeerPatch { disco_key: Some(DiscoPublic::default()), ..PeerPatch::default() },
        PeerPatch { disco_key: Some(disco_key(3)), ..PeerPatch::default() },
        PeerPatch { home: Some(RegionId(0)), ..PeerPatch::default() },
        PeerPatch { home: Some(RegionId(2)), ..PeerPatch::default() },
        PeerPatch { endpoints: Some(vec![]), ..PeerPatch::default() },
        PeerPatch { expired: Some(true), ..PeerPatch::default() },
        PeerPatch { expired: Some(false), ..PeerPatch::default() },
    ] {
        inputs.push(Box::new(move |bench| {
            bench.machine.patch_peer(&node_key(2), patch.clone(), bench.now);
        }));
    }
    for count in [0, 1, 4] {
        inputs.push(Box::new(move |bench| {
            bench.machine.set_regions((1..=count).map(region).collect(), bench.now)
        }));
    }
    for time in [0, 1, 5, 60, 86_400].map(Duration::from_secs) {
        inputs.push(Box::new(move |bench| bench.advance(time)));
        // A clock that jumps: the machine slept.
        inputs.push(Box::new(move |bench| {
            bench.now += time;
            bench.machine.handle_timeout(bench.now);
        }));
    }
    for n in [2, 3] {
        inputs.push(Box::new(move |bench| bench.send_data(n)));
        inputs.push(Box::new(move |bench| {
            let _ = bench.machine.ping(&node_key(n), 500, bench.now);
        }));
        inputs
            .push(Box::new(move |bench| bench.machine.note_derp_heard(&node_key(n), RegionId(2), bench.now)));
        inputs.push(Box::new(move |bench| bench.machine.remove_peer(&node_key(n))));
    }
    inputs.push(Box::new(|bench| bench.machine.upsert_peer(peer(), bench.now)));
    inputs.push(Box::new(|bench| {
        let shared = PeerConfig { node_key: node_key(3), ..peer_config(2) };
        bench.machine.upsert_peer(shared, bench.now);
    }));
    inputs.push(Box::new(|bench| bench.machine.set_local(&[Ipv4Addr::new(10, 0, 0, 9)], 7, bench.now)));
    inputs.push(Box::new(|bench| bench.machine.set_local(&[], 0, bench.now)));
    inputs.push(Box::new(|bench| bench.machine.set_static_endpoints(&[addr(A)])));
    inputs.push(Box::new(|bench| bench.machine.set_control_connected(false)));
    inputs.push(Box::new(|bench| bench.machine.set_disco_key(disco_private(1), bench.now)));
    inputs.push(Box::new(|bench| bench.machine.restun(bench.now)));
    for allowed in [false, true] {
        inputs.push(Box::new(move |bench| {
            bench.machine.set_udp_allowed(allowed, bench.now);
            // What was queued before is of no interest.
            bench.drain();
            bench.transmits.clear();
        }));
    }
    inputs.push(Box::new(|bench| bench.machine.handle_resolved("nobody.test", &[], bench.now)));
    inputs.push(Box::new(|bench| bench.machine.handle_https_latency(RegionId(1), None, bench.now)));
    inputs.push(Box::new(|bench| {
        // The right answer to whatever was pinged last.
        let newest =
            bench.machine.peers.id(&node_key(2)).and_then(|id| bench.machine.paths_mut(id)).and_then(
                |paths| {
                    let pings: Vec<_> = paths.take_pings().collect();
                    let newest = pings.last().cloned();
                    pings.into_iter().for_each(|ping| paths.note_ping_sent(ping));
                    newest
                },
            );
        if let Some(ping) = newest {
            bench.pong(2, addr(A), ping.tx_id);
        }
    }));
    inputs
}

#[test]
fn every_input_is_taken_in_every_state() {
    let inputs = inputs();
    assert!(inputs.len() > 130);
    for state in STATES {
        for input in &inputs {
            let mut bench = state();
            bench.drain();
            check(&mut bench);
            input(&mut bench);
            bench.drain();
            check(&mut bench);
            // Whatever happened, without traffic all falls silent.
            bench.events.clear();
            bench.advance(Duration::from_secs(600));
            check(&mut bench);
            assert_eq!(bench.machine.poll_timeout(), None, "no timer without traffic");
        }
    }
}

#[test]
fn random_walks_keep_what_must_hold() {
    let inputs = inputs();
    for seed in 0..60 {
        let mut rng = TestRng(seed);
        let mut pick =
            |count: usize| usize::try_from(rng.next_u64() % u64::try_from(count).unwrap()).unwrap();
        let mut bench = STATES[pick(STATES.len())]();
        bench.drain();
        bench.transmits.clear();
        for _ in 0..60 {
            inputs[pick(inputs.len())](&mut bench);
            bench.drain();
            check(&mut bench);
            bench.events.clear();
        }
    }
}
