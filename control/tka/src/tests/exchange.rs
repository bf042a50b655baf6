//! Two nodes come to the same head.

use serde_json::Value;

use super::support::{aum, bootstrap, cases, file_of, flag, hash, list, now, number, signer, text};
use crate::{
    Aum, AumHash, Authority, CompactionRules, ExpectedAuthority, MemoryStorage, Pin, PinError, State,
    StateId, Storage, SyncError, SyncOffer,
};

fn assert_offer(authority: &Authority, storage: &MemoryStorage, expected: &Value) -> SyncOffer {
    let offer = authority.sync_offer(storage.graph());
    let ancestors = list(&expected["ancestors"]).iter().map(text);
    assert_eq!(offer, SyncOffer::parse(text(&expected["head"]), ancestors).unwrap());
    offer
}

/// What a node would send, checked against the case.
fn sends(authority: &Authority, storage: &MemoryStorage, offer: &SyncOffer, expected: &Value) -> Vec<Aum> {
    let missing = authority.missing(storage.graph(), offer);
    assert_eq!(missing.is_ok(), flag(&expected["ok"]), "{expected}");
    let missing = match missing {
        Ok(missing) => missing,
        Err(error) => {
            assert_eq!(error == SyncError::NoIntersection, flag(&expected["no_intersection"]));
            return Vec::new();
        }
    };
    let hashes: Vec<_> = missing.iter().map(|update| update.hash()).collect();
    if let Some(all) = expected.get("missing") {
        assert_eq!(hashes, list(all).iter().map(hash).collect::<Vec<_>>());
    } else {
        assert_eq!(hashes.len(), number(&expected["missing_count"]));
        if !hashes.is_empty() {
            assert_eq!(hashes.first(), Some(&hash(&expected["missing_first"])));
            assert_eq!(hashes.last(), Some(&hash(&expected["missing_last"])));
        }
    }
    missing.iter().map(|update| update.aum().clone()).collect()
}

fn exchange(case: &Value, a_has: Vec<Aum>, b_has: Vec<Aum>) {
    let (mut a, mut a_storage) = bootstrap(aum(&case["genesis_a"]));
    let (mut b, mut b_storage) = bootstrap(aum(&case["genesis_b"]));
    a.inform(&mut a_storage, a_has, now()).unwrap();
    b.inform(&mut b_storage, b_has, now()).unwrap();
    let a_offer = assert_offer(&a, &a_storage, &case["offer_a"]);
    let b_offer = assert_offer(&b, &b_storage, &case["offer_b"]);
    let from_a = sends(&a, &a_storage, &b_offer, &case["a_sends"]);
    let from_b = sends(&b, &b_storage, &a_offer, &case["b_sends"]);
    // A list that does not fit leaves the head where it was.
    let to_a = a.inform(&mut a_storage, from_b, now());
    let to_b = b.inform(&mut b_storage, from_a, now());
    for (taken, flag_name) in [(to_a.is_ok(), "a_inform_ok"), (to_b.is_ok(), "b_inform_ok")] {
        if let Some(expected) = case.get(flag_name) {
            assert_eq!(taken, flag(expected), "{}", case["name"]);
        }
    }
    assert_eq!(a.head(), hash(&case["head_a_after"]), "{}", case["name"]);
    assert_eq!(b.head(), hash(&case["head_b_after"]), "{}", case["name"]);
}

#[test]
fn offers_and_lists_are_those_of_the_reference() {
    let cases = cases("sync");
    assert_eq!(cases.len(), 54);
    for case in cases {
        let pool = list(&case["pool"]);
        let has = |name: &str| list(&case[name]).iter().map(|index| aum(&pool[number(index)])).collect();
        exchange(&case, has("a_has"), has("b_has"));
    }
}

#[test]
fn long_chains_are_exchanged_as_by_the_reference() {
    let file = file_of("sync-long");
    let pool: Vec<Aum> = list(&file["pool"]).iter().map(aum).collect();
    assert_eq!(list(&file["cases"]).len(), 4);
    for case in list(&file["cases"]) {
        let first = |name: &str| pool.iter().take(number(&case[name])).cloned().collect();
        exchange(case, first("a_has_first"), first("b_has_first"));
    }
}

/// A chain and the authority that it begins with.
fn long_chain() -> (Aum, Vec<Aum>) {
    let file = file_of("sync-long");
    (aum(&file["cases"][0]["genesis_a"]), list(&file["pool"]).iter().map(aum).collect())
}

