//! Keeping values out of logs.

use std::fmt;

/// A value that is never printed: `Debug` shows a placeholder and there is no `Display`.
///
/// Use it for user secrets such as auth keys. The content is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Redacted<T: zeroize::Zeroize>(T);

impl<T: zeroize::Zeroize> Redacted<T> {
    /// Wraps a secret.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The secret itself. Name the reason where this is called: it is the one way around the redaction.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: zeroize::Zeroize> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<T: zeroize::Zeroize> Drop for Redacted<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let secret = Redacted::new(String::from("tskey-auth-abc"));
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert_eq!(secret.expose(), "tskey-auth-abc");
    }
}
