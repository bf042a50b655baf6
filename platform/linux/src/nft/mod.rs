//! The firewall: a table of our own in nf_tables, and one accept rule in foreign chains that would drop by policy.
//!
//! # Two halves, and why
//!
//! A verdict "accept" ends only the chain that gives it: the packet then meets the chains of the other tables at the
//! same hook, and one of those with policy drop still drops it. So nothing that our own table accepts is thereby let
//! in. Our table ([`table`]) therefore only *drops* and *marks*: early, before the usual filter priority, it drops what
//! must not pass and puts the forward mark on what the tunnel approves. And where another table's base chain at `input`
//! or `forward` has policy drop, one rule is put at its head ([`foreign`]): "what carries the mark is accepted". That rule
//! opens nothing by itself, it needs no look at the foreign rules, it has our tag as its comment, by which it is found
//! and removed, and `iptables` lists it as `-m mark`. Chains that end in an explicit reject (firewalld, some NixOS
//! configurations) are the administrator's word on what comes in and are left alone.
//!
//! Tables of the older kernel interface (`iptables-legacy`) are not part of nf_tables and cannot be changed this way;
//! that is told as a warning.
//!
//! Everything goes as one transaction: the kernel takes all of it or nothing, and no packet sees a half-built table.

mod abi;
mod expr;
mod firewall;
mod foreign;
mod ranges;
mod table;

pub(crate) use firewall::Firewall;
pub(crate) use foreign::is_relevant;
pub(crate) use table::Wanted;

/// Whether a message of a dump is a foreign chain that drops, or a rule of an instance in one.
#[cfg(feature = "fuzzing")]
pub(crate) fn concerns(kind: u16, payload: &[u8], instance: tsrs_platform_api::Instance) -> bool {
    foreign::dropping_chain(kind, payload).is_some()
        || foreign::tagged_rule(kind, payload, &foreign::tag(instance)).is_some()
}

#[cfg(test)]
mod tests;
