//! The codec and the client against the reference's bytes, and against each other.

mod client;
mod dialer;
mod reference;

use rand_core::{CryptoRng, RngCore};
use tsrs_base_types::{NodePrivate, NodePublic};

/// A seeded generator (SplitMix64), so that a failure repeats.
#[derive(Debug)]
pub(crate) struct TestRng(pub(crate) u64);

impl RngCore for TestRng {
    fn next_u32(&mut self) -> u32 {
        u32::try_from(self.next_u64() >> 32).unwrap()
    }

    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        for chunk in dest.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

impl CryptoRng for TestRng {}

pub(crate) const UPGRADED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nDerp-Version: 2\r\n\r\n";

pub(crate) fn server() -> NodePrivate {
    NodePrivate::from_bytes([0x61; 32])
}

pub(crate) fn client() -> NodePrivate {
    NodePrivate::from_bytes([0x62; 32])
}

pub(crate) fn peer() -> NodePublic {
    NodePrivate::from_bytes([0x63; 32]).public()
}
