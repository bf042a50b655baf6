//! The private decoders of this crate as functions of bytes, for `lab/fuzzing`.

use crate::sys::cmsg;

/// The control messages of a received datagram. Gives the length of its segments.
pub fn control_messages(control: &[u8]) -> Option<usize> {
    cmsg::parse(control).segment_len
}
