//! The calls of Tailnet Lock: `GET` with a JSON body (Tailnet Lock sheet §15).
//!
//! Hashes are base32 text, updates and signatures base64 of CBOR. Nothing here is verified.

use std::collections::BTreeMap;

use tsrs_base_types::{LockPublic, NodeId, NodePublic};

use crate::{Base64, CapabilityVersion};

wire! {
    /// `/machine/tka/bootstrap`: asks for the first update, or for the secret that ends the lock.
    struct TkaBootstrapRequest {
        /// Capability version of the client.
        keep "Version" version: CapabilityVersion,
        /// Our node key.
        keep "NodeKey" node_key: NodePublic,
        /// Our head; empty without a chain.
        keep "Head" head: String,
    }

    /// Answer to a [`TkaBootstrapRequest`].
    struct TkaBootstrapResponse {
        /// The first update of the chain.
        omit "GenesisAUM" genesis: Option<Base64>,
        /// The secret that ended the lock.
        omit "DisablementSecret" disablement_secret: Option<Base64>,
    }

    /// `/machine/tka/sync/offer`: tells what we have.
    struct TkaSyncOfferRequest {
        /// Capability version of the client.
        keep "Version" version: CapabilityVersion,
        /// Our node key.
        keep "NodeKey" node_key: NodePublic,
        /// Our head.
        keep "Head" head: String,
        /// Some updates that it stands on, the newest first.
        keep "Ancestors" ancestors: Vec<String>,
    }

    /// Answer to a [`TkaSyncOfferRequest`].
    struct TkaSyncOfferResponse {
        /// The server's head.
        keep "Head" head: String,
        /// Some updates that it stands on.
        list "Ancestors" ancestors: Vec<String>,
        /// Updates that we lack, the oldest first.
        list "MissingAUMs" missing: Vec<Base64>,
    }

    /// `/machine/tka/sync/send`: gives the server what it lacks.
    struct TkaSyncSendRequest {
        /// Capability version of the client.
        keep "Version" version: CapabilityVersion,
        /// Our node key.
        keep "NodeKey" node_key: NodePublic,
        /// Our head.
        keep "Head" head: String,
        /// Updates that the server lacks, the oldest first.
        keep "MissingAUMs" missing: Vec<Base64>,
        /// A user made these changes just now.
        keep "Interactive" interactive: bool,
    }

    /// Answer to a [`TkaSyncSendRequest`].
    struct TkaSyncSendResponse {
        /// The server's head.
        keep "Head" head: String,
    }

    /// `/machine/tka/init/begin`: begins a lock.
    struct TkaInitBeginRequest {
        /// Capability version of the client.
        keep "Version" version: CapabilityVersion,
        /// Our node key.
        keep "NodeKey" node_key: NodePublic,
        /// The first update.
        keep "GenesisAUM" genesis: Base64,
    }

    /// Answer to a [`TkaInitBeginRequest`].
    struct TkaInitBeginResponse {
        /// The nodes that have to be signed.
        list "NeedSignatures" need_signatures: Vec<TkaSignInfo>,
    }

    /// A node that has to be signed.
    struct TkaSignInfo {
        /// Its id.
        keep "NodeID" node_id: NodeId,
        /// Its node key.
        keep "NodePublic" node_public: NodePublic,
        /// The key that may rotate its signature; empty for none.
        keep "RotationPubkey" rotation_pubkey: Option<Base64>,
    }

    /// `/machine/tka/init/finish`: ends the beginning.
    struct TkaInitFinishRequest {
        /// Capability version of the client.
        keep "Version" version: CapabilityVersion,
        /// Our node key.
        keep "NodeKey" node_key: NodePublic,
        /// A signature for each node.
        keep "Signatures" signatures: BTreeMap<NodeId, Base64>,
        /// A secret for the operator of the server.
        omit "SupportDisablement" support_disablement: Option<Base64>,
    }

    /// `/machine/tka/sign`: gives the server the signature of a node key.
    struct TkaSubmitSignatureRequest {
        /// Capability version of the client.
        keep "Version" version: CapabilityVersion,
        /// Our node key.
        keep "NodeKey" node_key: NodePublic,
        /// The signature; the node key is inside.
        keep "Signature" signature: Base64,
    }

    /// `/machine/tka/disable`: ends the lock.
    struct TkaDisableRequest {
        /// Capability version of the client.
        keep "Version" version: CapabilityVersion,
        /// Our node key.
        keep "NodeKey" node_key: NodePublic,
        /// Our head.
        keep "Head" head: String,
        /// The secret.
        keep "DisablementSecret" disablement_secret: Base64,
    }

    /// `/machine/tka/affected-sigs`: asks which signatures stand on a key.
    struct TkaSignaturesUsingKeyRequest {
        /// Capability version of the client.
        keep "Version" version: CapabilityVersion,
        /// Our node key.
        keep "NodeKey" node_key: NodePublic,
        /// The key.
        keep "KeyID" key_id: Base64,
    }

    /// Answer to a [`TkaSignaturesUsingKeyRequest`].
    struct TkaSignaturesUsingKeyResponse {
        /// The signatures.
        list "Signatures" signatures: Vec<Base64>,
    }
}

impl TkaSignInfo {
    /// The key that may rotate the signature, if it is one.
    pub fn rotation_key(&self) -> Option<LockPublic> {
        let raw = self.rotation_pubkey.as_ref()?.0.as_slice();
        raw.try_into().ok().map(LockPublic::from_bytes)
    }
}
