use std::process::Command;

use serde_json::json;
use tsrs_base_types::LockPrivate;
use tsrs_control_tka::{
    Authority, CompactionRules, Key, MemoryStorage, State, StateId, Storage, UpdateBuilder,
};

use super::*;

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn signer(seed: u8) -> LockPrivate {
    LockPrivate::from_seed(&[seed; 32]).unwrap()
}

/// A chain of a first update and `len` changes.
fn chain(len: u8) -> (Authority, MemoryStorage) {
    let keys = vec![Key::new(signer(1).public(), 1, None)];
    let state = State::new(keys, vec![[9; 32]], StateId(1, 2));
    let genesis = Authority::create(state, &signer(1)).unwrap();
    let mut storage = MemoryStorage::default();
    let mut authority = Authority::bootstrap(&mut storage, genesis, now()).unwrap();
    let signer_key = signer(1);
    for n in 0..len {
        let mut builder = UpdateBuilder::new(&authority, &signer_key);
        builder.add_key(Key::new(signer(10 + n).public(), 1, None)).unwrap();
        let updates = builder.finish(&authority, storage.graph()).unwrap();
        authority.inform(&mut storage, updates, now()).unwrap();
    }
    (authority, storage)
}

fn put(graph: &Graph, hash: AumHash) -> StoreStep {
    let aum = graph.update(hash).map(|update| update.aum().clone());
    StoreStep::Put(hash, StoredAum { aum, created: Some(now()), purged: None }.encode())
}

/// The steps that write a chain, parents first.
fn steps(authority: &Authority, graph: &Graph) -> Vec<StoreStep> {
    let mut chain: Vec<AumHash> = authority.log(graph).map(|update| update.hash()).collect();
    chain.reverse();
    let mut steps = vec![StoreStep::Clear];
    steps.extend(chain.into_iter().map(|hash| put(graph, hash)));
    steps.push(StoreStep::Ancestor(authority.oldest()));
    steps
}

#[test]
fn a_chain_is_read_as_it_was_written_in_the_layout_of_the_sheet() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("tka-profiles/ab12");
    assert!(load(&folder).unwrap().is_empty());
    let (authority, storage) = chain(5);
    write(&folder, &steps(&authority, storage.graph())).unwrap();
    let text = authority.head().to_string();
    assert!(folder.join(&text[..2]).join(&text).is_file());
    assert_eq!(fs::read(folder.join("last_active_ancestor")).unwrap(), authority.oldest().as_bytes());
    // Leftovers and strangers are passed over.
    fs::write(folder.join(&text[..2]).join(format!("{text}.new")), b"half").unwrap();
    fs::write(folder.join("README"), b"hello").unwrap();
    let read = load(&folder).unwrap();
    assert_eq!((read.len(), Authority::open(&read).unwrap().head()), (6, authority.head()));
    assert_eq!(read.stored_at(authority.head()), Some(now()));

    write(&folder, &[StoreStep::Remove(authority.head()), StoreStep::Remove(authority.head())]).unwrap();
    assert_eq!(load(&folder).unwrap().len(), 5);
    clear(&folder).unwrap();
    clear(&folder).unwrap();
    assert!(load(&folder).unwrap().is_empty() && !folder.exists());
}

#[test]
fn a_folder_of_the_reference_is_read_as_it_reads_it() {
    let vectors = tsrs_lab_vectors::json("tka/storage.json");
    let hex = |value: &serde_json::Value| value.as_str().map(tsrs_lab_vectors::hex);
    for case in vectors["read"].as_array().unwrap() {
        let dir = tempfile::tempdir().unwrap();
        let genesis = "T6/T6RKTHAQG26LRE5J3RD6R54ZUDJFLQONARLJJBD6LJXQVELNJEQQ";
        let files =
            [(genesis, &case["genesis_file"]), (case["file_name"].as_str().unwrap(), &case["content"])];
        for (path, content) in files {
            fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            fs::write(dir.path().join(path), hex(content).unwrap()).unwrap();
        }
        if let Some(ancestor) = hex(&case["last_active_ancestor"]) {
            fs::write(dir.path().join(ANCESTOR), ancestor).unwrap();
        }
        let opened = load(dir.path()).and_then(|graph| {
            let authority = Authority::open(&graph).map_err(|error| error.to_string())?;
            Ok((authority.head().to_string(), graph.len()))
        });
        assert_eq!(opened.is_ok(), case["open_ok"] == true, "{} {opened:?}", case["name"]);
        if let Ok((head, count)) = opened {
            assert_eq!(
                (json!(head), json!(count)),
                (case["head"].clone(), case["aums"].clone()),
                "{}",
                case["name"]
            );
        }
    }
}

