//! The reference's cases, races with a virtual clock, and garbage.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use tsrs_lab_vectors::{hex, json};

use crate::*;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|entry| entry.as_str().unwrap()).collect()
}

/// A resolver as one of the configurations of `dns/magicdns.json` describes it.
fn resolver(config: &Value) -> Resolver {
    let mut resolver = Resolver::new();
    let subdomains = strings(&config["subdomain_hosts"]);
    for (host, addresses) in config["hosts"].as_object().unwrap() {
        let addresses: Vec<IpAddr> = strings(addresses).iter().map(|text| text.parse().unwrap()).collect();
        resolver.hosts_mut().insert(name(host), addresses, subdomains.contains(&host.as_str()));
    }
    let routes = config["routes"].as_object().unwrap().iter();
    resolver.set_config(Config {
        routes: routes
            .map(|(suffix, list)| (name(suffix), strings(list).iter().map(|text| upstream(text)).collect()))
            .collect(),
        local_domains: strings(&config["local_domains"]).iter().map(|domain| name(domain)).collect(),
        no_tcp: false,
    });
    resolver
}

fn upstream(text: &str) -> Upstream {
    Upstream::parse(text).unwrap()
}

#[test]
fn queries_are_answered_and_forwarded_as_the_reference_does() {
    let vectors = json("dns/magicdns.json");
    let serial = u32::try_from(vectors["soa_serial"].as_u64().unwrap()).unwrap();
    let now = Instant::now();
    let mut seen = 0;
    for case in vectors["cases"].as_array().unwrap() {
        let mut resolver = resolver(&vectors["configs"][case["config"].as_str().unwrap()]);
        let query = hex(case["query"].as_str().unwrap());
        resolver.handle_query(QueryId(1), Transport::Tcp, &query, serial, now);
        let mut asked = Vec::new();
        let mut answer = None;
        while let Some(action) = resolver.poll_action() {
            match action {
                Action::Answer { message, .. } => answer = Some(message),
                Action::Ask { kind: LegKind::Udp(address), message, .. } => {
                    assert_eq!(message, query);
                    asked.push(address);
                }
                Action::Ask { .. } | Action::Close { .. } => {}
            }
        }
        let note = &case["note"];
        if case["outcome"] == "forward" {
            let wanted: Vec<_> = strings(&case["upstreams"]).iter().map(|text| upstream(text)).collect();
            assert_eq!(
                asked.iter().map(|address| Upstream::Plain(*address)).collect::<Vec<_>>(),
                wanted,
                "{note}"
            );
            assert_eq!(answer, None, "{note}");
        } else {
            let wanted = hex(case["response"].as_str().unwrap());
            assert_eq!(answer.unwrap(), wanted, "{note}");
            assert!(asked.is_empty(), "{note}");
        }
        seen += 1;
    }
    assert_eq!(seen, 449);
}

#[test]
fn truncation_agrees_with_the_reference() {
    for case in json("dns/truncation.json")["cases"].as_array().unwrap() {
        let query = hex(case["query"].as_str().unwrap());
        let len = usize::try_from(case["response_len"].as_u64().unwrap()).unwrap();
        let transport = if case["family"] == "tcp" { Transport::Tcp } else { Transport::Udp };
        let mut response = vec![0; len];
        fit(&query, &mut response, transport);
        assert_eq!(response.len() as u64, case["out_len"].as_u64().unwrap());
        if let Some(tc) = case["tc"].as_bool() {
            assert_eq!(response.get(2).is_some_and(|byte| byte & 2 != 0), tc, "{case}");
        }
    }
}

/// A resolver that forwards everything to the given upstreams, with one query in it.
fn racing(upstreams: &[&str], transport: Transport, now: Instant) -> (Resolver, Vec<u8>) {
    let mut resolver = Resolver::new();
    resolver.set_config(Config {
        routes: [(Name::default(), upstreams.iter().map(|text| upstream(text)).collect())]
            .into_iter()
            .collect(),
        ..Config::default()
    });
    let query = Query::build(0x1234, &name("www.example.com"), QueryType::A);
    resolver.handle_query(QueryId(7), transport, &query, 0, now);
    (resolver, query)
}

