use std::collections::BTreeSet;
use std::path::Path;

use ipnet::{IpNet, Ipv4Net};

use super::*;
use crate::advertise::NeverReason;
use crate::fake::{FakeDns, FakeRouter};
use crate::link::Change;

fn v4(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn judge(prefix: &str, on_link: &[&str]) -> std::result::Result<Ipv4Net, Refusal> {
    let on_link: Vec<Ipv4Net> = on_link.iter().map(|text| v4(text)).collect();
    advertisable(prefix.parse().unwrap(), &on_link)
}

#[test]
fn instance_numbers_are_those_of_the_table() {
    let rows: Vec<_> = Instance::all()
        .map(|n| {
            let p = n.priorities();
            let m = n.marks();
            (
                n.table(),
                [p.bypass_main, p.bypass_default, p.bypass_unreachable, p.tunnel],
                [m.bypass, m.forward, m.exit],
                n.tun_name(),
                n.nft_table(),
            )
        })
        .collect();
    let row =
        |table, priorities, marks, tun: &str, nft: &str| (table, priorities, marks, tun.into(), nft.into());
    assert_eq!(
        rows,
        [
            row(52, [5210, 5230, 5250, 5270], [0x8_0000, 0x4_0000, 0x10_0000], "tailscale0", "tsrs-0"),
            row(53, [5110, 5130, 5150, 5170], [0x9_0000, 0x5_0000, 0x11_0000], "tailscale1", "tsrs-1"),
            row(54, [5010, 5030, 5050, 5070], [0xa_0000, 0x6_0000, 0x12_0000], "tailscale2", "tsrs-2"),
            row(55, [4910, 4930, 4950, 4970], [0xb_0000, 0x7_0000, 0x13_0000], "tailscale3", "tsrs-3"),
        ]
    );
}

#[test]
fn marks_of_all_instances_are_distinct_and_below_the_mask() {
    let marks: Vec<u32> =
        Instance::all().map(Instance::marks).flat_map(|m| [m.bypass, m.forward, m.exit]).collect();
    assert!(marks.iter().all(|mark| mark & !Marks::MASK == 0 && *mark != 0));
    assert_eq!(marks.iter().collect::<BTreeSet<_>>().len(), marks.len());
}

#[test]
fn paths_of_further_instances_end_in_their_number() {
    let one = Instance::new(1).unwrap();
    assert_eq!(Instance::ZERO.state_dir(), Path::new("/var/lib/tsrs-agent"));
    assert_eq!(one.state_dir(), Path::new("/var/lib/tsrs-agent-1"));
    assert_eq!(Instance::ZERO.socket(), Path::new("/run/tsrs-agent/tailscaled.sock"));
    assert_eq!(one.socket(), Path::new("/run/tsrs-agent-1/tailscaled.sock"));
    assert_eq!(one.official_socket(), None);
}

#[test]
fn only_four_instances_exist() {
    assert!(Instance::new(4).is_err());
    assert!("4".parse::<Instance>().is_err());
    assert!("-1".parse::<Instance>().is_err());
    assert!("".parse::<Instance>().is_err());
    assert!(serde_json::from_str::<Instance>("7").is_err());
    assert_eq!("3".parse::<Instance>().unwrap().number(), 3);
    assert_eq!(serde_json::to_string(&Instance::new(2).unwrap()).unwrap(), "2");
}

#[test]
fn private_prefixes_may_be_advertised() {
    for prefix in ["10.0.0.0/8", "10.1.2.0/24", "172.16.0.0/12", "172.31.255.255/32", "192.168.0.0/16"] {
        assert_eq!(judge(prefix, &[]), Ok(v4(prefix)));
    }
}

#[test]
fn public_prefixes_are_refused_however_small_or_large() {
    for prefix in [
        "0.0.0.0/1",
        "128.0.0.0/1",
        "8.0.0.0/8",
        "8.8.8.8/32",
        "172.0.0.0/8",
        "172.0.0.0/11",
        "192.0.0.0/8",
        "8.0.0.0/7",
        "11.0.0.0/8",
        "96.0.0.0/3",
        "192.168.0.0/15",
    ] {
        assert_eq!(judge(prefix, &[]), Err(Refusal::GloballyRoutable(v4(prefix))), "{prefix}");
    }
}

#[test]
fn on_link_prefixes_may_be_advertised_whole_or_in_part() {
    assert_eq!(judge("203.0.113.0/24", &["203.0.113.7/24"]), Ok(v4("203.0.113.0/24")));
    assert_eq!(judge("203.0.113.64/26", &["203.0.113.7/24"]), Ok(v4("203.0.113.64/26")));
    assert_eq!(
        judge("203.0.112.0/23", &["203.0.113.7/24"]),
        Err(Refusal::GloballyRoutable(v4("203.0.112.0/23")))
    );
}

#[test]
fn an_interface_that_claims_the_internet_is_not_believed() {
    assert!(judge("8.8.8.0/24", &["0.0.0.0/0"]).is_err());
    assert!(judge("8.8.8.0/24", &["0.0.0.0/1"]).is_err());
    assert!(judge("8.8.8.0/24", &["8.0.0.0/7"]).is_err());
}

#[test]
fn ranges_of_nobody_are_refused_even_on_link() {
    for (prefix, reason) in [
        ("127.0.0.0/8", NeverReason::Loopback),
        ("127.0.0.1/32", NeverReason::Loopback),
        ("169.254.0.0/16", NeverReason::LinkLocal),
        ("100.64.0.0/10", NeverReason::Tailnet),
        ("100.100.100.100/32", NeverReason::Tailnet),
        ("224.0.0.0/24", NeverReason::Multicast),
        ("255.255.255.255/32", NeverReason::Reserved),
        ("0.0.0.0/8", NeverReason::ThisNetwork),
    ] {
        assert_eq!(judge(prefix, &[prefix]), Err(Refusal::Never(v4(prefix), reason)), "{prefix}");
    }
    assert_eq!(
        judge("100.0.0.0/9", &["100.0.0.0/8"]),
        Err(Refusal::Never(v4("100.0.0.0/9"), NeverReason::Tailnet))
    );
}

#[test]
fn default_routes_host_bits_and_ipv6_are_refused_with_their_own_reason() {
    assert!(matches!(judge("0.0.0.0/0", &[]), Err(Refusal::DefaultRoute(_))));
    assert!(matches!(judge("::/0", &[]), Err(Refusal::DefaultRoute(_))));
    assert!(matches!(judge("fd00::/8", &[]), Err(Refusal::Ipv6(_))));
    assert_eq!(judge("10.0.0.1/8", &[]), Err(Refusal::HostBits(v4("10.0.0.1/8"), v4("10.0.0.0/8"))));
}

#[test]
fn every_address_of_every_allowed_prefix_is_private() {
    // Every prefix length at the edges of the private ranges: allowed exactly when all of its addresses are private.
    let edges =
        [0x0a00_0000_u32, 0x0aff_ffff, 0xac10_0000, 0xac1f_ffff, 0xc0a8_0000, 0xc0a8_ffff, 0x0b00_0000];
    for edge in edges {
        for len in 1..=32 {
            let prefix = Ipv4Net::new_assert(edge.into(), len).trunc();
            let private = prefix.network().is_private()
                && prefix.broadcast().is_private()
                && len >= if prefix.network().octets()[0] == 10 { 8 } else { 12 };
            assert_eq!(advertisable(IpNet::V4(prefix), &[]).is_ok(), private, "{prefix}");
        }
    }
}

#[test]
fn domains_that_would_inject_directives_are_refused() {
    for bad in ["", ".", "a b", "a\nnameserver 8.8.8.8", "a..b", "é.test", "#x", "a/b", &"a".repeat(64)] {
        assert_eq!(MatchDomain::new(bad), None, "{bad:?}");
    }
    assert_eq!(MatchDomain::new("Tail-Net.TS.net.").unwrap().as_str(), "tail-net.ts.net");
    assert_eq!(MatchDomain::new("_x.test").unwrap().as_str(), "_x.test");
}

fn state(uplink: &str, address: &str) -> LinkState {
    LinkState {
        interfaces: vec![
            Interface {
                index: 1,
                name: "lo".into(),
                up: true,
                loopback: true,
                addresses: vec!["127.0.0.1/8".parse().unwrap()],
            },
            Interface {
                index: 2,
                name: "eth0".into(),
                up: true,
                loopback: false,
                addresses: vec![address.parse().unwrap()],
            },
            Interface {
                index: 3,
                name: "eth1".into(),
                up: true,
                loopback: false,
                addresses: vec!["10.9.0.1/24".parse().unwrap()],
            },
        ],
        default_route: Some(DefaultRoute { index: 2, interface: uplink.into(), gateway: None }),
    }
}

#[test]
fn a_change_of_the_uplink_is_major_and_of_another_link_minor() {
    let before = state("eth0", "192.0.2.7/24");
    assert_eq!(before.change_since(&before), None);
    assert_eq!(state("eth0", "192.0.2.8/24").change_since(&before), Some(Change::Major));
    let mut down = before.clone();
    down.default_route = None;
    assert_eq!(down.change_since(&before), Some(Change::Major));
    let mut other = before.clone();
    other.interfaces[2].addresses.clear();
    assert_eq!(other.change_since(&before), Some(Change::Minor));
    let mut v6 = before.clone();
    v6.interfaces[1].addresses.push("fd00::1/64".parse().unwrap());
    assert_eq!(v6.change_since(&before), Some(Change::Minor));
}

#[test]
fn endpoint_candidates_leave_out_loopback_link_local_and_dead_links() {
    let mut links = state("eth0", "192.0.2.7/24");
    links.interfaces[2].up = false;
    links.interfaces[1].addresses.push("169.254.1.1/16".parse().unwrap());
    assert_eq!(links.local_addresses().collect::<Vec<_>>(), ["192.0.2.7".parse::<Ipv4Addr>().unwrap()]);
    assert!(links.any_up());
    links.interfaces[1].up = false;
    assert!(!links.any_up());
}

#[test]
fn fakes_keep_the_contract() {
    let mut router = FakeRouter::on_link(&[v4("192.0.2.0/24")]);
    let seen = router.clone();
    let system = move || match seen.applied() {
        Some(config) if config == RouterConfig::default() => "None".into(),
        applied => format!("{applied:?}"),
    };
    contract::router(&mut router, &system);
    let mut dns = FakeDns::default();
    let seen = dns.clone();
    contract::dns(&mut dns, &move || format!("{:?}", seen.applied()), false);
}

#[test]
fn errors_tell_what_why_and_what_helps() {
    let error = PlatformError::refused("create TUN device x", "no such file").with_next("run modprobe tun");
    assert_eq!(error.to_string(), "create TUN device x: no such file (run modprobe tun)");
}

#[test]
fn without_a_firewall_no_subnet_is_advertised_but_the_rest_works() {
    let config = RouterConfig { netfilter: NetfilterMode::Off, ..contract::full_router_config() };
    let (admitted, refused) = config.admissible(&[v4("192.0.2.0/24")]);
    assert!(refused.unwrap_err().to_string().contains("--netfilter-mode"));
    assert!(admitted.advertised.is_empty());
    assert_eq!(admitted.routes, config.routes);
}

#[test]
fn what_is_admissible_is_unchanged() {
    let config = contract::full_router_config();
    let (admitted, refused) = config.admissible(&[v4("192.0.2.0/24")]);
    assert!(refused.is_ok());
    assert_eq!(admitted, config);
    assert!(config.admissible(&[]).1.is_err(), "192.0.2.0/24 is only on-link");
}
