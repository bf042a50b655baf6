//! IPv4 policy rules.

use tsrs_platform_api::{Instance, Marks};

use crate::netlink::{self, Message, NetlinkError, Socket, attr_u32, attrs, split_at_attrs};
use crate::rtnl::{IPV4, ROUTE_PROTOCOL, kind};

/// Attributes (`FRA_*`).
const PRIORITY: u16 = 6;
const MARK: u16 = 10;
const TABLE: u16 = 15;
const MASK: u16 = 16;
const PROTOCOL: u16 = 21;

/// Tables of the host.
const TABLE_MAIN: u32 = 254;
const TABLE_DEFAULT: u32 = 253;

/// What a rule does (`FR_ACT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleAction {
    /// Looks the packet up in a table.
    Lookup(u32),
    /// Refuses the packet.
    Unreachable,
    /// Any other.
    Other(u8),
}

/// One rule. Selectors that the agent does not use are not told apart: see [`Rule::plain`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) priority: u32,
    /// Mark and mask that select packets; `None` selects all.
    pub(crate) mark: Option<(u32, u32)>,
    pub(crate) action: RuleAction,
    pub(crate) protocol: u8,
    /// Whether nothing but the mark selects packets.
    pub(crate) plain: bool,
}

impl Rule {
    /// The four rules of an instance, in the order of their priorities (client sheet §3.1).
    pub(crate) fn of_instance(instance: Instance) -> [Self; 4] {
        let priorities = instance.priorities();
        let bypass = Some((instance.marks().bypass, Marks::MASK));
        let rule =
            |priority, mark, action| Self { priority, mark, action, protocol: ROUTE_PROTOCOL, plain: true };
        [
            rule(priorities.bypass_main, bypass, RuleAction::Lookup(TABLE_MAIN)),
            rule(priorities.bypass_default, bypass, RuleAction::Lookup(TABLE_DEFAULT)),
            rule(priorities.bypass_unreachable, bypass, RuleAction::Unreachable),
            rule(priorities.tunnel, None, RuleAction::Lookup(instance.table())),
        ]
    }

    /// Whether both select and do the same, whoever made them.
    pub(crate) fn same_effect(&self, other: &Self) -> bool {
        Self { protocol: other.protocol, ..self.clone() } == *other
    }

    /// A request that adds the rule.
    pub(crate) fn add(&self) -> Message {
        self.message(kind::NEW_RULE, netlink::CREATE | netlink::EXCL)
    }

    /// A request that removes the rule.
    pub(crate) fn remove(&self) -> Message {
        self.message(kind::DEL_RULE, 0)
    }

    fn message(&self, kind: u16, flags: u16) -> Message {
        let (action, table) = match self.action {
            RuleAction::Lookup(table) => (1, table),
            RuleAction::Unreachable => (7, 0),
            RuleAction::Other(number) => (number, 0),
        };
        let mut message = Message::new(kind, flags);
        message.put(&[IPV4, 0, 0, 0]);
        message.put(&[u8::try_from(table).unwrap_or(0), 0, 0, action]);
        message.put(&[0; 4]);
        message.attr_u32(PRIORITY, self.priority);
        if let Some((mark, mask)) = self.mark {
            message.attr_u32(MARK, mark);
            message.attr_u32(MASK, mask);
        }
        if table != 0 {
            message.attr_u32(TABLE, table);
        }
        message.attr(PROTOCOL, &[self.protocol]);
        message
    }

    /// From the payload of a rule message; `None` for other families.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        /// `FRA_*` that do not select packets: pad, table, suppressors, flow, l3mdev=0, protocol, and ours.
        const NOT_SELECTORS: [u16; 9] = [PRIORITY, MARK, TABLE, MASK, PROTOCOL, 11, 13, 14, 18];
        /// `FIB_RULE_INVERT`.
        const INVERT: u32 = 0x2;
        let (fixed, rest) = split_at_attrs::<12>(payload)?;
        if fixed[0] != IPV4 {
            return None;
        }
        let flags = u32::from_ne_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]);
        let mut table = u32::from(fixed[4]);
        let (mut mark, mut mask) = (0, None);
        let mut rule = Self {
            priority: 0,
            mark: None,
            action: RuleAction::Unreachable,
            protocol: 0,
            plain: flags & INVERT == 0 && fixed[1..4] == [0, 0, 0],
        };
        for attr in attrs(rest) {
            match attr.kind {
                PRIORITY => rule.priority = attr_u32(attr.payload)?,
                MARK => mark = attr_u32(attr.payload)?,
                MASK => mask = attr_u32(attr.payload),
                TABLE => table = attr_u32(attr.payload)?,
                PROTOCOL => rule.protocol = *attr.payload.first()?,
                other => rule.plain &= NOT_SELECTORS.contains(&other),
            }
        }
        rule.mark = mask.map(|mask| (mark, mask)).or((mark != 0).then_some((mark, u32::MAX)));
        rule.action = match fixed[7] {
            1 => RuleAction::Lookup(table),
            7 => RuleAction::Unreachable,
            other => RuleAction::Other(other),
        };
        Some(rule)
    }
}

/// All IPv4 rules, in the kernel's order.
pub(crate) fn rules(socket: &mut Socket) -> Result<Vec<Rule>, NetlinkError> {
    let mut message = Message::new(kind::GET_RULE, netlink::DUMP);
    message.put(&[IPV4, 0, 0, 0, 0, 0, 0, 0]);
    message.put(&[0; 4]);
    socket.dump(&message, |kind, payload| (kind == kind::NEW_RULE).then(|| Rule::parse(payload)).flatten())
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
    fn rules_of_every_instance_read_back() {
        for rule in Instance::all().flat_map(Rule::of_instance) {
            assert_eq!(Rule::parse(&payload_of(&rule.add())), Some(rule));
        }
    }

    #[test]
    fn a_rule_with_another_selector_is_not_ours() {
        let own = Rule::of_instance(Instance::ZERO)[3].clone();
        let mut message = own.add();
        message.attr(2, &[10, 0, 0, 1]);
        let other = Rule::parse(&payload_of(&message)).unwrap();
        assert!(!other.same_effect(&own));
        assert!(Rule { protocol: 3, ..own.clone() }.same_effect(&own));
    }

    #[test]
    fn every_truncation_is_survived() {
        let payload = payload_of(&Rule::of_instance(Instance::ZERO)[0].add());
        for len in 0..12 {
            assert_eq!(Rule::parse(&payload[..len]), None);
        }
        for len in 12..payload.len() {
            let _ = Rule::parse(&payload[..len]);
        }
    }
}
