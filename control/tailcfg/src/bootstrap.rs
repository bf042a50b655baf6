//! What is exchanged before the first request inside Noise (sheet §4, §7).

use tsrs_base_types::{ChallengePublic, MachinePublic};

wire! {
    /// Answer of `GET /key?v=<capability version>`: the root of trust for the Noise handshake.
    struct OverTlsPublicKeyResponse {
        /// Key of the transport before Noise; zero for every client of today.
        keep "legacyPublicKey" legacy_public_key: MachinePublic,
        /// Static key of the server in the Noise handshake.
        keep "publicKey" public_key: MachinePublic,
    }

    /// The early payload that the server may send between the Noise handshake and HTTP/2.
    struct EarlyNoise {
        /// Meant for proving possession of a node key; no client uses it.
        keep "nodeKeyChallenge" node_key_challenge: ChallengePublic,
    }
}
