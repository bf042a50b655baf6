//! Node-key signatures (Tailnet Lock sheet §10): the proof that a node key is allowed.

mod codec;
mod verify;

use data_encoding::HEXLOWER;
use tsrs_base_types::{LockPrivate, LockPublic, NodePublic};

use crate::hash::SigDigest;
use crate::limits::{MAX_NESTING, MAX_ROTATION_KEYS};
use crate::state::State;

pub(crate) use verify::Claim;
pub use verify::{Refusal, Rotation, Verified};

/// A direct signature or a credential, with rotations around it. At most [`MAX_NESTING`] layers; the outermost is this one.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct NodeKeySignature {
    /// What this layer is.
    kind: SigKind,
    /// `np` and the node key that is allowed; empty in a credential.
    pubkey: Vec<u8>,
    /// The id of the trusted key that signed; empty in a rotation.
    key_id: Vec<u8>,
    signature: Vec<u8>,
    nested: Option<Box<Self>>,
    /// The key that may sign a rotation around this one.
    wrapping_pubkey: Vec<u8>,
}

/// The kind of a signature, as a number.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SigKind(pub u8);

impl SigKind {
    /// A trusted key allows a node key.
    pub const DIRECT: Self = Self(1);
    /// The wrapping key of the nested signature allows another node key in place of the one there.
    pub const ROTATION: Self = Self(2);
    /// A trusted key allows a wrapping key to sign for any node key.
    pub const CREDENTIAL: Self = Self(3);
}

/// Why a signature could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The old signature cannot be read.
    #[error("the signature to build on cannot be read: {0}")]
    Decode(#[from] crate::cbor::DecodeError),
    /// A rotation without a nested signature, which no node accepts.
    #[error("the signature to build on has no beginning")]
    NoRoot,
    /// One more layer would make a signature that no node can read.
    #[error("the signature to build on is nested too deeply")]
    TooDeep,
    /// The private key does not belong to its public key.
    #[error("the key cannot sign")]
    Key,
    /// The certificate of a wrapped auth key is another kind of signature.
    #[error("the signature to build on is not a credential")]
    NotCredential,
}

