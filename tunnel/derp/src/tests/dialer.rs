//! The map's fields in checked form, and the choice of nodes.

use std::time::{Duration, Instant};

use super::TestRng;
use crate::map::*;

fn node(name: &str) -> Node {
    Node::new(NodeFields { name, host_name: "derp.test", ..NodeFields::default() }).unwrap()
}

fn region(nodes: Vec<Node>) -> Region {
    Region { nodes, ..Region::default() }
}

fn chosen<'a>(dial: &Dial<'a>) -> (&'a str, Option<&'a str>) {
    match dial {
        Dial::Node { node, ideal_node } => (&node.name, *ideal_node),
        other @ (Dial::Wait(_) | Dial::Impossible) => panic!("{other:?}"),
    }
}

#[test]
fn fields_of_the_map_are_read_as_the_sheet_says() {
    let fields = NodeFields { name: "1a", host_name: "derp.test", ..NodeFields::default() };
    let plain = Node::new(fields).unwrap();
    assert_eq!((plain.port, plain.stun_port, plain.ipv4), (443, Some(3478), NodeAddress::Dns));
    assert_eq!(plain.http_host(), "derp.test");
    let odd = Node::new(NodeFields { derp_port: 8443, stun_port: -1, ipv4: "192.0.2.7", ..fields }).unwrap();
    assert_eq!((odd.port, odd.stun_port), (8443, None));
    assert_eq!(odd.literal_ip(), Some("192.0.2.7".parse().unwrap()));
    assert_eq!(odd.http_host(), "derp.test:8443");
    for useless in ["none", "2001:db8::1", "garbage"] {
        let node = Node::new(NodeFields { ipv4: useless, ..fields }).unwrap();
        assert_eq!((node.ipv4, node.is_dialable()), (NodeAddress::Disabled, false), "{useless}");
    }
    assert_eq!(Node::new(NodeFields { host_name: "", ..fields }), None);
    assert_eq!(Node::new(NodeFields { derp_port: 70_000, ..fields }), None);
    assert_eq!(Node::new(NodeFields { cert_name: "sha256-raw:zz", ..fields }), None);
}

#[test]
fn certificate_policy_is_never_weaker_than_the_map_says() {
    let pin = format!("sha256-raw:{}", "ab".repeat(32));
    let policy = |cert_name: &str, insecure| TlsPolicy::new(cert_name, "derp.test", insecure);
    assert_eq!(policy("", false), Some(TlsPolicy::Normal));
    assert_eq!(policy("", true), Some(TlsPolicy::InsecureForTests));
    assert_eq!(policy("other.test", false), Some(TlsPolicy::Name("other.test".to_owned())));
    assert_eq!(policy("other.test", true), Some(TlsPolicy::Name("other.test".to_owned())));
    assert_eq!(policy("derp.test", false), Some(TlsPolicy::Normal));
    assert_eq!(policy("derp.test", true), Some(TlsPolicy::InsecureForTests));
    for insecure in [false, true] {
        assert_eq!(policy(&pin, insecure), Some(TlsPolicy::Sha256Raw([0xab; 32])));
        for bad in
            ["sha256-raw:", "sha256-raw:ab", &pin[..pin.len() - 1], "sha256-raw:+a", &format!("{pin}00")]
        {
            assert_eq!(policy(bad, insecure), None, "{bad}");
        }
    }
}

#[test]
fn nodes_are_tried_in_order_and_a_failed_round_pauses() {
    let now = Instant::now();
    let mut rng = TestRng(1);
    let mut stun_only = node("stun");
    stun_only.stun_only = true;
    let region = region(vec![stun_only, node("a"), node("b")]);
    let mut dialer = RegionDialer::new();
    assert_eq!(chosen(&dialer.next(&region, now)), ("a", None));
    assert_eq!(chosen(&dialer.next(&region, now)), ("a", None), "asking does not move on");
    dialer.note_failed(&region, &mut rng, now);
    assert_eq!(chosen(&dialer.next(&region, now)), ("b", Some("a")));
    dialer.note_failed(&region, &mut rng, now);
    let Dial::Wait(at) = dialer.next(&region, now) else { panic!("no pause") };
    assert!(at > now && at <= now + Duration::from_millis(150));
    assert_eq!(chosen(&dialer.next(&region, at)), ("a", None));
    dialer.note_ready();
    assert_eq!(chosen(&dialer.next(&region, now)), ("a", None));
}

#[test]
fn pauses_grow_to_five_seconds_and_are_reset_by_success() {
    let mut now = Instant::now();
    let mut rng = TestRng(2);
    let region = region(vec![node("a")]);
    let mut dialer = RegionDialer::new();
    let mut longest = Duration::ZERO;
    for _ in 0..50 {
        dialer.note_failed(&region, &mut rng, now);
        let Dial::Wait(at) = dialer.next(&region, now) else { panic!("no pause") };
        longest = longest.max(at - now);
        assert!(at - now <= Duration::from_secs(5));
        now = at;
    }
    assert!(longest > Duration::from_secs(3));
    dialer.note_ready();
    dialer.note_lost(&mut rng, now);
    let Dial::Wait(at) = dialer.next(&region, now) else { panic!("no pause") };
    assert!(at - now <= Duration::from_millis(150));
}

#[test]
fn a_region_without_usable_nodes_is_impossible_and_a_shrunk_one_is_not() {
    let now = Instant::now();
    let mut rng = TestRng(3);
    let mut dialer = RegionDialer::new();
    assert_eq!(dialer.next(&region(vec![]), now), Dial::Impossible);
    let three = region(vec![node("a"), node("b"), node("c")]);
    dialer.note_failed(&three, &mut rng, now);
    dialer.note_failed(&three, &mut rng, now);
    assert_eq!(chosen(&dialer.next(&region(vec![node("a")]), now)), ("a", None));
}
