//! ChaCha20-Poly1305 for data packets, one call per batch.
