//! Prefs, profiles, derived agent state, wanted state and its difference, health.
//!
//! Everything here is sans-IO: time and randomness are passed in, files and sockets are the daemon's. The crate joins
//! the wire types of the control protocol to the types of the tunnel and of the platform, once.
#![forbid(unsafe_code)]

pub mod agent;
pub mod agent_state;
pub mod bus;
pub mod config_file;
pub mod health;
pub mod lock;
pub mod prefs;
pub mod profiles;
pub mod state_file;
pub mod status;
pub mod takeover;
pub mod wanted;
