//! What a lab server is started with.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tsrs_base_types::RegionId;

use crate::dns::DnsSettings;
use crate::policy::Policy;

/// How to start a [`crate::LabControl`].
#[derive(Clone, Debug)]
pub struct LabConfig {
    /// Address of the control server. Its certificate is made for it and for [`Self::names`].
    pub address: IpAddr,
    /// Port of control over TLS; 0 takes any free one.
    pub https_port: u16,
    /// Port of control over plain HTTP and of the captive-portal check; 0 takes any free one, `None` opens none.
    pub http_port: Option<u16>,
    /// DNS names that stand in the certificate beside the addresses.
    pub names: Vec<String>,
    /// How long from now until the server's certificates become valid: what a host whose clock is behind sees.
    pub certificates_start_in: Duration,
    /// The DERP regions, each with its STUN server.
    pub regions: Vec<RegionConfig>,
    /// Suffix of MagicDNS names.
    pub base_domain: String,
    /// DNS beside MagicDNS.
    pub dns: DnsSettings,
    /// Who may reach what.
    pub policy: Policy,
    /// Users by login name; the first is the one that keys belong to if nothing else is said.
    pub users: Vec<String>,
    /// Whether a registered node waits for [`crate::LabControl::approve_machine`].
    pub machine_approval: bool,
    /// How long a node key is good for; `None` is for ever.
    pub key_lifetime: Option<Duration>,
    /// How long an ephemeral node may be away before it is deleted.
    pub ephemeral_timeout: Duration,
    /// Time without a frame after which a map stream gets a keep-alive.
    pub keep_alive: Duration,
    /// File that keeps nodes, keys and the server's own keys over a restart of the process.
    pub state_file: Option<PathBuf>,
    /// Run at the start of every thread of the server, for example to enter a network namespace.
    pub on_thread_start: ThreadHook,
}

impl Default for LabConfig {
    /// Everything on loopback, any free port, one DERP region.
    fn default() -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            https_port: 0,
            http_port: Some(0),
            names: vec!["localhost".to_owned()],
            certificates_start_in: Duration::ZERO,
            regions: vec![RegionConfig::default()],
            base_domain: "lab.test".to_owned(),
            dns: DnsSettings::default(),
            policy: Policy::allow_all(),
            users: vec!["lab@lab.test".to_owned()],
            machine_approval: false,
            key_lifetime: Some(Duration::from_secs(180 * 24 * 3600)),
            ephemeral_timeout: Duration::from_secs(120),
            // The range that the servers in the field keep is 50 to 59 s (control sheet §10).
            keep_alive: Duration::from_secs(52),
            state_file: None,
            on_thread_start: ThreadHook::default(),
        }
    }
}

/// One DERP region with one node, and the STUN server beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionConfig {
    /// Number in the DERP map; 900 to 999 by convention.
    pub id: RegionId,
    /// Short name.
    pub code: String,
    /// Address that the node listens on and that the map names.
    pub address: IpAddr,
    /// TCP port of DERP over TLS; 0 takes any free one. May be the port of control on the same address.
    #[serde(default)]
    pub derp_port: u16,
    /// UDP port of STUN; 0 takes any free one, `None` opens none.
    #[serde(default)]
    pub stun_port: Option<u16>,
    /// How the map lets a client trust the node's certificate.
    #[serde(default)]
    pub trust: DerpTrust,
}

impl Default for RegionConfig {
    fn default() -> Self {
        Self {
            id: RegionId(900),
            code: "lab".to_owned(),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            derp_port: 0,
            stun_port: Some(0),
            trust: DerpTrust::Roots,
        }
    }
}

/// How a client may verify a DERP node (data-plane sheet §4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DerpTrust {
    /// By the lab's CA, which the client must have among its roots.
    #[default]
    Roots,
    /// By the hash of a self-signed certificate in `CertName`.
    Pinned,
    /// Not at all: `InsecureForTests`.
    Insecure,
}

/// A function that every thread of a server runs first.
#[derive(Clone, Default)]
pub struct ThreadHook(Option<Arc<dyn Fn() + Send + Sync>>);

impl ThreadHook {
    /// A hook that runs `run`.
    pub fn new(run: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(run)))
    }

    /// Runs it on the present thread.
    pub(crate) fn run(&self) {
        if let Some(run) = &self.0 {
            run();
        }
    }
}

impl fmt::Debug for ThreadHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "ThreadHook(set)" } else { "ThreadHook(none)" })
    }
}
