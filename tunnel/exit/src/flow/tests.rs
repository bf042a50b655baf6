//! The stack against another implementation of TCP (smoltcp) over a link that loses, repeats and reorders, under a virtual clock.

use super::*;

mod closing;
mod opening;
mod pair;
mod resources;
mod transfer;

use pair::{Link, Pair};
