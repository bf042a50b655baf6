//! The two MACs of handshake messages and the cookies between them (WireGuard paper §5.4.4, §5.4.7; data-plane sheet §1.3).

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Update};
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::AeadInPlace;
use rand_core::RngCore;
use subtle::ConstantTimeEq;
use tsrs_base_noise::{Secret, blake2s};
use tsrs_base_types::NodePublic;
use zeroize::{Zeroize, Zeroizing};

use crate::limits::COOKIE_LIFETIME;
use crate::rate::RateKey;
use crate::wire::{COOKIE_REPLY_LEN, Kind, cookie_reply, field};

const MAC1_LABEL: &[u8; 8] = b"mac1----";
const COOKIE_LABEL: &[u8; 8] = b"cookie--";
const MAC_LEN: usize = 16;

type Mac = [u8; MAC_LEN];

/// Where a datagram came from. The device does not look for peers by it: it binds cookies to it and sends cookie replies there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A UDP socket.
    Udp(SocketAddr),
    /// A node behind a relay server, which vouches for the key.
    Relay {
        /// Region of the relay.
        region: tsrs_base_types::RegionId,
        /// The node that sent it.
        node: NodePublic,
    },
}

impl Source {
    pub(crate) const fn rate_key(&self) -> RateKey {
        match self {
            Self::Udp(address) => RateKey::Address(address.ip()),
            Self::Relay { node, .. } => RateKey::Node(*node),
        }
    }

    /// The cookie of this source. What the cookie is made of is our own matter.
    fn mac(&self, secret: &[u8; 32]) -> Mac {
        match self {
            Self::Udp(address) => {
                let port = address.port().to_be_bytes();
                match address.ip() {
                    IpAddr::V4(ip) => mac(secret, &[&ip.octets(), &port]),
                    IpAddr::V6(ip) => mac(secret, &[&ip.octets(), &port]),
                }
            }
            Self::Relay { node, .. } => mac(secret, &[node.as_bytes()]),
        }
    }
}

/// The keys that everybody can make from a static public key.
#[derive(Clone)]
pub(crate) struct MacKeys {
    mac1: [u8; 32],
    cookie: [u8; 32],
}

impl MacKeys {
    pub(crate) fn new(public: &NodePublic) -> Self {
        Self {
            mac1: blake2s(&[MAC1_LABEL, public.as_bytes()]),
            cookie: blake2s(&[COOKIE_LABEL, public.as_bytes()]),
        }
    }

    /// Whether the first MAC of a message to the owner of these keys is right.
    pub(crate) fn mac1_verifies(&self, message: &[u8]) -> bool {
        split_macs(message).is_some_and(|(body, mac1, _)| mac(&self.mac1, &[body]).ct_eq(mac1).into())
    }
}

/// Makes cookies for others and recognises them.
pub(crate) struct CookieMaker {
    secret: Secret,
    made_at: Option<Instant>,
}

impl CookieMaker {
    pub(crate) fn new() -> Self {
        Self { secret: Zeroizing::new([0; 32]), made_at: None }
    }

    /// Whether the second MAC of a message was made with the cookie that its source was given.
    pub(crate) fn mac2_verifies(&self, message: &[u8], source: &Source, now: Instant) -> bool {
        if !self.is_fresh(now) {
            return false;
        }
        let cookie = source.mac(&self.secret);
        split_macs(message).is_some_and(|(body, mac1, mac2)| mac(&cookie, &[body, mac1]).ct_eq(mac2).into())
    }

