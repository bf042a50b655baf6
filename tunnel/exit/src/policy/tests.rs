use super::ranges::RANGES;
use super::*;

const PEER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 9);

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn at(text: &str, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(ip(text), port)
}

fn rule(peers: &str, destinations: &str, ports: std::ops::RangeInclusive<u16>) -> Rule {
    Rule { peers: peers.parse().unwrap(), destinations: destinations.parse().unwrap(), ports }
}

fn policy(config: PolicyConfig) -> Policy {
    Policy::new(config).unwrap()
}

fn plain() -> Policy {
    policy(PolicyConfig::default())
}

#[test]
fn classes_change_exactly_at_these_addresses() {
    // Each line is the first address of a stretch of one class, up to the next line. Written down from the registry by hand, so that
    // the table is not compared with itself.
    let stretches = [
        ("0.0.0.0", Class::ThisNetwork),
        ("1.0.0.0", Class::Global),
        ("10.0.0.0", Class::Private),
        ("11.0.0.0", Class::Global),
        ("100.64.0.0", Class::Shared),
        ("100.128.0.0", Class::Global),
        ("127.0.0.0", Class::Loopback),
        ("128.0.0.0", Class::Global),
        ("168.63.129.16", Class::Metadata),
        ("168.63.129.17", Class::Global),
        ("169.254.0.0", Class::LinkLocal),
        ("169.254.169.254", Class::Metadata),
        ("169.254.169.255", Class::LinkLocal),
        ("169.255.0.0", Class::Global),
        ("172.16.0.0", Class::Private),
        ("172.32.0.0", Class::Global),
        ("192.0.0.0", Class::ProtocolAssignments),
        ("192.0.1.0", Class::Global),
        ("192.0.2.0", Class::Documentation),
        ("192.0.3.0", Class::Global),
        ("192.88.99.0", Class::RelayAnycast),
        ("192.88.100.0", Class::Global),
        ("192.168.0.0", Class::Private),
        ("192.169.0.0", Class::Global),
        ("198.18.0.0", Class::Benchmarking),
        ("198.20.0.0", Class::Global),
        ("198.51.100.0", Class::Documentation),
        ("198.51.101.0", Class::Global),
        ("203.0.113.0", Class::Documentation),
        ("203.0.114.0", Class::Global),
        ("224.0.0.0", Class::Multicast),
        ("240.0.0.0", Class::Reserved),
        ("255.255.255.255", Class::Broadcast),
    ];
    for (index, (first, class)) in stretches.iter().enumerate() {
        let first = ip(first).to_bits();
        let last = stretches.get(index + 1).map_or(u32::MAX, |(next, _)| ip(next).to_bits() - 1);
        for address in [first, last, first + (last - first) / 2] {
            assert_eq!(classify(Ipv4Addr::from_bits(address)), *class, "{}", Ipv4Addr::from_bits(address));
        }
        if let Some((_, next)) = stretches.get(index + 1) {
            assert_ne!(class, next);
        }
    }
    // A range of the table that made no stretch of its own would hide behind another.
    for (range, class) in RANGES {
        assert_eq!(classify(range.network()), *class, "{range} is hidden");
        assert_ne!(*class, Class::Global);
    }
}

#[test]
fn only_global_addresses_reach_a_proxy() {
    for (range, class) in RANGES {
        for address in [range.network(), range.broadcast()] {
            let verdict = plain().judge(PEER, SocketAddrV4::new(address, 443));
            let Verdict::Refused(Refusal::Class(found)) = verdict else { panic!("{address}: {verdict:?}") };
            assert!(found == *class || range.contains(&address), "{address}");
        }
    }
    let Verdict::Proxy(destination) = plain().judge(PEER, at("11.0.0.1", 443)) else { panic!() };
    assert_eq!(destination.address(), at("11.0.0.1", 443));
    assert_eq!(plain().judge(PEER, at("11.0.0.1", 0)), Verdict::Refused(Refusal::PortZero));
}

#[test]
fn addresses_of_this_host_and_of_proxies_are_refused_on_every_port() {
    let policy = policy(PolicyConfig {
        own_addresses: [ip("11.0.0.7"), ip("192.168.1.7")].into(),
        proxies: [ip("11.0.0.8"), ip("127.0.0.1")].into(),
        tailnet: vec!["11.9.0.0/16".parse().unwrap()],
        ..PolicyConfig::default()
    });
    for port in [0, 1, 80, 1080, u16::MAX] {
        for (address, refusal) in [
            ("11.0.0.7", Refusal::Own),
            ("192.168.1.7", Refusal::Own),
            ("11.0.0.8", Refusal::Proxy),
            ("127.0.0.1", Refusal::Proxy),
            ("11.9.0.0", Refusal::Class(Class::Shared)),
            ("11.9.255.255", Refusal::Class(Class::Shared)),
        ] {
            assert_eq!(policy.judge(PEER, at(address, port)), Verdict::Refused(refusal), "{address}");
        }
    }
    for open in ["11.0.0.6", "11.0.0.9", "11.8.255.255", "11.10.0.0"] {
        assert!(matches!(policy.judge(PEER, at(open, 80)), Verdict::Proxy(_)), "{open}");
    }
}

