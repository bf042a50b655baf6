//! The system calls that have no safe face elsewhere. The only modules of this crate with unsafe code.
//!
//! `cmsg` is plain bytes and safe; `mmsg` and `tun` hold one unsafe block per system call.

pub(crate) mod cmsg;
pub(crate) mod mmsg;
pub(crate) mod tun;
