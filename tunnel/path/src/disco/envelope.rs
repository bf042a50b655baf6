//! The envelope of a disco message (data-plane sheet §2.1).
//!
//! ```text
//! magic 6 | sender's disco public key 32 | nonce 24 | NaCl box (tag 16, then ciphertext)
//! ```

use rand_core::CryptoRngCore;
use tsrs_base_types::nacl::{NONCE_LEN, NaclBox, TAG_LEN};
use tsrs_base_types::{DiscoPrivate, DiscoPublic};
use zeroize::Zeroizing;

use super::message::Message;

/// What every disco packet begins with: "TS" and U+1F4AC.
pub const MAGIC: [u8; 6] = [0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac];
const KEY_LEN: usize = 32;
/// Bytes in front of the box.
pub const HEADER_LEN: usize = MAGIC.len() + KEY_LEN + NONCE_LEN;
/// Bytes that an envelope adds to a message.
pub const OVERHEAD_LEN: usize = HEADER_LEN + TAG_LEN;

/// Whether a datagram or relayed packet is disco. Says nothing about its sender.
pub fn is_disco(packet: &[u8]) -> bool {
    packet.len() >= HEADER_LEN && packet.starts_with(&MAGIC)
}

/// The key that the packet says it is from, and nonce and box for [`NaclBox::open`].
pub fn split(packet: &[u8]) -> Option<(DiscoPublic, &[u8])> {
    if !is_disco(packet) {
        return None;
    }
    let (key, sealed) = packet[MAGIC.len()..].split_first_chunk::<KEY_LEN>()?;
    Some((DiscoPublic::from_bytes(*key), sealed))
}

/// The box between us and one other disco key, made when it is first needed and kept: making it costs a
/// Diffie-Hellman, using it does not.
#[derive(Debug, Default)]
pub struct BoxCache(Option<Box<NaclBox>>);

impl BoxCache {
    fn nacl_box(&mut self, ours: &DiscoPrivate, theirs: &DiscoPublic) -> &NaclBox {
        self.0.get_or_insert_with(|| Box::new(ours.nacl_box(theirs.as_bytes())))
    }

    /// Opens the part behind the sender's key.
    pub fn open(
        &mut self,
        ours: &DiscoPrivate,
        theirs: &DiscoPublic,
        nonce_and_box: &[u8],
    ) -> Option<Zeroizing<Vec<u8>>> {
        self.nacl_box(ours, theirs).open(nonce_and_box).ok()
    }

    /// The whole packet that carries `message`. `our_public` goes on the wire, whoever the receiver is.
    pub fn seal(
        &mut self,
        rng: &mut impl CryptoRngCore,
        ours: &DiscoPrivate,
        our_public: &DiscoPublic,
        theirs: &DiscoPublic,
        message: &Message,
    ) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        rng.fill_bytes(&mut nonce);
        seal_with_nonce(self.nacl_box(ours, theirs), our_public, &nonce, &message.to_bytes())
    }
}

/// The whole packet under a given nonce, which must never repeat between two keys.
pub(super) fn seal_with_nonce(
    nacl: &NaclBox,
    our_public: &DiscoPublic,
    nonce: &[u8; NONCE_LEN],
    plain: &[u8],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(OVERHEAD_LEN + plain.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(our_public.as_bytes());
    out.extend_from_slice(nonce);
    out.extend_from_slice(&nacl.seal_with_nonce(nonce, plain));
    out
}
