//! Our own endpoints (data-plane sheet §3.2).

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

use super::api::{Endpoint, EndpointKind};
use super::candidate::is_usable;
use super::limits::{MAX_OWN_ENDPOINTS, MAX_STUN_ENDPOINTS_PER_IP, STUN_ENDPOINT_LIFE};
use crate::netcheck::Report;

/// Sources of our endpoints.
#[derive(Debug, Default)]
pub(super) struct OwnEndpoints {
    interfaces: Vec<Ipv4Addr>,
    port: u16,
    fixed: Vec<SocketAddrV4>,
    /// Reflexive addresses of the last netcheck.
    reflexive: Vec<SocketAddrV4>,
    /// The reflexive IP with our own port: on a hard NAT, for a static forward.
    local_port: Option<SocketAddrV4>,
    /// Reflexive addresses of all netchecks, with when they were last seen; the latest last.
    remembered: Vec<(SocketAddrV4, Instant)>,
}

impl OwnEndpoints {
    /// Returns whether that changed anything.
    pub(super) fn set_local(&mut self, interfaces: &[Ipv4Addr], port: u16) -> bool {
        let interfaces = offered(interfaces);
        let changed = self.port != port || self.interfaces != interfaces;
        (self.interfaces, self.port) = (interfaces, port);
        changed
    }

    pub(super) fn set_fixed(&mut self, addresses: &[SocketAddrV4]) {
        self.fixed = addresses.to_vec();
    }

    /// The result of a netcheck.
    pub(super) fn note_report(&mut self, report: &Report, port_is_fixed: bool, now: Instant) {
        self.reflexive = report.reflexive_endpoints().collect();
        let hard = report.mapping_varies_by_dest == Some(true);
        self.local_port = report
            .global_v4
            .filter(|_| hard && port_is_fixed)
            .map(|address| SocketAddrV4::new(*address.ip(), self.port));
        for address in &self.reflexive {
            self.remembered.retain(|(known, _)| known != address);
            self.remembered.push((*address, now));
            let same_ip = |(known, _): &&(SocketAddrV4, Instant)| known.ip() == address.ip();
            if self.remembered.iter().filter(same_ip).count() > MAX_STUN_ENDPOINTS_PER_IP
                && let Some(at) = self.remembered.iter().position(|entry| same_ip(&entry))
            {
                self.remembered.remove(at);
            }
        }
        self.remembered.retain(|(_, seen)| now.saturating_duration_since(*seen) < STUN_ENDPOINT_LIFE);
    }

    /// The network changed: reflexive addresses of the old one are of no use.
    pub(super) fn forget_reflexive(&mut self) {
        self.reflexive.clear();
        self.remembered.clear();
        self.local_port = None;
    }

    /// The list, each address once, best sources first.
    pub(super) fn collect(&self) -> Vec<Endpoint> {
        let mut endpoints: Vec<Endpoint> = Vec::new();
        let mut add = |address: SocketAddrV4, kind| {
            let known = endpoints.iter().any(|endpoint| endpoint.address == address);
            if !known && is_usable(&address) && endpoints.len() < MAX_OWN_ENDPOINTS {
                endpoints.push(Endpoint { address, kind });
            }
        };
        self.reflexive.iter().for_each(|&address| add(address, EndpointKind::Stun));
        self.local_port.iter().for_each(|&address| add(address, EndpointKind::StunLocalPort));
        self.remembered.iter().rev().for_each(|&(address, _)| add(address, EndpointKind::Stun));
        self.fixed.iter().for_each(|&address| add(address, EndpointKind::Explicit));
        self.interfaces.iter().for_each(|&ip| add(SocketAddrV4::new(ip, self.port), EndpointKind::Local));
        endpoints
    }
}

/// The interface addresses that are offered: never tailnet addresses; link-local and loopback ones only when there is
/// nothing better.
fn offered(interfaces: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
    let mut usable: Vec<Ipv4Addr> = interfaces.to_vec();
    usable.retain(|ip| !is_tailnet_address(ip) && !ip.is_unspecified() && !ip.is_multicast());
    usable.sort_unstable();
    usable.dedup();
    let rank = |ip: &Ipv4Addr| if ip.is_loopback() { 2 } else { u8::from(ip.is_link_local()) };
    let best = usable.iter().map(rank).min();
    usable.retain(|ip| Some(rank(ip)) == best);
    usable
}

