//! What is left of a snapshot when some peers are kept out.
//!
//! A view is a [`Netmap`] like any other, so that whoever reads it cannot come upon a peer that was kept out. It shares
//! everything else with the snapshot it was made from.

use std::sync::Arc;

use tsrs_base_types::NodeId;
use tsrs_control_tailcfg::Node;

use crate::change::Change;
use crate::netmap::Netmap;
use crate::peers::Peers;

impl Netmap {
    /// This snapshot with other peers.
    #[must_use]
    pub fn with_peers(&self, peers: Peers) -> Self {
        Self { peers, ..self.clone() }
    }
}

impl Peers {
    /// Shows a peer as another table has it, or takes it out of sight; gives what that changes. Only tables for reading are changed in
    /// this way: what the server sent of a peer that expired stays in the table that it was folded into.
    pub fn show(&mut self, id: NodeId, node: Option<&Arc<Node>>) -> Option<Change> {
        let before = self.get(id).cloned();
        let change = match (before.as_ref(), node) {
            (None, None) => return None,
            (Some(before), Some(after)) if Arc::ptr_eq(before, after) || before == after => return None,
            (Some(before), None) => Change::PeerRemoved(Arc::clone(before)),
            (None, Some(after)) => Change::PeerAdded(Arc::clone(after)),
            (Some(before), Some(after)) => {
                Change::PeerChanged { before: Arc::clone(before), after: Arc::clone(after) }
            }
        };
        self.replace(id, before.as_deref(), node);
        Some(change)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tsrs_base_types::NodePublic;

    use super::*;
    use crate::Session;

    fn snapshot() -> Arc<Netmap> {
        let node = |n: u8| {
            json!({"ID": n, "Key": NodePublic::from_bytes([n; 32]), "Name": format!("h{n}.lab.test."),
                "Addresses": [format!("100.64.0.{n}/32")]})
        };
        let frame = json!({"Node": node(1), "Peers": [node(2), node(3)]});
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        Session::new().handle_frame(frame.to_string().as_bytes(), now).unwrap().netmap.unwrap()
    }

    #[test]
    fn a_peer_out_of_sight_is_found_by_nothing_and_comes_back_whole() {
        let full = snapshot();
        let (id, key) = (NodeId(2), NodePublic::from_bytes([2; 32]));
        let mut peers = full.peers().clone();
        let node = Arc::clone(peers.get(id).unwrap());
        assert_eq!(peers.show(id, None), Some(Change::PeerRemoved(Arc::clone(&node))));
        assert_eq!(peers.show(id, None), None);
        let view = full.with_peers(peers.clone());
        assert!(view.node(id).is_none() && view.node_by_key(&key).is_none());
        assert!(view.node_by_addr("100.64.0.2".parse().unwrap()).is_none());
        assert_eq!(view.peers().iter().map(|node| node.id).collect::<Vec<_>>(), [NodeId(3)]);
        assert!(full.node(id).is_some(), "the snapshot itself is as it was");

        assert_eq!(peers.show(id, Some(&node)), Some(Change::PeerAdded(Arc::clone(&node))));
        assert_eq!(peers.show(id, Some(&node)), None);
        assert!(peers.by_key(&key).is_some() && peers.by_addr("100.64.0.2".parse().unwrap()).is_some());
        let moved = Arc::new(Node {
            key: NodePublic::from_bytes([9; 32]),
            addresses: vec!["100.64.0.9/32".parse().unwrap()],
            ..Node::clone(&node)
        });
        let change = peers.show(id, Some(&moved));
        assert_eq!(change, Some(Change::PeerChanged { before: node, after: moved }));
        assert!(peers.by_key(&key).is_none() && peers.by_addr("100.64.0.2".parse().unwrap()).is_none());
        assert!(peers.by_addr("100.64.0.9".parse().unwrap()).is_some());
    }
}
