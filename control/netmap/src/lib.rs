//! Full and delta map responses folded into immutable snapshots and a list of changes.
#![forbid(unsafe_code)]
