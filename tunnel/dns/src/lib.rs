//! MagicDNS: what the resolver at 100.100.100.100 answers by itself, whom it asks for the rest, and the queries that are
//! under way (data-plane sheet §9).
//!
//! [`Resolver`] is a machine without input and output: the caller feeds queries and upstream answers in, drains
//! [`Resolver::poll_action`] and keeps the timer of [`Resolver::poll_timeout`]. Opening sockets, choosing whether a
//! resolver is reached through or around the tunnel, and DNS over HTTPS belong to the caller. There is no cache: names of the
//! tailnet are looked up live in [`Hosts`], which changes by single hosts.
#![forbid(unsafe_code)]

mod forward;
mod hosts;
mod local;
mod message;
mod name;
mod providers;
mod resolver;
mod reverse;
mod routes;
mod truncate;
mod via;

pub use forward::{FlightId, Leg, LegFailure, LegKind, MAX_FLIGHTS};
pub use hosts::Hosts;
pub use message::{Header, Query, QueryType, Question, ResponseCode};
pub use name::{MAX_NAME_LEN, Name, NameError};
pub use resolver::{Action, Config, QueryId, Resolver, Transport};
pub use routes::{Routes, Upstream};
pub use truncate::{MAX_RESPONSE_LEN, fit};

use std::net::{Ipv4Addr, Ipv6Addr};

/// The address at which the host asks us.
pub const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 100);
/// The same in IPv6; named in answers only, since nothing listens there on an IPv4-only device.
pub const SERVICE_ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 0x53);

#[cfg(test)]
mod tests;
