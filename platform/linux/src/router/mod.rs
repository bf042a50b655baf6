//! Addresses, routes, rules and firewall (client sheet §3.1, §3.2).
//!
//! [`model`] says what is wanted and what differs, without touching the kernel; [`apply`] carries the difference out;
//! [`watch`] notices what others take away and has it put back.

mod apply;
mod model;
mod watch;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tsrs_platform_api::{EventSink, Instance, PlatformError, Result, Router, RouterConfig};

use crate::journal::{Journal, RouterEntry};
use crate::router::apply::Applier;
use crate::router::watch::Watcher;

/// The router of one instance over its TUN device.
#[derive(Debug)]
pub struct LinuxRouter {
    applier: Arc<Mutex<Applier>>,
    journal: Journal,
    entry: RouterEntry,
    /// Ends with the router.
    _watcher: Watcher,
}

impl LinuxRouter {
    /// A router for the TUN device with this name and number. It changes nothing yet.
    ///
    /// A thread of its own watches for what others remove, and tells `sink` what it did about it.
    pub fn new(
        instance: Instance,
        tun: &str,
        tun_index: u32,
        journal: Journal,
        sink: EventSink,
    ) -> Result<Self> {
        let failed = |cause: io::Error| {
            PlatformError::new("open netlink", cause)
                .with_next("run as root, or give the agent CAP_NET_ADMIN")
        };
        let applier = Arc::new(Mutex::new(Applier::new(instance, tun, tun_index).map_err(failed)?));
        let watcher = Watcher::start(Arc::clone(&applier), sink).map_err(failed)?;
        let entry = RouterEntry { instance, tun: tun.to_owned() };
        Ok(Self { applier, journal, entry, _watcher: watcher })
    }

    fn lock(&self) -> MutexGuard<'_, Applier> {
        self.applier.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Router for LinuxRouter {
    fn apply(&mut self, config: &RouterConfig) -> Result<()> {
        let on_link = if config.advertised.is_empty() { Vec::new() } else { self.lock().on_link()? };
        let (config, refused) = config.admissible(&on_link);
        if config.addresses.is_empty() {
            return self.close();
        }
        self.journal.update(|entries| entries.router = Some(self.entry.clone()))?;
        self.lock().apply(&config).and(refused)
    }

    fn warnings(&self) -> Vec<String> {
        self.lock().warnings()
    }

    fn check_forwarding(&self) -> Result<()> {
        check_forwarding(&self.entry.tun)
    }

    fn close(&mut self) -> Result<()> {
        self.lock().close()?;
        self.journal.update(|entries| entries.router = None)
    }
}

impl Drop for LinuxRouter {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "routes and firewall were not restored; the next start will do it");
        }
    }
}

fn check_forwarding(tun: &str) -> Result<()> {
    for sysctl in ["net.ipv4.ip_forward".to_owned(), format!("net.ipv4.conf.{tun}.forwarding")] {
        let path = format!("/proc/sys/{}", sysctl.replace('.', "/"));
        let value = std::fs::read_to_string(&path)
            .map_err(|cause| PlatformError::new(format!("read {path}"), cause))?;
        if value.trim() == "0" {
            return Err(PlatformError::refused(
                "forward packets to the advertised subnets",
                format!("the kernel does not forward: {sysctl} is 0"),
            )
            .with_next("run `sysctl -w net.ipv4.ip_forward=1`, and put it into /etc/sysctl.d to keep it"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod traffic_tests;
