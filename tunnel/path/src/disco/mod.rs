//! Disco: the messages with which peers find each other's addresses, and their envelope (data-plane sheet §2).

pub mod address;
pub mod envelope;
pub mod message;
pub mod relay;

pub use envelope::BoxCache;
pub use message::{Message, ParseError, TxId};

#[cfg(test)]
mod tests;