#[test]
fn a_hostile_server_changes_nothing() {
    let (genesis, pool) = long_chain();
    let (mut node, mut storage) = bootstrap(genesis);
    node.inform(&mut storage, pool[..100].to_vec(), now()).unwrap();
    let head = node.head();
    let mut attempts: Vec<Vec<Aum>> = Vec::new();
    // Out of order, with a gap, with one change in the middle, from nowhere, and a first update.
    attempts.push(pool[100..120].iter().rev().cloned().collect());
    attempts.push(pool[101..120].to_vec());
    let mut changed = pool[100..120].to_vec();
    changed[10].signatures[0].signature.as_mut().unwrap()[0] ^= 1;
    attempts.push(changed);
    let mut other = pool[100].clone();
    other.prev = Some(vec![9; 32]);
    attempts.push(vec![other]);
    let mut short_parent = pool[100].clone();
    short_parent.prev.as_mut().unwrap().pop();
    attempts.push(vec![short_parent]);
    let state =
        State::new(vec![crate::Key::new(signer("S7").public(), 9, None)], vec![[1; 32]], StateId(1, 2));
    let theirs = Authority::create(state, &signer("S7")).unwrap();
    attempts.push(vec![theirs.clone()]);
    let mut grafted = theirs;
    grafted.prev = Some(head.as_bytes().to_vec());
    attempts.push(vec![grafted]);
    for attempt in attempts {
        assert!(node.inform(&mut storage, attempt, now()).is_err());
        assert_eq!((node.head(), storage.graph().len()), (head, 101));
    }
    // The same again and again, and nothing at all.
    for _ in 0..3 {
        assert!(!node.inform(&mut storage, pool[..100].to_vec(), now()).unwrap());
    }
    assert!(!node.inform(&mut storage, Vec::new(), now()).unwrap());
    assert_eq!(storage.graph().len(), 101);
    // Offers that are endless or name nothing.
    let endless = SyncOffer {
        head: AumHash::from_bytes([1; 32]),
        ancestors: vec![AumHash::from_bytes([2; 32]); 100_000],
    };
    assert_eq!(node.missing(storage.graph(), &endless), Err(SyncError::NoIntersection));
    let text = head.to_string();
    let parsed = SyncOffer::parse(&text, std::iter::repeat_n(text.as_str(), 100_000)).unwrap();
    assert_eq!(parsed.ancestors.len(), crate::limits::MAX_OFFER_ANCESTORS);
}

#[test]
fn a_chain_longer_than_the_reference_can_open_is_opened_and_compacted() {
    let (genesis, _) = long_chain();
    let (mut node, mut storage) = bootstrap(genesis);
    let key = signer("S1");
    let mut head = node.head();
    let mut checkpoint = node.state().clone();
    checkpoint.last = None;
    for _ in 0..3 {
        let mut updates = Vec::new();
        for turn in 0..1000 {
            let (kind, state) = match turn % 50 {
                49 => (crate::AumKind::CHECKPOINT, Some(Box::new(checkpoint.clone()))),
                _ => (crate::AumKind::NO_OP, None),
            };
            let mut update = Aum { kind, state, prev: Some(head.as_bytes().to_vec()), ..Aum::default() };
            assert!(update.sign(&key));
            head = update.hash();
            updates.push(update);
        }
        node.inform(&mut storage, updates, now()).unwrap();
    }
    super::support::assert_reopens(&node, &storage);
    let rules = CompactionRules::fitting(storage.graph());
    assert!(node.compact(&mut storage, rules, now()).unwrap());
    assert!(storage.graph().len() < 100);
    assert_eq!(node.head(), head);
    super::support::assert_reopens(&node, &storage);
    let usual = CompactionRules::fitting(storage.graph());
    assert!(!node.compact(&mut storage, usual, now()).unwrap(), "all of it is young");
}

#[test]
fn a_pin_refuses_another_authority_and_an_older_head() {
    let (genesis, pool) = long_chain();
    let (mut node, mut storage) = bootstrap(genesis.clone());
    let mut pin = Pin::new(&node);
    node.inform(&mut storage, pool[..10].to_vec(), now()).unwrap();
    assert_eq!(pin.check(&node, storage.graph()), Ok(()));
    pin.note_head(&node);
    assert_eq!(pin.check_genesis(&genesis), Ok(()));

    // Control presents the chain without its last updates.
    let (older, older_storage) = bootstrap(genesis.clone());
    assert_eq!(pin.check(&older, older_storage.graph()), Err(PinError::OlderHead(node.head())));
    // Another authority, with other numbers or with the same.
    let made = |id| {
        let state = State::new(vec![crate::Key::new(signer("S7").public(), 9, None)], vec![[1; 32]], id);
        Authority::create(state, &signer("S7")).unwrap()
    };
    assert_eq!(pin.check_genesis(&made(StateId(8, 9))), Err(PinError::OtherAuthority(pin.id)));
    assert_eq!(pin.check_genesis(&made(pin.id)), Err(PinError::OtherGenesis(pin.genesis)));
    let mut unsigned = genesis;
    unsigned.signatures.clear();
    assert!(matches!(pin.check_genesis(&unsigned), Err(PinError::Invalid(_))));
}

#[test]
fn an_expected_authority_is_a_hash_or_a_key_that_signed() {
    let (genesis, _) = long_chain();
    let by = |text: &str| ExpectedAuthority::parse(text).unwrap().check(&genesis);
    assert_eq!(by(&genesis.hash().to_string()), Ok(()));
    assert_eq!(by(&signer("S1").public().cli_text()), Ok(()));
    assert_eq!(by(&signer("S8").public().to_string()), Err(PinError::NotExpected));
    assert_eq!(by(&AumHash::from_bytes([3; 32]).to_string()), Err(PinError::NotExpected));
    assert_eq!(ExpectedAuthority::parse("tlpub:xyz"), None);
}
