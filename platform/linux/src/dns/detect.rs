//! Decides who owns the host's name resolution. Pure: facts in, choice and explanation out.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use tsrs_platform_api::dns::ForeignManager;
use tsrs_platform_api::{DnsOwner, Instance};

use crate::dns::resolv_conf::ResolvConf;

/// What is known about the host.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Where `/etc/resolv.conf` leads, if it is a link.
    pub(super) link: Option<PathBuf>,
    /// Its content, if it can be read.
    pub(super) file: Option<ResolvConf>,
    /// Whether programs ask systemd-resolved by way of the name service switch before they read the file.
    pub(super) resolved_first: bool,
    /// Whether systemd-resolved answers on the system bus.
    pub(super) resolved_answers: bool,
}

/// The owner, and why: the text of `dns status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) owner: DnsOwner,
    pub(super) explanation: String,
}

/// Addresses at which systemd-resolved listens.
const RESOLVED_STUBS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];

/// Who signed the file, or owns the place where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signature {
    None,
    Resolved,
    NetworkManager,
    Resolvconf,
    Tailscaled,
    Agent(u8),
    /// A file below `/run`, which some program made.
    Runtime,
}

/// Decides. `instance` is ours: a file that it wrote is a leftover, not a foreign one.
pub(super) fn decide(facts: &Facts, instance: Instance) -> Choice {
    let stub_only = facts.file.as_ref().is_some_and(|file| {
        !file.nameservers.is_empty() && file.nameservers.iter().all(|server| RESOLVED_STUBS.contains(server))
    });
    let in_charge = facts.resolved_answers && (facts.resolved_first || stub_only);
    let signature = signature(facts);
    let other = |manager, explanation: &str| Choice {
        owner: DnsOwner::Other(manager),
        explanation: explanation.into(),
    };
    match signature {
        Signature::Agent(number) if number != instance.number() => other(
            ForeignManager::OtherInstance,
            "/etc/resolv.conf was written by another instance of the agent, and a plain file has room for one",
        ),
        Signature::Tailscaled => other(
            ForeignManager::Tailscaled,
            "/etc/resolv.conf was written by tailscaled; if it is not running, `tailscaled --cleanup` restores the file",
        ),
        _ if in_charge => Choice {
            owner: DnsOwner::Resolved,
            explanation: format!(
                "systemd-resolved answers this host's programs ({}), so our link gets servers and domains of its own \
                 and the rest of the host's name resolution stays as it is",
                if facts.resolved_first { "nsswitch.conf asks it first" } else { "resolv.conf points to it" }
            ),
        },
        Signature::Resolved if facts.resolved_answers => other(
            ForeignManager::ResolvedBypassed,
            "/etc/resolv.conf belongs to systemd-resolved but names its upstream servers, so programs do not ask the \
             service; link it to /run/systemd/resolve/stub-resolv.conf",
        ),
        Signature::None if stub_only => other(
            ForeignManager::ResolvedNotRunning,
            "/etc/resolv.conf points to systemd-resolved, which does not answer on the system bus; start it",
        ),
        Signature::Resolved => other(
            ForeignManager::ResolvedNotRunning,
            "/etc/resolv.conf belongs to systemd-resolved, which does not answer on the system bus; start it, or \
             replace the file by one of your own",
        ),
        Signature::NetworkManager => other(
            ForeignManager::NetworkManager,
            "NetworkManager writes /etc/resolv.conf by itself; set dns=systemd-resolved in NetworkManager.conf",
        ),
        Signature::Resolvconf => other(
            ForeignManager::Resolvconf,
            "resolvconf owns /etc/resolv.conf, and is not supported yet",
        ),
        Signature::Runtime => other(
            ForeignManager::Unknown,
            "/etc/resolv.conf is a link to a file below /run, so some program owns it",
        ),
        Signature::None | Signature::Agent(_) => Choice {
            owner: DnsOwner::ResolvConf,
            explanation: match facts.file {
                Some(_) => "/etc/resolv.conf is a plain file that no program has signed, so it is replaced while the \
                            agent runs; a plain file cannot split by domain, so every question goes to \
                            100.100.100.100 and what is not the tailnet's is passed on to the former servers"
                    .into(),
                None => "there is no /etc/resolv.conf, so one exists while the agent runs".into(),
            },
        },
    }
}

/// Whether a program has signed the file as its own, which is no leftover of ours.
pub(super) fn is_owned(link: Option<PathBuf>, file: &ResolvConf, instance: Instance) -> bool {
    let facts = Facts { link, file: Some(file.clone()), ..Facts::default() };
    match signature(&facts) {
        Signature::None => false,
        Signature::Agent(number) => number != instance.number(),
        Signature::Resolved
        | Signature::NetworkManager
        | Signature::Resolvconf
        | Signature::Tailscaled
        | Signature::Runtime => true,
    }
}

fn signature(facts: &Facts) -> Signature {
    if let Some(number) = facts.file.as_ref().and_then(|file| file.written_by) {
        return Signature::Agent(number);
    }
    let link = facts.link.as_deref().unwrap_or(Path::new(""));
    let below = |directory: &str| {
        link.starts_with(Path::new("/run").join(directory))
            || link.starts_with(Path::new("/var/run").join(directory))
    };
    let comments = facts.file.as_ref().map_or(&[][..], |file| &file.comments);
    let signed = |word: &str| comments.iter().any(|comment| comment.contains(word));
    // systemd-resolved's own comment names resolvconf and NetworkManager's may name resolved: the more special first.
    if below("systemd/resolve") || signed("systemd-resolved") {
        Signature::Resolved
    } else if below("NetworkManager") || signed("NetworkManager") {
        Signature::NetworkManager
    } else if below("resolvconf") || signed("resolvconf") {
        Signature::Resolvconf
    } else if signed("tailscale") {
        Signature::Tailscaled
    } else if below("") {
        Signature::Runtime
    } else {
        Signature::None
    }
}