/// Why a signature was not replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplaceError {
    /// The old signature is not valid.
    #[error("the old signature is not valid: {0}")]
    Refused(#[from] Refusal),
    /// The old signature does not stand on the key that leaves.
    #[error("the old signature was made by another key")]
    OtherKey,
    /// The new one could not be made.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl NodeKeySignature {
    /// Allows `node` by the trusted key `signer`. `wrapping` may later sign a rotation; a key of small order is left out, because
    /// anybody can sign for it (trap 19).
    pub fn direct(
        node: NodePublic,
        wrapping: Option<LockPublic>,
        signer: &LockPrivate,
    ) -> Result<Self, SignError> {
        let wrapping = wrapping.filter(|key| !crate::ed25519::is_small_order(key.as_bytes()));
        Self {
            kind: SigKind::DIRECT,
            pubkey: node.to_binary().to_vec(),
            key_id: signer.public().as_bytes().to_vec(),
            wrapping_pubkey: wrapping.map(|key| key.as_bytes().to_vec()).unwrap_or_default(),
            ..Self::default()
        }
        .signed(signer)
    }

    /// Allows whoever holds `wrapping` to sign for node keys: the certificate in a wrapped auth key.
    pub fn credential(wrapping: LockPublic, signer: &LockPrivate) -> Result<Self, SignError> {
        Self {
            kind: SigKind::CREDENTIAL,
            key_id: signer.public().as_bytes().to_vec(),
            wrapping_pubkey: wrapping.as_bytes().to_vec(),
            ..Self::default()
        }
        .signed(signer)
    }

    /// Allows `node` in place of what `nested` allows, by the wrapping key of `nested`.
    pub fn rotation(node: NodePublic, nested: Self, wrapping: &LockPrivate) -> Result<Self, SignError> {
        Self {
            kind: SigKind::ROTATION,
            pubkey: node.to_binary().to_vec(),
            nested: Some(Box::new(nested)),
            ..Self::default()
        }
        .signed(wrapping)
    }

    /// Allows `node` by the certificate and the key of a wrapped auth key (§11).
    pub fn by_credential(
        node: NodePublic,
        credential: Self,
        wrapping: &LockPrivate,
    ) -> Result<Self, SignError> {
        if credential.kind != SigKind::CREDENTIAL {
            return Err(SignError::NotCredential);
        }
        Self::rotation(node, credential, wrapping)
    }

    /// The signature for a new node key, built on the one that we had (§11). Unchanged if that is for this key already; a long chain is
    /// rebuilt from its beginning and its newest rotations.
    pub fn resign(old: &[u8], node: NodePublic, wrapping: &LockPrivate) -> Result<Vec<u8>, SignError> {
        let decoded = Self::decode(old)?;
        if decoded.pubkey == node.to_binary() {
            return Ok(old.to_vec());
        }
        Ok(Self::rotation(node, decoded.trimmed(wrapping)?, wrapping)?.encode())
    }

    /// A direct signature by `signer` in place of one that stands on `leaving`, a trusted key that is about to be removed (§17, `remove`).
    /// The node keeps the key that may rotate it. What control presents as the old signature must be valid now.
    pub fn replace(
        state: &State,
        old: &[u8],
        leaving: &LockPublic,
        signer: &LockPrivate,
    ) -> Result<Self, ReplaceError> {
        let decoded = Self::decode(old).map_err(Refusal::from)?;
        let node = decoded.node_key().ok_or(Refusal::Pubkey)?;
        if state.authorize(node, old)?.key_id != leaving.as_bytes() {
            return Err(ReplaceError::OtherKey);
        }
        let wrapping = decoded.wrapping_public().and_then(|key| key.try_into().ok());
        Ok(Self::direct(node, wrapping.map(LockPublic::from_bytes), signer)?)
    }

    fn trimmed(self, wrapping: &LockPrivate) -> Result<Self, SignError> {
        if self.kind != SigKind::ROTATION {
            return Ok(self);
        }
        let mut keys = vec![self.pubkey.clone()];
        let mut root = self.nested.as_deref().ok_or(SignError::NoRoot)?;
        loop {
            if !root.pubkey.is_empty() {
                keys.push(root.pubkey.clone());
            }
            if root.kind != SigKind::ROTATION {
                break;
            }
            root = root.nested.as_deref().ok_or(SignError::NoRoot)?;
        }
        if keys.len() <= MAX_ROTATION_KEYS {
            return Ok(self);
        }
        let mut rebuilt = root.clone();
        for pubkey in keys.into_iter().take(MAX_ROTATION_KEYS - 1).rev() {
            rebuilt =
                Self { kind: SigKind::ROTATION, pubkey, nested: Some(Box::new(rebuilt)), ..Self::default() }
                    .signed(wrapping)?;
        }
        Ok(rebuilt)
    }

    fn signed(mut self, key: &LockPrivate) -> Result<Self, SignError> {
        if self.layers().count() > MAX_NESTING {
            return Err(SignError::TooDeep);
        }
        let signature = key.sign(self.sig_digest().as_bytes()).ok_or(SignError::Key)?;
        self.signature = signature.to_vec();
        Ok(self)
    }

    /// What this layer is.
    pub const fn kind(&self) -> SigKind {
        self.kind
    }

    /// The node key of this layer, if it names one in the right form.
    pub fn node_key(&self) -> Option<NodePublic> {
        NodePublic::from_binary(&self.pubkey)
    }

    /// The raw members of this layer, for display: `np` and node key, key id, signature, wrapping key.
    pub fn members(&self) -> [&[u8]; 4] {
        [&self.pubkey, &self.key_id, &self.signature, &self.wrapping_pubkey]
    }

    /// The signature inside, if this is a rotation.
    pub fn nested(&self) -> Option<&Self> {
        self.nested.as_deref()
    }

    /// This layer and all inside it, from the outside in.
    pub fn layers(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |layer| layer.nested.as_deref())
    }

    /// What the outermost signature signs.
    pub fn sig_digest(&self) -> SigDigest {
        SigDigest::of(&self.encode_without_signature())
    }

    /// The key that may sign a rotation around this, not verified: its own or, in a rotation, that of the nearest layer inside.
    pub fn wrapping_public(&self) -> Option<&[u8]> {
        for layer in self.layers() {
            if !layer.wrapping_pubkey.is_empty() {
                return Some(&layer.wrapping_pubkey);
            }
            if layer.kind != SigKind::ROTATION {
                return None;
            }
        }
        None
    }

    /// The id of the trusted key that this stands on, not verified.
    pub fn authorizing_key_id(&self) -> Option<&[u8]> {
        let root = self.layers().find(|layer| layer.kind != SigKind::ROTATION)?;
        let named = matches!(root.kind, SigKind::DIRECT | SigKind::CREDENTIAL) && !root.key_id.is_empty();
        named.then_some(root.key_id.as_slice())
    }

    /// Whether anybody could sign a rotation around this: a warning if it is our own signature (trap 19).
    pub fn is_wrapped_by_anybody(&self) -> bool {
        self.wrapping_public().is_some_and(crate::ed25519::is_small_order)
    }
}

impl std::fmt::Debug for NodeKeySignature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut list = f.debug_list();
        for layer in self.layers() {
            list.entry(&format_args!("{:?} {}", layer.kind, HEXLOWER.encode(&layer.pubkey)));
        }
        list.finish()
    }
}
