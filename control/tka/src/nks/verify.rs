//! Whether a signature allows a node key.

use tsrs_base_types::NodePublic;

use super::{NodeKeySignature, SigKind};
use crate::cbor::DecodeError;
use crate::ed25519::{self, Rules, is_small_order};
use crate::hash::SigDigest;
use crate::state::State;

/// Why a signature does not allow a node key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It cannot be read.
    #[error("the signature cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// A credential allows no node key by itself.
    #[error("a credential alone allows no node key")]
    Credential,
    /// It names no trusted key that it stands on.
    #[error("the signature names no trusted key")]
    NoKeyId,
    /// The key that it stands on is not trusted.
    #[error("the signing key is not trusted")]
    Untrusted,
    /// It is for another node key.
    #[error("the signature is for another node key")]
    OtherNode,
    /// A rotation around a signature that names no wrapping key, or one that is none.
    #[error("no key may sign a rotation here")]
    NoWrappingKey,
    /// A rotation by a wrapping key for which anybody can sign.
    #[error("anybody could have signed this rotation")]
    WeakWrappingKey,
    /// A direct signature or credential with something inside, or a kind that is not known.
    #[error("a signature of a wrong form")]
    Form,
    /// A node key inside is malformed.
    #[error("a node key inside is malformed")]
    Pubkey,
    /// A signature does not verify.
    #[error("a signature does not verify")]
    BadSignature,
}

/// A signature that allows its node key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// The id of the trusted key that it stands on.
    pub key_id: Vec<u8>,
    /// Set if the node key took the place of others.
    pub rotation: Option<Rotation>,
}

/// The node keys that a rotation took the place of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rotation {
    /// The newest first.
    pub previous: Vec<NodePublic>,
    /// The signature that the chain began with: direct or credential.
    pub initial: NodeKeySignature,
}

impl State {
    /// Whether `signature` allows `node` now.
    pub fn authorize(&self, node: NodePublic, signature: &[u8]) -> Result<Verified, Refusal> {
        let claim = Claim::read(node, signature)?;
        if self.key(claim.key_id()).is_none() {
            return Err(Refusal::Untrusted);
        }
        claim.check_rotations()?;
        if !claim.root().verify() {
            return Err(Refusal::BadSignature);
        }
        Ok(claim.into_verified())
    }
}

/// A signature whose form is right for a node key, before anything is verified.
pub(crate) struct Claim {
    signature: NodeKeySignature,
    /// Of each layer, from the outside in.
    digests: Vec<SigDigest>,
}

/// What the trusted key has to have signed.
pub(crate) struct Root<'a> {
    pub(crate) key_id: &'a [u8],
    pub(crate) digest: SigDigest,
    pub(crate) signature: &'a [u8],
}

impl Root<'_> {
    pub(crate) fn verify(&self) -> bool {
        ed25519::verify(Rules::Zip215, self.key_id, self.digest.as_bytes(), self.signature)
    }
}

impl Claim {
    pub(crate) fn read(node: NodePublic, bytes: &[u8]) -> Result<Self, Refusal> {
        let signature = NodeKeySignature::decode(bytes)?;
        if signature.kind == SigKind::CREDENTIAL {
            return Err(Refusal::Credential);
        }
        signature.authorizing_key_id().ok_or(Refusal::NoKeyId)?;
        if signature.pubkey != node.to_binary() {
            return Err(Refusal::OtherNode);
        }
        let mut digests = Vec::new();
        let mut inside: Option<Vec<u8>> = None;
        for layer in signature.layers_inside_out() {
            // A rotation has something inside, everything else has not.
            if (layer.kind == SigKind::ROTATION) != inside.is_some() {
                return Err(Refusal::Form);
            }
            let may_lack_key = layer.kind == SigKind::CREDENTIAL && layer.pubkey.is_empty();
            if layer.node_key().is_none() && !may_lack_key {
                return Err(Refusal::Pubkey);
            }
            digests.push(SigDigest::of(&layer.encode_layer(inside.as_deref(), false)));
            inside = Some(layer.encode_layer(inside.as_deref(), true));
        }
        digests.reverse();
        Ok(Self { signature, digests })
    }

    /// The id of the key that must be trusted.
    pub(crate) fn key_id(&self) -> &[u8] {
        &self.innermost().key_id
    }

    /// Verifies every layer but the innermost with the wrapping key inside it.
    pub(crate) fn check_rotations(&self) -> Result<(), Refusal> {
        for (layer, digest) in self.signature.layers().zip(&self.digests) {
            let Some(inner) = layer.nested() else { break };
            let wrapping = inner.wrapping_public().ok_or(Refusal::NoWrappingKey)?;
            if wrapping.len() != 32 {
                return Err(Refusal::NoWrappingKey);
            }
            // Stricter than the reference, which drops the peer where it would keep it.
            if is_small_order(wrapping) {
                return Err(Refusal::WeakWrappingKey);
            }
            if !ed25519::verify(Rules::Rfc8032, wrapping, digest.as_bytes(), &layer.signature) {
                return Err(Refusal::BadSignature);
            }
        }
        Ok(())
    }

    /// The innermost layer, which a trusted key has to have signed.
    pub(crate) fn root(&self) -> Root<'_> {
        let layer = self.innermost();
        let digest = self.digests.last().copied().unwrap_or_else(|| layer.sig_digest());
        Root { key_id: &layer.key_id, digest, signature: &layer.signature }
    }

    pub(crate) fn into_verified(self) -> Verified {
        let initial = self.innermost();
        let rotation = (self.digests.len() > 1).then(|| Rotation {
            previous: self.signature.layers().skip(1).filter_map(NodeKeySignature::node_key).collect(),
            initial: initial.clone(),
        });
        Verified { key_id: initial.key_id.clone(), rotation }
    }

    fn innermost(&self) -> &NodeKeySignature {
        self.signature.layers().last().unwrap_or(&self.signature)
    }
}
