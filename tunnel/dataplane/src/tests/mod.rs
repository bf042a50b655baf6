//! Two data planes in memory, with a virtual clock.

mod delta;
mod pair;
mod paths;
mod tunnel;