/// Whether `hosts:` of nsswitch.conf asks systemd-resolved before it asks the servers of resolv.conf.
pub(crate) fn resolved_before_dns(nsswitch: &str) -> bool {
    let hosts = nsswitch.lines().find_map(|line| line.trim().strip_prefix("hosts:")).unwrap_or_default();
    let hosts = hosts.split('#').next().unwrap_or_default();
    let place = |word| hosts.split_whitespace().position(|service| service == word);
    match (place("resolve"), place("dns")) {
        (Some(resolve), Some(dns)) => resolve < dns,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host<'a> {
        link: &'a str,
        file: &'a str,
        first: bool,
        answers: bool,
    }

    const STUB: &str = "# This is /run/systemd/resolve/stub-resolv.conf managed by man:systemd-resolved(8).\n\
                        # Third party programs should typically not access this file directly, resolvconf(8)\n\
                        nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n";
    const UPLINK: &str = "# managed by man:systemd-resolved(8)\nnameserver 192.0.2.53\n";
    const NETWORK_MANAGER: &str = "# Generated by NetworkManager\nnameserver 192.0.2.53\n";
    const RESOLVCONF: &str = "# Dynamic resolv.conf(5) file for glibc resolver(3) generated by resolvconf(8)\nnameserver 192.0.2.53\n";
    const PLAIN: &str = "# my servers\nnameserver 192.0.2.53\n";

    fn owner(host: &Host<'_>) -> DnsOwner {
        let facts = Facts {
            link: (!host.link.is_empty()).then(|| host.link.into()),
            file: (!host.file.is_empty()).then(|| ResolvConf::parse(host.file)),
            resolved_first: host.first,
            resolved_answers: host.answers,
        };
        let choice = decide(&facts, Instance::ZERO);
        assert!(!choice.explanation.is_empty());
        choice.owner
    }

    #[test]
    fn owners_are_told_apart() {
        use ForeignManager as M;
        let stub = "/run/systemd/resolve/stub-resolv.conf";
        let host = |link, file, first, answers| Host { link, file, first, answers };
        let cases = [
            (host(stub, STUB, false, true), DnsOwner::Resolved),
            (host(stub, STUB, true, true), DnsOwner::Resolved),
            (host(stub, STUB, true, false), DnsOwner::Other(M::ResolvedNotRunning)),
            (host("", STUB, false, true), DnsOwner::Resolved),
            (
                host("/run/systemd/resolve/resolv.conf", UPLINK, false, true),
                DnsOwner::Other(M::ResolvedBypassed),
            ),
            (host("/run/systemd/resolve/resolv.conf", UPLINK, true, true), DnsOwner::Resolved),
            (host("", "nameserver 127.0.0.53\n", false, true), DnsOwner::Resolved),
            (host("", "nameserver 127.0.0.53\n", false, false), DnsOwner::Other(M::ResolvedNotRunning)),
            (host("", NETWORK_MANAGER, false, false), DnsOwner::Other(M::NetworkManager)),
            (host("", NETWORK_MANAGER, false, true), DnsOwner::Other(M::NetworkManager)),
            (host("", NETWORK_MANAGER, true, true), DnsOwner::Resolved),
            (
                host("/run/NetworkManager/resolv.conf", "nameserver 1.2.3.4", false, false),
                DnsOwner::Other(M::NetworkManager),
            ),
            (host("", RESOLVCONF, false, false), DnsOwner::Other(M::Resolvconf)),
            (host("/run/resolvconf/resolv.conf", PLAIN, false, false), DnsOwner::Other(M::Resolvconf)),
            (host("/run/connman/resolv.conf", PLAIN, false, false), DnsOwner::Other(M::Unknown)),
            (host("", PLAIN, false, false), DnsOwner::ResolvConf),
            (host("", PLAIN, false, true), DnsOwner::ResolvConf),
            (host("", PLAIN, true, true), DnsOwner::Resolved),
            (host("/etc/resolv.conf.static", PLAIN, false, false), DnsOwner::ResolvConf),
            (host("", "", false, false), DnsOwner::ResolvConf),
            (host("", "", true, true), DnsOwner::Resolved),
            (
                host(
                    "",
                    "# resolv.conf(5) file generated by tailscale\nnameserver 100.100.100.100",
                    true,
                    true,
                ),
                DnsOwner::Other(M::Tailscaled),
            ),
            (
                host("", "# Written by tsrs-agent, instance 0.\nnameserver 100.100.100.100", false, false),
                DnsOwner::ResolvConf,
            ),
            (
                host("", "# Written by tsrs-agent, instance 2.\nnameserver 100.100.100.100", false, false),
                DnsOwner::Other(M::OtherInstance),
            ),
        ];
        for (host, expected) in cases {
            assert_eq!(
                owner(&host),
                expected,
                "{} {:?} {} {}",
                host.link,
                host.file,
                host.first,
                host.answers
            );
        }
    }

    #[test]
    fn the_name_service_switch_is_read_in_order() {
        assert!(resolved_before_dns("passwd: files\nhosts: files resolve [!UNAVAIL=return] dns\n"));
        assert!(resolved_before_dns("hosts:\tfiles resolve"));
        assert!(!resolved_before_dns("hosts: files dns resolve"));
        assert!(!resolved_before_dns("hosts: files dns # resolve"));
        assert!(!resolved_before_dns("#hosts: resolve"));
        assert!(!resolved_before_dns(""));
    }
}
