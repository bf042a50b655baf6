//! What the resolver answers by itself (data-plane sheet §9.2, §9.3).

use std::net::IpAddr;

use crate::message::{Query, QueryType, ResponseCode};
use crate::name::Name;
use crate::resolver::Config;
use crate::via::{self, Via};
use crate::{Hosts, SERVICE_ADDRESS, SERVICE_ADDRESS_V6, reverse};

/// Name by which programs on this host find the resolver.
const SERVICE_NAME: &[u8] = b"magicdns.localhost-tailscale-daemon";

/// First labels of DNS service discovery by browsing (RFC 6763 §11): such queries never leave the host.
const BROWSING: &[&[u8]] = &[b"b", b"db", b"r", b"dr", b"lb"];

/// The own answer, or `None` when the query has to be forwarded. `serial` goes into SOA records.
pub(crate) fn answer(query: &Query, config: &Config, hosts: &Hosts, serial: u32) -> Option<Vec<u8>> {
    let local = Local { query, config, hosts, serial };
    if query.question.query_type == QueryType::PTR { local.pointer() } else { local.name() }
}

/// Whether the query is one that nobody may be asked about; it is answered NXDOMAIN without authority.
pub(crate) fn is_browsing(name: &Name) -> bool {
    let mut labels = name.labels();
    let first = labels.next();
    first.is_some_and(|label| BROWSING.contains(&label))
        && labels.next() == Some(b"_dns-sd")
        && labels.next() == Some(b"_udp")
}

struct Local<'a> {
    query: &'a Query,
    config: &'a Config,
    hosts: &'a Hosts,
    serial: u32,
}

impl Local<'_> {
    fn name(&self) -> Option<Vec<u8>> {
        let name = &self.query.question.name;
        let query_type = self.query.question.query_type;
        if name.labels().count() > 1 && name.labels().next_back() == Some(b"onion") {
            return Some(self.query.answer_empty(ResponseCode::NxDomain));
        }
        if name.as_bytes() == SERVICE_NAME {
            match query_type {
                QueryType::A => return Some(self.query.answer_address(SERVICE_ADDRESS.into())),
                QueryType::AAAA => return Some(self.query.answer_address(SERVICE_ADDRESS_V6.into())),
                _ => {}
            }
        }
        if let Some(via) = via::parse(name)
            && matches!(query_type, QueryType::A | QueryType::AAAA | QueryType::ANY)
        {
            let address = match via {
                Via::Address(v6) if query_type != QueryType::A => Some(IpAddr::V6(v6)),
                Via::Address(_) | Via::NoAddress => None,
            };
            return Some(self.address_or_empty(address));
        }
        if let Some(addresses) = self.hosts.lookup(name) {
            return Some(self.host(addresses));
        }
        self.nonexistent()
    }

    fn host(&self, addresses: &[IpAddr]) -> Vec<u8> {
        match self.query.question.query_type {
            QueryType::A => {
                self.address_or_empty(addresses.iter().find(|address| address.is_ipv4()).copied())
            }
            QueryType::AAAA => {
                self.address_or_empty(addresses.iter().find(|address| address.is_ipv6()).copied())
            }
            QueryType::ANY => self.address_or_empty(addresses.first().copied()),
            QueryType::NS | QueryType::SOA | QueryType::AXFR | QueryType::HINFO => {
                self.query.answer_empty(ResponseCode::NotImp)
            }
            _ => self.query.answer_empty(ResponseCode::NoError),
        }
    }

    fn pointer(&self) -> Option<Vec<u8>> {
        let address = reverse::address(&self.query.question.name)?;
        let embedded = reverse::embedded_v4(address).and_then(|v4| self.hosts.reverse(v4.into()));
        if let Some(host) = embedded.or_else(|| self.hosts.reverse(address)) {
            return Some(self.query.answer_pointer(host));
        }
        if address == IpAddr::V4(SERVICE_ADDRESS) || address == IpAddr::V6(SERVICE_ADDRESS_V6) {
            return Some(self.query.answer_pointer(&Name::from_labels(SERVICE_NAME)));
        }
        self.nonexistent()
    }

    /// The address, or an empty answer; inside a zone of ours that one carries the SOA.
    fn address_or_empty(&self, address: Option<IpAddr>) -> Vec<u8> {
        match (address, self.zone()) {
            (Some(address), _) => self.query.answer_address(address),
            (None, Some(zone)) => self.query.answer_negative(ResponseCode::NoError, &zone, self.serial),
            (None, None) => self.query.answer_empty(ResponseCode::NoError),
        }
    }

    /// NXDOMAIN inside a zone of ours.
    fn nonexistent(&self) -> Option<Vec<u8>> {
        let zone = self.zone()?;
        Some(self.query.answer_negative(ResponseCode::NxDomain, &zone, self.serial))
    }

    /// The zone of ours that the name lies in.
    fn zone(&self) -> Option<Name> {
        self.query.question.name.ancestors().find(|zone| self.config.local_domains.contains(zone))
    }
}
