//! Applies table and foreign rules to the kernel.

use tsrs_platform_api::Instance;

use crate::netlink::{Message, NetlinkError, Socket};
use crate::nft::abi;
use crate::nft::foreign::{self, tag};
use crate::nft::table::{self, Wanted};

/// The firewall of one instance.
#[derive(Debug)]
pub(crate) struct Firewall {
    instance: Instance,
    /// Opened when it is first needed: a kernel without nf_tables is no reason to fail before.
    socket: Option<Socket>,
    applied: Option<Wanted>,
}

impl Firewall {
    /// A firewall that has applied nothing yet.
    pub(crate) fn new(instance: Instance) -> Self {
        Self { instance, socket: None, applied: None }
    }

    /// Number by which notifications name this firewall as their cause.
    pub(crate) fn port(&self) -> Option<u32> {
        self.socket.as_ref().map(Socket::port)
    }

    /// Makes our table equal to `wanted`, or removes it.
    pub(crate) fn apply(&mut self, wanted: Option<&Wanted>) -> Result<(), NetlinkError> {
        let messages = match (wanted, &self.applied) {
            (None, None) => return Ok(()),
            (None, Some(_)) => return self.remove_table().map(drop),
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

    /// Removes our table, whoever made it, and says whether there was one.
    pub(crate) fn remove_table(&mut self) -> Result<bool, NetlinkError> {
        self.applied = None;
        match self.transaction(table::remove(self.instance)) {
            Err(NetlinkError { errno: libc::ENOENT, .. }) => Ok(false),
            outcome => outcome.map(|()| true),
        }
    }

    /// Sees to it that each foreign base chain with policy drop has our rule; gives the chains that refused it.
    pub(crate) fn divert(&mut self) -> Result<Vec<String>, NetlinkError> {
        let tag = tag(self.instance);
        let present = foreign::tagged_rules(self.socket()?, &tag)?;
        let chains = foreign::dropping_chains(self.socket()?)?;
        let mut refused = Vec::new();
        for chain in chains.iter().filter(|chain| !present.iter().any(|rule| rule.is_in(chain))) {
            // One by one: a table that its owner has locked must not keep the rule out of the others.
            if let Err(error) = self.transaction(vec![chain.accept_approved(self.instance)]) {
                refused.push(format!("{}: {error}", chain.label()));
            }
        }
        Ok(refused)
    }

    /// Removes our rule from all foreign chains, and says from how many.
    pub(crate) fn undivert(&mut self) -> Result<usize, NetlinkError> {
        let tag = tag(self.instance);
        let present = foreign::tagged_rules(self.socket()?, &tag)?;
        let mut outcome = Ok(present.len());
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
        let outcome = self.socket()?.transaction(abi::transaction(messages));
        if outcome.is_err() {
            // Confirmations of the refused transaction may still be queued.
            self.socket = None;
        }
        outcome
    }

    fn socket(&mut self) -> Result<&mut Socket, NetlinkError> {
        match &mut self.socket {
            Some(socket) => Ok(socket),
            empty => {
                let opened = Socket::netfilter().map_err(|error| NetlinkError {
                    errno: error.raw_os_error().unwrap_or(libc::EIO),
                    text: "open a netfilter socket".to_owned(),
                })?;
                Ok(empty.insert(opened))
            }
        }
    }
}
