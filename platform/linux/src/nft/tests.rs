use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use tsrs_platform_api::{Instance, NetfilterMode, RouterConfig};

use super::abi::{comment, comment_userdata};
use super::foreign::tag;
use super::*;
use crate::netlink::{Message, Subscription};
use crate::testing::{isolated, isolated_with, run, sh};

fn nets(texts: &[&str]) -> BTreeSet<Ipv4Net> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn config() -> RouterConfig {
    RouterConfig {
        routes: nets(&["100.64.0.2/32", "100.64.0.4/32", "100.64.0.5/32", "100.70.0.0/16", "10.20.0.0/16"]),
        advertised: nets(&["192.168.7.0/24", "203.0.113.0/24"]),
        netfilter: NetfilterMode::On,
        udp_port: Some(41641),
        ..RouterConfig::default()
    }
}

fn wanted() -> Wanted {
    Wanted::new("tailscale0", &config())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Body and type of each message in the encoder's output.
fn lines(messages: &[Message]) -> Vec<(u8, String)> {
    messages
        .iter()
        .map(|message| {
            let mut bytes = Vec::new();
            message.write(1, &mut bytes).unwrap();
            (bytes[4], hex(message.body()))
        })
        .collect()
}

#[test]
fn rules_and_chains_are_byte_for_byte_those_of_nft() {
    let stateful = Wanted::new("tailscale0", &RouterConfig { stateful: true, ..config() });
    let ours = lines(&stateful.create(Instance::ZERO));
    let of_kind = |kind: u8| -> BTreeSet<&str> {
        ours.iter().filter(|(of, _)| *of == kind).map(|(_, text)| text.as_str()).collect()
    };
    let captured = include_str!("testdata/nft-1.0.6-rules.txt");
    let with_word = |word: &str| -> BTreeSet<&str> {
        captured.lines().filter_map(|line| line.strip_prefix(word)).map(str::trim).collect()
    };
    assert_eq!(with_word("rule").len(), 17);
    let same = |kind: u8, word: &str| {
        let (ours, theirs) = (of_kind(kind), with_word(word));
        let only_ours: Vec<_> = ours.difference(&theirs).collect();
        let only_theirs: Vec<_> = theirs.difference(&ours).collect();
        assert!(
            only_ours.is_empty() && only_theirs.is_empty(),
            "ours {only_ours:#?}, nft's {only_theirs:#?}"
        );
    };
    same(abi::kind::NEW_RULE, "rule");
    assert_eq!(with_word("chain").len(), 7);
    same(abi::kind::NEW_CHAIN, "chain");
}

#[test]
fn a_change_of_peers_costs_what_changed() {
    let before = wanted();
    let mut after_config = config();
    after_config.routes.extend(nets(&["100.64.9.9/32"]));
    after_config.routes.remove(&"100.64.0.2/32".parse().unwrap());
    let after = Wanted::new("tailscale0", &after_config);
    assert_eq!(before.shape, after.shape);
    let messages = lines(&after.update(&before.elements, Instance::ZERO));
    let kinds: Vec<u8> = messages.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [abi::kind::DEL_ELEMENT, abi::kind::NEW_ELEMENT]);
    assert!(lines(&before.update(&before.elements, Instance::ZERO)).is_empty());
}

#[test]
fn comments_survive_their_encoding() {
    assert_eq!(comment(&comment_userdata("why")).as_deref(), Some("why"));
    assert_eq!(comment(&[7, 1, 0, 0, 4, b'a', b'b', b'c', 0]).as_deref(), Some("abc"));
    let data = comment_userdata("why");
    for len in 0..data.len() {
        assert_eq!(comment(&data[..len]), None);
    }
    assert_eq!(comment(&[0, 255]), None);
}

#[test]
fn the_table_reads_back_as_it_is_documented() {
    isolated(|| {
        let mut firewall = Firewall::new(Instance::new(1).unwrap());
        firewall.apply(Some(&Wanted::new("tailscale1", &config()))).unwrap();
        let listed = sh("nft list ruleset");
        let expected = include_str!("testdata/table-of-instance-1.txt");
        assert!(listed == expected, "the listing is\n{listed}");
        firewall.apply(None).unwrap();
        assert_eq!(sh("nft list ruleset"), "");
    });
}

#[test]
fn every_change_of_the_sets_leads_to_the_state_of_a_fresh_table() {
    isolated(|| {
        let lists: [&[&str]; 6] = [
            &["100.64.0.2/32", "100.64.0.4/32", "100.64.0.5/32"],
            &["100.64.0.2/32", "100.64.0.3/32", "100.64.0.4/32"],
            &[],
            &["100.127.255.255/32", "100.127.255.254/32"],
            &["100.127.255.255/32", "100.64.0.0/32"],
            &["100.64.0.4/32", "100.64.0.2/32"],
        ];
        let wanted = |list: &[&str]| Wanted::new("t", &RouterConfig { routes: nets(list), ..config() });
        let mut firewall = Firewall::new(Instance::ZERO);
        for from in lists {
            for to in lists {
                firewall.distrust();
                firewall.apply(Some(&wanted(to))).unwrap();
                let fresh = sh("nft list ruleset");
                firewall.distrust();
                firewall.apply(Some(&wanted(from))).unwrap();
                firewall.apply(Some(&wanted(to))).unwrap();
                assert_eq!(fresh, sh("nft list ruleset"), "{from:?} -> {to:?}");
            }
        }
    });
}

