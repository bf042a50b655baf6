//! Bootstrap, updates, forks, opening, changes, compaction and recovery.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::support::{
    assert_reopens, aum, aums, bootstrap, cases, file_of, flag, hash, hex, list, lock_public, now, number,
    signer, text, to_hex,
};
use crate::{
    Aum, AumKind, Authority, CompactionRules, Graph, Key, MemoryStorage, Meta, State, StateId, Storage,
    Update, UpdateBuilder, pick, plan_compaction,
};

fn checkpoint_of(state: &State) -> String {
    let mut state = state.clone();
    state.last = None;
    to_hex(Aum { kind: AumKind::CHECKPOINT, state: Some(Box::new(state)), ..Aum::default() }.encode())
}

fn meta_of(value: &Value) -> Option<Meta> {
    (!value.is_null()).then(|| serde_json::from_value(value.clone()).unwrap())
}

#[test]
fn bootstrap_takes_what_the_reference_takes() {
    let cases = cases("genesis");
    assert_eq!(cases.len(), 19);
    for case in cases {
        let mut storage = MemoryStorage::default();
        if let Some(before) = case.get("storage_not_empty").filter(|value| value.as_bool() != Some(false)) {
            let before = if before.is_string() { aum(before) } else { aum(&cases_first_genesis()) };
            storage.commit(&[Arc::new(Update::new(before))], now()).unwrap();
        }
        let Ok(genesis) = Aum::decode(&hex(&case["aum"])) else {
            assert!(!flag(&case["ok"]), "{case}");
            continue;
        };
        let made = Authority::bootstrap(&mut storage, genesis, now());
        assert_eq!(made.is_ok(), flag(&case["ok"]), "{case}");
        let Ok(authority) = made else { continue };
        let expected = &case["authority"];
        assert_eq!(authority.head(), hash(&expected["head"]));
        assert_eq!(authority.oldest(), hash(&expected["oldest"]));
        assert_eq!(to_hex(authority.state().encode()), text(&expected["state_cbor"]));
        assert_eq!(checkpoint_of(authority.state()), text(&expected["checkpoint_bytes"]));
        assert_eq!(storage.graph().last_active_ancestor(), Some(hash(&case["last_active_ancestor"])));
        assert_reopens(&authority, &storage);
    }
}

fn cases_first_genesis() -> Value {
    cases("genesis")[0]["aum"].clone()
}

#[test]
fn genesis_is_made_as_the_reference_makes_it() {
    let file = file_of("genesis");
    assert_eq!(list(&file["create"]).len(), 4);
    for case in list(&file["create"]) {
        let fields = &case["state"];
        let keys = list(&fields["keys"]).iter();
        let keys = keys.map(|key| {
            Key::new(lock_public(&key["public"]), key["votes"].as_u64().unwrap(), meta_of(&key["meta"]))
        });
        let values = list(&fields["disablement_values"]).iter().map(|value| hex(value).try_into().unwrap());
        let id = |name: &str| text(&fields[name]).parse().unwrap();
        let state = State::new(keys.collect(), values.collect(), StateId(id("state_id1"), id("state_id2")));
        let made = Authority::create(state, &signer(text(&case["signer"])));
        assert_eq!(made.is_ok(), case.get("aum").is_some(), "{case}");
        let Ok(genesis) = made else { continue };
        assert_eq!(to_hex(genesis.encode()), text(&case["aum"]));
        assert_eq!(genesis.hash(), hash(&case["hash"]));
    }
}

#[test]
fn every_update_leads_to_the_state_of_the_reference() {
    let cases = cases("state-chains");
    assert_eq!(cases.len(), 40);
    for case in cases {
        let (mut authority, mut storage) = bootstrap(aum(&case["genesis"]));
        for step in list(&case["steps"]) {
            let stored = storage.graph().len();
            let update = Aum::decode(&hex(&step["aum"])).unwrap();
            let taken = authority.inform(&mut storage, vec![update], now());
            assert_eq!(taken.is_ok(), flag(&step["ok"]), "{step} {taken:?}");
            assert_eq!(authority.head(), hash(&step["head"]), "{step}");
            if taken.is_ok() {
                assert_eq!(to_hex(authority.state().encode()), text(&step["state_cbor"]), "{step}");
            } else {
                assert_eq!(storage.graph().len(), stored);
            }
        }
        assert_eq!(checkpoint_of(authority.state()), text(&case["final_checkpoint_bytes"]));
        assert_reopens(&authority, &storage);
    }
}

