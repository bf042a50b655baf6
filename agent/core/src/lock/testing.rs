//! A control server's side of Tailnet Lock and a folder of a chain, for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use tsrs_base_types::{LockPrivate, NodePublic};
use tsrs_control_tailcfg::{
    Base64, SecretBase64, TkaBootstrapResponse, TkaSyncOfferResponse, TkaSyncSendResponse,
};
use tsrs_control_tka::{
    Aum, AumHash, Authority, DisablementSecret, Graph, Key, MemoryStorage, NodeKeySignature, State, StateId,
    Storage, StoredAum, Update, UpdateBuilder,
};

use super::{Call, LockAnswer, StoreStep};

pub(crate) fn signer(seed: u8) -> LockPrivate {
    LockPrivate::from_seed(&[seed; 32]).unwrap()
}

pub(crate) fn secret() -> DisablementSecret {
    DisablementSecret::from_bytes(vec![7; 32])
}

/// What a control server knows of a lock.
pub(crate) struct Server {
    pub(crate) genesis: Aum,
    pub(crate) authority: Authority,
    pub(crate) storage: MemoryStorage,
    pub(crate) signer: LockPrivate,
    /// What it answers to who asks for the secret.
    pub(crate) secret: Option<Vec<u8>>,
    pub(crate) now: Timestamp,
}

impl Server {
    pub(crate) fn new(id: u64, signer: LockPrivate, now: Timestamp) -> Self {
        let keys = vec![Key::new(signer.public(), 1, None)];
        let state = State::new(keys, vec![secret().value().unwrap()], StateId(id, id));
        let genesis = Authority::create(state, &signer).unwrap();
        let mut storage = MemoryStorage::default();
        let authority = Authority::bootstrap(&mut storage, genesis.clone(), now).unwrap();
        Self { genesis, authority, storage, signer, secret: None, now }
    }

    /// The same server, without what came after now.
    pub(crate) fn copy(&self) -> Self {
        Self {
            genesis: self.genesis.clone(),
            authority: self.authority.clone(),
            storage: self.storage.clone(),
            signer: self.signer.clone(),
            secret: self.secret.clone(),
            now: self.now,
        }
    }

    pub(crate) fn head(&self) -> String {
        self.authority.head().to_string()
    }

    /// Trusts one more key.
    pub(crate) fn trust(&mut self, key: &LockPrivate) {
        let mut builder = UpdateBuilder::new(&self.authority, &self.signer);
        builder.add_key(Key::new(key.public(), 1, None)).unwrap();
        let updates = builder.finish(&self.authority, self.storage.graph()).unwrap();
        self.authority.inform(&mut self.storage, updates, self.now).unwrap();
    }

    /// Trusts and forgets keys until the chain is longer by `count` changes.
    pub(crate) fn grow(&mut self, count: u8) {
        for n in 0..count {
            let mut builder = UpdateBuilder::new(&self.authority, &self.signer);
            let key = signer(100 + n / 2).public();
            match n % 2 {
                0 => builder.add_key(Key::new(key, 1, None)).unwrap(),
                _ => builder.remove_key(&key).unwrap(),
            }
            let updates = builder.finish(&self.authority, self.storage.graph()).unwrap();
            self.authority.inform(&mut self.storage, updates, self.now).unwrap();
        }
    }

    pub(crate) fn sign(&self, node: NodePublic) -> Base64 {
        Base64(NodeKeySignature::direct(node, None, &self.signer).unwrap().encode())
    }

    pub(crate) fn answer(&mut self, call: &Call) -> LockAnswer {
        match call {
            Call::Bootstrap(head) => LockAnswer::Bootstrap(TkaBootstrapResponse {
                genesis_aum: Base64(if head.is_none() { self.genesis.encode() } else { Vec::new() }),
                disablement_secret: SecretBase64::new(self.secret.clone().unwrap_or_default()),
            }),
            Call::Offer(offer) => {
                let ours = self.authority.sync_offer(self.storage.graph());
                let missing = self.authority.missing(self.storage.graph(), offer).unwrap_or_default();
                LockAnswer::Offer(TkaSyncOfferResponse {
                    head: ours.head.to_string(),
                    ancestors: ours.ancestors.iter().map(AumHash::to_string).collect(),
                    missing_aums: missing.iter().map(|update| Base64(update.aum().encode())).collect(),
                })
            }
            // A server that takes nothing.
            Call::Send { .. } => LockAnswer::Send(TkaSyncSendResponse { head: self.head() }),
        }
    }
}

/// The folder of a chain.
#[derive(Clone, Default)]
pub(crate) struct Folder {
    pub(crate) files: BTreeMap<AumHash, Vec<u8>>,
    pub(crate) ancestor: Option<AumHash>,
    /// How many steps were written.
    pub(crate) steps: usize,
}

impl Folder {
    pub(crate) fn write(&mut self, step: &StoreStep) {
        self.steps += 1;
        match step {
            StoreStep::Clear => {
                self.files.clear();
                self.ancestor = None;
            }
            StoreStep::Put(hash, content) => drop(self.files.insert(*hash, content.clone())),
            StoreStep::Ancestor(hash) => self.ancestor = Some(*hash),
            StoreStep::Remove(hash) => drop(self.files.remove(hash)),
        }
    }

    pub(crate) fn graph(&self) -> Graph {
        let mut graph = Graph::default();
        for (hash, content) in &self.files {
            let stored = StoredAum::decode(content, *hash).unwrap().unwrap();
            graph.insert(Arc::new(Update::new(stored.aum.unwrap())), stored.created.unwrap());
        }
        self.ancestor.into_iter().for_each(|hash| graph.set_last_active_ancestor(hash));
        graph
    }
}