/// 100.64.0.0/10, which tailnets use inside.
fn is_tailnet_address(ip: &Ipv4Addr) -> bool {
    ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ips(list: &[&str]) -> Vec<Ipv4Addr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    fn shown(own: &OwnEndpoints) -> Vec<(String, EndpointKind)> {
        own.collect().iter().map(|endpoint| (endpoint.address.to_string(), endpoint.kind)).collect()
    }

    fn report(addresses: &[&str], hard: bool) -> Report {
        let counts = addresses.iter().map(|address| (address.parse().unwrap(), 2));
        Report {
            global_v4: addresses.first().map(|address| address.parse().unwrap()),
            global_v4_counts: counts.collect(),
            mapping_varies_by_dest: Some(hard),
            ..Report::default()
        }
    }

    #[test]
    fn interface_addresses_are_offered_with_the_bound_port() {
        let mut own = OwnEndpoints::default();
        let all = ips(&["127.0.0.1", "192.0.2.7", "169.254.1.1", "100.100.1.1", "10.0.0.1", "10.0.0.1"]);
        assert!(own.set_local(&all, 41641));
        assert!(!own.set_local(&all, 41641));
        let local = |text: &str| (text.to_owned(), EndpointKind::Local);
        assert_eq!(shown(&own), [local("10.0.0.1:41641"), local("192.0.2.7:41641")]);
        own.set_local(&ips(&["127.0.0.1", "169.254.1.1"]), 1);
        assert_eq!(shown(&own), [local("169.254.1.1:1")]);
        own.set_local(&ips(&["127.0.0.1"]), 1);
        assert_eq!(shown(&own), [local("127.0.0.1:1")]);
    }

    #[test]
    fn reflexive_addresses_come_first_are_remembered_and_forgotten() {
        let start = Instant::now();
        let mut own = OwnEndpoints::default();
        own.set_local(&ips(&["10.0.0.1"]), 41641);
        own.set_fixed(&["198.51.100.1:5".parse().unwrap()]);
        own.note_report(&report(&["203.0.113.1:1000"], false), true, start);
        own.note_report(&report(&["203.0.113.1:1001"], true), true, start + Duration::from_secs(20));
        let kinds = shown(&own);
        assert_eq!(
            kinds,
            [
                ("203.0.113.1:1001".to_owned(), EndpointKind::Stun),
                ("203.0.113.1:41641".to_owned(), EndpointKind::StunLocalPort),
                ("203.0.113.1:1000".to_owned(), EndpointKind::Stun),
                ("198.51.100.1:5".to_owned(), EndpointKind::Explicit),
                ("10.0.0.1:41641".to_owned(), EndpointKind::Local),
            ]
        );
        own.note_report(&Report::default(), true, start + STUN_ENDPOINT_LIFE);
        assert_eq!(shown(&own)[0].0, "203.0.113.1:1001");
        own.note_report(&Report::default(), true, start + STUN_ENDPOINT_LIFE + Duration::from_secs(20));
        assert_eq!(shown(&own).len(), 2);
        for port in 1..100 {
            own.note_report(&report(&[&format!("203.0.113.1:{port}")], true), false, start);
        }
        assert_eq!(shown(&own).iter().filter(|(_, kind)| *kind == EndpointKind::Stun).count(), 6);
        own.forget_reflexive();
        assert_eq!(shown(&own).len(), 2);
    }

    #[test]
    fn the_list_is_bounded() {
        let mut own = OwnEndpoints::default();
        let many: Vec<Ipv4Addr> = (0..1000).map(|n: u32| Ipv4Addr::from(0x0a00_0000 + n)).collect();
        own.set_local(&many, 1);
        assert_eq!(own.collect().len(), MAX_OWN_ENDPOINTS);
    }
}
