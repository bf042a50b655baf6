//! Linux: TUN, routes and rules, nftables, DNS managers, link monitor, marks, peer credentials and the journal of changes.
mod netlink;
mod nft;
mod rtnl;
mod sys;
pub mod tun;

#[cfg(test)]
mod testing;
