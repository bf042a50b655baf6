//! The updates of one authority.

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use rand_core::{OsRng, RngCore as _};
use tsrs_base_types::LockPrivate;
use tsrs_control_tailcfg::Base64;
use tsrs_control_tka::{
    Aum, AumHash, Authority, Graph, Key, MemoryStorage, State, StateId, Storage as _, SyncOffer, Update,
};

/// An authority with all its updates: a server never forgets one.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    storage: MemoryStorage,
    authority: Authority,
}

impl Chain {
    /// Begins with a first update.
    pub(super) fn begin(genesis: Aum, now: Timestamp) -> Result<Self> {
        let mut storage = MemoryStorage::default();
        let authority = Authority::bootstrap(&mut storage, genesis, now)?;
        Ok(Self { storage, authority })
    }

    /// An authority that nobody asked for, as a hostile server makes it up.
    pub(super) fn made_up(now: Timestamp) -> Result<Self> {
        let signer = LockPrivate::generate(&mut OsRng).context("no Ed25519 key")?;
        let mut value = [0; 32];
        OsRng.fill_bytes(&mut value);
        let id = StateId(OsRng.next_u64(), OsRng.next_u64());
        let state = State::new(vec![Key::new(signer.public(), 1, None)], vec![value], id);
        Self::begin(Authority::create(state, &signer)?, now)
    }

    /// From the encodings that [`Self::encode`] gave.
    pub(super) fn decode(updates: &[Base64], now: Timestamp) -> Result<Self> {
        Self::of(decode_updates(updates)?, now)
    }

    /// The chain of these updates, the first of them its beginning.
    fn of(updates: Vec<Aum>, now: Timestamp) -> Result<Self> {
        let mut graph = Graph::default();
        let updates = updates.into_iter().map(|aum| std::sync::Arc::new(Update::new(aum)));
        for (index, update) in updates.enumerate() {
            if index == 0 {
                graph.set_last_active_ancestor(update.hash());
            }
            graph.insert(update, now);
        }
        let authority = Authority::open(&graph)?;
        Ok(Self { storage: MemoryStorage::new(graph), authority })
    }

    /// All updates, forks that lost included; the beginning first.
    pub(super) fn encode(&self) -> Vec<Base64> {
        let oldest = self.authority.oldest();
        let others = self.graph().hashes().filter(|hash| *hash != oldest);
        let all = std::iter::once(oldest).chain(others).filter_map(|hash| self.graph().update(hash));
        all.map(|update| encode(update.aum())).collect()
    }

    /// The active chain as it was so many updates ago, but for its beginning, which stays.
    pub(super) fn behind(&self, updates: usize, now: Timestamp) -> Result<Self> {
        let mut active: Vec<Aum> =
            self.authority.log(self.graph()).map(|update| update.aum().clone()).collect();
        active.reverse();
        active.truncate(active.len().saturating_sub(updates).max(1));
        Self::of(active, now)
    }

    fn graph(&self) -> &Graph {
        self.storage.graph()
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(super) fn has(&self, update: AumHash) -> bool {
        self.graph().update(update).is_some()
    }

    /// The first update.
    pub(super) fn genesis(&self) -> Base64 {
        self.graph().update(self.authority.oldest()).map(|update| encode(update.aum())).unwrap_or_default()
    }

    /// What a node with this offer lacks.
    pub(super) fn missing(&self, offer: &SyncOffer) -> Result<Vec<Base64>> {
        let missing = self.authority.missing(self.graph(), offer)?;
        Ok(missing.into_iter().map(|update| encode(update.aum())).collect())
    }

    pub(super) fn offer(&self) -> SyncOffer {
        self.authority.sync_offer(self.graph())
    }

    /// Takes updates of a node.
    pub(super) fn inform(&mut self, updates: &[Base64], now: Timestamp) -> Result<()> {
        self.authority.inform(&mut self.storage, decode_updates(updates)?, now)?;
        Ok(())
    }
}

/// Reads the first update of an authority and checks that it may be one.
pub(super) fn decode_genesis(bytes: &Base64) -> Result<Aum> {
    let genesis = Aum::decode(&bytes.0)?;
    Authority::check_first(&genesis)?;
    if genesis.parent().is_some() {
        bail!("the first update names a parent");
    }
    Ok(genesis)
}

fn decode_updates(updates: &[Base64]) -> Result<Vec<Aum>> {
    updates.iter().map(|bytes| Aum::decode(&bytes.0).context("update")).collect()
}

fn encode(aum: &Aum) -> Base64 {
    Base64(aum.encode())
}
