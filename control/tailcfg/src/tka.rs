//! The calls of Tailnet Lock inside Noise: GET with a JSON body (Tailnet Lock sheet §15).
//!
//! Updates and signatures travel in their canonical encoding, heads and ancestors as base32 text; `control/tka` reads them.

use std::collections::BTreeMap;

use tsrs_base_types::{NodeId, NodePublic};

use crate::{Base64, CapabilityVersion, SecretBase64};

wire! {
    /// `/machine/tka/init/begin`: proposes a lock.
    struct TkaInitBeginRequest {
        /// Capability version of the client.
        keep "Version" version: CapabilityVersion,
        /// Our node key.
        keep "NodeKey" node_key: NodePublic,
        /// The first update.
        keep "GenesisAUM" genesis_aum: Base64,
    }

    /// Answer to a [`TkaInitBeginRequest`].
    struct TkaInitBeginResponse {
        /// The nodes that need a signature under the new lock.
        list "NeedSignatures" need_signatures: Vec<TkaSignInfo>,
    }

    /// A node that needs a signature.
    struct TkaSignInfo {
        /// Number of the node.
        keep "NodeID" node_id: NodeId,
        /// Its node key.
        keep "NodePublic" node_public: NodePublic,
        /// Its Tailnet Lock key, which may later sign a rotation; raw.
        keep "RotationPubkey" rotation_pubkey: Option<Base64>,
    }

    /// `/machine/tka/init/finish`: gives the signatures that `init/begin` asked for.
    struct TkaInitFinishRequest {
        /// Capability version of the client.
        keep "Version" version: CapabilityVersion,
        /// Our node key.
        keep "NodeKey" node_key: NodePublic,
        /// Signatures by number of the node.
        keep "Signatures" signatures: BTreeMap<NodeId, Base64>,
        /// A disablement secret that the operator of control may use.
        omit "SupportDisablement" support_disablement: SecretBase64,
    }

    /// Answer to a [`TkaInitFinishRequest`].
    struct TkaInitFinishResponse {}

    /// `/machine/tka/bootstrap`: asks how to begin a lock, or how to end it.
    struct TkaBootstrapRequest {
        /// Capability version of the client.
        keep "Version" version: CapabilityVersion,
        /// Our node key.
        keep "NodeKey" node_key: NodePublic,
        /// Our head; empty without a lock.
        keep "Head" head: String,
    }

    /// Answer to a [`TkaBootstrapRequest`].
    struct TkaBootstrapResponse {
        /// The first update, if the lock is on.
        omit "GenesisAUM" genesis_aum: Base64,
        /// The secret that ended the lock, if it is off.
        omit "DisablementSecret" disablement_secret: SecretBase64,
    }

    /// `/machine/tka/sync/offer`: says what we have.
    struct TkaSyncOfferRequest {
        /// Capability version of the client.
        keep "Version" version: CapabilityVersion,
        /// Our node key.
        keep "NodeKey" node_key: NodePublic,
        /// Our head.
        keep "Head" head: String,
        /// Some that it stands on, the newest first.
        list "Ancestors" ancestors: Vec<String>,
    }

    /// Answer to a [`TkaSyncOfferRequest`].
    struct TkaSyncOfferResponse {
        /// Head of control.
        keep "Head" head: String,
        /// Some that it stands on, the newest first.
        list "Ancestors" ancestors: Vec<String>,
        /// What we lack, the oldest first.
        list "MissingAUMs" missing_aums: Vec<Base64>,
    }

    /// `/machine/tka/sync/send`: gives control what it lacks.
    struct TkaSyncSendRequest {
        /// Capability version of the client.
        keep "Version" version: CapabilityVersion,
        /// Our node key.
        keep "NodeKey" node_key: NodePublic,
        /// Our head.
        keep "Head" head: String,
        /// What control lacks, the oldest first.
        list "MissingAUMs" missing_aums: Vec<Base64>,
        /// Whether a user waits for it.
        keep "Interactive" interactive: bool,
    }

    /// Answer to a [`TkaSyncSendRequest`].
    struct TkaSyncSendResponse {
        /// Head of control afterwards.
        keep "Head" head: String,
    }

    /// `/machine/tka/disable`: ends the lock.
    struct TkaDisableRequest {
        /// Capability version of the client.
        keep "Version" version: CapabilityVersion,
        /// Our node key.
        keep "NodeKey" node_key: NodePublic,
        /// Our head.
        keep "Head" head: String,
        /// One of the secrets that the lock was made with.
        keep "DisablementSecret" disablement_secret: SecretBase64,
    }

    /// Answer to a [`TkaDisableRequest`].
    struct TkaDisableResponse {}

    /// `/machine/tka/sign`: submits the signature of a node key; the key is inside.
    struct TkaSubmitSignatureRequest {
        /// Capability version of the client.
        keep "Version" version: CapabilityVersion,
        /// Our node key.
        keep "NodeKey" node_key: NodePublic,
        /// The signature.
        keep "Signature" signature: Base64,
    }

    /// Answer to a [`TkaSubmitSignatureRequest`].
    struct TkaSubmitSignatureResponse {}

    /// `/machine/tka/affected-sigs`: asks which signatures stand on a trusted key.
    struct TkaSignaturesUsingKeyRequest {
        /// Capability version of the client.
        keep "Version" version: CapabilityVersion,
        /// Our node key.
        keep "NodeKey" node_key: NodePublic,
        /// The trusted key, raw.
        keep "KeyID" key_id: Base64,
    }

    /// Answer to a [`TkaSignaturesUsingKeyRequest`].
    struct TkaSignaturesUsingKeyResponse {
        /// The signatures.
        list "Signatures" signatures: Vec<Base64>,
    }
}
