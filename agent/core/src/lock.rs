//! Tailnet Lock in the agent: which chain is believed, and which peers may be seen.
//!
//! [`Keeper`] holds the verified chain, brings it to control's head, and refuses what control may not do. [`Doors`] decides about each
//! peer: until a chain is verified nobody new comes in. [`Known`] is what the state file remembers, apart from the files of the chain.
//! Nothing here does input or output: calls to control and writes to disk are given out and their results are taken.

mod doors;
mod keeper;
mod known;
mod steps;

pub use doors::{Doors, Entry, Hidden};
pub use keeper::{Call, Keeper, KeeperError, LockAnswer, Rules, Stored, Wish};
pub use known::{Known, Lock};
pub use steps::StoreStep;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
