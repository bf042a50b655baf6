//! The host's name resolution (client sheet §3.3, data-plane sheet §9.6).
//!
//! [`detect`] finds out who owns it, from facts alone; [`resolved`] asks systemd-resolved over D-Bus for our link;
//! [`plain`] replaces a `resolv.conf` that nobody owns, and restores it. A file that another program owns is never
//! touched: then nothing is set, and the status says why.

mod detect;
mod file;
mod plain;
mod resolv_conf;
mod resolved;

use std::path::{Component, Path, PathBuf};

use tsrs_platform_api::{
    DnsConfig, DnsConfigurator, DnsOwner, DnsStatus, EventSink, Instance, PlatformError, Result,
};

pub(crate) use crate::dns::detect::resolved_before_dns;
use crate::dns::detect::{Choice, Facts};
pub(crate) use crate::dns::file::{ResolvConfChange, recognise_change, restore_resolv_conf};
use crate::dns::plain::PlainFile;
pub(crate) use crate::dns::resolv_conf::ResolvConf;
use crate::dns::resolved::Resolved;
use crate::journal::Journal;

/// Where the host's files are.
#[derive(Clone, Debug)]
pub(crate) struct HostFiles {
    pub(crate) resolv_conf: PathBuf,
    pub(crate) nsswitch: PathBuf,
    /// Address of the system bus; `None` is the usual one.
    pub(crate) bus: Option<String>,
}

impl HostFiles {
    /// Those of this host.
    pub(crate) fn of_host() -> Self {
        Self { resolv_conf: "/etc/resolv.conf".into(), nsswitch: "/etc/nsswitch.conf".into(), bus: None }
    }
}

/// Sets name resolution by the means that fit this host.
#[derive(Debug)]
pub struct LinuxDns {
    resolved: Resolved,
    plain: PlainFile,
    files: HostFiles,
    instance: Instance,
    choice: Choice,
    applied: Option<DnsConfig>,
}

impl LinuxDns {
    /// A configurator for the TUN device with this number. It finds out who owns name resolution and changes nothing.
    ///
    /// Threads of its own watch the name service and the file, and tell `sink` what happens there.
    pub fn new(instance: Instance, tun_index: u32, journal: Journal, sink: EventSink) -> Result<Self> {
        Self::with_files(instance, tun_index, journal, sink, HostFiles::of_host())
    }

    pub(crate) fn with_files(
        instance: Instance,
        tun_index: u32,
        journal: Journal,
        sink: EventSink,
        files: HostFiles,
    ) -> Result<Self> {
        let started = |cause| PlatformError::new("watch the host's name resolution", cause);
        let resolved = Resolved::start(tun_index, files.bus.clone(), sink.clone()).map_err(started)?;
        let plain = PlainFile::start(instance, &files.resolv_conf, journal, sink).map_err(started)?;
        let choice = detect::decide(&gather(&files, &resolved), instance);
        Ok(Self { resolved, plain, files, instance, choice, applied: None })
    }

    fn withdraw(&mut self) -> Result<()> {
        match self.choice.owner {
            DnsOwner::Resolved => self.resolved.revert()?,
            DnsOwner::ResolvConf => self.plain.restore()?,
            DnsOwner::Other(_) => {}
        }
        self.applied = None;
        Ok(())
    }
}

impl DnsConfigurator for LinuxDns {
    fn apply(&mut self, config: &DnsConfig) -> Result<()> {
        if config.is_empty() {
            return self.withdraw();
        }
        if self.applied.is_none() {
            self.choice = detect::decide(&gather(&self.files, &self.resolved), self.instance);
        }
        match self.choice.owner {
            DnsOwner::Resolved => self.resolved.apply(config)?,
            DnsOwner::ResolvConf => self.plain.apply(config)?,
            DnsOwner::Other(_) => {
                return Err(PlatformError::refused(
                    "set the host's name resolution",
                    self.choice.explanation.clone(),
                )
                .with_next("names of the tailnet still resolve when asked at 100.100.100.100"));
            }
        }
        self.applied = Some(config.clone());
        Ok(())
    }

    fn status(&self) -> DnsStatus {
        let base = match self.choice.owner {
            DnsOwner::Resolved => self.resolved.base().unwrap_or_default(),
            DnsOwner::ResolvConf | DnsOwner::Other(_) => self.plain.base(),
        };
        DnsStatus {
            owner: self.choice.owner,
            explanation: self.choice.explanation.clone(),
            can_split: self.choice.owner == DnsOwner::Resolved,
            base_nameservers: base.servers(),
            base_search: base.search,
            applied: self.applied.clone(),
        }
    }

    fn flush_caches(&mut self) -> Result<()> {
        match self.choice.owner {
            DnsOwner::Resolved => self.resolved.flush(),
            // A plain file has no cache behind it that anybody could flush.
            DnsOwner::ResolvConf | DnsOwner::Other(_) => Ok(()),
        }
    }

    fn close(&mut self) -> Result<()> {
        self.withdraw()
    }
}

impl Drop for LinuxDns {
    fn drop(&mut self) {
        if let Err(error) = self.withdraw() {
            tracing::warn!(%error, "name resolution was not restored; the next start will do it");
        }
    }
}

/// The facts that decide who owns name resolution.
fn gather(files: &HostFiles, resolved: &Resolved) -> Facts {
    let text = std::fs::read_to_string(&files.resolv_conf).ok();
    let nsswitch = std::fs::read_to_string(&files.nsswitch).unwrap_or_default();
    Facts {
        link: std::fs::read_link(&files.resolv_conf).ok().map(|target| absolute(&files.resolv_conf, &target)),
        file: text.as_deref().map(ResolvConf::parse),
        resolved_first: resolved_before_dns(&nsswitch),
        resolved_answers: resolved.answers(),
    }
}

/// The target of a link, as a path without `..`: links in `/etc` are usually relative.
fn absolute(link: &Path, target: &Path) -> PathBuf {
    let mut path = link.parent().unwrap_or(Path::new("/")).to_owned();
    for part in target.components() {
        match part {
            Component::ParentDir => _ = path.pop(),
            Component::CurDir => {}
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => path.push(part),
        }
    }
    path
}

#[cfg(test)]
mod resolved_tests;
#[cfg(test)]
mod tests;
