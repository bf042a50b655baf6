//! The smaller calls inside Noise (sheet §19).

use std::collections::BTreeMap;

use tsrs_base_types::NodePublic;
use tsrs_base_types::time::WireTime;

use crate::{CapabilityVersion, RawMessage};

wire! {
    /// `POST /machine/set-dns`: sets a record for an ACME challenge.
    struct SetDnsRequest {
        /// Capability version of the client.
        keep "Version" version: CapabilityVersion,
        /// Our node key.
        keep "NodeKey" node_key: NodePublic,
        /// Name of the record.
        keep "Name" name: String,
        /// Type of the record, `TXT` for ACME.
        keep "Type" kind: String,
        /// Value of the record.
        keep "Value" value: String,
    }

    /// Answer to a [`SetDnsRequest`].
    struct SetDnsResponse {}

    /// `POST /machine/id-token`: asks for an OIDC token.
    struct TokenRequest {
        /// Capability version of the client.
        keep "CapVersion" cap_version: CapabilityVersion,
        /// Our node key.
        keep "NodeKey" node_key: NodePublic,
        /// Whom the token is for.
        keep "Audience" audience: String,
    }

    /// Answer to a [`TokenRequest`].
    struct TokenResponse {
        /// The token.
        keep "id_token" id_token: String,
    }

    /// `POST /machine/feature/query`: asks how a feature is enabled.
    struct QueryFeatureRequest {
        /// Name of the feature.
        omit "Feature" feature: String,
        /// Our node key.
        keep "NodeKey" node_key: NodePublic,
    }

    /// Answer to a [`QueryFeatureRequest`].
    struct QueryFeatureResponse {
        /// The feature is on.
        omit "Complete" complete: bool,
        /// Text for the user.
        omit "Text" text: String,
        /// Page to visit.
        omit "URL" url: String,
        /// Wait until the user has done it.
        omit "ShouldWait" should_wait: bool,
    }

    /// `PATCH /machine/set-device-attr`: sets posture attributes.
    struct SetDeviceAttributesRequest {
        /// Capability version of the client.
        keep "Version" version: CapabilityVersion,
        /// Our node key.
        keep "NodeKey" node_key: NodePublic,
        /// String, number, bool, or `null` to delete.
        keep "Update" update: BTreeMap<String, RawMessage>,
    }

    /// `POST /machine/audit-log`: reports what the user did.
    struct AuditLogRequest {
        /// Capability version of the client.
        omit "Version" version: CapabilityVersion,
        /// Our node key.
        omit "NodeKey" node_key: NodePublic,
        /// What was done, such as `DISCONNECT_NODE`.
        omit "Action" action: String,
        /// Why.
        omit "Details" details: String,
        /// When.
        omit "Timestamp" timestamp: WireTime,
    }

    /// `POST /machine/update-health`: reports a health problem.
    struct HealthChangeRequest {
        /// The part that has it.
        keep "Subsys" subsys: String,
        /// The problem; empty when it is over.
        keep "Error" error: String,
        /// Our node key.
        keep "NodeKey" node_key: NodePublic,
    }

    /// Answer of the web client authentication.
    struct WebClientAuthResponse {
        /// Session to wait for.
        omit "ID" id: String,
        /// Page to visit.
        omit "URL" url: String,
        /// The user has done it.
        omit "Complete" complete: bool,
    }
}

impl AuditLogRequest {
    /// `action` for a user who disconnects the node.
    pub const DISCONNECT_NODE: &'static str = "DISCONNECT_NODE";
}
