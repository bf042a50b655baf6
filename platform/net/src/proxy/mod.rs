//! Proxies that the environment asks for, between the agent and its servers.

pub(crate) mod env;
pub(crate) mod tunnel;
