//! IPv4 routes.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::netlink::{self, Message, NetlinkError, Socket, attr_u32, attrs, split_at_attrs};
use crate::rtnl::{IPV4, kind};

/// The origin that our routes and rules carry (`proto` in the output of `ip`). The kernel gives numbers above 4 to
/// whom wants one; this one is free in iproute2's list, so what carries it is ours.
pub(crate) const ROUTE_PROTOCOL: u8 = 152;

/// Attributes (`RTA_*`).
const DESTINATION: u16 = 1;
const OUT_INTERFACE: u16 = 4;
const GATEWAY: u16 = 5;
const PRIORITY: u16 = 6;
const MULTIPATH: u16 = 9;
const TABLE: u16 = 15;

/// `RT_SCOPE_UNIVERSE`, `RT_SCOPE_LINK` and `RT_SCOPE_NOWHERE`.
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const SCOPE_NOWHERE: u8 = 255;

/// What a route does with a packet (`RTN_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RouteKind {
    /// Sends it out.
    Unicast,
    /// Goes on with the next rule, as if the table had no route.
    Throw,
    /// Any other.
    Other(u8),
}

impl RouteKind {
    const fn number(self) -> u8 {
        match self {
            Self::Unicast => 1,
            Self::Throw => 9,
            Self::Other(number) => number,
        }
    }

    const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Unicast,
            9 => Self::Throw,
            other => Self::Other(other),
        }
    }
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) table: u32,
    pub(crate) destination: Ipv4Net,
    pub(crate) kind: RouteKind,
    pub(crate) protocol: u8,
    pub(crate) out_interface: Option<u32>,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) priority: u32,
}

impl Route {
    /// A route of ours into an interface.
    pub(crate) fn into_interface(table: u32, destination: Ipv4Net, index: u32) -> Self {
        Self {
            table,
            destination,
            kind: RouteKind::Unicast,
            protocol: ROUTE_PROTOCOL,
            out_interface: Some(index),
            gateway: None,
            priority: 0,
        }
    }

    /// A route of ours that leaves the table.
    pub(crate) fn throw(table: u32, destination: Ipv4Net) -> Self {
        let kind = RouteKind::Throw;
        Self { kind, out_interface: None, ..Self::into_interface(table, destination, 0) }
    }

    /// A request that adds the route, in place of one for the same prefix.
    pub(crate) fn add(&self) -> Message {
        self.message(kind::NEW_ROUTE, netlink::CREATE | netlink::REPLACE)
    }

    /// A request that removes the route.
    pub(crate) fn remove(&self) -> Message {
        self.message(kind::DEL_ROUTE, 0)
    }

    fn message(&self, kind: u16, flags: u16) -> Message {
        let scope = match self.kind {
            RouteKind::Unicast if self.gateway.is_none() => SCOPE_LINK,
            RouteKind::Unicast | RouteKind::Throw | RouteKind::Other(_) => SCOPE_UNIVERSE,
        };
        let scope = if kind == kind::DEL_ROUTE { SCOPE_NOWHERE } else { scope };
        let table = u8::try_from(self.table).unwrap_or(0);
        let mut message = Message::new(kind, flags);
        message.put(&[IPV4, self.destination.prefix_len(), 0, 0]);
        message.put(&[table, self.protocol, scope, self.kind.number()]);
        message.put(&[0; 4]);
        message.attr(DESTINATION, &self.destination.network().octets());
        message.attr_u32(TABLE, self.table);
        if let Some(index) = self.out_interface {
            message.attr_u32(OUT_INTERFACE, index);
        }
        if let Some(gateway) = self.gateway {
            message.attr(GATEWAY, &gateway.octets());
        }
        message
    }

