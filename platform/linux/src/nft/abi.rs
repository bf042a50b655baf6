//! Numbers of the kernel interface (include/uapi/linux/netfilter/nf_tables.h) and the message frame around them.
//!
//! All numbers in attributes are in network byte order.

use crate::netlink::{Message, attr_string, split_at_attrs};

/// Number of nf_tables among the netfilter subsystems.
const SUBSYSTEM: u16 = 10;

/// Address families as nf_tables counts them (`NFPROTO_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    /// All, in dumps and in the frame of a transaction.
    Unspecified,
    /// IPv4 and IPv6 together.
    Inet,
    /// IPv4.
    Ipv4,
    /// Any other.
    Other(u8),
}

impl Family {
    const fn number(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::Inet => 1,
            Self::Ipv4 => 2,
            Self::Other(number) => number,
        }
    }

    pub(super) const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Unspecified,
            1 => Self::Inet,
            2 => Self::Ipv4,
            other => Self::Other(other),
        }
    }
}

/// Message types within the subsystem (`NFT_MSG_*`).
pub(super) mod kind {
    pub(crate) const NEW_TABLE: u8 = 0;
    pub(crate) const DEL_TABLE: u8 = 2;
    pub(crate) const NEW_CHAIN: u8 = 3;
    pub(crate) const GET_CHAIN: u8 = 4;
    pub(crate) const NEW_RULE: u8 = 6;
    pub(crate) const GET_RULE: u8 = 7;
    pub(crate) const DEL_RULE: u8 = 8;
    pub(crate) const NEW_SET: u8 = 9;
    pub(crate) const NEW_ELEMENT: u8 = 12;
    pub(crate) const DEL_ELEMENT: u8 = 14;
    pub(crate) const NEW_GENERATION: u8 = 15;
}

/// Attributes of tables, chains, rules, sets and elements (`NFTA_*`).
pub(super) mod attribute {
    /// The first attribute of every object names its table.
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const TABLE_FLAGS: u16 = 2;

    pub(crate) const CHAIN_NAME: u16 = 3;
    pub(crate) const CHAIN_HOOK: u16 = 4;
    pub(crate) const CHAIN_POLICY: u16 = 5;
    pub(crate) const CHAIN_TYPE: u16 = 7;
    pub(crate) const HOOK_NUMBER: u16 = 1;
    pub(crate) const HOOK_PRIORITY: u16 = 2;

    pub(crate) const RULE_CHAIN: u16 = 2;
    pub(crate) const RULE_HANDLE: u16 = 3;
    pub(crate) const RULE_EXPRESSIONS: u16 = 4;
    pub(crate) const RULE_USERDATA: u16 = 7;

    pub(crate) const SET_NAME: u16 = 2;
    pub(crate) const SET_FLAGS: u16 = 3;
    pub(crate) const SET_KEY_TYPE: u16 = 4;
    pub(crate) const SET_KEY_LEN: u16 = 5;
    pub(crate) const SET_ID: u16 = 10;
    pub(crate) const SET_USERDATA: u16 = 13;

    pub(crate) const ELEMENTS_SET: u16 = 2;
    pub(crate) const ELEMENTS_LIST: u16 = 3;
    pub(crate) const ELEMENT_KEY: u16 = 1;
    pub(crate) const ELEMENT_FLAGS: u16 = 3;

    pub(crate) const LIST_ITEM: u16 = 1;
    pub(crate) const DATA_VALUE: u16 = 1;
}

/// `NF_DROP` and `NF_ACCEPT`.
pub(super) const DROP: u32 = 0;
pub(super) const ACCEPT: u32 = 1;

/// Hooks (`NF_INET_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    Prerouting,
    Input,
    Forward,
    Postrouting,
}

impl Hook {
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Postrouting => 4,
        }
    }
}

/// A message of the subsystem: `| family u8 | version u8 = 0 | resource u16 = 0 |` and attributes.
pub(super) fn message(kind: u8, flags: u16, family: Family) -> Message {
    let mut message = Message::new(SUBSYSTEM << 8 | u16::from(kind), flags);
    message.put(&[family.number(), 0, 0, 0]);
    message
}

/// Puts begin and end around the messages of one transaction.
pub(super) fn transaction(messages: Vec<Message>) -> Vec<Message> {
    /// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
    const BEGIN: u16 = 0x10;
    const END: u16 = 0x11;
    let frame = |kind| {
        let mut message = Message::new(kind, 0);
        let [high, low] = SUBSYSTEM.to_be_bytes();
        message.put(&[0, 0, high, low]);
        message
    };
    std::iter::once(frame(BEGIN)).chain(messages).chain([frame(END)]).collect()
}

/// Splits a received message into its type within the subsystem, its family and its attributes.
pub(super) fn split(kind: u16, payload: &[u8]) -> Option<(u8, Family, &[u8])> {
    let [high, low] = kind.to_be_bytes();
    let (fixed, attributes) = split_at_attrs::<4>(payload)?;
    (u16::from(high) == SUBSYSTEM).then(|| (low, Family::from_number(fixed[0]), attributes))
}

/// The comment in a rule's user data: `| type u8 = 0 | len u8 | text, zero |` among others of that form.
pub(super) fn comment(userdata: &[u8]) -> Option<String> {
    const COMMENT: u8 = 0;
    let mut rest = userdata;
    while let [kind, len, tail @ ..] = rest {
        let value = tail.get(..usize::from(*len))?;
        if *kind == COMMENT {
            return Some(attr_string(value));
        }
        rest = &tail[value.len()..];
    }
    None
}

/// User data that holds a comment. Texts are short constants; one beyond 253 bytes would be cut.
pub(super) fn comment_userdata(text: &str) -> Vec<u8> {
    let text = &text.as_bytes()[..text.len().min(253)];
    let len = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    [&[0, len], text, &[0]].concat()
}
