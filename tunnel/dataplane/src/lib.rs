//! Joins the tunnel crates, owns the order of the steps and publishes the fast-path tables.
#![forbid(unsafe_code)]

pub mod tables;
