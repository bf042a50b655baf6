//! Our own table, as messages. Pure: nothing here talks to the kernel.
//!
//! ```text
//! table ip tsrs-<n>
//!   prerouting  -160  from elsewhere with a peer's address -> spoofed
//!   spoofed           to the WireGuard port, or of a known flow: accept; else drop
//!   input       -160  from the tunnel, or to the WireGuard port: mark
//!   forward     -160  clamp TCP segments; from the tunnel -> from-tunnel; into it -> to-tunnel
//!   from-tunnel       to an advertised subnet: mark; else drop
//!   to-tunnel         answers: mark; others: mark, or drop when stateful
//!   postrouting  100  marked and not into the tunnel: masquerade
//! ```
//!
//! The priority lies before `mangle` (-150), so that the mark is there when any filter chain looks, and behind conntrack
//! (-200), so that flows are known.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use tsrs_platform_api::{Instance, Marks, RouterConfig};

use crate::netlink::{CREATE, EXCL, Message};
use crate::nft::abi::{ACCEPT, Family, Hook, attribute, kind, message};
use crate::nft::expr::{Place, Rule, Set};
use crate::nft::ranges::{Range, Ranges};

/// Before `mangle`, behind conntrack.
const PRIORITY: i32 = -160;
/// Where source addresses are rewritten by convention.
const PRIORITY_SOURCE_NAT: i32 = 100;

const PEERS: Set = Set { name: "peers", id: 1 };
const SUBNETS: Set = Set { name: "subnets", id: 2 };
const LINKS: Set = Set { name: "links", id: 3 };

/// Elements of one message. Each takes at most 32 bytes and an attribute holds 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 1000;

/// IPv4 and TCP headers without options.
const HEADERS_LEN: u16 = 40;

/// What the rules depend on. A change builds the table anew; a change of [`Elements`] alone does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) tun: String,
    pub(crate) mtu: u16,
    pub(crate) udp_port: Option<u16>,
    /// Whether there are subnets whose answers need the host's own address.
    pub(crate) snat: bool,
    pub(crate) stateful: bool,
    pub(crate) drop_spoofed: bool,
}

/// What the sets hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Elements {
    /// Addresses of peers: nobody else may use them as source.
    pub(crate) peers: Ranges,
    /// Advertised subnets of RFC 1918.
    pub(crate) subnets: Ranges,
    /// Advertised subnets that are public but on-link: only their neighbours themselves may be reached, so that a lost
    /// address on that interface does not turn the rule into a way to the internet.
    pub(crate) links: Ranges,
}

/// The whole wanted table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) shape: Shape,
    pub(crate) elements: Elements,
}

impl Wanted {
    /// The table for this configuration.
    pub(crate) fn new(tun: &str, config: &RouterConfig) -> Self {
        let tailnet = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);
        // A wider route there is an accepted subnet or stands for peers that are not listed: dropping by it would cut
        // off hosts of an uplink, or of another tailnet, that use the same range.
        let is_peer = |route: &Ipv4Net| route.prefix_len() == 32 && tailnet.contains(route);
        let (subnets, links): (Vec<_>, Vec<_>) =
            config.advertised.iter().copied().partition(|prefix| prefix.network().is_private());
        Self {
            shape: Shape {
                tun: tun.to_owned(),
                mtu: config.mtu,
                udp_port: config.udp_port,
                snat: config.snat && !config.advertised.is_empty(),
                stateful: config.stateful,
                drop_spoofed: config.drop_spoofed,
            },
            elements: Elements {
                peers: Ranges::new(config.routes.iter().copied().filter(is_peer)),
                subnets: Ranges::new(subnets),
                links: Ranges::new(links),
            },
        }
    }

    /// Messages that make the table, in place of one that may exist.
    pub(super) fn create(&self, instance: Instance) -> Vec<Message> {
        let table = Table { name: instance.nft_table(), marks: instance.marks() };
        let mut messages = vec![table.table(kind::NEW_TABLE), table.table(kind::DEL_TABLE)];
        messages.push(table.table(kind::NEW_TABLE));
        for (set, ranges) in self.elements.sets() {
            messages.push(table.set(set));
            table.elements(kind::NEW_ELEMENT, set, ranges.iter(), &mut messages);
        }
        table.chains(&self.shape, &mut messages);
        table.rules(&self.shape, &mut messages);
        messages
    }

    /// Messages that lead from the elements of `applied` to those of `self`; the shapes must be equal.
    pub(super) fn update(&self, applied: &Elements, instance: Instance) -> Vec<Message> {
        let table = Table { name: instance.nft_table(), marks: instance.marks() };
        let mut messages = Vec::new();
        for ((set, wanted), (_, old)) in self.elements.sets().into_iter().zip(applied.sets()) {
            table.elements(kind::DEL_ELEMENT, set, old.without(wanted), &mut messages);
            table.elements(kind::NEW_ELEMENT, set, wanted.without(old), &mut messages);
        }
        messages
    }
}

