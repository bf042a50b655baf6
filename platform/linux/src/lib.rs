//! Linux: TUN, routes and rules, nftables, DNS managers, link monitor, marks, peer credentials and the journal of changes.
mod dns;
mod journal;
mod netlink;
mod nft;
mod router;
mod rtnl;
mod stop;
mod sys;
pub mod tun;

pub use journal::Journal;
pub use router::LinuxRouter;

#[cfg(test)]
mod testing;
