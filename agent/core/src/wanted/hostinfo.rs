//! What the control server is told about this host (control sheet §13).

use ipnet::{IpNet, Ipv4Net};
use tsrs_agent_localapi::Prefs;
use tsrs_control_tailcfg::Hostinfo;

/// Facts about the host that do not change while the agent runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Version of this program.
    pub version: String,
    /// Name of the host.
    pub hostname: String,
    /// Operating system, in the protocol's spelling.
    pub os: String,
    /// Version of the kernel.
    pub os_version: String,
    /// Distribution, such as `debian`.
    pub distro: String,
    /// Its version.
    pub distro_version: String,
    /// Its code name.
    pub distro_code_name: String,
    /// Machine type, such as `x86_64`.
    pub machine: String,
    /// Whether this is a container, if known.
    pub container: Option<bool>,
}

/// The description of this node. It names the program truthfully and claims nothing that is not there.
pub fn hostinfo(facts: &HostFacts, prefs: &Prefs, subnets: &[Ipv4Net]) -> Hostinfo {
    let mut routes: Vec<IpNet> = subnets.iter().copied().map(IpNet::V4).collect();
    routes.sort_unstable();
    routes.dedup();
    let mut tags = prefs.advertise_tags.clone().unwrap_or_default();
    tags.sort_unstable();
    tags.dedup();
    Hostinfo {
        ipn_version: facts.version.clone(),
        os: facts.os.clone(),
        os_version: facts.os_version.clone(),
        distro: facts.distro.clone(),
        distro_version: facts.distro_version.clone(),
        distro_code_name: facts.distro_code_name.clone(),
        machine: facts.machine.clone(),
        container: facts.container,
        hostname: if prefs.hostname.is_empty() { facts.hostname.clone() } else { prefs.hostname.clone() },
        shields_up: prefs.shields_up,
        routable_ips: routes,
        request_tags: tags,
        no_logs_no_support: true,
        userspace: Some(false),
        userspace_router: Some(false),
        ..Hostinfo::default()
    }
}
