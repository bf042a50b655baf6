//! What a source may do with us beside sending packets.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::rules::{CapDst, Match};

/// Grants of all rules. Not on the packet path: lookups walk the rules.
#[derive(Clone, Debug, Default)]
pub struct Capabilities {
    grants: Vec<(Vec<IpNet>, Vec<CapDst>)>,
}

impl Capabilities {
    pub(crate) fn new(matches: &[Match]) -> Self {
        let granting = matches.iter().filter(|rule| !rule.caps.is_empty());
        Self { grants: granting.map(|rule| (rule.srcs.clone(), rule.caps.clone())).collect() }
    }

    /// Capabilities of `src` towards our address `dst`, with the values of all grants in order.
    pub fn lookup(&self, src: IpAddr, dst: IpAddr) -> BTreeMap<String, Vec<Value>> {
        let mut found = BTreeMap::<String, Vec<Value>>::new();
        for (srcs, caps) in &self.grants {
            if !srcs.iter().any(|net| net.contains(&src)) {
                continue;
            }
            for grant in caps.iter().filter(|grant| !grant.cap.is_empty() && grant.dst.contains(&dst)) {
                found.entry(grant.cap.clone()).or_default().extend(grant.values.iter().cloned());
            }
        }
        found
    }
}
