//! Linux: TUN, routes and rules, nftables, DNS managers, link monitor, marks, peer credentials and the journal of changes.
mod budget;
mod cleanup;
mod dns;
mod journal;
mod link_monitor;
mod marks;
mod netlink;
mod nft;
mod notify;
mod peer_cred;
mod router;
mod rtnl;
mod stop;
mod sys;
mod tailscaled;
pub mod tun;

pub use cleanup::{CleanupReport, cleanup};
pub use dns::LinuxDns;
pub use journal::Journal;
pub use link_monitor::LinuxLinkMonitor;
pub use marks::MarkBinder;
pub use notify::Notifier;
pub use peer_cred::LinuxPeerCredentials;
pub use router::LinuxRouter;
pub use tailscaled::{RunningTailscaled, running_tailscaled};

#[cfg(test)]
mod testing;
