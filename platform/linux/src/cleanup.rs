//! Undoes what a predecessor left behind that ended without doing it itself.
//!
//! Rules and routes carry our protocol number, the firewall table our name, rules in foreign chains our tag: they are
//! recognised even if the journal is lost. For `resolv.conf` the journal is needed.

use std::io;
use std::path::{Path, PathBuf};

use tsrs_platform_api::{Instance, PlatformError, Result};

use crate::dns::restore_resolv_conf;
use crate::journal::Journal;
use crate::netlink::{NetlinkError, Socket};
use crate::nft::Firewall;
use crate::rtnl::{self, ROUTE_PROTOCOL, Rule};

/// What a clean-up did.
#[derive(Debug, Default)]
pub struct CleanupReport {
    /// What was found and undone, as words for the user; empty after an orderly end.
    pub undone: Vec<&'static str>,
    /// What could not be undone.
    pub errors: Vec<PlatformError>,
    /// Where a journal was moved that could not be read.
    pub corrupt_journal: Option<PathBuf>,
}

/// Undoes name resolution, rules, routes and firewall of a predecessor of this instance, whose TUN had this name.
///
/// The caller has made sure that no agent of this instance is running; that the TUN exists is taken as the sign of
/// one, and refused. Calling it when there is nothing to undo changes nothing.
pub fn cleanup(state_directory: &Path, instance: Instance, tun: &str) -> Result<CleanupReport> {
    let failed = |cause: io::Error| PlatformError::new("look for what a predecessor left", cause);
    let mut socket = Socket::route().map_err(failed)?;
    if rtnl::link_by_name(&mut socket, tun).map_err(|error| failed(error.into()))?.is_some() {
        return Err(PlatformError::refused(
            "clean up",
            format!("the interface {tun} exists, so its owner is running"),
        )
        .with_next("stop the program that owns it, or choose another name with --tun"));
    }
    let mut report = CleanupReport::default();
    let journal = report.open_journal(state_directory);
    let restored = report.restore_dns(journal.as_ref());
    let journalled =
        journal.as_ref().and_then(|journal| journal.entries().router).map(|entry| entry.instance);
    for instance in journalled.into_iter().filter(|other| *other != instance).chain([instance]) {
        report.remove_rules_and_routes(&mut socket, instance);
        report.remove_firewall(instance);
    }
    // In one step at the end: undoing once more does no harm, and an empty journal needs no room on a full disk.
    if let Some(journal) = journal {
        let all = report.errors.is_empty();
        let updated = journal.update(|entries| {
            entries.resolv_conf.take_if(|_| restored);
            entries.router.take_if(|_| all);
        });
        report.note("journal", updated);
    }
    Ok(report)
}

impl CleanupReport {
    /// The journal; one that cannot be read is moved aside, so that it is kept and a new one can be begun.
    fn open_journal(&mut self, directory: &Path) -> Option<Journal> {
        let error = match Journal::open(directory) {
            Ok(journal) => return Some(journal),
            Err(error) => error,
        };
        self.errors.push(error);
        self.corrupt_journal = Journal::set_aside(directory).ok();
        None
    }

    /// Whether the journal named a change that is now undone.
    fn restore_dns(&mut self, journal: Option<&Journal>) -> bool {
        let Some(change) = journal.and_then(|journal| journal.entries().resolv_conf) else { return false };
        let restored = restore_resolv_conf(&change)
            .map_err(|cause| PlatformError::new("restore /etc/resolv.conf", cause));
        let done = self.note("restore /etc/resolv.conf", restored).is_some();
        if done {
            self.undone.push("name resolution");
        }
        done
    }

    fn remove_rules_and_routes(&mut self, socket: &mut Socket, instance: Instance) {
        let rules = rtnl::rules(socket).map(|rules| {
            let ours = |rule: &&Rule| {
                rule.protocol == ROUTE_PROTOCOL
                    && Rule::of_instance(instance).iter().any(|own| own.same_effect(rule))
            };
            rules.iter().filter(ours).map(Rule::remove).collect::<Vec<_>>()
        });
        self.remove(socket, "policy rules", rules);
        let routes = rtnl::routes(socket, instance.table()).map(|routes| {
            routes
                .iter()
                .filter(|route| route.protocol == ROUTE_PROTOCOL)
                .map(rtnl::Route::remove)
                .collect::<Vec<_>>()
        });
        self.remove(socket, "routes", routes);
    }

    fn remove(
        &mut self,
        socket: &mut Socket,
        what: &'static str,
        messages: std::result::Result<Vec<crate::netlink::Message>, NetlinkError>,
    ) {
        let outcome = messages.and_then(|messages| {
            let count = messages.len();
            match socket.requests(messages)?.into_iter().next() {
                Some(failure) => Err(failure.error),
                None => Ok(count),
            }
        });
        if self.note_netlink(what, outcome).is_some_and(|count| count > 0) {
            self.undone.push(what);
        }
    }

    fn remove_firewall(&mut self, instance: Instance) {
        let mut firewall = Firewall::new(instance);
        let outcome = match firewall.undivert() {
            // A kernel without nf_tables holds nothing of ours.
            Err(NetlinkError { errno: libc::EINVAL | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT, .. }) => {
                return;
            }
            outcome => outcome,
        };
        if self.note_netlink("rules in foreign tables", outcome).is_some_and(|count| count > 0) {
            self.undone.push("rules in foreign tables");
        }
        if self.note_netlink("nftables table", firewall.remove_table()) == Some(true) {
            self.undone.push("firewall");
        }
    }

    fn note_netlink<T>(&mut self, what: &str, outcome: std::result::Result<T, NetlinkError>) -> Option<T> {
        let named = |error: NetlinkError| {
            PlatformError::new(format!("remove {what}"), error.into())
                .with_next_if(io::ErrorKind::PermissionDenied, "run as root")
        };
        self.note(what, outcome.map_err(named))
    }

    fn note<T>(&mut self, what: &str, outcome: Result<T>) -> Option<T> {
        outcome
            .map_err(|error| {
                tracing::warn!(what, %error, "clean-up");
                self.errors.push(error);
            })
            .ok()
    }
}

#[cfg(test)]
mod tests;
