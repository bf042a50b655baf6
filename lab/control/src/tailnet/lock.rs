//! Tailnet Lock on the server's side (Tailnet Lock sheet §11, §13 to §15): it keeps the chain and the signatures, checks both, and
//! gives them to the nodes, who check again.

mod chain;

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tsrs_base_types::NodeId;
use tsrs_control_tailcfg::{
    Base64, RegisterRequest, SecretBase64, TkaBootstrapResponse, TkaDisableRequest, TkaDisableResponse,
    TkaInfo, TkaInitBeginRequest, TkaInitBeginResponse, TkaInitFinishRequest, TkaInitFinishResponse,
    TkaSignInfo, TkaSignaturesUsingKeyRequest, TkaSignaturesUsingKeyResponse, TkaSubmitSignatureRequest,
    TkaSubmitSignatureResponse, TkaSyncOfferRequest, TkaSyncOfferResponse, TkaSyncSendRequest,
    TkaSyncSendResponse,
};
use tsrs_control_tka::{Aum, Authority, DisablementSecret, NodeKeySignature, State, SyncOffer};

use self::chain::{Chain, decode_genesis};
use super::Tailnet;

/// How a hostile server speaks of Tailnet Lock. The true lock stands still behind the lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockLie {
    /// Shows an authority that it made up itself.
    OtherAuthority,
    /// Shows the true chain as it was so many updates ago.
    Behind(usize),
    /// Says that the lock has ended, with these bytes as the secret; without any if empty.
    Ended {
        /// The secret.
        secret: Vec<u8>,
    },
    /// Names the true head and withholds the updates that lead there.
    Withheld,
    /// Does not speak of a lock.
    Silent,
}

/// The lock of a tailnet.
#[derive(Debug, Default)]
pub(crate) struct Lock {
    /// A first update that waits for the signatures of the nodes.
    proposed: Option<Aum>,
    chain: Option<Chain>,
    /// The secret that ended the last lock; every node may know it now.
    ended_by: Option<SecretBase64>,
    /// A secret that was left with the operator.
    support_secret: Option<SecretBase64>,
    lie: Option<Lie>,
}

#[derive(Debug)]
struct Lie {
    kind: LockLie,
    /// The chain that is shown in place of the true one.
    chain: Option<Chain>,
}

/// The lock's part of a state file. A lie is not kept.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct StoredLock {
    updates: Vec<Base64>,
    ended_by: Option<SecretBase64>,
    support_secret: Option<SecretBase64>,
}

impl Lock {
    pub(super) fn store(&self) -> StoredLock {
        StoredLock {
            updates: self.chain.as_ref().map(Chain::encode).unwrap_or_default(),
            ended_by: self.ended_by.clone(),
            support_secret: self.support_secret.clone(),
        }
    }

    pub(super) fn restore(stored: StoredLock, now: Timestamp) -> Result<Self> {
        let is_on = !stored.updates.is_empty();
        let chain = is_on.then(|| Chain::decode(&stored.updates, now)).transpose()?;
        Ok(Self {
            chain,
            ended_by: stored.ended_by,
            support_secret: stored.support_secret,
            ..Self::default()
        })
    }

    /// What the map says of the lock; `None` where there never was one.
    pub(super) fn info(&self) -> Option<TkaInfo> {
        match (self.shown(), self.lie.as_ref().map(|lie| &lie.kind)) {
            (_, Some(LockLie::Silent)) => None,
            (Some(chain), _) => {
                Some(TkaInfo { head: chain.authority().head().to_string(), ..TkaInfo::default() })
            }
            (None, lie) => {
                let ended = self.ended_by.is_some() || matches!(lie, Some(LockLie::Ended { .. }));
                ended.then(|| TkaInfo { disabled: true, ..TkaInfo::default() })
            }
        }
    }

    /// The chain that nodes are shown.
    fn shown(&self) -> Option<&Chain> {
        match &self.lie {
            Some(Lie { kind: LockLie::Withheld, .. }) | None => self.chain.as_ref(),
            Some(lie) => lie.chain.as_ref(),
        }
    }

    fn on(&self) -> Result<&Chain> {
        self.chain.as_ref().context("tailnet lock is off")
    }

    /// Text form of the true head.
    pub(crate) fn head(&self) -> Option<String> {
        self.chain.as_ref().map(|chain| chain.authority().head().to_string())
    }

