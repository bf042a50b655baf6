//! Which offloads are in use: probed at start, switched off by the user, by control, or by an error. Vector instructions for the
//! cipher have their switch here, too.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;
use tsrs_base_aead::Implementation;

/// Name of the environment variable that [`Disabled::from_env`] reads.
pub const DISABLE_VARIABLE: &str = "TSRS_DISABLE";

/// An offload that can be switched off on its own. Whatever is off, traffic still flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Offload {
    /// The kernel leaves cutting of TCP on the TUN to us (TSO).
    TunTso,
    /// The kernel leaves cutting of UDP on the TUN to us (USO, Linux ≥ 6.2).
    TunUso,
    /// Received TCP segments are joined before they go to the TUN.
    TunTcpGro,
    /// Received UDP datagrams are joined before they go to the TUN.
    TunUdpGro,
    /// The kernel cuts runs of outgoing datagrams (`UDP_SEGMENT`).
    UdpGso,
    /// The kernel joins incoming datagrams (`UDP_GRO`).
    UdpGro,
    /// Runs of equal datagrams may go out without a shorter one at the end. Linux 7.0 to 7.1.4 damages such runs; off adds
    /// a datagram of one byte that every receiver drops.
    EqualTail,
    /// The packets of a batch are sealed and opened side by side with vector instructions. A change meets new sessions only.
    SimdCipher,
}

impl Offload {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::TunTso,
        Self::TunUso,
        Self::TunTcpGro,
        Self::TunUdpGro,
        Self::UdpGso,
        Self::UdpGro,
        Self::EqualTail,
        Self::SimdCipher,
    ];

    /// Its name in `TSRS_DISABLE`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TunTso => "tun-tso",
            Self::TunUso => "tun-uso",
            Self::TunTcpGro => "tun-tcp-gro",
            Self::TunUdpGro => "tun-udp-gro",
            Self::UdpGso => "udp-gso",
            Self::UdpGro => "udp-gro",
            Self::EqualTail => "equal-tail",
            Self::SimdCipher => "simd-cipher",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of offloads that must not be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disabled(u8);

/// A name in the list is no offload.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{0:?} is no offload; known are tun-tso, tun-uso, tun-tcp-gro, tun-udp-gro, udp-gso, udp-gro, equal-tail, \
         simd-cipher, and tun-gso, tun-gro, all for several at once"
)]
pub struct UnknownOffload(String);

impl Disabled {
    /// What the environment says; nothing when the variable is not set.
    pub fn from_env() -> Result<Self, UnknownOffload> {
        std::env::var(DISABLE_VARIABLE).map_or(Ok(Self::default()), |list| list.parse())
    }

    /// This set and one more.
    #[must_use]
    pub const fn and(self, offload: Offload) -> Self {
        Self(self.0 | offload.bit())
    }

    /// Whether the set holds it.
    pub const fn contains(self, offload: Offload) -> bool {
        self.0 & offload.bit() != 0
    }
}

impl FromStr for Disabled {
    type Err = UnknownOffload;

    fn from_str(list: &str) -> Result<Self, UnknownOffload> {
        let mut disabled = Self::default();
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let named: &[Offload] = match name {
                "all" => &Offload::ALL,
                "tun-gso" => &[Offload::TunTso, Offload::TunUso],
                "tun-gro" => &[Offload::TunTcpGro, Offload::TunUdpGro],
                _ => match Offload::ALL.iter().position(|offload| offload.name() == name) {
                    Some(index) => &Offload::ALL[index..=index],
                    None => return Err(UnknownOffload(name.to_owned())),
                },
            };
            disabled = named.iter().fold(disabled, |set, offload| set.and(*offload));
        }
        Ok(disabled)
    }
}

/// The offloads in use now; workers read them once per batch.
#[derive(Debug)]
pub(crate) struct Switches([AtomicBool; Offload::ALL.len()]);

impl Clone for Switches {
    fn clone(&self) -> Self {
        Self(Offload::ALL.map(|offload| AtomicBool::new(self.is_on(offload))))
    }
}

impl Switches {
    /// Everything but `disabled` is on.
    pub(crate) fn new(disabled: Disabled) -> Self {
        Self(Offload::ALL.map(|offload| AtomicBool::new(!disabled.contains(offload))))
    }

    pub(crate) fn is_on(&self, offload: Offload) -> bool {
        self.0[offload as usize].load(Ordering::Relaxed)
    }

    /// Switches one off for the rest of the run; returns whether it was on.
    pub(crate) fn switch_off(&self, offload: Offload) -> bool {
        self.0[offload as usize].swap(false, Ordering::Relaxed)
    }

    /// Who seals and opens data packets.
    pub(crate) fn cipher(&self) -> Implementation {
        if self.is_on(Offload::SimdCipher) { Implementation::fastest() } else { Implementation::RING }
    }

    pub(crate) fn set(&self, offload: Offload, on: bool) {
        self.0[offload as usize].store(on, Ordering::Relaxed);
    }
}

/// Whether this kernel damages runs of equal datagrams (7.0 up to and including 7.1.4; performance.md §5).
pub(crate) fn kernel_damages_equal_tails(release: &str) -> bool {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse::<u32>().unwrap_or(0));
    let version = [(); 3].map(|()| numbers.next().unwrap_or(0));
    ([7, 0, 0]..=[7, 1, 4]).contains(&version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_names_offloads_singly_and_in_groups() {
        let disabled: Disabled = " udp-gso , tun-gso,".parse().unwrap();
        let held: Vec<_> = Offload::ALL.into_iter().filter(|offload| disabled.contains(*offload)).collect();
        assert_eq!(held, [Offload::TunTso, Offload::TunUso, Offload::UdpGso]);
        assert_eq!("".parse(), Ok(Disabled::default()));
        let all: Disabled = "all".parse().unwrap();
        assert!(Offload::ALL.iter().all(|offload| all.contains(*offload)));
        for offload in Offload::ALL {
            assert_eq!(offload.name().parse(), Ok(Disabled::default().and(offload)));
        }
        assert_eq!("udp-gso,turbo".parse::<Disabled>(), Err(UnknownOffload("turbo".to_owned())));
    }

    #[test]
    fn switch_goes_off_once_and_can_be_set_again() {
        let switches = Switches::new(Disabled::default().and(Offload::UdpGro));
        assert!(!switches.is_on(Offload::UdpGro));
        assert!(switches.switch_off(Offload::UdpGso));
        assert!(!switches.switch_off(Offload::UdpGso));
        switches.set(Offload::UdpGso, true);
        assert!(switches.is_on(Offload::UdpGso));
    }

    #[test]
    fn only_kernels_with_the_bug_need_unequal_tails() {
        for (release, bad) in [
            ("6.18.44-fc-v669", false),
            ("6.99.0", false),
            ("7.0.0-rc1", true),
            ("7.0", true),
            ("7.1.4-1-cloud-amd64", true),
            ("7.1.5", false),
            ("7.2.0", false),
            ("8.0.1", false),
            ("", false),
            ("garbage", false),
        ] {
            assert_eq!(kernel_damages_equal_tails(release), bad, "{release}");
        }
    }
}
