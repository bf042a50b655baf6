//! The server in front of a real backend whose control server, engine and host are fakes.

mod bench;
mod bus;
mod checks;
mod endpoints;
mod limits;
mod lock;
mod logins;
mod matrix;
mod official_cli;
mod replay;