    /// Answers a handshake message with a cookie. `own` are the keys of this device.
    pub(crate) fn reply(
        &mut self,
        message: &[u8],
        source: &Source,
        own: &MacKeys,
        rng: &mut dyn RngCore,
        now: Instant,
    ) -> Option<Vec<u8>> {
        if !self.is_fresh(now) {
            rng.fill_bytes(self.secret.as_mut_slice());
            self.made_at = Some(now);
        }
        let (_, mac1, _) = split_macs(message)?;
        let mut nonce = [0; 24];
        rng.fill_bytes(&mut nonce);
        // Both kinds of message have the sender's index here.
        let receiver: [u8; 4] = field(message, 4)?;
        let mut cookie = source.mac(&self.secret);
        let cipher = XChaCha20Poly1305::new((&own.cookie).into());
        let tag = cipher.encrypt_in_place_detached(&nonce.into(), mac1, &mut cookie).ok()?;
        let mut reply = Vec::with_capacity(COOKIE_REPLY_LEN);
        reply.extend_from_slice(&Kind::CookieReply.type_bytes());
        reply.extend_from_slice(&receiver);
        reply.extend_from_slice(&nonce);
        reply.extend_from_slice(&cookie);
        reply.extend_from_slice(&tag);
        Some(reply)
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.made_at.is_some_and(|at| now.saturating_duration_since(at) < COOKIE_LIFETIME)
    }
}

/// The MACs of our own messages to one peer, and the cookie that it gave us.
pub(crate) struct CookieJar {
    peer: MacKeys,
    last_mac1: Option<Mac>,
    cookie: Option<(Mac, Instant)>,
}

impl CookieJar {
    pub(crate) fn new(peer: &NodePublic) -> Self {
        Self { peer: MacKeys::new(peer), last_mac1: None, cookie: None }
    }

    /// Fills in both MACs of a message that is about to be sent.
    pub(crate) fn finish(&mut self, message: &mut [u8], now: Instant) {
        let Some(body_len) = message.len().checked_sub(2 * MAC_LEN) else {
            return;
        };
        let (body, macs) = message.split_at_mut(body_len);
        let mac1 = mac(&self.peer.mac1, &[body]);
        let mac2 = match &self.cookie {
            Some((cookie, at)) if now.saturating_duration_since(*at) < COOKIE_LIFETIME => {
                mac(cookie, &[body, &mac1])
            }
            _ => [0; MAC_LEN],
        };
        macs[..MAC_LEN].copy_from_slice(&mac1);
        macs[MAC_LEN..].copy_from_slice(&mac2);
        self.last_mac1 = Some(mac1);
    }

    /// Takes the cookie out of a reply to our last message; whether it is authentic.
    pub(crate) fn take_cookie(&mut self, reply: &[u8], now: Instant) -> bool {
        let (Some(mac1), Some(sealed), Some(nonce)) =
            (self.last_mac1, reply.get(cookie_reply::COOKIE), field::<24>(reply, cookie_reply::NONCE))
        else {
            return false;
        };
        let (cookie, tag) = sealed.split_at(MAC_LEN);
        let Ok(mut cookie) = Mac::try_from(cookie) else {
            return false;
        };
        let cipher = XChaCha20Poly1305::new((&self.peer.cookie).into());
        if cipher.decrypt_in_place_detached(&nonce.into(), &mac1, &mut cookie, tag.into()).is_err() {
            return false;
        }
        self.cookie = Some((cookie, now));
        true
    }
}

impl Drop for CookieJar {
    fn drop(&mut self) {
        if let Some((cookie, _)) = &mut self.cookie {
            cookie.zeroize();
        }
    }
}

/// Keyed BLAKE2s with 16 bytes of output.
fn mac(key: &[u8], parts: &[&[u8]]) -> Mac {
    // A key of 16 or 32 bytes is never refused.
    let Ok(mut state) = <Blake2sMac<U16> as KeyInit>::new_from_slice(key) else {
        return [0; MAC_LEN];
    };
    for part in parts {
        state.update(part);
    }
    state.finalize_fixed().into()
}

/// The part before the MACs, and the MACs.
fn split_macs(message: &[u8]) -> Option<(&[u8], &Mac, &Mac)> {
    let (rest, mac2) = message.split_last_chunk()?;
    let (body, mac1) = rest.split_last_chunk()?;
    Some((body, mac1, mac2))
}

#[cfg(test)]
mod tests;
