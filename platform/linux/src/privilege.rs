//! Whether this process may change the host's network.

use std::fs;
use std::io;

use tsrs_platform_api::{PlatformError, Result};

/// Bit of CAP_NET_ADMIN in a set of capabilities (`linux/capability.h`).
const NET_ADMIN: u64 = 1 << 12;

/// An error that says what is missing, unless the present thread has CAP_NET_ADMIN. What cannot be found out is not in the
/// way: the step that needs the right will say so.
pub fn check_privilege() -> Result<()> {
    let effective = fs::read_to_string("/proc/thread-self/status").ok().and_then(|status| effective(&status));
    if effective.is_none_or(|set| set & NET_ADMIN != 0) {
        return Ok(());
    }
    let cause = io::Error::new(io::ErrorKind::PermissionDenied, "this process lacks CAP_NET_ADMIN");
    Err(PlatformError::new("change the network of this host", cause)
        .with_next("run as root, or give the agent CAP_NET_ADMIN"))
}

/// The effective set in `/proc/PID/status` (proc_pid_status(5)).
fn effective(status: &str) -> Option<u64> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_read_and_nothing_else() {
        let status = "Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t0000000000001000\nCapBnd:\t0000000000000000\n";
        assert_eq!(effective(status), Some(NET_ADMIN));
        assert_eq!(effective("CapPrm:\t000001ffffffffff\n"), None);
        assert_eq!(effective("CapEff:\tnonsense\n"), None);
        assert!(effective(&fs::read_to_string("/proc/self/status").unwrap()).is_some());
    }
}
