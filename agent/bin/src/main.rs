//! The binary `tsrs-agent`: dispatch only.
#![forbid(unsafe_code)]

fn main() {}
