//! The gate in front of unstable software: a variable that whoever runs it must set.
//!
//! The daemon and every command that talks to one look at it; help, versions, completions and `cleanup` do not.

/// Name of the environment variable.
pub const VARIABLE: &str = "TS_RS_EXPERIMENT";

/// The one value that opens the gate.
pub const VALUE: &str = "this_is_unstable_software";

/// What is said, and why, when the variable does not have its value.
pub const REFUSAL: &str = "tsrs-agent is unstable software: it has had no independent security review, its state format may \
change, and it may cut this host off the network.\n\
To run it nevertheless, set the environment variable TS_RS_EXPERIMENT=this_is_unstable_software, for example:\n\
  sudo TS_RS_EXPERIMENT=this_is_unstable_software tsrs-agent up\n\
(sudo passes the variable on only when it stands on its command line.)";

/// Whether the gate is open, given the variable's value.
///
/// # Errors
/// It is closed; the text says why and how to open it.
pub fn check(value: Option<&str>) -> Result<(), &'static str> {
    if value == Some(VALUE) { Ok(()) } else { Err(REFUSAL) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_value_opens_the_gate() {
        assert_eq!(check(Some(VALUE)), Ok(()));
        for closed in [None, Some(""), Some("1"), Some("this_is_unstable_software ")] {
            let refusal = check(closed).unwrap_err();
            assert!(refusal.contains(VARIABLE) && refusal.contains(VALUE));
        }
    }
}
