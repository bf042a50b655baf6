//! The sealed greetings: NaCl boxes of JSON between the client's node key and the server's key.

use rand_core::CryptoRngCore;
use serde::{Deserialize, Serialize};
use tsrs_base_types::{NodePrivate, NodePublic};

use crate::frame::{FrameType, KEY_LEN, PROTOCOL_VERSION, put_frame};

/// Why a greeting was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InfoError {
    /// Shorter than a key.
    #[error("greeting is too short")]
    Length,
    /// The box does not open: the sender does not hold the key it claims.
    #[error("greeting does not open with these keys")]
    Box,
    /// The content is not the JSON that it should be.
    #[error("greeting is not valid JSON")]
    Json,
}

/// What a client tells the server. The box around it proves its node key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientInfo {
    /// Protocol version.
    #[serde(default)]
    pub version: i64,
    /// The client answers pings.
    #[serde(rename = "CanAckPings", default)]
    pub can_ack_pings: bool,
    /// The client only measures.
    #[serde(rename = "IsProber", default, skip_serializing_if = "is_false")]
    pub is_prober: bool,
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Default for ClientInfo {
    fn default() -> Self {
        Self { version: PROTOCOL_VERSION, can_ack_pings: true, is_prober: false }
    }
}

impl ClientInfo {
    /// Appends the frame: public key 32, nonce 24, box.
    pub fn put(
        &self,
        out: &mut Vec<u8>,
        rng: &mut impl CryptoRngCore,
        client: &NodePrivate,
        server: &NodePublic,
    ) -> Result<(), InfoError> {
        let json = serde_json::to_vec(self).map_err(|_| InfoError::Json)?;
        let sealed = client.nacl_box(server.as_bytes()).seal(rng, &json);
        put_frame(out, FrameType::CLIENT_INFO, &[client.public().as_bytes(), &sealed]);
        Ok(())
    }

    /// Opens the body of the frame on the server's side; the key that comes back is proved.
    pub fn open(body: &[u8], server: &NodePrivate) -> Result<(NodePublic, Self), InfoError> {
        let (key, sealed) = body.split_first_chunk::<KEY_LEN>().ok_or(InfoError::Length)?;
        let json = server.nacl_box(key).open(sealed).map_err(|_| InfoError::Box)?;
        let info = serde_json::from_slice(&json).map_err(|_| InfoError::Json)?;
        Ok((NodePublic::from_bytes(*key), info))
    }
}

/// What the server tells a client. The names are case-exact.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {
    /// Protocol version.
    #[serde(default)]
    pub version: i64,
    /// Rate that the client must keep; none when zero.
    #[serde(rename = "TokenBucketBytesPerSecond", default, skip_serializing_if = "is_zero")]
    pub bytes_per_sec: i64,
    /// What it may send at once.
    #[serde(rename = "TokenBucketBytesBurst", default, skip_serializing_if = "is_zero")]
    pub burst_bytes: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl ServerInfo {
    /// Appends the frame: nonce 24, box.
    pub fn put(
        &self,
        out: &mut Vec<u8>,
        rng: &mut impl CryptoRngCore,
        server: &NodePrivate,
        client: &NodePublic,
    ) -> Result<(), InfoError> {
        let json = serde_json::to_vec(self).map_err(|_| InfoError::Json)?;
        let sealed = server.nacl_box(client.as_bytes()).seal(rng, &json);
        put_frame(out, FrameType::SERVER_INFO, &[&sealed]);
        Ok(())
    }

    /// Opens the body of the frame on the client's side.
    pub fn open(body: &[u8], client: &NodePrivate, server: &NodePublic) -> Result<Self, InfoError> {
        let json = client.nacl_box(server.as_bytes()).open(body).map_err(|_| InfoError::Box)?;
        serde_json::from_slice(&json).map_err(|_| InfoError::Json)
    }
}
