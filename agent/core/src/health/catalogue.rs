//! Every problem that the agent itself can name.

use std::time::Duration;

/// A problem. Its code is what scripts see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Problem {
    /// The agent is coming up.
    WarmingUp,
    /// The user wants it down.
    WantRunningFalse,
    /// No network interface is up.
    NetworkStatus,
    /// The login failed or is needed.
    LoginState,
    /// The node key will expire soon.
    KeyExpiresSoon,
    /// Addresses, routes and peers are those of the last run.
    CachedNetmap,
    /// No map stream.
    NotInMapPoll,
    /// A TLS connection was refused.
    TlsConnectionFailed,
    /// No home DERP region.
    NoDerpHome,
    /// The home region is not connected.
    NoDerpConnection,
    /// A region reports a problem.
    DerpRegionError,
    /// The wanted UDP port was taken.
    UdpPortTaken,
    /// Addresses, routes, rules or the firewall could not be set.
    RouterFailed,
    /// The firewall of another program may drop what the tunnel carries.
    ForeignFirewall,
    /// Another program keeps removing what we set.
    RouterContested,
    /// The host does not forward packets.
    IpForwardingOff,
    /// Advertised routes that are not in effect.
    RoutesNotAdvertised,
    /// Peers offer routes that are not accepted.
    RoutesNotAccepted,
    /// The host's DNS settings could not be set.
    DnsSetFailed,
    /// Another program keeps overwriting the DNS settings.
    ResolvConfOverwritten,
    /// State could not be written.
    StateStore,
    /// A damaged state file was put aside.
    StateDamaged,
    /// Stored settings without effect.
    SettingsRemoved,
    /// The configuration file could not be used.
    ApplyDiskConfig,
    /// The packet filter of control could not be used; everything is refused.
    InvalidPacketFilter,
    /// Tailnet Lock is announced or demanded, and no chain is verified.
    LockUnverified,
    /// Control presents something that the verified lock does not allow.
    LockRefused,
    /// The lock does not sign this node.
    LockedOut,
    /// Anybody could sign another key in place of ours.
    LockWeakSignature,
    /// The chain of the lock could not be written.
    LockStore,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Low,
    /// Something does not work.
    Medium,
    /// Nothing works.
    High,
}

impl Severity {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

pub(super) struct Entry {
    pub(super) code: &'static str,
    pub(super) severity: Severity,
    pub(super) title: &'static str,
    /// `{}` is replaced by the detail.
    pub(super) text: &'static str,
    /// How long it must last before it is shown, so that passing states are not.
    pub(super) shown_after: Duration,
    pub(super) explained_by: &'static [Problem],
    pub(super) impacts_connectivity: bool,
}

const DOWN: &[Problem] = &[Problem::WantRunningFalse];
const STARTING: &[Problem] = &[Problem::WantRunningFalse, Problem::WarmingUp];
const OFFLINE: &[Problem] = &[Problem::WantRunningFalse, Problem::NetworkStatus];
const NO_HOME: &[Problem] = &[Problem::WantRunningFalse, Problem::NetworkStatus, Problem::NoDerpHome];

const fn low(code: &'static str, title: &'static str, text: &'static str) -> Entry {
    Entry {
        code,
        severity: Severity::Low,
        title,
        text,
        shown_after: Duration::ZERO,
        explained_by: &[],
        impacts_connectivity: false,
    }
}

const fn medium(code: &'static str, title: &'static str, text: &'static str) -> Entry {
    Entry { severity: Severity::Medium, ..low(code, title, text) }
}

const fn high(code: &'static str, title: &'static str, text: &'static str) -> Entry {
    Entry { severity: Severity::High, impacts_connectivity: true, ..low(code, title, text) }
}

impl Entry {
    const fn after(self, seconds: u64) -> Self {
        Self { shown_after: Duration::from_secs(seconds), ..self }
    }

