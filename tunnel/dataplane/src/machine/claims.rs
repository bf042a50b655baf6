//! Which peer has a prefix when several claim it.

use std::collections::HashMap;

use ipnet::Ipv4Net;
use tsrs_base_types::{NodeId, NodePublic};

/// Decides between peers: the higher score wins, then the lower node id (data-plane sheet §1.8), then the lower key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) key: NodePublic,
    pub(super) route_score: i32,
    pub(super) node_id: NodeId,
}

impl Claim {
    /// The greatest wins.
    fn rank(&self) -> impl Ord + use<> {
        (self.route_score, std::cmp::Reverse((self.node_id, self.key)))
    }
}

/// All claims. Most prefixes are claimed by one peer; few (subnet routes of several routers) by more.
#[derive(Debug, Default)]
pub(super) struct Claims(HashMap<Ipv4Net, Holders>);

#[derive(Debug)]
enum Holders {
    One(Claim),
    /// Sorted, the winner last.
    Several(Vec<Claim>),
}

impl Claims {
    /// A peer claims a prefix, perhaps again with another rank; gives the peer that has it now.
    pub(super) fn insert(&mut self, prefix: Ipv4Net, claim: Claim) -> NodePublic {
        let holders = self.0.entry(prefix.trunc()).or_insert(Holders::One(claim));
        let mut all = match holders {
            Holders::One(one) if one.key == claim.key => {
                *one = claim;
                return claim.key;
            }
            Holders::One(one) => vec![*one],
            Holders::Several(all) => std::mem::take(all),
        };
        all.retain(|held| held.key != claim.key);
        all.push(claim);
        all.sort_by_key(Claim::rank);
        let winner = all.last().map_or(claim.key, |winner| winner.key);
        *holders = Holders::Several(all);
        winner
    }

    /// A peer gives a prefix up; gives the peer that has it now, if any.
    pub(super) fn remove(&mut self, prefix: Ipv4Net, key: &NodePublic) -> Option<NodePublic> {
        let prefix = prefix.trunc();
        match self.0.get_mut(&prefix)? {
            Holders::One(one) if one.key == *key => {
                self.0.remove(&prefix);
                None
            }
            Holders::One(one) => Some(one.key),
            Holders::Several(all) => {
                all.retain(|held| held.key != *key);
                let winner = all.last().copied()?;
                if all.len() == 1 {
                    self.0.insert(prefix, Holders::One(winner));
                }
                Some(winner.key)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(key: u8, route_score: i32, node_id: i64) -> Claim {
        Claim { key: NodePublic::from_bytes([key; 32]), route_score, node_id: NodeId(node_id) }
    }

    #[test]
    fn higher_score_wins_then_the_lower_node_id() {
        let prefix: Ipv4Net = "10.0.0.0/8".parse().unwrap();
        let mut claims = Claims::default();
        let key = |byte| NodePublic::from_bytes([byte; 32]);
        assert_eq!(claims.insert(prefix, claim(1, 0, 10)), key(1));
        assert_eq!(claims.insert(prefix, claim(2, 0, 11)), key(1));
        assert_eq!(claims.insert(prefix, claim(3, 0, 9)), key(3));
        assert_eq!(claims.insert(prefix, claim(2, 5, 11)), key(2));
        assert_eq!(claims.insert(prefix, claim(2, -5, 11)), key(3));
        assert_eq!(claims.remove(prefix, &key(3)), Some(key(1)));
        assert_eq!(claims.remove(prefix, &key(9)), Some(key(1)));
        assert_eq!(claims.remove(prefix, &key(1)), Some(key(2)));
        assert_eq!(claims.remove(prefix, &key(2)), None);
        assert_eq!(claims.remove(prefix, &key(2)), None);
        assert!(claims.0.is_empty());
    }

    #[test]
    fn host_bits_do_not_make_another_prefix() {
        let mut claims = Claims::default();
        claims.insert("10.1.2.3/8".parse().unwrap(), claim(1, 0, 1));
        assert_eq!(claims.remove("10.0.0.0/8".parse().unwrap(), &NodePublic::from_bytes([1; 32])), None);
        assert!(claims.0.is_empty());
    }
}
