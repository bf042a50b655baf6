//! The system calls that have no safe face elsewhere. The only modules of this crate with unsafe code.
//!
//! `cmsg` is plain bytes and safe; the others hold one unsafe block per call.

pub(crate) mod cmsg;
#[cfg(test)]
pub(crate) mod counting;
pub(crate) mod mmsg;
pub(crate) mod timer;
pub(crate) mod tun;
