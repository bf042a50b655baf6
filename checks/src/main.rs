//! Static guards over cargo metadata and syntax trees.
#![forbid(unsafe_code)]

fn main() {}
