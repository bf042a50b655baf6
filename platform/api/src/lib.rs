//! What the agent asks of an operating system: wanted-state types, traits and their fakes.
#![forbid(unsafe_code)]
