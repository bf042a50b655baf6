//! Random histories of several signers against a model that shares no code with the crate: it writes its own encoding, replays
//! every state from the first update, and knows nothing of storage.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use blake2::{Blake2s256, Digest};
use ring::signature::{Ed25519KeyPair, KeyPair};
use tsrs_base_types::NodePublic;

use super::support::{assert_reopens, bootstrap, now, signer};
use crate::{Aum, Authority, CompactionRules, MemoryStorage, NodeKeySignature, Storage};

const SIGNERS: u8 = 6;
const HISTORIES: u64 = 40;
const STEPS: usize = 40;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % limit
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn signer(&mut self) -> u8 {
        u8::try_from(self.below(usize::from(SIGNERS))).unwrap() + 1
    }
}

/// Trusted signers in order: number, votes, metadata.
type Keys = Vec<(u8, u64, Option<String>)>;

#[derive(Clone)]
enum Change {
    Add(u8, u64),
    Remove(u8),
    Votes(u8, u64),
    Meta(u8, String),
    Nothing,
    /// Keys, and the first of the two numbers of the authority.
    Checkpoint(Keys, u64),
}

#[derive(Clone)]
struct Entry {
    hash: [u8; 32],
    parent: Option<usize>,
    change: Change,
    signers: Vec<u8>,
    /// One signature is damaged.
    damaged: bool,
    bytes: Vec<u8>,
}

fn pair(number: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[number; 32]).unwrap()
}

/// The public keys of all signers, by number.
static PUBLIC: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| (0..=SIGNERS).map(|number| pair(number).public_key().as_ref().to_vec()).collect());

fn public(number: u8) -> Vec<u8> {
    PUBLIC[usize::from(number)].clone()
}

fn blake(bytes: &[u8]) -> [u8; 32] {
    Blake2s256::digest(bytes).into()
}

fn head(major: u8, value: usize) -> Vec<u8> {
    match u8::try_from(value) {
        Ok(small @ 0..=23) => vec![major << 5 | small],
        Ok(byte) => vec![major << 5 | 24, byte],
        Err(_) => {
            let [high, low] = u16::try_from(value).unwrap().to_be_bytes();
            vec![major << 5 | 25, high, low]
        }
    }
}

fn string(major: u8, bytes: &[u8]) -> Vec<u8> {
    [head(major, bytes.len()), bytes.to_vec()].concat()
}

fn map(pairs: Vec<(usize, Vec<u8>)>) -> Vec<u8> {
    let mut out = head(5, pairs.len());
    for (key, value) in pairs {
        out.extend(head(0, key));
        out.extend(value);
    }
    out
}

fn meta(text: &str) -> Vec<u8> {
    [head(5, 1), string(3, b"m"), string(3, text.as_bytes())].concat()
}

fn number(value: u64) -> Vec<u8> {
    head(0, usize::try_from(value).unwrap())
}

fn key(number_of_key: u8, votes: u64, text: Option<&str>) -> Vec<u8> {
    let mut pairs = vec![(1, number(1)), (2, number(votes)), (3, string(2, &public(number_of_key)))];
    pairs.extend(text.map(|text| (12, meta(text))));
    map(pairs)
}

fn state(keys: &Keys, id1: u64) -> Vec<u8> {
    let mut list = head(4, keys.len());
    for (number, votes, text) in keys {
        list.extend(key(*number, *votes, text.as_deref()));
    }
    let values = [head(4, 1), string(2, &[9; 32])].concat();
    map(vec![(1, vec![0xf6]), (2, values), (3, list), (4, number(id1)), (5, number(2))])
}

impl Entry {
    fn new(history: &[Self], parent: Option<usize>, change: Change, signers: Vec<u8>, damaged: bool) -> Self {
        let prev = parent.map_or(vec![0xf6], |parent| string(2, &history[parent].hash));
        let (kind, mut pairs) = match &change {
            Change::Add(who, votes) => (1, vec![(3, key(*who, *votes, None))]),
            Change::Remove(who) => (2, vec![(4, string(2, &public(*who)))]),
            Change::Nothing => (3, vec![]),
            Change::Votes(who, votes) => (4, vec![(4, string(2, &public(*who))), (6, number(*votes))]),
            Change::Meta(who, text) => (4, vec![(4, string(2, &public(*who))), (7, meta(text))]),
            Change::Checkpoint(keys, id1) => (5, vec![(5, state(keys, *id1))]),
        };
        pairs.splice(0..0, [(1, number(kind)), (2, prev)]);
        let digest = blake(&map(pairs.clone()));
        let mut list = head(4, signers.len());
        for who in &signers {
            let mut signature = pair(*who).sign(&digest).as_ref().to_vec();
            signature[40] ^= u8::from(damaged);
            list.extend(map(vec![(1, string(2, &public(*who))), (2, string(2, &signature))]));
        }
        if !signers.is_empty() {
            pairs.push((23, list));
        }
        let bytes = map(pairs);
        Self { hash: blake(&bytes), parent, change, signers, damaged, bytes }
    }
}

