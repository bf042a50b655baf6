//! Requests and answers of `tka/*` (client sheet §1.4, §1.6).
//!
//! Updates and signatures are CBOR in base64; whoever wants to know what is in them asks the daemon, which verified them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tsrs_base_types::{LockPublic, NodeId, NodePublic, Redacted, StableNodeId};
use tsrs_control_tailcfg::Base64;

/// State of Tailnet Lock as this node sees it: answer of `tka/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockStatus {
    /// Whether the tailnet has a lock that this node has verified.
    #[serde(rename = "Enabled")]
    pub enabled: bool,
    /// Hash of the newest update, as 32 numbers.
    #[serde(rename = "Head")]
    pub head: Option<[u8; 32]>,
    /// Lock key of this node.
    #[serde(rename = "PublicKey")]
    pub public_key: LockPublic,
    /// Node key of this node; `null` before the first login.
    #[serde(rename = "NodeKey")]
    pub node_key: Option<NodePublic>,
    /// Whether this node's key is signed.
    #[serde(rename = "NodeKeySigned")]
    pub node_key_signed: bool,
    /// Its signature.
    #[serde(rename = "NodeKeySignature")]
    pub node_key_signature: Option<LockSignature>,
    /// Keys that may sign.
    #[serde(rename = "TrustedKeys")]
    pub trusted_keys: Option<Vec<LockKey>>,
    /// Peers that are seen.
    #[serde(rename = "VisiblePeers")]
    pub visible_peers: Option<Vec<LockPeer>>,
    /// Peers that the lock keeps out.
    #[serde(rename = "FilteredPeers")]
    pub filtered_peers: Option<Vec<LockPeer>>,
    /// Identifies the lock.
    #[serde(rename = "StateID")]
    pub state_id: u64,
    /// Where the lock stands. Not in the official client.
    #[serde(rename = "Standing", skip_serializing_if = "crate::json::is_default")]
    pub standing: LockStanding,
    /// Why it stands there, or what control did that has no effect. Not in the official client.
    #[serde(rename = "Problem", skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

/// Where the lock stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockStanding {
    /// Said by `Enabled`.
    #[default]
    AsEnabled,
    /// The user has switched it off on this node.
    DisabledHere,
    /// One was announced and is not verified; peers from before stay, nobody new comes in.
    Announced,
    /// One is demanded, or was verified before, and no chain is verified: nobody is admitted.
    Shut,
}

/// A trusted key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockKey {
    /// `25519`.
    #[serde(rename = "Kind")]
    pub kind: String,
    /// The key.
    #[serde(rename = "Key")]
    pub key: LockPublic,
    /// What describes it.
    #[serde(rename = "Metadata")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// What its signature weighs.
    #[serde(rename = "Votes")]
    pub votes: u64,
}

/// A peer and its signature.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockPeer {
    /// DNS name.
    #[serde(rename = "Name")]
    pub name: String,
    /// Number of the node.
    #[serde(rename = "ID")]
    pub id: NodeId,
    /// Stable id of the node.
    #[serde(rename = "StableID")]
    pub stable_id: StableNodeId,
    /// Its own addresses.
    #[serde(rename = "TailscaleIPs")]
    pub tailscale_ips: Vec<IpAddr>,
    /// Its node key.
    #[serde(rename = "NodeKey")]
    pub node_key: NodePublic,
    /// Its signature; empty if there is none or it cannot be read.
    #[serde(rename = "NodeKeySignature")]
    pub node_key_signature: LockSignature,
    /// Why it is kept out. Not in the official client.
    #[serde(rename = "Reason", skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// The members of a node-key signature (Tailnet Lock sheet §10).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockSignature {
    /// 1 direct, 2 rotation, 3 credential.
    #[serde(rename = "SigKind")]
    pub kind: u8,
    /// `np` and the node key.
    #[serde(rename = "Pubkey")]
    pub pubkey: GoBytes,
    /// The trusted key that signed.
    #[serde(rename = "KeyID")]
    pub key_id: GoBytes,
    /// The signature itself.
    #[serde(rename = "Signature")]
    pub signature: GoBytes,
    /// The signature inside a rotation.
    #[serde(rename = "Nested")]
    pub nested: Option<Box<Self>>,
    /// The key that may sign a rotation.
    #[serde(rename = "WrappingPubkey")]
    pub wrapping_pubkey: GoBytes,
}

/// Bytes as Go writes them: base64, and `null` for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GoBytes(pub Vec<u8>);

impl Serialize for GoBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_empty() {
            serializer.serialize_none()
        } else {
            Base64(self.0.clone()).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for GoBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Option::<Base64>::deserialize(deserializer)?.map(|bytes| bytes.0).unwrap_or_default()))
    }
}

