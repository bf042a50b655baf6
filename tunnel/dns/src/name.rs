//! Domain names, compared without regard to case.

use std::fmt;

/// Longest name on the wire, with its length bytes and the root (RFC 1035 §2.3.4), less the one byte that the
/// reference leaves free: 254 bytes of text with the final dot.
pub const MAX_NAME_LEN: usize = 254;

/// A name in lower case, as labels joined by dots, without the final dot. The root is the empty name.
///
/// Labels may hold any byte but a dot, as the wire allows.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u8>);

/// The text is no domain name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A label is empty or longer than 63 bytes.
    #[error("domain name has a label that is empty or longer than 63 bytes")]
    Label,
    /// The whole name is too long.
    #[error("domain name is longer than {MAX_NAME_LEN} bytes")]
    Length,
}

impl Name {
    /// From text, with or without the final dot.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Ok(Self::default());
        }
        if text.len() > MAX_NAME_LEN - 1 {
            return Err(NameError::Length);
        }
        if text.split('.').any(|label| label.is_empty() || label.len() > 63) {
            return Err(NameError::Label);
        }
        Ok(Self(text.to_ascii_lowercase().into_bytes()))
    }

    /// From bytes that are known to be dot-joined labels.
    pub(crate) fn from_labels(joined: &[u8]) -> Self {
        Self(joined.to_ascii_lowercase())
    }

    /// The labels joined by dots, in lower case.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The labels, leftmost first.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'.').filter(|label| !label.is_empty())
    }

    /// The name without its first label; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let rest = self.0.iter().position(|&byte| byte == b'.').map_or(self.0.len(), |dot| dot + 1);
        Some(Self(self.0[rest..].to_vec()))
    }

    /// The name and everything it lies below, itself first, the root last.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> {
        std::iter::successors(Some(self.clone()), Self::parent)
    }

    /// Whether the name is `suffix` or lies below it.
    pub fn is_within(&self, suffix: &Self) -> bool {
        suffix.is_root()
            || self
                .0
                .strip_suffix(suffix.0.as_slice())
                .is_some_and(|front| front.is_empty() || front.ends_with(b"."))
    }

    /// The wire form: length bytes, labels, root.
    pub fn to_wire(&self) -> Vec<u8> {
        let mut wire = Vec::with_capacity(self.0.len() + 2);
        for label in self.labels() {
            // A label has at most 63 bytes, by construction.
            wire.push(u8::try_from(label.len()).unwrap_or(63));
            wire.extend_from_slice(label);
        }
        wire.push(0);
        wire
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