#[test]
fn a_damaged_file_makes_the_chain_unreadable_and_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, storage) = chain(3);
    let other = authority.oldest();
    let text = authority.head().to_string();
    let damages: [&dyn Fn(&Path); 4] = [
        &|path| fs::write(path, b"").unwrap(),
        &|path| fs::write(path, [0xff; 9]).unwrap(),
        &|path| fs::write(path, vec![0; MAX_FILE_LEN + 1]).unwrap(),
        &|path| assert!(fs::copy(file(dir.path(), other), path).is_ok()),
    ];
    for damage in damages {
        write(dir.path(), &steps(&authority, storage.graph())).unwrap();
        damage(&dir.path().join(&text[..2]).join(&text));
        let error = load(dir.path()).unwrap_err();
        assert!(error.contains(&dir.path().display().to_string()), "{error}");
    }
    write(dir.path(), &steps(&authority, storage.graph())).unwrap();
    fs::write(dir.path().join(ANCESTOR), b"short").unwrap();
    assert!(load(dir.path()).is_err());
}

/// Set in the child of the test below: the folder that it writes to without end.
const WRITE_TO: &str = "TSRS_TEST_CHAIN_FOLDER";

/// Chains that are written one after the other: one that grows, is compacted, and is replaced.
fn endless(folder: &Path) -> ! {
    let (authority, storage) = chain(30);
    let all = steps(&authority, storage.graph());
    let mut compacted = storage.clone();
    let mut after = authority.clone();
    let rules = CompactionRules { min_chain: 5, min_age: jiff::SignedDuration::ZERO };
    after.compact(&mut compacted, rules, now()).unwrap();
    let mut shrink = vec![StoreStep::Ancestor(after.oldest())];
    let gone = authority.log(storage.graph()).map(|update| update.hash());
    shrink.extend(gone.filter(|hash| compacted.graph().update(*hash).is_none()).map(StoreStep::Remove));
    loop {
        write(folder, &all).unwrap();
        write(folder, &shrink).unwrap();
    }
}

#[test]
fn a_process_that_is_killed_while_it_writes_leaves_a_chain_or_less_and_never_another() {
    if let Some(folder) = std::env::var_os(WRITE_TO) {
        endless(Path::new(&folder));
    }
    let (whole, storage) = chain(30);
    let known = storage.graph();
    let name = "chain_store::tests::a_process_that_is_killed_while_it_writes_leaves_a_chain_or_less_and_never_another";
    let dir = tempfile::tempdir().unwrap();
    let mut heads = std::collections::BTreeSet::new();
    for round in 0..20_usize {
        let folder = dir.path().join(round.to_string());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(WRITE_TO, &folder)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // Killed when it has come so far, at whatever it does then.
        let progress = |graph: &Graph| graph.len() >= (round * 3) % 30;
        while !load(&folder).is_ok_and(|graph| progress(&graph)) {
            assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let graph = load(&folder).unwrap();
        assert!(graph.hashes().all(|hash| known.update(hash).is_some()));
        if let Ok(authority) = Authority::open(&graph) {
            let on_chain = whole.log(known).any(|update| update.hash() == authority.head());
            assert!(on_chain, "the head of another chain");
            heads.insert(authority.head());
        }
        // Whatever was left, the next write makes it whole.
        write(&folder, &steps(&whole, known)).unwrap();
        assert_eq!(Authority::open(&load(&folder).unwrap()).unwrap().head(), whole.head());
    }
    assert!(heads.len() > 3, "killed at one point only");
}
