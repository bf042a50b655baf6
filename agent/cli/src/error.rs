//! What a command that failed tells the user: the cause, the next step, and the exit code.

use std::fmt;

/// A failed command.
#[derive(Debug)]
pub(crate) struct CliError {
    cause: String,
    hint: Option<String>,
    /// Whether the request was refused for lack of rights.
    pub(crate) denied: bool,
}

impl CliError {
    /// An error with its cause, as one sentence without a final dot.
    pub(crate) fn new(cause: impl Into<String>) -> Self {
        Self { cause: cause.into(), hint: None, denied: false }
    }

    /// Adds what the user can do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Marks the error as a refusal for lack of rights.
    pub(crate) fn denied(mut self) -> Self {
        self.denied = true;
        self
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n{hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for CliError {}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<serde_json::Error> for CliError {
    fn from(error: serde_json::Error) -> Self {
        Self::new(format!("the daemon's answer is not what was expected: {error}"))
            .hint("Daemon and command line may be of different versions; see `tsrs-agent version --daemon`.")
    }
}

/// Result of a command.
pub(crate) type Result<T = ()> = std::result::Result<T, CliError>;