#[test]
fn a_subnet_route_takes_private_destinations_and_nothing_else() {
    let subnets = ["10.1.0.0/16", "0.0.0.0/1", "128.0.0.0/1", "11.0.0.0/8", "100.64.0.0/10", "224.0.0.0/4"]
        .map(|subnet| subnet.parse().unwrap());
    let narrow = policy(PolicyConfig { subnets: vec![subnets[0]], ..PolicyConfig::default() });
    for (address, verdict) in [
        ("10.0.255.255", Verdict::Refused(Refusal::Class(Class::Private))),
        ("10.1.0.0", Verdict::Subnet),
        ("10.1.255.255", Verdict::Subnet),
        ("10.2.0.0", Verdict::Refused(Refusal::Class(Class::Private))),
    ] {
        assert_eq!(narrow.judge(PEER, at(address, 80)), verdict, "{address}");
    }
    let wide = policy(PolicyConfig { subnets: subnets.to_vec(), ..PolicyConfig::default() });
    for global in ["11.0.0.1", "1.1.1.1", "223.255.255.255", "128.0.0.0"] {
        assert!(matches!(wide.judge(PEER, at(global, 80)), Verdict::Proxy(_)), "{global}");
    }
    for never in ["100.64.0.1", "127.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0", "192.0.2.1"] {
        assert!(matches!(wide.judge(PEER, at(never, 80)), Verdict::Refused(Refusal::Class(_))), "{never}");
    }
}

#[test]
fn rules_match_by_peer_prefix_and_port_and_deny_wins() {
    let policy = policy(PolicyConfig {
        allow: vec![
            rule("100.64.0.0/24", "0.0.0.0/0", 80..=443),
            rule("0.0.0.0/0", "11.2.0.0/16", 0..=u16::MAX),
        ],
        deny: vec![rule("100.64.0.9/32", "11.1.0.0/16", 443..=443)],
        ..PolicyConfig::default()
    });
    let other = ip("100.64.0.10");
    let stranger = ip("100.64.1.0");
    for (peer, destination, expected) in [
        (PEER, at("11.0.0.1", 79), Some(Refusal::NotAllowed)),
        (PEER, at("11.0.0.1", 80), None),
        (PEER, at("11.0.0.1", 443), None),
        (PEER, at("11.0.0.1", 444), Some(Refusal::NotAllowed)),
        (PEER, at("11.1.0.0", 443), Some(Refusal::Denied)),
        (PEER, at("11.1.255.255", 443), Some(Refusal::Denied)),
        (PEER, at("11.0.255.255", 443), None),
        (PEER, at("11.1.0.0", 442), None),
        (other, at("11.1.0.0", 443), None),
        (stranger, at("11.1.0.0", 80), Some(Refusal::NotAllowed)),
        (stranger, at("11.2.0.0", 9), None),
        (stranger, at("11.2.255.255", u16::MAX), None),
        (stranger, at("11.3.0.0", 9), Some(Refusal::NotAllowed)),
    ] {
        let refused = match policy.judge(peer, destination) {
            Verdict::Refused(refusal) => Some(refusal),
            Verdict::Proxy(_) => None,
            Verdict::Subnet => panic!("{destination}"),
        };
        assert_eq!(refused, expected, "{peer} {destination}");
    }
}

#[test]
fn a_rule_cannot_open_what_the_class_closes() {
    let policy = policy(PolicyConfig {
        allow: vec![rule("0.0.0.0/0", "0.0.0.0/0", 0..=u16::MAX)],
        own_addresses: [ip("11.0.0.7")].into(),
        ..PolicyConfig::default()
    });
    for closed in ["10.0.0.1", "127.0.0.1", "100.100.100.100", "11.0.0.7"] {
        assert!(matches!(policy.judge(PEER, at(closed, 80)), Verdict::Refused(_)), "{closed}");
    }
}

#[test]
fn lists_are_bounded() {
    let rules = vec![rule("0.0.0.0/0", "11.0.0.0/8", 1..=1); MAX_RULE_COUNT + 1];
    let error = Policy::new(PolicyConfig { deny: rules.clone(), ..PolicyConfig::default() }).unwrap_err();
    assert!(error.to_string().contains("257"), "{error}");
    assert!(Policy::new(PolicyConfig { allow: rules, ..PolicyConfig::default() }).is_err());
}
