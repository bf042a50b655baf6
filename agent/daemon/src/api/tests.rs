//! The server in front of a real backend whose control server, engine and host are fakes.

mod bench;
mod bus;
mod checks;
mod limits;
mod matrix;
mod replay;
