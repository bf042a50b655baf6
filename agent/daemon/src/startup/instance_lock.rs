//! One daemon per instance: an abstract Unix socket, which the kernel removes with its process.
//!
//! Abstract names belong to a network namespace, as do the table, rules and marks that two daemons of one instance would
//! fight over.

use std::io;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use anyhow::{Context, bail};
use nix::sys::socket::{getsockopt, sockopt};
use tsrs_platform_api::Instance;

/// Held while the daemon runs.
#[derive(Debug)]
pub(super) struct InstanceLock(#[expect(dead_code, reason = "held for its name")] Option<UnixListener>);

impl InstanceLock {
    /// Takes the lock of an instance in this network namespace.
    pub(super) fn take(instance: Instance) -> anyhow::Result<Self> {
        let address = SocketAddr::from_abstract_name(format!("tsrs-agent-instance-{instance}"))
            .context("name the lock of the instance")?;
        match UnixListener::bind_addr(&address) {
            Ok(listener) => Ok(Self(Some(listener))),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => match owner(&address) {
                Some(uid) if uid != 0 && uid != nix::unistd::geteuid().as_raw() => {
                    // Any user may take a name. Who cannot run an agent does not keep one from running.
                    tracing::warn!(
                        uid,
                        "a stranger holds the name by which daemons of this instance find each other"
                    );
                    Ok(Self(None))
                }
                Some(_) | None => bail!(
                    "another daemon of instance {instance} runs in this network namespace; stop it, or give this one \
                     another --instance"
                ),
            },
            Err(error) => Err(error).context("take the lock of the instance"),
        }
    }
}

/// Who holds the name; `None` if that cannot be found out.
fn owner(address: &SocketAddr) -> Option<u32> {
    let stream = UnixStream::connect_addr(address).ok()?;
    Some(getsockopt(&stream.as_fd(), sockopt::PeerCredentials).ok()?.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_of_an_instance_is_refused_until_the_first_is_gone() {
        // The last instance, in case that somebody runs an agent beside the tests.
        let instance = Instance::new(3).unwrap();
        let first = InstanceLock::take(instance).unwrap();
        let refusal = InstanceLock::take(instance).unwrap_err().to_string();
        assert!(refusal.contains("instance 3") && refusal.contains("--instance"), "{refusal}");
        assert!(InstanceLock::take(Instance::new(2).unwrap()).is_ok());
        drop(first);
        assert!(InstanceLock::take(instance).is_ok());
    }
}
