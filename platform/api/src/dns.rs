//! The host's name resolution: the wanted state and who applies it.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::Result;

/// What the host's resolver is asked to do (data-plane sheet §9.6).
///
/// `Default` asks for nothing: the host keeps its own configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// Servers for names that match; usually the service address alone.
    pub nameservers: Vec<IpAddr>,
    /// Domains whose names go to `nameservers` and nowhere else.
    pub match_domains: Vec<MatchDomain>,
    /// Domains that are tried behind single-label names.
    pub search_domains: Vec<MatchDomain>,
    /// Whether `nameservers` answer everything else too.
    pub default_route: bool,
}

impl DnsConfig {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.nameservers.is_empty() && self.search_domains.is_empty()
    }
}

/// A domain, lower-case and without dots at its ends: `example.ts.net`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MatchDomain(String);

impl MatchDomain {
    /// Longest name in text form (RFC 1035 §2.3.4, without the length octets).
    const MAX_LEN: usize = 253;
    /// Longest label (RFC 1035 §2.3.4).
    const MAX_LABEL_LEN: usize = 63;

    /// The domain `name`, or `None` when it is no name that can stand in a resolver's configuration file: the text
    /// comes from the network, and a space or line break in it would be a second directive.
    pub fn new(name: &str) -> Option<Self> {
        let name = name.trim_matches('.').to_ascii_lowercase();
        let label_ok = |label: &str| {
            (1..=Self::MAX_LABEL_LEN).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        (name.len() <= Self::MAX_LEN && name.split('.').all(label_ok)).then_some(Self(name))
    }

    /// The name without a dot at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for MatchDomain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who owns the host's name resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DnsOwner {
    /// systemd-resolved, asked over D-Bus for our link alone.
    Resolved,
    /// Nobody: `/etc/resolv.conf` is a plain file that we may replace and restore.
    ResolvConf,
    /// A program that is not supported yet. Nothing is changed.
    Other(ForeignManager),
}

/// Programs that own `/etc/resolv.conf` on some hosts and whose file the agent leaves alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForeignManager {
    /// NetworkManager writes the file itself.
    NetworkManager,
    /// Debian's resolvconf or openresolv.
    Resolvconf,
    /// systemd-resolved's file, but the service does not answer.
    ResolvedNotRunning,
    /// systemd-resolved's file, but programs ask the servers in it without going through the service.
    ResolvedBypassed,
    /// tailscaled's file.
    Tailscaled,
    /// Another instance of the agent.
    OtherInstance,
    /// Some other program.
    Unknown,
}

/// Who owns name resolution, what was chosen and why; the text of `dns status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsStatus {
    /// The owner.
    pub owner: DnsOwner,
    /// One or two sentences for the user.
    pub explanation: String,
    /// Whether names can be split by domain. If not, the configuration has to claim every name (data-plane sheet
    /// §9.6) and forward the rest to `base_nameservers`.
    pub can_split: bool,
    /// The host's own servers, as read before anything was overwritten. Port 53 unless the system says otherwise.
    pub base_nameservers: Vec<SocketAddr>,
    /// The host's own search list.
    pub base_search: Vec<String>,
    /// What is applied now.
    pub applied: Option<DnsConfig>,
}

/// Sets the host's name resolution.
///
/// Calls block up to some seconds when a name service does not answer.
pub trait DnsConfigurator: Send {
    /// Makes the system match `config`; an empty one gives everything back.
    fn apply(&mut self, config: &DnsConfig) -> Result<()>;

    /// Owner, choice and the host's own servers.
    fn status(&self) -> DnsStatus;

    /// Makes the system forget cached answers, after a link change.
    fn flush_caches(&mut self) -> Result<()>;

    /// Restores exactly what was there. The configurator can be used again afterwards.
    fn close(&mut self) -> Result<()>;
}

/// What a configurator notices between calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsEvent {
    /// The host's own servers changed: the forwarder needs the new ones.
    BaseChanged {
        /// The new servers.
        nameservers: Vec<SocketAddr>,
    },
    /// Our configuration was overwritten and has been put back.
    Repaired,
    /// Another program keeps overwriting our configuration; it is left as it is now (`resolv-conf-overwritten`).
    Contested,
    /// A repair failed.
    RepairFailed {
        /// The error, as shown to the user.
        error: String,
    },
}
