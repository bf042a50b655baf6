//! Path finding: disco and STUN codecs, netcheck, endpoint discovery and the path to each peer.
#![forbid(unsafe_code)]
