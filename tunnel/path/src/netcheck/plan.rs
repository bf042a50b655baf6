//! Which STUN requests a report sends, and when (data-plane sheet §5.2).
