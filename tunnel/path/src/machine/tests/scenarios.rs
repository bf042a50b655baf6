//! Whole stories in the simulated internet.

use rand_core::RngCore;

use super::limits::*;
use super::sim::*;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn every_pair_of_shapes_becomes_direct_where_it_can_and_relays_where_it_cannot() {
    for a in SHAPES {
        for b in SHAPES {
            let mut world = World::new(&[a, b], 3, 1);
            world.start_both(0, 1);
            world.run(SECOND * 20);
            let expected = can_connect(a, b);
            assert_eq!((world.is_direct(0, 1), world.is_direct(1, 0)), (expected, expected), "{a:?} {b:?}");
            for host in [0, 1] {
                let (sent, by_udp, by_relay) = world.counts(host, SECOND * 5);
                let arrived = if expected { by_udp } else { by_relay };
                assert!(arrived + 5 >= sent, "{a:?} {b:?}: {arrived} of {sent}");
                assert_eq!(if expected { by_relay } else { by_udp }, 0, "only one way is used");
            }
            let first = world.packets.iter().filter(|packet| packet.from == 0).take(20);
            let arrived = first.filter(|packet| packet.by_udp.or(packet.by_relay).is_some()).count();
            assert_eq!(arrived, 20, "{a:?} {b:?}: the first packets arrive too");
        }
    }
}

#[test]
fn a_direct_path_is_found_soon_after_the_first_packet() {
    let mut world = World::new(&[Shape::EasyByPort, Shape::EasyByPort], 3, 2);
    world.start_both(0, 1);
    world.run(Duration::from_millis(1500));
    assert!(world.is_direct(0, 1) && world.is_direct(1, 0));
}

#[test]
fn one_way_traffic_stays_direct() {
    for (a, b) in [(Shape::EasyByPort, Shape::EasyByPort), (Shape::EasyByAddress, Shape::Hard)] {
        let mut world = World::new(&[a, b], 3, 3);
        world.start_flow(0, 1);
        world.run(SECOND * 30);
        for _ in 0..300 {
            world.run(SECOND);
            assert!(world.is_direct(0, 1), "{a:?} {b:?}");
        }
        assert_eq!(world.counts(0, SECOND * 300).2, 0);
    }
}

#[test]
fn hosts_behind_the_same_router_use_their_private_addresses() {
    for (a, b) in [(Shape::EasyByPort, Shape::EasyByPort), (Shape::Hard, Shape::Hard)] {
        let mut world = World::new(&[a, b], 3, 4);
        world.share_lan(0, 1);
        world.run(SECOND * 10);
        world.start_both(0, 1);
        world.run(SECOND * 15);
        assert_eq!(world.path(0, 1).direct, Some(addr("10.0.1.2:41641")));
        assert_eq!(world.path(1, 0).direct, Some(addr("10.0.1.1:41641")));
    }
}

#[test]
fn a_flow_survives_the_death_of_udp_and_becomes_direct_again() {
    let mut world = World::new(&[Shape::EasyByPort, Shape::EasyByPort], 3, 5);
    world.start_both(0, 1);
    world.run(SECOND * 20);
    assert!(world.is_direct(0, 1));

    world.hosts[1].udp_blocked = true;
    world.run(SECOND * 30);
    for host in [0, 1] {
        let gap = world.longest_gap(host, SECOND * 30);
        assert!(gap <= TRUST + Duration::from_millis(300), "host {host} was cut off for {gap:?}");
        let (sent, _, by_relay) = world.counts(host, SECOND * 15);
        assert!(by_relay + 5 >= sent, "{by_relay} of {sent}");
    }
    assert_eq!((world.path(0, 1).direct, world.path(1, 0).direct), (None, None));

    // The router has given the host a new port meanwhile: the next STUN finds it.
    world.hosts[1].udp_blocked = false;
    world.run(STUN_INTERVAL.1 + SECOND * 10);
    assert!(world.is_direct(0, 1) && world.is_direct(1, 0));
    assert!(world.longest_gap(0, SECOND * 30) < SECOND, "no interruption on the way back");
}

#[test]
fn where_udp_is_blocked_the_relay_carries_everything() {
    let mut world = World::new(&[Shape::EasyByPort, Shape::EasyByPort], 3, 6);
    for host in &mut world.hosts {
        host.udp_blocked = true;
    }
    world.run(SECOND * 60);
    world.start_both(0, 1);
    world.run(SECOND * 60);
    for host in [0, 1] {
        let (sent, by_udp, by_relay) = world.counts(host, SECOND * 55);
        assert!(by_relay + 5 >= sent && by_udp == 0);
    }
    assert!(!world.hosts[0].machine.report().unwrap().udp);
    assert!(world.hosts[0].machine.home_derp().is_some(), "chosen by HTTPS latency");
}

#[test]
fn a_host_that_roams_is_found_again() {
    for to in SHAPES {
        let mut world = World::new(&[Shape::EasyByPort, Shape::EasyByAddress], 3, 7);
        world.start_both(0, 1);
        world.run(SECOND * 20);
        world.roam(1, to);
        world.run(SECOND * 30);
        let expected = can_connect(Shape::EasyByPort, to);
        assert_eq!((world.is_direct(0, 1), world.is_direct(1, 0)), (expected, expected), "to {to:?}");
        // The other side notices by its heartbeats; the roaming one knows at once.
        let (theirs, ours) = (world.longest_gap(0, SECOND * 30), world.longest_gap(1, SECOND * 30));
        assert!(theirs <= TRUST + SECOND && ours <= SECOND * 2, "{theirs:?} {ours:?}");
    }
}

