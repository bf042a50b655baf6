//! What two nodes tell each other to come to the same head (Tailnet Lock sheet §13).

use std::collections::HashMap;
use std::sync::Arc;

use crate::aum::AumKind;
use crate::authority::Authority;
use crate::chain::ChainError;
use crate::graph::{Graph, Update};
use crate::hash::{AumHash, HashParseError};
use crate::limits::{MAX_CHAIN_SCAN, MAX_OFFER_ANCESTORS, MAX_SYNC_HEAD_SCAN};

/// Head and some ancestors, the newest first, by which the other side finds out what we lack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncOffer {
    /// The newest update of the active chain.
    pub head: AumHash,
    /// Some that it stands on.
    pub ancestors: Vec<AumHash>,
}

/// Why there is no list of what the other side lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SyncError {
    /// The two chains have nothing in common that the offer names.
    #[error("no common update")]
    NoIntersection,
    /// Our own chain cannot be followed.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

impl SyncOffer {
    /// From the text forms of the wire. Ancestors beyond the limit of a correct offer are not looked at.
    pub fn parse<'a>(
        head: &str,
        ancestors: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, HashParseError> {
        let ancestors = ancestors.into_iter().take(MAX_OFFER_ANCESTORS).map(str::parse);
        Ok(Self { head: head.parse()?, ancestors: ancestors.collect::<Result<_, _>>()? })
    }
}

impl Authority {
    /// What we have.
    pub fn sync_offer(&self, graph: &Graph) -> SyncOffer {
        let mut ancestors: Vec<AumHash> = graph
            .ancestry(self.head)
            .take(MAX_SYNC_HEAD_SCAN)
            .take_while(|update| update.hash() != self.oldest)
            .filter(|update| update.aum().kind == AumKind::CHECKPOINT)
            .map(|update| update.hash())
            .collect();
        ancestors.push(self.oldest);
        SyncOffer { head: self.head, ancestors }
    }

    /// What the other side lacks, each update after its parent. To be computed before anything of the other side's is taken in.
    pub fn missing<'a>(
        &self,
        graph: &'a Graph,
        offer: &SyncOffer,
    ) -> Result<Vec<&'a Arc<Update>>, SyncError> {
        if offer.head == self.head {
            return Ok(Vec::new());
        }
        // How far behind the head each update of the active chain is.
        let behind: HashMap<AumHash, usize> = graph
            .ancestry(self.head)
            .map(|update| update.hash())
            .take(MAX_CHAIN_SCAN)
            .enumerate()
            .map(|(index, hash)| (hash, index))
            .collect();
        let near = behind.get(&offer.head).is_some_and(|steps| *steps < MAX_SYNC_HEAD_SCAN);
        let common = if near {
            Some(offer.head)
        } else {
            offer.ancestors.iter().take(MAX_OFFER_ANCESTORS).copied().find(|hash| behind.contains_key(hash))
        };
        Ok(self.chain_after(graph, common.ok_or(SyncError::NoIntersection)?)?)
    }
}
