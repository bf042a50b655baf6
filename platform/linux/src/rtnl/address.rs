//! Interface addresses.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::netlink::{self, Message, NetlinkError, Socket, attrs, split_at_attrs};
use crate::rtnl::{IPV4, IPV6, kind};

/// Attributes (`IFA_*`).
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;

/// An address on an interface, with the prefix that is on-link through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    pub(crate) index: u32,
    pub(crate) net: IpNet,
}

impl Address {
    /// From the payload of an address message.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let (fixed, rest) = split_at_attrs::<8>(payload)?;
        let [family, prefix_len, ..] = *fixed;
        let index = u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
        // On a point-to-point link ADDRESS is the other end and LOCAL is ours; elsewhere LOCAL repeats it (IPv4) or
        // is missing (IPv6).
        let mut own = None;
        for attr in attrs(rest) {
            if attr.kind == LOCAL || (attr.kind == ADDRESS && own.is_none()) {
                own = Some(attr.payload);
            }
        }
        let net = match family {
            IPV4 => Ipv4Net::new(Ipv4Addr::from(*own?.first_chunk::<4>()?), prefix_len).ok()?.into(),
            IPV6 => Ipv6Net::new(Ipv6Addr::from(*own?.first_chunk::<16>()?), prefix_len).ok()?.into(),
            _ => return None,
        };
        Some(Self { index, net })
    }
}

/// A request that gives an interface an IPv4 address of its own, with nobody else on-link.
pub(crate) fn add_host(index: u32, address: Ipv4Addr) -> Message {
    host(kind::NEW_ADDRESS, netlink::CREATE | netlink::EXCL, index, address)
}

/// A request that takes it away.
pub(crate) fn remove_host(index: u32, address: Ipv4Addr) -> Message {
    host(kind::DEL_ADDRESS, 0, index, address)
}

fn host(kind: u16, flags: u16, index: u32, address: Ipv4Addr) -> Message {
    let mut message = Message::new(kind, flags);
    message.put(&[IPV4, 32, 0, 0]);
    message.put(&index.to_ne_bytes());
    message.attr(LOCAL, &address.octets());
    message.attr(ADDRESS, &address.octets());
    message
}

/// All addresses of both families.
pub(crate) fn addresses(socket: &mut Socket) -> Result<Vec<Address>, NetlinkError> {
    let mut message = Message::new(kind::GET_ADDRESS, netlink::DUMP);
    message.put(&[0; 8]);
    socket.dump(&message, |kind, payload| {
        (kind == kind::NEW_ADDRESS).then(|| Address::parse(payload)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload_of(message: &Message) -> Vec<u8> {
        let mut bytes = Vec::new();
        message.write(1, &mut bytes).unwrap();
        bytes.split_off(16)
    }

    #[test]
    fn a_host_address_reads_back() {
        let payload = payload_of(&add_host(9, Ipv4Addr::new(100, 64, 0, 1)));
        assert_eq!(
            Address::parse(&payload),
            Some(Address { index: 9, net: "100.64.0.1/32".parse().unwrap() })
        );
        for len in 0..payload.len() {
            if let Some(address) = Address::parse(&payload[..len]) {
                assert_eq!(address.net, "100.64.0.1/32".parse::<IpNet>().unwrap(), "cut to {len}");
            }
        }
    }

    #[test]
    fn the_own_end_of_a_point_to_point_link_counts() {
        let mut message = Message::new(kind::NEW_ADDRESS, 0);
        message.put(&[IPV4, 32, 0, 0]);
        message.put(&3_u32.to_ne_bytes());
        message.attr(ADDRESS, &[10, 0, 0, 2]);
        message.attr(LOCAL, &[10, 0, 0, 1]);
        assert_eq!(
            Address::parse(&payload_of(&message)).unwrap().net,
            "10.0.0.1/32".parse::<IpNet>().unwrap()
        );
    }

    #[test]
    fn a_prefix_length_that_cannot_be_is_no_address() {
        let mut message = Message::new(kind::NEW_ADDRESS, 0);
        message.put(&[IPV4, 33, 0, 0]);
        message.put(&[0; 4]);
        message.attr(ADDRESS, &[10, 0, 0, 2]);
        assert_eq!(Address::parse(&payload_of(&message)), None);
    }
}