    /// The state whose secret a node may bring that stands at `head`.
    pub(crate) fn state_to_end(&self, head: &str) -> Result<State> {
        let chain = self.on()?;
        ensure!(chain.has(head.parse()?), "no update {head}");
        Ok(chain.authority().state().clone())
    }

    /// The true state, if the lock is on.
    pub(crate) fn state(&self) -> Option<&State> {
        self.chain.as_ref().map(|chain| chain.authority().state())
    }

    pub(crate) fn support_secret(&self) -> Option<&SecretBase64> {
        self.support_secret.as_ref()
    }

    /// Begins to lie, or speaks the truth again.
    pub(crate) fn lie(&mut self, lie: Option<LockLie>, now: Timestamp) -> Result<()> {
        let Some(kind) = lie else {
            self.lie = None;
            return Ok(());
        };
        let chain = match kind {
            LockLie::OtherAuthority => Some(Chain::made_up(now)?),
            LockLie::Behind(updates) => Some(self.on()?.behind(updates, now)?),
            LockLie::Ended { .. } | LockLie::Withheld | LockLie::Silent => None,
        };
        self.lie = Some(Lie { kind, chain });
        Ok(())
    }

    /// `/machine/tka/bootstrap`, whatever head the node has.
    pub(crate) fn bootstrap(&self) -> TkaBootstrapResponse {
        if let Some(chain) = self.shown() {
            return TkaBootstrapResponse { genesis_aum: chain.genesis(), ..TkaBootstrapResponse::default() };
        }
        let disablement_secret = match &self.lie {
            Some(Lie { kind: LockLie::Ended { secret }, .. }) => SecretBase64::new(secret.clone()),
            _ => self.ended_by.clone().unwrap_or_default(),
        };
        TkaBootstrapResponse { disablement_secret, ..TkaBootstrapResponse::default() }
    }

    /// `/machine/tka/sync/offer`.
    pub(crate) fn sync_offer(&self, request: &TkaSyncOfferRequest) -> Result<TkaSyncOfferResponse> {
        let offer = SyncOffer::parse(&request.head, request.ancestors.iter().map(String::as_str))?;
        let chain = self.shown().context("tailnet lock is off")?;
        let missing_aums = match self.lie.as_ref().map(|lie| &lie.kind) {
            Some(LockLie::Withheld) => Vec::new(),
            // It has nothing in common with any node.
            Some(LockLie::OtherAuthority) => chain.encode(),
            _ => chain.missing(&offer)?,
        };
        let own = chain.offer();
        Ok(TkaSyncOfferResponse {
            head: own.head.to_string(),
            ancestors: own.ancestors.iter().map(ToString::to_string).collect(),
            missing_aums,
        })
    }

    /// `/machine/tka/sync/send`. Whether a user waits for it makes no difference here.
    pub(crate) fn sync_send(
        &mut self,
        request: &TkaSyncSendRequest,
        now: Timestamp,
    ) -> Result<TkaSyncSendResponse> {
        if self.lie.is_none() {
            let chain = self.chain.as_mut().context("tailnet lock is off")?;
            chain.inform(&request.missing_aums, now)?;
        }
        let shown = self.shown().context("tailnet lock is off")?;
        Ok(TkaSyncSendResponse { head: shown.authority().head().to_string() })
    }

    /// Ends the lock of this state with a secret that was checked against it.
    fn end(&mut self, state: &State, secret: SecretBase64) -> Result<()> {
        ensure!(self.state() == Some(state), "tailnet lock has changed meanwhile");
        *self = Self { ended_by: Some(secret), ..Self::default() };
        Ok(())
    }
}

impl Tailnet {
    /// `/machine/tka/init/begin`: all nodes need a signature.
    pub(crate) fn begin_lock(&mut self, request: &TkaInitBeginRequest) -> Result<TkaInitBeginResponse> {
        ensure!(self.lock.chain.is_none(), "tailnet lock is on already");
        self.lock.proposed = Some(decode_genesis(&request.genesis_aum)?);
        let need_signatures = self.nodes.values().map(|node| TkaSignInfo {
            node_id: node.id,
            node_public: node.key,
            rotation_pubkey: (!node.lock_key.is_zero()).then(|| Base64(node.lock_key.as_bytes().to_vec())),
        });
        Ok(TkaInitBeginResponse { need_signatures: need_signatures.collect() })
    }