#[test]
fn forks_are_decided_as_the_reference_decides() {
    let picks = cases("fork-pick");
    assert_eq!(picks.len(), 150);
    for case in picks {
        let keys = list(&case["keys"]).iter();
        let keys =
            keys.map(|key| Key::new(lock_public(&key["public"]), key["votes"].as_u64().unwrap(), None));
        let state = State::new(keys.collect(), vec![], StateId::default());
        let candidates: Vec<Arc<Update>> = list(&case["candidates"])
            .iter()
            .map(|candidate| {
                let update = Update::new(aum(&candidate["aum"]));
                assert_eq!(update.hash(), hash(&candidate["hash"]));
                assert_eq!(update.aum().weight(&state), candidate["weight"].as_u64().unwrap());
                Arc::new(update)
            })
            .collect();
        assert_eq!(pick(&state, &candidates).unwrap().hash(), hash(&case["picked"]));
    }
    let graphs = cases("fork-graphs");
    assert_eq!(graphs.len(), 60);
    for case in graphs {
        let (mut authority, mut storage) = bootstrap(aum(&case["genesis"]));
        for step in list(&case["steps"]) {
            let taken = authority.inform(&mut storage, aums(&step["aums"]), now());
            assert_eq!(taken.is_ok(), flag(&step["ok"]), "{step}");
            assert_eq!(authority.head(), hash(&step["head"]), "{step}");
            assert_eq!(storage.graph().len(), number(&step["stored"]), "{step}");
            if taken.is_ok() {
                assert_eq!(to_hex(authority.state().encode()), text(&step["state_cbor"]), "{step}");
            }
        }
        assert!(flag(&case["reopen_ok"]));
        assert_eq!(authority.head(), hash(&case["reopen_head"]));
        assert_reopens(&authority, &storage);
    }
}

fn graph_of(updates: Vec<Aum>, ancestor: &Value) -> Graph {
    let mut graph = Graph::default();
    updates.into_iter().for_each(|aum| graph.insert(Arc::new(Update::new(aum)), now()));
    if !ancestor.is_null() {
        graph.set_last_active_ancestor(hash(ancestor));
    }
    graph
}

#[test]
fn a_storage_opens_where_the_reference_opens_it() {
    let cases = cases("open");
    assert_eq!(cases.len(), 20);
    for case in cases {
        let graph = graph_of(aums(&case["aums"]), &case["last_active_ancestor"]);
        let opened = Authority::open(&graph);
        assert_eq!(opened.is_ok(), flag(&case["ok"]), "{} {opened:?}", case["name"]);
        let Ok(authority) = opened else { continue };
        assert_eq!(authority.head(), hash(&case["head"]), "{}", case["name"]);
        assert_eq!(authority.oldest(), hash(&case["oldest"]), "{}", case["name"]);
        assert_eq!(to_hex(authority.state().encode()), text(&case["state_cbor"]));
    }
}

#[test]
fn update_signatures_are_judged_as_by_the_reference() {
    let cases = cases("aum-signatures");
    assert_eq!(cases.len(), 93);
    for case in cases {
        let (mut authority, mut storage) = bootstrap(aum(&case["genesis"]));
        let taken = authority.inform(&mut storage, vec![aum(&case["aum"])], now());
        assert_eq!(taken.is_ok(), flag(&case["ok"]), "{} {taken:?}", case["name"]);
        assert_eq!(authority.head(), hash(&case["head"]), "{}", case["name"]);
    }
}

#[test]
fn changes_are_made_as_the_reference_makes_them() {
    let cases = cases("builder");
    assert_eq!(cases.len(), 12);
    for case in cases {
        let (mut authority, mut storage) = bootstrap(aum(&case["genesis"]));
        let key = signer(text(&case["signer"]));
        for batch in list(&case["batches"]) {
            let mut builder = UpdateBuilder::new(&authority, &key);
            for op in list(&batch["ops"]) {
                let target = op_key(op);
                let votes = op["votes"].as_u64().unwrap_or_default();
                let done = match text(&op["op"]) {
                    "add" => builder.add_key(Key::new(target, votes, meta_of(&op["meta"]))),
                    "remove" => builder.remove_key(&target),
                    "votes" => builder.set_votes(&target, votes),
                    "meta" => builder.set_meta(&target, meta_of(&op["meta"]).unwrap_or_default()),
                    other => panic!("{other}"),
                };
                assert_eq!(done.is_ok(), flag(&op["ok"]), "{} {op} {done:?}", case["name"]);
            }
            let made = builder.finish(&authority, storage.graph());
            assert_eq!(made.is_ok(), flag(&batch["finalize_ok"]), "{}", case["name"]);
            let Ok(made) = made else { continue };
            let encoded: Vec<String> = made.iter().map(|aum| to_hex(aum.encode())).collect();
            let expected: Vec<&str> = list(&batch["aums"]).iter().map(|aum| text(&aum["bytes"])).collect();
            assert_eq!(encoded, expected, "{}", case["name"]);
            let taken = authority.inform(&mut storage, made, now());
            assert_eq!(taken.is_ok(), batch["inform_ok"].as_bool().unwrap_or(true), "{}", case["name"]);
            assert_eq!(authority.head(), hash(&batch["head"]), "{}", case["name"]);
        }
        assert_eq!(to_hex(authority.state().encode()), text(&case["final_state_cbor"]));
    }
}

fn op_key(op: &Value) -> tsrs_base_types::LockPublic {
    let name = text(&op["key"]);
    if name.starts_with('S') { signer(name).public() } else { lock_public(&op["key"]) }
}