impl Elements {
    fn sets(&self) -> [(Set, &Ranges); 3] {
        [(PEERS, &self.peers), (SUBNETS, &self.subnets), (LINKS, &self.links)]
    }
}

/// Messages that remove the table.
pub(super) fn remove(instance: Instance) -> Vec<Message> {
    vec![Table { name: instance.nft_table(), marks: instance.marks() }.table(kind::DEL_TABLE)]
}

struct Table {
    name: String,
    marks: Marks,
}

impl Table {
    fn table(&self, kind: u8) -> Message {
        let flags = if kind == kind::NEW_TABLE { CREATE } else { 0 };
        let mut message = message(kind, flags, Family::Ipv4);
        message.attr_str(attribute::TABLE, &self.name);
        if kind == kind::NEW_TABLE {
            message.attr_be32(attribute::TABLE_FLAGS, 0);
        }
        message
    }

    /// A set of IPv4 address ranges.
    fn set(&self, set: Set) -> Message {
        const INTERVAL: u32 = 0x4;
        /// `ipv4_addr` in the type numbers of `nft`, and its length.
        const KEY_TYPE: u32 = 7;
        const KEY_LEN: u32 = 4;
        /// For `nft`, when it lists the set: keys are in network byte order (type 0, 4 bytes, value 2).
        const KEY_BYTE_ORDER: [u8; 6] = [0, 4, 2, 0, 0, 0];
        let mut message = message(kind::NEW_SET, CREATE | EXCL, Family::Ipv4);
        message.attr_str(attribute::TABLE, &self.name);
        message.attr_str(attribute::SET_NAME, set.name);
        message.attr_be32(attribute::SET_FLAGS, INTERVAL);
        message.attr_be32(attribute::SET_KEY_TYPE, KEY_TYPE);
        message.attr_be32(attribute::SET_KEY_LEN, KEY_LEN);
        message.attr_be32(attribute::SET_ID, set.id);
        message.attr(attribute::SET_USERDATA, &KEY_BYTE_ORDER);
        message
    }

    /// Adds or removes ranges. A range is two elements: its first address, and the one behind its last with a flag.
    fn elements(&self, kind: u8, set: Set, ranges: impl Iterator<Item = Range>, messages: &mut Vec<Message>) {
        const INTERVAL_END: u32 = 0x1;
        let ends = |range: Range| {
            let end = range.last.checked_add(1).map(|end| (end, true));
            std::iter::once((range.first, false)).chain(end)
        };
        let all: Vec<(u32, bool)> = ranges.flat_map(ends).collect();
        for chunk in all.chunks(ELEMENTS_PER_MESSAGE) {
            let flags = if kind == kind::NEW_ELEMENT { CREATE } else { 0 };
            let mut message = message(kind, flags, Family::Ipv4);
            message.attr_str(attribute::TABLE, &self.name);
            message.attr_str(attribute::ELEMENTS_SET, set.name);
            message.nested(attribute::ELEMENTS_LIST, |list| {
                for (address, is_end) in chunk {
                    list.nested(attribute::LIST_ITEM, |element| {
                        if *is_end {
                            element.attr_be32(attribute::ELEMENT_FLAGS, INTERVAL_END);
                        }
                        element.nested(attribute::ELEMENT_KEY, |key| {
                            key.attr_be32(attribute::DATA_VALUE, *address);
                        });
                    });
                }
            });
            messages.push(message);
        }
    }