#[test]
fn a_relay_that_goes_down_and_comes_back_is_used_again() {
    let mut world = World::new(&[Shape::Hard, Shape::Hard], 1, 8);
    world.start_both(0, 1);
    world.run(SECOND * 10);
    world.stop_relay(1);
    world.run(SECOND * 20);
    assert_eq!(world.counts(0, SECOND * 15).2, 0);
    world.relays_down.clear();
    world.run(SECOND * 10);
    let (sent, _, by_relay) = world.counts(0, SECOND * 5);
    assert!(by_relay + 5 >= sent);
}

#[test]
fn a_direct_flow_does_not_need_the_relay() {
    let mut world = World::new(&[Shape::EasyByPort, Shape::EasyByPort], 1, 9);
    world.start_both(0, 1);
    world.run(SECOND * 10);
    world.stop_relay(1);
    world.run(SECOND * 120);
    assert!(world.is_direct(0, 1) && world.is_direct(1, 0));
    assert!(world.longest_gap(0, SECOND * 120) < SECOND);
}

#[test]
fn loss_does_not_make_a_path_flap() {
    let mut world = World::new(&[Shape::EasyByPort, Shape::EasyByPort], 3, 10);
    world.start_both(0, 1);
    world.run(SECOND * 20);
    world.loss_percent = 10;
    world.run(SECOND * 300);
    let (sent, by_udp, by_relay) = world.counts(0, SECOND * 300);
    assert!(
        by_udp * 100 >= sent * 85 && by_relay * 100 <= sent * 15,
        "{sent} sent, {by_udp} by UDP, {by_relay} by relay"
    );
}

#[test]
fn after_the_last_packet_all_fall_silent() {
    let mut world = World::new(&SHAPES, 3, 11);
    for a in 0..SHAPES.len() {
        for b in (0..SHAPES.len()).filter(|&b| b != a) {
            world.start_flow(a, b);
        }
    }
    world.run(SECOND * 30);
    world.stop_flows();
    world.run(SESSION_ACTIVE + DERP_IDLE + DERP_IDLE_CHECK + SECOND * 20);
    let before: Vec<usize> = world.hosts.iter().map(|host| host.sent_datagrams).collect();
    assert!(world.hosts.iter().all(|host| host.machine.poll_timeout().is_none()), "no timer is left");
    world.run(SECOND * 3600);
    let after: Vec<usize> = world.hosts.iter().map(|host| host.sent_datagrams).collect();
    assert_eq!(before, after);
    // And all wake up again.
    world.start_both(0, 2);
    world.run(SECOND * 10);
    assert!(world.is_direct(0, 2) && world.is_direct(2, 0));
}

#[test]
fn random_stories_end_well() {
    for seed in 0..25 {
        let mut rng = TestRng(seed);
        let mut pick =
            |count: usize| usize::try_from(rng.next_u64() % u64::try_from(count).unwrap()).unwrap();
        let shapes = [SHAPES[pick(4)], SHAPES[pick(4)], SHAPES[pick(4)]];
        let mut world = World::new(&shapes, 3, seed);
        world.udp_millis = 1 + u64::try_from(pick(80)).unwrap();
        let pairs = [(0, 1), (1, 2), (2, 0)];
        for (a, b) in pairs {
            world.start_both(a, b);
        }
        for _ in 0..12 {
            let host = pick(3);
            match pick(7) {
                0 => world.hosts[host].udp_blocked ^= true,
                1 => world.roam(host, SHAPES[pick(4)]),
                2 => world.stop_relay(i64::try_from(1 + pick(3)).unwrap()),
                3 => world.relays_down.clear(),
                4 => world.loss_percent = u32::try_from(pick(30)).unwrap(),
                5 => world.hosts[host].tcp_blocked ^= true,
                _ => world.stop_flows(),
            }
            world.run(SECOND * u32::try_from(1 + pick(20)).unwrap());
            for (a, b) in pairs {
                world.start_both(a, b);
            }
        }
        // All faults end; after a while every pair is as it should be.
        world.relays_down.clear();
        world.loss_percent = 0;
        for host in &mut world.hosts {
            (host.udp_blocked, host.tcp_blocked) = (false, false);
        }
        world.run(SECOND * 60);
        for (a, b) in pairs {
            let expected = can_connect(world.hosts[a].shape, world.hosts[b].shape);
            let shapes = (world.hosts[a].shape, world.hosts[b].shape);
            assert_eq!(world.is_direct(a, b), expected, "seed {seed}: {a} to {b}, {shapes:?}");
            assert_eq!(world.is_direct(b, a), expected, "seed {seed}: {b} to {a}, {shapes:?}");
        }
        for host in 0..3 {
            let gap = world.longest_gap(host, SECOND * 20);
            assert!(gap < SECOND, "seed {seed}: host {host} was cut off for {gap:?}");
        }
    }
}
