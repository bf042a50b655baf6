//! What the kernel says beside a datagram.

/// Control messages of a receive.
pub fn control_messages(data: &[u8]) {
    assert_ne!(tsrs_tunnel_engine::fuzzing::control_messages(data), Some(0));
}