    /// `/machine/tka/init/finish`: the lock is on. A node without a signature is locked out.
    pub(crate) fn finish_lock(
        &mut self,
        request: &TkaInitFinishRequest,
        now: Timestamp,
    ) -> Result<TkaInitFinishResponse> {
        let genesis = self.lock.proposed.as_ref().context("no tailnet lock was proposed")?;
        let state = Authority::check_first(genesis)?;
        for (id, signature) in &request.signatures {
            let node = self.nodes.get(id).with_context(|| format!("no node {id}"))?;
            state.authorize(node.key, &signature.0).with_context(|| format!("signature of node {id}"))?;
        }
        let chain = Chain::begin(genesis.clone(), now)?;
        for (id, node) in &mut self.nodes {
            node.key_signature = request.signatures.get(id).cloned().unwrap_or_default();
            node.renewable_signature = Base64::default();
        }
        let support = &request.support_disablement;
        let support_secret = (!support.expose().is_empty()).then(|| support.clone());
        self.lock = Lock { chain: Some(chain), support_secret, ..Lock::default() };
        Ok(TkaInitFinishResponse {})
    }

    /// `/machine/tka/sign`: anybody may bring a signature, since it speaks for itself.
    pub(crate) fn submit_signature(
        &mut self,
        request: &TkaSubmitSignatureRequest,
    ) -> Result<TkaSubmitSignatureResponse> {
        let signature = NodeKeySignature::decode(&request.signature.0).context("signature")?;
        let key = signature.node_key().context("the signature names no node key")?;
        let id = self.node_by_key(&key).context("no node with this key")?.id;
        self.keep_signature(id, &request.signature)?;
        Ok(TkaSubmitSignatureResponse {})
    }

    /// `/machine/tka/affected-sigs`: the good signatures that stand on a key.
    pub(crate) fn signatures_using_key(
        &self,
        request: &TkaSignaturesUsingKeyRequest,
    ) -> Result<TkaSignaturesUsingKeyResponse> {
        let authority = self.lock.on()?.authority();
        let stand_on_key = self.nodes.values().filter(|node| {
            let verified = authority.authorize(node.key, &node.key_signature.0);
            verified.is_ok_and(|verified| verified.key_id == request.key_id.0)
        });
        Ok(TkaSignaturesUsingKeyResponse {
            signatures: stand_on_key.map(|node| node.key_signature.clone()).collect(),
        })
    }

    /// The second half of `/machine/tka/disable`: `secret` was found to end `state`.
    pub(crate) fn end_lock(&mut self, state: &State, secret: SecretBase64) -> Result<TkaDisableResponse> {
        self.lock.end(state, secret)?;
        Ok(TkaDisableResponse {})
    }

    /// Keeps a signature for a node, if the lock is on and it is good for the node's key.
    pub(super) fn keep_signature(&mut self, id: NodeId, signature: &Base64) -> Result<()> {
        let authority = self.lock.on()?.authority();
        let node = self.nodes.get_mut(&id).context("no such node")?;
        authority.authorize(node.key, &signature.0).context("signature")?;
        node.key_signature = signature.clone();
        node.renewable_signature = Base64::default();
        Ok(())
    }

    /// The signature that a node has to make anew before it registers another key (§11). It is asked for before an auth key is used up,
    /// because the node comes back with one more key; and once after a login by page, when the key is known by then.
    pub(super) fn signature_to_renew(&mut self, id: NodeId, request: &RegisterRequest) -> Option<Base64> {
        let brings_one = request.node_key_signature.as_ref().is_some_and(|signature| !signature.is_empty());
        if self.lock.chain.is_none() || brings_one {
            return None;
        }
        let node = self.nodes.get_mut(&id)?;
        let signature = if node.key == request.node_key {
            std::mem::take(&mut node.renewable_signature)
        } else {
            node.key_signature.clone()
        };
        (!signature.is_empty()).then_some(signature)
    }
}

/// Checks the secret of `/machine/tka/disable`. Takes a while and much memory, so it is done beside the tailnet.
pub(crate) fn check_secret(state: &State, request: &TkaDisableRequest) -> Result<()> {
    let secret = DisablementSecret::from_bytes(request.disablement_secret.expose().to_vec());
    if !state.is_ended_by(&secret) {
        bail!("the disablement secret is wrong");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
