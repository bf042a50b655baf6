//! Network interfaces.

use crate::netlink::{self, Message, NetlinkError, Socket, attr_string, attr_u32, attrs, split_at_attrs};
use crate::rtnl::{IPV6, kind};

/// Interface flags (`IFF_*`).
const UP: u32 = 0x1;
const LOOPBACK: u32 = 0x8;
const LOWER_UP: u32 = 0x1_0000;

/// Attributes (`IFLA_*`).
const NAME: u16 = 3;
const MTU: u16 = 4;
const AF_SPEC: u16 = 26;
/// `IFLA_INET6_ADDR_GEN_MODE` and its value "none".
const IPV6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_NONE: u8 = 1;

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mtu: u32,
    /// Whether it is set up by the administrator.
    pub(crate) admin_up: bool,
    /// Whether it is up and has carrier.
    pub(crate) running: bool,
    pub(crate) loopback: bool,
}

impl Link {
    /// From the payload of a link message.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let (fixed, rest) = split_at_attrs::<16>(payload)?;
        let index = u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
        let flags = u32::from_ne_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]);
        let mut link = Self {
            index,
            name: String::new(),
            mtu: 0,
            admin_up: flags & UP != 0,
            running: flags & UP != 0 && flags & LOWER_UP != 0,
            loopback: flags & LOOPBACK != 0,
        };
        for attr in attrs(rest) {
            match attr.kind {
                NAME => link.name = attr_string(attr.payload),
                MTU => link.mtu = attr_u32(attr.payload)?,
                _ => {}
            }
        }
        Some(link)
    }
}

/// What to change on an interface; `None` leaves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkChange {
    pub(crate) up: Option<bool>,
    pub(crate) mtu: Option<u16>,
    /// Stops the kernel from giving the interface IPv6 addresses of its own.
    pub(crate) no_ipv6_addresses: bool,
}

impl LinkChange {
    fn message(self, index: u32) -> Message {
        let mut message = header(kind::NEW_LINK, 0, index, self.up);
        if let Some(mtu) = self.mtu {
            message.attr_u32(MTU, mtu.into());
        }
        if self.no_ipv6_addresses {
            message.nested(AF_SPEC, |families| {
                families.nested(IPV6.into(), |ipv6| ipv6.attr(IPV6_ADDR_GEN_MODE, &[ADDR_GEN_NONE]));
            });
        }
        message
    }
}

fn header(kind: u16, flags: u16, index: u32, up: Option<bool>) -> Message {
    let mut message = Message::new(kind, flags);
    message.put(&[0; 4]);
    message.put(&index.to_ne_bytes());
    message.put(&if up == Some(true) { UP } else { 0 }.to_ne_bytes());
    message.put(&if up.is_some() { UP } else { 0 }.to_ne_bytes());
    message
}

/// Changes an interface.
pub(crate) fn set_link(socket: &mut Socket, index: u32, change: LinkChange) -> Result<(), NetlinkError> {
    socket.request(change.message(index))
}

/// All interfaces.
pub(crate) fn links(socket: &mut Socket) -> Result<Vec<Link>, NetlinkError> {
    socket.dump(&header(kind::GET_LINK, netlink::DUMP, 0, None), |kind, payload| {
        (kind == kind::NEW_LINK).then(|| Link::parse(payload)).flatten()
    })
}

/// The interface with this number, if it exists.
pub(crate) fn link(socket: &mut Socket, index: u32) -> Result<Option<Link>, NetlinkError> {
    Ok(links(socket)?.into_iter().find(|link| link.index == index))
}

/// The interface with this name, if it exists.
pub(crate) fn link_by_name(socket: &mut Socket, name: &str) -> Result<Option<Link>, NetlinkError> {
    Ok(links(socket)?.into_iter().find(|link| link.name == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_seen() {
        let mut socket = Socket::route().unwrap();
        let lo = link_by_name(&mut socket, "lo").unwrap().unwrap();
        assert!(lo.loopback);
        assert_eq!(link(&mut socket, lo.index).unwrap().unwrap().name, "lo");
        assert_eq!(link_by_name(&mut socket, "nosuchlink").unwrap(), None);
    }

    #[test]
    fn a_cut_message_is_not_an_interface() {
        let mut message = header(kind::NEW_LINK, 0, 7, Some(true));
        message.attr_str(NAME, "eth0");
        message.attr_u32(MTU, 1500);
        let mut bytes = Vec::new();
        message.write(1, &mut bytes).unwrap();
        let payload = &bytes[16..];
        let link = Link::parse(payload).unwrap();
        assert_eq!((link.index, link.name.as_str(), link.mtu, link.admin_up), (7, "eth0", 1500, true));
        for len in 0..16 {
            assert_eq!(Link::parse(&payload[..len]), None);
        }
    }
}
