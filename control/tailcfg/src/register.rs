//! `POST /machine/register` (sheet §8).

use tsrs_base_types::time::WireTime;
use tsrs_base_types::{LockPublic, NodePublic};

use crate::{AuthKey, Base64, CapabilityVersion, Hostinfo, Login, User};

wire! {
    /// Asks to register, refresh, rotate, expire or log out a node key.
    struct RegisterRequest {
        /// Capability version of the client.
        keep "Version" version: CapabilityVersion,
        /// The key being registered.
        keep "NodeKey" node_key: NodePublic,
        /// The previous key on rotation, else zero.
        keep "OldNodeKey" old_node_key: NodePublic,
        /// Tailnet Lock key of the profile.
        keep "NLKey" nl_key: LockPublic,
        /// Auth key, if one is configured.
        omit "Auth" auth: Option<RegisterResponseAuth>,
        /// Zero normally. In the past with the current key: log out. Earlier than now planned: shorten.
        keep "Expiry" expiry: WireTime,
        /// The `AuthURL` being waited for; makes the call a long poll.
        keep "Followup" followup: String,
        /// The host as it is now.
        keep "Hostinfo" hostinfo: Option<Box<Hostinfo>>,
        /// Whether the node should vanish when it stops being active.
        omit "Ephemeral" ephemeral: bool,
        /// Signature of the new node key under Tailnet Lock.
        keep "NodeKeySignature" node_key_signature: Option<Base64>,
        /// Tailnet to join; `required:` in front makes it binding.
        omit "Tailnet" tailnet: String,
    }

    /// How the client proves that it may register.
    struct RegisterResponseAuth {
        /// Auth key made by an administrator.
        omit "AuthKey" auth_key: AuthKey,
    }

    /// Answer to a [`RegisterRequest`]. Check in this order: `error`, `node_key_signature`, `node_key_expired`,
    /// `auth_url`; when all are empty the node is logged in.
    struct RegisterResponse {
        /// The user that the node belongs to.
        keep "User" user: User,
        /// The login that the user came by.
        keep "Login" login: Login,
        /// The node key must be replaced by a new one.
        keep "NodeKeyExpired" node_key_expired: bool,
        /// Device approval. `false` without an `auth_url` is a success: the node waits for approval.
        keep "MachineAuthorized" machine_authorized: bool,
        /// Page that the user must visit.
        keep "AuthURL" auth_url: String,
        /// Signature that must be made again for a new node key.
        keep "NodeKeySignature" node_key_signature: Option<Base64>,
        /// Why the call failed; the other members are then void.
        keep "Error" error: String,
    }
}
