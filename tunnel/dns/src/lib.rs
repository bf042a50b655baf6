//! MagicDNS: names, split-DNS choice and upstream queries in flight.
#![forbid(unsafe_code)]
