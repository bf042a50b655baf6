//! DNS messages of programs on this host and of upstream resolvers.

use std::time::{Duration, Instant};

use tsrs_tunnel_dns::{
    Action, Config, Header, LegFailure, MAX_NAME_LEN, Name, Query, QueryId, Resolver, Routes, Transport,
    Upstream, fit,
};

use crate::input::Input;

fn resolver() -> Resolver {
    let name = |text: &str| Name::parse(text).unwrap_or_else(|_| Name::default());
    let upstreams = ["192.0.2.53", "https://dns.google/dns-query", "http://100.64.0.9:80/dns-query"];
    let upstreams: Vec<Upstream> = upstreams.iter().filter_map(|text| Upstream::parse(text)).collect();
    let mut routes = Routes::default();
    routes.insert(name("."), upstreams.clone());
    routes.insert(name("corp.test"), upstreams[..1].to_vec());
    let mut resolver = Resolver::new();
    resolver.set_config(Config { routes, local_domains: [name("tail.ts.net")].into(), no_tcp: false });
    let addresses = vec![[100, 64, 0, 1].into()];
    resolver.hosts_mut().insert(name("host.tail.ts.net"), addresses, true);
    resolver
}

/// Queries. What is answered is an answer to the question.
pub fn query(data: &[u8]) {
    let mut input = Input::new(data);
    let transport = if input.byte() & 1 == 0 { Transport::Udp } else { Transport::Tcp };
    let message = input.rest();
    let mut resolver = resolver();
    let now = Instant::now();
    resolver.handle_query(QueryId(1), transport, message, 1, now);
    while let Some(action) = resolver.poll_action() {
        if let (Action::Answer { message: answer, .. }, Ok(_)) = (action, Query::parse(message)) {
            assert_eq!(answer.get(..2), message.get(..2), "an answer under another id");
            assert!(Header::read(&answer).is_some());
        }
    }
    resolver.handle_timeout(now + Duration::from_secs(60));
    assert_eq!(resolver.poll_timeout(), None);
}

/// A query that is forwarded, and what upstreams say to it: anything, or anything behind the right head.
pub fn answer(data: &[u8]) {
    let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01";
    let mut resolver = resolver();
    let mut now = Instant::now();
    let mut input = Input::new(data);
    let transport = if input.byte() & 1 == 0 { Transport::Udp } else { Transport::Tcp };
    resolver.handle_query(QueryId(1), transport, query, 1, now);
    let mut legs = Vec::new();
    for (kind, record) in input.records() {
        while let Some(action) = resolver.poll_action() {
            if let Action::Ask { leg, .. } = action {
                legs.push(leg);
            }
        }
        let Some(leg) = legs.get(usize::from(kind >> 4) % legs.len().max(1)).copied() else { return };
        match kind & 3 {
            0 => resolver.handle_answer(leg, record.to_vec()),
            1 => resolver.handle_answer(leg, [&query[..2], record].concat()),
            2 => resolver.handle_failure(leg, LegFailure::Garbage),
            _ => {
                now += Duration::from_millis(u64::from(kind) * 10);
                resolver.handle_timeout(now);
            }
        }
    }
    let mut cut = data.to_vec();
    fit(data, &mut cut, transport);
    assert_eq!(cut.len(), data.len());
}

/// Names and upstreams as control writes them.
pub fn texts(data: &[u8]) {
    let text = Input::new(data).text();
    let _ = Upstream::parse(&text);
    if let Ok(name) = Name::parse(&text) {
        assert!(name.to_string().len() <= MAX_NAME_LEN + 1);
        assert_eq!(Name::parse(&name.to_string()), Ok(name));
    }
}