/// One update of `tka/log`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockUpdate {
    /// Its hash, as 32 numbers.
    #[serde(rename = "Hash")]
    pub hash: [u8; 32],
    /// Its kind.
    #[serde(rename = "Change")]
    pub change: String,
    /// The update itself.
    #[serde(rename = "Raw")]
    pub raw: GoBytes,
    /// What is in it, in the form of `lock log --json`. Not in the official client, which reads the update itself.
    #[serde(rename = "AUM", skip_serializing_if = "serde_json::Value::is_null")]
    pub expanded: serde_json::Value,
}

/// Body of `tka/sign`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SignRequest {
    /// The node key to sign.
    #[serde(rename = "NodeKey")]
    pub node_key: NodePublic,
    /// The key that may rotate the signature. Official clients send 32 zero bytes for none.
    #[serde(rename = "RotationPublic")]
    pub rotation_public: GoBytes,
}

/// A key in a request.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NewLockKey {
    /// 1 is Ed25519.
    #[serde(rename = "Kind")]
    pub kind: u8,
    /// What its signature weighs.
    #[serde(rename = "Votes")]
    pub votes: u64,
    /// The key, raw.
    #[serde(rename = "Public")]
    pub public: GoBytes,
    /// What describes it.
    #[serde(rename = "Meta")]
    pub meta: Option<BTreeMap<String, String>>,
}

/// Body of `tka/modify`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ModifyRequest {
    /// Keys to trust.
    #[serde(rename = "AddKeys")]
    pub add_keys: Option<Vec<NewLockKey>>,
    /// Keys to trust no longer.
    #[serde(rename = "RemoveKeys")]
    pub remove_keys: Option<Vec<NewLockKey>>,
    /// Sign the nodes first that stand on the keys to remove. Not in the official client, which does so itself.
    #[serde(rename = "ReSign", skip_serializing_if = "crate::json::is_default")]
    pub re_sign: bool,
}

/// Body of `tka/init`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct InitRequest {
    /// The first trusted keys.
    #[serde(rename = "Keys")]
    pub keys: Option<Vec<NewLockKey>>,
    /// The digests of the secrets that end the lock.
    #[serde(rename = "DisablementValues")]
    pub disablement_values: Option<Vec<Base64>>,
    /// A secret for the operator of control.
    #[serde(rename = "SupportDisablement")]
    pub support_disablement: GoBytes,
}

/// Body of `tka/wrap-preauth-key`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WrapRequest {
    /// The auth key.
    #[serde(rename = "TSKey")]
    pub auth_key: SecretText,
    /// The private key that will sign for the nodes that use it; empty for one that the daemon makes and makes trusted. Official clients
    /// make it themselves.
    #[serde(rename = "TKAKey")]
    pub lock_key: SecretText,
}

/// Answer of `tka/disablement-kdf`, which is not in the official daemon.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Disablement {
    /// `disablement-secret:` and hex, if it was made here; it is kept nowhere.
    #[serde(rename = "Secret")]
    pub secret: SecretText,
    /// `disablement:` and hex: what a lock stores of the secret.
    #[serde(rename = "Value")]
    pub value: String,
}

/// Body of `tka/verify-deeplink`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkRequest {
    /// The link.
    #[serde(rename = "URL")]
    pub url: String,
}

/// Answer of `tka/verify-deeplink`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkAnswer {
    /// Whether the link was made for this tailnet.
    #[serde(rename = "IsValid")]
    pub is_valid: bool,
    /// Why not.
    #[serde(rename = "Error")]
    pub error: String,
    /// Version of the link's form.
    #[serde(rename = "Version")]
    pub version: u8,
    /// The node key to sign.
    #[serde(rename = "NodeKey")]
    pub node_key: String,
    /// The key that may rotate the signature.
    #[serde(rename = "TLPub")]
    pub lock_key: String,
    /// The name of the node.
    #[serde(rename = "DeviceName")]
    pub device_name: String,
    /// Its operating system.
    #[serde(rename = "OSName")]
    pub os: String,
    /// The login of its owner.
    #[serde(rename = "EmailAddress")]
    pub login: String,
}

/// Body of `tka/generate-recovery-aum`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RevokeRequest {
    /// The keys to revoke, raw.
    #[serde(rename = "Keys")]
    pub keys: Vec<Base64>,
    /// Where to fork the chain, base32; empty for the place that fits.
    #[serde(rename = "ForkFrom")]
    pub fork_from: String,
}

/// A text that is not printed and is wiped on drop.
#[derive(Clone, Debug)]
pub struct SecretText(pub Redacted<String>);

impl Default for SecretText {
    fn default() -> Self {
        Self(Redacted::new(String::new()))
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Redacted::new(text)))
    }
}
