//! The gate: this is unstable software, and nobody runs it by accident.
//!
//! The daemon, `up` and every command that talks to a daemon ask [`check`] first; help, versions, completions and the
//! clean-up after a dead daemon do not. The caller reads the environment.

use std::ffi::OsStr;

/// Name of the environment variable.
pub const VARIABLE: &str = "TS_RS_EXPERIMENT";
/// The only value that opens the gate.
pub const VALUE: &str = "this_is_unstable_software";

/// The gate is closed; the text says why and how to open it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "tsrs-agent is unstable software: it has not been audited, and it changes routes, DNS and firewall of this host.\n\
     To run it all the same, set {VARIABLE}={VALUE} in the environment of this command:\n\
     \n    sudo {VARIABLE}={VALUE} tsrs-agent …"
)]
pub struct GateClosed;

/// Whether the variable's value opens the gate.
///
/// # Errors
/// It does not.
pub fn check(value: Option<&OsStr>) -> Result<(), GateClosed> {
    if value == Some(OsStr::new(VALUE)) { Ok(()) } else { Err(GateClosed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_value_opens_the_gate() {
        assert_eq!(check(Some(OsStr::new("this_is_unstable_software"))), Ok(()));
        for closed in
            [None, Some(""), Some("1"), Some("this_is_unstable_software "), Some("THIS_IS_UNSTABLE_SOFTWARE")]
        {
            assert_eq!(check(closed.map(OsStr::new)), Err(GateClosed), "{closed:?}");
        }
        assert!(GateClosed.to_string().contains("TS_RS_EXPERIMENT=this_is_unstable_software"));
    }
}