fn asks(resolver: &mut Resolver) -> Vec<(Leg, LegKind)> {
    std::iter::from_fn(|| resolver.poll_action())
        .filter_map(|action| match action {
            Action::Ask { leg, kind, .. } => Some((leg, kind)),
            Action::Answer { .. } | Action::Close { .. } => None,
        })
        .collect()
}

fn answered(resolver: &mut Resolver) -> Option<Vec<u8>> {
    std::iter::from_fn(|| resolver.poll_action()).find_map(|action| match action {
        Action::Answer { query: QueryId(7), message } => Some(message),
        Action::Answer { .. } | Action::Ask { .. } | Action::Close { .. } => None,
    })
}

fn response(query: &[u8], flags: u16) -> Vec<u8> {
    let mut message = query.to_vec();
    message[2..4].copy_from_slice(&flags.to_be_bytes());
    message
}

#[test]
fn a_udp_query_tries_tcp_after_two_seconds_and_ends_after_ten() {
    let start = Instant::now();
    let (mut resolver, _) = racing(&["192.0.2.1"], Transport::Udp, start);
    assert!(matches!(asks(&mut resolver)[..], [(_, LegKind::Udp(_))]));
    assert_eq!(resolver.poll_timeout(), Some(start + Duration::from_secs(2)));
    resolver.handle_timeout(start + Duration::from_secs(2));
    assert!(matches!(asks(&mut resolver)[..], [(_, LegKind::Tcp(_))]));
    assert_eq!(resolver.poll_timeout(), Some(start + Duration::from_secs(10)));
    resolver.handle_timeout(start + Duration::from_secs(10));
    assert!(matches!(resolver.poll_action(), Some(Action::Close { .. })));
    assert_eq!(resolver.poll_action(), None);
    assert_eq!(resolver.poll_timeout(), None);
}

#[test]
fn a_truncated_answer_is_passed_on_by_udp_but_only_a_last_resort_by_tcp() {
    let start = Instant::now();
    let (mut resolver, query) = racing(&["192.0.2.1"], Transport::Udp, start);
    let legs = asks(&mut resolver);
    let truncated = response(&query, 0x8380);
    resolver.handle_answer(legs[0].0, truncated.clone());
    assert_eq!(answered(&mut resolver), Some(truncated.clone()));

    let (mut resolver, query) = racing(&["192.0.2.1"], Transport::Tcp, start);
    let legs = asks(&mut resolver);
    assert_eq!(legs.len(), 2);
    resolver.handle_answer(legs[0].0, truncated.clone());
    assert_eq!(answered(&mut resolver), None);
    let whole = response(&query, 0x8180);
    resolver.handle_answer(legs[1].0, whole.clone());
    assert_eq!(answered(&mut resolver), Some(whole));

    let (mut resolver, _) = racing(&["192.0.2.1"], Transport::Tcp, start);
    let legs = asks(&mut resolver);
    resolver.handle_answer(legs[0].0, truncated.clone());
    resolver.handle_failure(legs[1].0, LegFailure::Unreachable);
    assert_eq!(answered(&mut resolver), Some(truncated));
}

#[test]
fn soft_errors_wait_for_the_others_and_nxdomain_is_final() {
    let start = Instant::now();
    let (mut resolver, query) = racing(&["192.0.2.1", "192.0.2.2"], Transport::Udp, start);
    let legs = asks(&mut resolver);
    resolver.handle_answer(legs[0].0, response(&query, 0x8182));
    assert_eq!(answered(&mut resolver), None);
    let missing = response(&query, 0x8183);
    resolver.handle_answer(legs[1].0, missing.clone());
    assert_eq!(answered(&mut resolver), Some(missing));
}