    /// From the payload of a route message; `None` for other families and for cached routes.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        const CLONED: u32 = 0x200;
        let (fixed, rest) = split_at_attrs::<12>(payload)?;
        let flags = u32::from_ne_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]);
        if fixed[0] != IPV4 || flags & CLONED != 0 {
            return None;
        }
        let mut address = Ipv4Addr::UNSPECIFIED;
        let mut route = Self {
            table: fixed[4].into(),
            destination: Ipv4Net::default(),
            kind: RouteKind::from_number(fixed[7]),
            protocol: fixed[5],
            out_interface: None,
            gateway: None,
            priority: 0,
        };
        for attr in attrs(rest) {
            match attr.kind {
                DESTINATION => address = (*attr.payload.first_chunk::<4>()?).into(),
                TABLE => route.table = attr_u32(attr.payload)?,
                PRIORITY => route.priority = attr_u32(attr.payload)?,
                OUT_INTERFACE => route.out_interface = attr_u32(attr.payload),
                GATEWAY => route.gateway = attr.payload.first_chunk::<4>().map(|octets| (*octets).into()),
                MULTIPATH => (route.out_interface, route.gateway) = first_hop(attr.payload),
                _ => {}
            }
        }
        route.destination = Ipv4Net::new(address, fixed[1]).ok()?;
        Some(route)
    }
}

/// Interface and gateway of the first of several next hops: `| len u16 | flags u8 | hops u8 | index u32 | attributes |`.
fn first_hop(payload: &[u8]) -> (Option<u32>, Option<Ipv4Addr>) {
    let Some((fixed, rest)) = split_at_attrs::<8>(payload) else { return (None, None) };
    let len = usize::from(u16::from_ne_bytes([fixed[0], fixed[1]]));
    let own = rest.get(..len.saturating_sub(8)).unwrap_or_default();
    let gateway =
        attrs(own).find(|attr| attr.kind == GATEWAY).and_then(|attr| attr.payload.first_chunk::<4>());
    (
        Some(u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]])),
        gateway.map(|octets| Ipv4Addr::from(*octets)),
    )
}

/// All IPv4 routes of a table.
pub(crate) fn routes(socket: &mut Socket, table: u32) -> Result<Vec<Route>, NetlinkError> {
    let mut message = Message::new(kind::GET_ROUTE, netlink::DUMP);
    message.put(&[IPV4, 0, 0, 0, 0, 0, 0, 0]);
    message.put(&[0; 4]);
    message.attr_u32(TABLE, table);
    let listed = socket.dump(&message, |kind, payload| {
        (kind == kind::NEW_ROUTE)
            .then(|| Route::parse(payload))
            .flatten()
            .filter(|route| route.table == table)
    });
    match listed {
        // The table has never been used.
        Err(NetlinkError { errno: libc::ENOENT, .. }) => Ok(Vec::new()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload_of(message: &Message) -> Vec<u8> {
        let mut bytes = Vec::new();
        message.write(1, &mut bytes).unwrap();
        bytes.split_off(16)
    }

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn routes_read_back_as_they_were_built() {
        for route in [
            Route::into_interface(52, net("100.64.0.2/32"), 9),
            Route::throw(52, net("10.20.30.0/24")),
            Route::into_interface(70_000, net("0.0.0.0/0"), 1),
        ] {
            assert_eq!(Route::parse(&payload_of(&route.add())), Some(route));
        }
    }

    #[test]
    fn every_truncation_is_survived() {
        let payload = payload_of(&Route::into_interface(52, net("100.64.0.2/32"), 9).add());
        for len in 0..12 {
            assert_eq!(Route::parse(&payload[..len]), None);
        }
        for len in 12..payload.len() {
            let _ = Route::parse(&payload[..len]);
        }
    }

    #[test]
    fn the_first_of_several_next_hops_counts() {
        let mut message = Message::new(kind::NEW_ROUTE, 0);
        message.put(&[IPV4, 0, 0, 0, 254, 4, 0, 1]);
        message.put(&[0; 4]);
        let mut hops = Vec::new();
        for (index, last) in [(4_u32, 1_u8), (5, 2)] {
            hops.extend_from_slice(&[16, 0, 0, 0]);
            hops.extend_from_slice(&index.to_ne_bytes());
            hops.extend_from_slice(&[8, 0, 5, 0, 192, 0, 2, last]);
        }
        message.attr(MULTIPATH, &hops);
        let route = Route::parse(&payload_of(&message)).unwrap();
        assert_eq!(route.out_interface, Some(4));
        assert_eq!(route.gateway, Some(Ipv4Addr::new(192, 0, 2, 1)));
    }
}