/// The trusted keys after an entry, replayed from the beginning; `None` if something on the way is not valid.
fn keys_after(history: &[Entry], index: usize) -> Option<Keys> {
    let entry = &history[index];
    let Some(parent) = entry.parent else {
        let Change::Checkpoint(keys, _) = &entry.change else { return None };
        return Some(keys.clone());
    };
    let mut keys = keys_after(history, parent)?;
    let trusted = |who: u8| keys.iter().any(|(key, ..)| *key == who);
    if entry.damaged || entry.signers.is_empty() || !entry.signers.iter().all(|who| trusted(*who)) {
        return None;
    }
    let position = |who: u8| keys.iter().position(|(key, ..)| *key == who);
    match &entry.change {
        Change::Add(who, votes) => {
            if position(*who).is_some() || *votes == 0 {
                return None;
            }
            keys.push((*who, *votes, None));
        }
        Change::Remove(who) => {
            let at = position(*who)?;
            if keys.len() == 1 {
                return None;
            }
            keys.remove(at);
        }
        Change::Votes(who, votes) => {
            let at = position(*who)?;
            if *votes == 0 {
                return None;
            }
            keys[at].1 = *votes;
        }
        Change::Meta(who, text) => {
            let at = position(*who)?;
            keys[at].2 = Some(text.clone());
        }
        Change::Nothing => {}
        Change::Checkpoint(new, id1) => {
            let mut distinct: Vec<u8> = new.iter().map(|(who, ..)| *who).collect();
            distinct.sort_unstable();
            distinct.dedup();
            if *id1 != 1 || new.is_empty() || distinct.len() != new.len() {
                return None;
            }
            keys = new.clone();
        }
    }
    Some(keys)
}

/// Where the active chain ends among the entries that are known.
fn active_head(history: &[Entry], known: &[usize]) -> usize {
    let mut at = 0;
    loop {
        let keys = keys_after(history, at).unwrap();
        let weight = |entry: &Entry| {
            let votes: BTreeMap<u8, u64> = entry.signers.iter().map(|who| (*who, 0)).collect();
            votes
                .keys()
                .filter_map(|who| keys.iter().find(|(key, ..)| key == who))
                .map(|(_, votes, _)| votes)
                .sum()
        };
        let mut children: Vec<(u64, bool, [u8; 32], usize)> = known
            .iter()
            .filter(|index| history[**index].parent == Some(at))
            .map(|index| {
                let entry = &history[*index];
                (weight(entry), matches!(entry.change, Change::Remove(_)), entry.hash, *index)
            })
            .collect();
        children.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.cmp(&a.1)).then(a.2.cmp(&b.2)));
        let Some(best) = children.first() else { return at };
        at = best.3;
    }
}

fn random_entry(random: &mut Random, history: &[Entry], parent: usize) -> Entry {
    let keys = keys_after(history, parent).unwrap();
    let who = random.signer();
    let votes = u64::try_from(random.below(5)).unwrap();
    let change = match random.below(8) {
        0..=2 => Change::Add(who, votes),
        3 => Change::Remove(who),
        4 => Change::Votes(who, votes),
        5 => Change::Meta(who, format!("text {}", random.below(300))),
        6 => Change::Nothing,
        _ => {
            let mut keys = keys.clone();
            if random.one_in(3) {
                keys.push((who, 2, None));
            }
            if random.one_in(3) {
                keys.remove(0);
            }
            Change::Checkpoint(keys, if random.one_in(8) { 7 } else { 1 })
        }
    };
    let mut signers: Vec<u8> = keys.iter().map(|(who, ..)| *who).filter(|_| random.one_in(2)).collect();
    if signers.is_empty() && !random.one_in(10) {
        signers.push(keys[random.below(keys.len())].0);
    }
    if random.one_in(12) {
        signers.push(random.signer());
    }
    signers.dedup();
    Entry::new(history, Some(parent), change, signers, random.one_in(15))
}

struct Node {
    authority: Authority,
    storage: MemoryStorage,
    known: Vec<usize>,
}

impl Node {
    fn new(genesis: &Entry) -> Self {
        let (authority, storage) = bootstrap(Aum::decode(&genesis.bytes).unwrap());
        Self { authority, storage, known: vec![0] }
    }

