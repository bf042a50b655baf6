//! Linux: TUN, routes and rules, nftables, DNS managers, link monitor, marks, peer credentials and the journal of changes.
//!
//! Everything goes by netlink, D-Bus and files; no program is run and nothing is found through `PATH`. The parts, in the
//! order in which a daemon uses them:
//!
//! 1. [`running_tailscaled`] for instance 0, and [`cleanup()`] of what a killed predecessor left;
//! 2. [`Journal::open`], which the two below write to before they change anything;
//! 3. [`tun::create`], [`LinuxRouter`] and [`LinuxDns`] (`Router` and `DnsConfigurator` of `platform/api`),
//!    [`LinuxLinkMonitor`];
//! 4. [`MarkBinder`] for every socket of the agent's own, [`LinuxPeerCredentials`] for those of its clients,
//!    [`Notifier`] for the service manager.
//!
//! What decides (state differences, firewall messages, who owns name resolution) is pure and tested without privilege;
//! what acts is tested in network and mount namespaces of the tests' own. The threads that watch for changes by others
//! sleep until the kernel or the bus tells them something.
//!
//! # Not here
//!
//! IPv6 (the tunnel carries IPv4, and the TUN has IPv6 switched off), exit use, the lock-down table that outlives the
//! daemon, and the DNS managers besides systemd-resolved and a plain file, which are recognised and left alone. Tables
//! of `iptables-legacy` are only warned about.

mod budget;
mod cleanup;
mod dns;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod journal;
mod link_monitor;
mod marks;
mod netlink;
mod nft;
mod notify;
mod peer_cred;
mod privilege;
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
pub use privilege::check_privilege;
pub use router::LinuxRouter;
pub use tailscaled::{RunningTailscaled, running_tailscaled};

#[cfg(test)]
mod testing;
