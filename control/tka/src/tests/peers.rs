//! Which peers are kept.

use std::collections::BTreeMap;

use serde_json::Value;
use tsrs_base_types::{NodeId, NodePublic};

use super::signatures::uses_weak_wrapping_key;
use super::support::{aum, bootstrap, file_of, flag, hex, list, node, signer, text};
use crate::{
    Admission, DropCause, FilterPeer, FilterPolicy, Key, NodeKeySignature, PeerFilter, Refusal, State,
    StateId,
};

struct Case {
    peers: Vec<(NodeId, NodePublic, Vec<u8>, bool)>,
}

impl Case {
    fn new(case: &Value) -> Self {
        let peer = |peer: &Value| {
            let id = NodeId(peer["id"].as_i64().unwrap());
            let signature = peer["signature"].as_str().map(tsrs_lab_vectors::hex).unwrap_or_default();
            (id, node(&peer["key"]), signature, flag(&peer["unsigned_peerapi_only"]))
        };
        Self { peers: list(&case["peers"]).iter().map(peer).collect() }
    }

    fn peers(&self) -> impl Iterator<Item = FilterPeer<'_>> {
        self.peers.iter().map(|(id, key, signature, unsigned)| FilterPeer {
            id: *id,
            key: *key,
            signature,
            unsigned_peerapi_only: *unsigned,
        })
    }
}

fn admissions(filter: &PeerFilter) -> BTreeMap<NodeId, Admission> {
    filter.peers().map(|(id, _, admission)| (id, admission)).collect()
}

fn ids(value: &Value) -> Vec<NodeId> {
    list(value).iter().map(|id| NodeId(id.as_i64().unwrap())).collect()
}

#[test]
fn peers_are_kept_as_by_the_reference() {
    let file = file_of("netmap-filter");
    let (authority, _) = bootstrap(aum(&file["genesis"]));
    assert_eq!(list(&file["cases"]).len(), 177);
    for value in list(&file["cases"]) {
        let case = Case::new(value);
        let mut full = PeerFilter::new(authority.state(), FilterPolicy::default());
        let changes = full.set_peers(case.peers());
        assert_eq!(changes.len(), case.peers.len());
        let kept: Vec<NodeId> = case
            .peers
            .iter()
            .map(|(id, ..)| *id)
            .filter(|id| !matches!(full.admission(*id), Some(Admission::Dropped(_))))
            .collect();
        assert_eq!(kept, ids(&value["kept"]), "{}", value["name"]);
        assert_deltas(&case, &full, value, authority.state());
        if let Some(own) = value.get("self").filter(|own| !own.is_null()) {
            let signature = own["signature"].as_str().map(tsrs_lab_vectors::hex).unwrap_or_default();
            let locked_out = authority.authorize(node(&own["key"]), &signature).is_err();
            assert_eq!(locked_out, flag(&value["self_locked_out"]), "{}", value["name"]);
        }
    }
}

/// The reference keeps a peer whose rotation anybody could have signed; here it is dropped.
#[test]
fn a_forged_rotation_keeps_nobody() {
    let file = file_of("nks-verdicts");
    let (authority, _) = bootstrap(aum(&file["genesis"]));
    let mut forged = 0;
    for case in list(&file["cases"]).iter().filter(|case| flag(&case["ok"])) {
        let signature = hex(&case["signature"]);
        if !uses_weak_wrapping_key(&NodeKeySignature::decode(&signature).unwrap()) {
            continue;
        }
        forged += 1;
        let mut filter = PeerFilter::new(authority.state(), FilterPolicy::default());
        let key = node(&case["node_key"]);
        let peer = FilterPeer { id: NodeId(1), key, signature: &signature, unsigned_peerapi_only: false };
        let dropped = Admission::Dropped(DropCause::Refused(Refusal::WeakWrappingKey));
        assert_eq!(filter.set_peers([peer]), [(NodeId(1), dropped)]);
    }
    assert!(forged > 0);
}

/// Peers that come one by one, in any order, are judged as in a full netmap; and whom the reference removes on its delta path is
/// dropped at once.
fn assert_deltas(case: &Case, full: &PeerFilter, value: &Value, state: &State) {
    for reverse in [false, true] {
        let mut peers: Vec<_> = case.peers().collect();
        if reverse {
            peers.reverse();
        }
        let mut delta = PeerFilter::new(state, FilterPolicy::default());
        let mut told: BTreeMap<NodeId, Admission> = BTreeMap::new();
        for peer in &peers {
            let changes = delta.upsert(*peer);
            assert!(changes.iter().any(|(id, _)| *id == peer.id), "a new peer is always reported");
            told.extend(changes);
            assert_eq!(told, admissions(&delta));
            let removed = list(&value["delta"])
                .iter()
                .any(|entry| entry["id"].as_i64() == Some(peer.id.0) && text(&entry["result"]) == "remove");
            assert!(!removed || matches!(delta.admission(peer.id), Some(Admission::Dropped(_))));
        }
        assert_eq!(admissions(&delta), admissions(full), "{}", value["name"]);
        // And away again: what is left is judged as if it had come alone.
        while let Some(gone) = peers.pop() {
            told.remove(&gone.id);
            told.extend(delta.remove(gone.id));
            let mut fresh = PeerFilter::new(state, FilterPolicy::default());
            fresh.set_peers(peers.iter().copied());
            assert_eq!(admissions(&delta), admissions(&fresh), "{}", value["name"]);
            assert_eq!(told, admissions(&delta));
        }
    }
}

