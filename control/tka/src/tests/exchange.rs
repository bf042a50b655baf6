//! Two nodes come to the same head.

use serde_json::Value;

use super::support::{aum, bootstrap, cases, file_of, flag, hash, list, now, number, text};
use crate::{Aum, Authority, MemoryStorage, Storage, SyncError, SyncOffer};

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
