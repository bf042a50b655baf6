//! What may pass in each direction.

use tsrs_tunnel_packet::DropReason;
use tsrs_tunnel_packet::ipv4::Parsed;

/// Decides about packets in both directions.
#[derive(Clone, Debug, Default)]
pub enum Policy {
    /// Nothing passes: there is no netmap yet.
    #[default]
    Closed,
    /// Everything passes that belongs to its peer: plain WireGuard.
    Open,
}

impl Policy {
    /// May the host send this packet to a peer?
    pub(crate) fn check_out(&self, _parsed: &Parsed) -> Result<(), DropReason> {
        match self {
            Self::Closed => Err(DropReason::NoFilter),
            Self::Open => Ok(()),
        }
    }

    /// May a peer send this packet to us?
    pub(crate) fn check_in(&self, _parsed: &Parsed, _jailed: bool) -> Result<(), DropReason> {
        match self {
            Self::Closed => Err(DropReason::NoFilter),
            Self::Open => Ok(()),
        }
    }
}