#[test]
fn compaction_keeps_what_the_reference_keeps() {
    let cases = cases("compaction");
    assert_eq!(cases.len(), 52);
    for case in cases {
        let mut graph = Graph::default();
        // The same update may stand there twice; the last age counts.
        for entry in list(&case["aums"]).iter().rev() {
            let age = SignedDuration::from_hours(entry["age_hours"].as_i64().unwrap());
            graph.insert(Arc::new(Update::new(aum(&entry["aum"]))), now() - age);
        }
        graph.set_last_active_ancestor(hash(&list(&case["aums"])[0]["hash"]));
        let rules = CompactionRules {
            min_chain: number(&case["min_chain"]),
            min_age: SignedDuration::from_mins(case["min_age_minutes"].as_i64().unwrap()),
        };
        let plan = plan_compaction(&graph, hash(&case["head"]), rules, now());
        if !flag(&case["ok"]) {
            assert!(plan.purge.is_empty(), "{}", case["name"]);
            continue;
        }
        for entry in list(&case["aums"]) {
            let kept = !plan.purge.contains(&hash(&entry["hash"]));
            assert_eq!(kept, flag(&entry["kept"]), "{} {}", case["name"], entry["hash"]);
        }
        assert_eq!(plan.last_active_ancestor, hash(&case["last_active_ancestor"]), "{}", case["name"]);
        assert_survives_every_stop(&graph, &plan, &case);
    }
}

/// A process that is killed between two writes of a compaction must find the same chain afterwards.
fn assert_survives_every_stop(graph: &Graph, plan: &crate::CompactionPlan, case: &Value) {
    let mut graph = graph.clone();
    let before = Authority::open(&graph).unwrap();
    graph.set_last_active_ancestor(plan.last_active_ancestor);
    for stop in std::iter::once(None).chain(plan.purge.iter().map(Some)) {
        if let Some(hash) = stop {
            graph.remove(*hash);
        }
        let after = Authority::open(&graph).unwrap_or_else(|error| panic!("{}: {error}", case["name"]));
        assert_eq!(after.head(), before.head(), "{}", case["name"]);
        assert_eq!(after.state(), before.state());
    }
    assert_eq!(before.head(), hash(&case["reopen_head"]), "{}", case["name"]);
}

#[test]
fn recovery_forks_where_the_reference_forks() {
    let cases = cases("recovery");
    assert_eq!(cases.len(), 15);
    for case in cases {
        let name = &case["name"];
        let (mut authority, mut storage) = bootstrap(aum(&case["genesis"]));
        authority.inform(&mut storage, aums(&case["aums"]), now()).unwrap();
        assert_eq!(authority.head(), hash(&case["head_before"]), "{name}");
        let revoked: Vec<_> = list(&case["revoke"]).iter().map(lock_public).collect();
        let from = (!case["fork_from"].is_null()).then(|| hash(&case["fork_from"]));
        let made = authority.revocation(storage.graph(), &revoked, &lock_public(&case["our_key"]), from);
        assert_eq!(made.is_ok(), flag(&case["ok"]), "{name} {made:?}");
        let Ok(mut made) = made else { continue };
        assert_eq!(to_hex(made.encode()), text(&case["unsigned_aum"]), "{name}");
        assert_eq!(made.parent(), Some(hash(&case["parent"])), "{name}");
        for name in list(&case["signers"]) {
            assert!(made.sign(&signer(text(name))));
        }
        assert_eq!(to_hex(made.encode()), text(&case["signed_aum"]), "{name}");
        let would_win = authority.would_win(storage.graph(), &made);
        let taken = authority.inform(&mut storage, vec![made], now());
        assert_eq!(taken.is_ok(), flag(&case["inform_ok"]), "{name}");
        if taken.is_ok() {
            assert_eq!(would_win.unwrap(), flag(&case["won"]), "{name}");
            assert_eq!(authority.head(), hash(&case["head_after"]), "{name}");
            assert_eq!(to_hex(authority.state().encode()), text(&case["state_after_cbor"]), "{name}");
        }
    }
}

#[test]
fn a_batch_with_one_bad_update_stores_nothing() {
    let file = file_of("sync-long");
    let (mut authority, mut storage) = bootstrap(aum(&file["cases"][0]["genesis_a"]));
    let mut updates: Vec<Aum> = list(&file["pool"]).iter().take(20).map(aum).collect();
    updates[15].signatures.clear();
    let head = authority.head();
    assert!(authority.inform(&mut storage, updates, now()).is_err());
    assert_eq!((authority.head(), storage.graph().len()), (head, 1));
}

#[test]
fn updates_above_the_limit_of_a_batch_are_refused_unread() {
    let (mut authority, mut storage) = bootstrap(aum(&cases_first_genesis()));
    let updates = vec![Aum::default(); crate::limits::MAX_INFORM_UPDATES + 1];
    let refused = authority.inform(&mut storage, updates, Timestamp::UNIX_EPOCH);
    assert!(matches!(refused, Err(crate::UpdateError::TooMany(_))));
}
