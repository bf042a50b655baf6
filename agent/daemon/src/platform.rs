//! The one module that names an operating system.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tsrs_platform_api::{
    DnsConfigurator, EventSink, Instance, LinkMonitor, PeerCredentials, Router, SocketBinder, TunConfig,
    TunDevice,
};
use tsrs_platform_linux as linux;

/// What the system offers to one agent.
pub(crate) struct Platform {
    pub(crate) tun: TunDevice,
    pub(crate) router: Box<dyn Router>,
    pub(crate) dns: Box<dyn DnsConfigurator>,
    pub(crate) link: Box<dyn LinkMonitor>,
    pub(crate) binder: Arc<dyn SocketBinder>,
    pub(crate) users: Arc<dyn PeerCredentials>,
}

/// Creates the TUN device and what goes with it; nothing of the host is changed yet.
pub(crate) fn open(
    instance: Instance,
    tun: &str,
    state_dir: &Path,
    sink: EventSink,
) -> anyhow::Result<Platform> {
    let journal = linux::Journal::open(state_dir)?;
    let device = linux::tun::create(&TunConfig::new(tun))?;
    let router = linux::LinuxRouter::new(instance, tun, device.index, journal.clone(), sink.clone())?;
    let dns = linux::LinuxDns::new(instance, device.index, journal, sink.clone())?;
    let link = linux::LinuxLinkMonitor::start(tun, sink)?;
    Ok(Platform {
        tun: device,
        router: Box::new(router),
        dns: Box::new(dns),
        link: Box::new(link),
        binder: Arc::new(linux::MarkBinder::new(instance)),
        users: Arc::new(linux::LinuxPeerCredentials),
    })
}

/// Undoes what a dead predecessor left; gives what was found, in words.
pub(crate) fn undo_predecessor(
    state_dir: &Path,
    instance: Instance,
    tun: &str,
) -> anyhow::Result<Vec<String>> {
    let report = linux::cleanup(state_dir, instance, tun)?;
    let mut words: Vec<String> = report.undone.iter().map(|what| (*what).to_owned()).collect();
    if let Some(path) = &report.corrupt_journal {
        words.push(format!("a damaged journal, kept as {}", path.display()));
    }
    match report.errors.into_iter().next() {
        Some(error) => Err(error).context("undo what a predecessor left"),
        None => Ok(words),
    }
}

/// Whether this process may change the host's network at all. Without it the first step to fail would be an arbitrary one.
pub(crate) fn check_privilege() -> anyhow::Result<()> {
    Ok(linux::check_privilege()?)
}

/// The tailscaled that stands in the way of instance 0, in words.
pub(crate) fn running_tailscaled() -> Option<String> {
    linux::running_tailscaled().map(|running| running.to_string())
}

/// Tells the service manager how the daemon is.
pub(crate) struct ServiceManager(linux::Notifier);

impl ServiceManager {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self(linux::Notifier::from_env().context("talk to the service manager")?))
    }

    pub(crate) fn ready(&self, status: &str) {
        log(self.0.ready(status));
    }

    pub(crate) fn status(&self, status: &str) {
        log(self.0.status(status));
    }

    pub(crate) fn stopping(&self) {
        log(self.0.stopping());
    }

    pub(crate) fn watchdog_interval(&self) -> Option<std::time::Duration> {
        self.0.watchdog_interval()
    }

    pub(crate) fn watchdog(&self) {
        log(self.0.watchdog());
    }
}

fn log(result: std::io::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "the service manager was not told");
    }
}
