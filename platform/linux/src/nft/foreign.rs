//! The one rule in foreign base chains whose policy is drop: "what our table approved is accepted".

use tsrs_platform_api::{Instance, Marks};

use crate::netlink::{DUMP, Message, NetlinkError, Socket, attr_string, attrs};
use crate::nft::abi::{DROP, Family, Hook, attribute, comment, kind, message, split};
use crate::nft::expr::{Place, Rule};

/// Comment by which rules of an instance are found in foreign chains.
pub(crate) fn tag(instance: Instance) -> String {
    format!("{} approved", instance.nft_table())
}

/// Whether a notification can mean that our table, or a rule of ours in a foreign chain, has to be put back, given that
/// we did not cause it: anything about our own table, a removed rule with our tag, a base chain that is new or has
/// another policy.
pub(crate) fn is_relevant(kind: u16, payload: &[u8], instance: Instance) -> bool {
    let Some((kind, _, attributes)) = split(kind, payload) else { return false };
    if kind == kind::NEW_GENERATION {
        return false;
    }
    let table = instance.nft_table();
    attrs(attributes).any(|attr| match (kind, attr.kind) {
        (_, attribute::TABLE) => attr_string(attr.payload) == table,
        (kind::NEW_CHAIN, attribute::CHAIN_HOOK) => true,
        (kind::DEL_RULE, attribute::RULE_USERDATA) => comment(attr.payload) == Some(tag(instance)),
        _ => false,
    })
}

/// A chain of any table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    family: Family,
    table: String,
    name: String,
}

/// A rule of ours in a foreign chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tagged {
    chain: Chain,
    handle: u64,
}

/// Base chains that would drop by policy what comes in or is forwarded, our own table left out.
pub(super) fn dropping_chains(socket: &mut Socket) -> Result<Vec<Chain>, NetlinkError> {
    socket.dump(&message(kind::GET_CHAIN, DUMP, Family::Unspecified), |kind, payload| {
        dropping_chain(kind, payload)
    })
}

pub(super) fn dropping_chain(kind: u16, payload: &[u8]) -> Option<Chain> {
    let (kind::NEW_CHAIN, family @ (Family::Inet | Family::Ipv4), attributes) = split(kind, payload)? else {
        return None;
    };
    let mut chain = Chain { family, table: String::new(), name: String::new() };
    let (mut hook, mut policy, mut is_filter) = (None, None, false);
    for attr in attrs(attributes) {
        match attr.kind {
            attribute::TABLE => chain.table = attr_string(attr.payload),
            attribute::CHAIN_NAME => chain.name = attr_string(attr.payload),
            attribute::CHAIN_TYPE => is_filter = attr_string(attr.payload) == "filter",
            attribute::CHAIN_POLICY => policy = be32(attr.payload),
            attribute::CHAIN_HOOK => {
                hook = attrs(attr.payload)
                    .find(|attr| attr.kind == attribute::HOOK_NUMBER)
                    .and_then(|attr| be32(attr.payload));
            }
            _ => {}
        }
    }
    let hooked = hook == Some(Hook::Input.number()) || hook == Some(Hook::Forward.number());
    (is_filter && hooked && policy == Some(DROP)).then_some(chain)
}

/// All rules that carry the tag, in any chain of any table.
pub(super) fn tagged_rules(socket: &mut Socket, tag: &str) -> Result<Vec<Tagged>, NetlinkError> {
    socket.dump(&message(kind::GET_RULE, DUMP, Family::Unspecified), |kind, payload| {
        tagged_rule(kind, payload, tag)
    })
}

pub(super) fn tagged_rule(kind: u16, payload: &[u8], tag: &str) -> Option<Tagged> {
    let (kind::NEW_RULE, family, attributes) = split(kind, payload)? else { return None };
    let mut chain = Chain { family, table: String::new(), name: String::new() };
    let (mut handle, mut is_ours) = (None, false);
    for attr in attrs(attributes) {
        match attr.kind {
            attribute::TABLE => chain.table = attr_string(attr.payload),
            attribute::RULE_CHAIN => chain.name = attr_string(attr.payload),
            attribute::RULE_HANDLE => {
                handle = attr.payload.first_chunk::<8>().map(|raw| u64::from_be_bytes(*raw))
            }
            attribute::RULE_USERDATA => is_ours = comment(attr.payload).as_deref() == Some(tag),
            _ => {}
        }
    }
    is_ours.then_some(Tagged { chain, handle: handle? })
}

impl Chain {
    /// The request that puts our rule at the head of the chain.
    pub(super) fn accept_approved(&self, instance: Instance) -> Message {
        Rule::new(tag(instance)).marked(instance.marks().forward, Marks::MASK).counter().accept().add(
            self.family,
            &self.table,
            &self.name,
            Place::Head,
        )
    }

    /// How the user knows the chain.
    pub(super) fn label(&self) -> String {
        format!("{}/{}", self.table, self.name)
    }
}

impl Tagged {
    /// Whether the rule stands in this chain.
    pub(super) fn is_in(&self, chain: &Chain) -> bool {
        self.chain == *chain
    }

    /// The request that removes the rule.
    pub(super) fn remove(&self) -> Message {
        let mut message = message(kind::DEL_RULE, 0, self.chain.family);
        message.attr_str(attribute::TABLE, &self.chain.table);
        message.attr_str(attribute::RULE_CHAIN, &self.chain.name);
        message.attr(attribute::RULE_HANDLE, &self.handle.to_be_bytes());
        message
    }
}

fn be32(payload: &[u8]) -> Option<u32> {
    payload.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))
}
