//! Rules as lists of expressions, in the form that `nft` compiles the same text to, so that it can list them.

use crate::netlink::Message;
use crate::nft::abi::{ACCEPT, DROP, Family, attribute, comment_userdata, kind, message};

/// The verdict register and the first data register (`NFT_REG_*`).
const VERDICT_REGISTER: u32 = 0;
const REGISTER: u32 = 1;

/// Keys of the meta expression (`NFT_META_*`).
const META_MARK: u32 = 3;
const META_IN_NAME: u32 = 6;
const META_OUT_NAME: u32 = 7;
const META_L4_PROTOCOL: u32 = 16;

const NAME_LEN: usize = 16;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Comparison (`NFT_CMP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    Equal,
    NotEqual,
}

/// Header that a payload offset counts from (`NFT_PAYLOAD_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    Network,
    Transport,
}

/// Where a rule stands in its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Behind the others.
    End,
    /// Before the others.
    Head,
}

/// A set of the same table, with the number that it has within the transaction that makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) name: &'static str,
    pub(super) id: u32,
}

/// A rule being built: matches first, then statements, in the order in which the methods are called.
#[derive(Debug)]
pub(super) struct Rule {
    expressions: Message,
    comment: String,
}

impl Rule {
    /// A rule that so far matches every packet, with the reason why it exists.
    pub(super) fn new(comment: impl Into<String>) -> Self {
        // Only the bytes behind the header are used.
        Self { expressions: Message::new(0, 0), comment: comment.into() }
    }

    /// The packet came in through this interface.
    pub(super) fn input(self, name: &str) -> Self {
        self.meta(META_IN_NAME).compare(Compare::Equal, &padded(name))
    }

    /// The packet did not come in through this interface.
    pub(super) fn not_input(self, name: &str) -> Self {
        self.meta(META_IN_NAME).compare(Compare::NotEqual, &padded(name))
    }

    /// The packet goes out through this interface.
    pub(super) fn output(self, name: &str) -> Self {
        self.meta(META_OUT_NAME).compare(Compare::Equal, &padded(name))
    }

    /// The packet does not go out through this interface.
    pub(super) fn not_output(self, name: &str) -> Self {
        self.meta(META_OUT_NAME).compare(Compare::NotEqual, &padded(name))
    }

    /// The IPv4 source address is in the set.
    pub(super) fn source_in(self, set: Set) -> Self {
        self.payload(Header::Network, 12, 4).lookup(set)
    }

    /// The IPv4 destination address is in the set.
    pub(super) fn destination_in(self, set: Set) -> Self {
        self.payload(Header::Network, 16, 4).lookup(set)
    }

    /// The next hop of the packet's route is in the set. For a destination that is on-link it is the destination.
    pub(super) fn next_hop_in(self, set: Set) -> Self {
        const NEXT_HOP_IPV4: u32 = 1;
        self.expression("rt", |rt| {
            rt.attr_be32(2, NEXT_HOP_IPV4);
            rt.attr_be32(1, REGISTER);
        })
        .lookup(set)
    }

    /// A UDP packet to this port.
    pub(super) fn udp_to_port(self, port: u16) -> Self {
        self.l4_protocol(UDP).payload(Header::Transport, 2, 2).compare(Compare::Equal, &port.to_be_bytes())
    }

    /// The first packet of a TCP connection in either direction.
    pub(super) fn tcp_syn(self) -> Self {
        const FLAGS_AT: u32 = 13;
        const SYN: u8 = 0x2;
        const SYN_OR_RST: u8 = 0x6;
        self.l4_protocol(TCP)
            .payload(Header::Transport, FLAGS_AT, 1)
            .bitwise(&[SYN_OR_RST], &[0])
            .compare(Compare::Equal, &[SYN])
    }

    /// A packet of a flow that conntrack has seen answered, or that belongs to such a flow.
    pub(super) fn established(self) -> Self {
        const STATE: u32 = 0;
        const ESTABLISHED_OR_RELATED: u32 = 0x2 | 0x4;
        self.expression("ct", |ct| {
            ct.attr_be32(2, STATE);
            ct.attr_be32(1, REGISTER);
        })
        .masked(&ESTABLISHED_OR_RELATED.to_ne_bytes())
        .compare(Compare::NotEqual, &[0; 4])
    }

    /// The packet carries this mark under this mask.
    pub(super) fn marked(self, mark: u32, mask: u32) -> Self {
        self.meta(META_MARK)
            .bitwise(&mask.to_ne_bytes(), &[0; 4])
            .compare(Compare::Equal, &mark.to_ne_bytes())
    }

    /// Gives the packet this mark and leaves the bits outside the mask.
    pub(super) fn mark(self, mark: u32, mask: u32) -> Self {
        self.meta(META_MARK).bitwise(&(!mask).to_ne_bytes(), &mark.to_ne_bytes()).expression("meta", |meta| {
            meta.attr_be32(2, META_MARK);
            meta.attr_be32(3, REGISTER);
        })
    }

    /// Lowers the largest segment that a TCP end asks for. The kernel never raises it.
    pub(super) fn clamp_segment(self, bytes: u16) -> Self {
        const MAX_SEGMENT_OPTION: u8 = 2;
        const TCP_OPTION: u32 = 1;
        self.immediate(&bytes.to_be_bytes()).expression("exthdr", |option| {
            option.attr_be32(7, REGISTER);
            option.attr(2, &[MAX_SEGMENT_OPTION]);
            option.attr_be32(3, 2);
            option.attr_be32(4, 2);
            option.attr_be32(6, TCP_OPTION);
        })
    }