fn state_of(signers: &[&str]) -> State {
    let keys = signers.iter().map(|name| Key::new(signer(name).public(), 1, None));
    State::new(keys.collect(), vec![[1; 32]], StateId(1, 2))
}

#[test]
fn a_key_that_is_no_longer_trusted_takes_its_peers_along_and_brings_them_back() {
    let key = |byte| NodePublic::from_bytes([byte; 32]);
    let sign = |byte, name| NodeKeySignature::direct(key(byte), None, &signer(name)).unwrap().encode();
    let (first, second) = (sign(1, "S1"), sign(2, "S2"));
    let peers = || {
        [(1, &first), (2, &second)].map(|(id, signature)| FilterPeer {
            id: NodeId(i64::from(id)),
            key: key(id),
            signature,
            unsigned_peerapi_only: false,
        })
    };
    let mut filter = PeerFilter::new(&state_of(&["S1"]), FilterPolicy::default());
    filter.set_peers(peers());
    let untrusted = Admission::Dropped(DropCause::Refused(Refusal::Untrusted));
    assert_eq!(filter.admission(NodeId(1)), Some(Admission::Signed));
    assert_eq!(filter.admission(NodeId(2)), Some(untrusted));
    let changes = filter.set_state(&state_of(&["S2"]));
    assert_eq!(changes, [(NodeId(1), untrusted), (NodeId(2), Admission::Signed)]);
    assert_eq!(filter.set_state(&state_of(&["S2"])), []);
    assert_eq!(filter.set_state(&state_of(&["S1", "S2"])), [(NodeId(1), Admission::Signed)]);
    // The same netmap again changes nothing.
    assert_eq!(filter.set_peers(peers()), []);
    // A known peer with a new key is judged anew.
    let stolen = FilterPeer { key: key(9), ..peers()[0] };
    let dropped = Admission::Dropped(DropCause::Refused(Refusal::OtherNode));
    assert_eq!(filter.upsert(stolen), [(NodeId(1), dropped)]);
}

#[test]
fn a_required_lock_drops_unsigned_peers() {
    let peer = FilterPeer {
        id: NodeId(1),
        key: NodePublic::from_bytes([1; 32]),
        signature: &[],
        unsigned_peerapi_only: true,
    };
    let mut filter = PeerFilter::new(&state_of(&["S1"]), FilterPolicy::default());
    assert_eq!(filter.set_peers([peer]), [(NodeId(1), Admission::PeerApiOnly)]);
    let dropped = Admission::Dropped(DropCause::Unsigned);
    assert_eq!(filter.set_policy(FilterPolicy { lock_required: true }), [(NodeId(1), dropped)]);
}

/// Random netmaps of rotations against the rules written down once more in the plainest way.
#[test]
fn random_netmaps_are_judged_as_by_the_plain_rules() {
    let mut seed = 7_u64;
    let mut below = move |limit: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % limit
    };
    let key = |number: u64| NodePublic::from_bytes([u8::try_from(number + 1).unwrap(); 32]);
    for round in 0..40 {
        let mut filter = PeerFilter::new(&state_of(&["S1"]), FilterPolicy::default());
        // By id: the node keys from the newest back, and the wrapping key.
        let mut model: BTreeMap<NodeId, (Vec<NodePublic>, u8)> = BTreeMap::new();
        for _ in 0..25 {
            let id = NodeId(i64::try_from(below(8)).unwrap());
            if below(6) == 0 {
                filter.remove(id);
                model.remove(&id);
            } else {
                let wrapping = u8::try_from(2 + below(2)).unwrap();
                let signer_of_rotation = signer(&format!("S{wrapping}"));
                let mut keys = vec![key(below(12))];
                let mut signature =
                    NodeKeySignature::direct(keys[0], Some(signer_of_rotation.public()), &signer("S1"))
                        .unwrap();
                for _ in 0..below(3) {
                    let next = key(below(12));
                    signature = NodeKeySignature::rotation(next, signature, &signer_of_rotation).unwrap();
                    keys.insert(0, next);
                }
                let signature = signature.encode();
                filter.upsert(FilterPeer {
                    id,
                    key: keys[0],
                    signature: &signature,
                    unsigned_peerapi_only: false,
                });
                model.insert(id, (keys, wrapping));
            }
            let previous: Vec<NodePublic> =
                model.values().flat_map(|(keys, _)| keys.iter().skip(1).copied()).collect();
            let mut obsolete = previous.clone();
            for group in [2, 3] {
                let mut chains: Vec<&Vec<NodePublic>> = model
                    .values()
                    .filter(|(keys, wrapping)| {
                        keys.len() > 1 && *wrapping == group && !previous.contains(&keys[0])
                    })
                    .map(|(keys, _)| keys)
                    .collect();
                chains.sort_by_key(|keys| std::cmp::Reverse(keys.len()));
                let tie = chains.len() > 1 && chains[0].len() == chains[1].len();
                obsolete.extend(chains.iter().skip(usize::from(!tie)).map(|keys| keys[0]));
            }
            for (id, (keys, _)) in &model {
                let kept = filter.admission(*id) == Some(Admission::Signed);
                assert_eq!(kept, !obsolete.contains(&keys[0]), "round {round}, peer {id:?}");
            }
        }
    }
}
