//! Every number, name and path by which one agent differs from another on the same host.
//!
//! Other programs rely on the values of instance 0: they are those that tailscaled documents.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How many agents can run on one host. The marks of all of them have to fit below the mask 0xff0000.
pub const INSTANCE_COUNT: u8 = 4;

/// Routing table of instance 0; the others follow.
const BASE_TABLE: u32 = 52;

/// UDP port that is tried first, by every instance. If it is taken any free one serves.
pub const DEFAULT_UDP_PORT: u16 = 41641;

/// Number of an agent on its host: 0 for the usual one, up to 3 for further tailnets at the same time.
///
/// | n | table | priorities | bypass | forward | exit | TUN |
/// |---|---|---|---|---|---|---|
/// | 0 | 52 | 5210 5230 5250 5270 | 0x080000 | 0x040000 | 0x100000 | `tailscale0` |
/// | 1 | 53 | 5110 5130 5150 5170 | 0x090000 | 0x050000 | 0x110000 | `tailscale1` |
/// | 2 | 54 | 5010 5030 5050 5070 | 0x0a0000 | 0x060000 | 0x120000 | `tailscale2` |
/// | 3 | 55 | 4910 4930 4950 4970 | 0x0b0000 | 0x070000 | 0x130000 | `tailscale3` |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Instance(u8);

/// A number that is not one of the instances.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("instance {0:?} does not exist: use a number from 0 to 3")]
pub struct InstanceRangeError(String);

impl Instance {
    /// The usual agent of a host.
    pub const ZERO: Self = Self(0);

    /// The instance with number `n`.
    pub fn new(n: u8) -> Result<Self, InstanceRangeError> {
        if n < INSTANCE_COUNT { Ok(Self(n)) } else { Err(InstanceRangeError(n.to_string())) }
    }

    /// All instances that can exist.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..INSTANCE_COUNT).map(Self)
    }

    /// The number itself.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The routing table that holds the routes into the tunnel.
    pub const fn table(self) -> u32 {
        BASE_TABLE + self.0 as u32
    }

    /// Priorities of the policy rules.
    pub const fn priorities(self) -> RulePriorities {
        let shift = 100 * self.0 as u32;
        RulePriorities {
            bypass_main: 5210 - shift,
            bypass_default: 5230 - shift,
            bypass_unreachable: 5250 - shift,
            tunnel: 5270 - shift,
        }
    }

    /// Packet marks.
    pub const fn marks(self) -> Marks {
        let shift = (self.0 as u32) << 16;
        Marks { bypass: 0x08_0000 + shift, forward: 0x04_0000 + shift, exit: 0x10_0000 + shift }
    }

    /// Name of the TUN device, unless the user chose another.
    pub fn tun_name(self) -> String {
        format!("tailscale{}", self.0)
    }

    /// Name of the nftables table.
    pub fn nft_table(self) -> String {
        format!("tsrs-{}", self.0)
    }

    /// Directory for all state: `/var/lib/tsrs-agent`, with `-<n>` behind it for n > 0.
    pub fn state_dir(self) -> PathBuf {
        PathBuf::from(format!("/var/lib/tsrs-agent{}", self.path_suffix()))
    }

    /// Directory of the socket: `/run/tsrs-agent`, with `-<n>` behind it for n > 0.
    pub fn runtime_dir(self) -> PathBuf {
        PathBuf::from(format!("/run/tsrs-agent{}", self.path_suffix()))
    }

    /// Path of the LocalAPI socket.
    pub fn socket(self) -> PathBuf {
        self.runtime_dir().join("tailscaled.sock")
    }

    /// Where the official programs look for a socket, if this instance may serve them.
    pub fn official_socket(self) -> Option<PathBuf> {
        (self == Self::ZERO).then(|| PathBuf::from("/run/tailscale/tailscaled.sock"))
    }

    fn path_suffix(self) -> String {
        if self == Self::ZERO { String::new() } else { format!("-{}", self.0) }
    }
}

/// Priorities of the policy rules of one instance, in the order in which the kernel looks at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RulePriorities {
    /// Marked packets of the agent itself: table `main`.
    pub bypass_main: u32,
    /// The same packets: table `default`.
    pub bypass_default: u32,
    /// The same packets: unreachable, so that they never fall through into the tunnel.
    pub bypass_unreachable: u32,
    /// Everything else: the tunnel's table.
    pub tunnel: u32,
}

/// Packet marks of one instance. Only the bits of [`Marks::MASK`] are ours; others are left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Packets of the agent's own sockets: they go around the tunnel.
    pub bypass: u32,
    /// Packets that came out of the TUN and may be forwarded to an advertised subnet.
    pub forward: u32,
    /// Packets of sockets that carry exit traffic: they may reach the proxies and nothing else.
    pub exit: u32,
}

impl Marks {
    /// The bits that all marks of all instances lie in.
    pub const MASK: u32 = 0xff_0000;
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Instance {
    type Err = InstanceRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().ok().and_then(|n| Self::new(n).ok()).ok_or_else(|| InstanceRangeError(text.to_owned()))
    }
}

impl TryFrom<u8> for Instance {
    type Error = InstanceRangeError;

    fn try_from(n: u8) -> Result<Self, Self::Error> {
        Self::new(n)
    }
}

impl From<Instance> for u8 {
    fn from(instance: Instance) -> Self {
        instance.0
    }
}