#[test]
fn ten_thousand_peers_are_one_transaction() {
    isolated(|| {
        let routes =
            (0..20_000_u32).step_by(2).map(|n| Ipv4Net::new_assert((0x6440_0000 + n).into(), 32)).collect();
        let mut firewall = Firewall::new(Instance::ZERO);
        firewall.apply(Some(&Wanted::new("t", &RouterConfig { routes, ..config() }))).unwrap();
        assert_eq!(sh("nft list set ip tsrs-0 peers").matches("100.64.").count(), 10_000);
    });
}

#[test]
fn a_refused_transaction_leaves_the_old_table() {
    isolated(|| {
        let mut firewall = Firewall::new(Instance::ZERO);
        firewall.apply(Some(&wanted())).unwrap();
        let before = sh("nft list ruleset");
        // Somebody takes elements away, so that removing them fails.
        sh("nft flush set ip tsrs-0 subnets");
        let mut changed = config();
        changed.advertised = nets(&["10.1.0.0/16"]);
        assert!(firewall.apply(Some(&Wanted::new("tailscale0", &changed))).is_err());
        firewall.distrust();
        firewall.apply(Some(&wanted())).unwrap();
        assert_eq!(before, sh("nft list ruleset"));
    });
}

#[test]
fn chains_that_drop_by_policy_get_one_rule_and_lose_it_again() {
    isolated_with(&["iptables-nft"], || {
        sh("iptables-nft -P INPUT DROP");
        sh("iptables-nft -P FORWARD DROP");
        sh("iptables-nft -A INPUT -p tcp --dport 22 -j ACCEPT");
        run(
            "nft",
            [
                "table inet own { chain in { type filter hook input priority 10; policy drop; }; chain out { type filter hook output priority 10; policy drop; }; chain open { type filter hook input priority 20; policy accept; }; }",
            ],
        );
        let before = sh("nft list ruleset");
        let mut firewall = Firewall::new(Instance::ZERO);
        assert_eq!(firewall.divert().unwrap(), Vec::<String>::new());
        let diverted = sh("nft list ruleset");
        let tag = tag(Instance::ZERO);
        assert_eq!(diverted.matches(&tag).count(), 3, "{diverted}");
        firewall.divert().unwrap();
        assert_eq!(diverted, sh("nft list ruleset"), "once is enough");
        let saved = sh("iptables-nft-save -t filter");
        for (chain, accept) in [("INPUT", "-j ACCEPT"), ("FORWARD", "-j ACCEPT")] {
            let line = saved.lines().find(|line| line.starts_with(&format!("-A {chain}"))).unwrap();
            assert!(line.contains("-m mark --mark 0x40000/0xff0000") && line.ends_with(accept), "{line}");
        }
        firewall.undivert().unwrap();
        assert_eq!(before, sh("nft list ruleset"));
    });
}

#[test]
fn changes_by_others_are_told_apart_from_our_own() {
    isolated(|| {
        let mut firewall = Firewall::new(Instance::ZERO);
        sh("nft add table ip filter");
        let input = "add chain ip filter INPUT { type filter hook input priority 0; policy drop; }";
        run("nft", [input]);
        let mut subscription = Subscription::netfilter().unwrap();
        let mut heard = |own: Option<u32>| {
            let mut foreign = 0;
            subscription
                .drain(|event| match event {
                    crate::netlink::Event::Message { kind, port, payload } => {
                        let relevant = is_relevant(kind, payload, Instance::ZERO);
                        foreign += usize::from(relevant && Some(port) != own);
                    }
                    crate::netlink::Event::Lost => panic!("lost"),
                })
                .unwrap();
            foreign
        };
        firewall.apply(Some(&wanted())).unwrap();
        firewall.divert().unwrap();
        assert_eq!(heard(firewall.port()), 0, "our own changes");
        run("nft", ["add rule ip filter INPUT tcp dport 22 accept"]);
        run("nft", ["add chain ip filter user"]);
        assert_eq!(heard(firewall.port()), 0, "changes that are none of our business");
        run("nft", ["flush chain ip filter INPUT"]);
        assert_eq!(heard(firewall.port()), 1, "our rule is gone");
        run("nft", [input]);
        run("nft", ["chain ip filter INPUT { policy accept; }"]);
        assert!(heard(firewall.port()) >= 1, "a policy changed");
        run("nft", ["flush ruleset"]);
        assert!(heard(firewall.port()) > 1, "our table is gone");
    });
}