    /// Counts packets and bytes.
    pub(super) fn counter(self) -> Self {
        self.expression("counter", |_| ())
    }

    /// Gives the packet the host's own address as source.
    pub(super) fn masquerade(self) -> Self {
        self.expression("masq", |_| ())
    }

    /// Drops the packet.
    pub(super) fn drop(self) -> Self {
        self.verdict(DROP, None)
    }

    /// Ends the chains of this table for the packet.
    pub(super) fn accept(self) -> Self {
        self.verdict(ACCEPT, None)
    }

    /// Goes on in another chain and does not come back.
    pub(super) fn goto(self, chain: &str) -> Self {
        /// `NFT_GOTO`, -4.
        const GOTO: u32 = 4_u32.wrapping_neg();
        self.verdict(GOTO, Some(chain))
    }

    /// The request that adds the rule.
    pub(super) fn add(self, family: Family, table: &str, chain: &str, place: Place) -> Message {
        use crate::netlink::{APPEND, CREATE};
        let flags = match place {
            Place::End => CREATE | APPEND,
            Place::Head => CREATE,
        };
        let mut request = message(kind::NEW_RULE, flags, family);
        request.attr_str(attribute::TABLE, table);
        request.attr_str(attribute::RULE_CHAIN, chain);
        request.nested(attribute::RULE_EXPRESSIONS, |list| list.put(self.expressions.body()));
        request.attr(attribute::RULE_USERDATA, &comment_userdata(&self.comment));
        request
    }

    fn expression(mut self, name: &str, fill: impl FnOnce(&mut Message)) -> Self {
        const NAME: u16 = 1;
        const DATA: u16 = 2;
        self.expressions.nested(attribute::LIST_ITEM, |expression| {
            expression.attr_str(NAME, name);
            expression.nested(DATA, fill);
        });
        self
    }

    fn meta(self, key: u32) -> Self {
        self.expression("meta", |meta| {
            meta.attr_be32(2, key);
            meta.attr_be32(1, REGISTER);
        })
    }

    fn l4_protocol(self, protocol: u8) -> Self {
        self.meta(META_L4_PROTOCOL).compare(Compare::Equal, &[protocol])
    }

    fn payload(self, header: Header, offset: u32, len: u32) -> Self {
        let base = match header {
            Header::Network => 1,
            Header::Transport => 2,
        };
        self.expression("payload", |payload| {
            payload.attr_be32(1, REGISTER);
            payload.attr_be32(2, base);
            payload.attr_be32(3, offset);
            payload.attr_be32(4, len);
        })
    }

    fn compare(self, how: Compare, value: &[u8]) -> Self {
        let operator = match how {
            Compare::Equal => 0,
            Compare::NotEqual => 1,
        };
        self.expression("cmp", |cmp| {
            cmp.attr_be32(1, REGISTER);
            cmp.attr_be32(2, operator);
            cmp.nested(3, |data| data.attr(attribute::DATA_VALUE, value));
        })
    }

    /// Keeps the bits of the mask.
    fn masked(self, mask: &[u8]) -> Self {
        self.expression("bitwise", |bitwise| {
            bitwise.attr_be32(1, REGISTER);
            bitwise.attr_be32(2, REGISTER);
            bitwise_values(bitwise, mask, &vec![0; mask.len()]);
        })
    }

    /// Keeps the bits of the mask, then flips those of `xor`. `nft` writes this form with its operator.
    fn bitwise(self, mask: &[u8], xor: &[u8]) -> Self {
        const BOOLEAN: u32 = 0;
        self.expression("bitwise", |bitwise| {
            bitwise.attr_be32(1, REGISTER);
            bitwise.attr_be32(2, REGISTER);
            bitwise.attr_be32(6, BOOLEAN);
            bitwise_values(bitwise, mask, xor);
        })
    }

    fn lookup(self, set: Set) -> Self {
        self.expression("lookup", |lookup| {
            lookup.attr_be32(2, REGISTER);
            lookup.attr_str(1, set.name);
            lookup.attr_be32(4, set.id);
        })
    }

    fn immediate(self, value: &[u8]) -> Self {
        self.expression("immediate", |immediate| {
            immediate.attr_be32(1, REGISTER);
            immediate.nested(2, |data| data.attr(attribute::DATA_VALUE, value));
        })
    }

    fn verdict(self, code: u32, chain: Option<&str>) -> Self {
        const VERDICT: u16 = 2;
        const CODE: u16 = 1;
        const CHAIN: u16 = 2;
        self.expression("immediate", |immediate| {
            immediate.attr_be32(1, VERDICT_REGISTER);
            immediate.nested(2, |data| {
                data.nested(VERDICT, |verdict| {
                    verdict.attr_be32(CODE, code);
                    if let Some(chain) = chain {
                        verdict.attr_str(CHAIN, chain);
                    }
                });
            });
        })
    }
}

fn bitwise_values(bitwise: &mut Message, mask: &[u8], xor: &[u8]) {
    bitwise.attr_be32(3, u32::try_from(mask.len()).unwrap_or_default());
    bitwise.nested(4, |data| data.attr(attribute::DATA_VALUE, mask));
    bitwise.nested(5, |data| data.attr(attribute::DATA_VALUE, xor));
}

/// An interface name as the kernel compares it: filled with zeros.
fn padded(name: &str) -> [u8; NAME_LEN] {
    let mut padded = [0; NAME_LEN];
    for (to, from) in padded.iter_mut().zip(name.bytes().take(NAME_LEN - 1)) {
        *to = from;
    }
    padded
}