    fn chains(&self, shape: &Shape, messages: &mut Vec<Message>) {
        for name in ["spoofed", "from-tunnel", "to-tunnel"] {
            messages.push(self.chain(name));
        }
        for (name, hook) in
            [("prerouting", Hook::Prerouting), ("input", Hook::Input), ("forward", Hook::Forward)]
        {
            messages.push(self.base_chain(name, "filter", hook, PRIORITY));
        }
        if shape.snat {
            messages.push(self.base_chain("postrouting", "nat", Hook::Postrouting, PRIORITY_SOURCE_NAT));
        }
    }

    fn chain(&self, name: &str) -> Message {
        let mut message = message(kind::NEW_CHAIN, CREATE, Family::Ipv4);
        message.attr_str(attribute::TABLE, &self.name);
        message.attr_str(attribute::CHAIN_NAME, name);
        message
    }

    fn base_chain(&self, name: &str, chain_type: &str, hook: Hook, priority: i32) -> Message {
        let mut message = self.chain(name);
        message.attr_str(attribute::CHAIN_TYPE, chain_type);
        message.attr_be32(attribute::CHAIN_POLICY, ACCEPT);
        message.nested(attribute::CHAIN_HOOK, |attributes| {
            attributes.attr_be32(attribute::HOOK_NUMBER, hook.number());
            attributes.attr(attribute::HOOK_PRIORITY, &priority.to_be_bytes());
        });
        message
    }

    fn rules(&self, shape: &Shape, messages: &mut Vec<Message>) {
        let mut add =
            |chain: &str, rule: Rule| messages.push(rule.add(Family::Ipv4, &self.name, chain, Place::End));
        let approve = |rule: Rule| rule.mark(self.marks.forward, Marks::MASK).accept();
        let tun = shape.tun.as_str();
        let segment = shape.mtu.saturating_sub(HEADERS_LEN);

        if shape.drop_spoofed {
            let rule = Rule::new("a peer's address, but not from the tunnel");
            add("prerouting", rule.not_input(tun).source_in(PEERS).goto("spoofed"));
        }
        if let Some(port) = shape.udp_port {
            add("spoofed", Rule::new("WireGuard authenticates by itself").udp_to_port(port).accept());
        }
        add("spoofed", Rule::new("flows that were there before").established().accept());
        add("spoofed", Rule::new("spoofed").counter().drop());

        add("input", approve(Rule::new("the tunnel has its own filter").input(tun)));
        if let Some(port) = shape.udp_port {
            add("input", approve(Rule::new("WireGuard").udp_to_port(port)));
        }

        let clamp = |rule: Rule| rule.tcp_syn().clamp_segment(segment);
        add("forward", clamp(Rule::new("segments that fit the tunnel").input(tun)));
        add("forward", clamp(Rule::new("segments that fit the tunnel").output(tun)));
        add("forward", Rule::new("out of the tunnel").input(tun).goto("from-tunnel"));
        add("forward", Rule::new("into the tunnel").output(tun).goto("to-tunnel"));

        let hairpin = Rule::new("peers reach each other by themselves");
        add("from-tunnel", hairpin.output(tun).counter().drop());
        add("from-tunnel", approve(Rule::new("advertised subnets").destination_in(SUBNETS)));
        let link = Rule::new("neighbours on advertised public links");
        add("from-tunnel", approve(link.destination_in(LINKS).next_hop_in(LINKS)));
        add("from-tunnel", Rule::new("never to anywhere else").counter().drop());

        if shape.stateful {
            add("to-tunnel", approve(Rule::new("answers").established()));
            add("to-tunnel", Rule::new("stateful filtering").counter().drop());
        } else {
            add("to-tunnel", approve(Rule::new("hosts behind this one")));
        }

        if shape.snat {
            let rule = Rule::new("subnet hosts answer to this host");
            let approved = rule.not_output(tun).marked(self.marks.forward, Marks::MASK);
            add("postrouting", approved.masquerade());
        }
    }
}
