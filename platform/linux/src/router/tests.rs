use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::mpsc;

use ipnet::Ipv4Net;
use tsrs_platform_api::{NetfilterMode, RouterEvent, TunConfig, TunDevice, contract};

use super::*;
use crate::testing::{WAIT_LIMIT, isolated, isolated_with, run, sh, skip, veth};
use crate::tun;

/// Everything that a router can change, as text: sorted, without counters, and without the queue that an interface
/// gets when it is first set up.
fn system() -> String {
    let lines = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines.join("\n")
    };
    let parts = [
        lines(sh("ip -o addr show")),
        lines(sh("ip -o link show")).replace("qdisc noop ", "qdisc pfifo_fast "),
        sh("ip rule show"),
        sh("ip -6 rule show"),
        lines(sh("ip route show table all")),
        lines(sh("nft -s list ruleset")),
    ];
    parts.join("\n---\n")
}

struct Host {
    _device: TunDevice,
    _state: tempfile::TempDir,
    router: LinuxRouter,
    events: mpsc::Receiver<RouterEvent>,
}

impl Host {
    /// A host with 192.0.2.0/24 on-link and a router over a fresh TUN device.
    fn new(instance: Instance) -> Self {
        veth("eth0", "192.0.2.7/24");
        let device = tun::create(&TunConfig::new(instance.tun_name())).unwrap();
        let state = tempfile::tempdir().unwrap();
        let journal = Journal::open(state.path()).unwrap();
        let (sender, events) = mpsc::channel();
        let sink = EventSink::new(move |event| {
            if let tsrs_platform_api::PlatformEvent::Router(event) = event {
                let _ = sender.send(event);
            }
        });
        let router = LinuxRouter::new(instance, &device.name, device.index, journal, sink).unwrap();
        Self { _device: device, _state: state, router, events }
    }

    fn event(&self) -> RouterEvent {
        self.events.recv_timeout(WAIT_LIMIT).unwrap()
    }
}

#[test]
fn the_contract_of_routers_is_kept() {
    isolated(|| {
        let mut host = Host::new(Instance::ZERO);
        contract::router(&mut host.router, &system);
    });
}

#[test]
fn rules_table_and_addresses_are_those_that_tailscaled_documents() {
    isolated(|| {
        let mut host = Host::new(Instance::new(2).unwrap());
        host.router.apply(&contract::full_router_config()).unwrap();
        let rules: Vec<String> = sh("ip rule show").lines().map(|line| line.replace('\t', " ")).collect();
        assert_eq!(
            rules,
            [
                "0: from all lookup local",
                "5010: from all fwmark 0xa0000/0xff0000 lookup main proto 152",
                "5030: from all fwmark 0xa0000/0xff0000 lookup default proto 152",
                "5050: from all fwmark 0xa0000/0xff0000 unreachable proto 152",
                "5070: from all lookup 54 proto 152",
                "32766: from all lookup main",
                "32767: from all lookup default",
            ]
        );
        let mut routes: Vec<String> =
            sh("ip route show table 54").lines().map(|line| line.trim().to_owned()).collect();
        routes.sort();
        assert_eq!(
            routes,
            [
                "10.20.0.0/16 dev tailscale2 proto 152 scope link",
                "100.100.100.100 dev tailscale2 proto 152 scope link",
                "100.64.0.2 dev tailscale2 proto 152 scope link",
                "100.64.0.3 dev tailscale2 proto 152 scope link",
                "throw 10.20.30.0/24 proto 152",
            ]
        );
        assert_eq!(sh("ip -6 rule show"), "0:\tfrom all lookup local\n32766:\tfrom all lookup main\n");
    });
}

#[test]
fn another_address_keeps_the_routes() {
    isolated(|| {
        let mut host = Host::new(Instance::ZERO);
        let config = contract::full_router_config();
        host.router.apply(&config).unwrap();
        let routes = sh("ip route show table 52");
        let other = RouterConfig { addresses: vec![Ipv4Addr::new(100, 64, 0, 99)], ..config };
        host.router.apply(&other).unwrap();
        assert_eq!(sh("ip route show table 52"), routes);
        assert!(sh("ip -4 addr show dev tailscale0").contains("100.64.0.99/32"));
    });
}

#[test]
fn the_kernel_sends_marked_packets_around_the_tunnel_and_others_into_it() {
    isolated(|| {
        let mut host = Host::new(Instance::ZERO);
        host.router.apply(&contract::full_router_config()).unwrap();
        let way = |target: &str| sh(&format!("ip route get {target}"));
        assert!(way("100.64.0.2").contains("dev tailscale0"));
        assert!(way("10.20.1.1").contains("dev tailscale0"));
        assert!(way("192.0.2.9").contains("dev eth0"));
        assert!(way("192.0.2.9 mark 0x80000").contains("dev eth0"));
        for unreachable in ["100.64.0.2 mark 0x80000", "10.20.30.1", "10.20.1.1 mark 0x80000"] {
            let words = ["route", "get"].into_iter().chain(unreachable.split(' '));
            let output = std::process::Command::new("ip").args(words).output().unwrap();
            assert!(!output.status.success(), "{unreachable} must not be routed");
        }
    });
}

