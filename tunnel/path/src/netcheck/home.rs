//! Choice of the home region (data-plane sheet §5.4).
