//! Proof that a suite leaves the machine as it was.

use anyhow::{Result, bail};

use crate::command::run;

/// What a lab must never change on the machine.
#[derive(Debug, PartialEq, Eq)]
pub struct MachineGuard {
    parts: Vec<(&'static str, String)>,
}

impl MachineGuard {
    /// Notes the state of the machine.
    pub fn note() -> Self {
        let said = |program: &str, arguments: &[&str]| {
            // A program that is not there says the same before and after.
            run(program, arguments).unwrap_or_else(|error| format!("{error:#}"))
        };
        Self {
            parts: vec![
                ("/etc/resolv.conf", std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()),
                ("policy rules", said("ip", &["rule"])),
                ("IPv6 policy rules", said("ip", &["-6", "rule"])),
                ("routes", said("ip", &["route", "show", "table", "all"])),
                ("nftables", said("nft", &["-s", "list", "ruleset"])),
                ("forwarding", std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap_or_default()),
            ],
        }
    }

    /// An error that shows what differs now.
    pub fn compare(&self) -> Result<()> {
        let now = Self::note();
        for ((what, before), (_, after)) in self.parts.iter().zip(&now.parts) {
            if before != after {
                bail!("the machine's {what} changed\nbefore:\n{before}\nafter:\n{after}");
            }
        }
        Ok(())
    }
}
