//! The path to a peer, as two numbers that workers read without locks.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tsrs_base_types::RegionId;
use tsrs_tunnel_path::SendPath;

/// Holds a [`SendPath`].
///
/// ```text
/// | address 32 | port 16 | unused 14 | also DERP | direct |     region of DERP, -1 for none
/// ```
///
/// The two numbers are read one after the other, so that a reader may see the direct part of one path with the region of
/// the next. That costs one packet at most and sends nothing to anybody who is not this peer.
#[derive(Debug)]
pub(crate) struct PathCell {
    direct: AtomicU64,
    region: AtomicI64,
}

const DIRECT: u64 = 1;
const ALSO_DERP: u64 = 2;
const NO_REGION: i64 = -1;

impl PathCell {
    pub(crate) fn store(&self, path: SendPath) {
        let direct = path
            .direct
            .map_or(0, |addr| u64::from(addr.ip().to_bits()) << 32 | u64::from(addr.port()) << 16 | DIRECT);
        let also_derp = if path.also_derp { ALSO_DERP } else { 0 };
        self.region.store(path.derp.map_or(NO_REGION, |region| region.0), Ordering::Relaxed);
        self.direct.store(direct | also_derp, Ordering::Release);
    }

    pub(crate) fn load(&self) -> SendPath {
        let raw = self.direct.load(Ordering::Acquire);
        let region = self.region.load(Ordering::Relaxed);
        let [a, b, c, d, port0, port1, ..] = raw.to_be_bytes();
        let addr = SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([port0, port1]));
        SendPath {
            direct: (raw & DIRECT != 0).then_some(addr),
            also_derp: raw & ALSO_DERP != 0,
            derp: (region != NO_REGION).then_some(RegionId(region)),
        }
    }
}

impl Default for PathCell {
    fn default() -> Self {
        Self { direct: AtomicU64::new(0), region: AtomicI64::new(NO_REGION) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_path_is_kept() {
        let cell = PathCell::default();
        assert_eq!(cell.load(), SendPath::default());
        for direct in [None, Some("0.0.0.0:0"), Some("1.2.3.4:5"), Some("255.255.255.255:65535")] {
            for also_derp in [false, true] {
                for derp in [None, Some(RegionId(0)), Some(RegionId(1)), Some(RegionId((1 << 53) - 1))] {
                    let path = SendPath { direct: direct.map(|text| text.parse().unwrap()), also_derp, derp };
                    cell.store(path);
                    assert_eq!(cell.load(), path);
                }
            }
        }
    }
}