    fn inform(&mut self, history: &[Entry], batch: &[usize], seed: u64) {
        let updates = batch.iter().map(|index| Aum::decode(&history[*index].bytes).unwrap()).collect();
        let taken = self.authority.inform(&mut self.storage, updates, now());
        // A known update is passed over even if it is in the batch twice.
        let mut after = self.known.clone();
        let valid = batch.iter().all(|index| {
            let parent_known = history[*index].parent.is_none_or(|parent| after.contains(&parent));
            let good = after.contains(index) || (parent_known && keys_after(history, *index).is_some());
            if good && !after.contains(index) {
                after.push(*index);
            }
            good
        });
        assert_eq!(taken.is_ok(), valid, "seed {seed}: {taken:?}");
        if valid {
            self.known = after;
        }
        self.assert_like_model(history, seed);
    }

    fn assert_like_model(&self, history: &[Entry], seed: u64) {
        let head = active_head(history, &self.known);
        assert_eq!(self.authority.head().as_bytes(), &history[head].hash, "seed {seed}");
        let keys = keys_after(history, head).unwrap();
        let ours: Vec<(Vec<u8>, u64, Option<String>)> = self
            .authority
            .state()
            .keys()
            .iter()
            .map(|key| (key.id().to_vec(), key.votes, key.meta.as_ref().map(|meta| meta["m"].clone())))
            .collect();
        let models: Vec<_> =
            keys.iter().map(|(who, votes, text)| (public(*who), *votes, text.clone())).collect();
        assert_eq!(ours, models, "seed {seed}");
        assert_eq!(self.storage.graph().len(), self.known.len(), "seed {seed}");
        assert_reopens(&self.authority, &self.storage);
    }
}

#[test]
fn random_histories_come_out_as_in_the_model() {
    let node_key = NodePublic::from_bytes([5; 32]);
    let signatures: Vec<Vec<u8>> = (1..=SIGNERS)
        .map(|who| NodeKeySignature::direct(node_key, None, &signer(&format!("S{who}"))).unwrap().encode())
        .collect();
    for seed in 1..=HISTORIES {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let keys: Keys = vec![(1, 1 + seed % 3, None), (2, 1, None), (3, 1, None)];
        let mut history = vec![Entry::new(&[], None, Change::Checkpoint(keys, 1), vec![1], false)];
        let (mut first, mut second) = (Node::new(&history[0]), Node::new(&history[0]));
        while history.len() < STEPS {
            let mut batch = Vec::new();
            for _ in 0..=random.below(4) {
                let valid: Vec<usize> =
                    (0..history.len()).filter(|index| keys_after(&history, *index).is_some()).collect();
                let latest = active_head(&history, &valid);
                let parent = if random.one_in(3) { valid[random.below(valid.len())] } else { latest };
                let entry = random_entry(&mut random, &history, parent);
                // The same update twice has the same name.
                let same = history.iter().position(|other| other.hash == entry.hash);
                batch.push(same.unwrap_or(history.len()));
                if same.is_none() {
                    history.push(entry);
                }
            }
            if random.one_in(4) {
                batch.push(batch[0]);
            }
            first.inform(&history, &batch, seed);
            // Who signs is asked about the head of the model.
            let keys = keys_after(&history, active_head(&history, &first.known)).unwrap();
            for (who, signature) in (1..).zip(&signatures) {
                let allowed = first.authority.authorize(node_key, signature).is_ok();
                assert_eq!(allowed, keys.iter().any(|(key, ..)| *key == who), "seed {seed}");
            }
        }
        // The second node hears of everything one by one, and of some of it later than of what stands on it.
        let mut order: Vec<usize> = (1..history.len()).collect();
        for _ in 0..history.len() {
            let (a, b) = (random.below(order.len()), random.below(order.len()));
            order.swap(a, b);
        }
        for _ in 0..history.len() {
            order.iter().for_each(|index| second.inform(&history, &[*index], seed));
            order.retain(|index| !second.known.contains(index) && keys_after(&history, *index).is_some());
            if order.is_empty() {
                break;
            }
        }
        for index in first.known.clone() {
            assert!(second.known.contains(&index), "seed {seed}: {index}");
        }
        let offer = second.authority.sync_offer(second.storage.graph());
        let lacking = first.authority.missing(first.storage.graph(), &offer);
        assert!(lacking.is_ok(), "seed {seed}: both began with the same update");

        let head = second.authority.head();
        let rules = CompactionRules { min_chain: 2, min_age: jiff::SignedDuration::ZERO };
        second.authority.compact(&mut second.storage, rules, now()).unwrap();
        assert_eq!(second.authority.head(), head);
        assert_reopens(&second.authority, &second.storage);
    }
}