#[test]
fn refused_by_all_is_refused_and_a_mixture_is_servfail() {
    let start = Instant::now();
    for (second, code) in [(0x8185, 5), (0x8182, 2)] {
        let (mut resolver, query) = racing(&["192.0.2.1", "192.0.2.2"], Transport::Tcp, start);
        let legs = asks(&mut resolver);
        for (index, (leg, kind)) in legs.iter().enumerate() {
            match kind {
                LegKind::Udp(_) if index == 0 => resolver.handle_answer(*leg, response(&query, 0x8185)),
                LegKind::Udp(_) => resolver.handle_answer(*leg, response(&query, second)),
                LegKind::Tcp(_) | LegKind::Https { .. } | LegKind::PeerApi(_) => {
                    resolver.handle_failure(*leg, LegFailure::TimedOut);
                }
            }
        }
        assert_eq!(Header::read(&answered(&mut resolver).unwrap()).unwrap().code(), code);
    }
}

#[test]
fn a_known_provider_is_asked_encrypted_first() {
    let start = Instant::now();
    let (mut resolver, _) = racing(&["1.1.1.1", "1.0.0.1"], Transport::Udp, start);
    let legs = asks(&mut resolver);
    assert!(
        matches!(&legs[..], [(_, LegKind::Https { url, .. })] if url == "https://cloudflare-dns.com/dns-query")
    );
    resolver.handle_timeout(start + Duration::from_millis(500));
    assert!(matches!(asks(&mut resolver)[..], [(_, LegKind::Udp(_))]));
    resolver.handle_timeout(start + Duration::from_millis(700));
    assert!(matches!(asks(&mut resolver)[..], [(_, LegKind::Udp(_))]));
}

#[test]
fn answers_with_another_id_or_that_are_no_answers_are_not_believed() {
    let start = Instant::now();
    let (mut resolver, query) = racing(&["192.0.2.1"], Transport::Tcp, start);
    let legs = asks(&mut resolver);
    let mut other = response(&query, 0x8180);
    other[0] ^= 1;
    resolver.handle_answer(legs[0].0, other);
    assert_eq!(answered(&mut resolver), None);
    resolver.handle_answer(legs[1].0, query);
    assert_eq!(Header::read(&answered(&mut resolver).unwrap()).unwrap().code(), 2);
}

#[test]
fn more_queries_than_the_limit_are_refused_at_once() {
    let start = Instant::now();
    let (mut resolver, query) = racing(&["192.0.2.1"], Transport::Udp, start);
    for id in 1..=MAX_FLIGHTS as u64 {
        while resolver.poll_action().is_some() {}
        resolver.handle_query(QueryId(1000 + id), Transport::Udp, &query, 0, start);
    }
    let last = resolver.poll_action();
    assert!(matches!(last, Some(Action::Answer { query: QueryId(1256), .. })), "{last:?}");
}

#[test]
fn a_removed_host_is_gone_in_both_directions() {
    let mut hosts = Hosts::default();
    let address: IpAddr = "100.64.0.1".parse().unwrap();
    hosts.insert(name("a.example"), vec![address], false);
    hosts.insert(name("b.example"), vec![address], true);
    assert_eq!(hosts.reverse(address), Some(&name("a.example")));
    assert_eq!(hosts.lookup(&name("x.b.example")), Some(&[address][..]));
    hosts.remove(&name("a.example"));
    hosts.remove(&name("b.example"));
    assert_eq!(hosts.reverse(address), None);
    assert_eq!(hosts.lookup(&name("x.b.example")), None);
    assert!(hosts.is_empty());
}

#[test]
fn garbage_of_every_length_is_answered_or_ignored_without_a_panic() {
    let start = Instant::now();
    let query = Query::build(1, &name("www.example.com"), QueryType::ANY);
    for len in 0..=query.len() {
        for flip in 0..query.len() {
            let mut message = query[..len].to_vec();
            if let Some(byte) = message.get_mut(flip) {
                *byte ^= 0xff;
            }
            let (mut resolver, _) = racing(&["192.0.2.1"], Transport::Udp, start);
            while resolver.poll_action().is_some() {}
            resolver.handle_query(QueryId(2), Transport::Udp, &message, 0, start);
            assert!(resolver.poll_action().is_some());
        }
    }
}
