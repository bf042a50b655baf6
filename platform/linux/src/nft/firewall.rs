//! Applies table and foreign rules to the kernel.

use std::io;

use tsrs_platform_api::Instance;

use crate::netlink::{Message, NetlinkError, Socket};
use crate::nft::abi;
use crate::nft::foreign::{self, tag};
use crate::nft::table::{self, Wanted};

/// The firewall of one instance.
#[derive(Debug)]
pub(crate) struct Firewall {
    instance: Instance,
    socket: Socket,
    applied: Option<Wanted>,
}

impl Firewall {
    /// A firewall that has applied nothing yet.
    pub(crate) fn new(instance: Instance) -> io::Result<Self> {
        Ok(Self { instance, socket: Socket::netfilter()?, applied: None })
    }

    /// Number by which notifications name this firewall as their cause.
    pub(crate) fn port(&self) -> u32 {
        self.socket.port()
    }

    /// Makes our table equal to `wanted`, or removes it.
    pub(crate) fn apply(&mut self, wanted: Option<&Wanted>) -> Result<(), NetlinkError> {
        let messages = match (wanted, &self.applied) {
            (None, None) => return Ok(()),
            (None, Some(_)) => return self.remove_table(),
            (Some(wanted), Some(applied)) if wanted.shape == applied.shape => {
                wanted.update(&applied.elements, self.instance)
            }
            (Some(wanted), _) => wanted.create(self.instance),
        };
        if !messages.is_empty() {
            self.transaction(messages)?;
        }
        self.applied = wanted.cloned();
        Ok(())
    }

    /// Forgets what was applied, so that the next `apply` builds the table anew.
    pub(crate) fn distrust(&mut self) {
        self.applied = None;
    }

    /// Removes our table, whoever made it.
    pub(crate) fn remove_table(&mut self) -> Result<(), NetlinkError> {
        self.applied = None;
        match self.transaction(table::remove(self.instance)) {
            Err(NetlinkError { errno: libc::ENOENT, .. }) => Ok(()),
            other => other,
        }
    }

    /// Sees to it that each foreign base chain with policy drop has our rule; gives the chains that refused it.
    pub(crate) fn divert(&mut self) -> Result<Vec<String>, NetlinkError> {
        let present = foreign::tagged_rules(&mut self.socket, &tag(self.instance))?;
        let chains = foreign::dropping_chains(&mut self.socket)?;
        let mut refused = Vec::new();
        for chain in chains.iter().filter(|chain| !present.iter().any(|rule| rule.is_in(chain))) {
            // One by one: a table that its owner has locked must not keep the rule out of the others.
            if let Err(error) = self.transaction(vec![chain.accept_approved(self.instance)]) {
                refused.push(format!("{}: {error}", chain.label()));
            }
        }
        Ok(refused)
    }

    /// Removes our rule from all foreign chains.
    pub(crate) fn undivert(&mut self) -> Result<(), NetlinkError> {
        let present = foreign::tagged_rules(&mut self.socket, &tag(self.instance))?;
        let mut outcome = Ok(());
        for rule in present {
            match self.transaction(vec![rule.remove()]) {
                // Somebody was faster.
                Ok(()) | Err(NetlinkError { errno: libc::ENOENT, .. }) => {}
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    fn transaction(&mut self, messages: Vec<Message>) -> Result<(), NetlinkError> {
        let outcome = self.socket.transaction(abi::transaction(messages));
        if outcome.is_err() {
            // Confirmations of the refused transaction may still be queued.
            let applied = self.applied.take();
            *self = Self::new(self.instance).map_err(|error| NetlinkError {
                errno: error.raw_os_error().unwrap_or(libc::EIO),
                text: "reopen the netlink socket".to_owned(),
            })?;
            self.applied = applied;
        }
        outcome
    }
}