#[test]
fn ten_thousand_routes_and_a_small_change_among_them() {
    isolated(|| {
        let mut host = Host::new(Instance::ZERO);
        let mut config = contract::full_router_config();
        let peers: BTreeSet<Ipv4Net> =
            (0..10_000_u32).map(|n| Ipv4Net::from(Ipv4Addr::from(0x6441_0000 + n))).collect();
        config.routes.extend(&peers);
        let start = std::time::Instant::now();
        host.router.apply(&config).unwrap();
        println!("10 k routes and set elements: {:?}", start.elapsed());
        assert_eq!(sh("ip route show table 52").lines().count(), 10_005);
        // Our own burst is not taken for damage: the table is still the one that was made.
        let handle = || sh("nft -a list table ip tsrs-0").lines().next().map(str::to_owned).unwrap();
        let made = handle();
        assert!(made.contains("# handle "), "{made}");
        sh("ip rule del priority 5270");
        assert_eq!(host.event(), RouterEvent::Repaired { what: "rules" });
        assert_eq!(made, handle());
        config.routes.insert("100.99.0.1/32".parse().unwrap());
        let start = std::time::Instant::now();
        host.router.apply(&config).unwrap();
        println!("one more: {:?}", start.elapsed());
        assert_eq!(sh("ip route show table 52").lines().count(), 10_006);
        host.router.close().unwrap();
        assert_eq!(sh("ip route show table 52"), "");
    });
}

#[test]
fn a_removed_rule_route_address_or_table_is_put_back() {
    isolated(|| {
        let mut host = Host::new(Instance::ZERO);
        run(
            "nft",
            [
                "add table ip filter; add chain ip filter INPUT { type filter hook input priority 0; policy drop; }",
            ],
        );
        host.router.apply(&contract::full_router_config()).unwrap();
        let applied = system();
        for (damage, what) in [
            ("ip rule del priority 5270", "rules"),
            ("ip rule flush", "rules"),
            ("ip route del 100.64.0.2 table 52", "routes"),
            ("ip route flush table 52", "routes"),
            ("ip addr flush dev tailscale0", "interface"),
            ("ip link set tailscale0 down", "interface"),
            ("nft flush table ip tsrs-0", "firewall"),
            ("nft delete table ip tsrs-0", "firewall"),
            ("nft flush chain ip filter INPUT", "firewall"),
        ] {
            if damage == "ip rule flush" {
                sh(damage);
                // What the host had of its own is not ours to put back.
                sh("ip rule add priority 32766 lookup main");
                sh("ip rule add priority 32767 lookup default");
            } else {
                sh(damage);
            }
            assert_eq!(host.event(), RouterEvent::Repaired { what }, "{damage}");
            assert_eq!(applied, system(), "{damage}");
        }
    });
}

#[test]
fn a_program_that_keeps_removing_is_not_fought_forever() {
    isolated(|| {
        let mut host = Host::new(Instance::ZERO);
        host.router.apply(&contract::full_router_config()).unwrap();
        let mut repaired = 0;
        loop {
            sh("ip rule del priority 5270");
            match host.event() {
                RouterEvent::Repaired { .. } => repaired += 1,
                RouterEvent::Contested { what } => break assert_eq!(what, "rules"),
                RouterEvent::RepairFailed { error } => panic!("{error}"),
            }
        }
        assert!((10..=12).contains(&repaired), "{repaired}");
    });
}

#[test]
fn a_foreign_firewall_that_drops_by_policy_lets_the_tunnel_in_and_nothing_else() {
    isolated_with(&["iptables-nft"], || {
        let mut host = Host::new(Instance::ZERO);
        sh("iptables-nft -P INPUT DROP");
        sh("iptables-nft -P FORWARD DROP");
        let before = sh("nft -s list ruleset");
        let config = contract::full_router_config();
        host.router.apply(&RouterConfig { netfilter: NetfilterMode::NoDivert, ..config.clone() }).unwrap();
        assert!(!sh("nft list ruleset").contains("approved"));
        host.router.apply(&config).unwrap();
        assert_eq!(sh("nft list ruleset").matches("approved").count(), 2);
        assert_eq!(host.router.warnings(), Vec::<String>::new());
        host.router.close().unwrap();
        assert_eq!(before, sh("nft -s list ruleset"));
    });
}

#[test]
fn an_old_firewall_is_told_as_a_warning() {
    isolated_with(&["iptables-legacy"], || {
        let mut host = Host::new(Instance::ZERO);
        let set =
            std::process::Command::new("iptables-legacy").args(["-P", "INPUT", "DROP"]).output().unwrap();
        if !set.status.success() {
            return skip("the kernel has no iptables of the older kind");
        }
        host.router.apply(&contract::full_router_config()).unwrap();
        let warnings = host.router.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains("iptables-legacy"), "{warnings:?}");
    });
}

#[test]
fn forwarding_that_is_off_is_explained() {
    isolated(|| {
        let host = Host::new(Instance::ZERO);
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let error = host.router.check_forwarding().unwrap_err().to_string();
        assert!(error.contains("net.ipv4.ip_forward is 0") && error.contains("sysctl -w"), "{error}");
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        host.router.check_forwarding().unwrap();
    });
}

#[test]
fn a_vanished_device_is_an_error_and_close_still_works() {
    isolated(|| {
        let before = sh("ip rule show");
        let mut host = Host::new(Instance::ZERO);
        host.router.apply(&contract::full_router_config()).unwrap();
        sh("ip link del tailscale0");
        assert!(
            matches!(host.event(), RouterEvent::RepairFailed { error } if error.contains("tailscale0 is gone"))
        );
        host.router.close().unwrap();
        assert_eq!(before, sh("ip rule show"));
        assert_eq!(sh("ip route show table 52"), "");
        assert_eq!(sh("nft list ruleset"), "");
    });
}

#[test]
fn rules_of_the_same_effect_that_were_there_before_stay() {
    isolated(|| {
        sh("ip rule add priority 5270 lookup 52");
        let before = sh("ip rule show");
        let mut host = Host::new(Instance::ZERO);
        host.router.apply(&contract::full_router_config()).unwrap();
        assert_eq!(sh("ip rule show priority 5270").lines().count(), 2);
        host.router.close().unwrap();
        assert_eq!(before, sh("ip rule show"));
    });
}
