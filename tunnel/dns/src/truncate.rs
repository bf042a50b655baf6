//! Answers that are too long for the client's datagram, and the size that upstreams are offered (RFC 6891 §6.2.3).

use crate::message::{HEADER_LEN, TRUNCATED};
use crate::resolver::Transport;

/// Longest answer that is passed on; the receive buffers have this size.
pub const MAX_RESPONSE_LEN: usize = 4095;

/// What a client takes that does not say otherwise (RFC 1035 §4.2.1).
const PLAIN_UDP_LEN: u16 = 512;

/// Bytes of an OPT record without options: root name, type, size, extended flags, empty data.
const OPT_LEN: usize = 11;

/// Position of the size field in an OPT record without options that ends the message. Other forms are left alone.
fn opt_size_at(query: &[u8]) -> Option<usize> {
    let start = query.len().checked_sub(OPT_LEN).filter(|start| *start >= HEADER_LEN)?;
    let record = &query[start..];
    let has_additional = query[10..12] != [0, 0];
    let empty = record[9..11] == [0, 0];
    (has_additional && empty && record.starts_with(&[0, 0, 41])).then_some(start + 3)
}

/// Caps the size that a query offers to the upstream at what we can pass on.
pub(crate) fn cap_offered_size(query: &mut [u8]) {
    let Some(at) = opt_size_at(query) else { return };
    if usize::from(u16::from_be_bytes([query[at], query[at + 1]])) > MAX_RESPONSE_LEN {
        query[at..at + 2].copy_from_slice(&4095u16.to_be_bytes());
    }
}

/// Sets the truncation bit of an answer that is longer than the client takes by UDP. The body is not cut: a client that
/// sees the bit asks again by TCP.
pub fn fit(query: &[u8], response: &mut [u8], transport: Transport) {
    if transport == Transport::Tcp || response.len() < HEADER_LEN {
        return;
    }
    let limit = opt_size_at(query).map_or(PLAIN_UDP_LEN, |at| u16::from_be_bytes([query[at], query[at + 1]]));
    if response.len() > usize::from(limit) {
        response[2] |= TRUNCATED.to_be_bytes()[0];
    }
}
