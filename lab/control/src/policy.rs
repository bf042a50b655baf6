//! Who may reach what: a small subset of the field's grants.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The whole policy.
///
/// ```json
/// {"grants": [{"src": ["*"], "dst": ["tag:web", "10.0.0.0/24"], "ip": ["tcp:80", "tcp:8000-8080", "icmp:*"]}],
///  "auto_approve_routes": ["10.0.0.0/8"],
///  "node_attrs": [{"target": ["*"], "attr": ["magicdns-aaaa"]}]}
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// What is allowed; everything else is denied.
    pub grants: Vec<Grant>,
    /// Advertised routes inside these prefixes are approved at once.
    pub auto_approve_routes: Vec<ipnet::IpNet>,
    /// Node attributes beyond the baseline.
    pub node_attrs: Vec<NodeAttr>,
}

/// One permission.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grant {
    /// Sources: `*`, `tag:x`, a user's login name, a node's name, an address or a prefix.
    pub src: Vec<String>,
    /// Destinations, in the same forms; a prefix also means a subnet behind a node.
    pub dst: Vec<String>,
    /// `*`, a port, a range, `proto:port`, `proto:first-last` or `proto:*`.
    pub ip: Vec<String>,
    /// Capabilities toward the destination, by name.
    pub app: BTreeMap<String, Vec<Value>>,
}

/// Attributes for some nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeAttr {
    /// Which nodes, in the forms of [`Grant::src`].
    pub target: Vec<String>,
    /// Attribute names.
    pub attr: Vec<String>,
    /// Attributes with values, by name.
    pub values: BTreeMap<String, Vec<Value>>,
}

impl Policy {
    /// Everybody may reach everything.
    pub fn allow_all() -> Self {
        Self { grants: vec![Grant::new(&["*"], &["*"], &["*"])], ..Self::default() }
    }

    /// Nobody may reach anything.
    pub fn deny_all() -> Self {
        Self::default()
    }

    /// A policy of these grants.
    pub fn of(grants: impl IntoIterator<Item = Grant>) -> Self {
        Self { grants: grants.into_iter().collect(), ..Self::default() }
    }
}

impl Grant {
    /// A grant of ports.
    pub fn new(src: &[&str], dst: &[&str], ip: &[&str]) -> Self {
        let own = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        Self { src: own(src), dst: own(dst), ip: own(ip), app: BTreeMap::new() }
    }
}
