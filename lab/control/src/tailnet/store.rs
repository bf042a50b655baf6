//! What a state file keeps.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tsrs_base_types::NodeId;

use super::lock::StoredLock;
use super::{LabNode, LabUser, Lock, Tailnet};
use crate::keys::AuthKey;
use crate::policy::Policy;

/// The tailnet's part of a state file. Settings come from the configuration; the policy may have been changed since.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stored {
    users: Vec<LabUser>,
    keys: Vec<AuthKey>,
    nodes: BTreeMap<NodeId, LabNode>,
    policy: Policy,
    lock: StoredLock,
    next_node: i64,
}

impl Tailnet {
    pub(crate) fn store(&self) -> Stored {
        Stored {
            users: self.users.clone(),
            keys: self.keys.clone(),
            nodes: self.nodes.clone(),
            policy: self.policy.clone(),
            lock: self.lock.store(),
            next_node: self.next_node,
        }
    }

    pub(crate) fn restore(&mut self, stored: Stored, now: Timestamp) -> Result<()> {
        self.lock = Lock::restore(stored.lock, now)?;
        self.users = stored.users;
        self.keys = stored.keys;
        self.nodes = stored.nodes;
        self.policy = stored.policy;
        self.next_node = stored.next_node;
        Ok(())
    }
}
