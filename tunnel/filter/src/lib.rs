//! Stateful packet filter, capability grants and the return-flow table.
#![forbid(unsafe_code)]
