//! What a user does with the lock: signatures and updates are made here and given to the caller, who brings them to control.
//! Nothing of it counts here before control tells it back, or the caller says that control has taken it.

use std::sync::Arc;

use rand_core::CryptoRngCore;
use tsrs_base_types::{LockPrivate, LockPublic, NodePublic, Redacted};
use tsrs_control_tailcfg::cap;
use tsrs_control_tka::{
    Aum, AumError, AumHash, Authority, BuildError, ChainError, DecodeError, DisablementSecret, Graph, Key,
    KeyError, NodeKeySignature, RecoveryError, Refusal, ReplaceError, SignError, State, StateId, Update,
    UpdateBuilder, WrappedAuthKey, wrapping_key_meta,
};

use super::{Agent, Now};

/// Why a command about the lock was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockCommandError {
    /// There is no lock that was verified.
    #[error("tailnet-lock is not active")]
    NotActive,
    /// There is one already.
    #[error("tailnet-lock is already active")]
    Active,
    /// The account has no key of its own.
    #[error("no node-key: is this node logged in?")]
    NoKey,
    /// Our own key is not among the trusted ones. Official clients look for these words.
    #[error("this node is not trusted by network lock")]
    NotTrusted,
    /// Control does not let this node make a lock.
    #[error("Tailnet Lock is not supported on your pricing plan")]
    NotOffered,
    /// A key that is none.
    #[error("a key is not valid: {0}")]
    Key(#[from] KeyError),
    /// A key of another length.
    #[error("a key does not have 32 bytes")]
    KeyLength,
    /// The secret does not end the lock.
    #[error("incorrect disablement secret")]
    Secret,
    /// A signature could not be made.
    #[error("signature failed: {0}")]
    Sign(#[from] SignError),
    /// An update could not be made.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// An update is not valid.
    #[error(transparent)]
    Update(#[from] AumError),
    /// Something cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// No recovery could be made.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The chain cannot be followed.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Our key has signed it already.
    #[error("this node has already signed this update")]
    SignedTwice,
    /// It is no recovery: a checkpoint with a parent.
    #[error("not a recovery update")]
    NoRecovery,
    /// The auth key is wrapped already.
    #[error("the auth key is wrapped already, or cannot be")]
    Wrapped,
    /// A signature could not be replaced.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
    /// Control presents a signature that is not one of those asked for.
    #[error("the control server named a signature that is not valid: {0}")]
    Foreign(#[from] Refusal),
}

type Result<T> = std::result::Result<T, LockCommandError>;

impl<R: CryptoRngCore> Agent<R> {
    fn lock_authority(&self) -> Result<(&Authority, &Graph)> {
        let keeper = &self.lock.keeper;
        keeper.authority().zip(keeper.graph()).ok_or(LockCommandError::NotActive)
    }

    /// Our own key, if the lock trusts it.
    fn lock_signer(&self) -> Result<&LockPrivate> {
        let (authority, _) = self.lock_authority()?;
        let key = self.state.profiles.current().login.lock_key.as_ref().ok_or(LockCommandError::NoKey)?;
        if authority.trusts(&key.public()) { Ok(key) } else { Err(LockCommandError::NotTrusted) }
    }

    /// Switches the lock off on this node alone.
    ///
    /// # Errors
    /// There is no lock that was verified.
    pub fn disable_lock_here(&mut self, now: Now) -> Result<()> {
        let known = &mut self.state.profiles.current_mut().login.lock;
        if !self.lock.keeper.disable_here(known) {
            return Err(LockCommandError::NotActive);
        }
        self.note_lock_changed(true, now);
        Ok(())
    }

    /// The updates of the verified chain from the head back, at most `limit`.
    ///
    /// # Errors
    /// There is no verified chain.
    pub fn lock_log(&self, limit: usize) -> Result<Vec<Arc<Update>>> {
        let (authority, graph) = self.lock_authority()?;
        Ok(authority.log(graph).take(limit).cloned().collect())
    }

    /// A signature for a node key, encoded. `rotation` may later sign for another key of that node.
    ///
    /// # Errors
    /// Our key is not trusted.
    pub fn sign_node(&self, node: NodePublic, rotation: Option<LockPublic>) -> Result<Vec<u8>> {
        Ok(NodeKeySignature::direct(node, rotation, self.lock_signer()?)?.encode())
    }

    /// The updates that add and remove keys, signed.
    ///
    /// # Errors
    /// Our key is not trusted, or the changes cannot be made.
    pub fn lock_changes(&self, add: Vec<Key>, remove: &[LockPublic]) -> Result<Vec<Aum>> {
        let signer = self.lock_signer()?;
        let (authority, graph) = self.lock_authority()?;
        let mut builder = UpdateBuilder::new(authority, signer);
        for key in add {
            key.public().ok_or(LockCommandError::KeyLength)?;
            builder.add_key(key)?;
        }
        for key in remove {
            builder.remove_key(key)?;
        }
        Ok(builder.finish(authority, graph)?)
    }

    /// Takes updates that control has taken.
    ///
    /// # Errors
    /// They no longer fit, because the chain went on meanwhile; control tells what counts with the next netmap.
    pub fn adopt_lock_changes(&mut self, updates: Vec<Aum>, now: Now) -> std::result::Result<(), String> {
        let known = &mut self.state.profiles.current_mut().login.lock;
        let adopted = self.lock.keeper.adopt(updates, known, now.wall).map_err(|error| error.to_string());
        self.note_lock_changed(true, now);
        adopted
    }

    /// The first update of a new lock, signed by our key, which has to be among the trusted ones.
    ///
    /// # Errors
    /// There is a lock, control does not offer one, or what was given makes no lock.
    pub fn new_lock(&mut self, keys: Vec<Key>, values: Vec<[u8; 32]>) -> Result<Aum> {
        if self.lock_authority().is_ok() {
            return Err(LockCommandError::Active);
        }
        let offered =
            self.lock.full.as_ref().is_some_and(|netmap| netmap.has_self_cap(cap::node::TAILNET_LOCK));
        if !offered {
            return Err(LockCommandError::NotOffered);
        }
        if keys.iter().any(|key| key.public().is_none()) {
            return Err(LockCommandError::KeyLength);
        }
        let id = StateId(self.rng.next_u64(), self.rng.next_u64());
        let login = &self.state.profiles.current().login;
        let signer = login.lock_key.as_ref().ok_or(LockCommandError::NoKey)?;
        if !keys.iter().any(|key| key.public() == Some(signer.public())) {
            return Err(LockCommandError::NotTrusted);
        }
        Ok(Authority::create(State::new(keys, values, id), signer)?)
    }

    /// A signature for a node of a lock that begins.
    ///
    /// # Errors
    /// There is no key of our own, or it cannot sign.
    pub fn sign_first(&self, node: NodePublic, rotation: Option<LockPublic>) -> Result<Vec<u8>> {
        let signer = self.state.profiles.current().login.lock_key.as_ref().ok_or(LockCommandError::NoKey)?;
        Ok(NodeKeySignature::direct(node, rotation, signer)?.encode())
    }

    /// Checks a secret that is to end the lock; gives our head, which control wants to hear with it.
    ///
    /// # Errors
    /// There is no verified lock, or the secret does not end it.
    pub fn check_lock_secret(&self, secret: &DisablementSecret) -> Result<AumHash> {
        let (authority, _) = self.lock_authority()?;
        if authority.state().is_ended_by(secret) {
            Ok(authority.head())
        } else {
            Err(LockCommandError::Secret)
        }
    }

    /// A fresh key that will sign for the nodes of an auth key, and what makes it trusted.
    ///
    /// # Errors
    /// Our key is not trusted, or no key could be made.
    pub fn wrapping_key(&mut self, auth_key: &str, now: Now) -> Result<(LockPrivate, Key)> {
        self.lock_signer()?;
        let private = LockPrivate::generate(&mut self.rng).ok_or(LockCommandError::NoKey)?;
        // `tskey-auth-<id>-<secret>`: the id alone is told to others.
        let id = auth_key.split('-').nth(2).unwrap_or_default();
        let meta = wrapping_key_meta(&self.state.profiles.current().login.node_id, now.wall, id);
        let key = Key::new(private.public(), 1, Some(meta));
        key.validate()?;
        Ok((private, key))
    }

    /// Signatures by our key in place of those that stand on a key which is to be removed.
    ///
    /// # Errors
    /// Our key is not trusted, or one of the old signatures is not valid.
    pub fn replacements(&self, leaving: &LockPublic, signatures: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
        let signer = self.lock_signer()?;
        let (authority, _) = self.lock_authority()?;
        let replace =
            |old: &Vec<u8>| Ok(NodeKeySignature::replace(authority.state(), old, leaving, signer)?.encode());
        signatures.iter().map(replace).collect()
    }

    /// An auth key with the right to sign its node by `private`, which the caller has made trusted.
    ///
    /// # Errors
    /// Our key is not trusted, or the auth key is wrapped already.
    pub fn wrap_auth_key(&self, auth_key: &str, private: LockPrivate) -> Result<Redacted<String>> {
        let wrapped = WrappedAuthKey::wrap(auth_key, private, self.lock_signer()?);
        // Exposed to be given to the user who asked for it.
        let text = wrapped.ok_or(LockCommandError::Wrapped)?.expose_text();
        Ok(Redacted::new(text.as_str().to_owned()))
    }

    /// Checks signatures that control says stand on a trusted key.
    ///
    /// # Errors
    /// One of them is not valid or stands on another key.
    pub fn check_signatures(&self, key: &LockPublic, signatures: &[Vec<u8>]) -> Result<()> {
        let (authority, _) = self.lock_authority()?;
        for signature in signatures {
            let node = NodeKeySignature::decode(signature)?.node_key().ok_or(Refusal::Pubkey)?;
            if authority.authorize(node, signature)?.key_id != key.as_bytes() {
                return Err(Refusal::Untrusted.into());
            }
        }
        Ok(())
    }

    /// The update that revokes keys, with our signature; see [`Authority::revocation`].
    ///
    /// # Errors
    /// There is no verified lock, or nothing can be revoked so.
    pub fn revoke_keys(&self, keys: &[LockPublic], fork_from: Option<AumHash>) -> Result<Aum> {
        let (authority, graph) = self.lock_authority()?;
        let key = self.state.profiles.current().login.lock_key.as_ref().ok_or(LockCommandError::NoKey)?;
        let aum = authority.revocation(graph, keys, &key.public(), fork_from)?;
        signed(aum, key)
    }

    /// Adds our signature to such an update.
    ///
    /// # Errors
    /// It is none, or carries our signature already.
    pub fn cosign_revocation(&self, aum: Aum) -> Result<Aum> {
        let aum = self.check_revocation(aum)?;
        let key = self.state.profiles.current().login.lock_key.as_ref().ok_or(LockCommandError::NoKey)?;
        let public = key.public();
        let ours = |id: Option<&[u8]>| id == Some(public.as_bytes().as_slice());
        if aum.signatures.iter().any(|signature| ours(signature.key_id.as_deref())) {
            return Err(LockCommandError::SignedTwice);
        }
        signed(aum, key)
    }

    /// Checks such an update before it is given to control.
    ///
    /// # Errors
    /// It is none, or there is no lock.
    pub fn check_revocation(&self, aum: Aum) -> Result<Aum> {
        self.lock_authority()?;
        aum.validate()?;
        if aum.state.is_none() || aum.parent().is_none() {
            return Err(LockCommandError::NoRecovery);
        }
        Ok(aum)
    }
}

fn signed(mut aum: Aum, key: &LockPrivate) -> Result<Aum> {
    if !aum.sign(key) {
        return Err(AumError::BadSignature.into());
    }
    aum.validate()?;
    Ok(aum)
}
