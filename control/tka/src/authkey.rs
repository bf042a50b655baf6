//! Auth keys that carry the right to sign their node (Tailnet Lock sheet §11): `<auth key>--TL<A>-<B>`.

use std::sync::LazyLock;

use data_encoding::{BASE64_NOPAD, Encoding, Specification};
use jiff::Timestamp;
use tsrs_base_types::{LockPrivate, NodePublic, StableNodeId};
use zeroize::Zeroizing;

use crate::key::Meta;
use crate::nks::{NodeKeySignature, SignError};

const MARK: &str = "--TL";

/// Characters of a wrapped auth key that are looked at.
pub const MAX_WRAPPED_CHARS: usize = 16 << 10;

/// An auth key with the certificate and the key that sign the node which it is used for.
pub struct WrappedAuthKey {
    auth_key: Zeroizing<String>,
    credential: NodeKeySignature,
    private: LockPrivate,
}

/// Base64 as the reference reads it: line breaks are passed over, unused last bits ignored, padding refused.
static LENIENT_BASE64: LazyLock<Option<Encoding>> = LazyLock::new(|| {
    let mut rules: Specification = BASE64_NOPAD.specification();
    rules.check_trailing_bits = false;
    rules.ignore.push_str("\r\n");
    rules.encoding().ok()
});

impl WrappedAuthKey {
    /// Reads a wrapped auth key. `None` if it is an ordinary one, or wrapped in a way that cannot be used: then the whole text
    /// is the auth key.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_WRAPPED_CHARS {
            return None;
        }
        let (auth_key, wrapped) = text.split_once(MARK)?;
        let (credential, private) = wrapped.split_once('-')?;
        let base64 = LENIENT_BASE64.as_ref()?;
        let credential = base64.decode(credential.as_bytes()).ok()?;
        let private = Zeroizing::new(base64.decode(private.as_bytes()).ok()?);
        Some(Self {
            auth_key: Zeroizing::new(auth_key.to_owned()),
            credential: NodeKeySignature::decode(&credential).ok()?,
            private: LockPrivate::from_bytes(private.as_slice().try_into().ok()?),
        })
    }

    /// Wraps an auth key: `private` is fresh, and `signer` certifies it. `None` if the key is wrapped already or cannot sign.
    pub fn wrap(auth_key: &str, private: LockPrivate, signer: &LockPrivate) -> Option<Self> {
        if auth_key.contains(MARK) {
            return None;
        }
        let credential = NodeKeySignature::credential(private.public(), signer).ok()?;
        Some(Self { auth_key: Zeroizing::new(auth_key.to_owned()), credential, private })
    }

    /// What control gets.
    pub fn expose_auth_key(&self) -> &str {
        &self.auth_key
    }

    /// The whole text, which holds a private key.
    pub fn expose_text(&self) -> Zeroizing<String> {
        let credential = BASE64_NOPAD.encode(&self.credential.encode());
        let private = Zeroizing::new(BASE64_NOPAD.encode(self.private.expose_bytes()));
        Zeroizing::new([self.auth_key.as_str(), MARK, &credential, "-", &private].concat())
    }

    /// The certificate.
    pub const fn credential(&self) -> &NodeKeySignature {
        &self.credential
    }

    /// The signature of the node key that registers with this auth key.
    pub fn sign(&self, node: NodePublic) -> Result<NodeKeySignature, SignError> {
        NodeKeySignature::by_credential(node, self.credential.clone(), &self.private)
    }
}

/// How the tools describe the key that a wrapped auth key signs with (sheet §4): who wrapped which auth key, and when.
pub fn wrapping_key_meta(wrapper: &StableNodeId, created: Timestamp, auth_key_id: &str) -> Meta {
    let pairs = [
        ("purpose", "pre-auth key".to_owned()),
        ("wrapper_stableid", wrapper.to_string()),
        ("wrapper_createtime", created.as_second().to_string()),
        ("authkey_stableid", auth_key_id.to_owned()),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

impl std::fmt::Debug for WrappedAuthKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WrappedAuthKey([redacted])")
    }
}
