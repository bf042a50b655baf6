//! One error type for what the operating system refuses.

use std::io;

use thiserror::Error;

/// Result of a platform call.
pub type Result<T> = std::result::Result<T, PlatformError>;

/// A step that failed: what was tried, why it failed, and what the user can do.
///
/// `Display` gives the whole sentence, so that it can be shown as it is in a health warning or on the command line.
#[derive(Debug, Error)]
#[error("{what}: {cause}{}", next_step(.next))]
pub struct PlatformError {
    /// What was tried, in the user's words: "create TUN device tailscale0".
    pub what: String,
    /// The system's answer. No source of its own: it is part of the text already.
    pub cause: io::Error,
    /// What helps, as an imperative sentence without a full stop; empty when nothing is known.
    pub next: String,
}

impl PlatformError {
    /// An error whose cause is an answer of the system.
    pub fn new(what: impl Into<String>, cause: io::Error) -> Self {
        Self { what: what.into(), cause, next: String::new() }
    }

    /// An error that the implementation itself decided on.
    pub fn refused(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(what, io::Error::other(why.into()))
    }

    /// Adds what helps.
    #[must_use]
    pub fn with_next(mut self, next: impl Into<String>) -> Self {
        self.next = next.into();
        self
    }

    /// Adds what helps, if this is the kind of the cause.
    #[must_use]
    pub fn with_next_if(self, kind: io::ErrorKind, next: impl Into<String>) -> Self {
        if self.kind() == kind { self.with_next(next) } else { self }
    }

    /// The kind of the cause: `PermissionDenied`, `AlreadyExists`, `NotFound` and so on.
    pub fn kind(&self) -> io::ErrorKind {
        self.cause.kind()
    }
}

fn next_step(next: &str) -> String {
    if next.is_empty() { String::new() } else { format!(" ({next})") }
}