    const fn unless(self, explained_by: &'static [Problem]) -> Self {
        Self { explained_by, ..self }
    }
}

pub(super) fn entry(problem: Problem) -> Entry {
    match problem {
        Problem::WarmingUp => {
            low("warming-up", "Tailscale is starting", "Tailscale is starting. Please wait.").after(5)
        }
        Problem::WantRunningFalse => low("wantrunning-false", "Tailscale off", "Tailscale is stopped."),
        Problem::NetworkStatus => high(
            "network-status",
            "Network down",
            "No network interface is up. Connect this host to a network.",
        )
        .after(5),
        Problem::LoginState => {
            medium("login-state", "Logged out", "You are logged out. The last login error was: {}").unless(STARTING)
        }
        Problem::KeyExpiresSoon => medium(
            "key-expires-soon",
            "Node key expires soon",
            "The key of this node expires at {}. Log in again before that with: tsrs-agent up --force-reauth; the \
             tunnel stays up meanwhile.",
        ),
        Problem::CachedNetmap => low(
            "netmap-cached",
            "Working from the last known state",
            "The control server was not reached since the start; addresses, routes and peers are those of {}.",
        )
        .after(30)
        .unless(OFFLINE),
        Problem::NotInMapPoll => medium(
            "not-in-map-poll",
            "Out of sync",
            "There is no connection to the control server, so changes of the tailnet are not seen. {}",
        )
        .after(480)
        .unless(OFFLINE),
        Problem::TlsConnectionFailed => medium(
            "tls-connection-failed",
            "Encrypted connection failed",
            "A TLS connection could not be verified: {}",
        )
        .unless(OFFLINE),
        Problem::NoDerpHome => medium(
            "no-derp-home",
            "No home relay server",
            "No relay server could be reached. Peers behind a NAT may not find this node. Check that TCP port 443 and \
             UDP port 3478 are open.",
        )
        .after(10)
        .unless(OFFLINE),
        Problem::NoDerpConnection => medium(
            "no-derp-connection",
            "Relay server unavailable",
            "The home relay server cannot be reached. Peers without a direct path cannot be reached.",
        )
        .after(10)
        .unless(NO_HOME),
        Problem::DerpRegionError => low("derp-region-error", "Relay server error", "A relay server reports: {}"),
        Problem::UdpPortTaken => low(
            "udp-port-taken",
            "UDP port taken",
            "UDP port {}. Give another one with --port, or stop the program that has it.",
        ),
        Problem::RouterFailed => high("router-set-failed", "Routes or firewall not set", "{}").unless(DOWN),
        Problem::ForeignFirewall => {
            medium("foreign-firewall", "Firewall of another program", "{}").unless(DOWN)
        }
        Problem::RouterContested => medium(
            "router-contested",
            "Routes or firewall fought over",
            "Another program keeps removing what this agent set: {}.",
        )
        .unless(DOWN),
        Problem::IpForwardingOff => {
            medium("ip-forwarding-off", "IP forwarding is off", "Subnet routes are advertised, but {}").unless(DOWN)
        }
        Problem::RoutesNotAdvertised => medium(
            "routes-not-advertised",
            "Subnet routes not offered",
            "These routes are kept in the settings but not offered to anybody: {}",
        )
        .unless(DOWN),
        Problem::RoutesNotAccepted => {
            low("routes-not-accepted", "Routes not accepted", "Some peers are advertising routes but --accept-routes is false")
        }
        Problem::DnsSetFailed => {
            medium("dns-set-os-config-failed", "DNS settings not applied", "The DNS settings of this host could not be set: {}")
                .unless(DOWN)
        }
        Problem::ResolvConfOverwritten => medium(
            "resolv-conf-overwritten",
            "DNS settings overwritten",
            "Another program keeps overwriting the DNS settings of this host; MagicDNS may not work.",
        )
        .unless(DOWN),
        Problem::StateStore => high(
            "state-store-health",
            "State not saved",
            "The state could not be written and will be lost at the next start: {}",
        ),
        Problem::StateDamaged => medium("state-damaged", "State file damaged", "{}"),
        Problem::SettingsRemoved => medium("settings-removed", "Stored settings without effect", "{}"),
        Problem::ApplyDiskConfig => medium("apply-disk-config", "Configuration file not used", "{}"),
        Problem::InvalidPacketFilter => high(
            "invalid-packet-filter",
            "Invalid packet filter",
            "The packet filter of the control server cannot be used, so incoming connections are refused: {}",
        ),
        Problem::LockUnverified => high(
            "tailnet-lock-unverified",
            "Tailnet Lock not verified",
            "Tailnet Lock is not verified, so peers are kept out: {}. See: tsrs-agent lock status",
        )
        .unless(DOWN),
        Problem::LockRefused => high(
            "tailnet-lock-refused",
            "Tailnet Lock contradicted by the control server",
            "Tailnet Lock stays as it was verified: {}. See: tsrs-agent lock status",
        )
        .unless(DOWN),
        Problem::LockWeakSignature => medium(
            "tailnet-lock-weak-signature",
            "Weak signature of this node",
            "The signature of this node names a rotation key for which anybody can sign, so the control server could put another \
             node in its place. On a node with a trusted key, run: {}",
        )
        .unless(DOWN),
        Problem::LockStore => medium(
            "tailnet-lock-store",
            "Tailnet Lock not saved",
            "The chain of Tailnet Lock could not be written, so the next start admits nobody before the control server is reached: {}",
        ),
        Problem::LockedOut => high(
            "tailnet-lock-locked-out",
            "Locked out by Tailnet Lock",
            "{}",
        )
        .unless(DOWN),
    }
}

/// Every problem, for tests of the table.
#[cfg(test)]
pub(super) const ALL: &[Problem] = &[
    Problem::WarmingUp,
    Problem::WantRunningFalse,
    Problem::NetworkStatus,
    Problem::LoginState,
    Problem::KeyExpiresSoon,
    Problem::CachedNetmap,
    Problem::NotInMapPoll,
    Problem::TlsConnectionFailed,
    Problem::NoDerpHome,
    Problem::NoDerpConnection,
    Problem::DerpRegionError,
    Problem::UdpPortTaken,
    Problem::RouterFailed,
    Problem::ForeignFirewall,
    Problem::RouterContested,
    Problem::IpForwardingOff,
    Problem::RoutesNotAdvertised,
    Problem::RoutesNotAccepted,
    Problem::DnsSetFailed,
    Problem::ResolvConfOverwritten,
    Problem::StateStore,
    Problem::StateDamaged,
    Problem::SettingsRemoved,
    Problem::ApplyDiskConfig,
    Problem::InvalidPacketFilter,
    Problem::LockUnverified,
    Problem::LockRefused,
    Problem::LockedOut,
    Problem::LockWeakSignature,
    Problem::LockStore,
];
