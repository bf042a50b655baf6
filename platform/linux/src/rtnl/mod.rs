//! Links, addresses, routes and policy rules by rtnetlink: the few fields that the agent uses.

mod address;
mod link;
mod route;
mod rule;

pub(crate) use address::{Address, add_host, addresses, remove_host};
pub(crate) use link::{Link, LinkChange, link, link_by_name, links, set_link};
pub(crate) use route::{ROUTE_PROTOCOL, Route, RouteKind, routes};
pub(crate) use rule::{Rule, rules};

/// `AF_INET`.
const IPV4: u8 = 2;
/// `AF_INET6`.
const IPV6: u8 = 10;

/// Types of messages (include/uapi/linux/rtnetlink.h). A "new" message is a request as well as an entry of a dump
/// or a notification.
pub(crate) mod kind {
    pub(crate) const NEW_LINK: u16 = 16;
    pub(crate) const DEL_LINK: u16 = 17;
    pub(crate) const GET_LINK: u16 = 18;
    pub(crate) const NEW_ADDRESS: u16 = 20;
    pub(crate) const DEL_ADDRESS: u16 = 21;
    pub(crate) const GET_ADDRESS: u16 = 22;
    pub(crate) const NEW_ROUTE: u16 = 24;
    pub(crate) const DEL_ROUTE: u16 = 25;
    pub(crate) const GET_ROUTE: u16 = 26;
    pub(crate) const NEW_RULE: u16 = 32;
    pub(crate) const DEL_RULE: u16 = 33;
    pub(crate) const GET_RULE: u16 = 34;
}

/// Multicast groups (`RTMGRP_*`).
pub(crate) mod group {
    pub(crate) const LINK: u32 = 0x1;
    pub(crate) const IPV4_ADDRESS: u32 = 0x10;
    pub(crate) const IPV4_ROUTE: u32 = 0x40;
    pub(crate) const IPV4_RULE: u32 = 0x80;
    pub(crate) const IPV6_ADDRESS: u32 = 0x100;
}
